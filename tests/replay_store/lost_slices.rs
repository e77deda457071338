//! Slices that are gone, or cannot be read: whoever needs what was in them is told, and nobody gets a serial twice.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tidewire::replay::sqlite::SqliteStore;
use tidewire::replay::store::{Store, StreamName};
use tidewire_protocol::position::Position;
use tidewire_protocol::replay::Reason;

use super::support::{
    ALL, MINUTE, T0, append, directory, fill, head, image, open, resolve, serials, slices, stream,
};

const SLICE_MS: u64 = 100 * MINUTE;
const NOW_MS: u64 = T0 + 3 * SLICE_MS;

fn slice(directory: &Path, index: usize) -> PathBuf {
    directory.join(&slices(directory)[index])
}

/// A store with two slices, and where clients were after the first: `old` has messages in both, `new` in the second
/// only, `never` in none.
struct Sample {
    directory: TempDir,
    away: Vec<(StreamName, Position)>,
    /// Those that had seen all.
    witnesses: Vec<(StreamName, Position)>,
}

fn positions(store: &SqliteStore) -> Vec<(StreamName, Position)> {
    ["old", "new", "never"].map(stream).map(|name| (name.clone(), store.position(&name))).to_vec()
}

fn sample(is_clean: bool) -> Sample {
    let directory = directory();
    let store = open(directory.path(), T0);
    fill(&store, &stream("old"), 10, T0);
    store.maintain(T0 + SLICE_MS).expect("maintained");
    let away = positions(&store);
    fill(&store, &stream("old"), 5, T0 + SLICE_MS);
    fill(&store, &stream("new"), 5, T0 + SLICE_MS);
    let witnesses = positions(&store);
    if is_clean {
        store.close().expect("closed");
    }
    drop(store);
    assert_eq!(slices(directory.path()).len(), 2);
    Sample { directory, away, witnesses }
}

impl Sample {
    /// Nobody from before is told that nothing was missed, now or later; and what comes is told to newcomers.
    fn assert_missed(&self) {
        let store = open(self.directory.path(), NOW_MS);
        self.assert_nobody_is_served(&store);
        let newcomers = positions(&store);
        // The end of the process right now forgets nothing of it.
        let killed = image(self.directory.path());
        for store in [store, open(killed.path(), NOW_MS)] {
            self.assert_nobody_is_served(&store);
            for (name, position) in &newcomers {
                assert_eq!(resolve(&store, name, *position), Ok(()), "{}", name.channel);
                let next = append(&store, name, "later", NOW_MS);
                assert!(next.begins_generation);
                assert_eq!(next.position.serial, position.serial + 1);
                assert_eq!(resolve(&store, name, *position), Ok(()), "{}", name.channel);
            }
            self.assert_nobody_is_served(&store);
            store.close().expect("closed");
        }
        // It is missed once only.
        let store = open(self.directory.path(), NOW_MS);
        for (name, position) in &newcomers {
            assert_eq!(resolve(&store, name, *position), Ok(()), "{}", name.channel);
            assert_eq!(head(&store, name), position.serial + 1);
        }
        self.assert_nobody_is_served(&store);
    }

    fn assert_nobody_is_served(&self, store: &SqliteStore) {
        for (name, position) in self.away.iter().chain(&self.witnesses) {
            for serial in position.serial.saturating_sub(5)..=position.serial {
                let outcome = resolve(store, name, Position { serial, ..*position });
                assert!(outcome.is_err(), "{} at {serial} of {position}", name.channel);
            }
        }
        let (old, away) = &self.away[0];
        assert_eq!(resolve(store, old, *away), Err(Reason::Expired));
    }
}

#[test]
fn a_damaged_newest_slice_is_missed_by_those_who_were_away() {
    for is_clean in [true, false] {
        let sample = sample(is_clean);
        fs::remove_file(slice(sample.directory.path(), 1).with_extension("db-wal")).ok();
        fs::write(slice(sample.directory.path(), 1), [0xFF; 4096]).expect("written");
        sample.assert_missed();
    }
}

#[test]
fn a_newest_slice_that_is_not_there_is_missed() {
    let sample = sample(true);
    fs::remove_file(slice(sample.directory.path(), 1)).expect("removed");
    sample.assert_missed();
}

