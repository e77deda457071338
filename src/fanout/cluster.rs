//! The cluster, as the rest of the server uses it: from any thread, and without waiting where it cannot be helped.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use tidewire_protocol::socket_id::SocketId;
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local};

use super::inbound::{Inbound, Notice, Notices, Subject, Topics};
use super::keys;
use super::message::{CachePart, Event, encode_event, encode_purged};
use super::redis::state::State;
use super::redis::transport::{PublishDone, Transport};
use super::registry::{Parts, Registry};
use super::step::Step;
use crate::app::App;
use crate::config::RedisConfig;
use crate::hub::channel::Channel;
use crate::hub::channel::{CachedInfo, ChannelInfo};
use crate::node::Node;
use crate::sync::lock;
use crate::telemetry::metrics::Metrics;

pub use super::redis::events::Once;
pub use super::redis::transport::LinkError;

/// The other nodes, by way of Redis.
pub struct Cluster {
    state: State,
    notices: Arc<Notices>,
    step: Arc<Step>,
    node: Arc<OnceLock<std::sync::Weak<Node>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    unready_after: Duration,
    prefix: Box<str>,
}

/// An event on its way to all nodes.
#[derive(Clone, Debug)]
pub struct Outgoing<'a> {
    pub app: &'a str,
    pub channel: &'a str,
    /// A whole WebSocket frame.
    pub frame: Bytes,
    pub except: Option<SocketId>,
    /// Of an event that its channel keeps: its data as text, and for how long.
    pub cache: Option<(Bytes, u64)>,
    /// Events that the app may keep.
    pub max_cached: usize,
}

/// What becomes of an event: `Repeat` and `Conflict` only of one with an idempotency key.
pub type Sending = Pin<Box<dyn Future<Output = Result<Once, LinkError>>>>;

impl Cluster {
    /// Connects, and begins to keep this node and the others in step. Fails with the server that cannot be used, why, and
    /// what to do.
    pub fn start(config: &RedisConfig, metrics: &Arc<Metrics>) -> anyhow::Result<Arc<Self>> {
        let (tell, told) = mpsc::sync_channel(1);
        let notices = Arc::new(Notices::default());
        let step = Arc::new(Step::default());
        let node = Arc::new(OnceLock::new());
        let fanout = Fanout {
            config: config.clone(),
            metrics: Arc::clone(metrics),
            notices: Arc::clone(&notices),
            step: Arc::clone(&step),
            node: Arc::clone(&node),
        };
        let thread = std::thread::Builder::new()
            .name("fanout".to_owned())
            .spawn(move || fanout.run(&tell))
            .context("cannot start the thread of the fan-out")?;
        let state = told.recv().context("the thread of the fan-out has ended")??;
        Ok(Arc::new(Self {
            state,
            notices,
            step,
            node,
            thread: Mutex::new(Some(thread)),
            unready_after: config.unready_after,
            prefix: config.namespace().into(),
        }))
    }

    /// The node whose connections are counted for the others.
    pub fn count_connections_of(&self, node: &Arc<Node>) {
        drop(self.node.set(Arc::downgrade(node)));
    }

    pub fn transport(&self) -> &Transport {
        self.state.transport()
    }

