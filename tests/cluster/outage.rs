//! Redis goes away, comes back empty, or forgets its scripts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::common::nodes::{Place, metric};
use crate::common::redis::RedisServer;
use crate::common::{Client, HttpConnection, Nodes, Rest, eventually, member};
use crate::presence::{ADDED, Follower, REMOVED, joined, listed, set};

const LOBBY: &str = "presence-lobby";

fn on_own_redis(count: usize) -> Arc<Nodes> {
    Nodes::with_config(count, Place::own(), |config| {
        config.redis.node_timeout = Duration::from_secs(3);
        config.redis.unready_after = Duration::from_secs(1);
    })
}

/// For requests while Redis is away: there is no agreement to wait for.
fn rest(nodes: &Arc<Nodes>, node: usize) -> Rest {
    Rest { settled: None, ..nodes.rest(node) }
}

fn is_connected(nodes: &Nodes, node: usize) -> bool {
    let connected = metric(&nodes.node(node), "tidewire_fanout_connected");
    connected.expect("a node of a cluster has the gauge") == 1
}

/// `/ready` on the public port and on the admin port.
async fn ready(nodes: &Nodes, node: usize) -> [u16; 2] {
    let server = nodes.node(node);
    let mut statuses = [0; 2];
    for (status, addr) in statuses.iter_mut().zip([server.addr(), server.admin_addr().unwrap()]) {
        let mut connection = HttpConnection::open(addr).await;
        connection.write(b"GET /ready HTTP/1.1\r\nHost: tidewire.test\r\n\r\n").await.unwrap();
        *status = connection.response().await.status;
    }
    statuses
}

async fn publish(rest: &Rest, data: &str) -> u16 {
    rest.trigger(json!({"name": "e", "data": data, "channels": [LOBBY]})).await.status
}

async fn loses_redis(nodes: &Arc<Nodes>) {
    nodes.place.server.kill();
    for node in 0..2 {
        eventually("the loss to be seen", async || !is_connected(nodes, node)).await;
    }
}

async fn finds_redis(nodes: &Arc<Nodes>) {
    nodes.place.server.restart();
    for node in 0..2 {
        eventually("the nodes to be back", async || is_connected(nodes, node)).await;
    }
    nodes.rest(0).settle().await;
}

#[tokio::test]
async fn clients_outlive_a_redis_that_comes_back_empty_and_nobody_is_told_of_a_leave() {
    let nodes = on_own_redis(2);
    let mut clients = [joined(&nodes, 0, LOBBY, "u-0").await, joined(&nodes, 1, LOBBY, "u-1").await];
    clients[0].expect(ADDED).await;
    let mut waiting = [nodes.connect(0).await, nodes.connect(1).await];
    assert_eq!((ready(&nodes, 0).await, ready(&nodes, 1).await), ([200; 2], [200; 2]));

    loses_redis(&nodes).await;
    for node in 0..2 {
        let rest = rest(&nodes, node);
        let event = |extra: serde_json::Value| {
            let mut body = json!({"name": "e", "data": "lost", "channels": [LOBBY]});
            body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            body
        };
        for body in [event(json!({})), event(json!({"idempotency_key": "k"}))] {
            let answer = rest.trigger(body).await;
            assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{}", answer.body);
            assert!(answer.body.contains("Redis"), "{}", answer.body);
        }
        for path in ["/apps/42/channels", "/apps/42/channels/presence-lobby/users", "/apps/42/connections"] {
            let answer = rest.get(path).send().await;
            assert_eq!(
                (answer.status, answer.header("retry-after")),
                (503, Some("1")),
                "{path}: {}",
                answer.body
            );
        }
        eventually("the node to be unready", async || ready(&nodes, node).await == [503; 2]).await;
    }
    // Subscriptions wait.
    waiting[0].request(LOBBY, Some(&member("late-0"))).await;
    waiting[1].request("news", None).await;
    for client in clients.iter_mut().chain(&mut waiting) {
        client.sync().await;
    }

    finds_redis(&nodes).await;
    assert_eq!(listed(&waiting[0].succeeded(LOBBY).await), set(&["late-0", "u-0", "u-1"]));
    waiting[1].succeeded("news").await;
    for client in &mut clients {
        assert_eq!(client.expect(ADDED).await.json()["user_id"], "late-0");
    }
    for node in 0..2 {
        eventually("the node to be ready", async || ready(&nodes, node).await == [200; 2]).await;
        assert_eq!(publish(&nodes.rest(node), "found").await, 200);
        for client in clients.iter_mut().chain(&mut waiting[..1]) {
            client.expect_event("e", LOBBY, "found").await;
        }
    }
    for client in clients.iter_mut().chain(&mut waiting) {
        client.assert_silent().await;
    }
    let [mut first, second] = clients;
    second.close().await;
    assert_eq!(first.expect(REMOVED).await.json(), json!({"user_id": "u-1"}));
    first.assert_silent().await;
}

