//! All channels of one app, found by name.
//!
//! Lock order: a shard of the directory, then a channel's order lock, then a mailbox. Nothing takes a shard
//! while it holds an order lock.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dashmap::DashSet;
use tidewire_protocol::channel_name::{Access, ChannelName};
use tidewire_protocol::frame;
use tidewire_protocol::identity::Member;
use tidewire_protocol::position::Position;
use tidewire_protocol::socket_id::SocketId;
use tidewire_protocol::{DataToken, server_message};

use super::channel::{
    CacheEntry, Channel, ChannelInfo, JoinLimits, JoinRefused, Joined, LogPosition, Published,
};
use crate::replay::event::StoredEvent;
use crate::sync::lock;
use crate::telemetry::metrics::AppMetrics;
use crate::worker::mailbox::{ConnectionRef, Job, Mailbox};

/// Channel ids are unique in the process, so that workers can key their lists by them for all apps.
static NEXT_CHANNEL_ID: AtomicU64 = AtomicU64::new(1);

#[derive(Debug)]
pub struct Directory {
    channels: DashSet<ByName>,
    mailboxes: Arc<[Mailbox]>,
    metrics: AppMetrics,
    cached_events: AtomicUsize,
    /// On a node of a cluster.
    is_shared: bool,
    /// Channels whose `subscription_count` waits for its throttle: at most one entry per channel.
    pending_counts: Mutex<Vec<Arc<Channel>>>,
}

/// An event on its way to a channel.
#[derive(Clone, Copy, Debug)]
pub struct Publish<'a> {
    pub channel: ChannelName<'a>,
    pub event: &'a str,
    pub data: &'a DataToken<'a>,
    /// Authorised id of the sender, of client events on presence channels only.
    pub user_id: Option<&'a str>,
    pub except: Option<SocketId>,
    /// How long a cache channel keeps the event; `None` for client events, which are never cached.
    pub cache_ttl_ms: Option<u64>,
}

impl Publish<'_> {
    /// As subscribers get it.
    pub fn frame(&self) -> Bytes {
        let text = server_message::channel_event(self.event, self.channel.as_str(), self.data, self.user_id);
        frame::encode_text(&text)
    }
}

/// Whether an event is kept on its channel.
#[derive(Clone, Copy)]
struct Caching {
    /// Of cache channels.
    expires_ms: Option<u64>,
    /// Of the app.
    max_events: usize,
}

impl Caching {
    fn of(event: &Publish<'_>, max_events: usize, now_ms: u64) -> Self {
        let ttl_ms = event.cache_ttl_ms.filter(|_| event.channel.is_cache());
        Self { expires_ms: ttl_ms.map(|ttl_ms| now_ms.saturating_add(ttl_ms)), max_events }
    }
}

/// A worker's queue is full: nothing was sent, try again in a second.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server is overloaded; nothing was sent, try again in a second")]
pub struct Overloaded;

/// A subscription that was entered in the directory.
#[derive(Debug)]
pub struct Subscribed {
    pub channel: Arc<Channel>,
    pub joined: Joined,
}

impl Directory {
    pub fn new(mailboxes: Arc<[Mailbox]>, metrics: AppMetrics, is_shared: bool) -> Self {
        Self {
            is_shared,
            channels: DashSet::new(),
            mailboxes,
            metrics,
            cached_events: AtomicUsize::new(0),
            pending_counts: Mutex::default(),
        }
    }

    pub fn get(&self, name: &str) -> Option<Arc<Channel>> {
        self.channels.get(name).map(|entry| Arc::clone(&entry.0))
    }

    /// Adds a connection of `worker` to the channel, making the channel when it is new.
    pub fn subscribe(
        &self,
        name: ChannelName<'_>,
        worker: usize,
        member: Option<&Member>,
        limits: JoinLimits,
        log_position: Option<LogPosition<'_>>,
        now_ms: u64,
    ) -> Result<Subscribed, JoinRefused> {
        loop {
            let channel = self.get_or_create(name);
            match channel.join(worker, member, limits, log_position, &self.mailboxes, now_ms) {
                Ok(joined) => {
                    if joined.count_is_pending {
                        lock(&self.pending_counts).push(Arc::clone(&channel));
                    }
                    return Ok(Subscribed { channel, joined });
                }
                Err(JoinRefused::Gone) => {}
                Err(refused) => {
                    self.remove_idle(&channel, now_ms);
                    return Err(refused);
                }
            }
        }
    }

    /// Takes a connection of `worker` out of the channel. True when a cluster has to be told.
    pub fn unsubscribe(
        &self,
        channel: &Arc<Channel>,
        worker: usize,
        worker_is_done: bool,
        user_id: Option<&str>,
        announce_count: bool,
        now_ms: u64,
    ) -> bool {
        let left = channel.leave(worker, worker_is_done, user_id, announce_count, &self.mailboxes, now_ms);
        if left.count_is_pending {
            lock(&self.pending_counts).push(Arc::clone(channel));
        }
        if left.is_idle {
            self.remove_idle(channel, now_ms);
        }
        left.is_changed
    }

