//! Presence: one list of members, whichever node a connection is on.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::common::nodes::Place;
use crate::common::{Client, Event, Nodes, eventually, member};

pub const ADDED: &str = "pusher_internal:member_added";
pub const REMOVED: &str = "pusher_internal:member_removed";
const LOBBY: &str = "presence-lobby";

pub async fn joined(nodes: &Arc<Nodes>, node: usize, channel: &str, user_id: &str) -> Client {
    let mut client = nodes.connect(node).await;
    client.join(channel, user_id).await;
    client
}

/// The users that a success frame lists, once each.
pub fn listed(success: &Event) -> BTreeSet<String> {
    let presence = &success.json()["presence"];
    let ids: Vec<String> = serde_json::from_value(presence["ids"].clone()).unwrap();
    let users: BTreeSet<String> = ids.iter().cloned().collect();
    assert_eq!(users.len(), ids.len(), "nobody twice: {presence}");
    assert_eq!(presence["count"], ids.len(), "{presence}");
    assert_eq!(presence["hash"].as_object().unwrap().len(), ids.len(), "{presence}");
    users
}

pub fn set(users: &[&str]) -> BTreeSet<String> {
    users.iter().map(|user| (*user).to_owned()).collect()
}

#[tokio::test]
async fn s075_users_on_two_nodes_see_each_other_come_and_go() {
    let nodes = Nodes::start(2);
    let mut a = joined(&nodes, 0, LOBBY, "u-a").await;
    let mut b = nodes.connect(1).await;
    assert_eq!(listed(&b.join(LOBBY, "u-b").await), set(&["u-a", "u-b"]));
    let added = a.expect(ADDED).await;
    assert_eq!(added.json(), json!({"user_id": "u-b", "user_info": {"name": "u-b"}}));
    for client in [&mut a, &mut b] {
        client.assert_silent().await;
    }
    b.unsubscribe(LOBBY).await;
    assert_eq!(a.expect(REMOVED).await.json(), json!({"user_id": "u-b"}));
    a.assert_silent().await;
    b.assert_silent().await;
}

#[tokio::test]
async fn s075_a_user_on_both_nodes_is_one_member() {
    let nodes = Nodes::start(2);
    let mut watchers = [joined(&nodes, 0, LOBBY, "w-a").await, joined(&nodes, 1, LOBBY, "w-b").await];
    watchers[0].expect(ADDED).await;

    let mut on_a = joined(&nodes, 0, LOBBY, "u-1").await;
    for watcher in &mut watchers {
        assert_eq!(watcher.expect(ADDED).await.json()["user_id"], "u-1");
    }
    let mut on_b = nodes.connect(1).await;
    assert_eq!(listed(&on_b.join(LOBBY, "u-1").await), set(&["u-1", "w-a", "w-b"]));
    let info = nodes.rest(0).read("/channels/presence-lobby", &[("info", "user_count")]).await;
    assert_eq!(info["user_count"], 3);

    // In either order: the first to leave is not the last.
    on_a.unsubscribe(LOBBY).await;
    for watcher in &mut watchers {
        watcher.assert_silent().await;
    }
    on_a.join(LOBBY, "u-1").await;
    on_b.unsubscribe(LOBBY).await;
    for watcher in &mut watchers {
        watcher.assert_silent().await;
    }
    on_a.close().await;
    for watcher in &mut watchers {
        assert_eq!(watcher.expect(REMOVED).await.json(), json!({"user_id": "u-1"}));
        watcher.assert_silent().await;
    }
}

