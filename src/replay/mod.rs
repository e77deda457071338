//! Replay: a log of messages per channel, so that a client which was away gets exactly what it missed.
//!
//! [`Replay`] stands between the hub and an engine ([`store::Store`]), whose calls block. What is asked of it goes
//! into a bounded queue and is answered from one of its own threads, in a callback:
//!
//! ```text
//! append, purge ─► writer (1 thread, group commit) ─┐
//!                                                   ├─► Store
//! page, resolve, read ─► readers (2 threads) ───────┘
//! ```

mod catch_up;
mod epochs;
pub mod event;
pub mod follower;
mod handle;
mod health;
pub mod keys;
mod maintenance;
pub mod memory;
pub mod pages;
pub mod publish;
mod readers;
pub mod redis;
pub mod ring;
pub mod sqlite;
pub mod store;
mod streams;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use tidewire_protocol::position::Position;
use tidewire_protocol::replay::Start;
use tokio::sync::Notify;

use self::epochs::ChannelEpochs;
use self::health::Health;
use self::maintenance::Maintenance;
use self::memory::MemoryStore;
use self::pages::Pages;
use self::readers::{Reader, Resolve};
use self::redis::RedisStore;
use self::sqlite::SqliteStore;
use self::store::{Append, Caps, Location, Retention, Stats, Store, StreamName};
use self::writer::{Pending, Purge, Writer};
use crate::clock::Clock;
use crate::config::{OnStoreError, ReplayConfig, StoreKind};
use crate::fanout::cluster::Cluster;
use crate::sync::lock;
use crate::telemetry::metrics::Metrics;
use crate::worker::mailbox::Mailbox;

pub use self::catch_up::Missed;
pub use self::handle::ReplayHandle;
pub use self::pages::{Page, PageDone, PageEntry};
pub use self::readers::{ReadJob, ResolveDone, Resolved};
pub use self::writer::{AppendDone, PurgeDone};

/// What a disk that does not answer may hold up the end of the process. What was acknowledged is safe even so.
const CLOSE_DEADLINE: Duration = Duration::from_secs(10);
const CLOSE_POLL: Duration = Duration::from_millis(1);

/// Too much waits already, or the store is closed: nothing was done, try again in a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the replay store is overloaded; nothing was stored, try again in a second")]
pub struct Busy;

/// The log of all stored channels. No call of it waits for the disk.
#[derive(Debug)]
pub struct Replay {
    store: Arc<dyn Store>,
    writes: Arc<writer::Queue>,
    reads: Arc<readers::Queue>,
    health: Arc<Health>,
    stop_maintenance: Arc<Notify>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    clock: Clock,
    on_store_error: OnStoreError,
    pages: Arc<Pages>,
    /// Other nodes write to the log, too, and deliveries come from all of them by way of Redis.
    is_shared: bool,
}

impl Replay {
    /// Opens the engine that the configuration names, and starts the threads.
    pub fn start(
        config: &ReplayConfig,
        caps: &Caps,
        clock: Clock,
        mailboxes: Arc<[Mailbox]>,
        metrics: Arc<Metrics>,
        cluster: Option<&Arc<Cluster>>,
    ) -> anyhow::Result<Arc<Self>> {
        let store = open(config, caps, unix_ms(&clock), cluster)?;
        let is_shared = config.store == StoreKind::Redis;
        Self::start_with(store, is_shared, config.on_store_error, clock, mailboxes, metrics)
    }