    /// Sends the channel's count when its throttle allows it.
    pub fn await_count(&self, channel: &Arc<Channel>) {
        lock(&self.pending_counts).push(Arc::clone(channel));
    }

    pub fn mailboxes(&self) -> &Arc<[Mailbox]> {
        &self.mailboxes
    }

    /// Sends an event to every subscriber but `except`. `max_cached_events` bounds the app's cache entries.
    pub fn publish(
        &self,
        event: Publish<'_>,
        max_cached_events: usize,
        now_ms: u64,
    ) -> Result<(), Overloaded> {
        let caching = Caching::of(&event, max_cached_events, now_ms);
        // A channel that nobody is subscribed to is made only to keep an event.
        let found = self.get(event.channel.as_str());
        if found.is_none() && caching.expires_ms.is_none() {
            return Ok(());
        }
        if !self.has_room() {
            return Err(Overloaded);
        }
        let frame = event.frame();
        self.deliver(found, &event, caching, now_ms, |channel, entry| {
            channel.publish(frame.clone(), event.except, entry, None, &self.mailboxes)
        });
        Ok(())
    }

    /// Delivers an event that the log could not take in. `skipped_to` is where the log stands behind it.
    pub fn publish_skipped(
        &self,
        event: Publish<'_>,
        frame: &Bytes,
        skipped_to: Position,
        max_cached_events: usize,
        now_ms: u64,
    ) {
        let caching = Caching::of(&event, max_cached_events, now_ms);
        let found = self.get(event.channel.as_str());
        self.deliver(found, &event, caching, now_ms, |channel, entry| {
            channel.publish(frame.clone(), event.except, entry, Some(skipped_to), &self.mailboxes)
        });
    }

    /// Delivers a message that the log has taken in, and cannot be refused any more. `event` says how it is cached.
    pub fn publish_stored(
        &self,
        event: Publish<'_>,
        stored: &Arc<StoredEvent>,
        max_cached_events: usize,
        now_ms: u64,
    ) {
        let caching = Caching::of(&event, max_cached_events, now_ms);
        let found = self.get(event.channel.as_str());
        self.deliver(found, &event, caching, now_ms, |channel, entry| {
            channel.publish_stored(Arc::clone(stored), entry, &self.mailboxes)
        });
    }

    /// Sends a frame to one connection, if it is still there.
    pub fn send_to(&self, connection: ConnectionRef, frame: Bytes) {
        self.mailboxes[connection.worker as usize].push(Job::Send(connection, frame));
    }

    /// Whether the workers keep up with what is published.
    pub fn has_room(&self) -> bool {
        self.mailboxes.iter().all(Mailbox::has_room)
    }

    /// Publishes on the channel that was found, or that is made for what it is to cache.
    fn deliver(
        &self,
        mut found: Option<Arc<Channel>>,
        event: &Publish<'_>,
        caching: Caching,
        now_ms: u64,
        publish: impl Fn(&Channel, Option<CacheEntry>) -> Published,
    ) {
        loop {
            let channel = match found {
                Some(channel) => channel,
                None if caching.expires_ms.is_some() && self.has_cache_room(caching.max_events) => {
                    self.get_or_create(event.channel)
                }
                None => return,
            };
            let expires_ms =
                caching.expires_ms.filter(|_| self.may_cache(&channel, caching.max_events, now_ms));
            let entry = expires_ms.map(|expires_ms| CacheEntry {
                data: event.data.decode().unwrap_or_default().into(),
                expires_ms,
            });
            match publish(&channel, entry) {
                Published::Gone => {
                    found = self.get(event.channel.as_str());
                    continue;
                }
                Published::Done { is_new_entry: true } => {
                    self.cached_events.fetch_add(1, Ordering::Relaxed);
                }
                Published::Done { is_new_entry: false } => {}
            }
            if expires_ms.is_none() && caching.expires_ms.is_some() {
                // Another publish may have taken the last place since the channel was made.
                self.remove_idle(&channel, now_ms);
            }
            return;
        }
    }

    /// `info` of a channel; that of a channel nobody knows is empty.
    pub fn info(&self, name: &str, now_ms: u64) -> ChannelInfo {
        self.get(name).map(|channel| channel.info(now_ms)).unwrap_or_default()
    }

    /// Occupied channels whose name begins with `prefix`, without users' own channels (4.7).
    pub fn occupied(&self, prefix: &str, now_ms: u64) -> Vec<(Box<str>, ChannelInfo)> {
        self.channels
            .iter()
            .filter(|entry| entry.0.access() != Access::User && entry.0.name().starts_with(prefix))
            .map(|entry| (Box::from(entry.0.name()), entry.0.info(now_ms)))
            .filter(|(_, info)| info.occupied)
            .collect()
    }

