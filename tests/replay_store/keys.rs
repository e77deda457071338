//! Idempotency keys, in memory and found again after a restart.

use tidewire::replay::keys::IDEMPOTENCY_WINDOW_MS;
use tidewire::replay::store::{Appended, Content, Store};

use super::support::{
    ALL, MINUTE, SECOND, T0, append_one, directory, image, keyed, on_every_engine, open, serials, stamp,
    stream,
};

on_every_engine!(
    a_repeated_key_is_not_stored_again,
    a_key_with_other_content_is_refused,
    a_batch_is_checked_against_itself,
    a_key_belongs_to_its_channel,
    a_key_expires,
);

fn a_repeated_key_is_not_stored_again(store: &dyn Store) {
    let stream = stream("orders");
    let message = keyed(&stream, "k", "1");
    let first = stamp(append_one(store, &message, T0));
    assert!(!store.conflicts(&message, T0));
    let repeat = append_one(store, &message, T0 + IDEMPOTENCY_WINDOW_MS - 1);
    assert_eq!(repeat, Appended::Repeat(first.position));
    assert_eq!(serials(store, &stream, ALL), [1]);
}

fn a_key_with_other_content_is_refused(store: &dyn Store) {
    let stream = stream("orders");
    append_one(store, &keyed(&stream, "k", "1"), T0);
    let other = keyed(&stream, "k", "2");
    assert!(store.conflicts(&other, T0));
    assert_eq!(append_one(store, &other, T0), Appended::Conflict);
    let mut other = keyed(&stream, "k", "1");
    other.content = Content { except: Some(7), ..other.content };
    assert_eq!(append_one(store, &other, T0), Appended::Conflict);
    assert_eq!(serials(store, &stream, ALL), [1]);
    assert!(!store.conflicts(&keyed(&stream, "other", "2"), T0));
}

fn a_batch_is_checked_against_itself(store: &dyn Store) {
    let stream = stream("orders");
    let batch = [
        keyed(&stream, "a", "1"),
        keyed(&stream, "a", "1"),
        keyed(&stream, "a", "2"),
        keyed(&stream, "b", "1"),
        keyed(&stream, "a", "1"),
    ];
    let appended = store.append(&batch, T0).expect("stored");
    let first = stamp(appended[0]);
    assert_eq!(appended[1], Appended::Repeat(first.position));
    assert_eq!(appended[2], Appended::Conflict);
    assert_eq!(stamp(appended[3]).position.serial, 2);
    assert_eq!(appended[4], Appended::Repeat(first.position));
    let again = store.append(&batch[..3], T0).expect("nothing is new");
    let repeat = Appended::Repeat(first.position);
    assert_eq!(again, [repeat, repeat, Appended::Conflict]);
    assert_eq!(serials(store, &stream, ALL), [1, 2]);
}

fn a_key_belongs_to_its_channel(store: &dyn Store) {
    for channel in ["one", "two"] {
        assert_eq!(stamp(append_one(store, &keyed(&stream(channel), "k", channel), T0)).position.serial, 1);
    }
}

fn a_key_expires(store: &dyn Store) {
    let stream = stream("orders");
    append_one(store, &keyed(&stream, "k", "1"), T0);
    let expired_ms = T0 + IDEMPOTENCY_WINDOW_MS;
    assert!(!store.conflicts(&keyed(&stream, "k", "2"), expired_ms));
    assert_eq!(stamp(append_one(store, &keyed(&stream, "k", "2"), expired_ms)).position.serial, 2);
}

/// With messages in two slices, and one key too old.
fn keep_some(store: &dyn Store) -> [Appended; 3] {
    let stream = stream("orders");
    let stamps = [0, 80, 160].map(|seconds| {
        let now_ms = T0 + seconds * SECOND;
        // Slices take messages for a minute.
        store.maintain(now_ms).expect("maintained");
        let appended = append_one(store, &keyed(&stream, &seconds.to_string(), "x"), now_ms);
        append_one(store, &super::support::message(&stream, "without a key"), now_ms);
        appended
    });
    stamps.map(|appended| Appended::Repeat(stamp(appended).position))
}

fn assert_found_again(store: &dyn Store, kept: [Appended; 3]) {
    let stream = stream("orders");
    let now_ms = T0 + 3 * MINUTE;
    let again =
        [0, 80, 160].map(|seconds| append_one(store, &keyed(&stream, &seconds.to_string(), "x"), now_ms));
    assert_eq!(again[1..], kept[1..]);
    assert_eq!(stamp(again[0]).position.serial, 7);
    assert_eq!(append_one(store, &keyed(&stream, "160", "y"), now_ms), Appended::Conflict);
    // They expire when they would have done.
    let later_ms = T0 + 80 * SECOND + IDEMPOTENCY_WINDOW_MS;
    assert_eq!(stamp(append_one(store, &keyed(&stream, "80", "y"), later_ms)).position.serial, 8);
}

#[test]
fn keys_are_found_again_after_a_clean_end() {
    let directory = directory();
    let short = tidewire::replay::store::Caps { longest_window_ms: 10 * MINUTE, ..super::support::caps() };
    let open = |now_ms| {
        let location = super::support::location(directory.path());
        tidewire::replay::sqlite::SqliteStore::open(&location, &short, now_ms).expect("it opens")
    };
    let store = open(T0);
    let kept = keep_some(&store);
    assert!(super::support::slices(directory.path()).len() > 2);
    store.close().expect("closed");
    drop(store);
    assert_found_again(&open(T0 + 3 * MINUTE), kept);
}

#[test]
fn keys_are_found_again_after_kill_9() {
    let directory = directory();
    let store = open(directory.path(), T0);
    let kept = keep_some(&store);
    let image = image(directory.path());
    assert_found_again(&open(image.path(), T0 + 3 * MINUTE), kept);
}

#[test]
fn a_batch_that_fails_leaves_no_keys() {
    let directory = directory();
    let store = open(directory.path(), T0);
    let stream = stream("orders");
    store.close().expect("closed");
    assert!(store.append(&[keyed(&stream, "k", "1")], T0).is_err());
    assert!(!store.conflicts(&keyed(&stream, "k", "2"), T0));
}
