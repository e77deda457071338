//! What is dropped in Redis because it is out of every limit, or because there is no room.

use tidewire::replay::redis::RedisStore;
use tidewire::replay::store::{Append, Caps, Hints, Store, StoreError};

use crate::fixture::RedisServer;
use crate::link::Link;
use crate::support::{
    ALL, EVERYTHING, MINUTE, SECOND, T0, append, append_one, caps, content, fill, floor, message, messages,
    serials, stream,
};
use crate::{PREFIX, node, open, stream_key};

fn hinted(hints: Hints, data: &str) -> Append {
    Append { hints, ..message(&stream("orders"), data) }
}

fn length(server: &RedisServer) -> u64 {
    server.command(&["XLEN", &stream_key(&stream("orders"))])
}

#[test]
fn a_stream_has_not_many_more_messages_than_its_rule_keeps() {
    let server = RedisServer::start();
    let (_link, store) = node(&server);
    for _ in 0..1000 {
        append_one(&store, &hinted(Hints { max_messages: 50, ..Hints::default() }, "x"), T0);
    }
    assert!((50..=200).contains(&length(&server)), "{}", length(&server));
    let kept = serials(&store, &stream("orders"), ALL);
    assert_eq!(kept, (kept[0]..=1000).collect::<Vec<_>>());
}

#[test]
fn a_stream_has_not_many_more_bytes_than_its_rule_keeps() {
    let server = RedisServer::start();
    let (_link, store) = node(&server);
    let data = "x".repeat(500);
    let size = content(&data).size();
    let hints = Hints { max_bytes: 100 * size, ..Hints::default() };
    for _ in 0..128 {
        append_one(&store, &hinted(hints, &data), T0);
    }
    assert_eq!(length(&server), 100);
    assert_eq!(floor(&store, &stream("orders"), &EVERYTHING, T0), 29);
    for _ in 0..63 {
        append_one(&store, &hinted(hints, &data), T0);
    }
    assert_eq!(length(&server), 163, "it is tidied up now and then");
}

#[test]
fn what_is_too_old_goes_with_a_later_message() {
    let server = RedisServer::start();
    let (_link, store) = node(&server);
    let hints = Hints { window_ms: 10 * MINUTE, ..Hints::default() };
    for number in 0..128 {
        append_one(&store, &hinted(hints, "x"), T0 + number * 10 * SECOND);
    }
    // The last time was with the 128th message.
    assert_eq!(length(&server), 61);
    assert_eq!(messages(&store, &stream("orders"))[0].stamp.time_ms, T0 + 67 * 10 * SECOND);
}

#[test]
fn nothing_is_stored_or_published_when_memory_is_out() {
    let server = RedisServer::start();
    let (link, store) = node(&server);
    let orders = stream("orders");
    fill(&store, &orders, 3, T0);
    let _: String = server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    for _ in 0..2 {
        let outcome = store.append(&[message(&orders, "4")], T0);
        assert_eq!(outcome, Err(StoreError::Full));
    }
    assert_eq!(serials(&store, &orders, ALL), [1, 2, 3]);
    // What makes room is possible.
    store.purge(&orders, 2, T0).expect("purged");
    assert_eq!(serials(&open(&link), &orders, ALL), [2, 3]);
    let _: String = server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(append(&store, &orders, "4", T0).position.serial, 4);
}

#[test]
fn the_oldest_of_all_go_when_the_store_is_too_large() {
    let server = RedisServer::start();
    let link = Link::start(&server.config());
    let small = Caps { max_bytes: 100_000, app_max_bytes: vec![("7".into(), 20_000)], ..caps() };
    let store = RedisStore::open_on_own_clock(link.transport.clone(), PREFIX, &small, T0).expect("it opens");
    let data = "x".repeat(1000);
    let mut now_ms = T0;
    let channels: Vec<_> = (0..10).map(|number| stream(&format!("orders-{number}"))).collect();
    let other = crate::support::stream_of("7", "orders");
    for _ in 0..20 {
        for channel in channels.iter().chain([&other]) {
            append(&store, channel, &data, now_ms);
        }
        now_ms += MINUTE;
    }
    let tidy = || {
        let _: u64 = server.command(&["DEL", "{tidewire}replay:turn"]);
        store.maintain(now_ms).expect("maintained");
        store.stats()
    };
    assert!(tidy().bytes > 200_000);
    for _ in 0..4 {
        tidy();
    }
    let stats = tidy();
    assert!((40_000..=100_000).contains(&stats.bytes), "{}", stats.bytes);
    assert_eq!(stats.streams, 11);
    assert!(stats.slices_dropped_early > 0);
    for channel in &channels {
        let kept = serials(&store, channel, ALL);
        assert!(kept.len() >= 3 && kept.len() <= 8, "{kept:?}");
        assert_eq!(kept.last(), Some(&20));
    }
    // Another node knows the sizes by what this one found.
    assert_eq!(open(&link).stats().bytes, stats.bytes);
    store.set_caps(&caps());
    for _ in 0..20 {
        tidy();
    }
    fill(&store, &other, 20, now_ms);
    assert!(serials(&store, &other, ALL).len() > 20, "nothing goes early any more");
}
