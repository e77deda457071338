//! What the rest of the server asks of Redis, from any thread; the work is done on the fan-out's own thread.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

pub use super::connect::ConnectError;
pub use super::driver::Driver;
use super::publisher::{Call, Item, Message, Queue, SUNSUBSCRIBE};
use super::scripts::Script;
use crate::config::RedisConfig;
use crate::fanout::keys::PARTITIONS;
use crate::sync::lock;
use crate::telemetry::metrics::Metrics;

pub type Partition = u8;

/// A set of partitions, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Partitions(pub u64);

impl Partitions {
    pub const NONE: Self = Self(0);
    pub const ALL: Self = Self(u64::MAX);

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn contains(self, partition: Partition) -> bool {
        self.0 >> partition & 1 == 1
    }

    pub fn iter(self) -> impl Iterator<Item = Partition> {
        (0..PARTITIONS).filter(move |partition| self.contains(*partition))
    }
}

/// Hears what the transport has to tell. Called on the fan-out's thread: it must not block.
pub trait Listener: Send + Sync + 'static {
    /// Of one link in the order in which Redis sent them.
    fn message(&self, topic: &[u8], payload: Bytes);
    /// The server of these partitions can be used, and nothing is subscribed there. `same_server`: it is the one that
    /// served them last, and it was not restarted, so its data did not go back; or nothing was ever told to any.
    fn up(&self, partitions: Partitions, same_server: bool);
    /// The server of these partitions is out of reach, and every subscription there is gone.
    fn down(&self, partitions: Partitions);
    /// The server took this subscription away: subscribe again.
    fn unsubscribed(&self, topic: &[u8]);
}

/// Why something was not done, or may not have been.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    #[error("Redis is out of reach")]
    Down,
    /// Too much waits for Redis already; nothing was done.
    #[error("too much waits for Redis")]
    Overloaded,
    /// It may have been done or not.
    #[error("Redis did not answer in time")]
    Timeout,
    /// It may have been done or not.
    #[error("the connection to Redis broke before the answer came")]
    Unknown,
    /// Redis answered with this error.
    #[error("Redis refused: {0}")]
    Refused(Box<str>),
}

/// Called once, on the fan-out's thread, when Redis has answered or will not.
pub type PublishDone = Box<dyn FnOnce(Result<(), LinkError>) + Send>;

/// The way to Redis; clones share it.
#[derive(Clone)]
pub struct Transport(pub(super) Arc<Shared>);

/// Where a key lives: a partition, or [`SHARED`].
pub type Place = u8;
/// The keys of `{<prefix>}`, which belong to no partition.
pub const SHARED: Place = PARTITIONS;
pub(super) const PLACES: usize = PARTITIONS as usize + 1;

/// What other threads and the fan-out's share.
pub struct Shared {
    pub queue: Queue,
    pub listener: OnceLock<Arc<dyn Listener>>,
    pub metrics: Arc<Metrics>,
    pub has_sharded_topics: bool,
    /// A server has said that a slot is not where it was.
    pub topology_changed: Notify,
    /// Partitions that can be used now.
    up: AtomicU64,
    is_shared_up: AtomicBool,
    /// Since when something is missing; none while nothing is.
    disconnected: Mutex<Option<Instant>>,
}

impl Transport {
    /// Connects to every server that is needed, on a `LocalSet` of the fan-out's thread. The error says which server, why
    /// and what to do.
    pub async fn connect(
        config: &RedisConfig,
        metrics: Arc<Metrics>,
    ) -> Result<(Transport, Driver), ConnectError> {
        let shared = Arc::new(Shared::new(config, metrics));
        let driver = Driver::connect(config, Arc::clone(&shared)).await?;
        Ok((Transport(shared), driver))
    }

    /// Whether every partition can be used.
    pub fn is_connected(&self) -> bool {
        self.disconnected_for().is_none()
    }

    /// How long something has been missing; none while nothing is.
    pub fn disconnected_for(&self) -> Option<Duration> {
        lock(&self.0.disconnected).map(|since| since.elapsed())
    }

