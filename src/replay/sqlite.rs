//! The engine that keeps the log in SQLite: one database file per slice of time.
//!
//! A message is a row, in the order of arrival, and an entry of an index by stream and serial. Nothing is deleted by
//! row: what a stream may replay is found out when it is read, and a slice whose newest message is older than any
//! window goes as a file. Each slice says of its streams where they stood before, so that it can be understood
//! without the others.
//!
//! ```text
//! append ─► plan ─► writer ─► slice-….db (newest)      chores: checkpoints, erasing
//! read ──► view ─► pool ──► slice-….db (each)          syncer: fdatasync within 100 ms
//! maintain ─► trim                                     boot: what the files say
//! ```

mod boot;
mod chores;
mod directory;
mod index;
mod log;
mod meta;
mod plan;
mod pool;
mod read;
mod record;
mod slice;
mod stream_row;
mod syncer;
mod trim;
mod trouble;
mod write;
mod writer;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, JoinHandle};

use tidewire_protocol::position::Position;
use tidewire_protocol::replay::Bounds;

use self::chores::Chores;
use self::log::{Limits, Log, Tallies};
use self::meta::Closed;
use self::pool::Pool;
use self::slice::Slice;
use self::syncer::Syncer;
use self::trouble::{Outcome, Trouble};
use self::writer::Writer;
use super::keys::{IDEMPOTENCY_WINDOW_MS, Keyed, Keys, Known};
use super::store::{
    Append, Appended, Caps, Durability, Entry, Location, Range, Retention, Stats, Store, StoreError,
    StreamName,
};
use super::streams::{StoreNonce, unknown_bounds};
use crate::sync::lock;

/// A log in a directory of its own.
#[derive(Debug)]
pub struct SqliteStore {
    log: Arc<Log>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl SqliteStore {
    /// Opens the store in a directory, or makes one. No other process may have it open.
    pub fn open(location: &Location, caps: &Caps, now_ms: u64) -> Result<Self, StoreError> {
        let Location { directory, durability } = location;
        let file = directory::lock(directory)?;
        let found = boot::open(directory, *durability, now_ms)?;
        let log = Arc::new(Log {
            directory: directory.clone(),
            durability: *durability,
            nonce: StoreNonce(found.writer.saved.nonce),
            generation: AtomicU32::new(found.writer.saved.generation),
            base: AtomicU64::new(found.writer.saved.base),
            limits: Mutex::new(Arc::new(Limits::from(caps))),
            streams: found.streams,
            slices: found.slices,
            pool: Pool::default(),
            keys: Mutex::new(Keys::default()),
            writer: Mutex::new(found.writer),
            syncer: Syncer::default(),
            chores: Chores::default(),
            tallies: Tallies { set_aside: AtomicU64::new(found.set_aside), ..Tallies::default() },
            failure: OnceLock::new(),
            now_ms: AtomicU64::new(now_ms),
            lock: Mutex::new(Some(file)),
        });
        // They are closed once nothing is left to be moved.
        log.chores.seal(found.older.into_iter().filter(|link| directory::has_wal(link.slice.path())));
        log.take_up(now_ms)?;
        let store = Self { log, threads: Mutex::default() };
        store.start_threads().map_err(|error| {
            StoreError::Unavailable(format!("cannot start the threads of the replay store: {error}"))
        })?;
        Ok(store)
    }

    fn start_threads(&self) -> std::io::Result<()> {
        let log = Arc::clone(&self.log);
        self.spawn("replay-chores", move || chores::run(&log))?;
        if self.log.durability == Durability::Interval {
            let log = Arc::clone(&self.log);
            self.spawn("replay-sync", move || {
                if let Err(error) = log.syncer.run() {
                    log.fail(format!("cannot make messages safe: {error}"));
                }
            })?;
        }
        Ok(())
    }

    fn spawn(&self, name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        lock(&self.threads).push(thread::Builder::new().name(name.to_owned()).spawn(run)?);
        Ok(())
    }

    fn stop_threads(&self) {
        self.log.chores.stop();
        self.log.syncer.stop();
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            if thread.join().is_err() {
                self.log.fail("a thread of the replay store panicked".to_owned());
            }
        }
    }

    /// Whether no checkpoint and no erasing is due. For tests.
    pub fn is_at_rest(&self) -> bool {
        self.log.chores.is_done()
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.stop_threads();
    }
}

impl Log {
    /// What follows from the files when the store was opened.
    fn take_up(&self, now_ms: u64) -> Result<(), StoreError> {
        let newest = lock(&self.writer).current.as_ref().map(|current| Arc::clone(current.slice()));
        if let Some(slice) = &newest {
            let switched = self.syncer.switch(Some(slice.path()));
            switched.map_err(|error| self.refuse(Trouble::Io(error.to_string())))?;
        }
        let since_ms = now_ms.saturating_sub(IDEMPOTENCY_WINDOW_MS);
        for slice in self.slices.all().iter().filter(|slice| slice.newest_ms() > since_ms) {
            match self.find_keys(slice, since_ms, now_ms) {
                Ok(()) => {}
                // Nothing was written to it yet.
                Err(Trouble::Damaged(reason) | Trouble::Unreadable(reason)) => {
                    self.set_aside(&mut lock(&self.writer), slice, &reason);
                }
                Err(trouble) => return Err(self.refuse(trouble)),
            }
        }
        if let Err(trouble) = self.save_unsaved(&mut lock(&self.writer), now_ms) {
            tracing::warn!(target: "tidewire::replay", ?trouble, "the streams of a lost slice are not saved yet");
        }
        for name in self.streams.names(|tracked| {
            tracked.segments.first().is_some_and(|oldest| oldest.first < tracked.state.floor)
        }) {
            self.streams.get(&name).into_iter().for_each(|tracked| self.erase_below_floor(tracked));
        }
        self.tell();
        Ok(())
    }

