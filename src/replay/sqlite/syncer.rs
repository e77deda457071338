//! The thread that makes commits safe which were made without waiting for the disk.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::directory;
use crate::sync::lock;

/// What is committed is safe 100 ms later: this long it waits for more, and the disk has the rest.
const PERIOD: Duration = Duration::from_millis(75);

/// What is to be synced.
#[derive(Debug, Default)]
pub struct Syncer {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The write-ahead log of the slice that is written to. Of one that was sealed nothing is left to sync.
    wal: Option<Arc<File>>,
    is_dirty: bool,
    is_stopped: bool,
}

impl Syncer {
    /// Looks after the write-ahead log of another slice from now on, once that of the present one is safe.
    pub fn switch(&self, database: Option<&Path>) -> io::Result<()> {
        self.sync()?;
        let wal = database.map(|database| File::open(directory::wal_path(database))).transpose()?;
        lock(&self.state).wal = wal.map(Arc::new);
        Ok(())
    }

    /// Gives up a write-ahead log that was set aside.
    pub fn forget(&self) {
        lock(&self.state).wal = None;
    }

    /// Something was committed.
    pub fn note(&self) {
        let mut state = lock(&self.state);
        if !state.is_dirty {
            state.is_dirty = true;
            self.changed.notify_one();
        }
    }

    /// Makes safe what was committed so far.
    pub fn sync(&self) -> io::Result<()> {
        let wal = {
            let mut state = lock(&self.state);
            state.is_dirty = false;
            state.wal.clone()
        };
        wal.map_or(Ok(()), |wal| wal.sync_data())
    }

    pub fn stop(&self) {
        lock(&self.state).is_stopped = true;
        self.changed.notify_one();
    }

    /// Returns when it was stopped, or when a sync failed: the operating system may have dropped what it could not
    /// write, so that a second one that succeeds would prove nothing.
    pub fn run(&self) -> io::Result<()> {
        loop {
            let mut state = lock(&self.state);
            while !state.is_dirty && !state.is_stopped {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.is_stopped {
                return Ok(());
            }
            let waited = self.changed.wait_timeout_while(state, PERIOD, |state| !state.is_stopped);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
            self.sync()?;
        }
    }
}
