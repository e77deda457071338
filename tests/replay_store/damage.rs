//! Files that are not as they were written: what is lost, and that nothing else is.

use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;
use tidewire::replay::sqlite::SqliteStore;
use tidewire::replay::store::{Entry, Store};
use tidewire_protocol::position::Position;
use tidewire_protocol::replay::Reason;

use super::support::{
    ALL, EVERYTHING, MINUTE, T0, append, caps, directory, files, fill, floor, head, image, location, open,
    read, resolve, serials, slices, stream, wait_until,
};

const SLICE_MS: u64 = 100 * MINUTE;
const NOW_MS: u64 = T0 + 3 * SLICE_MS;
const PAGE: u64 = 4096;

/// A store that was closed, with three slices. The stream `all` has messages 1 to 30, ten in each; `first`,
/// `second` and `third` have messages only in one slice.
fn three_slices() -> TempDir {
    let directory = directory();
    let store = open(directory.path(), T0);
    for (slice, name) in (0..).zip(["first", "second", "third"]) {
        let now_ms = T0 + slice * SLICE_MS;
        store.maintain(now_ms).expect("maintained");
        fill(&store, &stream("all"), 10, now_ms);
        fill(&store, &stream(name), 5, now_ms);
    }
    store.close().expect("closed");
    assert_eq!(slices(directory.path()).len(), 3);
    directory
}

fn slice(directory: &Path, index: usize) -> PathBuf {
    directory.join(&slices(directory)[index])
}

fn overwrite(file: &Path, at: u64, bytes: &[u8]) {
    let mut file = OpenOptions::new().write(true).open(file).expect("it opens");
    file.seek(SeekFrom::Start(at)).expect("it is there");
    file.write_all(bytes).expect("written");
}

fn find(file: &Path, needle: &[u8]) -> u64 {
    let bytes = fs::read(file).expect("it is read");
    bytes.windows(needle.len()).position(|window| window == needle).expect("it is in there") as u64
}

/// The page with number `number` becomes noise.
fn spoil_page(file: &Path, number: u64) {
    overwrite(file, (number - 1) * PAGE, &[0xA5; PAGE as usize]);
}

/// Databases that were set aside, without what was beside them.
fn damaged(directory: &Path) -> Vec<String> {
    let names = files(directory, "", "").into_iter();
    names
        .filter(|name| name.contains(".damaged-"))
        .filter(|name| ["-wal", "-shm", "-journal"].iter().all(|companion| !name.ends_with(companion)))
        .collect()
}

#[test]
fn a_flipped_byte_costs_one_message() {
    let directory = three_slices();
    let middle = slice(directory.path(), 1);
    overwrite(&middle, find(&middle, b"\"15\"") + 1, b"7");
    let store = open(directory.path(), NOW_MS);
    let entries = read(&store, &stream("all"), ALL);
    assert_eq!(entries.len(), 30);
    for entry in &entries {
        match entry {
            Entry::Unreadable { serial } => assert_eq!(*serial, 15),
            Entry::Message(message) => {
                let serial = message.stamp.position.serial;
                assert_ne!(serial, 15);
                assert_eq!(*message.content.data, format!("\"{serial}\""));
            }
        }
    }
    assert_eq!(floor(&store, &stream("all"), &EVERYTHING, NOW_MS), 1);
    assert!(damaged(directory.path()).is_empty());
}

