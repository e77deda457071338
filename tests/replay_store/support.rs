//! Stores to try out, and short ways to ask them.

use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidewire::replay::memory::MemoryStore;
use tidewire::replay::redis::RedisStore;
use tidewire::replay::sqlite::SqliteStore;
use tidewire::replay::store::{
    Append, Appended, Caps, Content, Direction, Durability, Entry, Hints, Location, Message, Range,
    Retention, Stamp, Store, StoreError, StreamName,
};
use tidewire_protocol::position::Position;

use crate::fixture::RedisServer;
use crate::link::Link;

pub const SECOND: u64 = 1_000;
pub const MINUTE: u64 = 60 * SECOND;
pub const HOUR: u64 = 60 * MINUTE;
/// When the tests begin: 2026-01-01.
pub const T0: u64 = 1_767_225_600_000;
pub const MIB: u64 = 1024 * 1024;

/// How long a test waits for another thread.
const PATIENCE: Duration = Duration::from_secs(20);

pub const EVERYTHING: Retention = Retention {
    window_ms: 100 * 24 * HOUR,
    max_messages: u64::MAX,
    max_bytes: u64::MAX,
    inactivity_ttl_ms: 0,
};

pub fn caps() -> Caps {
    Caps { longest_window_ms: 24 * HOUR, max_bytes: 1024 * MIB, app_max_bytes: Vec::new() }
}

pub fn location(directory: &Path) -> Location {
    Location { directory: directory.to_owned(), durability: Durability::Interval }
}

pub fn open(directory: &Path, now_ms: u64) -> SqliteStore {
    SqliteStore::open(&location(directory), &caps(), now_ms).expect("the store opens")
}

pub fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// Defines each test for every engine.
macro_rules! on_every_engine {
    ($($test:ident),+ $(,)?) => {
        mod memory {
            $(#[test]
            fn $test() {
                super::$test(&crate::support::memory());
            })+
        }
        mod sqlite {
            $(#[test]
            fn $test() {
                let directory = crate::support::directory();
                super::$test(&crate::support::open(directory.path(), crate::support::T0));
            })+
        }
        mod redis {
            $(#[test]
            fn $test() {
                super::$test(&crate::support::redis(&crate::support::caps()));
            })+
        }
    };
}
pub(crate) use on_every_engine;

/// A log of its own in the Redis that all tests share.
pub fn redis(caps: &Caps) -> RedisStore {
    static SERVER: LazyLock<(RedisServer, Link)> = LazyLock::new(|| {
        let server = RedisServer::start();
        let link = Link::start(&server.config());
        (server, link)
    });
    let prefix = format!("test-{:x}", rand::random::<u64>());
    RedisStore::open_on_own_clock(SERVER.1.transport.clone(), &prefix, caps, T0).expect("the store opens")
}

pub fn memory() -> MemoryStore {
    MemoryStore::new(&caps())
}

pub fn stream(channel: &str) -> StreamName {
    stream_of("42", channel)
}

pub fn stream_of(app: &str, channel: &str) -> StreamName {
    StreamName { app: app.into(), channel: channel.into() }
}

pub fn content(data: &str) -> Content {
    Content {
        id: None,
        event: "paid".into(),
        data: format!("\"{data}\"").into(),
        user_id: None,
        except: None,
    }
}

pub fn message(stream: &StreamName, data: &str) -> Append {
    Append { stream: stream.clone(), content: content(data), inactivity_ttl_ms: 0, hints: Hints::default() }
}

pub fn keyed(stream: &StreamName, id: &str, data: &str) -> Append {
    Append {
        stream: stream.clone(),
        content: Content { id: Some(id.into()), ..content(data) },
        inactivity_ttl_ms: 0,
        hints: Hints::default(),
    }
}

/// Appends one message.
pub fn append(store: &dyn Store, stream: &StreamName, data: &str, now_ms: u64) -> Stamp {
    stamp(append_one(store, &message(stream, data), now_ms))
}

