//! One app at run time, the table of all apps, and their reload.

mod everywhere;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::{ArcSwap, Guard};
use tidewire_protocol::DataToken;
use tidewire_protocol::auth::SigningKey;
use tidewire_protocol::channel_name::ChannelName;
use tidewire_protocol::socket_id::SocketId;
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::config::{AppConfig, ReplayRule};
use crate::fanout::cluster::{Cluster, LinkError, Outgoing, Sending};
use crate::hub::channel::Channel;
use crate::hub::{Directory, IsChanged, Overloaded, Publish, Users};
use crate::replay::keys::{Keyed, Keys, Known};
use crate::replay::publish::{self, Caching, PublishDone};
use crate::replay::store::StoreError;
use crate::replay::{Busy, ReplayHandle};
use crate::sync::{count_up, lock};
use crate::telemetry::metrics::{AppMetrics, Metrics};
use crate::token_bucket::TokenBucket;
use crate::worker::mailbox::{Job, Mailbox};

pub use crate::replay::publish::Published;

/// An app with its channels and users. It lives on through reloads, which only change its settings.
pub struct App {
    pub id: Box<str>,
    pub metrics: AppMetrics,
    pub channels: Arc<Directory>,
    pub users: Users,
    /// Where the messages of stored channels go; shared by all apps.
    pub replay: ReplayHandle,
    /// The other nodes, if there are any.
    pub cluster: Option<Arc<Cluster>>,
    settings: ArcSwap<Settings>,
    clock: Clock,
    connections: AtomicUsize,
    /// Out of the configuration: the app takes no new connections and no requests.
    is_removed: AtomicBool,
    triggers: Mutex<TokenBucket>,
    /// Idempotency keys of what was published and is not stored.
    keys: Arc<Mutex<Keys>>,
}

/// An app's configuration with its keys made ready for use.
#[derive(Debug)]
pub struct Settings {
    pub config: AppConfig,
    keys: Vec<(Box<str>, SigningKey)>,
}

impl std::ops::Deref for Settings {
    type Target = AppConfig;

    fn deref(&self) -> &AppConfig {
        &self.config
    }
}

impl Settings {
    fn new(config: AppConfig) -> Self {
        let keys = config
            .credentials
            .iter()
            .map(|credential| (Box::from(&*credential.key), SigningKey::new(credential.secret.expose())))
            .collect();
        Self { config, keys }
    }

    /// The signing key that belongs to one of the app's keys.
    pub fn signing_key(&self, key: &str) -> Option<&SigningKey> {
        self.keys.iter().find(|(name, _)| **name == *key).map(|(_, signing_key)| signing_key)
    }
}

/// What becomes of an event that was accepted.
pub enum Receipt {
    Delivered,
    /// It was delivered before, under the same idempotency key.
    Repeat,
    /// It is on its way through the log.
    Pending(oneshot::Receiver<Result<Published, StoreError>>),
    /// It is on its way to all nodes.
    Sending(Sending),
}

/// Why an event was not accepted. Nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishError {
    /// The workers or the store are behind.
    Overloaded,
    /// Its idempotency key belongs to another event.
    Conflict,
    /// The other nodes cannot be reached.
    Unreachable,
}

impl From<LinkError> for PublishError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Overloaded => Self::Overloaded,
            _ => Self::Unreachable,
        }
    }
}

impl From<Overloaded> for PublishError {
    fn from(Overloaded: Overloaded) -> Self {
        Self::Overloaded
    }
}

impl From<Busy> for PublishError {
    fn from(Busy: Busy) -> Self {
        Self::Overloaded
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("id", &self.id).finish_non_exhaustive()
    }
}

impl App {
    fn new(
        config: AppConfig,
        mailboxes: &Arc<[Mailbox]>,
        metrics: &Metrics,
        clock: Clock,
        replay: ReplayHandle,
        cluster: Option<Arc<Cluster>>,
    ) -> Self {
        let is_shared = cluster.is_some();
        let app_metrics = metrics.app(&config.id);
        Self {
            id: Box::from(&*config.id),
            metrics: app_metrics.clone(),
            channels: Arc::new(Directory::new(Arc::clone(mailboxes), app_metrics, is_shared)),
            users: Users::new(Arc::clone(mailboxes), is_shared),
            replay,
            cluster,
            connections: AtomicUsize::new(0),
            is_removed: AtomicBool::new(false),
            triggers: Mutex::new(TokenBucket::new(config.limits.triggers_per_second, clock.now_ms())),
            keys: Arc::default(),
            settings: ArcSwap::from_pointee(Settings::new(config)),
            clock,
        }
    }

    pub fn settings(&self) -> Guard<Arc<Settings>> {
        self.settings.load()
    }

    /// Whether the app may be used at all.
    pub fn is_enabled(&self) -> bool {
        self.settings().enabled && !self.is_removed.load(Ordering::Relaxed)
    }

