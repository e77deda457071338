//! Cached events, their bound, and idempotency keys.

use std::time::Duration;

use bytes::Bytes;
use redis::Commands;
use tidewire::fanout::message::{CachePart, Event, Message};
use tidewire::fanout::redis::events::Once;

use crate::support::{APP, Node, World, neighbours};

fn event(text: &str, ttl_ms: Option<u64>) -> Event {
    let frame = Bytes::from(format!("frame of {text}"));
    let cache = ttl_ms.map(|ttl_ms| CachePart { ttl_ms, data: Bytes::from(text.to_owned()) });
    Event { except: Some(7), cache, frame }
}

fn publish(node: &Node, channel: &str, event: &Event, max_cached: usize) -> bool {
    node.wait(node.state.publish_cached(APP, channel, event, max_cached)).expect("it is published")
}

fn cached(node: &Node, channel: &str) -> Option<String> {
    let cached = node.snapshot(channel).cached?;
    assert_eq!(cached.frame, format!("frame of {}", String::from_utf8_lossy(&cached.data)).into_bytes());
    Some(String::from_utf8_lossy(&cached.data).into_owned())
}

#[test]
fn a_cached_event_is_published_and_kept() {
    let world = World::start();
    let (node, mut ear) = (world.node(), world.ear());
    let first = event("first", Some(60_000));
    assert!(publish(&node, "cache-orders", &first, 100));
    assert!(publish(&node, "cache-orders", &event("second", Some(60_000)), 100));
    assert!(!publish(&node, "cache-other", &event("third", None), 100));
    let heard = ear.hear();
    let Message::Event(back) = &heard[0].message else { panic!("no event") };
    assert_eq!(*back, first);
    assert_eq!(heard.len(), 3);
    let kept = node.snapshot("cache-orders").cached.expect("it is kept");
    assert_eq!((&kept.data[..], &kept.frame[..]), (&b"second"[..], &b"frame of second"[..]));
    assert!((50_000..=60_000).contains(&kept.ttl_ms), "{}", kept.ttl_ms);
    let read = node.wait(node.state.channel(APP, "cache-orders", true)).expect("a channel");
    assert_eq!(read.cached.expect("it is kept").data, "second");
    assert_eq!(cached(&node, "cache-other"), None);
}

#[test]
fn an_app_has_so_many_cached_events_and_no_more() {
    let mut world = World::start();
    let (node, mut ear) = (world.node(), world.ear());
    let names = neighbours("cache-", 4);
    // Up to 64 of them may be in one partition.
    for (name, is_kept) in names.iter().zip([true, true, false, false]) {
        assert_eq!(publish(&node, name, &event("1", Some(60_000)), 2), is_kept, "{name}");
        assert_eq!(cached(&node, name).is_some(), is_kept);
    }
    assert!(publish(&node, &names[0], &event("2", Some(30)), 2), "it takes no more room");
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(cached(&node, &names[0]), None);
    assert!(publish(&node, &names[3], &event("3", Some(60_000)), 2), "the expired make room");
    assert_eq!(cached(&node, &names[3]).as_deref(), Some("3"));
    assert!(!publish(&node, &names[2], &event("4", Some(60_000)), 0));
    assert!(!publish(&node, &names[2], &event("4", Some(0)), 1_000), "no time is no place");
    assert_eq!(ear.hear().len(), 8, "all were published");
    // The list of a partition goes with the last of its events.
    let partition = tidewire::fanout::keys::partition(APP, &names[0]);
    let ttl: i64 = world.redis.pttl(node.state.keys().cached_channels(partition, APP)).expect("a time");
    assert!((1..=60_000).contains(&ttl), "{ttl}");
}

#[test]
fn an_idempotency_key_is_published_once() {
    let mut world = World::start();
    let (nodes, mut ear) = ([world.node(), world.node()], world.ear());
    let once = |node: &Node, channel, key, print, event: &Event| {
        node.wait(node.state.publish_once(APP, channel, key, print, event, 100)).expect("an answer")
    };
    let plain = event("paid", None);
    let answers: Vec<Once> = std::thread::scope(|scope| {
        let tries: Vec<_> =
            nodes.iter().map(|node| scope.spawn(|| once(node, "orders", "k:1", "aa", &plain))).collect();
        tries.into_iter().map(|answer| answer.join().expect("an answer")).collect()
    });
    assert!(answers.contains(&Once::Published) && answers.contains(&Once::Repeat), "{answers:?}");
    let [one, two] = &nodes;
    assert_eq!(once(one, "orders", "k:1", "bb", &plain), Once::Conflict);
    assert_eq!(once(two, "orders2", "k:1", "bb", &plain), Once::Published);
    assert_eq!(once(two, "orders", "k:2", "bb", &plain), Once::Published);
    let conflicts =
        |print| one.wait(one.state.key_conflicts(APP, "orders", "k:1", print)).expect("an answer");
    assert!(conflicts("bb") && !conflicts("aa"));
    assert_eq!(ear.hear().len(), 3);
    let ttl: i64 = world.redis.pttl(one.state.keys().idempotency(APP, "orders", "k:1")).expect("a time");
    assert!((110_000..=120_000).contains(&ttl), "{ttl}");
    let caching = event("kept", Some(60_000));
    assert_eq!(once(one, "cache-a", "k", "cc", &caching), Once::Published);
    assert_eq!(cached(two, "cache-a").as_deref(), Some("kept"));
    assert_eq!(once(one, "cache-a", "k", "cc", &caching), Once::Repeat);
    assert_eq!(ear.hear().len(), 1);
}
