//! The end by a power cut: what was synced is there, and what was not is missed by those who saw it only.
//!
//! A library that is loaded before libc stands for the disk: `power_cut.c`.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;
use tidewire::replay::store::Store;
use tidewire_protocol::position::Position;
use tidewire_protocol::replay::Reason;

use super::crash::{Acknowledged, Appender, assert_sound, channel};
use super::support::{EVERYTHING, T0, append, directory, image, open};

/// What is acknowledged is safe after 100 ms; a machine that is busy may need more.
const SAFE_AFTER_MS: u64 = 1_000;

pub fn library() -> &'static Path {
    static LIBRARY: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = LIBRARY.get_or_init(|| {
        let directory = directory();
        let path = directory.path().join("power_cut.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/replay_store/power_cut.c");
        let status =
            Command::new("cc").args(["-shared", "-fPIC", "-O1", "-w", "-o"]).arg(&path).arg(source).status();
        assert!(status.expect("the C compiler that builds SQLite").success());
        (directory, path)
    });
    path
}

/// A process that appends on such a disk.
struct Machine {
    appender: Appender,
    /// `store` is what the process sees, `mirror` what is safe.
    root: TempDir,
}

impl Machine {
    fn start(durability: &str) -> Self {
        let root = directory();
        let (store, mirror) = (root.path().join("store"), root.path().join("mirror"));
        fs::create_dir(&store).expect("made");
        fs::create_dir(&mirror).expect("made");
        let appender = Appender::start(&store, durability, |command| {
            command.env("LD_PRELOAD", library()).env("TIDEWIRE_TEST_MIRROR", &mirror);
        });
        Self { appender, root }
    }

    fn ask_for(&self, error: &str) {
        fs::write(self.root.path().join(format!("mirror.{error}")), "").expect("written");
    }

    /// What is left, and all that was acknowledged until then.
    fn cut(self) -> (TempDir, Vec<Acknowledged>) {
        let acknowledged = self.appender.kill();
        (image(&self.root.path().join("mirror")), acknowledged)
    }
}

#[test]
fn always_means_that_a_power_cut_loses_nothing() {
    for round in 1..=3 {
        let mut machine = Machine::start("always");
        for _ in 0..40 * round {
            machine.appender.next().expect("it appends");
        }
        let (left, acknowledged) = machine.cut();
        let store = open(left.path(), T0);
        let heads = assert_sound(&store);
        for Acknowledged { channel, serial, .. } in acknowledged {
            assert!(heads[channel as usize] >= serial, "{serial} of {channel} is lost");
        }
    }
}

#[test]
fn interval_means_that_a_power_cut_loses_the_last_moment() {
    let mut was_lost = false;
    // A process that got no time just before the cut has lost nothing.
    for round in 1.. {
        if round > 3 && was_lost {
            break;
        }
        assert!(round <= 12, "the disk that loses things lost nothing");
        let mut machine = Machine::start("interval");
        let first = machine.appender.next().expect("it appends");
        let mut last = first;
        while last.at_ms < first.at_ms + 2 * SAFE_AFTER_MS {
            last = machine.appender.next().expect("it appends");
        }
        let (left, acknowledged) = machine.cut();
        let end_ms = acknowledged.last().map_or(last.at_ms, |last| last.at_ms);
        let store = open(left.path(), T0);
        assert_eq!(store.stats().slices_set_aside, 0, "what was synced is not damaged");
        let heads = assert_sound(&store);
        assert!(heads.iter().any(|head| *head > 0), "something is older than that");
        for Acknowledged { channel, serial, at_ms } in acknowledged {
            let is_lost = heads[channel as usize] < serial;
            was_lost |= is_lost;
            assert!(
                !is_lost || at_ms + SAFE_AFTER_MS > end_ms,
                "{serial} of {channel} was acknowledged long ago"
            );
        }
        assert_only_witnesses_start_anew(&store, &heads);
    }
}

fn assert_only_witnesses_start_anew(store: &dyn Store, heads: &[u64]) {
    // A channel of which nothing is left has nobody who could go on.
    for (number, head) in (0..).zip(heads.iter().copied()).filter(|(_, head)| *head > 0) {
        let channel = channel(number);
        let before = store.position(&channel);
        let next = append(store, &channel, &(head + 1).to_string(), T0);
        assert!(next.begins_generation);
        let bounds = store.bounds(&channel, &EVERYTHING, T0).expect("bounds");
        assert_eq!(bounds.resolve(Position { serial: head, ..before }, 9), Ok(()));
        assert_eq!(bounds.resolve(Position { serial: head - 1, ..before }, 9), Ok(()));
        for witness in [head + 1, head + 2, head + 100] {
            assert_eq!(bounds.resolve(Position { serial: witness, ..before }, 9), Err(Reason::RolledBack));
        }
    }
}

#[test]
fn without_a_promise_a_power_cut_leaves_a_sound_store() {
    let mut machine = Machine::start("none");
    // More than one checkpoint.
    for _ in 0..3_000 {
        machine.appender.next().expect("it appends");
    }
    let (left, _) = machine.cut();
    assert_sound(&open(left.path(), T0));
}

#[test]
fn a_sync_that_fails_ends_the_store() {
    for durability in ["always", "interval"] {
        let mut machine = Machine::start(durability);
        machine.appender.next().expect("it appends");
        machine.ask_for("eio");
        // It prints an error and ends by itself.
        let acknowledged: Vec<Acknowledged> = std::iter::from_fn(|| machine.appender.next()).collect();
        let store = machine.root.path().join("store");
        let store = open(&store, T0);
        let heads = assert_sound(&store);
        for Acknowledged { channel, serial, .. } in acknowledged {
            assert!(heads[channel as usize] >= serial);
        }
    }
}
