//! Each limit of what may be replayed, exactly at its boundary.

use tidewire::replay::store::{Retention, Store};
use tidewire_protocol::position::Position;
use tidewire_protocol::replay::Reason;

use super::support::{
    EVERYTHING, HOUR, MINUTE, SECOND, T0, append, append_one, content, directory, fill, floor, head, message,
    on_every_engine, open, stream,
};

on_every_engine!(
    count,
    bytes,
    age,
    inactivity,
    an_inactive_stream_does_not_come_back_with_its_next_message,
    first_since,
    the_strictest_limit_holds,
    limits_and_purges_meet,
    a_position_at_the_floor_is_good,
);

fn count(store: &dyn Store) {
    let stream = stream("orders");
    fill(store, &stream, 10, T0);
    let floor = |max_messages| floor(store, &stream, &Retention { max_messages, ..EVERYTHING }, T0);
    assert_eq!([11, 10, 9, 1, 0].map(floor), [1, 1, 2, 10, 11]);
}

fn bytes(store: &dyn Store) {
    let stream = stream("orders");
    // Sizes 10, 20, 30 and 40 above the least.
    let least = content("").size();
    for size in [10, 20, 30, 40] {
        append(store, &stream, &"x".repeat(size), T0);
    }
    let floor = |above: u64, messages: u64| {
        let retention = Retention { max_bytes: messages * least + above, ..EVERYTHING };
        floor(store, &stream, &retention, T0)
    };
    assert_eq!(floor(100, 4), 1);
    assert_eq!(floor(99, 4), 2);
    assert_eq!(floor(90, 3), 2);
    assert_eq!(floor(89, 3), 3);
    assert_eq!(floor(70, 2), 3);
    assert_eq!(floor(69, 2), 4);
    assert_eq!(floor(40, 1), 4);
    // The newest is kept whatever its size.
    assert_eq!(floor(39, 1), 4);
    assert_eq!(floor(0, 0), 4);
}

fn age(store: &dyn Store) {
    let stream = stream("orders");
    for second in [0, 10, 10, 20] {
        append(store, &stream, "", T0 + second * SECOND);
    }
    let retention = Retention { window_ms: 60 * SECOND, ..EVERYTHING };
    let floor = |after_ms: u64| floor(store, &stream, &retention, T0 + after_ms);
    assert_eq!(floor(60 * SECOND), 1);
    assert_eq!(floor(60 * SECOND + 1), 2);
    assert_eq!(floor(70 * SECOND), 2);
    assert_eq!(floor(70 * SECOND + 1), 4);
    assert_eq!(floor(80 * SECOND), 4);
    assert_eq!(floor(80 * SECOND + 1), 5);
}

fn inactivity(store: &dyn Store) {
    let stream = stream("orders");
    fill(store, &stream, 2, T0);
    fill(store, &stream, 1, T0 + SECOND);
    let retention = Retention { inactivity_ttl_ms: 5 * SECOND, ..EVERYTHING };
    assert_eq!(floor(store, &stream, &retention, T0 + 6 * SECOND), 1);
    assert_eq!(floor(store, &stream, &retention, T0 + 6 * SECOND + 1), 4);
    assert_eq!(floor(store, &stream, &EVERYTHING, T0 + 6 * SECOND + 1), 1);
}

fn an_inactive_stream_does_not_come_back_with_its_next_message(store: &dyn Store) {
    let stream = stream("orders");
    let mut message = message(&stream, "x");
    message.inactivity_ttl_ms = 5 * SECOND;
    for after_ms in [0, 5 * SECOND, 10 * SECOND + 1, 15 * SECOND] {
        append_one(store, &message, T0 + after_ms);
    }
    assert_eq!(floor(store, &stream, &EVERYTHING, T0 + 15 * SECOND), 3);
}

fn first_since(store: &dyn Store) {
    let stream = stream("orders");
    for second in [0, 10, 10, 20] {
        append(store, &stream, "", T0 + second * SECOND);
    }
    let first = |since_ms| store.first_since(&stream, since_ms).expect("found");
    assert_eq!(first(0), 1);
    assert_eq!(first(T0), 1);
    assert_eq!(first(T0 + 1), 2);
    assert_eq!(first(T0 + 10 * SECOND), 2);
    assert_eq!(first(T0 + 10 * SECOND + 1), 4);
    assert_eq!(first(T0 + 20 * SECOND), 4);
    assert_eq!(first(T0 + 20 * SECOND + 1), 5);
}

