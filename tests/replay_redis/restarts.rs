//! Servers that are killed and come back with all, some or nothing of what they had.

use std::collections::HashSet;

use tidewire::clock::Clock;
use tidewire::replay::redis::{RedisStore, Wall};
use tidewire::replay::store::{Retention, Store, StoreError};
use tidewire_protocol::position::Position;
use tidewire_protocol::replay::Reason;

use crate::fixture::{Options, RedisServer};
use crate::support::{
    ALL, EVERYTHING, MINUTE, T0, append, fill, message, messages, resolve, serials, stream,
};
use crate::{node, open};

fn restart(server: &RedisServer, link: &crate::Link) {
    server.kill();
    link.wait_until_down();
    server.restart();
    link.wait_until_up();
}

#[test]
fn nobody_resyncs_when_nothing_was_lost() {
    let server = RedisServer::durable();
    let (link, store) = node(&server);
    let orders = stream("orders");
    fill(&store, &orders, 10, T0);
    let before = store.position(&orders);
    restart(&server, &link);
    for serial in 0..=10 {
        assert_eq!(resolve(&store, &orders, Position { serial, ..before }), Ok(()));
    }
    assert_eq!(store.position(&orders), before);
    let stamp = append(&store, &orders, "11", T0);
    assert_eq!(stamp.position.serial, 11);
    assert!(stamp.begins_generation);
    assert!(stamp.position.epoch > before.epoch);
    assert_eq!(resolve(&store, &orders, before), Ok(()));
    let unseen = Position { serial: 11, ..before };
    assert_eq!(resolve(&store, &orders, unseen), Err(Reason::RolledBack));
    assert_eq!(serials(&store, &orders, ALL), (1..=11).collect::<Vec<_>>());
    assert!(messages(&store, &orders)[10].stamp.begins_generation);
    // It is the same server from now on.
    assert!(!append(&store, &orders, "12", T0).begins_generation);
}

#[test]
fn everybody_resyncs_when_all_was_lost() {
    let server = RedisServer::start();
    let (link, store) = node(&server);
    let orders = stream("orders");
    fill(&store, &orders, 10, T0);
    let before = store.position(&orders);
    restart(&server, &link);
    for serial in [0, 1, 10, 11] {
        let cursor = Position { serial, ..before };
        assert_eq!(resolve(&store, &orders, cursor), Err(Reason::StreamReset));
    }
    assert_ne!(store.position(&orders).epoch.nonce, before.epoch.nonce);
    let stamp = append(&store, &orders, "again", T0);
    assert_eq!(stamp.position.serial, 1);
    assert_ne!(stamp.position.epoch.nonce, before.epoch.nonce);
    assert_eq!(resolve(&store, &orders, before), Err(Reason::StreamReset));
    // Also by a node that comes now.
    assert_eq!(resolve(&open(&link), &orders, before), Err(Reason::StreamReset));
}

#[test]
fn only_witnesses_of_what_was_lost_resync() {
    for asks_first in [true, false] {
        let server = RedisServer::start();
        let (link, store) = node(&server);
        let orders = stream("orders");
        fill(&store, &orders, 5, T0);
        let _: String = server.command(&["SAVE"]);
        fill(&store, &orders, 5, T0);
        let before = store.position(&orders);
        restart(&server, &link);
        let check = |store: &dyn Store| {
            for serial in 0..=10 {
                let expected = if serial <= 5 { Ok(()) } else { Err(Reason::RolledBack) };
                let cursor = Position { serial, ..before };
                assert_eq!(resolve(store, &orders, cursor), expected, "at {serial}");
            }
        };
        if asks_first {
            check(&store);
            assert_eq!(store.position(&orders).serial, 5);
        }
        let stamp = append(&store, &orders, "6", T0);
        assert_eq!(stamp.position.serial, 6);
        assert!(stamp.begins_generation);
        for number in 7..=12 {
            append(&store, &orders, &number.to_string(), T0);
        }
        check(&store);
        check(&open(&link));
        assert_eq!(serials(&store, &orders, ALL), (1..=12).collect::<Vec<_>>());
    }
}

/// The generation that began after the first loss is lost with the second.
#[test]
fn no_position_is_given_out_twice_however_often_the_end_is_lost() {
    for remembers in [true, false] {
        let server = RedisServer::start();
        let (link, mut store) = node(&server);
        let orders = stream("orders");
        fill(&store, &orders, 5, T0);
        let _: String = server.command(&["SAVE"]);
        let mut given = HashSet::new();
        for round in 0..4 {
            // Restarting takes a second or more.
            let now_ms = T0 + if remembers { 0 } else { round * MINUTE };
            for number in 0..5 {
                let position = append(&store, &orders, &format!("{round}-{number}"), now_ms).position;
                assert!(given.insert((position.epoch, position.serial)), "{position} was given out");
                assert_eq!(position.serial, 6 + number);
            }
            let witness = store.position(&orders);
            restart(&server, &link);
            if !remembers {
                store = open(&link);
            }
            assert_eq!(resolve(&store, &orders, witness), Err(Reason::RolledBack));
            append(&store, &orders, "next", now_ms + MINUTE / 2);
            assert_eq!(resolve(&store, &orders, witness), Err(Reason::RolledBack));
            restart(&server, &link);
        }
    }
}

