//! The engine that keeps the log in Redis, where every node of a cluster finds it.
//!
//! ```text
//! {<prefix>.<partition>}log       STRING  <identity of the server> <generation> <nonce> <base>
//! {<prefix>.<partition>}streams   HASH    <app>\n<channel> → <head> <time> <bytes> <base> <floor> <generations>
//! {<prefix>.<partition>}s:<app>:<channel>         STREAM  <generation>-<serial> → the message
//! {<prefix>.<partition>}i:<app>:<channel>:<key>   STRING  <generation>-<serial> <digest> <time>
//! ```
//!
//! One script stores a message and publishes it. It begins with the partition's log, which names the server that wrote
//! it: on another one, or the same one after a restart, the end of the log may be lost, and a generation begins
//! before anything else is given out. A stream that Redis has dropped goes on behind every serial it ever gave out.

mod append;
mod chores;
mod entry;
mod names;
mod read;
mod scripts;
mod skip;
mod state;

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::task::Poll;

use redis::Value;
use tidewire_protocol::position::Position;
use tidewire_protocol::replay::Bounds;

use self::chores::{Limits, Round};
use self::entry::text;
use self::names::Names;
use self::scripts::OPEN;
use self::state::{Log, State};
use super::keys::{Keyed, Keys, Known};
use super::store::{Append, Appended, Caps, Entry, Range, Retention, Stats, Store, StoreError, StreamName};
use crate::fanout::keys::PARTITIONS;
use crate::fanout::redis::scripts::Script;
use crate::fanout::redis::transport::{LinkError, Partition, Transport};
use crate::sync::lock;

/// Redis Streams behind a [`Transport`].
#[derive(Debug)]
pub struct RedisStore {
    transport: Transport,
    names: Names,
    state: State,
    /// Keys that this node has published with, to refuse early what Redis would refuse.
    keys: Mutex<Keys>,
    limits: Mutex<Limits>,
    /// Streams of which messages were delivered that Redis does not know of.
    skips: Mutex<HashSet<StreamName>>,
    round: Mutex<Round>,
    stats: Mutex<Stats>,
    clock: StoreClock,
    is_closed: AtomicBool,
}

/// Milliseconds since the Unix epoch by the machine's clock, without what tests have moved the callers' time by.
pub type Wall = fn() -> u64;

/// The clock that ages go by.
#[derive(Debug)]
struct StoreClock {
    /// What the callers' clock goes by, where that of Redis counts; otherwise the callers' does.
    wall: Option<Wall>,
    /// How far that of Redis is ahead of the callers', in milliseconds.
    ahead_ms: AtomicI64,
    /// The latest time of any call.
    last_ms: AtomicU64,
}

impl RedisStore {
    /// Makes the log, or finds it. Ages go by the clock of Redis, which is one for all nodes. Blocks.
    pub fn open(transport: Transport, prefix: &str, caps: &Caps, wall: Wall) -> Result<Self, StoreError> {
        Self::open_with(transport, prefix, caps, wall(), Some(wall))
    }

    /// As [`open`](Self::open), with the callers' clock: for tests.
    pub fn open_on_own_clock(
        transport: Transport,
        prefix: &str,
        caps: &Caps,
        now_ms: u64,
    ) -> Result<Self, StoreError> {
        Self::open_with(transport, prefix, caps, now_ms, None)
    }

    fn open_with(
        transport: Transport,
        prefix: &str,
        caps: &Caps,
        now_ms: u64,
        wall: Option<Wall>,
    ) -> Result<Self, StoreError> {
        let store = Self {
            transport,
            names: Names::new(prefix),
            state: State::default(),
            keys: Mutex::default(),
            limits: Mutex::new(Limits::new(caps)),
            skips: Mutex::default(),
            round: Mutex::default(),
            stats: Mutex::default(),
            clock: StoreClock { wall, ahead_ms: AtomicI64::new(0), last_ms: AtomicU64::new(now_ms) },
            is_closed: AtomicBool::new(false),
        };
        store.wait(store.begin(now_ms))?;
        Ok(store)
    }

    async fn begin(&self, now_ms: u64) -> Result<(), StoreError> {
        self.set_clock().await?;
        self.store_ms(now_ms);
        let logs = join_all((0..PARTITIONS).map(|partition| self.open_log(partition))).await;
        logs.into_iter().collect::<Result<Vec<()>, _>>()?;
        self.read_sizes().await
    }

    async fn open_log(&self, partition: Partition) -> Result<(), StoreError> {
        let (key, args) = (self.names.log(partition), self.common_args(partition));
        let args: Vec<&[u8]> = args.iter().map(String::as_bytes).collect();
        match self.run(partition, &OPEN, &[key.as_bytes()], &args).await? {
            Value::Array(values) => {
                let log = values.into_iter().next().map(|value| text(value).ok_or_else(unexpected));
                self.note_log(partition, log).map(drop)
            }
            _ => Err(unexpected()),
        }
    }

    /// What every script takes first: the log as it is known, the time, the newest generation, a nonce.
    fn common_args(&self, partition: Partition) -> Vec<String> {
        vec![
            self.state.log(partition).text(),
            self.clock.last_ms.load(Ordering::Relaxed).to_string(),
            self.state.newest(partition).to_string(),
            rand::random::<u64>().to_string(),
        ]
    }

    async fn run(
        &self,
        partition: Partition,
        script: &Script,
        keys: &[&[u8]],
        args: &[&[u8]],
    ) -> Result<Value, StoreError> {
        self.transport.script_here(partition, script, keys, args).await.map_err(store_error)
    }