fn the_strictest_limit_holds(store: &dyn Store) {
    let stream = stream("orders");
    for minute in 0..10 {
        fill(store, &stream, 1, T0 + minute * MINUTE);
    }
    let size = content("1").size();
    let now_ms = T0 + 9 * MINUTE;
    let floor = |minutes: u64, max_messages, messages: u64| {
        let retention = Retention {
            window_ms: minutes * MINUTE,
            max_messages,
            max_bytes: messages * size + 1,
            inactivity_ttl_ms: 0,
        };
        floor(store, &stream, &retention, now_ms)
    };
    assert_eq!(floor(2, 5, 7), 8);
    assert_eq!(floor(6, 2, 7), 9);
    // The last has one byte more than the others.
    assert_eq!(floor(6, 5, 4), 7);
    let narrowed = Retention { window_ms: MINUTE, ..EVERYTHING }.narrowed(EVERYTHING);
    assert_eq!(store.bounds(&stream, &narrowed, now_ms).expect("bounds").floor, 9);
}

fn limits_and_purges_meet(store: &dyn Store) {
    let stream = stream("orders");
    fill(store, &stream, 9, T0);
    let size = content("1").size();
    store.purge(&stream, 5, T0).expect("purged");
    let by_bytes =
        |messages: u64| floor(store, &stream, &Retention { max_bytes: messages * size, ..EVERYTHING }, T0);
    assert_eq!([6, 5, 4, 1].map(by_bytes), [5, 5, 6, 9]);
    let by_count = |max_messages| floor(store, &stream, &Retention { max_messages, ..EVERYTHING }, T0);
    assert_eq!([6, 5, 4].map(by_count), [5, 5, 6]);
}

fn a_position_at_the_floor_is_good(store: &dyn Store) {
    let stream = stream("orders");
    fill(store, &stream, 10, T0);
    let retention = Retention { max_messages: 4, ..EVERYTHING };
    let bounds = store.bounds(&stream, &retention, T0).expect("bounds");
    let position = store.position(&stream);
    assert_eq!(bounds.resolve(Position { serial: 6, ..position }, 4), Ok(()));
    assert_eq!(bounds.resolve(Position { serial: 5, ..position }, 5), Err(Reason::Expired));
    assert_eq!(bounds.resolve(Position { serial: 6, ..position }, 3), Err(Reason::TooMany));
}

/// Messages every ten minutes, in slices of an hour and a half.
#[test]
fn limits_are_found_across_slices() {
    let directory = directory();
    let store = open(directory.path(), T0);
    let stream = stream("orders");
    let step_ms = 10 * MINUTE;
    for step in 0..100 {
        let now_ms = T0 + step * step_ms;
        store.maintain(now_ms).expect("maintained");
        append(&store, &stream, "four", now_ms);
    }
    assert!(super::support::slices(directory.path()).len() > 8);
    let now_ms = T0 + 99 * step_ms;
    let size = content("four").size();
    for kept in 1..=100 {
        let first = 101 - kept;
        let age = Retention { window_ms: (kept - 1) * step_ms, ..EVERYTHING };
        assert_eq!(floor(&store, &stream, &age, now_ms), first);
        assert_eq!(
            floor(&store, &stream, &Retention { max_bytes: kept * size, ..EVERYTHING }, now_ms),
            first
        );
        assert_eq!(store.first_since(&stream, T0 + (first - 1) * step_ms), Ok(first));
        assert_eq!(store.first_since(&stream, T0 + (first - 1) * step_ms + 1), Ok(first + 1));
    }
    assert_eq!(floor(&store, &stream, &EVERYTHING, now_ms), 1);
    assert_eq!(head(&store, &stream), 100);
    assert_eq!(floor(&store, &stream, &Retention { window_ms: HOUR, ..EVERYTHING }, now_ms + HOUR), 100);
}