#[test]
fn an_older_slice_that_is_not_there_is_missed_by_quiet_streams() {
    let sample = sample(true);
    let store = open(sample.directory.path(), NOW_MS);
    let busy = stream("busy");
    store.maintain(NOW_MS).expect("maintained");
    fill(&store, &busy, 5, NOW_MS);
    let at_busy = store.position(&busy);
    store.close().expect("closed");
    drop(store);
    fs::remove_file(slice(sample.directory.path(), 1)).expect("removed");
    let store = open(sample.directory.path(), NOW_MS);
    // This one cannot be concerned.
    assert_eq!(resolve(&store, &busy, at_busy), Ok(()));
    assert_eq!(serials(&store, &busy, ALL), [1, 2, 3, 4, 5]);
    drop(store);
    sample.assert_missed();
}

#[test]
fn streams_of_newer_slices_are_not_concerned() {
    let directory = directory();
    let store = open(directory.path(), T0);
    fill(&store, &stream("early"), 5, T0);
    store.maintain(T0 + SLICE_MS).expect("maintained");
    fill(&store, &stream("late"), 5, T0 + SLICE_MS);
    let late = store.position(&stream("late"));
    let early = store.position(&stream("early"));
    store.close().expect("closed");
    drop(store);
    fs::write(slice(directory.path(), 0), [0xFF; 4096]).expect("written");
    let store = open(directory.path(), NOW_MS);
    for serial in 0..=5 {
        assert_eq!(resolve(&store, &stream("late"), Position { serial, ..late }), Ok(()));
        assert_ne!(resolve(&store, &stream("early"), Position { serial, ..early }), Ok(()));
    }
    assert_eq!(append(&store, &stream("late"), "6", NOW_MS).position.serial, 6);
}