    fn note_log(
        &self,
        partition: Partition,
        text: Option<Result<String, StoreError>>,
    ) -> Result<Log, StoreError> {
        let text = text.unwrap_or_else(|| Err(unexpected()))?;
        let log = Log::parse(&text).ok_or_else(unexpected)?;
        self.state.note_log(partition, log.clone());
        Ok(log)
    }

    fn note_keys(&self, appends: &[&Append], appended: &[Appended], now_ms: u64) {
        let mut keys = lock(&self.keys);
        for (append, appended) in appends.iter().zip(appended) {
            let Some(keyed) = Keyed::new(&append.stream, &append.content) else { continue };
            let (Appended::Stored(_) | Appended::Repeat(_)) = appended else { continue };
            let print = keys.fingerprint(&keyed);
            if keys.look_up(print, now_ms) == Known::New {
                keys.insert(print, None, now_ms);
            }
        }
    }

    fn check_open(&self) -> Result<(), StoreError> {
        let is_closed = self.is_closed.load(Ordering::Relaxed);
        if is_closed { Err(StoreError::Unavailable("the store is closed".to_owned())) } else { Ok(()) }
    }

    /// A caller's time by the store's clock.
    fn store_ms(&self, now_ms: u64) -> u64 {
        let now_ms = now_ms.saturating_add_signed(self.clock.ahead_ms.load(Ordering::Relaxed));
        self.clock.last_ms.store(now_ms, Ordering::Relaxed);
        now_ms
    }

    fn limits(&self) -> Limits {
        lock(&self.limits).clone()
    }

    fn wait<F: Future>(&self, future: F) -> F::Output {
        self.transport.block_on(future)
    }
}

impl Store for RedisStore {
    /// Redis stores each stream's messages for themselves: an error says that some may be stored.
    fn append(&self, batch: &[Append], now_ms: u64) -> Result<Vec<Appended>, StoreError> {
        self.append_each(batch, now_ms).into_iter().collect()
    }

    fn append_each(&self, batch: &[Append], now_ms: u64) -> Vec<Result<Appended, StoreError>> {
        self.wait(self.append_all(batch, now_ms))
    }

    fn conflicts(&self, message: &Append, now_ms: u64) -> bool {
        let now_ms = self.store_ms(now_ms);
        lock(&self.keys).conflicts(message, now_ms)
    }

    /// As this node saw it last.
    fn position(&self, stream: &StreamName) -> Position {
        self.state.position(stream)
    }

    fn head(&self, stream: &StreamName) -> Result<u64, StoreError> {
        self.wait(self.head_of(stream))
    }

    fn bounds(&self, stream: &StreamName, retention: &Retention, now_ms: u64) -> Result<Bounds, StoreError> {
        self.wait(self.bounds_of(stream, retention, now_ms))
    }

    fn read(&self, stream: &StreamName, range: Range) -> Result<Vec<Entry>, StoreError> {
        self.wait(self.read_range(stream, range))
    }

    fn first_since(&self, stream: &StreamName, since_ms: u64) -> Result<u64, StoreError> {
        let since_ms = since_ms.saturating_add_signed(self.clock.ahead_ms.load(Ordering::Relaxed));
        self.wait(self.first_since_of(stream, since_ms))
    }

    fn purge(&self, stream: &StreamName, before: u64, now_ms: u64) -> Result<(), StoreError> {
        self.store_ms(now_ms);
        self.wait(self.purge_before(stream, before))
    }

    fn skip(&self, stream: &StreamName) {
        self.wait(self.skip_one(stream));
    }

    fn set_caps(&self, caps: &Caps) {
        *lock(&self.limits) = Limits::new(caps);
    }

    fn maintain(&self, now_ms: u64) -> Result<(), StoreError> {
        self.wait(self.do_chores(now_ms))
    }

    fn stats(&self) -> Stats {
        lock(&self.stats).clone()
    }

    /// Nothing is to be made safe: the log outlives the node.
    fn close(&self) -> Result<(), StoreError> {
        self.wait(self.apply_skips())?;
        self.is_closed.store(true, Ordering::Relaxed);
        Ok(())
    }
}

fn store_error(error: LinkError) -> StoreError {
    match error {
        LinkError::Refused(reason) if reason.contains("OOM") => StoreError::Full,
        error @ LinkError::Refused(_) => StoreError::Unavailable(error.to_string()),
        error @ (LinkError::Down | LinkError::Overloaded) => {
            StoreError::Unavailable(format!("{error}; nothing was stored"))
        }
        error @ (LinkError::Timeout | LinkError::Unknown) => {
            StoreError::Unavailable(format!("{error}; the message may have been stored"))
        }
    }
}

/// An answer that no script of this version gives.
fn unexpected() -> StoreError {
    StoreError::Unavailable("Redis gave an answer that this version does not know".to_owned())
}

/// Polls all of them at once, so that what they ask goes out together; then one after the other.
async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    enum Run<F: Future> {
        Going(Pin<Box<F>>),
        Done(F::Output),
    }
    let mut futures: Vec<Pin<Box<F>>> = futures.map(Box::pin).collect();
    let runs: Vec<Run<F>> = std::future::poll_fn(|context| {
        let runs =
            std::mem::take(&mut futures).into_iter().map(|mut future| match future.as_mut().poll(context) {
                Poll::Ready(output) => Run::Done(output),
                Poll::Pending => Run::Going(future),
            });
        Poll::Ready(runs.collect())
    })
    .await;
    let mut outputs = Vec::with_capacity(runs.len());
    for run in runs {
        outputs.push(match run {
            Run::Done(output) => output,
            Run::Going(future) => future.await,
        });
    }
    outputs
}
