//! Signed-in users: their own channel, who watches them, and their end, across nodes.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::common::{Client, Nodes};

const WATCHLIST: &str = "pusher_internal:watchlist_events";

async fn user(nodes: &Arc<Nodes>, node: usize, id: &str) -> Client {
    let mut client = nodes.connect(node).await;
    client.sign_in(&json!({ "id": id }).to_string()).await;
    client
}

async fn watcher(nodes: &Arc<Nodes>, node: usize, watched: &[&str]) -> (Client, Value) {
    let mut client = nodes.connect(node).await;
    client.sign_in(&json!({"id": format!("watcher-{node}"), "watchlist": watched}).to_string()).await;
    let report = client.expect(WATCHLIST).await.json();
    (client, report)
}

fn report(name: &str, ids: &[&str]) -> Value {
    json!({"events": [{"name": name, "user_ids": ids}]})
}

#[tokio::test]
async fn s122_an_event_for_a_user_reaches_its_connections_on_all_nodes() {
    let nodes = Nodes::start(3);
    let mut connections = Vec::new();
    for node in [0, 1, 1, 2] {
        let mut client = user(&nodes, node, "u-1").await;
        client.subscribe("#server-to-user-u-1").await;
        connections.push(client);
    }
    let mut stranger = user(&nodes, 1, "u-2").await;
    stranger.subscribe("#server-to-user-u-2").await;
    for publisher in 0..3 {
        nodes.rest(publisher).publish("#server-to-user-u-1", "notice", r#"{"a":1}"#).await;
        for client in &mut connections {
            let expected = json!({"event": "notice", "channel": "#server-to-user-u-1", "data": "{\"a\":1}"});
            assert_eq!(client.next_event().await.frame, expected);
        }
    }
    for client in connections.iter_mut().chain([&mut stranger]) {
        client.assert_silent().await;
    }
    assert_eq!(nodes.rest(0).read("/channels", &[]).await, json!({"channels": {}}));
}

#[tokio::test]
async fn watchers_everywhere_hear_of_the_first_and_the_last_connection_in_the_cluster() {
    let nodes = Nodes::start(2);
    let (mut a, first) = watcher(&nodes, 0, &["u-1"]).await;
    assert_eq!(first, report("offline", &["u-1"]));
    let (mut b, first) = watcher(&nodes, 1, &["u-1"]).await;
    assert_eq!(first, report("offline", &["u-1"]));
    for round in 0..3 {
        let on_a = user(&nodes, 0, "u-1").await;
        for client in [&mut a, &mut b] {
            assert_eq!(client.expect(WATCHLIST).await.json(), report("online", &["u-1"]), "round {round}");
        }
        let on_b = user(&nodes, 1, "u-1").await;
        for client in [&mut a, &mut b] {
            client.assert_silent().await;
        }
        let (stays, goes) = if round % 2 == 0 { (on_a, on_b) } else { (on_b, on_a) };
        goes.close().await;
        for client in [&mut a, &mut b] {
            client.assert_silent().await;
        }
        stays.reset();
        for client in [&mut a, &mut b] {
            assert_eq!(client.expect(WATCHLIST).await.json(), report("offline", &["u-1"]), "round {round}");
            client.assert_silent().await;
        }
    }
}

#[tokio::test]
async fn a_newcomer_is_told_who_is_online_on_another_node() {
    let nodes = Nodes::start(2);
    let online = user(&nodes, 0, "u-1").await;
    let (_, first) = watcher(&nodes, 1, &["u-1"]).await;
    assert_eq!(first, report("online", &["u-1"]));
    let mut seen = watcher(&nodes, 1, &["u-1", "u-2"]).await.1["events"].as_array().unwrap().clone();
    seen.sort_by_key(|event| event["name"].to_string());
    let expected = json!([{"name": "offline", "user_ids": ["u-2"]}, {"name": "online", "user_ids": ["u-1"]}]);
    assert_eq!(Value::from(seen), expected);
    online.close().await;
}

#[tokio::test]
async fn terminating_a_user_closes_its_connections_on_all_nodes() {
    let nodes = Nodes::start(3);
    let (mut watching, _) = watcher(&nodes, 2, &["u-1"]).await;
    let mut victims = Vec::new();
    for node in [0, 1, 1] {
        victims.push(user(&nodes, node, "u-1").await);
    }
    assert_eq!(watching.expect(WATCHLIST).await.json(), report("online", &["u-1"]));
    let mut other = user(&nodes, 1, "u-2").await;
    // From a node that has none of them.
    let path = "/apps/42/users/u-1/terminate_connections";
    let answer = nodes.rest(2).post(path, "{}").send().await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
    for client in &mut victims {
        client.expect_error(Some(4009)).await;
        client.expect_close(4009).await;
    }
    assert_eq!(watching.expect(WATCHLIST).await.json(), report("offline", &["u-1"]));
    for client in [&mut other, &mut watching] {
        client.assert_silent().await;
    }
    user(&nodes, 0, "u-1").await.assert_silent().await;
}
