//! What the backend signs for one subscriber narrows what that one may see, and nothing else.

use serde_json::{Value, json};
use tidewire::config::ReplayRule;

use super::{Replaying, publish, server, server_with};
use crate::common::{Client, TestServer};

async fn rewind_with(client: &mut Client, channel_data: &Value, replay: Value) -> Value {
    let channel_data = channel_data.to_string();
    let auth = client.auth("private-a", Some(&channel_data));
    client
        .send_subscribe(
            json!({"channel": "private-a", "auth": auth, "channel_data": channel_data, "replay": replay}),
        )
        .await;
    client.succeeded("private-a").await.frame["replay"].clone()
}

async fn prepared() -> TestServer {
    let server = server();
    publish(&server, "private-a", 1..=4).await;
    server.advance(300);
    publish(&server, "private-a", 5..=9).await;
    server
}

#[tokio::test]
async fn a_subscriber_s_own_window_and_count_hold_for_it_alone() {
    let server = prepared().await;
    let earliest = json!({"v": 1, "rewind": "earliest"});
    for (replay, count) in [
        (json!({"window": 100}), 5),
        (json!({"max_messages": 3}), 3),
        (json!({"window": 100, "max_messages": 30}), 5),
        (json!({"window": 1_000_000}), 9),
        (json!({}), 9),
    ] {
        let mut client = server.connect().await;
        let answer = rewind_with(&mut client, &json!({"replay": replay}), earliest.clone()).await;
        assert_eq!((&answer["recovered"], &answer["count"]), (&json!(true), &json!(count)), "{replay}");
    }
}

#[tokio::test]
async fn a_subscriber_without_history_is_live_and_is_told() {
    let server = prepared().await;
    let mut client = server.connect().await;
    let channel_data = json!({"replay": {"history": false}});
    let answer = rewind_with(&mut client, &channel_data, json!({"v": 1, "rewind": "earliest"})).await;
    assert_eq!((&answer["recovered"], &answer["reason"]), (&json!(false), &json!("disabled")));
    publish(&server, "private-a", [10]).await;
    client.expect_serial("private-a", "10", 10).await;
    // Without the signed limit there is no signature either.
    let auth = client.auth("private-a", Some(&channel_data.to_string()));
    client
        .send_subscribe(
            json!({"channel": "private-a", "auth": auth, "replay": {"v": 1, "rewind": "earliest"}}),
        )
        .await;
    client.expect_refusal().await;
    client.assert_silent().await;
}

#[tokio::test]
async fn overrides_that_make_no_sense_are_refused() {
    let server = prepared().await;
    let mut client = server.connect().await;
    let channel_data = json!({"replay": {"window": "long"}}).to_string();
    let auth = client.auth("private-a", Some(&channel_data));
    client
        .send_subscribe(json!({"channel": "private-a", "auth": auth, "channel_data": channel_data,
            "replay": {"v": 1, "rewind": "earliest"}}))
        .await;
    let text = client.expect_error(None).await;
    assert!(text.contains("Invalid channel_data"), "{text}");
}

#[tokio::test]
async fn what_is_signed_for_replay_is_not_shown_to_other_members() {
    let server = server();
    let mut watcher = server.connect().await;
    watcher.join("presence-p", "u-0").await;
    let mut client = server.connect().await;
    let channel_data = json!({"user_id": "u-1", "user_info": {"name": "A"}, "replay": {"window": 60}});
    client.join_with("presence-p", &channel_data.to_string()).await;
    let added = watcher.expect("pusher_internal:member_added").await;
    assert_eq!(added.json(), json!({"user_id": "u-1", "user_info": {"name": "A"}}));
}

#[tokio::test]
async fn connections_live_as_long_as_they_may() {
    let lifetime = |seconds| Some(std::time::Duration::from_secs(seconds));
    let server = server_with(ReplayRule { max_connection_lifetime: lifetime(600), ..ReplayRule::default() });
    let mut subscribed = server.connect().await;
    let mut idle = server.connect().await;
    let mut signed_in = server.connect().await;
    subscribed.subscribe("news").await;
    signed_in.sign_in(&json!({"id": "u-1", "replay": {"lifetime": 100}}).to_string()).await;
    server.advance(60);
    idle.sync().await;
    subscribed.sync().await;
    signed_in.sync().await;
    server.advance(51);
    signed_in.expect_close(4200).await;
    for _ in 0..4 {
        // In steps: nobody is to be closed for not answering a ping.
        server.advance(100);
        idle.sync().await;
        subscribed.sync().await;
    }
    server.advance(160);
    subscribed.expect_close(4200).await;
    idle.sync().await;
}