    /// Sends the counts whose throttle has passed. Called with every tick.
    pub fn flush_counts(&self, now_ms: u64) {
        let mut waiting = std::mem::take(&mut *lock(&self.pending_counts));
        waiting.retain(|channel| channel.flush_count(&self.mailboxes, now_ms));
        lock(&self.pending_counts).append(&mut waiting);
    }

    /// Lets nobody have what was purged from a channel's log.
    pub fn forget_before(&self, name: &str, serial: u64, now_ms: u64) {
        let Some(channel) = self.get(name) else { return };
        // In a cluster the entries are counted where they are kept.
        if channel.forget_before(serial) && !self.is_shared {
            self.cached_events.fetch_sub(1, Ordering::Relaxed);
            self.remove_idle(&channel, now_ms);
        }
    }

    /// Drops expired cache entries, and the channels that only they kept.
    pub fn expire_cache(&self, now_ms: u64) {
        if self.cached_events.load(Ordering::Relaxed) == 0 {
            return;
        }
        let expired: Vec<Arc<Channel>> = self
            .channels
            .iter()
            .filter(|entry| entry.0.expire_cache(now_ms))
            .map(|entry| Arc::clone(&entry.0))
            .collect();
        self.cached_events.fetch_sub(expired.len(), Ordering::Relaxed);
        for channel in expired {
            self.remove_idle(&channel, now_ms);
        }
    }

    fn has_cache_room(&self, max_cached_events: usize) -> bool {
        self.cached_events.load(Ordering::Relaxed) < max_cached_events
    }

    fn may_cache(&self, channel: &Channel, max_cached_events: usize, now_ms: u64) -> bool {
        self.has_cache_room(max_cached_events) || channel.info(now_ms).cached.is_some()
    }

    pub fn get_or_create(&self, name: ChannelName<'_>) -> Arc<Channel> {
        loop {
            if let Some(channel) = self.get(name.as_str()) {
                return channel;
            }
            let channel =
                Arc::new(Channel::new(NEXT_CHANNEL_ID.fetch_add(1, Ordering::Relaxed), name, self.is_shared));
            if self.channels.insert(ByName(Arc::clone(&channel))) {
                self.metrics.channels.inc();
                return channel;
            }
            // Somebody else was faster: take theirs, unless it has left again already.
        }
    }

    /// Drops a channel that nobody needs any more.
    pub fn remove_idle(&self, channel: &Arc<Channel>, now_ms: u64) {
        let mut retired = None;
        self.channels.remove_if(channel.name(), |entry| {
            retired = if Arc::ptr_eq(&entry.0, channel) { channel.retire(now_ms) } else { None };
            retired.is_some()
        });
        if let Some(retired) = retired {
            self.metrics.channels.dec();
            if retired.had_cache_entry {
                self.cached_events.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

/// A channel that hashes and compares as its name, so that the name is kept once.
#[derive(Debug)]
struct ByName(Arc<Channel>);

impl Borrow<str> for ByName {
    fn borrow(&self) -> &str {
        self.0.name()
    }
}

impl Hash for ByName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name().hash(state);
    }
}

impl PartialEq for ByName {
    fn eq(&self, other: &Self) -> bool {
        self.0.name() == other.0.name()
    }
}

impl Eq for ByName {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;

    fn directory() -> Directory {
        Directory::new(Arc::from([Mailbox::new(1000)]), Metrics::new().app("1"), false)
    }

    fn name(text: &str) -> ChannelName<'_> {
        ChannelName::parse(text, 200).unwrap()
    }

    fn publish(directory: &Directory, channel: &str, max_cached_events: usize, now_ms: u64) {
        let event = Publish {
            channel: name(channel),
            event: "e",
            data: &DataToken::EMPTY_OBJECT,
            user_id: None,
            except: None,
            cache_ttl_ms: Some(1000),
        };
        directory.publish(event, max_cached_events, now_ms).unwrap();
    }

    #[test]
    fn an_event_that_is_not_kept_leaves_no_channel_behind() {
        let directory = directory();
        for channel in ["cache-1", "cache-2", "cache-3"] {
            publish(&directory, channel, 1, 0);
        }
        assert_eq!(directory.channels.len(), 1);
        publish(&directory, "cache-1", 1, 500);
        assert!(directory.info("cache-1", 1400).cached.is_some());
        directory.expire_cache(1500);
        assert_eq!(directory.channels.len(), 0);
        assert_eq!(directory.cached_events.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_channel_waits_once_however_often_its_count_crosses_the_threshold() {
        let directory = directory();
        let limits = JoinLimits { max_members: 1, announce_count: true };
        let join = || directory.subscribe(name("news"), 0, None, limits, None, 10).unwrap().channel;
        let channel = join();
        (1..100).for_each(|_| drop(join()));
        for _ in 0..5 {
            join();
            directory.unsubscribe(&channel, 0, false, None, true, 10);
        }
        assert_eq!(lock(&directory.pending_counts).len(), 1);
        directory.flush_counts(10_000);
        assert_eq!(lock(&directory.pending_counts).len(), 0);
    }
}