    pub fn connection_count(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Counts a new connection unless the app is at its quota (1.2, row 8).
    pub fn admit_connection(&self) -> bool {
        let max = self.settings().limits.max_connections;
        count_up(&self.connections, if max == 0 { usize::MAX } else { max })
    }

    pub fn release_connection(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Takes `events` from the app's publish rate; `Err` tells the milliseconds to wait.
    pub fn take_triggers(&self, events: u32) -> Result<(), u64> {
        let rate = self.settings().limits.triggers_per_second;
        if rate == 0 {
            return Ok(());
        }
        let now_ms = self.clock.now_ms();
        let mut bucket = lock(&self.triggers);
        if bucket.try_take(events, now_ms) { Ok(()) } else { Err(bucket.retry_after_ms(events, now_ms)) }
    }

    /// Publishes an event of the REST API: delivered to every subscriber but `except`, and kept on cache
    /// channels (2.9) and stored ones. What was published under the same `key` before is not published again.
    pub fn publish(
        &self,
        channel: ChannelName<'_>,
        event: &str,
        data: &DataToken<'_>,
        except: Option<SocketId>,
        key: Option<&str>,
    ) -> Result<Receipt, PublishError> {
        let settings = self.settings();
        let cache_ttl_ms = Some(settings.limits.cache_ttl_seconds.saturating_mul(1000));
        let event = Publish { channel, event, data, user_id: None, except, cache_ttl_ms };
        let now_ms = self.clock.now_ms();
        if let Some(rule) = settings.replay.rule(channel.as_str()) {
            let caching = Caching { max_events: settings.limits.max_cached_events, now_ms };
            return self.publish_stored(event, key, rule, caching);
        }
        if let Some(cluster) = &self.cluster {
            let key = key.map(|key| (key, self.keyed(&event, key).digest()));
            let event = self.outgoing(&event, settings.limits.max_cached_events);
            return Ok(Receipt::Sending(cluster.send(&event, key)));
        }
        let publish = || self.channels.publish(event, settings.limits.max_cached_events, now_ms);
        let Some(key) = key else {
            publish()?;
            return Ok(Receipt::Delivered);
        };
        // Held while the event is delivered: whoever repeats it hears of it only when that was done.
        let mut keys = lock(&self.keys);
        let message = keys.fingerprint(&self.keyed(&event, key));
        match keys.look_up(message, now_ms) {
            Known::New => {
                publish()?;
                keys.insert(message, None, now_ms);
                Ok(Receipt::Delivered)
            }
            Known::Repeat(_) => Ok(Receipt::Repeat),
            Known::Conflict => Err(PublishError::Conflict),
        }
    }

    fn publish_stored(
        &self,
        event: Publish<'_>,
        key: Option<&str>,
        rule: &ReplayRule,
        caching: Caching,
    ) -> Result<Receipt, PublishError> {
        let now_ms = caching.now_ms;
        let mut live_key = None;
        if let Some(key) = key {
            // What the store could not take in has its key here.
            let mut keys = lock(&self.keys);
            let message = keys.fingerprint(&self.keyed(&event, key));
            match keys.look_up(message, now_ms) {
                Known::New => live_key = Some((Arc::clone(&self.keys), message)),
                Known::Repeat(_) => return Ok(Receipt::Repeat),
                Known::Conflict => return Err(PublishError::Conflict),
            }
        }
        let (sender, receiver) = oneshot::channel();
        let done = Box::new(move |published| {
            if let (Ok(Published::Live), Some((keys, message))) = (&published, live_key) {
                lock(&keys).insert(message, None, now_ms);
            }
            // Nobody may be waiting any more for the answer.
            let _ = sender.send(published);
        });
        self.store(event, key, rule, caching, done)?;
        Ok(Receipt::Pending(receiver))
    }

    fn outgoing<'a>(&'a self, event: &Publish<'a>, max_cached: usize) -> Outgoing<'a> {
        let ttl_ms = event.cache_ttl_ms.filter(|_| event.channel.is_cache());
        Outgoing {
            app: &self.id,
            channel: event.channel.as_str(),
            frame: event.frame(),
            except: event.except,
            cache: ttl_ms.map(|ttl_ms| (event.data.decode().unwrap_or_default().into_owned().into(), ttl_ms)),
            max_cached,
        }
    }

    fn keyed<'a>(&'a self, event: &Publish<'a>, key: &'a str) -> Keyed<'a> {
        Keyed {
            app: &self.id,
            channel: event.channel.as_str(),
            id: key,
            event: event.event,
            data: event.data.as_json(),
            user_id: event.user_id,
            except: event.except.map(SocketId::to_bits),
        }
    }

