//! The readers: pages that are shared, and where a subscriber begins; and the maintenance.

use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tidewire_protocol::replay::{Reason, Rewind, Start};

use super::super::pages::{Page, PageEntry};
use super::super::readers::READERS;
use super::super::store::{Appended, Direction, Range, Retention, StoreError};
use super::super::{Busy, Resolved};
use super::{Fixture, PATIENCE, message, stream, wait_until};
use crate::sync::lock;

type Pages = mpsc::Receiver<Result<Arc<Page>, StoreError>>;

const RETENTION: Retention =
    Retention { window_ms: 3_600_000, max_messages: 1000, max_bytes: 1 << 30, inactivity_ttl_ms: 0 };

fn ask(fixture: &Fixture, after: &[u64]) -> Pages {
    let (answer, pages) = mpsc::channel();
    for after in after {
        let answer = answer.clone();
        let done = Box::new(move |page| drop(answer.send(page)));
        fixture.replay.page(stream(), *after, done).unwrap();
    }
    pages
}

fn next(pages: &Pages) -> Arc<Page> {
    pages.recv_timeout(PATIENCE).unwrap().unwrap()
}

fn page(fixture: &Fixture, after: u64) -> Arc<Page> {
    next(&ask(fixture, &[after]))
}

fn serials(entries: &[PageEntry]) -> Vec<u64> {
    entries.iter().map(PageEntry::serial).collect()
}

