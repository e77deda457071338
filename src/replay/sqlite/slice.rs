//! One time slice of the log: a database file of its own, deleted as a whole.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::directory;
use super::meta::FORMAT;
use super::trouble::{Outcome, Trouble};
use crate::replay::store::Durability;
use crate::sync::lock;

// An index beside a table in the order of arrival: with the index as the table's key each message would be written
// to a page of its own, at seven times the cost.
const SCHEMA: &str = "
-- A channel's log as it was before its first message of this slice. A slice has a row of every stream that it has
-- messages of; the row in the newest slice holds.
CREATE TABLE streams (
    id INTEGER PRIMARY KEY,
    app TEXT NOT NULL,
    channel TEXT NOT NULL,
    -- Start of the slice that has the stream's row before this one; 0: none.
    previous INTEGER NOT NULL,
    -- Serial before the stream's first message ever.
    base INTEGER NOT NULL,
    head INTEGER NOT NULL,
    total_bytes INTEGER NOT NULL,
    time_ms INTEGER NOT NULL,
    -- As it is now: nothing before this serial is replayed; the total before it, and the time of the newest message
    -- when that was decided.
    floor INTEGER NOT NULL,
    floor_bytes INTEGER NOT NULL,
    floor_ms INTEGER NOT NULL,
    -- As they are now: [[number, first serial], ...]
    generations TEXT NOT NULL,
    -- CRC-32 of all columns but id and previous.
    checksum INTEGER NOT NULL
) STRICT;
CREATE TABLE messages (
    id INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL,
    serial INTEGER NOT NULL,
    time_ms INTEGER NOT NULL,
    -- Sizes of the stream's messages up to and with this one.
    total_bytes INTEGER NOT NULL,
    -- CRC-32 of app, channel and all other columns.
    checksum INTEGER NOT NULL,
    -- The publisher's idempotency key.
    key TEXT,
    event TEXT NOT NULL,
    user_id TEXT,
    except_socket INTEGER,
    -- A JSON string with its quotes.
    data TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX messages_by_serial ON messages (stream, serial);
CREATE INDEX messages_with_key ON messages (time_ms) WHERE key IS NOT NULL;
";

/// What a connection waits for another one, such as an operator's shell.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The same while appends wait for what it does.
const SHORT_BUSY_TIMEOUT: Duration = Duration::from_millis(100);
/// Pages of the index that are written again and again.
const WRITER_CACHE_KIB: i64 = 16 * 1024;
const READER_CACHE_KIB: i64 = 512;

const LIVE: u8 = 0;
/// Its files are deleted when nobody uses them any more.
const DROPPED: u8 = 1;
const SET_ASIDE: u8 = 2;

/// A slice that is part of the log, or was when somebody began to read it.
#[derive(Debug)]
pub struct Slice {
    /// Grows from slice to slice; only in memory.
    pub number: u32,
    pub start_ms: u64,
    path: PathBuf,
    standing: AtomicU8,
    /// When its newest message came; its start when it has none.
    newest_ms: AtomicU64,
    /// On disk, when it was last looked at.
    bytes: AtomicU64,
    /// Sizes of the messages of each app.
    apps: Mutex<HashMap<Box<str>, u64>>,
}

/// A connection to a slice.
#[derive(Debug)]
pub struct Link {
    // Closed before the slice may go.
    pub connection: Connection,
    pub slice: Arc<Slice>,
}

impl Slice {
    pub fn new(directory: &Path, number: u32, start_ms: u64) -> Self {
        Self {
            number,
            start_ms,
            path: directory::slice_path(directory, start_ms),
            standing: AtomicU8::new(LIVE),
            newest_ms: AtomicU64::new(start_ms),
            bytes: AtomicU64::new(0),
            apps: Mutex::default(),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn is_live(&self) -> bool {
        self.standing.load(Ordering::Acquire) == LIVE
    }

    /// To be called when nobody finds the slice any more.
    pub fn drop_files(&self) {
        self.standing.store(DROPPED, Ordering::Release);
    }

    /// Leaves the files as they are from now on.
    pub fn leave(&self) {
        self.standing.store(SET_ASIDE, Ordering::Release);
    }

    /// Renames the files. To be called when nobody finds the slice any more.
    pub fn set_aside(&self, now_ms: u64) -> std::io::Result<PathBuf> {
        self.leave();
        directory::set_aside(&self.path, now_ms)
    }

    pub fn newest_ms(&self) -> u64 {
        self.newest_ms.load(Ordering::Relaxed)
    }

    pub fn note_newest(&self, time_ms: u64) {
        self.newest_ms.fetch_max(time_ms, Ordering::Relaxed);
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Looks how large the files are.
    pub fn measure(&self) -> u64 {
        let bytes = directory::size(&self.path);
        self.bytes.store(bytes, Ordering::Relaxed);
        bytes
    }

    pub fn app_bytes(&self, app: &str) -> u64 {
        lock(&self.apps).get(app).copied().unwrap_or(0)
    }

    pub fn add_app_bytes(&self, app: &str, bytes: u64) {
        let mut apps = lock(&self.apps);
        match apps.get_mut(app) {
            Some(sum) => *sum += bytes,
            None => drop(apps.insert(Box::from(app), bytes)),
        }
    }

    /// Makes the file. What is left of it when that fails is deleted.
    pub fn create(self: &Arc<Self>, directory: &Path, durability: Durability) -> Outcome<Link> {
        let created = self.link_to_write(durability, true).and_then(|link| {
            link.initialise()?;
            directory::sync(directory)?;
            Ok(link)
        });
        if created.is_err() {
            directory::remove(&self.path);
        }
        created
    }

    /// The connection that appends.
    pub fn link_to_write(self: &Arc<Self>, durability: Durability, creates: bool) -> Outcome<Link> {
        // secure_delete: pages that are split would keep copies of messages, which no purge could find.
        // NORMAL: what one commit wrote need not be safe before the next; a checkpoint syncs before it overwrites.
        let synchronous = if durability == Durability::Always { "FULL" } else { "NORMAL" };
        let link = self.link(creates)?;
        link.connection.execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous}; PRAGMA wal_autocheckpoint = 0;
             PRAGMA secure_delete = ON; PRAGMA cache_size = -{WRITER_CACHE_KIB};"
        ))?;
        Ok(link)
    }

    pub fn link_to_read(self: &Arc<Self>) -> Outcome<Link> {
        let link = self.link(false)?;
        link.connection
            .execute_batch(&format!("PRAGMA query_only = ON; PRAGMA cache_size = -{READER_CACHE_KIB};"))?;
        Ok(link)
    }

    /// The connection that checkpoints, and erases what was purged.
    pub fn link_to_keep(self: &Arc<Self>) -> Outcome<Link> {
        let link = self.link(false)?;
        link.connection.busy_timeout(SHORT_BUSY_TIMEOUT)?;
        link.connection.execute_batch(
            "PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0; PRAGMA secure_delete = ON;",
        )?;
        Ok(link)
    }

    fn link(self: &Arc<Self>, creates: bool) -> Outcome<Link> {
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        flags.set(OpenFlags::SQLITE_OPEN_CREATE, creates);
        if !creates && !self.path.exists() {
            return Err(Trouble::Damaged("the file is not there".to_owned()));
        }
        let connection = Connection::open_with_flags(&self.path, flags)?;
        // Or each statement with a range would be compiled anew each time, for a plan that fits its numbers better.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        Ok(Link { connection, slice: Arc::clone(self) })
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        if *self.standing.get_mut() == DROPPED {
            directory::remove(&self.path);
        }
    }
}

impl Link {
    /// Makes the tables.
    pub fn initialise(&self) -> Outcome<()> {
        let sql = format!("BEGIN; {SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT;");
        Ok(self.connection.execute_batch(&sql)?)
    }

    /// Whether the tables are those that this version knows; `false` when there are none.
    pub fn is_initialised(&self) -> Outcome<bool> {
        let format: i64 = self.connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let tables: i64 =
            self.connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        match (format, tables) {
            (0, 0) => Ok(false),
            (FORMAT, 4) => Ok(true),
            _ => Err(Trouble::Damaged(format!("format {format} with {tables} tables and indexes"))),
        }
    }

    /// Looks through all pages, in a time that is proportional to their number.
    pub fn quick_check(&self) -> Outcome<()> {
        let answer: String = self.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if answer == "ok" { Ok(()) } else { Err(Trouble::Damaged(answer)) }
    }

    /// Moves the write-ahead log into the database. `mode` is PASSIVE, RESTART or TRUNCATE. Returns how many pages
    /// the log has, checkpointed ones included.
    pub fn checkpoint(&self, mode: &str) -> Outcome<u64> {
        let sql = format!("PRAGMA wal_checkpoint({mode})");
        let pages: i64 = self.connection.query_row(&sql, [], |row| row.get(1))?;
        Ok(pages.max(0).cast_unsigned())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if !self.slice.is_live() {
            // The last connection would checkpoint what is to be deleted, or left as it is.
            drop(self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true));
        }
    }
}
