//! A slot of a Redis Cluster that is moved to another master while nodes use it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tidewire::config::{AppReplay, ChannelPattern, ReplayRule, StoreKind};
use tidewire::fanout::keys::{Keys, partition};

use crate::common::nodes::Place;
use crate::common::redis::RedisCluster;
use crate::common::rest::Response;
use crate::common::{Client, Event, Nodes, Rest, Upgrade, eventually, member};

const STORED: &str = "stored";

/// The test's own Redis is not theirs.
fn rest(nodes: &Arc<Nodes>, node: usize) -> Rest {
    Rest { settled: None, ..nodes.rest(node) }
}

async fn connect(nodes: &Arc<Nodes>, node: usize) -> Client {
    let socket = Upgrade::get("/app/tw-demo-key?protocol=7").send(nodes.addr(node)).await.upgraded();
    Client::greeted(socket, rest(nodes, node)).await
}

/// A channel of the stored one's partition.
fn beside(prefix: &str) -> String {
    let mut names = (0..).map(|number| format!("{prefix}-{number}"));
    names.find(|name| partition("42", name) == partition("42", STORED)).unwrap()
}

async fn publish(nodes: &Arc<Nodes>, node: usize, channel: &str, data: &str) -> Response {
    rest(nodes, node).trigger(json!({"name": "e", "data": data, "channels": [channel]})).await
}

/// Publishes to the log, at the nodes in turn.
#[derive(Default)]
struct Publisher {
    accepted: Vec<String>,
    refused: HashSet<String>,
}

impl Publisher {
    async fn publish(&mut self, nodes: &Arc<Nodes>) -> bool {
        let number = self.accepted.len() + self.refused.len();
        let answer = publish(nodes, number % 2, STORED, &number.to_string()).await;
        match answer.status {
            200 => self.accepted.push(number.to_string()),
            503 => {
                assert!(answer.header("retry-after").is_some());
                self.refused.insert(number.to_string());
            }
            other => panic!("{other}: {}", answer.body),
        }
        answer.status == 200
    }
}

/// What a subscriber has seen.
#[derive(Default)]
struct Seen {
    stored: Vec<Event>,
    plain: Vec<String>,
    members: Vec<String>,
}

impl Seen {
    async fn next(&mut self, client: &mut Client) {
        let event = client.next_event().await;
        match (event.event.as_str(), event.channel.as_deref()) {
            ("e", Some(STORED)) => self.stored.push(event),
            ("e", _) => self.plain.push(event.data().to_owned()),
            ("pusher_internal:member_added", _) => {
                self.members.push(event.json()["user_id"].as_str().unwrap().to_owned());
            }
            _ => panic!("{event:?}"),
        }
    }
}

#[tokio::test]
async fn a_slot_that_is_moved_under_load_loses_nothing_that_was_accepted() {
    let cluster = RedisCluster::start();
    let nodes = Nodes::with_config(2, Place::shared(), |config| {
        config.redis = cluster.config();
        config.redis.response_timeout = Duration::from_secs(1);
        config.replay.store = StoreKind::Redis;
        let rule = ReplayRule { pattern: ChannelPattern::new(STORED), ..ReplayRule::default() };
        config.apps[0].replay = AppReplay { rules: vec![rule], ..AppReplay::default() };
    });
    let (plain, presence) = (beside("plain"), beside("presence"));
    let mut clients = [connect(&nodes, 0).await, connect(&nodes, 1).await];
    let mut begin = String::new();
    for (client, user_id) in clients.iter_mut().zip(["1", "2"]) {
        client.send_subscribe(json!({"channel": STORED, "replay": {"v": 1}})).await;
        let answer = client.succeeded(STORED).await.frame["replay"].clone();
        begin = format!("{}:{}", answer["epoch"].as_str().unwrap(), answer["serial"]);
        client.subscribe(&plain).await;
        client.join(&presence, user_id).await;
    }
    let mut publisher = Publisher::default();
    for _ in 0..4 {
        assert!(publisher.publish(&nodes).await);
    }

    let tag = Keys::new(&cluster.config().prefix).tag(partition("42", STORED));
    let slot: u16 = cluster.masters[0].command(&["CLUSTER", "KEYSLOT", &tag]);
    let owner = cluster.owner(slot).port();
    let to = cluster.masters.iter().find(|master| master.port() != owner).unwrap();
    cluster.begin_move(slot, to);
    let mut late = connect(&nodes, 1).await;
    late.request(&presence, Some(&member("3"))).await;
    let mut meanwhile = 0;
    while !cluster.move_keys(slot, to, 3).is_empty() {
        publisher.publish(&nodes).await;
        // What is not stored needs no key.
        assert_eq!(publish(&nodes, 0, &plain, "meanwhile").await.status, 200);
        meanwhile += 1;
    }
    assert!(!publisher.refused.is_empty(), "the log is at neither master while it is moved");
    cluster.move_slot(slot, to);
    for _ in 0..2 {
        // At the one node and at the other.
        eventually("messages to be stored again", async || publisher.publish(&nodes).await).await;
    }

    // Who had to wait is let in, and the others hear of it.
    late.succeeded(&presence).await;
    for (node, client) in clients.iter_mut().enumerate() {
        let mut seen = Seen::default();
        // The first of them heard of the second.
        while seen.members.len() < 2 - node || seen.stored.len() < publisher.accepted.len() {
            seen.next(client).await;
        }
        assert_eq!(seen.members.last().map(String::as_str), Some("3"));
        let serials: Vec<u64> =
            seen.stored.iter().map(|event| event.frame["serial"].as_u64().unwrap()).collect();
        assert_eq!(serials, (1..=serials.len() as u64).collect::<Vec<_>>());
        // One that was refused because the answer was lost may have been stored.
        let stored = seen.stored.iter().map(|event| event.data().to_owned());
        let stored: Vec<String> = stored.filter(|data| !publisher.refused.contains(data)).collect();
        assert_eq!(stored, publisher.accepted);
        assert_eq!(seen.plain, vec!["meanwhile"; meanwhile]);
    }
    for node in 0..2 {
        assert_eq!(publish(&nodes, node, &plain, "after").await.status, 200);
        for client in &mut clients {
            client.expect_event("e", &plain, "after").await;
        }
    }
    // A position from before is good on the new master.
    late.send_subscribe(json!({"channel": STORED, "replay": {"v": 1, "from": begin}})).await;
    let answer = late.succeeded(STORED).await.frame["replay"].clone();
    assert_eq!(answer["recovered"], true, "{answer}");
    assert!(answer["count"].as_u64() >= Some(publisher.accepted.len() as u64), "{answer}");
}
