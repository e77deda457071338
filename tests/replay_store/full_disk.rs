//! A disk without room: nothing of the batch is kept, and what comes later may be.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tidewire::replay::sqlite::SqliteStore;
use tidewire::replay::store::{Durability, Location, Store, StoreError};
use tidewire_protocol::replay::Reason;

use super::support::{
    ALL, EVERYTHING, HOUR, MIB, T0, append, assert_full, caps, head, keyed, message, messages, resolve,
    serials, slices, stream,
};

const DISK_BYTES: u64 = 12 * MIB;
/// What is left must fit twice: in the write-ahead log, and in the database.
const BALLAST_BYTES: usize = 7 * 1024 * 1024;

/// Runs a test of this program on a small disk of its own. Where that cannot be had, nothing is tried.
fn on_a_small_disk(test: &str) {
    let root = super::support::directory();
    let mount = format!("mount -t tmpfs -o size={DISK_BYTES} none \"$1\"");
    let with_disk = |then: &str| {
        let mut command = Command::new("unshare");
        command.args([
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            &format!("{mount} && {then}"),
            "sh",
        ]);
        command.arg(root.path());
        command
    };
    if !with_disk("true").output().is_ok_and(|output| output.status.success()) {
        eprintln!("not tried: no file system can be mounted here");
        return;
    }
    let name = format!("full_disk::{test}");
    let output = with_disk("exec \"$0\" --exact \"$2\" --ignored --nocapture".replace("$0", "$3").as_str())
        .arg(&name)
        .arg(std::env::current_exe().expect("this program"))
        .env("TIDEWIRE_TEST_DIRECTORY", root.path())
        .output()
        .expect("it runs");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && told.contains("1 passed"),
        "{told}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

struct Disk(PathBuf);

impl Disk {
    /// Half full already.
    fn here() -> Self {
        let disk =
            Self(PathBuf::from(std::env::var_os("TIDEWIRE_TEST_DIRECTORY").expect("set by the parent")));
        fs::write(disk.ballast(), vec![0; BALLAST_BYTES]).expect("written");
        disk
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    fn make_room(&self) {
        fs::remove_file(self.ballast()).expect("removed");
    }

    fn store(&self) -> PathBuf {
        self.0.join("store")
    }

    fn open(&self, durability: Durability, now_ms: u64) -> SqliteStore {
        let location = Location { directory: self.store(), durability };
        SqliteStore::open(&location, &caps(), now_ms).expect("the store opens")
    }
}

fn fill_up(store: &dyn Store, now_ms: u64) -> u64 {
    let orders = stream("orders");
    for round in 0..1_000 {
        let batch: Vec<_> = (0..20).map(|_| message(&orders, &"x".repeat(5_000))).collect();
        let before = head(store, &orders);
        if let Err(error) = store.append(&batch, now_ms + round) {
            assert_eq!(error, StoreError::Full);
            assert_eq!(head(store, &orders), before);
            return before;
        }
    }
    panic!("the disk does not fill up");
}

#[test]
fn a_full_disk_refuses_batches_as_a_whole() {
    on_a_small_disk("refuses_batches_as_a_whole");
}

#[test]
#[ignore = "is run by another test, on a small disk"]
fn refuses_batches_as_a_whole() {
    for durability in [Durability::Interval, Durability::Always] {
        let disk = Disk::here();
        let store = disk.open(durability, T0);
        let (orders, other) = (stream("orders"), stream("other"));
        append(&store, &other, "before", T0);
        let kept = fill_up(&store, T0);
        assert!(kept > 100, "{kept}");
        // Small ones may find room still, until they do not.
        while store.append(&[keyed(&orders, "small", &"y".repeat(3_000))], T0).is_ok() {
            store.append(&[message(&orders, &"y".repeat(3_000))], T0).ok();
            if store.append(&[message(&orders, &"y".repeat(3_000))], T0).is_err() {
                break;
            }
        }
        let kept = head(&store, &orders);
        assert_full(store.append(&[keyed(&other, "k", &"z".repeat(100_000)), message(&orders, "")], T0));
        assert_eq!(head(&store, &orders), kept);
        assert_eq!(serials(&store, &other, ALL), [1]);
        assert!(!store.conflicts(&keyed(&other, "k", "another"), T0), "its key is not known");
        // Reading goes on.
        assert_eq!(serials(&store, &orders, ALL), (1..=kept).collect::<Vec<_>>());
        store.bounds(&orders, &EVERYTHING, T0).expect("bounds");
        disk.make_room();
        assert_eq!(append(&store, &orders, "after", T0).position.serial, kept + 1);
        assert_eq!(append(&store, &other, "after", T0).position.serial, 2);
        store.close().expect("closed");
        drop(store);
        let store = disk.open(durability, T0);
        assert_eq!(head(&store, &orders), kept + 1);
        assert_eq!(messages(&store, &orders).len() as u64, kept + 1);
        assert!(!append(&store, &orders, "later", T0).begins_generation);
        drop(store);
        remove(&disk.store());
    }
}

#[test]
fn kill_9_on_a_full_disk_loses_nothing() {
    on_a_small_disk("loses_nothing_when_killed");
}

#[test]
#[ignore = "is run by another test, on a small disk"]
fn loses_nothing_when_killed() {
    let disk = Disk::here();
    let store = disk.open(Durability::Interval, T0);
    let kept = fill_up(&store, T0);
    disk.make_room();
    let image = disk.0.join("image");
    // What no longer runs leaves its files as they are.
    std::mem::forget(store);
    let copied = Command::new("cp").arg("-r").arg(disk.store()).arg(&image).status().expect("cp runs");
    // There is no room for two of them.
    let left = if copied.success() { image } else { return remove(&image) };
    let location = Location { directory: left, durability: Durability::Interval };
    let store = SqliteStore::open(&location, &caps(), T0).expect("it opens");
    assert_eq!(head(&store, &stream("orders")), kept);
    assert_eq!(messages(&store, &stream("orders")).len() as u64, kept);
}

#[test]
fn on_a_full_disk_old_slices_go_and_make_room() {
    on_a_small_disk("makes_room");
}

#[test]
#[ignore = "is run by another test, on a small disk"]
fn makes_room() {
    let disk = Disk::here();
    let store = disk.open(Durability::Interval, T0);
    let (orders, only) = (stream("orders"), stream("only"));
    append(&store, &only, "1", T0);
    let at_only = store.position(&only);
    fill_up(&store, T0);
    // That it was not stored has to be written down, too, and finds no room.
    store.skip(&orders);
    // The slice is sealed; a new one, for what it knows, finds no room.
    let later_ms = T0 + 24 * HOUR + 2_000;
    let mut tries = 0;
    while store.append(&[message(&orders, "after")], later_ms).is_err() {
        drop(store.maintain(later_ms));
        tries += 1;
        assert!(tries < 50, "no room comes: {:?}", slices(&disk.store()));
    }
    assert_eq!(store.position(&only), at_only);
    store.maintain(later_ms).expect("maintained");
    drop(store);
    let store = disk.open(Durability::Interval, later_ms);
    assert_eq!(store.position(&only), at_only);
}

#[test]
fn what_was_not_stored_for_want_of_room_is_missed() {
    on_a_small_disk("is_missed");
}

#[test]
#[ignore = "is run by another test, on a small disk"]
fn is_missed() {
    let disk = Disk::here();
    let store = disk.open(Durability::Interval, T0);
    let orders = stream("orders");
    fill_up(&store, T0);
    let before = store.position(&orders);
    store.skip(&orders);
    let after = store.position(&orders);
    assert_full(store.append(&[message(&orders, &"x".repeat(400_000))], T0));
    assert_eq!(resolve(&store, &orders, before), Err(Reason::Expired));
    assert_eq!(resolve(&store, &orders, after), Ok(()));
    // Nobody closes it; of the skip it may say no more than that there was one.
    std::mem::forget(store);
    disk.make_room();
    let image = disk.0.join("image");
    if Command::new("cp").arg("-r").arg(disk.store()).arg(&image).status().expect("cp runs").success() {
        let location = Location { directory: image, durability: Durability::Interval };
        let store = SqliteStore::open(&location, &caps(), T0).expect("it opens");
        assert_ne!(resolve(&store, &orders, before), Ok(()));
        // A few kilobytes may have been left to save it in.
        let expected = if store.position(&orders) == after { Ok(()) } else { Err(Reason::StreamReset) };
        assert_eq!(resolve(&store, &orders, after), expected);
    }
}

#[test]
fn a_store_opens_on_a_full_disk() {
    on_a_small_disk("opens");
}

#[test]
#[ignore = "is run by another test, on a small disk"]
fn opens() {
    let disk = Disk::here();
    let store = disk.open(Durability::Interval, T0);
    let kept = fill_up(&store, T0);
    store.close().expect("closed");
    drop(store);
    let mut hog = vec![0; BALLAST_BYTES];
    while fs::write(disk.0.join("hog"), &hog).is_err() && hog.len() > 1 {
        hog.truncate(hog.len() / 2);
    }
    let location = Location { directory: disk.store(), durability: Durability::Interval };
    // Where SQLite finds no room even for its index of the write-ahead log it is told, and nothing is lost.
    match SqliteStore::open(&location, &caps(), T0) {
        Ok(store) => assert_eq!(head(&store, &stream("orders")), kept),
        Err(error) => assert_eq!(error, StoreError::Full),
    }
    fs::remove_file(disk.0.join("hog")).expect("removed");
    disk.make_room();
    let store = disk.open(Durability::Interval, T0);
    assert_eq!(head(&store, &stream("orders")), kept);
    assert_eq!(append(&store, &stream("orders"), "x", T0).position.serial, kept + 1);
}

fn remove(path: &Path) {
    fs::remove_dir_all(path).ok();
}
