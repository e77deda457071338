//! Rules that change while the server runs.

use serde_json::json;
use tidewire::config::{Config, OnStoreError};

use super::refusals::{Fragile, serve};
use super::{keep, rule};
use crate::common::demo_app;

#[tokio::test]
async fn who_was_subscribed_before_the_channel_was_stored_may_go_back() {
    let store = Fragile::new();
    let server = serve(&store, OnStoreError::Reject);
    let rest = server.rest();
    for number in ["1", "2", "3"] {
        rest.publish("log-a", "e", number).await;
    }
    server.inner().reload(Config::for_tests(vec![demo_app()])).unwrap();
    let mut client = server.connect().await;
    client.subscribe("log-a").await;
    // Nothing is stored now, and it is told so.
    client.send_subscribe(json!({"channel": "log-a", "replay": {"v": 1, "rewind": "earliest"}})).await;
    let resumed = client.expect("pusher_internal:replay_resumed").await;
    assert_eq!(resumed.frame["replay"], json!({"v": 1, "recovered": false, "reason": "disabled"}));

    let mut app = demo_app();
    keep(&mut app, vec![rule()]);
    server.inner().reload(Config::for_tests(vec![app])).unwrap();
    client.send_subscribe(json!({"channel": "log-a", "replay": {"v": 1, "rewind": "earliest"}})).await;
    let resumed = client.expect("pusher_internal:replay_resumed").await;
    assert_eq!(resumed.frame["replay"]["count"], 3);
    for number in ["1", "2", "3"] {
        client.expect_event("e", "log-a", number).await;
    }
    client.expect("pusher_internal:replay_done").await;
    rest.publish("log-a", "e", "4").await;
    assert_eq!(client.expect_event("e", "log-a", "4").await.frame["serial"], 4);
}
