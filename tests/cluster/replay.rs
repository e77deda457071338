//! Stored channels: the log is in Redis, and every node goes on where another left off.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tidewire::config::{AppReplay, Config, ReplayRule, StoreKind};

use crate::common::nodes::Place;
use crate::common::redis::{CutProxy, RedisServer};
use crate::common::{Client, Nodes, eventually};

fn storing(count: usize, place: Place) -> Arc<Nodes> {
    Nodes::with_config(count, place, store)
}

fn store(config: &mut Config) {
    config.redis.node_timeout = Duration::from_secs(3);
    config.replay.store = StoreKind::Redis;
    let rule = ReplayRule { client_events: true, ..ReplayRule::default() };
    config.apps[0].replay = AppReplay { rules: vec![rule], ..AppReplay::default() };
}

/// Subscribes with this `replay` member, and gives that of the answer.
async fn subscribe(client: &mut Client, channel: &str, replay: Value) -> Value {
    let mut data = json!({ "channel": channel, "replay": replay });
    if channel.starts_with("private-") {
        data["auth"] = client.auth(channel, None).into();
    }
    client.send_subscribe(data).await;
    client.succeeded(channel).await.frame["replay"].clone()
}

fn position(answer: &Value) -> String {
    format!("{}:{}", answer["epoch"].as_str().expect("an epoch"), answer["serial"])
}

async fn expect_serials(client: &mut Client, channel: &str, serials: std::ops::RangeInclusive<u64>) {
    for serial in serials {
        let event = client.expect_event("e", channel, &serial.to_string()).await;
        assert_eq!(event.frame["serial"], json!(serial), "{event:?}");
    }
}

/// Publishes each serial as its own data, at the nodes in turn.
async fn publish(nodes: &Arc<Nodes>, count: usize, channel: &str, serials: std::ops::RangeInclusive<u64>) {
    for serial in serials {
        let node = usize::try_from(serial).unwrap() % count;
        nodes.rest(node).publish(channel, "e", &serial.to_string()).await;
    }
}

#[tokio::test]
async fn a_position_of_one_node_is_good_on_every_other() {
    let nodes = storing(3, Place::shared());
    let mut one = nodes.connect(0).await;
    let answer = subscribe(&mut one, "news", json!({"v": 1})).await;
    publish(&nodes, 3, "news", 1..=6).await;
    expect_serials(&mut one, "news", 1..=6).await;
    for node in 0..3 {
        let mut other = nodes.connect(node).await;
        let resumed = subscribe(&mut other, "news", json!({"v": 1, "from": position(&answer)})).await;
        assert_eq!((&resumed["recovered"], &resumed["count"]), (&json!(true), &json!(6)), "{resumed}");
        assert_eq!(resumed["epoch"], answer["epoch"]);
        expect_serials(&mut other, "news", 1..=6).await;
        other.expect("pusher_internal:replay_done").await;
    }
}

#[tokio::test]
async fn live_and_replayed_messages_join_on_a_node_that_follows_the_channel_for_the_first_time() {
    let nodes = storing(2, Place::shared());
    publish(&nodes, 2, "news", 1..=150).await;
    let mut client = nodes.connect(1).await;
    let answer = subscribe(&mut client, "news", json!({"v": 1, "rewind": "earliest"})).await;
    assert_eq!((&answer["serial"], &answer["count"]), (&json!(150), &json!(150)), "{answer}");
    publish(&nodes, 2, "news", 151..=160).await;
    expect_serials(&mut client, "news", 1..=150).await;
    client.expect("pusher_internal:replay_done").await;
    expect_serials(&mut client, "news", 151..=160).await;
}

#[tokio::test]
async fn history_state_and_purge_are_of_the_one_log() {
    let nodes = storing(2, Place::shared());
    let mut client = nodes.connect(1).await;
    let answer = subscribe(&mut client, "news", json!({"v": 1})).await;
    publish(&nodes, 2, "news", 1..=3).await;
    expect_serials(&mut client, "news", 1..=3).await;
    let history = nodes.rest(1).read("/channels/news/history", &[("direction", "forward")]).await;
    let data: Vec<&Value> = history["items"].as_array().unwrap().iter().map(|item| &item["data"]).collect();
    assert_eq!(data, ["1", "2", "3"]);
    assert_eq!(nodes.rest(0).delete("/apps/42/channels/news/history").send().await.status, 200);
    // The other node's own memory of them is gone, too.
    eventually("the purge to be known", async || {
        let mut late = nodes.connect(1).await;
        let resumed = subscribe(&mut late, "news", json!({"v": 1, "from": position(&answer)})).await;
        resumed["reason"] == "expired"
    })
    .await;
    publish(&nodes, 2, "news", 4..=4).await;
    expect_serials(&mut client, "news", 4..=4).await;
}

#[tokio::test]
async fn a_retry_on_another_node_is_no_second_event() {
    let nodes = storing(2, Place::shared());
    let mut client = nodes.connect(0).await;
    subscribe(&mut client, "news", json!({"v": 1})).await;
    let event =
        json!({"name": "e", "data": "1", "channels": ["news"], "idempotency_key": "k", "info": "position"});
    let first = nodes.rest(0).trigger(event.clone()).await;
    let second = nodes.rest(1).trigger(event).await;
    assert_eq!((first.status, second.status), (200, 200), "{} {}", first.body, second.body);
    assert_eq!(first.body, second.body);
    assert_eq!(second.header("tidewire-deduplicated"), Some("true"));
    let other = json!({"name": "e", "data": "2", "channels": ["news"], "idempotency_key": "k"});
    assert_eq!(nodes.rest(1).trigger(other).await.status, 409);
    expect_serials(&mut client, "news", 1..=1).await;
    client.assert_silent().await;
}