#[test]
fn an_old_slice_with_a_damaged_header_is_set_aside() {
    let directory = three_slices();
    let all = stream("all");
    let name = slices(directory.path())[1].clone();
    overwrite(&slice(directory.path(), 1), 0, b"no database");
    let store = open(directory.path(), NOW_MS);
    assert_eq!(store.stats().slices_set_aside, 1);
    assert_eq!(damaged(directory.path()), [format!("{name}.damaged-{NOW_MS}")]);
    // Floors rise past it, though what is before it is sound.
    assert_eq!(floor(&store, &all, &EVERYTHING, NOW_MS), 21);
    assert_eq!(serials(&store, &all, ALL), (21..=30).collect::<Vec<_>>());
    assert_eq!(head(&store, &all), 30);
    // Newer messages of this one may have been in it.
    assert_eq!(serials(&store, &stream("first"), ALL), [0u64; 0]);
    assert_eq!(head(&store, &stream("first")), 6);
    assert_eq!(serials(&store, &stream("third"), ALL), [1, 2, 3, 4, 5]);
    assert_eq!(head(&store, &stream("third")), 5);
    assert_eq!(append(&store, &all, "31", NOW_MS).position.serial, 31);
    // Of this one nothing is left, not even where it stood: its serials begin anew, and its epoch tells.
    let stamp = append(&store, &stream("second"), "1", NOW_MS);
    assert!(stamp.begins_generation);
    let lost = Position { epoch: stamp.position.epoch, serial: 5 };
    let lost = Position { epoch: tidewire_protocol::position::Epoch { generation: 1, ..lost.epoch }, ..lost };
    assert_eq!(resolve(&store, &stream("second"), lost), Err(Reason::StreamReset));
}

#[test]
fn a_newest_slice_with_a_damaged_header_is_missed() {
    let directory = three_slices();
    let all = stream("all");
    let before = open(directory.path(), NOW_MS).position(&all);
    overwrite(&slice(directory.path(), 2), 0, &[0; 100]);
    let store = open(directory.path(), NOW_MS);
    assert_eq!(store.stats().slices_set_aside, 1);
    // What is to come is behind a serial that is left out.
    let newcomer = store.position(&all);
    assert_eq!(newcomer.serial, 21);
    let stamp = append(&store, &all, "22", NOW_MS);
    assert_eq!((stamp.position.serial, stamp.begins_generation), (22, true));
    assert_eq!(resolve(&store, &all, newcomer), Ok(()));
    for away in 0..=20 {
        assert_eq!(resolve(&store, &all, Position { serial: away, ..before }), Err(Reason::Expired));
    }
    for witness in 21..=31 {
        assert_eq!(resolve(&store, &all, Position { serial: witness, ..before }), Err(Reason::RolledBack));
    }
}

#[test]
fn a_slice_that_is_not_there_is_missed() {
    let directory = three_slices();
    let all = stream("all");
    fs::remove_file(slice(directory.path(), 1)).expect("removed");
    let store = open(directory.path(), NOW_MS);
    assert_eq!(serials(&store, &all, ALL), (21..=30).collect::<Vec<_>>());
    store.close().expect("closed");
    drop(store);
    let before = open(directory.path(), NOW_MS).position(&all);
    fs::remove_file(slice(directory.path(), 1)).expect("removed");
    // Though the store was closed well: a generation begins.
    let store = open(directory.path(), NOW_MS);
    let stamp = append(&store, &all, "?", NOW_MS);
    assert!(stamp.begins_generation);
    assert_ne!(resolve(&store, &all, before), Ok(()));
}

#[test]
fn an_older_copy_of_the_newest_slice_is_noticed() {
    let directory = directory();
    let all = stream("all");
    let store = open(directory.path(), T0);
    fill(&store, &all, 10, T0);
    store.close().expect("closed");
    drop(store);
    let old = image(directory.path());
    let store = open(directory.path(), T0);
    fill(&store, &all, 10, T0);
    let before = store.position(&all);
    store.close().expect("closed");
    drop(store);
    let name = &slices(directory.path())[0];
    fs::copy(old.path().join(name), directory.path().join(name)).expect("copied");
    let store = open(directory.path(), T0);
    assert_eq!(head(&store, &all), 11);
    assert!(append(&store, &all, "12", T0).begins_generation);
    assert_eq!(resolve(&store, &all, before), Err(Reason::RolledBack));
    assert_eq!(resolve(&store, &all, Position { serial: 10, ..before }), Err(Reason::Expired));
}

