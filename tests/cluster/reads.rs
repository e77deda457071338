//! The REST API: any node answers for all of them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::common::rest::Response;
use crate::common::{Nodes, Rest, eventually};

#[tokio::test]
async fn every_node_reads_the_same() {
    let nodes = Nodes::with(3, |app| app.subscription_count = true);
    let mut clients = Vec::new();
    for number in 0..40 {
        let mut client = nodes.connect(number % 3).await;
        client.join("presence-all", &format!("u-{}", number % 10)).await;
        client.subscribe(&format!("room-{}", number % 13)).await;
        clients.push(client);
    }
    let mut rooms: BTreeMap<String, u64> = BTreeMap::new();
    (0..40).for_each(|number| *rooms.entry(format!("room-{}", number % 13)).or_default() += 1);
    let users: Vec<Value> = (0..10).map(|number| json!({"id": format!("u-{number}")})).collect();
    for node in 0..3 {
        let rest = nodes.rest(node);
        let listing =
            rest.read("/channels", &[("info", "subscription_count"), ("filter_by_prefix", "room-")]).await;
        let expected: BTreeMap<&str, Value> =
            rooms.iter().map(|(name, count)| (name.as_str(), json!({"subscription_count": count}))).collect();
        assert_eq!(listing, json!({ "channels": expected }), "node {node}");
        let listing =
            rest.read("/channels", &[("info", "user_count"), ("filter_by_prefix", "presence-")]).await;
        assert_eq!(listing, json!({"channels": {"presence-all": {"user_count": 10}}}));
        let everything = rest.read("/channels", &[]).await;
        assert_eq!(everything["channels"].as_object().map(|channels| channels.len()), Some(14));
        let channel = rest.read("/channels/presence-all", &[("info", "user_count")]).await;
        assert_eq!(channel, json!({"occupied": true, "user_count": 10}));
        let mut read =
            rest.read("/channels/presence-all/users", &[]).await["users"].as_array().unwrap().clone();
        read.sort_by_key(|user| user["id"].to_string());
        assert_eq!(read, users);
    }
}

#[tokio::test]
async fn connections_of_all_nodes_are_counted() {
    let nodes = Nodes::start(3);
    let mut clients = Vec::new();
    for number in 0..7 {
        clients.push(nodes.connect(number % 3).await);
    }
    for node in 0..3 {
        // Nodes tell it with each renewal of their lease.
        let rest = nodes.rest(node);
        eventually("all connections", async || {
            rest.read("/connections", &[]).await == json!({"connections": 7})
        })
        .await;
    }
    drop(clients);
    let rest = nodes.rest(1);
    eventually("none", async || rest.read("/connections", &[]).await == json!({"connections": 0})).await;
}

fn deduplicated(answer: &Response) -> Option<&str> {
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.header("tidewire-deduplicated")
}

#[tokio::test]
async fn a_retry_on_another_node_is_the_same_event() {
    let nodes = Nodes::start(2);
    for channel in ["news", "cache-news"] {
        let mut clients = Vec::new();
        for node in [0, 1] {
            let mut client = nodes.connect(node).await;
            client.subscribe(channel).await;
            client.pending_events().await;
            clients.push(client);
        }
        let keyed =
            |data: &str| json!({"name": "e", "data": data, "channels": [channel], "idempotency_key": "k"});
        assert_eq!(deduplicated(&nodes.rest(0).trigger(keyed("1")).await), None);
        for node in [1, 0] {
            assert_eq!(deduplicated(&nodes.rest(node).trigger(keyed("1")).await), Some("true"));
            let text = nodes.rest(node).trigger(keyed("2")).await.refused(409);
            assert!(text.contains(channel) && text.contains("nothing was published"), "{text}");
        }
        for client in &mut clients {
            client.expect_event("e", channel, "1").await;
            client.assert_silent().await;
        }
    }
}

#[tokio::test]
async fn of_retries_at_once_on_all_nodes_one_publishes() {
    let nodes = Nodes::start(3);
    let mut client = nodes.connect(0).await;
    client.subscribe("news").await;
    for round in 0..10 {
        let tries: Vec<_> = (0..6)
            .map(|number| {
                let rest: Rest = nodes.rest(number % 3);
                let body = json!({"name": "e", "data": round.to_string(), "channels": ["news"],
                    "idempotency_key": format!("k-{round}")});
                tokio::spawn(async move { rest.trigger(body).await })
            })
            .collect();
        let mut firsts = 0;
        for answer in tries {
            firsts += usize::from(deduplicated(&answer.await.unwrap()).is_none());
        }
        assert_eq!(firsts, 1, "round {round}");
        client.expect_event("e", "news", &round.to_string()).await;
    }
    client.assert_silent().await;
}

#[tokio::test]
async fn clusters_with_other_prefixes_on_one_redis_know_nothing_of_each_other() {
    let (ours, theirs) = (Nodes::start(1), Nodes::start(1));
    let mut clients = [ours.connect(0).await, theirs.connect(0).await];
    for client in &mut clients {
        client.join("presence-a", &client.socket_id.clone()).await;
        client.sign_in(r#"{"id":"u-1"}"#).await;
    }
    ours.rest(0).publish("presence-a", "e", "1").await;
    clients[0].expect_event("e", "presence-a", "1").await;
    assert_eq!(ours.rest(0).read("/channels/presence-a", &[("info", "user_count")]).await["user_count"], 1);
    theirs.rest(0).post("/apps/42/users/u-1/terminate_connections", "{}").send().await;
    clients[1].expect_error(Some(4009)).await;
    for client in &mut clients[..1] {
        client.assert_silent().await;
    }
}
