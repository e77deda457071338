//! Files of time: what is read across them, when they go, and what remains.

use tidewire::replay::memory::MemoryStore;
use tidewire::replay::sqlite::SqliteStore;
use tidewire::replay::store::{Caps, Direction, Range, Store, StoreError};
use tidewire_protocol::position::Position;
use tidewire_protocol::replay::Reason;

use super::support::{
    ALL, EVERYTHING, HOUR, MIB, MINUTE, T0, append, caps, directory, files, fill, floor, head, location,
    message, open, resolve, serials, slices, stream, stream_of, wait_until,
};

/// Longer than a slice takes messages with a window of 24 hours.
const SLICE_MS: u64 = 100 * MINUTE;

/// So many messages in each of so many slices.
fn fill_slices(store: &dyn Store, name: &str, slices: u64, messages: u64) -> u64 {
    let mut now_ms = T0;
    for slice in 0..slices {
        now_ms = T0 + slice * SLICE_MS;
        store.maintain(now_ms).expect("maintained");
        fill(store, &stream(name), messages, now_ms);
    }
    now_ms
}

#[test]
fn pages_cross_slices_both_ways() {
    let directory = directory();
    let store = open(directory.path(), T0);
    fill_slices(&store, "orders", 5, 7);
    assert_eq!(slices(directory.path()).len(), 5);
    let orders = stream("orders");
    for after in 0..=35 {
        for max_messages in [1, 3, 8, 40] {
            let range = Range { after, max_messages, ..ALL };
            let expected: Vec<u64> = (after + 1..=35).take(max_messages).collect();
            assert_eq!(serials(&store, &orders, range), expected);
            let range = Range { before: after, max_messages, direction: Direction::Backward, ..ALL };
            let expected: Vec<u64> = (1..after).rev().take(max_messages).collect();
            assert_eq!(serials(&store, &orders, range), expected);
        }
    }
}

#[test]
fn an_old_slice_goes_as_files() {
    let directory = directory();
    let store = open(directory.path(), T0);
    let orders = stream("orders");
    fill_slices(&store, "orders", 3, 4);
    let before = store.position(&orders);
    // The newest message of the first slice is exactly as old as the window.
    store.maintain(T0 + 24 * HOUR).expect("maintained");
    assert_eq!(floor(&store, &orders, &EVERYTHING, T0), 1);
    store.maintain(T0 + 24 * HOUR + 1).expect("maintained");
    assert_eq!(floor(&store, &orders, &EVERYTHING, T0), 5);
    assert_eq!(serials(&store, &orders, ALL), (5..=12).collect::<Vec<_>>());
    assert_eq!(resolve(&store, &orders, Position { serial: 4, ..before }), Ok(()));
    assert_eq!(resolve(&store, &orders, Position { serial: 3, ..before }), Err(Reason::Expired));
    wait_until("the file is gone with what was beside it", || {
        files(directory.path(), &format!("slice-{T0}"), "").is_empty()
    });
    assert_eq!(store.stats().slices_dropped_early, 0);
}

#[test]
fn a_stream_is_known_after_its_messages_are_gone() {
    let directory = directory();
    let store = open(directory.path(), T0);
    let orders = stream("orders");
    let base = store.position(&stream("unknown"));
    fill(&store, &orders, 3, T0);
    let position = store.position(&orders);
    let later_ms = T0 + 26 * HOUR;
    store.maintain(later_ms).expect("maintained");
    let check = |store: &SqliteStore| {
        assert_eq!(store.position(&orders), position);
        assert_eq!(serials(store, &orders, ALL), [0; 0]);
        assert_eq!(resolve(store, &orders, position), Ok(()));
        assert_eq!(resolve(store, &orders, Position { serial: 2, ..position }), Err(Reason::Expired));
        assert_eq!(store.position(&stream("unknown")).serial, base.serial);
    };
    check(&store);
    store.close().expect("closed");
    drop(store);
    let store = open(directory.path(), later_ms);
    check(&store);
    assert_eq!(append(&store, &orders, "4", later_ms).position.serial, 4);
    assert_eq!(floor(&store, &orders, &EVERYTHING, later_ms), 4);
}