#[test]
fn a_slice_that_proves_damaged_later_is_set_aside_then() {
    let directory = directory();
    let store = open(directory.path(), T0);
    let all = stream("all");
    for slice in 0..3 {
        store.maintain(T0 + slice * SLICE_MS).expect("maintained");
        fill(&store, &all, 10, T0 + slice * SLICE_MS);
    }
    store.close().expect("closed");
    drop(store);
    let middle = slice(directory.path(), 1);
    // Of the tables and indexes, in the order in which they are made, the one by serial.
    spoil_page(&middle, 4);
    let store = open(directory.path(), NOW_MS);
    assert_eq!(store.stats().slices_set_aside, 0);
    assert_eq!(serials(&store, &all, ALL), (21..=30).collect::<Vec<_>>());
    assert_eq!(store.stats().slices_set_aside, 1);
    assert_eq!(damaged(directory.path()).len(), 1);
    assert_eq!(floor(&store, &all, &EVERYTHING, NOW_MS), 21);
    assert_eq!(append(&store, &all, "31", NOW_MS).position.serial, 31);
    drop(store);
    let store = open(directory.path(), NOW_MS);
    assert_eq!(store.stats().slices_set_aside, 0);
    assert_eq!(serials(&store, &all, ALL), (21..=31).collect::<Vec<_>>());
}

#[test]
fn while_it_runs_a_damaged_slice_costs_its_messages_only() {
    let directory = directory();
    let store = open(directory.path(), T0);
    let (all, only) = (stream("all"), stream("only"));
    fill(&store, &all, 10, T0);
    fill(&store, &only, 5, T0);
    store.maintain(T0 + SLICE_MS).expect("maintained");
    fill(&store, &all, 10, T0 + SLICE_MS);
    wait_until("the first slice is sealed", || store.is_at_rest());
    let position = store.position(&only);
    let first = slice(directory.path(), 0);
    wait_until("its connections are closed", || {
        files(directory.path(), &slices(directory.path())[0], "-wal").is_empty()
    });
    overwrite(&first, 0, &[0xFF; 16]);
    assert_eq!(serials(&store, &only, ALL), [0; 0]);
    assert_eq!(serials(&store, &all, ALL), (11..=20).collect::<Vec<_>>());
    assert_eq!(store.stats().slices_set_aside, 1);
    assert_eq!(damaged(directory.path()).len(), 1);
    assert_eq!(store.position(&only), position);
    assert_eq!(floor(&store, &only, &EVERYTHING, T0), 6);
    assert_eq!(append(&store, &only, "6", T0).position.serial, 6);
    drop(store);
    let store = open(directory.path(), T0 + SLICE_MS);
    assert_eq!(head(&store, &only), 6);
    assert_eq!(serials(&store, &all, ALL), (11..=20).collect::<Vec<_>>());
}

#[test]
fn the_slice_that_is_written_to_may_prove_damaged() {
    let directory = directory();
    let store = open(directory.path(), T0);
    let all = stream("all");
    fill(&store, &all, 10, T0);
    drop(store);
    // Opened again, the store has the first pages of it in no cache.
    let newest = slice(directory.path(), 0);
    let pages = fs::metadata(&newest).expect("it is there").len() / PAGE;
    let store = open(directory.path(), T0);
    for page in 2..=pages {
        spoil_page(&newest, page);
    }
    assert_eq!(append(&store, &all, "11", T0).position.serial, 11);
    assert_eq!(append(&store, &stream("new"), "1", T0).position.serial, 1);
    assert_eq!(store.stats().slices_set_aside, 1);
    assert_eq!(serials(&store, &all, ALL), [11]);
    assert_eq!(floor(&store, &all, &EVERYTHING, T0), 11);
    drop(store);
    let store = open(directory.path(), T0);
    assert_eq!(serials(&store, &all, ALL), [11]);
}

#[test]
fn a_damaged_meta_file_resets_every_position() {
    let directory = three_slices();
    let all = stream("all");
    let before = open(directory.path(), NOW_MS).position(&all);
    overwrite(&directory.path().join("meta.db"), 0, &[0xFF; 100]);
    let store = open(directory.path(), NOW_MS);
    assert_eq!(store.stats().slices_set_aside, 1);
    assert_eq!(damaged(directory.path()).len(), 1);
    let journals = files(directory.path(), "meta.db.damaged-", "-journal");
    assert_eq!(journals.len(), 1, "it is of no other file");
    assert_eq!(serials(&store, &all, ALL), (1..=30).collect::<Vec<_>>());
    assert_eq!(resolve(&store, &all, before), Err(Reason::StreamReset));
    assert!(append(&store, &all, "31", NOW_MS).begins_generation);
}

