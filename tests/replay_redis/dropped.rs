//! Things that are not in Redis any more, though it was not restarted.

use tidewire::replay::store::{Caps, Store};
use tidewire_protocol::position::Position;
use tidewire_protocol::replay::Reason;

use crate::fixture::{RedisServer, wait_until};
use crate::support::{
    ALL, HOUR, MINUTE, T0, append, append_one, caps, fill, keyed, message, messages, resolve, serials, stamp,
    stream,
};
use crate::{key, node, stream_key};

#[test]
fn scripts_that_are_forgotten_are_loaded_again() {
    let server = RedisServer::start();
    let (_link, store) = node(&server);
    let orders = stream("orders");
    for round in 0..5 {
        let _: String = server.command(&["SCRIPT", "FLUSH", "SYNC"]);
        let batch: Vec<_> =
            (1..=20).map(|number| message(&orders, &(round * 20 + number).to_string())).collect();
        store.append(&batch, T0).expect("stored");
    }
    for message in messages(&store, &orders) {
        assert_eq!(*message.content.data, format!("\"{}\"", message.stamp.position.serial));
    }
    assert_eq!(serials(&store, &orders, ALL), (1..=100).collect::<Vec<_>>());
}

/// Evicted or expired: no serial is given out again.
#[test]
fn a_stream_that_redis_dropped_goes_on_behind_all_it_ever_gave_out() {
    let server = RedisServer::start();
    let (_link, store) = node(&server);
    for count in [1, 63, 64, 65, 100] {
        let orders = stream(&format!("orders-{count}"));
        fill(&store, &orders, count, T0);
        let before = store.position(&orders);
        let _: u64 = server.command(&["DEL", &stream_key(&orders)]);
        for _ in 0..2 {
            assert_eq!(serials(&store, &orders, ALL), [0u64; 0]);
            assert_ne!(resolve(&store, &orders, before), Ok(()), "it may have missed some");
        }
        let between = store.bounds(&orders, &crate::support::EVERYTHING, T0).expect("bounds").position();
        let stamp = append(&store, &orders, "next", T0);
        assert!(stamp.position.serial > count && stamp.position.serial <= count + 65);
        assert_ne!(resolve(&store, &orders, before), Ok(()));
        assert_eq!(resolve(&store, &orders, between), Ok(()), "nothing came in between");
        append(&store, &orders, "and next", T0);
        let serial = stamp.position.serial;
        assert_eq!(serials(&store, &orders, ALL), [serial, serial + 1]);
    }
}

#[test]
fn an_expired_stream_is_like_a_dropped_one() {
    let server = RedisServer::start();
    let (_link, store) = node(&server);
    let orders = stream("orders");
    fill(&store, &orders, 10, T0);
    let ttl: i64 = server.command(&["PTTL", &stream_key(&orders)]);
    assert!(ttl > 2 * caps().longest_window_ms as i64, "{ttl}");
    let _: u64 = server.command(&["PEXPIRE", &stream_key(&orders), "1"]);
    wait_until("it has expired", || server.command::<u64>(&["EXISTS", &stream_key(&orders)]) == 0);
    assert_eq!(append(&store, &orders, "next", T0).position.serial, 65);
}

#[test]
fn a_stream_in_use_does_not_expire() {
    let server = RedisServer::start();
    let (_link, store) = node(&server);
    let orders = stream("orders");
    fill(&store, &orders, 10, T0);
    let _: u64 = server.command(&["PEXPIRE", &stream_key(&orders), "100000"]);
    append(&store, &orders, "soon", T0 + MINUTE);
    assert!(server.command::<i64>(&["PTTL", &stream_key(&orders)]) <= 100_000);
    append(&store, &orders, "later", T0 + 7 * HOUR);
    assert!(server.command::<i64>(&["PTTL", &stream_key(&orders)]) > 100_000);
}

#[test]
fn a_log_that_is_gone_is_another_one() {
    let server = RedisServer::start();
    let (_link, store) = node(&server);
    let orders = stream("orders");
    fill(&store, &orders, 10, T0);
    let before = store.position(&orders);
    let _: u64 = server.command(&["DEL", &key(&orders, "log")]);
    assert_eq!(resolve(&store, &orders, before), Err(Reason::StreamReset));
    assert_eq!(append(&store, &orders, "next", T0).position.serial, 11);
    assert_eq!(resolve(&store, &orders, before), Err(Reason::StreamReset));
}

#[test]
fn what_is_written_down_of_streams_may_be_gone() {
    let server = RedisServer::start();
    let (_link, store) = node(&server);
    let orders = stream("orders");
    fill(&store, &orders, 10, T0);
    let before = store.position(&orders);
    let _: u64 = server.command(&["DEL", &key(&orders, "streams")]);
    assert_ne!(resolve(&store, &orders, Position { serial: 9, ..before }), Ok(()));
    let stamp = append(&store, &orders, "next", T0);
    assert_eq!(stamp.position.serial, 11);
}

#[test]
fn a_stream_that_is_idle_for_long_is_forgotten() {
    let server = RedisServer::start();
    let (_link, store) = node(&server);
    let window_ms = caps().longest_window_ms;
    let (idle, busy) = (stream("idle"), stream("busy"));
    fill(&store, &idle, 70, T0);
    fill(&store, &busy, 1, T0);
    let before = store.position(&idle);
    let tidy = |now_ms| {
        let _: u64 = server.command(&["DEL", "{tidewire}replay:turn"]);
        store.maintain(now_ms).expect("maintained");
        store.stats().streams
    };
    assert_eq!(tidy(T0 + 2 * window_ms), 2);
    assert_eq!(server.command::<u64>(&["XLEN", &stream_key(&idle)]), 1, "the last one says where it stands");
    append(&store, &busy, "2", T0 + 2 * window_ms);
    assert_eq!(tidy(T0 + 2 * window_ms + 1), 2);
    assert_eq!(server.command::<u64>(&["EXISTS", &stream_key(&idle)]), 0);
    assert_eq!(server.command::<u64>(&["EXISTS", &stream_key(&busy)]), 1);
    let stamp = append(&store, &idle, "next", T0 + 2 * window_ms + 1);
    assert_eq!(stamp.position.serial, 71);
    assert_eq!(resolve(&store, &idle, before), Ok(()), "it has everything up to there");
    let earlier = Position { serial: 69, ..before };
    assert_eq!(resolve(&store, &idle, earlier), Err(Reason::Expired));
}

#[test]
fn a_node_that_comes_later_repeats_and_refuses_as_the_first_would() {
    let server = RedisServer::start();
    let (link, store) = node(&server);
    let orders = stream("orders");
    let first = stamp(append_one(&store, &keyed(&orders, "k", "1"), T0));
    let later = crate::open(&link);
    let repeat = append_one(&later, &keyed(&orders, "k", "1"), T0);
    assert_eq!(repeat, tidewire::replay::store::Appended::Repeat(first.position));
    let limits = Caps { max_bytes: 1, ..caps() };
    later.set_caps(&limits);
    assert_eq!(
        append_one(&later, &keyed(&orders, "k", "2"), T0),
        tidewire::replay::store::Appended::Conflict
    );
}