fn a_stream_is_forgotten_after_two_windows(store: &dyn Store) {
    let (short, long) = (stream("short"), stream("long"));
    let early = store.position(&stream("unknown"));
    fill(store, &short, 3, T0);
    fill(store, &long, 9, T0);
    let (at_short, at_long) = (store.position(&short), store.position(&long));
    for hour in 0..=47 {
        store.maintain(T0 + hour * HOUR).expect("maintained");
    }
    assert_eq!((head(store, &short), head(store, &long)), (3, 9));
    // A slice more, at most two.
    for hour in 48..=53 {
        store.maintain(T0 + hour * HOUR).expect("maintained");
    }
    assert_eq!(store.stats().streams, 0);
    // Serials go on above all that anybody may hold.
    for name in [&short, &long, &stream("unknown")] {
        assert_eq!(head(store, name), 9);
    }
    assert_eq!(resolve(store, &short, at_short), Err(Reason::Expired));
    assert_eq!(resolve(store, &long, at_long), Ok(()));
    assert_eq!(resolve(store, &stream("unknown"), Position { ..early }), Err(Reason::Expired));
    let stamp = append(store, &short, "10", T0 + 53 * HOUR);
    assert_eq!((stamp.position.serial, stamp.begins_generation), (10, true));
    assert_eq!(resolve(store, &short, at_short), Err(Reason::Expired));
    assert_eq!(store.bounds(&short, &EVERYTHING, T0).expect("bounds").base, 9);
}

#[test]
fn a_stream_is_forgotten_after_two_windows_in_memory() {
    a_stream_is_forgotten_after_two_windows(&MemoryStore::new(&caps()));
}

#[test]
fn a_stream_is_forgotten_after_two_windows_on_disk() {
    let directory = directory();
    let store = open(directory.path(), T0);
    a_stream_is_forgotten_after_two_windows(&store);
    drop(store);
    // The base is as safe as the streams were.
    let store = open(directory.path(), T0 + 53 * HOUR);
    assert_eq!(head(&store, &stream("unknown")), 9);
    assert_eq!(head(&store, &stream("short")), 10);
}

#[test]
fn an_idle_store_comes_to_rest() {
    let directory = directory();
    let store = open(directory.path(), T0);
    fill(&store, &stream("orders"), 3, T0);
    for hour in 0..100 {
        store.maintain(T0 + hour * HOUR).expect("maintained");
    }
    // Files go once nobody reads them any more, in the background.
    wait_until("one slice is left", || slices(directory.path()).len() == 1);
    let left = slices(directory.path());
    for hour in 100..200 {
        store.maintain(T0 + hour * HOUR).expect("maintained");
    }
    assert_eq!(slices(directory.path()), left);
}

#[test]
fn at_its_limit_the_store_drops_its_oldest_slice() {
    let directory = directory();
    let small = Caps { max_bytes: 4 * MIB, ..caps() };
    let store = SqliteStore::open(&location(directory.path()), &small, T0).expect("it opens");
    let (orders, quiet) = (stream("orders"), stream("quiet"));
    fill(&store, &quiet, 2, T0);
    let at_quiet = store.position(&quiet);
    let data = "x".repeat(1000);
    let mut second = 0;
    while store.stats().slices_dropped_early < 3 {
        second += 1;
        let batch: Vec<_> = (0..100).map(|_| message(&orders, &data)).collect();
        store.append(&batch, T0 + second * 1000).expect("stored");
        store.maintain(T0 + second * 1000).expect("maintained");
        assert!(store.stats().bytes <= 5 * MIB, "{} bytes", store.stats().bytes);
        assert!(second < 500, "nothing was dropped");
    }
    let now_ms = T0 + second * 1000;
    let kept = serials(&store, &orders, ALL);
    let head = head(&store, &orders);
    assert_eq!(kept, (floor(&store, &orders, &EVERYTHING, now_ms)..=head).collect::<Vec<_>>());
    assert!((1000..head).contains(&(kept.len() as u64)));
    // Its messages went with the first slice, but not where it stood.
    assert_eq!(store.position(&quiet), at_quiet);
    assert_eq!(floor(&store, &quiet, &EVERYTHING, now_ms), 3);
    wait_until("chores are done", || store.is_at_rest());
    store.maintain(now_ms).expect("maintained");
    drop(store);
    let store = SqliteStore::open(&location(directory.path()), &small, now_ms).expect("it opens");
    assert_eq!(serials(&store, &orders, ALL), kept);
    assert_eq!(store.position(&quiet), at_quiet);
    assert_eq!(floor(&store, &quiet, &EVERYTHING, now_ms), 3);
}

