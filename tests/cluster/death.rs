//! A node that stops, dies, or is taken for dead: what it had is gone for the others, and each loss is told once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::nodes::Place;
use crate::common::{Client, Nodes, eventually, member};
use crate::presence::{ADDED, REMOVED, joined, listed, set};
use crate::process::Process;

const LOBBY: &str = "presence-lobby";
const WATCHLIST: &str = "pusher_internal:watchlist_events";
const OCCUPIED: &str = r#"tidewire_channel_transitions_total{transition="occupied"}"#;
const VACATED: &str = r#"tidewire_channel_transitions_total{transition="vacated"}"#;
/// The shortest.
const NODE_TIMEOUT: Duration = Duration::from_secs(3);
/// For a machine that does other things, too.
const SLACK: Duration = Duration::from_secs(2);

fn short_lived(count: usize) -> Arc<Nodes> {
    Nodes::with_config(count, Place::shared(), |config| config.redis.node_timeout = NODE_TIMEOUT)
}

/// One on each of two nodes.
async fn watchers(nodes: &Arc<Nodes>, on: [usize; 2]) -> [Client; 2] {
    let mut first = joined(nodes, on[0], LOBBY, "w-0").await;
    let second = joined(nodes, on[1], LOBBY, "w-1").await;
    first.expect(ADDED).await;
    [first, second]
}

/// The next frames tell of exactly these users, in any order.
async fn told_of(client: &mut Client, kind: &str, users: &[&str]) {
    let mut seen = Vec::new();
    for _ in users {
        seen.push(client.expect(kind).await.json()["user_id"].as_str().unwrap().to_owned());
    }
    seen.sort();
    assert_eq!(seen, users, "{kind}");
}

fn report(name: &str, user: &str) -> Value {
    json!({"events": [{"name": name, "user_ids": [user]}]})
}

