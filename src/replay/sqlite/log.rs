//! What the threads of a store share.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use tidewire_protocol::position::{Epoch, Position};

use super::chores::Chores;
use super::directory;
use super::index::{Slices, Streams};
use super::pool::Pool;
use super::read::{Hurt, Reading};
use super::syncer::Syncer;
use super::trouble::{Outcome, Trouble};
use super::writer::Writer;
use crate::replay::keys::Keys;
use crate::replay::store::{Caps, Durability, StoreError, StreamName};
use crate::replay::streams::StoreNonce;
use crate::sync::lock;

/// Slices that the longest window and the whole store are divided into.
const SLICES: u64 = 16;
const MIN_SLICE_MS: u64 = 60_000;
/// An empty slice takes about half as much.
const MIN_SLICE_BYTES: u64 = 64 * 1024;

/// An open store. Locks are taken in this order: writer, keys, a shard of the streams, slices, pool; what is below
/// the writer is held for moments.
#[derive(Debug)]
pub struct Log {
    pub directory: PathBuf,
    pub durability: Durability,
    pub nonce: StoreNonce,
    /// Of messages to come.
    pub generation: AtomicU32,
    /// The largest head of any stream that was forgotten.
    pub base: AtomicU64,
    pub limits: Mutex<Arc<Limits>>,
    pub streams: Streams,
    pub slices: Slices,
    pub pool: Pool,
    pub keys: Mutex<Keys>,
    /// Held while something is written.
    pub writer: Mutex<Writer>,
    pub syncer: Syncer,
    pub chores: Chores,
    pub tallies: Tallies,
    /// Why nothing must be written any more.
    pub failure: OnceLock<String>,
    /// The latest time that somebody came with: the store has no clock.
    pub now_ms: AtomicU64,
    /// Held until the store is closed.
    pub lock: Mutex<Option<directory::Lock>>,
}

/// Since the start.
#[derive(Debug, Default)]
pub struct Tallies {
    pub set_aside: AtomicU64,
    pub dropped_early: AtomicU64,
}

/// [`Caps`], and what follows from them.
#[derive(Debug)]
pub struct Limits {
    pub window_ms: u64,
    pub max_bytes: u64,
    /// How long a slice takes messages.
    pub slice_ms: u64,
    pub slice_bytes: u64,
    pub app_max_bytes: HashMap<Box<str>, u64>,
}

impl From<&Caps> for Limits {
    fn from(caps: &Caps) -> Self {
        Self {
            window_ms: caps.longest_window_ms,
            max_bytes: caps.max_bytes,
            slice_ms: (caps.longest_window_ms / SLICES).max(MIN_SLICE_MS),
            slice_bytes: (caps.max_bytes / SLICES).max(MIN_SLICE_BYTES),
            app_max_bytes: caps.app_max_bytes.iter().cloned().collect(),
        }
    }
}

impl Log {
    pub fn limits(&self) -> Arc<Limits> {
        Arc::clone(&lock(&self.limits))
    }

    /// Of a stream's messages to come.
    pub fn epoch(&self, name: &StreamName) -> Epoch {
        Epoch { nonce: self.nonce.of(name), generation: self.generation.load(Ordering::Acquire) }
    }

    pub fn base(&self) -> u64 {
        self.base.load(Ordering::Acquire)
    }

    pub fn position(&self, name: &StreamName) -> Position {
        let epoch = self.epoch(name);
        let known = self.streams.look(name, |tracked| tracked.state.position(epoch.nonce));
        known.unwrap_or_else(|| Position { epoch, serial: self.base() })
    }

    pub fn note_time(&self, now_ms: u64) {
        self.now_ms.store(now_ms, Ordering::Relaxed);
    }

    pub fn last_time_ms(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    /// Reads a stream; `None` when nothing is known of it. A slice that proves to be damaged is set aside, and what
    /// is left is read.
    pub fn read<T>(
        &self,
        name: &StreamName,
        read: impl Fn(&Reading<'_>) -> Result<T, Hurt>,
    ) -> Result<Option<T>, StoreError> {
        let nonce = self.nonce.of(name);
        loop {
            let Some(tracked) = self.streams.get(name) else { return Ok(None) };
            let view = self.slices.view(tracked);
            match read(&Reading { pool: &self.pool, name, view: &view, nonce }) {
                Ok(answer) => return Ok(Some(answer)),
                // Trimmed meanwhile: the next view is without it.
                Err(hurt) if !hurt.slice.is_live() => {}
                Err(Hurt { slice, trouble }) => {
                    self.set_aside_if_lost(&mut lock(&self.writer), &slice, trouble)?;
                }
            }
        }
    }

    /// An error of a call that writes, for the caller.
    pub fn refuse(&self, trouble: Trouble) -> StoreError {
        match trouble {
            Trouble::Full => StoreError::Full,
            Trouble::Io(_) if directory::is_full(&self.directory) => StoreError::Full,
            Trouble::Io(reason) | Trouble::Unreadable(reason) | Trouble::Sync(reason) => self.fail(reason),
            Trouble::Damaged(reason) | Trouble::Other(reason) => StoreError::Unavailable(reason),
        }
    }

    /// Makes safe what was committed so far.
    pub fn sync(&self) -> Outcome<()> {
        self.syncer.sync().map_err(|error| {
            let reason = format!("cannot make messages safe: {error}");
            // Also where the caller goes on: a second sync that succeeds would prove nothing.
            self.fail(reason.clone());
            Trouble::Sync(reason)
        })
    }

    /// From now on nothing is written.
    pub fn fail(&self, reason: String) -> StoreError {
        if self.failure.set(reason.clone()).is_ok() {
            tracing::error!(target: "tidewire::replay", reason, "the store must not be written to any more");
        }
        StoreError::Failed(reason)
    }

    pub fn check(&self) -> Result<(), StoreError> {
        match self.failure.get() {
            Some(reason) => Err(StoreError::Failed(reason.clone())),
            None => Ok(()),
        }
    }
}