#[test]
fn in_memory_the_limits_hold_to_the_byte() {
    let small = Caps { max_bytes: 100_000, app_max_bytes: vec![("42".into(), 30_000)], ..caps() };
    let store = MemoryStore::new(&small);
    let (orders, other) = (stream("orders"), stream_of("7", "orders"));
    let data = "x".repeat(1000);
    for serial in 1..=200 {
        append(&store, &orders, &data, T0 + serial);
        append(&store, &other, &data, T0 + serial);
        assert!(store.stats().bytes <= 100_000);
        let kept = serials(&store, &orders, ALL);
        assert_eq!(kept.last(), Some(&serial));
        assert!(kept.len() <= 24 && (serial < 24 || kept.len() >= 20), "{}", kept.len());
        assert_eq!(floor(&store, &orders, &EVERYTHING, T0), kept[0]);
    }
    let kept = serials(&store, &other, ALL).len();
    assert!((50..70).contains(&kept), "{kept}");
    store.set_caps(&Caps { max_bytes: 10_000, ..caps() });
    assert!(store.stats().bytes <= 10_000);
}

#[test]
fn an_app_at_its_limit_loses_its_oldest_slices() {
    let directory = directory();
    let limited = Caps { app_max_bytes: vec![("42".into(), 100_000)], ..caps() };
    let store = SqliteStore::open(&location(directory.path()), &limited, T0).expect("it opens");
    let (orders, quiet, other) = (stream("orders"), stream("quiet"), stream_of("7", "orders"));
    fill(&store, &quiet, 1, T0);
    let data = "x".repeat(1000);
    let mut now_ms = T0;
    for slice in 0..5 {
        now_ms = T0 + slice * SLICE_MS;
        store.maintain(now_ms).expect("maintained");
        for _ in 0..40 {
            append(&store, &orders, &data, now_ms);
            append(&store, &other, &data, now_ms);
        }
    }
    let check = |store: &SqliteStore| {
        // Two slices are below the limit, three reach it.
        assert_eq!(floor(store, &orders, &EVERYTHING, now_ms), 81);
        assert_eq!(floor(store, &quiet, &EVERYTHING, now_ms), 2);
        assert_eq!(floor(store, &other, &EVERYTHING, now_ms), 1);
    };
    check(&store);
    drop(store);
    let store = SqliteStore::open(&location(directory.path()), &limited, now_ms).expect("it opens");
    check(&store);
    store.set_caps(&Caps { app_max_bytes: vec![("42".into(), 1_000_000)], ..caps() });
    assert_eq!(floor(&store, &orders, &EVERYTHING, now_ms), 1);
    store.set_caps(&Caps { app_max_bytes: vec![("42".into(), 0)], ..caps() });
    assert_eq!(floor(&store, &orders, &EVERYTHING, now_ms), 1, "0 is no limit");
}

#[test]
fn a_second_process_is_refused() {
    let directory = directory();
    let store = open(directory.path(), T0);
    let refused = SqliteStore::open(&location(directory.path()), &caps(), T0).expect_err("it is in use");
    let StoreError::Unavailable(reason) = &refused else { panic!("{refused:?}") };
    assert!(reason.contains(&directory.path().display().to_string()), "{reason}");
    assert!(reason.contains("another process"), "{reason}");
    store.close().expect("closed");
    open(directory.path(), T0);
}

#[test]
fn a_directory_that_cannot_be_made_is_told() {
    let directory = directory();
    let file = directory.path().join("file");
    std::fs::write(&file, "").expect("written");
    let refused =
        SqliteStore::open(&location(&file.join("below")), &caps(), T0).expect_err("it cannot be made");
    assert!(refused.to_string().contains("file/below"), "{refused}");
}

#[test]
fn a_store_of_a_later_version_is_refused() {
    let directory = directory();
    open(directory.path(), T0).close().expect("closed");
    super::support::sql(&directory.path().join("meta.db"), "PRAGMA user_version = 9");
    let refused = SqliteStore::open(&location(directory.path()), &caps(), T0).expect_err("it is unknown");
    assert!(refused.to_string().contains("format 9"), "{refused}");
}

