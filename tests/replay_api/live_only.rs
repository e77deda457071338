//! What the store cannot take in is delivered to those who are there, and those who are not hear that they missed it.

use serde_json::json;
use tidewire::config::OnStoreError;

use super::refusals::{Fragile, full, serve};
use super::{deduplicated, keyed, position_of};
use crate::common::{Client, TestServer};

async fn subscribe(server: &TestServer, replay: serde_json::Value) -> (Client, serde_json::Value) {
    let mut client = server.connect().await;
    client.send_subscribe(json!({"channel": "log-a", "replay": replay})).await;
    let answer = client.succeeded("log-a").await.frame["replay"].clone();
    (client, answer)
}

#[tokio::test]
async fn who_was_away_is_told_though_others_stayed() {
    let store = Fragile::new();
    let server = serve(&store, OnStoreError::LiveOnly);
    let rest = server.rest();
    let (mut stayed, _) = subscribe(&server, json!({"v": 1})).await;
    rest.publish("log-a", "e", "1").await;
    stayed.expect_event("e", "log-a", "1").await;
    let before = position_of(&rest, "log-a").await;
    store.fail_with(Some(full()));
    rest.publish("log-a", "e", "2").await;
    let live = stayed.expect_event("e", "log-a", "2").await;
    assert!(live.frame.get("serial").is_none(), "{live:?}");
    store.fail_with(None);

    let (mut away, answer) = subscribe(&server, json!({"v": 1, "from": before})).await;
    assert_eq!((&answer["recovered"], &answer["reason"]), (&json!(false), &json!("expired")), "{answer}");
    let (mut newcomer, fresh) = subscribe(&server, json!({"v": 1})).await;
    rest.publish("log-a", "e", "3").await;
    away.expect_event("e", "log-a", "3").await;
    newcomer.expect_event("e", "log-a", "3").await;
    let next = stayed.expect_event("e", "log-a", "3").await;
    assert_eq!(next.frame["prev"], 1, "it was there all the time: {next:?}");

    // Who came after the gap has missed nothing.
    let from = format!("{}:{}", fresh["epoch"].as_str().unwrap(), fresh["serial"]);
    let (mut back, answer) = subscribe(&server, json!({"v": 1, "from": from})).await;
    assert_eq!((&answer["recovered"], &answer["count"]), (&json!(true), &json!(1)), "{answer}");
    back.expect_event("e", "log-a", "3").await;
}

#[tokio::test]
async fn a_retry_is_no_repetition_though_the_first_was_not_kept() {
    let store = Fragile::new();
    let server = serve(&store, OnStoreError::LiveOnly);
    let rest = server.rest();
    let mut client = server.connect().await;
    client.subscribe("log-a").await;
    store.fail_with(Some(full()));
    for (expected, data, status) in [(None, "1", 200), (Some("true"), "1", 200), (None, "2", 409)] {
        let answer = rest.trigger(keyed("log-a", data, "k")).await;
        assert_eq!((answer.status, deduplicated(&answer)), (status, expected));
    }
    store.fail_with(None);
    assert_eq!(deduplicated(&rest.trigger(keyed("log-a", "1", "k")).await), Some("true"));
    client.expect_event("e", "log-a", "1").await;
    client.assert_silent().await;
}
