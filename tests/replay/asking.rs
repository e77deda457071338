//! When what was missed is not there any more: the client is told which it is.

use std::time::Duration;

use serde_json::json;
use tidewire::config::ReplayRule;

use super::{Replaying, at, position, publish, server, server_with};
use crate::common::TestServer;

/// Whether the client at `from` is told `reason`, and goes on live; or hears it and is not subscribed.
async fn expect_gap(server: &TestServer, from: &str, reason: &str, oldest: Option<u64>) {
    let mut client = server.connect().await;
    let answer = client.subscribe_replaying("news", json!({"v": 1, "from": from})).await;
    assert_eq!((&answer["recovered"], &answer["reason"]), (&json!(false), &json!(reason)), "{from}");
    assert_eq!(answer["oldest"].as_u64(), oldest, "{answer}");
    let next = answer["serial"].as_u64().unwrap() + 1;
    publish(server, "news", [next]).await;
    client.expect_serial("news", &next.to_string(), next).await;

    let mut strict = server.connect().await;
    strict.ask("news", json!({"v": 1, "from": from, "on_gap": "reject"})).await;
    strict.expect_error(None).await;
    let error = strict.expect("pusher:subscription_error").await;
    let told = error.json();
    assert_eq!(
        (&told["type"], &told["status"], &told["reason"]),
        (&json!("ReplayGone"), &json!(410), &json!(reason)),
        "{told}"
    );
    strict.assert_silent().await;
    // The next subscription has to ask for less.
    strict.subscribe_replaying("news", json!({"v": 1})).await;
}

#[tokio::test]
async fn too_many_messages_ago() {
    let server = server_with(ReplayRule { max_messages: 10, ..ReplayRule::default() });
    let mut client = server.connect().await;
    let start = position(&client.subscribe_replaying("news", json!({"v": 1})).await);
    publish(&server, "news", 1..=20).await;
    let mut exact = server.connect().await;
    let answer = exact.subscribe_replaying("news", json!({"v": 1, "from": at(&start, 10)})).await;
    assert_eq!((&answer["recovered"], &answer["count"]), (&json!(true), &json!(10)));
    expect_gap(&server, &at(&start, 9), "expired", Some(11)).await;
}

#[tokio::test]
async fn too_long_ago() {
    let window = Duration::from_secs(600);
    let server = server_with(ReplayRule { window, ..ReplayRule::default() });
    publish(&server, "news", [1]).await;
    let mut client = server.connect().await;
    let start = position(&client.subscribe_replaying("news", json!({"v": 1})).await);
    server.advance(400);
    publish(&server, "news", [2]).await;
    server.advance(150);
    let mut back = server.connect().await;
    let answer = back.subscribe_replaying("news", json!({"v": 1, "from": at(&start, 0)})).await;
    assert_eq!((&answer["recovered"], &answer["count"]), (&json!(true), &json!(2)));
    server.advance(100);
    // The first is gone, the second is not.
    let mut late = server.connect().await;
    let answer = late.subscribe_replaying("news", json!({"v": 1, "from": at(&start, 1)})).await;
    assert_eq!((&answer["recovered"], &answer["count"]), (&json!(true), &json!(1)));
    expect_gap(&server, &at(&start, 0), "expired", Some(2)).await;
}

#[tokio::test]
async fn a_channel_without_messages_for_long_is_forgotten() {
    let inactivity_ttl = Duration::from_secs(60);
    let server = server_with(ReplayRule { inactivity_ttl, ..ReplayRule::default() });
    let mut client = server.connect().await;
    let start = position(&client.subscribe_replaying("news", json!({"v": 1})).await);
    publish(&server, "news", 1..=2).await;
    server.advance(62);
    let mut whole = server.connect().await;
    let answer = whole.subscribe_replaying("news", json!({"v": 1, "from": at(&start, 2)})).await;
    assert_eq!(answer["recovered"], true, "whoever has all has missed nothing");
    expect_gap(&server, &at(&start, 1), "expired", Some(3)).await;
}

#[tokio::test]
async fn a_position_of_another_log() {
    let server = server();
    publish(&server, "other", 1..=3).await;
    publish(&server, "news", 1..=3).await;
    let mut client = server.connect().await;
    let foreign = position(&client.subscribe_replaying("other", json!({"v": 1})).await);
    expect_gap(&server, &foreign, "stream_reset", Some(1)).await;
    expect_gap(&server, "abcdef.1:2", "stream_reset", Some(1)).await;
}

#[tokio::test]
async fn a_position_that_the_log_never_reached() {
    let server = server();
    publish(&server, "news", 1..=3).await;
    let mut client = server.connect().await;
    let here = position(&client.subscribe_replaying("news", json!({"v": 1})).await);
    expect_gap(&server, &at(&here, 1000), "rolled_back", Some(1)).await;
}

#[tokio::test]
async fn more_than_is_replayed_at_once() {
    let server = TestServer::with_config(|config| {
        config.replay.store = tidewire::config::StoreKind::Memory;
        config.apps[0].replay = tidewire::config::AppReplay::everything();
        config.apps[0].limits.max_replay_messages = 5;
    });
    let mut client = server.connect().await;
    let start = position(&client.subscribe_replaying("news", json!({"v": 1})).await);
    publish(&server, "news", 1..=10).await;
    let mut exact = server.connect().await;
    let answer = exact.subscribe_replaying("news", json!({"v": 1, "from": at(&start, 5)})).await;
    assert_eq!(answer["recovered"], true);
    expect_gap(&server, &at(&start, 4), "too_many", Some(1)).await;
}