#[test]
fn a_slice_that_was_just_begun_is_no_damage() {
    let directory = directory();
    let store = open(directory.path(), T0);
    fill(&store, &stream("all"), 3, T0);
    drop(store);
    // As a power cut leaves a file of which nothing was written yet.
    fs::write(directory.path().join(format!("slice-{}.db", T0 + 1)), "").expect("written");
    let store = open(directory.path(), T0 + 2);
    assert_eq!(store.stats().slices_set_aside, 0);
    fill(&store, &stream("all"), 3, T0 + 2);
    assert_eq!(serials(&store, &stream("all"), ALL), [1, 2, 3, 4, 5, 6]);
}

/// A write-ahead log that ends anywhere, or has a flipped byte, ends with its last whole commit.
#[test]
fn a_torn_tail_of_the_write_ahead_log_is_cut_off() {
    let directory = directory();
    let all = stream("all");
    let store = open(directory.path(), T0);
    fill(&store, &all, 3, T0);
    store.close().expect("closed");
    drop(store);
    let store = open(directory.path(), T0);
    fill(&store, &all, 9, T0);
    let before = store.position(&all);
    let image = image(directory.path());
    let name = format!("{}-wal", slices(image.path())[0]);
    let wal = fs::read(image.path().join(&name)).expect("it is read");
    let mut random = StdRng::seed_from_u64(1);
    let mut heads = std::collections::BTreeSet::new();
    for round in 0..60 {
        let torn = super::support::image(image.path());
        fs::remove_file(torn.path().join(name.replace("-wal", "-shm"))).expect("removed");
        let mut left = wal.clone();
        let at = random.random_range(0..wal.len());
        if round % 2 == 0 {
            left.truncate(at);
        } else {
            left[at] ^= 0x10;
        }
        fs::write(torn.path().join(&name), left).expect("written");
        let store = open(torn.path(), T0);
        let head = head(&store, &all);
        heads.insert(head);
        assert!((3..=12).contains(&head));
        assert_eq!(serials(&store, &all, ALL), (1..=head).collect::<Vec<_>>());
        assert!(append(&store, &all, "?", T0).begins_generation);
        for serial in 0..=12 {
            let expected = if serial <= head { Ok(()) } else { Err(Reason::RolledBack) };
            assert_eq!(resolve(&store, &all, Position { serial, ..before }), expected);
        }
    }
    assert!(heads.len() > 4, "{heads:?}");
}

/// Whatever is flipped: the store opens, tells nothing that is not so, and takes messages.
#[test]
fn flipped_bytes_anywhere_make_no_false_messages() {
    let sound = three_slices();
    let names = files(sound.path(), "", "");
    let mut random = StdRng::seed_from_u64(2);
    for round in 0..80 {
        let copy = image(sound.path());
        let name = &names[random.random_range(0..names.len())];
        let file = copy.path().join(name);
        let length = fs::metadata(&file).expect("it is there").len();
        for _ in 0..random.random_range(1..=3) {
            if length > 0 {
                overwrite(&file, random.random_range(0..length), &[random.random()]);
            }
        }
        let store = match SqliteStore::open(&location(copy.path()), &caps(), NOW_MS) {
            Ok(store) => store,
            // The number of a format that is not known.
            Err(error) => {
                assert!(error.to_string().contains("format"), "round {round}, {name}: {error}");
                continue;
            }
        };
        for channel in ["all", "first", "second", "third"] {
            assert_true_messages(&store, channel, &format!("round {round}, {name}"));
            let stream = stream(channel);
            let next = head(&store, &stream) + 1;
            assert_eq!(append(&store, &stream, &next.to_string(), NOW_MS).position.serial, next);
            assert_true_messages(&store, channel, &format!("round {round}, {name}, later"));
        }
    }
}

fn assert_true_messages(store: &dyn Store, channel: &str, round: &str) {
    for entry in read(store, &stream(channel), ALL) {
        if let Entry::Message(message) = entry {
            let serial = message.stamp.position.serial;
            assert_eq!(*message.content.data, format!("\"{serial}\""), "{round}");
        }
    }
    store.bounds(&stream(channel), &EVERYTHING, NOW_MS).expect("bounds");
}
