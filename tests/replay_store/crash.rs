//! The end by `kill -9`: what was acknowledged is there.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use tidewire::replay::sqlite::SqliteStore;
use tidewire::replay::store::{Durability, Location, Store};
use tidewire_protocol::position::Position;

use super::support::{
    ALL, EVERYTHING, T0, append, caps, directory, floor, head, message, messages, open, stamp, stream,
};

const CHANNELS: u64 = 4;
const BATCH: u64 = 8;

/// A process that appends until it is killed, and tells what is acknowledged.
pub struct Appender {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

/// The store acknowledged all serials of a channel up to this one, so many milliseconds after 1970.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledged {
    pub channel: u64,
    pub serial: u64,
    pub at_ms: u64,
}

impl Appender {
    pub fn start(directory: &Path, durability: &str, set_up: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command
            .args(["--exact", "crash::appends_until_it_is_killed", "--ignored", "--nocapture"])
            .env("TIDEWIRE_TEST_DIRECTORY", directory)
            .env("TIDEWIRE_TEST_DURABILITY", durability)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        set_up(&mut command);
        let mut child = command.spawn().expect("it starts");
        let stdout = child.stdout.take().expect("it is piped");
        Self { child, lines: BufReader::new(stdout).lines() }
    }

    /// The next that it tells; `None` at its end.
    pub fn next(&mut self) -> Option<Acknowledged> {
        loop {
            let line = self.lines.next()?.expect("a line");
            // The first may follow on what the test harness writes.
            let Some((_, line)) = line.split_once('@') else { continue };
            let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().expect("a number")).collect();
            let [channel, serial, at_ms] = numbers[..] else { panic!("{line}") };
            return Some(Acknowledged { channel, serial, at_ms });
        }
    }

    /// Reads what it told, after it is dead.
    pub fn kill(mut self) -> Vec<Acknowledged> {
        self.child.kill().expect("killed");
        self.child.wait().expect("it ends");
        std::iter::from_fn(|| self.next()).collect()
    }
}

pub fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

pub fn channel(number: u64) -> tidewire::replay::store::StreamName {
    stream(&format!("channel-{number}"))
}

#[test]
#[ignore = "is run by other tests, as a process of its own"]
fn appends_until_it_is_killed() {
    let directory = PathBuf::from(std::env::var_os("TIDEWIRE_TEST_DIRECTORY").expect("set by the parent"));
    let durability = match std::env::var("TIDEWIRE_TEST_DURABILITY").expect("set by the parent").as_str() {
        "always" => Durability::Always,
        "interval" => Durability::Interval,
        _ => Durability::None,
    };
    let store = SqliteStore::open(&Location { directory, durability }, &caps(), T0).expect("it opens");
    loop {
        let mut batch = Vec::new();
        for number in 0..CHANNELS {
            let head = head(&store, &channel(number));
            batch.extend((1..=BATCH).map(|next| message(&channel(number), &(head + next).to_string())));
        }
        let appended = match store.append(&batch, T0) {
            Ok(appended) => appended,
            Err(error) => {
                println!("{error}");
                return;
            }
        };
        for (number, chunk) in (0..).zip(appended.chunks(BATCH as usize)) {
            let serial = stamp(*chunk.last().expect("a batch")).position.serial;
            println!("@{number} {serial} {}", wall_ms());
        }
    }
}

/// All of a store is as it was written, and up to which serial each channel goes.
pub fn assert_sound(store: &dyn Store) -> Vec<u64> {
    let check = |number| {
        let channel = channel(number);
        let messages = messages(store, &channel);
        let first = floor(store, &channel, &EVERYTHING, T0);
        let head = head(store, &channel);
        let serials: Vec<u64> = messages.iter().map(|message| message.stamp.position.serial).collect();
        assert_eq!(serials, (first..=head).collect::<Vec<_>>());
        for message in messages {
            assert_eq!(*message.content.data, format!("\"{}\"", message.stamp.position.serial));
        }
        head
    };
    (0..CHANNELS).map(check).collect()
}

#[test]
fn kill_9_loses_nothing_that_was_acknowledged() {
    for durability in ["interval", "none", "always"] {
        let directory = directory();
        let mut generation = 0;
        for round in 0..4 {
            let mut appender = Appender::start(directory.path(), durability, |_| {});
            for _ in 0..50 * (round + 1) {
                appender.next().expect("it appends");
            }
            let acknowledged = appender.kill();
            let store = open(directory.path(), T0);
            let heads = assert_sound(&store);
            for Acknowledged { channel, serial, .. } in acknowledged {
                assert!(heads[channel as usize] >= serial, "{durability}: {serial} of {channel} is lost");
            }
            let position = store.position(&stream("unknown"));
            assert!(position.epoch.generation > generation, "nobody closed it");
            generation = position.epoch.generation;
            let at = Position { serial: heads[0], ..store.position(&channel(0)) };
            store
                .bounds(&channel(0), &EVERYTHING, T0)
                .expect("bounds")
                .resolve(at, 0)
                .expect("nothing was lost");
            append(&store, &channel(0), &(heads[0] + 1).to_string(), T0);
            assert_eq!(super::support::serials(&store, &channel(0), ALL).len() as u64, heads[0] + 1);
        }
    }
}
