//! The same on a Redis Cluster of three masters, where each script stays in one slot and topics are sharded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tidewire::config::RedisConfig;
use tidewire::fanout::keys::{partition, user_partition};
use tidewire::fanout::message::{CachePart, Event, Message};
use tidewire::fanout::redis::events::Once;
use tidewire::fanout::redis::lease::Reaped;
use tidewire::fanout::redis::state::{Transition, Update, UserSynced, UserTransition};
use tidewire::fanout::redis::transport::{Listener, Partitions};

use crate::fixture::RedisCluster;
use crate::support::{APP, Node, short, transition, with_count};

const ROOMS: usize = 40;

#[derive(Default)]
struct Hearing(Mutex<BTreeMap<String, Vec<String>>>);

impl Listener for Hearing {
    fn message(&self, topic: &[u8], payload: Bytes) {
        let topic = String::from_utf8_lossy(topic).into_owned();
        let text = short(&Message::decode(payload).expect("a message"));
        self.0.lock().expect("no test fails here").entry(topic).or_default().push(text);
    }
    fn up(&self, _: Partitions, _: bool) {}
    fn down(&self, _: Partitions) {}
    fn unsubscribed(&self, _: &[u8]) {}
}

fn config(cluster: &RedisCluster) -> RedisConfig {
    RedisConfig {
        url: cluster.url().parse().expect("a URL"),
        nodes: cluster.seeds().iter().map(|seed| seed.parse().expect("an address")).collect(),
        cluster: true,
        ..RedisConfig::default()
    }
}

fn keys_of(cluster: &RedisCluster) -> BTreeSet<String> {
    let keys = cluster.masters.iter().flat_map(|master| master.command::<Vec<String>>(&["KEYS", "*"]));
    keys.filter(|key| !key.contains("}x:")).collect()
}

#[test]
fn a_redis_cluster_keeps_the_same_record() {
    let cluster = RedisCluster::start();
    let hearing = Arc::new(Hearing::default());
    let (one, two) = (Node::start(&config(&cluster), hearing.clone()), {
        Node::start(&config(&cluster), Arc::new(Hearing::default()))
    });
    let rooms: Vec<String> = (0..ROOMS).map(|i| format!("presence-cache-{i}")).collect();
    let users: Vec<String> = (0..ROOMS).map(|i| format!("user-{i}")).collect();
    let state = &one.state;
    for room in &rooms {
        let topic = state.keys().channel_topic(APP, room).into_bytes().into();
        one.wait(state.transport().subscribe(partition(APP, room), &[topic])).expect("it subscribes");
    }
    for user in &users {
        let topic = state.keys().user_topic(APP, user).into_bytes().into();
        one.wait(state.transport().subscribe(user_partition(APP, user), &[topic])).expect("it subscribes");
    }

    for session in [&one, &two] {
        session.wait(session.state.beat(&session.session, true, 60_000, &[], &[(APP, 7)])).expect("it lives");
    }
    let event = Event {
        except: None,
        cache: Some(CachePart { ttl_ms: 60_000, data: Bytes::from_static(b"data") }),
        frame: Bytes::from_static(b"!"),
    };
    for room in &rooms {
        let update = Update { announce: true, ..with_count(room, 2) };
        let occupied = one.sync(Update { added: &[("ann", None)], ..update });
        assert_eq!(transition(&occupied), Transition::Occupied);
        two.sync(Update { added: &[("ann", None), ("bob", None)], ..update });
        assert!(two.wait(two.state.publish_cached(APP, room, &event, 10_000)).expect("it is published"));
        let once = || two.wait(two.state.publish_once(APP, room, "key", "print", &event, 10_000));
        assert_eq!((once(), once()), (Ok(Once::Published), Ok(Once::Repeat)));
    }
    for user in &users {
        let synced = two.wait(two.state.sync_user(&two.session, APP, user, true)).expect("it is done");
        assert_eq!(synced, UserSynced::Done { transition: UserTransition::Online });
    }

    let listed = one.wait(state.channels(APP, "presence-", true)).expect("a list");
    assert_eq!(listed.len(), ROOMS);
    assert!(listed.iter().all(|(_, total, users)| (*total, *users) == (4, 2)));
    assert_eq!(one.wait(state.users(APP, &rooms[0])).expect("users"), ["ann", "bob"]);
    let is_online = |user: &str| one.wait(state.user(APP, user)).expect("an answer").is_online;
    assert!(users.iter().all(|user| is_online(user)) && !is_online("nobody"));
    assert_eq!(users.len(), ROOMS);
    assert_eq!(one.wait(state.connections(APP)).expect("an answer"), 14);
    let snapshot = one.snapshot(&rooms[0]);
    assert_eq!((snapshot.members.len(), snapshot.count), (2, 4));
    assert_eq!(snapshot.cached.expect("it is cached").frame, "!");

    let reaped = one.wait(state.retire(&two.session)).expect("it is reaped");
    assert_eq!(reaped, Reaped { members: ROOMS as u64, channels: 0, users: ROOMS as u64 });
    // What was published is heard before what was asked later is answered.
    one.wait(state.channels(APP, "", false)).expect("a list");
    let heard = std::mem::take(&mut *hearing.0.lock().expect("no test fails here"));
    assert_eq!(heard.len(), 2 * ROOMS);
    for room in &rooms {
        let told = &heard[&state.keys().channel_topic(APP, room)];
        assert_eq!(told[..], ["+ann", "#2", "+bob", "#4", "E!", "E!", "-bob", "#2"], "{room}");
    }
    for user in &users {
        assert_eq!(heard[&state.keys().user_topic(APP, user)], ["Online", "Offline"]);
    }

    one.wait(state.retire(&one.session)).expect("it is reaped");
    let left = keys_of(&cluster);
    let is_event = |key: &String| ["}k:", "}q:", "}i:"].iter().any(|kind| key.contains(kind));
    assert!(left.iter().all(is_event), "{left:?}");
}