    /// What scripts call to send a message to a topic of their partition.
    pub fn publish_command(&self) -> &'static str {
        if self.0.has_sharded_topics { "SPUBLISH" } else { "PUBLISH" }
    }

    /// Queues a message without waiting; those of one partition keep their order. `done` is called if, and only if,
    /// the message was queued. Fails with `Down` or `Overloaded`.
    pub fn publish(
        &self,
        partition: Partition,
        topic: Bytes,
        payload: Bytes,
        done: Option<PublishDone>,
    ) -> Result<(), LinkError> {
        self.push(Item::Message(Message {
            place: partition,
            topic,
            payload,
            done,
            queued: tokio::time::Instant::now(),
            deadline: None,
        }))
    }

    /// Runs commands of one place in one pipeline. A command that fails has its error among the values.
    pub async fn query(
        &self,
        place: Place,
        pipeline: redis::Pipeline,
    ) -> Result<Vec<redis::Value>, LinkError> {
        self.call(|answer| Call::pipeline(place, pipeline, answer)).await
    }

    /// Runs a script on keys of one place. An error of the script is `Refused`.
    pub async fn script(
        &self,
        place: Place,
        script: &Script,
        keys: &[&[u8]],
        args: &[&[u8]],
    ) -> Result<redis::Value, LinkError> {
        only(self.call(|answer| Call::script(place, script, keys, args, answer)).await?)
    }

    /// As [`Self::script`], before all events that wait: for what keeps the nodes in step.
    pub async fn script_urgent(
        &self,
        place: Place,
        script: &Script,
        keys: &[&[u8]],
        args: &[&[u8]],
    ) -> Result<redis::Value, LinkError> {
        only(self.call(|answer| Call::script(place, script, keys, args, answer).urgent()).await?)
    }

    /// As [`Self::script`], with one argument more at the end: the identity of the server that runs it, which is another
    /// one after a restart or a fail-over.
    pub async fn script_here(
        &self,
        place: Place,
        script: &Script,
        keys: &[&[u8]],
        args: &[&[u8]],
    ) -> Result<redis::Value, LinkError> {
        let call = |answer| Call::script(place, script, keys, args, answer).naming_server();
        only(self.call(call).await?)
    }

    /// Subscribes to topics of one partition, up to a thousand at once; done when Redis has confirmed all of them.
    pub async fn subscribe(&self, partition: Partition, topics: &[Box<[u8]>]) -> Result<(), LinkError> {
        let command = if self.0.has_sharded_topics { "SSUBSCRIBE" } else { "SUBSCRIBE" };
        self.call(|answer| Call::topics(partition, command, topics, answer)).await.map(drop)
    }

    /// The end of subscriptions; done when Redis has confirmed it.
    pub async fn unsubscribe(&self, partition: Partition, topics: &[Box<[u8]>]) -> Result<(), LinkError> {
        let command = if self.0.has_sharded_topics { SUNSUBSCRIBE } else { "UNSUBSCRIBE" };
        self.call(|answer| Call::topics(partition, command, topics, answer)).await.map(drop)
    }

    /// Waits for one of the above on a thread that has no runtime.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        block_on(future)
    }

    async fn call(
        &self,
        call: impl FnOnce(oneshot::Sender<Answer>) -> Call,
    ) -> Result<Vec<redis::Value>, LinkError> {
        let (sender, answer) = oneshot::channel();
        self.push(Item::Call(Box::new(call(sender))))?;
        answer.await.unwrap_or(Err(LinkError::Unknown))
    }

    fn push(&self, item: Item) -> Result<(), LinkError> {
        let pushed = if self.0.is_up(item.place()) {
            self.0.queue.push(item)
        } else {
            item.forget();
            Err(LinkError::Down)
        };
        pushed.inspect_err(|error| self.0.metrics.fanout.count_error(error.kind()))
    }
}

pub(super) type Answer = Result<Vec<redis::Value>, LinkError>;

impl Shared {
    fn new(config: &RedisConfig, metrics: Arc<Metrics>) -> Self {
        Self {
            queue: Queue::default(),
            listener: OnceLock::new(),
            metrics,
            has_sharded_topics: config.cluster,
            topology_changed: Notify::new(),
            up: AtomicU64::new(0),
            is_shared_up: AtomicBool::new(false),
            disconnected: Mutex::new(Some(Instant::now())),
        }
    }

    fn is_up(&self, place: Place) -> bool {
        match place {
            SHARED => self.is_shared_up.load(Ordering::Relaxed),
            partition => Partitions(self.up.load(Ordering::Relaxed)).contains(partition),
        }
    }

    /// What can be used from now on.
    pub fn set_up(&self, partitions: Partitions, is_shared_up: bool) {
        self.up.store(partitions.0, Ordering::Relaxed);
        self.is_shared_up.store(is_shared_up, Ordering::Relaxed);
        let is_connected = partitions == Partitions::ALL && is_shared_up;
        let mut disconnected = lock(&self.disconnected);
        *disconnected = if is_connected { None } else { disconnected.or_else(|| Some(Instant::now())) };
        self.metrics.fanout.connected.set(i64::from(is_connected));
    }
}

impl LinkError {
    /// In Redis's own words.
    pub(super) fn refused(error: &redis::ServerError) -> Self {
        let details = error.details().unwrap_or_default().trim_end_matches('.');
        Self::Refused(format!("{} {details}", error.code()).into())
    }

    /// For the metric.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Overloaded => "overloaded",
            Self::Timeout => "timeout",
            Self::Unknown => "unknown",
            Self::Refused(_) => "refused",
        }
    }
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport")
            .field("disconnected_for", &self.disconnected_for())
            .finish_non_exhaustive()
    }
}

/// The answer of a script.
fn only(mut values: Vec<redis::Value>) -> Result<redis::Value, LinkError> {
    match values.pop() {
        Some(redis::Value::ServerError(error)) => Err(LinkError::refused(&error)),
        Some(value) => Ok(value),
        None => Err(LinkError::Unknown),
    }
}

/// Polls on this thread, which sleeps in between. Everything the transport's futures wait for comes from its own thread.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    // Without it, a thread that has a runtime after all would wait for a turn of that runtime, and so for ever.
    let mut future = pin!(tokio::task::unconstrained(future));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        thread::park();
    }
}