/// A disk that reports errors: a library that is loaded before libc stands for it, `power_cut.c`.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod on_a_bad_disk {
    use std::process::{Command, Stdio, abort};
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::crash::channel;
    use crate::power_cut::library;
    use crate::support::{EVERYTHING, floor};

    struct Disk(TempDir);

    impl Disk {
        fn new() -> Self {
            let disk = Self(directory());
            fs::create_dir(disk.store()).expect("made");
            fs::create_dir(disk.mirror()).expect("made");
            disk
        }

        /// In the process that runs on it.
        fn store_here() -> PathBuf {
            PathBuf::from(std::env::var_os("TIDEWIRE_TEST_DIRECTORY").expect("set by the parent"))
        }

        fn spoil(file: &Path) {
            let mirror = std::env::var("TIDEWIRE_TEST_MIRROR").expect("set by the parent");
            let name = file.file_name().expect("a file").to_string_lossy();
            fs::write(format!("{mirror}.bad-{name}"), "").expect("written");
        }

        fn store(&self) -> PathBuf {
            self.0.path().join("store")
        }

        fn mirror(&self) -> PathBuf {
            self.0.path().join("mirror")
        }

        /// Whether the test ended well, in a process that has its store here.
        fn run(&self, test: &str) -> bool {
            let test = format!("lost_slices::on_a_bad_disk::{test}");
            let output = Command::new(std::env::current_exe().expect("this program"))
                .args(["--exact", &test, "--ignored", "--nocapture"])
                .env("TIDEWIRE_TEST_DIRECTORY", self.store())
                .env("TIDEWIRE_TEST_MIRROR", self.mirror())
                .env("LD_PRELOAD", library())
                .stdin(Stdio::null())
                .output()
                .expect("it runs");
            print!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed")
        }
    }

    fn three_slices(directory: &Path) -> SqliteStore {
        let store = open(directory, T0);
        for number in 0..3 {
            store.maintain(T0 + number * SLICE_MS).expect("maintained");
            fill(&store, &stream("all"), 10, T0 + number * SLICE_MS);
            fill(&store, &channel(number), 5, T0 + number * SLICE_MS);
        }
        store
    }

    #[test]
    fn a_slice_that_cannot_be_read_is_set_aside() {
        assert!(Disk::new().run("opens_without_it"));
        assert!(Disk::new().run("opens_without_the_newest"));
        assert!(Disk::new().run("goes_on_without_it"));
        assert!(Disk::new().run("drops_it"));
    }

    #[test]
    #[ignore = "is run by another test, on a bad disk"]
    fn opens_without_it() {
        let directory = Disk::store_here();
        three_slices(&directory).close().expect("closed");
        let bad = slice(&directory, 1);
        Disk::spoil(&bad);
        let store = open(&directory, NOW_MS);
        assert_eq!(store.stats().slices_set_aside, 1);
        assert_eq!(serials(&store, &stream("all"), ALL), (21..=30).collect::<Vec<_>>());
        assert_eq!(append(&store, &stream("all"), "31", NOW_MS).position.serial, 31);
        assert!(!bad.exists());
    }

    #[test]
    #[ignore = "is run by another test, on a bad disk"]
    fn opens_without_the_newest() {
        let directory = Disk::store_here();
        let store = three_slices(&directory);
        let before = store.position(&stream("all"));
        store.close().expect("closed");
        drop(store);
        Disk::spoil(&slice(&directory, 2));
        let store = open(&directory, NOW_MS);
        assert_eq!(store.stats().slices_set_aside, 1);
        let away = Position { serial: 20, ..before };
        assert_eq!(resolve(&store, &stream("all"), away), Err(Reason::Expired));
        append(&store, &stream("all"), "?", NOW_MS);
    }

    #[test]
    #[ignore = "is run by another test, on a bad disk"]
    fn goes_on_without_it() {
        let directory = Disk::store_here();
        three_slices(&directory).close().expect("closed");
        let store = open(&directory, NOW_MS);
        Disk::spoil(&slice(&directory, 1));
        let all = stream("all");
        assert_eq!(serials(&store, &all, ALL), (21..=30).collect::<Vec<_>>());
        assert_eq!(store.stats().slices_set_aside, 1);
        assert_eq!(floor(&store, &all, &EVERYTHING, NOW_MS), 21);
        assert_eq!(serials(&store, &channel(0), ALL), [1, 2, 3, 4, 5]);
        assert_eq!(serials(&store, &channel(1), ALL), [0; 0]);
        assert_eq!(head(&store, &channel(1)), 5);
        assert_eq!(append(&store, &all, "31", NOW_MS).position.serial, 31);
    }

    #[test]
    #[ignore = "is run by another test, on a bad disk"]
    fn drops_it() {
        let directory = Disk::store_here();
        three_slices(&directory).close().expect("closed");
        let later_ms = NOW_MS + 1_000 * MINUTE;
        let store = open(&directory, later_ms);
        let oldest = slice(&directory, 0);
        Disk::spoil(&oldest);
        let due_ms = T0 + 24 * 60 * MINUTE + SLICE_MS / 2;
        store.maintain(due_ms).expect("maintained");
        assert_eq!(store.stats().slices_set_aside, 1);
        assert!(!oldest.exists());
        assert_eq!(head(&store, &channel(0)), 5);
    }

    /// `skip` and `purge` hold when they are told, whatever is not yet synced otherwise.
    #[test]
    fn a_power_cut_undoes_no_skip_and_no_purge() {
        for (test, serial) in [("skips_and_dies", 3), ("purges_and_dies", 1)] {
            let disk = Disk::new();
            assert!(!disk.run(test), "it dies");
            let store = open(&disk.mirror(), T0);
            let now = store.position(&stream("all"));
            let epoch = tidewire_protocol::position::Epoch { generation: 1, ..now.epoch };
            assert!(now.serial >= 3, "{test}");
            let away = Position { epoch, serial };
            assert_eq!(resolve(&store, &stream("all"), away), Err(Reason::Expired), "{test}");
        }
    }

    fn three_safe_messages() -> SqliteStore {
        let store = open(&Disk::store_here(), T0);
        fill(&store, &stream("all"), 3, T0);
        thread::sleep(Duration::from_millis(500));
        store
    }

    #[test]
    #[ignore = "is run by another test, on a bad disk"]
    fn skips_and_dies() {
        let store = three_safe_messages();
        store.skip(&stream("all"));
        store.maintain(T0).expect("maintained");
        abort();
    }

    #[test]
    #[ignore = "is run by another test, on a bad disk"]
    fn purges_and_dies() {
        let store = three_safe_messages();
        store.purge(&stream("all"), 4, T0).expect("purged");
        abort();
    }
}