    /// Begins every name in Redis.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    pub fn is_connected(&self) -> bool {
        self.transport().is_connected()
    }

    /// Whether Redis can be reached, and the others know all that this node has.
    pub fn is_in_step(&self) -> bool {
        self.is_connected() && self.step.is_in_step()
    }

    /// Whether new clients are better off on another node.
    pub fn is_cut_off(&self) -> bool {
        let limit = self.unready_after;
        let since = self.transport().disconnected_for().max(self.step.refused_for());
        !limit.is_zero() && since.is_some_and(|time| time >= limit)
    }

    /// What this node has of the channel may have changed.
    pub fn touch_channel(&self, app: &Arc<App>, channel: &Arc<Channel>) {
        let subject = Subject::Channel { app: Arc::clone(app), channel: Arc::clone(channel) };
        self.notices.push(Notice::Touched(subject));
    }

    /// Whether somebody is signed in here as the user, or watches it, may have changed.
    pub fn touch_user(&self, app: &Arc<App>, user_id: &str) {
        self.notices.push(Notice::Touched(Subject::User { app: Arc::clone(app), user_id: user_id.into() }));
    }

    /// The app has other settings.
    pub fn settings_changed(&self, app: &Arc<App>) {
        self.notices.push(Notice::Settings(Arc::clone(app)));
    }

    /// Publishes an event that is neither kept nor has a key. `done` hears what became of it, unless this fails.
    pub fn publish(&self, event: &Outgoing<'_>, done: Option<PublishDone>) -> Result<(), LinkError> {
        let Outgoing { app, channel, .. } = *event;
        let topic = self.state.keys().channel_topic(app, channel).into();
        let message = encode_event(&event.to_message());
        self.transport().publish(keys::partition(app, channel), topic, message, done)
    }

    /// Publishes an event. It is on its way when this returns, and what becomes of it is to be awaited.
    pub fn send(self: &Arc<Self>, event: &Outgoing<'_>, key: Option<(&str, String)>) -> Sending {
        if key.is_none() && event.cache.is_none() {
            let (answer, answered) = oneshot::channel();
            let done: PublishDone = Box::new(move |result| drop(answer.send(result)));
            return match self.publish(event, Some(done)) {
                Ok(()) => Box::pin(async move {
                    answered.await.unwrap_or(Err(LinkError::Unknown)).map(|()| Once::Published)
                }),
                Err(error) => Box::pin(async move { Err(error) }),
            };
        }
        let cluster = Arc::clone(self);
        let (app, channel, max_cached) = (event.app.to_owned(), event.channel.to_owned(), event.max_cached);
        let event = event.to_message();
        let key = key.map(|(key, fingerprint)| (key.to_owned(), fingerprint));
        begun(Box::pin(async move {
            match key {
                Some((key, fingerprint)) => {
                    cluster.state.publish_once(&app, &channel, &key, &fingerprint, &event, max_cached).await
                }
                None => cluster
                    .state
                    .publish_cached(&app, &channel, &event, max_cached)
                    .await
                    .map(|_| Once::Published),
            }
        }))
    }

    /// Whether `key` is known to belong to another event of the channel.
    pub async fn key_conflicts(
        &self,
        app: &str,
        channel: &str,
        key: &str,
        fingerprint: &str,
    ) -> Result<bool, LinkError> {
        self.state.key_conflicts(app, channel, key, fingerprint).await
    }

    /// Tells every node that what is before `serial` was purged. Those that it does not reach find out when they are back.
    pub fn tell_purged(&self, app: &str, channel: &str, serial: u64) {
        let topic = self.state.keys().channel_topic(app, channel).into();
        drop(self.transport().publish(keys::partition(app, channel), topic, encode_purged(serial), None));
    }

    /// Has every node close the connections that signed in as the user.
    pub async fn terminate(&self, app: &str, user_id: &str) -> Result<(), LinkError> {
        self.state.terminate(app, user_id).await
    }

    /// What all nodes have of a channel.
    pub async fn channel(&self, app: &str, channel: &str) -> Result<ChannelInfo, LinkError> {
        let read = self.state.channel(app, channel, true).await?;
        Ok(ChannelInfo {
            occupied: read.total > 0,
            subscription_count: count(read.total),
            user_count: count(read.users),
            cached: read.cached.map(|cached| CachedInfo {
                data: String::from_utf8_lossy(&cached.data).into_owned(),
                ttl_seconds: cached.ttl_ms.div_ceil(1000),
            }),
        })
    }

    /// Occupied channels whose name begins with `prefix`, by name.
    pub async fn channels(&self, app: &str, prefix: &str) -> Result<Vec<(Box<str>, ChannelInfo)>, LinkError> {
        let channels = self.state.channels(app, prefix, prefix.starts_with("presence-")).await?;
        let info = |(name, total, users)| {
            let info = ChannelInfo {
                occupied: total > 0,
                subscription_count: count(total),
                user_count: count(users),
                cached: None,
            };
            (name, info)
        };
        Ok(channels.into_iter().map(info).collect())
    }

    /// Ids of a presence channel's members.
    pub async fn user_ids(&self, app: &str, channel: &str) -> Result<Vec<Box<str>>, LinkError> {
        Ok(self.state.users(app, channel).await?.into_iter().map(Box::from).collect())
    }

    /// Connections of the app on all nodes, as they told it last.
    pub async fn connections(&self, app: &str) -> Result<usize, LinkError> {
        self.state.connections(app).await.map(count)
    }

    /// Takes back what this node has, and ends. The workers must have ended.
    pub fn stop(&self) {
        self.notices.push(Notice::Stop);
        if let Some(thread) = lock(&self.thread).take()
            && thread.join().is_err()
        {
            tracing::error!(target: "tidewire::fanout", "the thread of the fan-out panicked");
        }
    }
}

fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Polls it for the first time: what it asks of Redis is then in the queue, behind what was published before.
fn begun(mut sending: Sending) -> Sending {
    match sending.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Box::pin(async move { result }),
        Poll::Pending => sending,
    }
}

impl Outgoing<'_> {
    fn to_message(&self) -> Event {
        Event {
            except: self.except.map(SocketId::to_bits),
            cache: self
                .cache
                .as_ref()
                .map(|(data, ttl_ms)| CachePart { ttl_ms: *ttl_ms, data: data.clone() }),
            frame: self.frame.clone(),
        }
    }
}

/// What the thread begins with.
struct Fanout {
    config: RedisConfig,
    metrics: Arc<Metrics>,
    notices: Arc<Notices>,
    step: Arc<Step>,
    node: Arc<OnceLock<std::sync::Weak<Node>>>,
}

impl Fanout {
    /// Runs until it is told to stop. `tell` hears whether it could begin.
    fn run(self, tell: &mpsc::SyncSender<anyhow::Result<State>>) {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(tell.send(Err(error.into()))),
        };
        let local = LocalSet::new();
        local.block_on(&runtime, async {
            let (transport, driver) = match Transport::connect(&self.config, Arc::clone(&self.metrics)).await
            {
                Ok(connected) => connected,
                Err(error) => return drop(tell.send(Err(error.into()))),
            };
            let state = State::new(transport, &self.config.namespace());
            let topics = Arc::new(Topics::default());
            let (notices, metrics) = (Arc::clone(&self.notices), Arc::clone(&self.metrics));
            let inbound = Arc::new(Inbound::new(Arc::clone(&topics), notices, metrics));
            let registry = Registry::new(Parts {
                state: state.clone(),
                topics,
                notices: self.notices,
                metrics: self.metrics,
                node_timeout: self.config.node_timeout,
                step: self.step,
                node: self.node,
            });
            tokio::spawn(Arc::clone(&inbound).end_bursts());
            spawn_local(driver.run(inbound));
            if let Err(error) = state.rehearse().await {
                let advice = "if it is NOPERM, see docs/cluster.md for what the user of redis.username needs";
                return drop(tell.send(Err(anyhow::anyhow!(
                    "Redis does not do what a cluster needs: {error}; {advice}"
                ))));
            }
            if tell.send(Ok(state)).is_ok() {
                // What is awaited here is polled whenever anything moves; the registry has its own task.
                if let Err(error) = spawn_local(registry.run()).await
                    && let Ok(panic) = error.try_into_panic()
                {
                    std::panic::resume_unwind(panic);
                }
            }
        });
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("transport", self.transport()).finish_non_exhaustive()
    }
}
