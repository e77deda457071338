//! The slice that is written to, and who may write.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::Connection;

use super::directory;
use super::log::{Limits, Log};
use super::meta::{self, Meta};
use super::slice::{Link, Slice};
use super::trouble::{Outcome, Trouble};
use crate::replay::store::{Durability, StoreError, StreamName};

/// Bytes of messages after which the size of the slice is looked at again, at most.
const MAX_UNMEASURED: u64 = 1024 * 1024;

/// What one thread at a time writes with.
#[derive(Debug)]
pub struct Writer {
    pub meta: Meta,
    /// What `meta.db` says.
    pub saved: meta::State,
    /// `None` before the first message, and after a slice was sealed or set aside.
    pub current: Option<Current>,
    pub next_number: u32,
    /// Streams of which no slice says yet what they are.
    pub unsaved: HashSet<StreamName>,
    pub is_closed: bool,
}

/// The slice that takes messages.
#[derive(Debug)]
pub struct Current {
    pub link: Link,
    /// When it got its first row.
    pub opened_ms: Option<u64>,
    /// Bytes that were written since its size was looked at.
    pub unmeasured: u64,
    pub bytes: u64,
}

impl Writer {
    pub fn check(&self) -> Result<(), StoreError> {
        if self.is_closed {
            return Err(StoreError::Unavailable("the store is closed".to_owned()));
        }
        Ok(())
    }

    pub fn writes_to(&self, slice: &Slice) -> bool {
        self.current.as_ref().is_some_and(|current| current.link.slice.number == slice.number)
    }

    /// Changes `meta.db`; safe when it returns.
    pub fn save_meta(&mut self, change: impl FnOnce(&mut meta::State)) -> Outcome<()> {
        let mut state = self.saved.clone();
        change(&mut state);
        if state != self.saved {
            self.meta.save(&state)?;
            self.saved = state;
        }
        Ok(())
    }
}

impl Current {
    pub fn new(link: Link, opened_ms: Option<u64>) -> Outcome<Self> {
        let mut current = Self { link, opened_ms, unmeasured: 0, bytes: 0 };
        current.measure()?;
        Ok(current)
    }

    pub fn slice(&self) -> &Arc<Slice> {
        &self.link.slice
    }

    /// With what is in the write-ahead log.
    fn measure(&mut self) -> Outcome<()> {
        let pages: i64 =
            self.link.connection.prepare_cached("PRAGMA page_count")?.query_row([], |row| row.get(0))?;
        let page_bytes: i64 =
            self.link.connection.prepare_cached("PRAGMA page_size")?.query_row([], |row| row.get(0))?;
        self.bytes = (pages * page_bytes).max(0).cast_unsigned();
        self.unmeasured = 0;
        Ok(())
    }

    /// Whether it has taken enough. One without rows never has.
    fn is_full(&mut self, limits: &Limits, now_ms: u64) -> Outcome<bool> {
        let Some(opened_ms) = self.opened_ms else { return Ok(false) };
        if self.unmeasured >= MAX_UNMEASURED.min(limits.slice_bytes / 8) {
            self.measure()?;
        }
        // The clock may have been set back, too.
        Ok(now_ms.abs_diff(opened_ms) >= limits.slice_ms || self.bytes >= limits.slice_bytes)
    }

    /// Something was committed.
    fn note(&mut self, bytes: u64, now_ms: u64) {
        self.opened_ms.get_or_insert(now_ms);
        self.unmeasured += bytes;
    }
}

