//! The thread that moves write-ahead logs into their databases, and erases what was purged.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use rusqlite::params;

use super::log::Log;
use super::slice::{Link, Slice};
use super::trouble::{Outcome, Trouble};
use crate::sync::lock;

/// What is written, by a rough estimate, before the write-ahead log is moved on.
const CHECKPOINT_BYTES: u64 = 8 * 1024 * 1024;
/// What a commit writes at least: pages of the index, of the table, and their headers.
const COMMIT_BYTES: u64 = 12 * 1024;
/// Pages of the write-ahead log, 64 MiB, above which the writer waits until it can begin from its start again.
const MAX_WAL_PAGES: u64 = 16 * 1024;
/// Messages that are erased while the writer waits.
const ERASED_AT_ONCE: u32 = 256;

const ERASE: &str = "DELETE FROM messages WHERE id IN
    (SELECT id FROM messages WHERE stream = ?1 AND serial < ?2 LIMIT ?3)";

/// What is to be done.
#[derive(Debug, Default)]
pub struct Chores {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes that were written since the last checkpoint, about.
    written: u64,
    /// Slices that take no more messages.
    sealed: Vec<Link>,
    /// Serials before which nothing is left, by slice and row.
    erasures: BTreeMap<(u32, u32), u64>,
    /// Those that found no room.
    put_off: BTreeMap<(u32, u32), u64>,
    is_stopped: bool,
}

enum Chore {
    Checkpoint,
    Seal(Link),
    Erase { slice: u32, row: u32, before: u64 },
}

impl Chores {
    /// A batch with so many bytes was committed.
    pub fn note_written(&self, bytes: u64) {
        let mut state = lock(&self.state);
        // Beside its texts a message has a row of numbers, and its place in the index.
        state.written += bytes + bytes / 2 + COMMIT_BYTES;
        if state.written >= CHECKPOINT_BYTES {
            self.changed.notify_one();
        }
    }

    pub fn seal(&self, link: impl IntoIterator<Item = Link>) {
        lock(&self.state).sealed.extend(link);
        self.changed.notify_one();
    }

    pub fn erase(&self, slice: u32, row: u32, before: u64) {
        let mut state = lock(&self.state);
        let erased = state.erasures.entry((slice, row)).or_default();
        *erased = before.max(*erased);
        self.changed.notify_one();
    }

    /// Tries again what found no room. Called now and then.
    pub fn resume(&self) {
        let put_off = std::mem::take(&mut lock(&self.state).put_off);
        for ((slice, row), before) in put_off {
            self.erase(slice, row, before);
        }
    }

    pub fn stop(&self) {
        lock(&self.state).is_stopped = true;
        self.changed.notify_one();
    }

    /// Whether nothing waits to be done.
    pub fn is_done(&self) -> bool {
        let state = lock(&self.state);
        state.sealed.is_empty() && state.erasures.is_empty() && state.written < CHECKPOINT_BYTES
    }

    fn next(&self) -> Option<Chore> {
        let mut state = lock(&self.state);
        loop {
            if state.is_stopped {
                return None;
            }
            if state.written >= CHECKPOINT_BYTES {
                state.written = 0;
                return Some(Chore::Checkpoint);
            }
            if let Some(link) = state.sealed.pop() {
                return Some(Chore::Seal(link));
            }
            if let Some(((slice, row), before)) = state.erasures.pop_first() {
                return Some(Chore::Erase { slice, row, before });
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Does what is to be done until it is stopped.
pub fn run(log: &Log) {
    let mut keeper = Keeper { log, link: None };
    while let Some(chore) = log.chores.next() {
        let slice = match &chore {
            Chore::Checkpoint => log.slices.newest(),
            Chore::Seal(link) => Some(Arc::clone(&link.slice)),
            Chore::Erase { slice, .. } => log.slices.get(*slice),
        };
        let Some(slice) = slice.filter(|slice| slice.is_live()) else { continue };
        if let Err(trouble) = keeper.act(&chore, &slice)
            && slice.is_live()
        {
            keeper.report(&chore, &slice, trouble);
        }
    }
}

struct Keeper<'a> {
    log: &'a Log,
    /// To the slice that is written to.
    link: Option<Link>,
}

impl Keeper<'_> {
    fn act(&mut self, chore: &Chore, slice: &Arc<Slice>) -> Outcome<()> {
        match chore {
            Chore::Checkpoint => self.checkpoint(slice),
            Chore::Seal(link) => {
                self.link.take_if(|link| link.slice.number == slice.number);
                link.checkpoint("TRUNCATE")?;
                slice.measure();
                Ok(())
            }
            Chore::Erase { row, before, .. } => self.erase(slice, *row, *before),
        }
    }

    fn checkpoint(&mut self, slice: &Arc<Slice>) -> Outcome<()> {
        self.link.take_if(|link| link.slice.number != slice.number);
        let link = match self.link.take() {
            Some(link) => link,
            None => slice.link_to_keep()?,
        };
        if link.checkpoint("PASSIVE")? >= MAX_WAL_PAGES {
            // What was appended meanwhile is moved as well, so that the writer waits for the little that is left. What
            // is appended next overwrites the log from its start.
            link.checkpoint("PASSIVE")?;
            let _writer = lock(&self.log.writer);
            link.checkpoint("RESTART")?;
        }
        self.link = Some(link);
        Ok(())
    }

    /// Overwrites the messages with zeros, and lets others write in between.
    fn erase(&self, slice: &Arc<Slice>, row: u32, before: u64) -> Outcome<()> {
        let link = slice.link_to_keep()?;
        loop {
            let writer = lock(&self.log.writer);
            let erased = link.connection.prepare_cached(ERASE)?.execute(params![
                row,
                before.cast_signed(),
                ERASED_AT_ONCE
            ])?;
            let is_sealed = !writer.writes_to(slice);
            drop(writer);
            std::thread::yield_now();
            if erased == 0 {
                if is_sealed {
                    link.checkpoint("TRUNCATE")?;
                }
                return Ok(());
            }
        }
    }

    fn report(&mut self, chore: &Chore, slice: &Arc<Slice>, trouble: Trouble) {
        self.link = None;
        let outcome = self.log.set_aside_if_lost(&mut lock(&self.log.writer), slice, trouble);
        let Err(trouble) = outcome else { return };
        match trouble {
            Trouble::Damaged(_) | Trouble::Unreadable(_) | Trouble::Io(_) | Trouble::Sync(_) => {
                drop(self.log.refuse(trouble));
            }
            // A checkpoint is tried again when more was written.
            Trouble::Full | Trouble::Other(_) => {
                tracing::warn!(target: "tidewire::replay", ?trouble, "a checkpoint or purge has to wait");
                if let Chore::Erase { slice, row, before } = *chore {
                    lock(&self.log.chores.state).put_off.insert((slice, row), before);
                }
            }
        }
    }
}