    /// Starts the threads for an engine that only this process writes to.
    pub fn with_store(
        store: Arc<dyn Store>,
        on_store_error: OnStoreError,
        clock: Clock,
        mailboxes: Arc<[Mailbox]>,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<Arc<Self>> {
        Self::start_with(store, false, on_store_error, clock, mailboxes, metrics)
    }

    fn start_with(
        store: Arc<dyn Store>,
        is_shared: bool,
        on_store_error: OnStoreError,
        clock: Clock,
        mailboxes: Arc<[Mailbox]>,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<Arc<Self>> {
        let store: Arc<dyn Store> = Arc::new(ChannelEpochs(store));
        let health = Arc::new(Health::new(Arc::clone(&metrics)));
        let pages = Arc::new(Pages::new(Arc::clone(&mailboxes), Arc::clone(&metrics)));
        let replay = Self {
            store,
            writes: Arc::default(),
            reads: Arc::default(),
            health,
            stop_maintenance: Arc::default(),
            threads: Mutex::default(),
            clock,
            on_store_error,
            pages: Arc::clone(&pages),
            is_shared,
        };
        replay.start_threads(&pages, &mailboxes, &metrics).context("cannot start the threads of replay")?;
        Ok(Arc::new(replay))
    }

    fn start_threads(
        &self,
        pages: &Arc<Pages>,
        mailboxes: &Arc<[Mailbox]>,
        metrics: &Arc<Metrics>,
    ) -> std::io::Result<()> {
        let writer = Writer {
            queue: Arc::clone(&self.writes),
            store: Arc::clone(&self.store),
            pages: Arc::clone(pages),
            health: Arc::clone(&self.health),
            clock: self.clock.clone(),
            mailboxes: Arc::clone(mailboxes),
            metrics: Arc::clone(metrics),
        };
        self.spawn("replay-writer", move || writer.run())?;
        let reader = Reader {
            queue: Arc::clone(&self.reads),
            store: Arc::clone(&self.store),
            pages: Arc::clone(pages),
            health: Arc::clone(&self.health),
            clock: self.clock.clone(),
        };
        for _ in 0..readers::READERS {
            let reader = reader.clone();
            self.spawn("replay-reader", move || reader.run())?;
        }
        let maintenance = Maintenance {
            store: Arc::clone(&self.store),
            pages: Arc::clone(pages),
            health: Arc::clone(&self.health),
            clock: self.clock.clone(),
            metrics: Arc::clone(metrics),
            stop: Arc::clone(&self.stop_maintenance),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        self.spawn("replay-maintain", move || maintenance.run(&runtime))
    }

    fn spawn(&self, name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        lock(&self.threads).push(thread);
        Ok(())
    }

    /// Where a stream stands in the store: what was delivered may be a batch behind.
    pub fn position(&self, stream: &StreamName) -> Position {
        self.store.position(stream)
    }

    /// Stores a message. `bytes` is what it takes while it waits, `done` included. `done` runs on the writer's thread,
    /// after those of the messages that were stored before: what it delivers is in the order of the log.
    pub fn append(&self, append: Append, bytes: usize, done: AppendDone) -> Result<(), Busy> {
        self.writes.append(Pending { append, bytes, since: Instant::now(), done })
    }

    /// Whether the message's id is known to belong to another message.
    pub fn conflicts(&self, append: &Append) -> bool {
        self.store.conflicts(append, self.now_ms())
    }

    /// Forgets what is before serial `before`, after all that was given to [`append`](Self::append) earlier.
    pub fn purge(&self, stream: Arc<StreamName>, before: u64, done: PurgeDone) -> Result<(), Busy> {
        self.writes.purge(Purge { stream, before, done })
    }

    /// Notes that a message was delivered without being stored. Call it in the `done` of its append, so that no
    /// later message is stored in between.
    pub fn skip(&self, stream: &StreamName) {
        self.store.skip(stream);
    }

    /// The page with the messages after serial `after`. An empty one says that nothing comes after it in the log.
    /// The page may begin earlier: see [`Page::after`].
    pub fn page(&self, stream: Arc<StreamName>, after: u64, done: PageDone) -> Result<(), Busy> {
        self.reads.push(readers::Job::Page(pages::Request::new(stream, after, done)))
    }

    /// Where a subscriber begins that may have `retention` and at most `max_replay` messages.
    pub fn resolve(
        &self,
        stream: Arc<StreamName>,
        start: Start,
        retention: Retention,
        max_replay: u64,
        done: ResolveDone,
    ) -> Result<(), Busy> {
        self.reads.push(readers::Job::Resolve(Resolve { stream, start, retention, max_replay, done }))
    }

    /// Runs anything else that reads, on a reader thread.
    pub fn read(&self, job: ReadJob) -> Result<(), Busy> {
        self.reads.push(readers::Job::Read(job))
    }

    /// Whether other nodes write to the log, and deliver what is in it.
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// What was read of a stream may not be what is in its log any more: another node has purged it.
    pub fn forget_pages(&self, stream: &StreamName) {
        self.pages.forget(stream);
    }

    /// As [`forget_pages`](Self::forget_pages), of every stream: the log's server is another one.
    pub fn forget_all_pages(&self) {
        self.pages.forget_all();
    }

    pub fn set_caps(&self, caps: &Caps) {
        self.store.set_caps(caps);
    }

    pub fn stats(&self) -> Stats {
        self.store.stats()
    }

    /// Milliseconds since the Unix epoch, as messages are stamped.
    pub fn now_ms(&self) -> u64 {
        unix_ms(&self.clock)
    }

    /// What becomes of messages that cannot be stored.
    pub fn on_store_error(&self) -> OnStoreError {
        self.on_store_error
    }

    /// Whether the store must not be used any more: the process is to end, and its supervisor starts it again.
    pub fn is_failed(&self) -> bool {
        self.health.failure().is_some()
    }

    /// Writes what waits, ends the threads, and closes the store. What comes later is refused.
    pub fn close(&self) {
        self.signal_end();
        let threads = std::mem::take(&mut *lock(&self.threads));
        if threads.is_empty() {
            return;
        }
        let deadline = Instant::now() + CLOSE_DEADLINE;
        while !threads.iter().all(JoinHandle::is_finished) {
            if Instant::now() >= deadline {
                tracing::error!(target: "tidewire::replay", "the store does not answer: left as it is");
                return;
            }
            std::thread::sleep(CLOSE_POLL);
        }
        // A store that has failed must not say that nothing was lost.
        if !self.is_failed()
            && let Err(error) = self.store.close()
        {
            tracing::error!(target: "tidewire::replay", %error, "cannot close the store");
        }
    }

    fn signal_end(&self) {
        self.writes.close();
        self.reads.close();
        self.stop_maintenance.notify_one();
    }
}

impl Drop for Replay {
    /// Not [`close`](Self::close): the last holder may be a callback, on one of the threads.
    fn drop(&mut self) {
        self.signal_end();
    }
}

fn open(
    config: &ReplayConfig,
    caps: &Caps,
    now_ms: u64,
    cluster: Option<&Arc<Cluster>>,
) -> anyhow::Result<Arc<dyn Store>> {
    let location = match config.store {
        StoreKind::Memory => return Ok(Arc::new(MemoryStore::new(caps))),
        StoreKind::Redis => {
            let cluster = cluster.context("replay.store redis needs redis.url")?;
            let store =
                RedisStore::open(cluster.transport().clone(), cluster.prefix(), caps, Clock::wall_millis)
                    .context("cannot open the replay store in Redis")?;
            return Ok(Arc::new(store));
        }
        StoreKind::Sqlite => Location { directory: config.dir.clone(), durability: config.durability },
    };
    let directory = location.directory.display();
    let store = SqliteStore::open(&location, caps, now_ms)
        .with_context(|| format!("cannot open the replay store in {directory} (replay.dir)"))?;
    tracing::info!(target: "tidewire::replay", %directory, "opened the store");
    Ok(Arc::new(store))
}

fn unix_ms(clock: &Clock) -> u64 {
    u64::try_from(clock.unix_millis()).unwrap_or(0)
}