    /// Notes which messages of the slice came with a key.
    fn find_keys(&self, slice: &Arc<Slice>, since_ms: u64, now_ms: u64) -> Outcome<()> {
        let mut keys = lock(&self.keys);
        record::each_with_key(&*self.pool.lease(slice)?, since_ms, |name, row| {
            let Some(state) = self.streams.look(&name, |tracked| tracked.state.clone()) else {
                return Ok(());
            };
            if let Entry::Message(message) = record::read_message(row, &name, &state, self.nonce.of(&name))?
                && let Some(keyed) = Keyed::new(&name, &message.content)
            {
                let print = keys.fingerprint(&keyed);
                let time_ms = message.stamp.time_ms.min(now_ms);
                if keys.look_up(print, time_ms) == Known::New {
                    keys.insert(print, Some(message.stamp.position), time_ms);
                }
            }
            Ok(())
        })
    }

    fn tell(&self) {
        let stats = self.stats();
        let generation = self.generation.load(Ordering::Relaxed);
        tracing::debug!(
            target: "tidewire::replay", directory = %self.directory.display(), generation,
            streams = stats.streams, slices = stats.slices, bytes = stats.bytes,
            "the replay store is open"
        );
    }

    fn stats(&self) -> Stats {
        let slices = self.slices.all();
        Stats {
            streams: self.streams.len() as u64,
            bytes: slices.iter().map(|slice| slice.bytes()).sum(),
            slices: slices.len() as u64,
            slices_set_aside: self.tallies.set_aside.load(Ordering::Relaxed),
            slices_dropped_early: self.tallies.dropped_early.load(Ordering::Relaxed),
        }
    }

    /// Makes everything safe, and says so in `meta.db`. No thread of the store runs any more.
    fn close(&self) -> Outcome<()> {
        let writer = &mut *lock(&self.writer);
        if writer.is_closed {
            return Ok(());
        }
        writer.is_closed = true;
        self.save_unsaved(writer, self.last_time_ms())?;
        self.syncer.switch(None).map_err(|error| Trouble::Sync(error.to_string()))?;
        let closed = self.end(writer)?;
        self.pool.close_all();
        writer.save_meta(|meta| meta.closed = Some(closed))?;
        // Another process may open it now.
        lock(&self.lock).take();
        Ok(())
    }

    /// Ends the slice that is written to. Returns where the log ends.
    fn end(&self, writer: &mut Writer) -> Outcome<Closed> {
        let Some(slice) = self.slices.newest() else { return Ok(Closed::default()) };
        let link = match writer.current.take() {
            Some(current) => current.link,
            None => slice.link_to_keep()?,
        };
        let message = record::newest(&link.connection)?.map_or(0, |(message, _)| message);
        match link.checkpoint("TRUNCATE") {
            // It stays in the write-ahead log, where it is as safe.
            Ok(_) | Err(Trouble::Full | Trouble::Other(_)) => {}
            Err(trouble) => return Err(trouble),
        }
        let slices = u32::try_from(self.slices.all().len()).unwrap_or(u32::MAX);
        Ok(Closed { slice_ms: slice.start_ms, message, slices })
    }
}

impl Store for SqliteStore {
    fn append(&self, batch: &[Append], now_ms: u64) -> Result<Vec<Appended>, StoreError> {
        self.log.append(batch, now_ms)
    }

    fn conflicts(&self, message: &Append, now_ms: u64) -> bool {
        lock(&self.log.keys).conflicts(message, now_ms)
    }

    fn position(&self, stream: &StreamName) -> Position {
        self.log.position(stream)
    }

    fn bounds(&self, stream: &StreamName, retention: &Retention, now_ms: u64) -> Result<Bounds, StoreError> {
        let log = &self.log;
        let app_max_bytes = log.limits().app_max_bytes.get(&stream.app).copied().filter(|max| *max > 0);
        let oldest = app_max_bytes.map_or(0, |max_bytes| log.slices.oldest_within(&stream.app, max_bytes));
        let bounds = log.read(stream, |reading| {
            let floor = reading.floor(retention, oldest, now_ms)?;
            Ok(reading.view.state.bounds(reading.nonce, floor))
        })?;
        Ok(bounds.unwrap_or_else(|| unknown_bounds(log.epoch(stream), log.base())))
    }

    fn read(&self, stream: &StreamName, range: Range) -> Result<Vec<Entry>, StoreError> {
        Ok(self.log.read(stream, |reading| reading.page(&range))?.unwrap_or_default())
    }

    fn first_since(&self, stream: &StreamName, since_ms: u64) -> Result<u64, StoreError> {
        let first = self.log.read(stream, |reading| reading.first_since(since_ms))?;
        Ok(first.unwrap_or_else(|| self.log.base() + 1))
    }

    fn purge(&self, stream: &StreamName, before: u64, now_ms: u64) -> Result<(), StoreError> {
        self.log.purge(stream, before, now_ms)
    }

    fn skip(&self, stream: &StreamName) {
        self.log.skip(stream);
    }

    fn set_caps(&self, caps: &Caps) {
        *lock(&self.log.limits) = Arc::new(Limits::from(caps));
    }

    fn maintain(&self, now_ms: u64) -> Result<(), StoreError> {
        self.log.maintain(now_ms)
    }

    fn stats(&self) -> Stats {
        self.log.stats()
    }

    fn close(&self) -> Result<(), StoreError> {
        self.stop_threads();
        self.log.check()?;
        self.log.close().map_err(|trouble| self.log.refuse(trouble))
    }
}