    /// Relays an event from one client to the others. On channels whose rule stores client events `done` hears what
    /// became of it.
    pub fn relay(&self, event: Publish<'_>, done: impl FnOnce() -> PublishDone) -> Result<(), PublishError> {
        let settings = self.settings();
        let now_ms = self.clock.now_ms();
        let rule = settings.replay.rule(event.channel.as_str());
        if let Some(rule) = rule.filter(|rule| rule.client_events) {
            return self.store(event, None, rule, Caching { max_events: 0, now_ms }, done());
        }
        let Some(cluster) = &self.cluster else { return Ok(self.channels.publish(event, 0, now_ms)?) };
        let done = done();
        let failed = Box::new(move |sent: Result<(), LinkError>| {
            if let Err(error) = sent {
                done(Err(StoreError::Unavailable(error.to_string())));
            }
        });
        Ok(cluster.publish(&self.outgoing(&event, 0), Some(failed))?)
    }

    fn store(
        &self,
        event: Publish<'_>,
        key: Option<&str>,
        rule: &ReplayRule,
        caching: Caching,
        done: PublishDone,
    ) -> Result<(), PublishError> {
        if !self.channels.has_room() {
            return Err(PublishError::Overloaded);
        }
        // Settings that store something are only taken over once the store is open.
        let replay = self.replay.get().ok_or(PublishError::Overloaded)?;
        let append = publish::append_of(&self.id, &event, key, rule);
        publish::publish(replay, &self.channels, event, append, caching, done)?;
        Ok(())
    }

    /// Milliseconds of the server's clock.
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// Tells the cluster, if there is one, that this node's part of a channel has changed.
    pub fn touch_channel(self: &Arc<Self>, channel: &Arc<Channel>, is_changed: bool) {
        if let (true, Some(cluster)) = (is_changed, &self.cluster) {
            cluster.touch_channel(self, channel);
        }
    }

    /// As [`touch_channel`](Self::touch_channel), of a user.
    pub fn touch_user(self: &Arc<Self>, user_id: &str, IsChanged(is_changed): IsChanged) {
        if let (true, Some(cluster)) = (is_changed, &self.cluster) {
            cluster.touch_user(self, user_id);
        }
    }
}

/// Every app, by id and by each of its keys.
#[derive(Debug, Default)]
pub struct AppTable {
    by_id: HashMap<Box<str>, Arc<App>>,
    by_key: HashMap<Box<str>, Arc<App>>,
}

/// The apps, shared by all workers and replaced whole on reload.
#[derive(Debug)]
pub struct Apps {
    table: ArcSwap<AppTable>,
    mailboxes: Arc<[Mailbox]>,
    metrics: Arc<Metrics>,
    clock: Clock,
    replay: ReplayHandle,
    cluster: Option<Arc<Cluster>>,
}

impl Apps {
    pub fn new(
        configs: Vec<AppConfig>,
        mailboxes: Arc<[Mailbox]>,
        metrics: Arc<Metrics>,
        clock: Clock,
        replay: ReplayHandle,
        cluster: Option<Arc<Cluster>>,
    ) -> Self {
        let apps = Self { table: ArcSwap::default(), mailboxes, metrics, clock, replay, cluster };
        apps.reload(configs);
        apps
    }

    pub fn by_key(&self, key: &str) -> Option<Arc<App>> {
        self.table.load().by_key.get(key).cloned()
    }

    pub fn by_id(&self, id: &str) -> Option<Arc<App>> {
        self.table.load().by_id.get(id).cloned()
    }

    pub fn all(&self) -> Vec<Arc<App>> {
        self.table.load().by_id.values().cloned().collect()
    }

    /// Takes over a new set of apps. Known ids keep their connections and channels and get the new settings;
    /// apps that are gone or were disabled lose theirs.
    pub fn reload(&self, configs: Vec<AppConfig>) {
        let old = self.table.load_full();
        let mut table = AppTable::default();
        for config in configs {
            let app = match old.by_id.get(&*config.id) {
                Some(app) => {
                    let counted = app.settings().subscription_count;
                    app.settings.store(Arc::new(Settings::new(config)));
                    if let Some(cluster) = &self.cluster
                        && counted != app.settings().subscription_count
                    {
                        cluster.settings_changed(app);
                    }
                    let rate = app.settings().limits.triggers_per_second;
                    lock(&app.triggers).set_rate(rate, self.clock.now_ms());
                    Arc::clone(app)
                }
                None => Arc::new(App::new(
                    config,
                    &self.mailboxes,
                    &self.metrics,
                    self.clock.clone(),
                    self.replay.clone(),
                    self.cluster.clone(),
                )),
            };
            for (key, _) in &app.settings().keys {
                table.by_key.insert(key.clone(), Arc::clone(&app));
            }
            table.by_id.insert(app.id.clone(), app);
        }
        for app in old.by_id.values() {
            if !table.by_id.contains_key(&app.id) {
                app.is_removed.store(true, Ordering::Relaxed);
            }
            if !app.is_enabled() {
                for mailbox in self.mailboxes.iter() {
                    mailbox.push(Job::CloseApp(Arc::clone(app)));
                }
            }
        }
        self.table.store(Arc::new(table));
    }
}
