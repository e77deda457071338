//! Two clusters on one Redis: each sees itself only, and its user may touch nothing else.

use std::sync::Arc;

use serde_json::{Value, json};
use tidewire::config::{AppReplay, ChannelPattern, ReplayRule, Secret, StoreKind};

use crate::common::nodes::Place;
use crate::common::{Client, Nodes, Rest};

/// Two nodes as the user that `docs/cluster.md` shows, with the prefix of the place.
fn start(place: Place) -> Arc<Nodes> {
    let text = include_str!("../../docs/cluster.md");
    let line = text.lines().find(|line| line.starts_with("user tidewire ")).expect("the page has a user");
    let namespace = place.config().namespace();
    let line = line.replace("tidewire", &namespace).replace("PASSWORD", "word");
    let words: Vec<&str> = line.split(' ').collect();
    let _: String = place.server.command(&[&["ACL", "SETUSER"], &words[1..]].concat());
    let user = namespace;
    Nodes::with_config(2, place, |config| {
        (config.redis.username, config.redis.password) = (user, Secret::new("word"));
        config.replay.store = StoreKind::Redis;
        let rule = ReplayRule { pattern: ChannelPattern::new("log-*"), ..ReplayRule::default() };
        config.apps[0].replay = AppReplay { rules: vec![rule], ..AppReplay::default() };
    })
}

async fn subscribe_from(client: &mut Client, channel: &str, replay: Value) -> Value {
    client.send_subscribe(json!({"channel": channel, "replay": replay})).await;
    client.succeeded(channel).await.frame["replay"].clone()
}

/// A client that has a part in everything that a cluster keeps.
async fn guest(nodes: &Arc<Nodes>) -> Client {
    let mut client = nodes.connect(0).await;
    client.sign_in(&json!({"id": "u-1", "user_info": {}}).to_string()).await;
    client.join("presence-p", "u-1").await;
    subscribe_from(&mut client, "log-a", json!({"v": 1})).await;
    client.subscribe("news").await;
    client
}

async fn users(rest: &Rest) -> Value {
    rest.read("/channels/presence-p/users", &[]).await["users"].clone()
}

async fn channels(rest: &Rest) -> Vec<String> {
    let all = rest.read("/channels", &[]).await;
    all["channels"].as_object().unwrap().keys().cloned().collect()
}

/// Everything that happens in `one` is unheard of in `other`.
async fn assert_apart(one: Place, other: Place) {
    let server = Arc::clone(&one.server);
    let prefixes = [one.config().namespace(), other.config().namespace()];
    let (one, other) = (start(one), start(other));
    let (mut here, mut there) = (guest(&one).await, guest(&other).await);
    let (rest, other_rest) = (one.rest(1), other.rest(1));

    // Events, stored and not.
    let begun = subscribe_from(&mut one.connect(1).await, "log-b", json!({"v": 1})).await;
    let keyed = |channel: &str, data: &str| json!({"name": "e", "data": data, "channels": [channel], "idempotency_key": "k"});
    for channel in ["news", "log-a"] {
        assert_eq!(rest.trigger(keyed(channel, "1")).await.status, 200);
        here.expect_event("e", channel, "1").await;
    }
    rest.publish("log-b", "e", "1").await;
    rest.publish("cache-c", "e", "1").await;
    there.assert_silent().await;
    // The same key is another one there, and the same serial another message.
    for channel in ["news", "log-a"] {
        let answer = other_rest.trigger(keyed(channel, "2")).await;
        assert_eq!((answer.status, answer.header("tidewire-deduplicated")), (200, None), "{}", answer.body);
        there.expect_event("e", channel, "2").await;
    }
    here.assert_silent().await;
    there.subscribe("cache-c").await;
    there.expect("pusher:cache_miss").await;
    let position = format!("{}:0", begun["epoch"].as_str().unwrap());
    let elsewhere =
        subscribe_from(&mut other.connect(1).await, "log-b", json!({"v": 1, "from": position})).await;
    assert_eq!((&elsewhere["recovered"], &elsewhere["reason"]), (&json!(false), &json!("stream_reset")));
    let history = other_rest.read("/channels/log-a/history", &[]).await;
    assert_eq!((history["items"].as_array().unwrap().len(), &history["items"][0]["data"]), (1, &json!("2")));

    // Presence, occupied channels, users.
    let mut second = one.connect(1).await;
    second.join("presence-p", "u-2").await;
    second.subscribe("only-here").await;
    here.expect("pusher_internal:member_added").await;
    there.assert_silent().await;
    assert_eq!(users(&rest).await.as_array().unwrap().len(), 2);
    assert_eq!(users(&other_rest).await, json!([{"id": "u-1"}]));
    assert!(channels(&rest).await.contains(&"only-here".to_owned()));
    let listed = channels(&other_rest).await;
    assert!(listed.contains(&"news".to_owned()) && !listed.contains(&"only-here".to_owned()), "{listed:?}");

    let answer = rest.post("/apps/42/users/u-1/terminate_connections", "{}").send().await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    here.expect_error(Some(4009)).await;
    here.expect_close(4009).await;
    there.assert_silent().await;
    second.expect("pusher_internal:member_removed").await;
    assert_eq!(users(&other_rest).await, json!([{"id": "u-1"}]));

    // Nothing in Redis is anybody else's, and nothing that was asked for was forbidden.
    let begins = |name: &String| {
        prefixes.iter().any(|prefix| {
            name.strip_prefix(&format!("{{{prefix}")).is_some_and(|rest| rest.starts_with(['.', '}']))
        })
    };
    for nodes in [&one, &other] {
        let names: Vec<String> = nodes.ask(|redis| redis::cmd("KEYS").arg("*").query(redis)).unwrap();
        assert!(names.iter().all(begins), "{names:?}");
    }
    let topics: Vec<String> = server.command(&["PUBSUB", "CHANNELS"]);
    assert!(!topics.is_empty() && topics.iter().all(begins), "{topics:?}");
    let denied: Vec<Value> = server
        .command::<Vec<redis::Value>>(&["ACL", "LOG"])
        .iter()
        .map(|entry| json!(format!("{entry:?}")))
        .collect();
    assert_eq!(denied, Vec::<Value>::new());
}

#[tokio::test]
async fn two_prefixes_in_one_database_are_apart() {
    let production = Place::own().beside(0, "production");
    // Each begins as the other does.
    let staging = production.beside(0, "production-2");
    assert_apart(production, staging).await;
}

#[tokio::test]
async fn two_prefixes_in_two_databases_are_apart() {
    let production = Place::own().beside(0, "production");
    let staging = production.beside(5, "staging");
    assert_apart(staging, production).await;
}