pub fn append_one(store: &dyn Store, message: &Append, now_ms: u64) -> Appended {
    store.append(std::slice::from_ref(message), now_ms).expect("it is stored")[0]
}

pub fn stamp(appended: Appended) -> Stamp {
    match appended {
        Appended::Stored(stamp) => stamp,
        other => panic!("not stored: {other:?}"),
    }
}

/// Appends `count` messages whose data is their serial.
pub fn fill(store: &dyn Store, stream: &StreamName, count: u64, now_ms: u64) {
    for _ in 0..count {
        let serial = store.position(stream).serial + 1;
        assert_eq!(append(store, stream, &serial.to_string(), now_ms).position.serial, serial);
    }
}

pub const ALL: Range = Range {
    after: 0,
    before: u64::MAX,
    direction: Direction::Forward,
    max_messages: usize::MAX,
    max_bytes: u64::MAX,
};

pub fn read(store: &dyn Store, stream: &StreamName, range: Range) -> Vec<Entry> {
    store.read(stream, range).expect("it is read")
}

pub fn serials(store: &dyn Store, stream: &StreamName, range: Range) -> Vec<u64> {
    read(store, stream, range).iter().map(Entry::serial).collect()
}

/// The messages that are there, when all are readable.
pub fn messages(store: &dyn Store, stream: &StreamName) -> Vec<Message> {
    let entries = read(store, stream, ALL).into_iter();
    entries
        .map(|entry| match entry {
            Entry::Message(message) => message,
            Entry::Unreadable { serial } => panic!("{serial} is unreadable"),
        })
        .collect()
}

pub fn floor(store: &dyn Store, stream: &StreamName, retention: &Retention, now_ms: u64) -> u64 {
    store.bounds(stream, retention, now_ms).expect("bounds").floor
}

pub fn head(store: &dyn Store, stream: &StreamName) -> u64 {
    store.position(stream).serial
}

pub fn resolve(
    store: &dyn Store,
    stream: &StreamName,
    cursor: Position,
) -> Result<(), tidewire_protocol::replay::Reason> {
    store.bounds(stream, &EVERYTHING, T0).expect("bounds").resolve(cursor, u64::MAX)
}

/// Names of the files in the directory that begin and end so.
pub fn files(directory: &Path, prefix: &str, suffix: &str) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("the directory lists");
    let names = entries.map(|entry| entry.expect("it lists").file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> =
        names.filter(|name| name.starts_with(prefix) && name.ends_with(suffix)).collect();
    names.sort();
    names
}

pub fn slices(directory: &Path) -> Vec<String> {
    files(directory, "slice-", ".db")
}

/// A copy of the directory as `kill -9` would leave it. By another process: one of this that opened and closed a
/// database would drop SQLite's locks on it.
pub fn image(directory: &Path) -> TempDir {
    // A file that goes while it is copied, such as a journal, makes it another moment's copy: it is made anew.
    for _ in 0..50 {
        let copy = self::directory();
        let copied = std::process::Command::new("cp")
            .arg("-r")
            .arg(format!("{}/.", directory.display()))
            .arg(copy.path())
            .output()
            .expect("cp runs");
        if copied.status.success() {
            return copy;
        }
    }
    panic!("files go all the time");
}

pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn assert_full<T: std::fmt::Debug>(outcome: Result<T, StoreError>) {
    assert_eq!(outcome.expect_err("no room is left"), StoreError::Full);
}

/// Runs SQL on a file by SQLite's shell, so that this process never has it open twice.
pub fn sql(file: &Path, sql: &str) -> String {
    let connection = rusqlite::Connection::open(file).expect("it opens");
    let mut statement = connection.prepare(sql).expect("it is valid");
    let mut rows = statement.query([]).expect("it runs");
    let mut answer = String::new();
    while let Some(row) = rows.next().expect("a row") {
        let value: rusqlite::types::Value = row.get(0).expect("a column");
        answer.push_str(&format!("{value:?};"));
    }
    answer
}