#[tokio::test]
async fn the_newest_info_is_what_newcomers_on_any_node_see() {
    let nodes = Nodes::start(2);
    let mut watcher = joined(&nodes, 0, LOBBY, "watcher").await;
    let (mut first, mut second) = (nodes.connect(0).await, nodes.connect(1).await);
    first.join_with(LOBBY, r#"{"user_id":"u-1","user_info":{"status":"away"}}"#).await;
    watcher.expect(ADDED).await;
    second.join_with(LOBBY, r#"{"user_id":"u-1","user_info":{"status":"back"}}"#).await;
    for node in [0, 1] {
        let mut late = nodes.connect(node).await;
        let success = late.join(LOBBY, "late").await;
        assert_eq!(success.json()["presence"]["hash"]["u-1"], json!({"status": "back"}), "node {node}");
        late.close().await;
        assert_eq!(watcher.expect(ADDED).await.json()["user_id"], "late");
        assert_eq!(watcher.expect(REMOVED).await.json()["user_id"], "late");
    }
    watcher.assert_silent().await;
}

#[tokio::test]
async fn the_limit_of_members_is_one_for_all_nodes() {
    let nodes = Nodes::with(2, |app| app.limits.max_presence_members = 3);
    let mut members = Vec::new();
    for (node, user) in [(0, "u-0"), (1, "u-1"), (0, "u-2")] {
        members.push(joined(&nodes, node, LOBBY, user).await);
    }
    for node in [0, 1] {
        let mut late = nodes.connect(node).await;
        late.request(LOBBY, Some(&member("u-3"))).await;
        let message = late.expect_refusal().await;
        assert!(message.contains('3'), "{message}");
        // Another connection of a member takes no place.
        late.join(LOBBY, "u-1").await;
        late.close().await;
    }
    let users = nodes.rest(1).read("/channels/presence-lobby/users", &[]).await;
    assert_eq!(users, json!({"users": [{"id": "u-0"}, {"id": "u-1"}, {"id": "u-2"}]}));

    members.pop().unwrap().close().await;
    eventually("a place", async || nodes.in_redis("42").members[LOBBY].len() == 2).await;
    joined(&nodes, 1, LOBBY, "u-3").await.sync().await;
}

#[tokio::test]
async fn a_race_for_the_last_place_has_one_winner() {
    let nodes = Nodes::with(2, |app| app.limits.max_presence_members = 2);
    let _holder = joined(&nodes, 0, LOBBY, "holder").await;
    for round in 0..10 {
        let (mut a, mut b) = (nodes.connect(0).await, nodes.connect(1).await);
        a.request(LOBBY, Some(&member(&format!("a-{round}")))).await;
        b.request(LOBBY, Some(&member(&format!("b-{round}")))).await;
        let mut admitted = 0;
        for client in [&mut a, &mut b] {
            let answer = client.next_event().await;
            if answer.event == "pusher:error" {
                continue;
            }
            assert!(answer.is("pusher_internal:subscription_succeeded", LOBBY), "{answer:?}");
            assert_eq!(listed(&answer).len(), 2);
            admitted += 1;
        }
        assert_eq!(admitted, 1, "round {round}");
        a.close().await;
        b.close().await;
        eventually("the place to be free", async || nodes.in_redis("42").members[LOBBY].len() == 1).await;
    }
}

/// Follows a member list by the frames that tell of it.
pub struct Follower {
    client: Client,
    present: BTreeSet<String>,
}

impl Follower {
    pub async fn join(nodes: &Arc<Nodes>, node: usize) -> Self {
        let mut client = nodes.connect(node).await;
        let present = listed(&client.join(LOBBY, &format!("follower-{node}")).await);
        Self { client, present }
    }

    pub fn present(&self) -> &BTreeSet<String> {
        &self.present
    }

    /// Takes in the next frame.
    pub async fn next(&mut self) {
        let event = self.client.next_event().await;
        self.take_in(&event);
    }

    /// Takes in all that is on its way.
    pub async fn pending(&mut self) -> &BTreeSet<String> {
        for event in self.client.pending_events().await {
            self.take_in(&event);
        }
        &self.present
    }

    fn take_in(&mut self, event: &Event) {
        let user = event.json()["user_id"].as_str().unwrap().to_owned();
        let is_change = match event.event.as_str() {
            ADDED => self.present.insert(user),
            REMOVED => self.present.remove(&user),
            other => panic!("{other} while people come and go"),
        };
        assert!(is_change, "{event:?} changes nothing of {:?}", self.present);
    }
}

#[tokio::test]
async fn lists_kept_by_frames_are_equal_on_all_nodes_after_any_coming_and_going() {
    const NODES: usize = 3;
    let nodes = Nodes::start(NODES);
    let mut followers = Vec::new();
    for node in 0..NODES {
        followers.push(Follower::join(&nodes, node).await);
    }
    let busy: Vec<_> = (0..9)
        .map(|number| {
            let nodes = Arc::clone(&nodes);
            tokio::spawn(async move {
                // Three connections, each on another node, share a user.
                let user = format!("u-{}", number / NODES);
                for round in 0..20 {
                    let mut client = joined(&nodes, (number + round) % NODES, LOBBY, &user).await;
                    match (round + number) % 3 {
                        0 => client.unsubscribe(LOBBY).await,
                        1 => client.reset(),
                        _ => client.close().await,
                    }
                }
            })
        })
        .collect();
    for task in busy {
        task.await.unwrap();
    }
    let expected = set(&["follower-0", "follower-1", "follower-2"]);
    eventually("everybody else to be gone", async || nodes.in_redis("42").members[LOBBY] == expected).await;
    for follower in &mut followers {
        assert_eq!(follower.pending().await, &expected);
    }
    let info = nodes.rest(2).read("/channels/presence-lobby", &[("info", "user_count")]).await;
    assert_eq!(info, json!({"occupied": true, "user_count": 3}));
}

#[tokio::test]
async fn a_channel_with_more_members_than_a_script_takes_is_whole_on_both_nodes() {
    const USERS: usize = 250;
    let nodes = Nodes::with(2, |app| app.limits.max_presence_members = 1_000);
    let mut clients = Vec::new();
    for number in 0..USERS {
        clients.push(joined(&nodes, number % 2, LOBBY, &format!("u-{number}")).await);
    }
    for node in [0, 1] {
        let mut late = nodes.connect(node).await;
        assert_eq!(listed(&late.join(LOBBY, "u-0").await).len(), USERS);
    }
    let users = nodes.rest(0).read("/channels/presence-lobby/users", &[]).await;
    assert_eq!(users["users"].as_array().map(Vec::len), Some(USERS));
}

#[tokio::test]
async fn ids_of_any_characters_are_the_same_member_everywhere() {
    let nodes = Nodes::with_config(2, Place::shared(), |_| {});
    let mut watcher = joined(&nodes, 0, LOBBY, "watcher").await;
    for id in ["a:b", "ü😀", "with\nnewline", "{braces}", "\"quoted\"", "a\0b", "12:34:-"] {
        let data = json!({"user_id": id, "user_info": {"id": id}}).to_string();
        let mut on_b = nodes.connect(1).await;
        on_b.join_with(LOBBY, &data).await;
        assert_eq!(watcher.expect(ADDED).await.json(), json!({"user_id": id, "user_info": {"id": id}}));
        let mut again = nodes.connect(0).await;
        let success = again.join_with(LOBBY, &data).await;
        assert_eq!(success.json()["presence"]["count"], 2);
        assert_eq!(success.json()["presence"]["hash"][id], json!({ "id": id }));
        again.close().await;
        on_b.close().await;
        assert_eq!(watcher.expect(REMOVED).await.json()["user_id"], Value::from(id));
    }
    watcher.assert_silent().await;
}