/// Returns when a reader thread has done everything that was asked before, unless the gate holds it up.
fn pass_a_reader(fixture: &Fixture) {
    let (answer, passed) = mpsc::channel();
    fixture.replay.read(Box::new(move |_, _| answer.send(()).unwrap())).unwrap();
    passed.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn pages_begin_at_multiples_and_are_read_once() {
    let fixture = Fixture::new();
    fixture.fill(350);
    let first = page(&fixture, 0);
    assert_eq!(serials(&first.entries), Vec::from_iter(1..=100));
    for after in [1, 50, 99] {
        let page = page(&fixture, after);
        assert!(Arc::ptr_eq(&page, &first));
        assert_eq!(serials(page.after(after)), Vec::from_iter(after + 1..=100));
    }
    assert_eq!(fixture.store.reads.calls(), 1);
    assert_eq!(serials(&page(&fixture, 100).entries), Vec::from_iter(101..=200));
    assert_eq!(fixture.store.reads.calls(), 2);
    assert_eq!(fixture.metrics.replay.pages.get(), 5);
    assert_eq!(fixture.metrics.replay.page_cache_hits.get(), 3);
}

#[test]
fn everybody_who_wants_a_page_while_it_is_read_gets_that_one() {
    let fixture = Fixture::new();
    fixture.fill(100);
    fixture.store.reads.shut();
    let pages = ask(&fixture, &[0]);
    fixture.store.reads.wait_for_calls(1);
    let others = ask(&fixture, &[0; 50]);
    pass_a_reader(&fixture);
    assert!(others.try_recv().is_err());
    fixture.store.reads.open();
    let first = next(&pages);
    assert!((0..50).all(|_| Arc::ptr_eq(&next(&others), &first)));
    assert_eq!(fixture.store.reads.calls(), 1);
}

#[test]
fn who_has_everything_is_told_without_a_read() {
    let fixture = Fixture::new();
    fixture.fill(150);
    for after in [150, 151, 1000] {
        assert!(page(&fixture, after).entries.is_empty());
    }
    assert_eq!(fixture.store.reads.calls(), 0);
}

#[test]
fn the_last_page_grows_by_what_is_new() {
    let fixture = Fixture::new();
    fixture.fill(120);
    assert_eq!(serials(&page(&fixture, 110).entries), Vec::from_iter(101..=120));
    assert!(page(&fixture, 120).entries.is_empty());
    fixture.fill_from(121, 90);
    assert_eq!(serials(&page(&fixture, 120).entries), Vec::from_iter(101..=200));
    assert_eq!(serials(&page(&fixture, 200).entries), Vec::from_iter(201..=210));
    assert_eq!(fixture.store.reads.calls(), 3);
    assert_eq!(fixture.store.entries.load(Ordering::Relaxed), 110);
}

#[test]
fn who_asks_during_a_read_gets_what_was_stored_before_asking() {
    let fixture = Fixture::new();
    fixture.fill(10);
    fixture.store.reads.shut();
    let early = ask(&fixture, &[9]);
    fixture.store.reads.wait_for_calls(1);
    fixture.fill_from(11, 1);
    let late = ask(&fixture, &[10]);
    pass_a_reader(&fixture);
    fixture.store.reads.open();
    assert_eq!(serials(next(&early).after(9)), [10]);
    assert_eq!(serials(next(&late).after(10)), [11]);
}

#[test]
fn large_messages_make_short_pages_and_none_is_left_out() {
    let fixture = Fixture::new();
    let large = "x".repeat(10_000);
    for _ in 1..=60 {
        fixture.replay.append(message(&large), 10_000, fixture.tell(0)).unwrap();
    }
    (0..60).for_each(|_| drop(fixture.answer()));
    for start in [0, 3, 59] {
        let (mut after, mut seen) = (start, Vec::new());
        loop {
            let page = page(&fixture, after);
            let entries = page.after(after);
            let Some(last) = entries.last() else { break };
            assert!(entries.len() < 30);
            seen.extend(serials(entries));
            after = last.serial();
        }
        assert_eq!(seen, Vec::from_iter(start + 1..=60));
    }
}

#[test]
fn what_is_purged_is_not_given_out_of_memory() {
    let fixture = Fixture::new();
    fixture.fill(100);
    page(&fixture, 0);
    purge(&fixture, 51);
    assert_eq!(serials(&page(&fixture, 0).entries), Vec::from_iter(51..=100));

    // Nor by a read that began before.
    fixture.store.reads.shut();
    purge(&fixture, 61);
    let early = ask(&fixture, &[0]);
    fixture.store.reads.wait_for_calls(3);
    purge(&fixture, 71);
    let late = ask(&fixture, &[0]);
    pass_a_reader(&fixture);
    fixture.store.reads.open();
    assert_eq!(next(&early).entries[0].serial(), 61);
    assert_eq!(next(&late).entries[0].serial(), 71);
    assert_eq!(page(&fixture, 0).entries[0].serial(), 71);
}

fn purge(fixture: &Fixture, before: u64) {
    let (answer, purged) = mpsc::channel();
    fixture.replay.purge(stream(), before, Box::new(move |done| answer.send(done).unwrap())).unwrap();
    purged.recv_timeout(PATIENCE).unwrap().unwrap();
}

#[test]
fn an_error_reaches_all_who_wanted_the_page_and_is_not_kept() {
    let fixture = Fixture::new();
    fixture.fill(10);
    fixture.store.fails_with(Some(StoreError::Unavailable("busy".to_owned())));
    fixture.store.reads.shut();
    let pages = ask(&fixture, &[0, 0, 0]);
    fixture.store.reads.wait_for_calls(1);
    pass_a_reader(&fixture);
    fixture.store.reads.open();
    (0..3).for_each(|_| assert!(pages.recv_timeout(PATIENCE).unwrap().is_err()));
    fixture.store.fails_with(None);
    assert_eq!(page(&fixture, 0).entries.len(), 10);
}

#[test]
fn too_many_reads_are_refused() {
    let fixture = Fixture::new();
    fixture.fill(1);
    fixture.store.reads.shut();
    for _ in 0..READERS {
        let after =
            Range { after: 0, before: 2, direction: Direction::Forward, max_messages: 1, max_bytes: 1 };
        fixture.replay.read(Box::new(move |store, _| drop(store.read(&stream(), after)))).unwrap();
    }
    fixture.store.reads.wait_for_calls(READERS);
    (0..65_536).for_each(|_| fixture.replay.read(Box::new(|_, _| {})).unwrap());
    assert_eq!(fixture.replay.page(stream(), 0, Box::new(|_| {})), Err(Busy));
    fixture.store.reads.open();
    assert_eq!(page_when_there_is_room(&fixture).entries.len(), 1);
}

fn page_when_there_is_room(fixture: &Fixture) -> Arc<Page> {
    wait_until(|| fixture.replay.read(Box::new(|_, _| {})).is_ok());
    page(fixture, 0)
}

fn resolve(fixture: &Fixture, start: Start, max_replay: u64) -> Resolved {
    let (answer, resolved) = mpsc::channel();
    let done = Box::new(move |resolved| answer.send(resolved).unwrap());
    fixture.replay.resolve(stream(), start, RETENTION, max_replay, done).unwrap();
    resolved.recv_timeout(PATIENCE).unwrap().unwrap()
}

#[test]
fn a_subscriber_begins_where_it_wants_or_hears_why_not() {
    let fixture = Fixture::new();
    fixture.fill(5);
    let head = fixture.replay.position(&stream());
    let verdict = |start| resolve(&fixture, start, 3).verdict;
    let after = |serial| Start::After(tidewire_protocol::position::Position { serial, ..head });
    assert_eq!(verdict(Start::Live), Ok(5));
    assert_eq!(verdict(after(5)), Ok(5));
    assert_eq!(verdict(after(2)), Ok(2));
    assert_eq!(verdict(after(1)), Err(Reason::TooMany));
    assert_eq!(verdict(after(6)), Err(Reason::RolledBack));
    assert_eq!(verdict(Start::Rewind(Rewind::Count(2))), Ok(3));
    assert_eq!(verdict(Start::Rewind(Rewind::Earliest)), Err(Reason::TooMany));
    assert_eq!(resolve(&fixture, Start::Rewind(Rewind::Count(50)), 100).verdict, Ok(0));

    purge(&fixture, 5);
    assert_eq!(verdict(after(2)), Err(Reason::Expired));
    assert_eq!(verdict(Start::Rewind(Rewind::Earliest)), Ok(4));
    assert_eq!(verdict(Start::Rewind(Rewind::Count(3))), Ok(4));
    let resolved = resolve(&fixture, Start::Live, 3);
    assert_eq!((resolved.bounds.floor, resolved.bounds.head), (5, 5));
}

#[test]
fn a_rewind_by_time_is_counted_by_the_clock_of_the_store() {
    let fixture = Fixture::new();
    fixture.fill(2);
    fixture.clock.advance(Duration::from_secs(600));
    fixture.fill_from(3, 1);
    fixture.clock.advance(Duration::from_secs(60));
    let verdict = |seconds| resolve(&fixture, Start::Rewind(Rewind::Seconds(seconds)), 100).verdict;
    assert_eq!(verdict(30), Ok(3));
    assert_eq!(verdict(120), Ok(2));
    assert_eq!(verdict(1200), Ok(0));
}

#[test]
fn a_stream_without_messages_has_a_position_to_begin_at() {
    let fixture = Fixture::new();
    let position = fixture.replay.position(&stream());
    assert_eq!(position.serial, 0);
    for start in [Start::Live, Start::After(position), Start::Rewind(Rewind::Earliest)] {
        assert_eq!(resolve(&fixture, start, 100).verdict, Ok(0));
    }
    assert!(page(&fixture, 0).entries.is_empty());
}

#[test]
fn the_store_is_maintained_when_time_passes() {
    let fixture = Fixture::new();
    let now_ms = fixture.replay.now_ms();
    wait_until(|| {
        // The thread may not be waiting yet when the clock moves.
        fixture.clock.advance(Duration::from_secs(3600));
        lock(&fixture.store.maintained_ms).iter().any(|at_ms| *at_ms > now_ms + 3_000_000)
    });
    fixture.append(1);
    assert!(matches!(fixture.answer().1, Ok(Appended::Stored(stamp)) if stamp.time_ms > now_ms + 3_000_000));
    wait_until(|| {
        fixture.clock.advance(Duration::ZERO);
        fixture.metrics.replay.streams.get() == 1
    });
}

#[test]
fn a_reader_that_panics_takes_the_store_down_and_not_in_silence() {
    let fixture = Fixture::new();
    fixture.replay.read(Box::new(|_, _| panic!("a bug"))).unwrap();
    wait_until(|| fixture.replay.is_failed());
}
