//! Clients that did not ask see what they always saw.

use serde_json::json;

use super::{Replaying, publish, server, server_with};
use crate::common::{Frame, TestServer, member};
use tidewire::config::{ChannelPattern, ReplayRule};

const CHANNELS: [&str; 5] = ["news", "private-a", "private-encrypted-b", "cache-c", "presence-p"];

/// What a stock client is sent on a channel of each kind, as bytes, but for the ids in it.
async fn frames_of(server: &TestServer) -> Vec<String> {
    let mut client = server.connect_with("protocol=7&client=js&version=8.4.0").await;
    let mut frames = Vec::new();
    for channel in &CHANNELS[..4] {
        client.request(channel, None).await;
    }
    client.request("presence-p", Some(&member("u-1"))).await;
    // On a cluster, the nodes hear of a subscription when it succeeds.
    while frames.iter().filter(|frame: &&String| frame.contains("subscription_succeeded")).count()
        < CHANNELS.len()
    {
        let Frame::Text(text) = client.next_frame().await else { panic!("only text") };
        frames.push(text);
    }
    let rest = server.rest();
    rest.publish("news", "e", "{\"a\": [1, \"é\"]}").await;
    for channel in &CHANNELS[1..] {
        rest.publish(channel, "e", "1").await;
    }
    let mut other = server.connect().await;
    other.join("presence-p", "u-2").await;
    other.trigger("client-hi", "presence-p", json!({"x": 1})).await;
    for channel in CHANNELS {
        rest.publish(channel, "last", "end").await;
    }
    // Events of different channels may pass each other, and so may a client's and the backend's.
    let mut awaited: Vec<String> =
        CHANNELS.map(|channel| format!("\"last\",\"channel\":\"{channel}\"")).into();
    awaited.push("client-hi".to_owned());
    while !awaited.is_empty() {
        let Frame::Text(text) = client.next_frame().await else { panic!("only text") };
        awaited.retain(|part| !text.contains(part.as_str()));
        frames.push(text);
    }
    frames.sort();
    frames
}

#[tokio::test]
async fn s218_who_did_not_ask_gets_the_same_bytes_on_stored_channels() {
    let plain = frames_of(&TestServer::start()).await;
    let stored = frames_of(&server_with(ReplayRule { client_events: true, ..ReplayRule::default() })).await;
    assert_eq!(plain, stored);
}

#[tokio::test]
async fn both_kinds_of_clients_share_a_channel() {
    let server = server();
    let mut stock = server.connect().await;
    let mut asking = server.connect().await;
    stock.subscribe("news").await;
    asking.subscribe_replaying("news", json!({"v": 1})).await;
    publish(&server, "news", 1..=3).await;
    for number in 1..=3 {
        asking.expect_serial("news", &number.to_string(), number).await;
        let event = stock.expect_event("e", "news", &number.to_string()).await;
        assert_eq!(event.frame.as_object().unwrap().len(), 3, "{event:?}");
    }
}

#[tokio::test]
async fn what_is_published_to_nobody_is_kept() {
    let server = server();
    publish(&server, "news", 1..=2).await;
    let mut client = server.connect().await;
    let answer = client.subscribe_replaying("news", json!({"v": 1, "rewind": "earliest"})).await;
    assert_eq!(
        (&answer["serial"], &answer["count"], &answer["recovered"]),
        (&json!(2), &json!(2), &json!(true))
    );
    client.expect_serial("news", "1", 1).await;
    client.expect_serial("news", "2", 2).await;
    client.expect_done("news", 2).await;
    publish(&server, "news", [3]).await;
    client.expect_serial("news", "3", 3).await;
}

#[tokio::test]
async fn client_events_are_stored_when_the_rule_says_so() {
    for client_events in [false, true] {
        let server = server_with(ReplayRule { client_events, ..ReplayRule::default() });
        let mut sender = server.connect().await;
        let mut receiver = server.connect().await;
        sender.subscribe("private-a").await;
        receiver.subscribe_replaying("private-a", json!({"v": 1})).await;
        sender.trigger("client-hi", "private-a", json!("x")).await;
        let event = receiver.expect_event("client-hi", "private-a", "x").await;
        assert_eq!(event.frame.get("serial").is_some(), client_events, "{event:?}");
        sender.assert_silent().await;
    }
}

#[tokio::test]
async fn a_channel_that_no_rule_matches_is_not_stored() {
    let server =
        server_with(ReplayRule { pattern: ChannelPattern::new("private-*"), ..ReplayRule::default() });
    publish(&server, "news", [1]).await;
    let mut client = server.connect().await;
    let answer = client.subscribe_replaying("news", json!({"v": 1, "rewind": "earliest"})).await;
    assert_eq!(answer, json!({"v": 1, "recovered": false, "reason": "disabled"}));
    publish(&server, "news", [2]).await;
    let event = client.expect_event("e", "news", "2").await;
    assert!(event.frame.get("serial").is_none());
}

#[tokio::test]
async fn the_cached_event_comes_without_a_serial_and_not_twice() {
    let server = server();
    publish(&server, "cache-a", 1..=2).await;
    let mut client = server.connect().await;
    let answer = client.subscribe_replaying("cache-a", json!({"v": 1})).await;
    let cached = client.expect_event("e", "cache-a", "2").await;
    assert!(cached.frame.get("serial").is_none(), "{cached:?}");
    publish(&server, "cache-a", [3]).await;
    client.expect_serial("cache-a", "3", 3).await;

    let mut resumed = server.connect().await;
    resumed.subscribe_replaying("cache-a", json!({"v": 1, "from": super::position(&answer)})).await;
    resumed.expect_serial("cache-a", "3", 3).await;
    resumed.expect_done("cache-a", 3).await;
    resumed.assert_silent().await;
}