#[test]
fn a_clock_that_jumps_does_no_harm() {
    let directory = directory();
    let store = open(directory.path(), T0);
    let orders = stream("orders");
    let mut serial = 0;
    for now_ms in [T0, T0 + 10_000 * HOUR, T0 + 1, T0 - 500 * HOUR, T0 + HOUR, T0 + 2 * HOUR] {
        for _ in 0..3 {
            store.maintain(now_ms).expect("maintained");
            serial += 1;
            assert_eq!(append(&store, &orders, "x", now_ms).position.serial, serial);
        }
    }
    wait_until("files are gone", || slices(directory.path()).len() < 8);
    drop(store);
    let store = open(directory.path(), T0);
    assert_eq!(head(&store, &orders), serial);
    let kept = serials(&store, &orders, ALL);
    assert_eq!(kept, (floor(&store, &orders, &EVERYTHING, T0)..=serial).collect::<Vec<_>>());
}

#[test]
fn readers_are_safe_while_slices_go() {
    let directory = directory();
    let small = Caps { max_bytes: 2 * MIB, ..caps() };
    let store = SqliteStore::open(&location(directory.path()), &small, T0).expect("it opens");
    let orders = stream("orders");
    let data = "x".repeat(1000);
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for direction in [Direction::Forward, Direction::Backward] {
            let (store, orders, is_done) = (&store, &orders, &is_done);
            scope.spawn(move || {
                let mut pages = 0;
                while !is_done.load(std::sync::atomic::Ordering::Relaxed) || pages == 0 {
                    let read = serials(store, orders, Range { direction, max_messages: 300, ..ALL });
                    let steps = read.windows(2).all(|pair| pair[0].abs_diff(pair[1]) == 1);
                    assert!(steps, "a gap in {read:?}");
                    store.bounds(orders, &EVERYTHING, T0).expect("bounds");
                    pages += 1;
                }
            });
        }
        for second in 0..300 {
            let batch: Vec<_> = (0..20).map(|_| message(&orders, &data)).collect();
            store.append(&batch, T0 + second).expect("stored");
            store.maintain(T0 + second).expect("maintained");
        }
        is_done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(store.stats().slices_dropped_early > 2);
    assert_eq!(store.stats().slices_set_aside, 0);
}

#[test]
fn somebody_may_look_at_the_files_meanwhile() {
    let directory = directory();
    let store = open(directory.path(), T0);
    let orders = stream("orders");
    fill(&store, &orders, 3, T0);
    let file = directory.path().join(&slices(directory.path())[0]);
    let other = rusqlite::Connection::open(&file).expect("it opens");
    other.execute_batch("BEGIN").expect("begun");
    let count = || other.query_row("SELECT count(*) FROM messages", [], |row| row.get::<_, i64>(0));
    assert_eq!(count(), Ok(3));
    // Enough for a checkpoint, which cannot move what the other still reads.
    let data = "x".repeat(10_000);
    for _ in 0..20 {
        let batch: Vec<_> = (0..50).map(|_| message(&orders, &data)).collect();
        store.append(&batch, T0).expect("stored");
    }
    wait_until("chores are done", || store.is_at_rest());
    store.maintain(T0 + SLICE_MS).expect("maintained");
    fill(&store, &orders, 1, T0 + SLICE_MS);
    assert_eq!(count(), Ok(3));
    other.execute_batch("COMMIT").expect("ended");
    assert_eq!(count(), Ok(1003));
    assert_eq!(serials(&store, &orders, ALL).len(), 1004);
    assert_eq!(store.stats().slices_set_aside, 0);
}

#[test]
fn somebody_who_writes_to_the_files_is_waited_for_but_not_for_ever() {
    let directory = directory();
    let store = open(directory.path(), T0);
    let orders = stream("orders");
    fill(&store, &orders, 3, T0);
    let file = directory.path().join(&slices(directory.path())[0]);
    let other = rusqlite::Connection::open(&file).expect("it opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("begun");
    let refused = store.append(&[message(&orders, "4")], T0).expect_err("it is locked");
    assert!(matches!(refused, StoreError::Unavailable(_)), "{refused:?}");
    assert_eq!(head(&store, &orders), 3);
    other.execute_batch("COMMIT").expect("ended");
    fill(&store, &orders, 1, T0);
    assert_eq!(serials(&store, &orders, ALL), [1, 2, 3, 4]);
}