#[tokio::test]
async fn who_leaves_while_redis_is_away_is_gone_once_it_is_back() {
    let nodes = on_own_redis(2);
    let mut watchers = [joined(&nodes, 0, LOBBY, "w-0").await, joined(&nodes, 1, LOBBY, "w-1").await];
    let mut leaving = Vec::new();
    for node in 0..2 {
        leaving.push(joined(&nodes, node, LOBBY, &format!("u-{node}")).await);
    }
    for watcher in &mut watchers {
        watcher.pending_events().await;
    }
    loses_redis(&nodes).await;
    for client in leaving {
        client.close().await;
    }
    finds_redis(&nodes).await;
    for watcher in &mut watchers {
        let mut gone = Vec::new();
        for _ in 0..2 {
            gone.push(watcher.expect(REMOVED).await.json()["user_id"].as_str().unwrap().to_owned());
        }
        gone.sort();
        assert_eq!(gone, ["u-0", "u-1"]);
        watcher.assert_silent().await;
    }
}

#[tokio::test]
async fn several_outages_in_a_row_change_nothing() {
    let nodes = on_own_redis(2);
    let mut clients: Vec<Client> = Vec::new();
    for number in 0..6 {
        clients.push(joined(&nodes, number % 2, LOBBY, &format!("u-{}", number / 2)).await);
    }
    for client in &mut clients {
        client.pending_events().await;
    }
    for _ in 0..4 {
        loses_redis(&nodes).await;
        finds_redis(&nodes).await;
    }
    for client in &mut clients {
        client.assert_silent().await;
    }
    assert_eq!(publish(&nodes.rest(1), "found").await, 200);
    for client in &mut clients {
        client.expect_event("e", LOBBY, "found").await;
    }
}

#[tokio::test]
async fn lists_kept_by_frames_are_right_after_outages_while_people_come_and_go() {
    let nodes = on_own_redis(2);
    let mut followers = [Follower::join(&nodes, 0).await, Follower::join(&nodes, 1).await];
    let is_over = Arc::new(AtomicBool::new(false));
    let busy: Vec<_> = (0..6)
        .map(|number| {
            let (nodes, is_over) = (Arc::clone(&nodes), Arc::clone(&is_over));
            tokio::spawn(async move {
                let user = format!("u-{}", number / 2);
                for round in 0.. {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let mut client = joined(&nodes, (number + round) % 2, LOBBY, &user).await;
                    if round % 2 == 0 { client.unsubscribe(LOBBY).await } else { client.close().await }
                }
            })
        })
        .collect();
    for _ in 0..3 {
        loses_redis(&nodes).await;
        nodes.place.server.restart();
        for node in 0..2 {
            eventually("the nodes to be back", async || is_connected(&nodes, node)).await;
            let rest = rest(&nodes, node);
            eventually("events to go through", async || rest.trigger(marker()).await.status == 200).await;
        }
    }
    is_over.store(true, Ordering::Relaxed);
    for task in busy {
        task.await.unwrap();
    }
    let expected = set(&["follower-0", "follower-1"]);
    eventually("everybody else to be gone", async || nodes.in_redis("42").members[LOBBY] == expected).await;
    for follower in &mut followers {
        // Who left while Redis was away is taken out when all nodes have surely told what they have.
        while follower.present() != &expected {
            follower.next().await;
        }
        assert_eq!(follower.pending().await, &expected);
    }
}

