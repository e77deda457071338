//! The threads that read the log for those who catch up, resume, or look at its history.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use tidewire_protocol::replay::{Bounds, Reason, Rewind, Start};

use super::health::Health;
use super::pages::{Pages, Request};
use super::store::{Retention, Store, StoreError, StreamName};
use super::{Busy, unix_ms};
use crate::clock::Clock;
use crate::sync::lock;

/// Threads that read.
pub const READERS: usize = 2;
/// Reads that may wait.
const MAX_WAITING: usize = 65_536;

/// Called once, on a reader thread.
pub type ResolveDone = Box<dyn FnOnce(Result<Resolved, StoreError>) + Send>;
/// Called once, on a reader thread, with the time in milliseconds since the Unix epoch.
pub type ReadJob = Box<dyn FnOnce(&dyn Store, u64) + Send>;

/// Where a subscriber begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    pub bounds: Bounds,
    /// The serial after which it begins, or why it cannot begin where it wants to.
    pub verdict: Result<u64, Reason>,
}

/// A question where a subscriber begins.
pub struct Resolve {
    pub stream: Arc<StreamName>,
    pub start: Start,
    pub retention: Retention,
    /// Messages that are replayed to it at most.
    pub max_replay: u64,
    pub done: ResolveDone,
}

pub enum Job {
    Page(Request),
    Resolve(Resolve),
    Read(ReadJob),
}

/// What waits for a reader.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    is_closed: bool,
}

impl Queue {
    pub fn push(&self, job: Job) -> Result<(), Busy> {
        {
            let mut state = lock(&self.state);
            if state.is_closed || state.jobs.len() >= MAX_WAITING {
                return Err(Busy);
            }
            state.jobs.push_back(job);
        }
        self.filled.notify_one();
        Ok(())
    }

    /// Nothing is taken in any more, and what waits is dropped: nobody is there to be answered.
    pub fn close(&self) {
        let dropped = {
            let mut state = lock(&self.state);
            state.is_closed = true;
            std::mem::take(&mut state.jobs)
        };
        drop(dropped);
        self.filled.notify_all();
    }

    /// `None` when the queue is closed.
    fn take(&self) -> Option<Job> {
        let mut state = lock(&self.state);
        loop {
            if state.is_closed {
                return None;
            }
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// What each of the threads works with.
#[derive(Clone, Debug)]
pub struct Reader {
    pub queue: Arc<Queue>,
    pub store: Arc<dyn Store>,
    pub pages: Arc<Pages>,
    pub health: Arc<Health>,
    pub clock: Clock,
}

impl Reader {
    /// Returns when the queue is closed.
    pub fn run(&self) {
        let _watch = self.health.watch();
        while let Some(job) = self.queue.take() {
            match job {
                Job::Page(request) => self.pages.serve(&*self.store, request),
                Job::Resolve(resolve) => resolve.answer(&*self.store, unix_ms(&self.clock)),
                Job::Read(job) => job(&*self.store, unix_ms(&self.clock)),
            }
        }
    }
}

impl Resolve {
    fn answer(self, store: &dyn Store, now_ms: u64) {
        let resolved = self.resolved(store, now_ms);
        (self.done)(resolved);
    }

    fn resolved(&self, store: &dyn Store, now_ms: u64) -> Result<Resolved, StoreError> {
        let bounds = store.bounds(&self.stream, &self.retention, now_ms)?;
        let verdict = match self.start {
            Start::Live => Ok(bounds.head),
            Start::After(cursor) => bounds.resolve(cursor, self.max_replay).map(|()| cursor.serial),
            Start::Rewind(rewind) => self.rewound(store, &bounds, rewind, now_ms)?,
        };
        Ok(Resolved { bounds, verdict })
    }

    fn rewound(
        &self,
        store: &dyn Store,
        bounds: &Bounds,
        rewind: Rewind,
        now_ms: u64,
    ) -> Result<Result<u64, Reason>, StoreError> {
        let wanted = match rewind {
            Rewind::Count(count) => bounds.head.saturating_sub(count),
            Rewind::Seconds(seconds) => {
                let since_ms = now_ms.saturating_sub(seconds.saturating_mul(1000));
                store.first_since(&self.stream, since_ms)?.saturating_sub(1)
            }
            Rewind::Earliest => 0,
        };
        // What is stored since the bounds were read comes live.
        let cursor = wanted.max(bounds.floor.saturating_sub(1)).min(bounds.head);
        let is_too_many = bounds.head - cursor > self.max_replay;
        Ok(if is_too_many { Err(Reason::TooMany) } else { Ok(cursor) })
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("jobs", &lock(&self.state).jobs.len()).finish()
    }
}
