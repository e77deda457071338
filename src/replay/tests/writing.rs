//! The writer: batches, order, bounds, errors, the end.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::Busy;
use super::super::store::{Appended, StoreError};
use super::{Fixture, message, serial, stream, wait_until};
use crate::sync::lock;

#[test]
fn a_single_message_is_written_at_once() {
    let fixture = Fixture::new();
    for number in 1..=3 {
        fixture.append(number);
        let (answered, appended) = fixture.answer();
        assert_eq!((answered, serial(&appended)), (number, number));
    }
    assert_eq!(*lock(&fixture.store.batches), [1, 1, 1]);
    assert_eq!(fixture.replay.position(&stream()).serial, 3);
    assert_eq!(fixture.metrics.replay.stored.get(), 3);
}

#[test]
fn what_waits_is_written_together_and_answered_in_order() {
    let fixture = Fixture::new();
    fixture.store.appends.shut();
    fixture.append(1);
    fixture.store.appends.wait_for_calls(1);
    (2..=500).for_each(|number| fixture.append(number));
    fixture.store.appends.open();
    for number in 1..=500 {
        let (answered, appended) = fixture.answer();
        assert_eq!((answered, serial(&appended)), (number, number));
    }
    assert_eq!(*lock(&fixture.store.batches), [1, 499]);
}

#[test]
fn a_batch_ends_at_its_bytes_or_its_messages() {
    let fixture = Fixture::new();
    fixture.store.appends.shut();
    fixture.append(1);
    fixture.store.appends.wait_for_calls(1);
    for number in 2..=11 {
        fixture.replay.append(message("x"), 256 * 1024, fixture.tell(number)).unwrap();
    }
    (12..=2012).for_each(|number| fixture.append(number));
    fixture.store.appends.open();
    (1..=2012).for_each(|_| drop(fixture.answer()));
    // Four times a quarter of a mebibyte fill a batch.
    let batches = lock(&fixture.store.batches).clone();
    assert_eq!(batches, [1, 4, 4, 1024, 979]);
}

#[test]
fn too_many_messages_are_refused_and_none_is_lost() {
    let fixture = Fixture::new();
    fixture.store.appends.shut();
    fixture.append(0);
    fixture.store.appends.wait_for_calls(1);
    (1..=65_536).for_each(|number| fixture.append(number));
    assert_eq!(fixture.replay.append(message("x"), 100, fixture.tell(0)), Err(Busy));
    assert_eq!(fixture.replay.purge(stream(), 2, Box::new(|_| {})), Err(Busy));
    fixture.store.appends.open();
    (0..=65_536).for_each(|number| assert_eq!(fixture.answer().0, number));
    fixture.append(7);
    assert_eq!(fixture.answer().0, 7);
}

#[test]
fn too_many_bytes_are_refused() {
    let fixture = Fixture::new();
    fixture.store.appends.shut();
    fixture.append(0);
    fixture.store.appends.wait_for_calls(1);
    let append = || fixture.replay.append(message("x"), 1024 * 1024, fixture.tell(0));
    (0..64).for_each(|_| append().unwrap());
    assert_eq!(append(), Err(Busy));
    fixture.store.appends.open();
    (0..65).for_each(|_| drop(fixture.answer()));
    append().unwrap();
}

#[test]
fn a_purge_takes_what_was_published_before_it() {
    let fixture = Fixture::new();
    fixture.store.appends.shut();
    fixture.append(1);
    fixture.store.appends.wait_for_calls(1);
    fixture.append(2);
    let (purged, done) = std::sync::mpsc::channel();
    let replay = Arc::clone(&fixture.replay);
    let tell = Box::new(move |outcome| purged.send((outcome, replay.position(&stream()).serial)).unwrap());
    fixture.replay.purge(stream(), u64::MAX, tell).unwrap();
    fixture.append(3);
    fixture.store.appends.open();
    assert_eq!(done.recv().unwrap(), (Ok(()), 2));
    (1..=3).for_each(|number| assert_eq!(fixture.answer().0, number));
    assert_eq!(*lock(&fixture.store.batches), [1, 1, 1]);
}

#[test]
fn an_error_reaches_the_whole_batch_and_nothing_else() {
    let fixture = Fixture::new();
    fixture.store.fails_with(Some(StoreError::Full));
    fixture.store.appends.shut();
    (1..=3).for_each(|number| fixture.append(number));
    fixture.store.appends.open();
    for number in 1..=3 {
        assert_eq!(fixture.answer(), (number, Err(StoreError::Full)));
    }
    assert_eq!(fixture.metrics.replay.store_up.get(), 0);
    assert!(!fixture.replay.is_failed());

    fixture.store.fails_with(None);
    fixture.append(4);
    assert_eq!(serial(&fixture.answer().1), 1);
    assert_eq!(fixture.metrics.replay.store_up.get(), 1);
    assert_eq!(fixture.metrics.replay.failed.get(), 3);
}

#[test]
fn a_store_that_failed_is_not_written_to_any_more_nor_closed_as_whole() {
    let fixture = Fixture::new();
    let failure = StoreError::Failed("input/output error".to_owned());
    fixture.store.fails_with(Some(failure.clone()));
    fixture.append(1);
    assert_eq!(fixture.answer(), (1, Err(failure.clone())));
    assert!(fixture.replay.is_failed());

    fixture.store.fails_with(None);
    fixture.append(2);
    assert_eq!(fixture.answer(), (2, Err(failure)));
    assert_eq!(fixture.store.appends.calls(), 1);
    assert_eq!(fixture.metrics.replay.store_up.get(), 0);
    fixture.replay.close();
    assert!(!fixture.store.is_closed.load(Ordering::Relaxed));
}

#[test]
fn closing_writes_what_waits() {
    let fixture = Fixture::new();
    fixture.store.appends.shut();
    fixture.append(1);
    fixture.store.appends.wait_for_calls(1);
    (2..=2000).for_each(|number| fixture.append(number));
    std::thread::scope(|scope| {
        let closing = scope.spawn(|| fixture.replay.close());
        wait_until(|| fixture.replay.append(message("late"), 1, fixture.tell(0)) == Err(Busy));
        assert!(!closing.is_finished());
        fixture.store.appends.open();
    });
    assert!(fixture.store.is_closed.load(Ordering::Relaxed));
    let answers: Vec<_> = fixture.answers.try_iter().collect();
    assert!(answers.iter().all(|(_, appended)| matches!(appended, Ok(Appended::Stored(_)))));
    let numbers: Vec<u64> = answers.iter().map(|(number, _)| *number).filter(|number| *number > 0).collect();
    assert!(numbers.into_iter().eq(1..=2000));
}

#[test]
fn a_callback_that_panics_takes_the_store_down_and_not_in_silence() {
    let fixture = Fixture::new();
    fixture.replay.append(message("x"), 1, Box::new(|_| panic!("a bug"))).unwrap();
    wait_until(|| fixture.replay.is_failed());
    wait_until(|| fixture.replay.append(message("x"), 1, Box::new(|_| {})) == Err(Busy));
    fixture.replay.close();
    assert!(!fixture.store.is_closed.load(Ordering::Relaxed));
}