fn marker() -> serde_json::Value {
    json!({"name": "e", "data": "", "channels": ["elsewhere"]})
}

#[tokio::test]
async fn counts_do_not_change_because_redis_has_forgotten_them_and_are_right_in_the_end() {
    counts_outlive_outages(Place::own()).await;
}

#[tokio::test]
async fn counts_do_not_change_because_redis_was_away() {
    counts_outlive_outages(Place::on(RedisServer::durable())).await;
}

async fn counts_outlive_outages(place: Place) {
    let nodes = Nodes::with_config(2, place, |config| {
        config.redis.node_timeout = Duration::from_secs(3);
        config.apps[0].subscription_count = true;
    });
    let mut clients = Vec::new();
    for number in 0..4 {
        let mut client = nodes.connect(number % 2).await;
        client.subscribe("news").await;
        clients.push(client);
    }
    for client in &mut clients {
        client.pending_events().await;
    }
    for _ in 0..3 {
        loses_redis(&nodes).await;
        finds_redis(&nodes).await;
        for client in &mut clients {
            client.assert_silent().await;
        }
    }
    loses_redis(&nodes).await;
    clients.pop().unwrap().close().await;
    finds_redis(&nodes).await;
    let info = nodes.rest(0).read("/channels/news", &[("info", "subscription_count")]).await;
    assert_eq!(info["subscription_count"], 3);
    for client in &mut clients {
        let told = client.expect("pusher_internal:subscription_count").await;
        assert_eq!(told.json(), json!({"subscription_count": 3}));
        client.assert_silent().await;
    }
}

#[tokio::test]
async fn watchers_are_told_nothing_of_an_outage() {
    let nodes = on_own_redis(2);
    let mut users = [nodes.connect(0).await, nodes.connect(1).await];
    users[0].sign_in(r#"{"id":"u-0","watchlist":["u-1"]}"#).await;
    users[0].expect("pusher_internal:watchlist_events").await;
    users[1].sign_in(r#"{"id":"u-1","watchlist":["u-0"]}"#).await;
    for client in &mut users {
        client.expect("pusher_internal:watchlist_events").await;
        client.assert_silent().await;
    }
    loses_redis(&nodes).await;
    finds_redis(&nodes).await;
    for client in &mut users {
        client.assert_silent().await;
    }
    let [mut first, second] = users;
    second.close().await;
    let offline = json!({"events": [{"name": "offline", "user_ids": ["u-1"]}]});
    assert_eq!(first.expect("pusher_internal:watchlist_events").await.json(), offline);
    first.assert_silent().await;
}

#[tokio::test]
async fn a_redis_that_forgot_its_scripts_is_told_them_again() {
    let nodes = Nodes::with_config(2, Place::own(), |_| {});
    let mut a = joined(&nodes, 0, LOBBY, "u-a").await;
    let flush = || -> String { nodes.place.server.command(&["SCRIPT", "FLUSH"]) };
    flush();
    let mut b = joined(&nodes, 1, LOBBY, "u-b").await;
    a.expect(ADDED).await;
    flush();
    let body = json!({"name": "e", "data": "1", "channels": [LOBBY], "idempotency_key": "k"});
    assert_eq!(nodes.rest(0).trigger(body.clone()).await.status, 200);
    flush();
    assert_eq!(nodes.rest(1).trigger(body).await.header("tidewire-deduplicated"), Some("true"));
    flush();
    nodes.rest(1).publish("cache-x", "e", "1").await;
    flush();
    nodes.rest(0).read("/connections", &[]).await;
    for client in [&mut a, &mut b] {
        client.expect_event("e", LOBBY, "1").await;
        client.assert_silent().await;
    }
    flush();
    b.sign_in(r#"{"id":"u-b"}"#).await;
    flush();
    b.close().await;
    assert_eq!(a.expect(REMOVED).await.json()["user_id"], "u-b");
}
