//! Requests that cannot be granted: an error on that channel only, and never a subscription that is live in silence.

use serde_json::{Value, json};

use super::{Replaying, position, publish, server};
use crate::common::{Client, eventually};

/// The texts of the error frame and of the subscription error, which must agree.
async fn refused(client: &mut Client, channel: &str, replay: Value, kind: &str, status: u16) -> String {
    client.ask(channel, replay.clone()).await;
    let text = client.expect_error(None).await;
    let error = client.expect("pusher:subscription_error").await;
    assert_eq!(error.channel.as_deref(), Some(channel));
    let told = error.json();
    assert_eq!(
        (&told["type"], &told["status"], &told["error"]),
        (&json!(kind), &json!(status), &json!(text)),
        "{replay}"
    );
    text
}

#[tokio::test]
async fn a_request_that_makes_no_sense_is_refused_on_its_channel() {
    let server = server();
    let mut client = server.connect().await;
    client.subscribe("other").await;
    for (replay, names) in [
        (json!(7), "object"),
        (json!([]), "object"),
        (json!({"v": 2}), "replay.v"),
        (json!({"v": 1, "from": "yesterday"}), "epoch:serial"),
        (json!({"v": 1, "from": 1842}), "epoch:serial"),
        (json!({"v": 1, "from": "a.1:-1"}), "epoch:serial"),
        (json!({"v": 1, "rewind": {"count": 0}}), "replay.rewind"),
        (json!({"v": 1, "rewind": "latest"}), "replay.rewind"),
        (json!({"v": 1, "rewind": {"count": 1, "seconds": 1}}), "replay.rewind"),
        (json!({"v": 1, "rewind": {"count": 10_001}}), "10000 messages"),
        (json!({"v": 1, "rewind": {"seconds": 86_401}}), "86400 seconds"),
        (json!({"v": 1, "rewind": "earliest", "from": "a.1:1"}), "exclude"),
        (json!({"v": 1, "on_gap": "explode"}), "replay.on_gap"),
        (json!({"v": 1, "not_from": "me"}), "replay.not_from"),
    ] {
        let text = refused(&mut client, "news", replay.clone(), "ReplayInvalid", 400).await;
        assert!(text.contains(names), "{replay}: {text}");
    }
    publish(&server, "news", [1]).await;
    publish(&server, "other", [1]).await;
    client.expect_event("e", "other", "1").await;
    client.assert_silent().await;
    assert_eq!(server.rest().read("/channels/news", &[]).await["occupied"], false);
}

#[tokio::test]
async fn replay_passes_the_same_gate_as_a_subscription() {
    let server = server();
    server.rest().publish("private-a", "e", "secret").await;
    let mut client = server.connect().await;
    for auth in [Value::Null, json!("tw-demo-key:00"), client.auth("private-b", None).into()] {
        for replay in [json!({"v": 1, "rewind": "earliest"}), json!({"v": 1, "from": "a.1:0"})] {
            client.send_subscribe(json!({"channel": "private-a", "auth": auth, "replay": replay})).await;
            client.expect_refusal().await;
            client.assert_silent().await;
        }
    }
}

#[tokio::test]
async fn who_goes_back_shows_its_right_again() {
    let server = server();
    server.rest().publish("private-a", "e", "1").await;
    let mut client = server.connect().await;
    client.subscribe_replaying("private-a", json!({"v": 1})).await;
    client.send_subscribe(json!({"channel": "private-a", "replay": {"v": 1, "rewind": "earliest"}})).await;
    client.expect_refusal().await;
    client.assert_silent().await;
    server.rest().publish("private-a", "e", "2").await;
    client.expect_serial("private-a", "2", 2).await;
}

#[tokio::test]
async fn one_subscription_at_a_time() {
    let server = server();
    publish(&server, "news", 1..=3).await;
    let mut client = server.connect().await;
    let answer = client.subscribe_replaying("news", json!({"v": 1})).await;
    client.ask("news", json!({"v": 1})).await;
    assert!(client.expect_refusal().await.contains("Existing subscription"));
    // Twice in one go: the second finds the first in progress, or done.
    let mut twice = server.connect().await;
    twice.ask("news", json!({"v": 1, "rewind": {"count": 1}})).await;
    twice.ask("news", json!({"v": 1})).await;
    let mut heard = Vec::new();
    eventually("both are answered", async || {
        heard.extend(twice.pending_events().await.into_iter().map(|event| event.event));
        heard.len() >= 4
    })
    .await;
    heard.sort();
    assert_eq!(
        heard,
        ["e", "pusher:error", "pusher_internal:replay_done", "pusher_internal:subscription_succeeded"]
    );
    assert!(position(&answer).ends_with(":3"));
}

#[tokio::test]
async fn a_gap_on_a_channel_that_is_not_stored_is_told_too() {
    let server = crate::common::TestServer::start();
    let mut client = server.connect().await;
    let answer = client.subscribe_replaying("news", json!({"v": 1, "from": "a.1:5"})).await;
    assert_eq!(answer, json!({"v": 1, "recovered": false, "reason": "disabled"}));
    let mut strict = server.connect().await;
    let replay = json!({"v": 1, "from": "a.1:5", "on_gap": "reject"});
    let text = refused(&mut strict, "news", replay, "ReplayGone", 410).await;
    assert!(text.contains("keeps none"), "{text}");
}
