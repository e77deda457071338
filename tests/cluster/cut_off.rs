//! What happens while one node is cut off from Redis, the second one, and what it makes of it when it is back.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tidewire::config::{AppReplay, ChannelPattern, Config, ReplayRule, StoreKind};

use crate::common::nodes::{Place, metric};
use crate::common::redis::CutProxy;
use crate::common::{Client, Nodes, eventually};
use crate::presence::{listed, set};

fn nodes() -> (Arc<Nodes>, CutProxy) {
    let place = Place::own();
    let proxy = CutProxy::start(place.server.addr());
    (Nodes::behind(&proxy, place, store), proxy)
}

fn store(config: &mut Config) {
    config.redis.node_timeout = Duration::from_secs(3);
    config.replay.store = StoreKind::Redis;
    let is_stored = |pattern| ReplayRule { pattern: ChannelPattern::new(pattern), ..ReplayRule::default() };
    let rules = vec![is_stored("cache-log"), is_stored("log")];
    config.apps[0].replay = AppReplay { rules, ..AppReplay::default() };
}

async fn is_lost(nodes: &Nodes) {
    let connected = || metric(&nodes.node(1), "tidewire_fanout_connected");
    eventually("the loss to be seen", async || connected() == Some(0)).await;
}

async fn subscribe(client: &mut Client, channel: &str, replay: Value) -> Value {
    client.send_subscribe(json!({ "channel": channel, "replay": replay })).await;
    client.succeeded(channel).await.frame["replay"].clone()
}

#[tokio::test]
async fn a_user_who_was_terminated_meanwhile_is_closed_later() {
    let (nodes, proxy) = nodes();
    let mut banned = nodes.connect(1).await;
    banned.sign_in(r#"{"id":"u-1"}"#).await;
    let mut other = nodes.connect(1).await;
    other.sign_in(r#"{"id":"u-2"}"#).await;
    proxy.cut();
    is_lost(&nodes).await;
    let path = "/apps/42/users/u-1/terminate_connections";
    assert_eq!(nodes.rest(0).post(path, "{}").send().await.status, 200);
    proxy.heal();
    banned.expect_error(Some(4009)).await;
    banned.expect_close(4009).await;
    // Whoever comes later is not meant, however often the node looks.
    let mut again = nodes.connect(1).await;
    again.sign_in(r#"{"id":"u-1"}"#).await;
    proxy.cut();
    is_lost(&nodes).await;
    proxy.heal();
    nodes.rest(0).settle().await;
    nodes.connect(1).await.sign_in(r#"{"id":"u-1"}"#).await;
    for client in [&mut again, &mut other] {
        client.assert_silent().await;
    }
}

#[tokio::test]
async fn what_was_purged_meanwhile_nobody_gets() {
    let (nodes, proxy) = nodes();
    let mut client = nodes.connect(1).await;
    let begun = subscribe(&mut client, "cache-log", json!({"v": 1})).await;
    client.expect("pusher:cache_miss").await;
    for serial in 1..=3 {
        nodes.rest(0).publish("cache-log", "e", &serial.to_string()).await;
        client.expect_event("e", "cache-log", &serial.to_string()).await;
    }
    proxy.cut();
    is_lost(&nodes).await;
    assert_eq!(nodes.rest(0).delete("/apps/42/channels/cache-log/history").send().await.status, 200);
    proxy.heal();
    let mut late = nodes.connect(1).await;
    let from = format!("{}:{}", begun["epoch"].as_str().unwrap(), begun["serial"]);
    let resumed = subscribe(&mut late, "cache-log", json!({"v": 1, "from": from})).await;
    assert_eq!(resumed["reason"], "expired", "{resumed}");
    late.expect("pusher:cache_miss").await;
    nodes.rest(0).publish("cache-log", "e", "4").await;
    for client in [&mut client, &mut late] {
        client.expect_event("e", "cache-log", "4").await;
    }
}

#[tokio::test]
async fn a_redis_that_is_emptied_under_way_is_filled_again_and_nobody_left() {
    let (nodes, _proxy) = nodes();
    let mut members = Vec::new();
    for (node, user) in [(0, "u-0"), (1, "u-1"), (0, "u-2"), (1, "u-3")] {
        let mut client = nodes.connect(node).await;
        client.join("presence-p", user).await;
        members.push(client);
    }
    nodes.rest(0).settle().await;
    let mut follower = nodes.connect(1).await;
    subscribe(&mut follower, "log", json!({"v": 1})).await;
    nodes.rest(0).publish("log", "e", "1").await;
    follower.expect_event("e", "log", "1").await;
    for client in &mut members {
        client.pending_events().await;
    }
    let _: String = nodes.place.server.command(&["FLUSHALL"]);
    // Acknowledged is delivered, also by those who remember another log; or whoever follows it is told.
    for data in 2..=6 {
        nodes.rest(0).publish("log", "e", &data.to_string()).await;
    }
    nodes.rest(0).settle().await;
    let mut late = nodes.connect(0).await;
    let all = set(&["u-0", "u-1", "u-2", "u-3", "late"]);
    assert_eq!(listed(&late.join("presence-p", "late").await), all);
    for client in &mut members {
        let added = client.expect("pusher_internal:member_added").await;
        assert_eq!(added.json()["user_id"], "late", "{added:?}");
        client.assert_silent().await;
    }
    let events = follower.pending_events().await;
    let heard: Vec<&str> =
        events.iter().filter(|event| event.is("e", "log")).map(|event| event.data()).collect();
    let is_told = events.iter().any(|event| event.is("pusher_internal:replay_reset", "log"));
    assert!(is_told || heard == ["2", "3", "4", "5", "6"], "{events:?}");
}