impl Log {
    /// The slice that takes messages: a new one, if the present one has taken enough or there is none.
    pub fn current<'a>(&self, writer: &'a mut Writer, now_ms: u64) -> Outcome<&'a mut Current> {
        self.seal_if_full(writer, now_ms)?;
        if writer.current.is_none() {
            let current = self.begin_slice(writer, now_ms)?;
            writer.current = Some(current);
        }
        Ok(writer.current.as_mut().expect("it was made above"))
    }

    /// Ends the present slice if it has taken enough. What it has is safe from then on.
    pub fn seal_if_full(&self, writer: &mut Writer, now_ms: u64) -> Outcome<()> {
        let Some(current) = &mut writer.current else { return Ok(()) };
        if current.is_full(&self.limits(), now_ms)? {
            self.syncer.switch(None).map_err(|error| Trouble::Sync(error.to_string()))?;
            current.slice().measure();
            // Closing the last connection moves the write-ahead log into the database, which takes its time.
            self.chores.seal(writer.current.take().map(|current| current.link));
        }
        Ok(())
    }

    fn begin_slice(&self, writer: &mut Writer, now_ms: u64) -> Outcome<Current> {
        let after_newest = self.slices.newest().map_or(1, |newest| newest.start_ms + 1);
        let mut start_ms = now_ms.max(after_newest);
        // A damaged one that could not be renamed.
        while directory::slice_path(&self.directory, start_ms).exists() {
            start_ms += 1;
        }
        let slice = Arc::new(Slice::new(&self.directory, writer.next_number, start_ms));
        let link = slice.create(&self.directory, self.durability)?;
        self.syncer.switch(Some(slice.path())).map_err(|error| Trouble::Sync(error.to_string()))?;
        let current = Current::new(link, None)?;
        writer.next_number += 1;
        self.slices.insert(&slice);
        tracing::debug!(target: "tidewire::replay", slice = start_ms, "a slice begins");
        Ok(current)
    }

    /// Runs `write` in one transaction on the slice that [`current`](Self::current) gave. `bytes` is about what it
    /// writes.
    pub fn commit<T>(
        &self,
        writer: &mut Writer,
        now_ms: u64,
        bytes: u64,
        write: impl FnOnce(&Connection) -> Outcome<T>,
    ) -> Outcome<T> {
        let current = writer.current.as_mut().ok_or_else(|| Trouble::Other("no slice is open".to_owned()))?;
        let connection = &current.link.connection;
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let outcome = write(connection).and_then(|written| {
            connection.prepare_cached("COMMIT")?.execute([])?;
            Ok(written)
        });
        if outcome.is_err() {
            // SQLite has done so itself after some errors.
            if !connection.is_autocommit() {
                drop(connection.execute_batch("ROLLBACK"));
            }
            return outcome;
        }
        current.note(bytes, now_ms);
        self.chores.note_written(bytes);
        if self.durability == Durability::Interval {
            self.syncer.note();
        }
        outcome
    }

    /// Sets a slice aside if the trouble with it will not pass.
    pub fn set_aside_if_lost(
        &self,
        writer: &mut Writer,
        slice: &Arc<Slice>,
        trouble: Trouble,
    ) -> Outcome<()> {
        match trouble {
            Trouble::Damaged(reason) => self.set_aside(writer, slice, &reason),
            Trouble::Unreadable(reason) if !writer.writes_to(slice) => self.set_aside(writer, slice, &reason),
            trouble => return Err(trouble),
        }
        Ok(())
    }

    /// Sets a slice aside that proved to be damaged. What it had is lost to its streams, but not where they stand.
    pub fn set_aside(&self, writer: &mut Writer, slice: &Arc<Slice>, reason: &str) {
        if self.slices.remove(slice).is_none() {
            return;
        }
        let number = slice.number;
        let last =
            self.streams.names(|tracked| tracked.segments.last().is_some_and(|last| last.slice == number));
        if !last.is_empty() {
            self.note_unsaved(writer, last);
        }
        self.tallies.set_aside.fetch_add(1, Ordering::Relaxed);
        match slice.set_aside(self.last_time_ms()) {
            Ok(path) => tracing::error!(
                target: "tidewire::replay", reason, path = %path.display(),
                "a damaged slice was set aside; its messages are not replayed"
            ),
            Err(error) => tracing::error!(
                target: "tidewire::replay", reason, path = %slice.path().display(), %error,
                "a damaged slice is not used any more, but cannot be renamed"
            ),
        }
        if writer.current.take_if(|current| current.slice().number == number).is_some() {
            self.syncer.forget();
        }
        self.pool.close_dead();
        if let Err(trouble) = self.save_unsaved(writer, self.last_time_ms()) {
            tracing::warn!(target: "tidewire::replay", ?trouble, "the streams of a damaged slice are not saved yet");
        }
    }
}
