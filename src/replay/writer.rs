//! The one thread that writes the log: what waits is written together.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::health::Health;
use super::pages::Pages;
use super::store::{Append, Appended, Store, StoreError, StreamName};
use super::{Busy, unix_ms};
use crate::clock::Clock;
use crate::sync::lock;
use crate::telemetry::metrics::Metrics;
use crate::worker::mailbox::{Hold, Mailbox};

/// Messages that may wait.
const MAX_MESSAGES: usize = 65_536;
/// Bytes that may wait.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// Messages of a batch: of small ones, more would make the first wait long for the last.
const BATCH_MESSAGES: usize = 1024;
/// Bytes above which a batch is not filled further.
const BATCH_BYTES: usize = 1024 * 1024;
/// How long the first message of a batch waits for others, under load.
const LINGER: Duration = Duration::from_millis(1);
/// Batches that are written at once after a wait that brought nothing.
const LINGER_REST: u32 = 16;

/// Called once, on the writer's thread, in the order in which the messages were committed.
pub type AppendDone = Box<dyn FnOnce(Result<Appended, StoreError>) + Send>;
/// Called once, on the writer's thread.
pub type PurgeDone = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// A message that waits to be written.
pub struct Pending {
    pub append: Append,
    /// What it takes while it waits.
    pub bytes: usize,
    pub since: Instant,
    pub done: AppendDone,
}

/// Messages before `before` that wait to be forgotten.
pub struct Purge {
    pub stream: Arc<StreamName>,
    pub before: u64,
    pub done: PurgeDone,
}

enum Job {
    Append(Pending),
    Purge(Purge),
}

/// What waits for the writer.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    bytes: usize,
    wait: Wait,
    is_closed: bool,
}

/// What the writer is waiting for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Wait {
    /// It is writing.
    #[default]
    Nothing,
    AnyJob,
    WholeBatch,
}

impl State {
    fn fills_batch(&self) -> bool {
        self.jobs.len() >= BATCH_MESSAGES || self.bytes >= BATCH_BYTES
    }

    fn ends_wait(&self) -> bool {
        match self.wait {
            Wait::Nothing => false,
            Wait::AnyJob => true,
            Wait::WholeBatch => self.fills_batch(),
        }
    }

    /// Until when the first message may wait; `None` when it has waited long enough, or for enough others.
    fn linger_deadline(&self) -> Option<Instant> {
        match self.jobs.front() {
            Some(Job::Append(first)) if !self.fills_batch() => Some(first.since + LINGER),
            _ => None,
        }
        .filter(|deadline| *deadline > Instant::now())
    }

    /// Moves the oldest messages into the batch, or takes the purge that comes first.
    fn take(&mut self, batch: &mut Batch) -> Taken {
        let mut bytes = 0;
        while batch.appends.len() < BATCH_MESSAGES && bytes < BATCH_BYTES {
            match self.jobs.pop_front() {
                Some(Job::Append(pending)) => {
                    bytes += pending.bytes;
                    batch.push(pending);
                }
                Some(Job::Purge(purge)) if batch.appends.is_empty() => return Taken::Purge(purge),
                Some(purge) => {
                    self.jobs.push_front(purge);
                    break;
                }
                None => break,
            }
        }
        self.bytes -= bytes;
        Taken::Batch
    }
}

impl Queue {
    pub fn append(&self, pending: Pending) -> Result<(), Busy> {
        self.push(pending.bytes, Job::Append(pending))
    }

    pub fn purge(&self, purge: Purge) -> Result<(), Busy> {
        self.push(0, Job::Purge(purge))
    }

    fn push(&self, bytes: usize, job: Job) -> Result<(), Busy> {
        let ends_wait = {
            let mut state = lock(&self.state);
            if state.is_closed || state.jobs.len() >= MAX_MESSAGES || state.bytes >= MAX_BYTES {
                return Err(Busy);
            }
            state.bytes += bytes;
            state.jobs.push_back(job);
            state.ends_wait()
        };
        if ends_wait {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Nothing is taken in any more; what waits is still written.
    pub fn close(&self) {
        lock(&self.state).is_closed = true;
        self.filled.notify_one();
    }

    /// Waits for something to do. `lingers`: until a batch is full, or its first message has waited long enough.
    fn take(&self, batch: &mut Batch, lingers: bool) -> Taken {
        let mut state = self.wait(lock(&self.state), Wait::AnyJob, None);
        if state.jobs.is_empty() {
            return Taken::Closed;
        }
        batch.gained = None;
        if let (true, Some(deadline)) = (lingers, state.linger_deadline()) {
            let found = state.jobs.len();
            state = self.wait(state, Wait::WholeBatch, Some(deadline));
            batch.gained = Some(state.jobs.len() - found);
        }
        state.take(batch)
    }

    fn wait<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        wait: Wait,
        deadline: Option<Instant>,
    ) -> MutexGuard<'a, State> {
        state.wait = wait;
        let goes_on = |state: &State| match wait {
            Wait::WholeBatch => !state.fills_batch(),
            _ => state.jobs.is_empty(),
        };
        while goes_on(&state) && !state.is_closed {
            state = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => break,
                Some(left) => self.filled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.filled.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        state.wait = Wait::Nothing;
        state
    }
}

enum Taken {
    /// At least one message.
    Batch,
    Purge(Purge),
    /// Everything is written, and nothing comes any more.
    Closed,
}

/// Messages that are written together.
#[derive(Default)]
struct Batch {
    appends: Vec<Append>,
    dones: Vec<AppendDone>,
    /// Messages that came while the writer waited for more, if it did.
    gained: Option<usize>,
}

impl Batch {
    fn push(&mut self, pending: Pending) {
        self.appends.push(pending.append);
        self.dones.push(pending.done);
    }
}

/// Whether waiting for more messages is worth it. One publisher that sends the next message when it has the answer
/// must not wait; many at once cost less when they share a commit.
#[derive(Debug, Default)]
struct Pace {
    had_several: bool,
    rest: u32,
}

impl Pace {
    fn lingers(&mut self) -> bool {
        let rests = self.rest > 0;
        self.rest = self.rest.saturating_sub(1);
        self.had_several && !rests
    }