#[tokio::test]
async fn the_cached_event_of_a_stored_channel_is_known_on_every_node() {
    let nodes = storing(2, Place::shared());
    publish(&nodes, 2, "cache-a", 1..=2).await;
    for node in 0..2 {
        let mut client = nodes.connect(node).await;
        client.request("cache-a", None).await;
        client.succeeded("cache-a").await;
        client.expect_event("e", "cache-a", "2").await;
        let info = nodes.rest(node).read("/channels/cache-a", &[("info", "cache")]).await;
        assert_eq!(info["cache"]["data"], "2", "{info}");
    }
}

#[tokio::test]
async fn client_events_have_serials_on_all_nodes() {
    let nodes = storing(2, Place::shared());
    let mut sender = nodes.connect(0).await;
    sender.subscribe("private-a").await;
    let mut receivers = [nodes.connect(0).await, nodes.connect(1).await];
    for receiver in &mut receivers {
        subscribe(receiver, "private-a", json!({"v": 1})).await;
    }
    sender.trigger("client-hi", "private-a", json!("x")).await;
    for receiver in &mut receivers {
        let event = receiver.expect_event("client-hi", "private-a", "x").await;
        assert_eq!(event.frame["serial"], 1, "{event:?}");
    }
    sender.assert_silent().await;
}

/// With every write synced, so that what was acknowledged is there after the crash.
#[tokio::test]
async fn a_redis_that_is_killed_and_comes_back_loses_nothing_and_nobody_notices() {
    let nodes = storing(2, Place::on(RedisServer::durable()));
    let mut clients = [nodes.connect(0).await, nodes.connect(1).await];
    for client in &mut clients {
        subscribe(client, "news", json!({"v": 1})).await;
    }
    publish(&nodes, 2, "news", 1..=5).await;
    nodes.place.server.kill();
    let event = json!({"name": "e", "data": "lost", "channels": ["news"]});
    eventually("publishers to be refused", async || {
        let rest = crate::common::Rest { settled: None, ..nodes.rest(0) };
        rest.trigger(event.clone()).await.status == 503
    })
    .await;
    nodes.place.server.restart();
    for node in 0..2 {
        let server = nodes.node(node);
        let is_back = async || server.node().cluster.as_ref().unwrap().is_in_step();
        eventually("the node to be back", is_back).await;
    }
    publish(&nodes, 2, "news", 6..=10).await;
    for client in &mut clients {
        for serial in 1..=10_u64 {
            let event = client.expect_event("e", "news", &serial.to_string()).await;
            assert_eq!(event.frame["serial"], json!(serial), "{event:?}");
        }
        client.assert_silent().await;
    }
}

/// The log that was good when the subscription was asked for is not the one that it enters: an older one has come back,
/// and grown past the client's position.
#[tokio::test]
async fn who_waits_while_the_log_rolls_back_and_grows_is_not_told_that_it_missed_nothing() {
    let place = Place::own();
    let proxy = CutProxy::start(place.server.addr());
    let nodes = Nodes::behind(&proxy, place, store);
    let mut stays = nodes.connect(1).await;
    let answer = subscribe(&mut stays, "news", json!({"v": 1})).await;
    publish(&nodes, 2, "news", 1..=10).await;
    nodes.place.server.command::<String>(&["SAVE"]);
    publish(&nodes, 2, "news", 11..=15).await;
    expect_serials(&mut stays, "news", 1..=15).await;
    let is_connected = |node: usize| nodes.node(node).node().cluster.as_ref().unwrap().is_connected();

    proxy.cut();
    eventually("the loss to be seen", async || !is_connected(1)).await;
    let from = format!("{}:15", answer["epoch"].as_str().unwrap());
    let mut continues = nodes.connect(1).await;
    continues.send_subscribe(json!({"channel": "news", "replay": {"v": 1, "from": from}})).await;
    let mut rejects = nodes.connect(1).await;
    let request = json!({"v": 1, "from": from, "on_gap": "reject"});
    rejects.send_subscribe(json!({"channel": "news", "replay": request})).await;
    for client in [&mut continues, &mut rejects] {
        client.sync().await;
    }

    nodes.place.server.restart();
    let rest = crate::common::Rest { settled: None, ..nodes.rest(0) };
    let event = |serial: u64| json!({"name": "e", "data": serial.to_string(), "channels": ["news"]});
    eventually("events to be stored", async || rest.trigger(event(11)).await.status == 200).await;
    for serial in 12..=20 {
        assert_eq!(rest.trigger(event(serial)).await.status, 200);
    }
    proxy.heal();
    let answer = continues.succeeded("news").await.frame["replay"].clone();
    assert_eq!((&answer["recovered"], &answer["reason"]), (&json!(false), &json!("rolled_back")), "{answer}");
    assert_eq!(answer["serial"], 20);
    rejects.expect_error(None).await;
    let refused = rejects.expect("pusher:subscription_error").await.json();
    assert_eq!((&refused["status"], &refused["reason"]), (&json!(410), &json!("rolled_back")), "{refused}");
    rejects.assert_silent().await;
    assert_eq!(stays.expect("pusher_internal:replay_reset").await.frame["reason"], "rolled_back");
    publish(&nodes, 2, "news", 21..=22).await;
    for client in [&mut continues, &mut stays] {
        expect_serials(client, "news", 21..=22).await;
        client.assert_silent().await;
    }
}