#[tokio::test]
async fn a_node_that_stops_takes_its_members_along_at_once() {
    // Its lease would last for another ten seconds, longer than anything here waits.
    let nodes = Nodes::start(3);
    let mut watchers = watchers(&nodes, [1, 2]).await;
    let mut leaving = Vec::new();
    for user in ["u-1", "u-2", "w-0"] {
        leaving.push(joined(&nodes, 0, LOBBY, user).await);
    }
    for watcher in &mut watchers {
        told_of(watcher, ADDED, &["u-1", "u-2"]).await;
    }
    let mut only_there = nodes.connect(0).await;
    only_there.subscribe("news").await;
    only_there.sign_in(r#"{"id":"u-1"}"#).await;
    let mut watching = nodes.connect(1).await;
    watching.sign_in(r#"{"id":"w","watchlist":["u-1"]}"#).await;
    assert_eq!(watching.expect(WATCHLIST).await.json(), report("online", "u-1"));

    nodes.stop(0);
    for watcher in &mut watchers {
        told_of(watcher, REMOVED, &["u-1", "u-2"]).await;
    }
    assert_eq!(watching.expect(WATCHLIST).await.json(), report("offline", "u-1"));
    for client in watchers.iter_mut().chain([&mut watching]) {
        client.assert_silent().await;
    }
    let rest = nodes.rest(1);
    assert_eq!(rest.read("/channels", &[]).await, json!({"channels": {LOBBY: {}}}));
    let expected = json!({"connections": 3});
    eventually("its connections to be gone", async || rest.read("/connections", &[]).await == expected).await;
}

#[tokio::test]
async fn s075_the_members_of_a_dead_node_are_removed_once_and_in_time() {
    let nodes = short_lived(2);
    let mut dying = Process::start(&nodes.place, "3s");
    let mut watchers = watchers(&nodes, [0, 1]).await;
    let mut reader = nodes.connect(1).await;
    reader.sign_in(r#"{"id":"w","watchlist":["u-1"]}"#).await;
    reader.expect(WATCHLIST).await;
    let mut lost = Vec::new();
    // The last of its users is elsewhere, too, and stays.
    for user in ["u-1", "u-2", "u-3", "w-0"] {
        let mut client = dying.connect().await;
        client.sign_in(&json!({ "id": user }).to_string()).await;
        client.request(LOBBY, Some(&member(user))).await;
        client.request("room-of-the-dead", None).await;
        client.request("news", None).await;
        lost.push(client);
    }
    assert_eq!(reader.expect(WATCHLIST).await.json(), report("online", "u-1"));
    for watcher in &mut watchers {
        told_of(watcher, ADDED, &["u-1", "u-2", "u-3"]).await;
    }
    eventually("everything to be told", async || {
        let totals = nodes.in_redis("42").totals;
        // Nobody counts them: of each node it is known that there is somebody.
        totals.get("news") == Some(&1) && totals.get("room-of-the-dead") == Some(&1)
    })
    .await;
    reader.subscribe("news").await;

    dying.kill();
    let killed = Instant::now();
    for watcher in &mut watchers {
        told_of(watcher, REMOVED, &["u-1", "u-2", "u-3"]).await;
    }
    assert!(killed.elapsed() < NODE_TIMEOUT + SLACK, "{:?}", killed.elapsed());
    assert_eq!(reader.expect(WATCHLIST).await.json(), report("offline", "u-1"));
    // Redis has what the two nodes have, and nothing else.
    for client in watchers.iter_mut().chain([&mut reader]) {
        client.assert_silent().await;
    }
    let rest = nodes.rest(0);
    assert_eq!(rest.read("/channels", &[]).await, json!({"channels": {LOBBY: {}, "news": {}}}));
    let expected = json!({"connections": 3});
    eventually("its connections to be gone", async || rest.read("/connections", &[]).await == expected).await;
    let mut late = nodes.connect(1).await;
    assert_eq!(listed(&late.join(LOBBY, "late").await), set(&["late", "w-0", "w-1"]));
    // The room was occupied on the dead node and vacated on one of the others; the lobby the other way round.
    let transitions = || (nodes.metric(OCCUPIED), nodes.metric(VACATED));
    eventually("each channel to be vacated once", async || transitions().0 == transitions().1).await;
}

#[tokio::test]
async fn a_node_that_was_taken_for_dead_comes_back_with_all_it_has() {
    let nodes = short_lived(2);
    let frozen = Process::start(&nodes.place, "3s");
    let mut watchers = watchers(&nodes, [0, 1]).await;
    let mut clients = Vec::new();
    for user in ["u-1", "u-2", "w-0"] {
        let mut client = frozen.connect().await;
        client.join(LOBBY, user).await;
        clients.push(client);
    }
    let mut reader = frozen.connect().await;
    reader.subscribe("news").await;
    eventually("the reader to be counted", async || nodes.in_redis("42").totals.contains_key("news")).await;
    for watcher in &mut watchers {
        told_of(watcher, ADDED, &["u-1", "u-2"]).await;
    }

    frozen.pause();
    for watcher in &mut watchers {
        told_of(watcher, REMOVED, &["u-1", "u-2"]).await;
    }
    eventually("what only the frozen node had to be gone", async || {
        !nodes.in_redis("42").totals.contains_key("news")
    })
    .await;

    frozen.resume();
    for watcher in &mut watchers {
        told_of(watcher, ADDED, &["u-1", "u-2"]).await;
    }
    eventually("the reader to be counted again", async || {
        nodes.in_redis("42").totals.get("news") == Some(&1)
    })
    .await;
    let everyone = set(&["u-1", "u-2", "w-0", "w-1"]);
    assert_eq!(nodes.in_redis("42").members[LOBBY], everyone);
    // Not again, by whatever was under way when it froze.
    nothing_before(&mut watchers, "behind-the-return", &nodes).await;
    nodes.rest(0).publish("news", "e", "1").await;
    reader.expect_event("e", "news", "1").await;
    // Newcomers there get the same list as everywhere.
    let mut late = frozen.connect().await;
    assert_eq!(listed(&late.join(LOBBY, "w-1").await), everyone);
    let mut late = nodes.connect(0).await;
    assert_eq!(listed(&late.join(LOBBY, "w-1").await), everyone);
    clients.remove(1).close().await;
    for watcher in &mut watchers {
        told_of(watcher, REMOVED, &["u-2"]).await;
    }
    nothing_before(&mut watchers, "behind-the-leave", &nodes).await;
}

/// Nothing is on its way to the watchers. What the process has is unknown here, so that there is no agreement to wait
/// for: an event of the same channel stands behind what was told before.
async fn nothing_before(watchers: &mut [Client], event: &str, nodes: &Arc<Nodes>) {
    nodes.rest(0).publish(LOBBY, event, "").await;
    for watcher in watchers {
        watcher.expect_event(event, LOBBY, "").await;
    }
}
