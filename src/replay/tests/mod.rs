//! The threads of replay, with a store in memory that tests hold up, count and fail.

mod reading;
mod writing;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::Duration;

use tidewire_protocol::position::Position;
use tidewire_protocol::replay::Bounds;

use super::memory::MemoryStore;
use super::store::{
    Append, Appended, Caps, Content, Entry, Hints, Range, Retention, Stats, Store, StoreError, StreamName,
};
use super::{AppendDone, Replay};
use crate::clock::Clock;
use crate::config::OnStoreError;
use crate::sync::lock;
use crate::telemetry::metrics::Metrics;
use crate::worker::mailbox::Mailbox;

/// A call that takes longer never comes back.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
struct Probe {
    inner: MemoryStore,
    appends: Gate,
    reads: Gate,
    /// Messages of each batch.
    batches: Mutex<Vec<usize>>,
    /// Entries that were read.
    entries: AtomicUsize,
    error: Mutex<Option<StoreError>>,
    maintained_ms: Mutex<Vec<u64>>,
    is_closed: AtomicBool,
}

/// Lets calls through, or holds them up until it is opened.
#[derive(Debug, Default)]
struct Gate {
    /// Whether it is shut, and how many calls have come to it.
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut state = lock(&self.state);
        state.1 += 1;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |(is_shut, _)| *is_shut).unwrap());
    }

    fn shut(&self) {
        lock(&self.state).0 = true;
    }

    fn open(&self) {
        lock(&self.state).0 = false;
        self.changed.notify_all();
    }

    fn calls(&self) -> usize {
        lock(&self.state).1
    }

    fn wait_for_calls(&self, calls: usize) {
        let waited = self.changed.wait_timeout_while(lock(&self.state), PATIENCE, |(_, seen)| *seen < calls);
        assert!(!waited.unwrap().1.timed_out());
    }
}

impl Probe {
    fn fails_with(&self, error: Option<StoreError>) {
        *lock(&self.error) = error;
    }
}

impl Store for Probe {
    fn append(&self, batch: &[Append], now_ms: u64) -> Result<Vec<Appended>, StoreError> {
        lock(&self.batches).push(batch.len());
        self.appends.pass();
        match &*lock(&self.error) {
            Some(error) => Err(error.clone()),
            None => self.inner.append(batch, now_ms),
        }
    }

    fn conflicts(&self, message: &Append, now_ms: u64) -> bool {
        self.inner.conflicts(message, now_ms)
    }

    fn position(&self, stream: &StreamName) -> Position {
        self.inner.position(stream)
    }

    fn bounds(&self, stream: &StreamName, retention: &Retention, now_ms: u64) -> Result<Bounds, StoreError> {
        self.inner.bounds(stream, retention, now_ms)
    }

    fn read(&self, stream: &StreamName, range: Range) -> Result<Vec<Entry>, StoreError> {
        let entries = self.inner.read(stream, range)?;
        self.entries.fetch_add(entries.len(), Ordering::Relaxed);
        self.reads.pass();
        match &*lock(&self.error) {
            Some(error) => Err(error.clone()),
            None => Ok(entries),
        }
    }

    fn first_since(&self, stream: &StreamName, since_ms: u64) -> Result<u64, StoreError> {
        self.inner.first_since(stream, since_ms)
    }

    fn purge(&self, stream: &StreamName, before: u64, now_ms: u64) -> Result<(), StoreError> {
        self.inner.purge(stream, before, now_ms)
    }

    fn skip(&self, stream: &StreamName) {
        self.inner.skip(stream);
    }

    fn set_caps(&self, caps: &Caps) {
        self.inner.set_caps(caps);
    }

    fn maintain(&self, now_ms: u64) -> Result<(), StoreError> {
        lock(&self.maintained_ms).push(now_ms);
        self.inner.maintain(now_ms)
    }

    fn stats(&self) -> Stats {
        self.inner.stats()
    }

    fn close(&self) -> Result<(), StoreError> {
        self.is_closed.store(true, Ordering::Relaxed);
        self.inner.close()
    }
}

struct Fixture {
    replay: Arc<Replay>,
    store: Arc<Probe>,
    clock: Clock,
    metrics: Arc<Metrics>,
    answers: mpsc::Receiver<(u64, Result<Appended, StoreError>)>,
    answer: mpsc::Sender<(u64, Result<Appended, StoreError>)>,
}

impl Fixture {
    fn new() -> Self {
        let caps = Caps { longest_window_ms: 3_600_000, max_bytes: 1 << 30, app_max_bytes: Vec::new() };
        let store = Arc::new(Probe {
            inner: MemoryStore::new(&caps),
            appends: Gate::default(),
            reads: Gate::default(),
            batches: Mutex::default(),
            entries: AtomicUsize::new(0),
            error: Mutex::default(),
            maintained_ms: Mutex::default(),
            is_closed: AtomicBool::new(false),
        });
        let (clock, metrics) = (Clock::default(), Arc::new(Metrics::new()));
        let engine: Arc<dyn Store> = Arc::<Probe>::clone(&store);
        let mailboxes = Arc::from([Mailbox::new(1000)]);
        let on_error = OnStoreError::Reject;
        let replay =
            Replay::with_store(engine, on_error, clock.clone(), mailboxes, Arc::clone(&metrics)).unwrap();
        let (answer, answers) = mpsc::channel();
        Self { replay, store, clock, metrics, answers, answer }
    }

    /// A callback that tells `answers` what became of message `number`.
    fn tell(&self, number: u64) -> AppendDone {
        let answer = self.answer.clone();
        Box::new(move |appended| answer.send((number, appended)).unwrap())
    }

    fn append(&self, number: u64) {
        self.replay.append(message(&number.to_string()), 100, self.tell(number)).unwrap();
    }

    fn answer(&self) -> (u64, Result<Appended, StoreError>) {
        self.answers.recv_timeout(PATIENCE).unwrap()
    }

    /// Stores messages 1 to `count`, and waits until they are.
    fn fill(&self, count: u64) {
        self.fill_from(1, count);
    }

    fn fill_from(&self, first: u64, count: u64) {
        let numbers = first..first + count;
        numbers.clone().for_each(|number| self.append(number));
        for number in numbers {
            let (answered, appended) = self.answer();
            assert_eq!((answered, serial(&appended)), (number, number));
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.store.appends.open();
        self.store.reads.open();
        self.replay.close();
    }
}

fn stream() -> Arc<StreamName> {
    Arc::new(StreamName { app: "42".into(), channel: "orders".into() })
}

fn message(data: &str) -> Append {
    let data = format!("\"{data}\"").into();
    let content = Content { id: None, event: "e".into(), data, user_id: None, except: None };
    Append { stream: StreamName::clone(&stream()), content, inactivity_ttl_ms: 0, hints: Hints::default() }
}

fn serial(appended: &Result<Appended, StoreError>) -> u64 {
    match appended {
        Ok(Appended::Stored(stamp)) => stamp.position.serial,
        other => panic!("{other:?}"),
    }
}

/// Waits for a condition that another thread brings about.
fn wait_until(is_met: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !is_met() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(1));
    }
}