    fn note(&mut self, gained: Option<usize>, written: usize) {
        self.had_several = written > 1;
        if gained == Some(0) {
            self.rest = LINGER_REST;
        }
    }
}

/// What the thread works with.
#[derive(Debug)]
pub struct Writer {
    pub queue: Arc<Queue>,
    pub store: Arc<dyn Store>,
    pub pages: Arc<Pages>,
    pub health: Arc<Health>,
    pub clock: Clock,
    pub mailboxes: Arc<[Mailbox]>,
    pub metrics: Arc<Metrics>,
}

impl Writer {
    /// Returns when the queue is closed and empty.
    pub fn run(&self) {
        let _watch = self.health.watch();
        let _closing = Closing(&self.queue);
        let mut batch = Batch::default();
        let mut pace = Pace::default();
        loop {
            match self.queue.take(&mut batch, pace.lingers()) {
                Taken::Batch => {
                    pace.note(batch.gained, batch.appends.len());
                    self.write(&mut batch);
                }
                Taken::Purge(purge) => self.purge(purge),
                Taken::Closed => return,
            }
        }
    }

    fn write(&self, batch: &mut Batch) {
        let outcomes = match self.health.failure() {
            Some(failure) => batch.appends.iter().map(|_| Err(failure.clone())).collect(),
            None => self.append(&batch.appends),
        };
        batch.appends.clear();
        let mut failed = Vec::new();
        {
            let _hold = outcomes.iter().any(Result::is_ok).then(|| Hold::new(&self.mailboxes));
            for (done, outcome) in batch.dones.drain(..).zip(outcomes) {
                match outcome {
                    Ok(_) => done(outcome),
                    Err(error) => failed.push((done, error)),
                }
            }
        }
        // Nobody waits for the others: each may have to be noted as skipped. What failed of a stream came after what
        // was stored of it.
        failed.into_iter().for_each(|(done, error)| done(Err(error)));
    }

    fn append(&self, appends: &[Append]) -> Vec<Result<Appended, StoreError>> {
        let started = Instant::now();
        let outcomes = self.store.append_each(appends, unix_ms(&self.clock));
        let metrics = &self.metrics.replay;
        metrics.append_seconds.observe(started.elapsed().as_secs_f64());
        metrics.batch_messages.observe(appends.len() as f64);
        let error = outcomes.iter().find_map(|outcome| outcome.as_ref().err());
        self.health.note_append(&error.map_or(Ok(()), |error| Err(error.clone())));
        for outcome in &outcomes {
            match outcome {
                Ok(appended) => self.count(appended),
                Err(_) => drop(metrics.failed.inc()),
            }
        }
        outcomes
    }

    fn count(&self, appended: &Appended) {
        let metrics = &self.metrics.replay;
        match appended {
            Appended::Stored(_) => metrics.stored.inc(),
            Appended::Repeat(_) => metrics.repeats.inc(),
            Appended::Conflict => metrics.conflicts.inc(),
        };
    }

    fn purge(&self, purge: Purge) {
        let Purge { stream, before, done } = purge;
        let outcome = match self.health.failure() {
            Some(failure) => Err(failure),
            None => self.store.purge(&stream, before, unix_ms(&self.clock)),
        };
        self.health.note_error(&outcome);
        self.pages.forget(&stream);
        done(outcome);
    }
}

/// Closes the queue when the thread ends, also by a panic: nobody is to wait for it then.
struct Closing<'a>(&'a Queue);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
        // Dropped when the lock is free again: those who waited hear of it.
        let _left = std::mem::take(&mut lock(&self.0.state).jobs);
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.state);
        f.debug_struct("Queue").field("jobs", &state.jobs.len()).field("bytes", &state.bytes).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_publisher_that_awaits_its_answers_is_not_held_up() {
        let mut pace = Pace::default();
        for _ in 0..10 {
            assert!(!pace.lingers());
            pace.note(None, 1);
        }
        // Its messages come in groups: waiting for more is tried now and then.
        let mut waits = 0;
        for _ in 0..170 {
            let gained = pace.lingers().then_some(0);
            waits += usize::from(gained.is_some());
            pace.note(gained, 5);
        }
        assert_eq!(waits, 10);
    }

    #[test]
    fn many_publishers_share_commits() {
        let mut pace = Pace::default();
        pace.note(None, 2);
        for _ in 0..10 {
            assert!(pace.lingers());
            pace.note(Some(9), 10);
        }
        pace.note(None, 1);
        assert!(!pace.lingers());
    }
}