#[test]
fn another_node_hears_of_the_generation_that_one_began() {
    let server = RedisServer::durable();
    let (one_link, one) = node(&server);
    let (other_link, other) = node(&server);
    let orders = stream("orders");
    fill(&one, &orders, 3, T0);
    fill(&other, &stream("others"), 3, T0);
    append(&other, &orders, "4", T0);
    restart(&server, &one_link);
    other_link.wait_until_up();
    let begun = append(&one, &orders, "5", T0);
    assert!(begun.begins_generation);
    let next = append(&other, &orders, "6", T0);
    assert!(!next.begins_generation);
    assert_eq!(next.position, Position { serial: 6, ..begun.position });
    assert_eq!(serials(&other, &orders, ALL), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_server_that_is_away_stores_nothing() {
    let server = RedisServer::durable();
    let (link, store) = node(&server);
    let orders = stream("orders");
    fill(&store, &orders, 3, T0);
    server.kill();
    link.wait_until_down();
    let error = store.append(&[message(&orders, "4")], T0).expect_err("it is away");
    let StoreError::Unavailable(text) = error else { panic!("{error}") };
    assert!(text.contains("nothing was stored"), "{text}");
    assert!(store.read(&orders, ALL).is_err());
    assert_eq!(store.position(&orders).serial, 3);
    server.restart();
    link.wait_until_up();
    assert_eq!(append(&store, &orders, "4", T0).position.serial, 4);
}

/// What may have been done is not told as done.
#[test]
fn an_answer_that_does_not_come_is_no_success() {
    let server = RedisServer::durable();
    let (link, store) = node(&server);
    let orders = stream("orders");
    let keyed = crate::support::keyed(&orders, "k", "1");
    server.pause();
    let outcome = std::thread::scope(|scope| {
        let asked = scope.spawn(|| store.append(std::slice::from_ref(&keyed), T0));
        std::thread::sleep(std::time::Duration::from_millis(200));
        server.kill();
        asked.join().expect("no panic")
    });
    let Err(StoreError::Unavailable(text)) = &outcome else { panic!("{outcome:?}") };
    assert!(text.contains("may have been stored"), "{text}");
    server.restart();
    link.wait_until_up();
    // With its key it can be tried again.
    crate::support::append_one(&store, &keyed, T0);
    assert_eq!(serials(&store, &orders, ALL), [1]);
}

/// A master draws another replication id when its replicas have been away for long: links that are older do not know it.
#[test]
fn links_of_two_ages_do_not_begin_generations_in_turn() {
    let server = RedisServer::with(Options::default().arg("enable-debug-command", "yes"));
    let (_old_link, old) = node(&server);
    let orders = stream("orders");
    fill(&old, &orders, 3, T0);
    let before = old.position(&orders);
    let _: String = server.command(&["DEBUG", "CHANGE-REPL-ID"]);
    assert_eq!(append(&old, &orders, "4", T0).position.epoch, before.epoch);
    let (_new_link, new) = node(&server);
    let begun = append(&new, &orders, "5", T0);
    assert!(begun.begins_generation);
    for number in 0..4 {
        let store = if number % 2 == 0 { &old } else { &new };
        assert_eq!(append(store, &orders, "next", T0).position.epoch, begun.position.epoch);
    }
    assert_eq!(resolve(&new, &orders, before), Ok(()));
}

#[test]
fn ages_go_by_the_clock_of_redis() {
    let server = RedisServer::start();
    let link = crate::Link::start(&server.config());
    let (seconds, _): (u64, u64) = server.command(&["TIME"]);
    let late: Wall = || Clock::wall_millis() - 100 * MINUTE;
    for wall in [Clock::wall_millis as Wall, late] {
        let now_ms = wall();
        let transport = link.transport.clone();
        let store =
            RedisStore::open(transport, crate::PREFIX, &crate::support::caps(), wall).expect("it opens");
        let stamp = append(&store, &stream("orders"), "x", now_ms);
        assert!(stamp.time_ms.abs_diff(seconds * 1000) < MINUTE, "{stamp:?}");
        let minute = Retention { window_ms: MINUTE, ..EVERYTHING };
        assert_eq!(store.bounds(&stream("orders"), &minute, now_ms).expect("bounds").floor, 1);
        let late = store.bounds(&stream("orders"), &minute, now_ms + 2 * MINUTE).expect("bounds");
        assert_eq!(late.floor, late.head + 1);
    }
}
