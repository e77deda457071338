//! One channel: its order, its subscribers' workers, members, counts and cached event.
//!
//! Everything that decides what a subscriber sees happens under the channel's one lock, the *order lock*:
//! joining, leaving and publishing each take it once, so that every worker receives the channel's frames in
//! the same order and a newcomer's snapshot joins the stream without a hole or a repetition.
//!
//! On a node of a cluster [`shared`] has what differs: subscribers enter when the others know, and what is published
//! comes back from them.

pub mod replica;
pub mod shared;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tidewire_protocol::channel_name::{Access, ChannelName};
use tidewire_protocol::identity::Member;
use tidewire_protocol::position::Position;
use tidewire_protocol::replay::Reason;
use tidewire_protocol::socket_id::SocketId;
use tidewire_protocol::{frame, server_message};

use self::shared::Shared;
use super::members::{Full, Members};
use crate::replay::event::StoredEvent;
use crate::replay::ring::Ring;
use crate::replay::store::Retention;
use crate::sync::lock;
use crate::worker::mailbox::{Audience, Delivery, Job, Mailbox};

/// Above this many subscribers `subscription_count` is throttled (2.11).
const COUNT_THROTTLE_FROM: u32 = 100;
/// Milliseconds between two throttled counts.
const COUNT_THROTTLE_MS: u64 = 5_000;

#[derive(Debug)]
pub struct Channel {
    /// Unique in this process; workers key their subscriber lists by it.
    pub id: u64,
    name: Box<str>,
    access: Access,
    is_cache: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Frames published so far; the next one is `sequence + 1`.
    sequence: u64,
    /// Bit per worker that has a subscriber here.
    workers: u64,
    subscriptions: u32,
    /// Taken out of the directory: whoever still holds the channel has to look it up again.
    is_gone: bool,
    members: Option<Box<Members>>,
    cached: Option<Box<Cached>>,
    count: CountThrottle,
    /// Of a stored channel that somebody has joined: the end of its log, as far as it was delivered.
    ring: Option<Box<Ring>>,
    /// On a node of a cluster; `members` and `subscriptions` are this node's.
    shared: Option<Box<Shared>>,
}

#[derive(Debug, Default)]
struct CountThrottle {
    last_sent_ms: u64,
    is_pending: bool,
    /// In the directory's list of those that wait; only [`Channel::flush_count`] takes it out.
    is_listed: bool,
}

/// The last event of a cache channel (2.9).
#[derive(Debug)]
struct Cached {
    frame: Bytes,
    /// The event's data as text, for `info=cache`.
    data: Box<str>,
    expires_ms: u64,
    /// In the channel's log; 0 when it is not there.
    serial: u64,
}

/// What a worker needs to know of the app's settings to join a connection.
#[derive(Clone, Copy, Debug)]
pub struct JoinLimits {
    pub max_members: usize,
    /// Whether the app has `subscription_count` on.
    pub announce_count: bool,
}

/// Asks the store where a channel's log stands.
pub type LogPosition<'a> = &'a dyn Fn() -> Position;

/// A connection was added to the channel.
#[derive(Debug)]
pub struct Joined {
    /// The channel's sequence at that moment: frames up to it are not for the newcomer.
    pub after: u64,
    /// `subscription_succeeded` as JSON text.
    pub succeeded: String,
    /// Of cache channels: the cached frame, or `None` inside for a miss.
    pub cached: Option<Option<Bytes>>,
    /// Of stored channels: the newest message. Later ones are delivered, as far as the newcomer is live.
    pub log_head: Option<Position>,
    /// The count frame waits for the throttle to pass: call [`Channel::flush_count`] later.
    pub count_is_pending: bool,
}

#[derive(Debug)]
pub enum JoinRefused {
    /// The channel left the directory in between: look it up again.
    Gone,
    TooManyMembers,
}

/// A connection was removed from the channel.
#[derive(Debug, Default)]
pub struct Left {
    /// The cluster has to be told.
    pub is_changed: bool,
    /// Nothing keeps the channel any more.
    pub is_idle: bool,
    pub count_is_pending: bool,
}

/// What reads of the REST API tell about a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelInfo {
    pub occupied: bool,
    pub subscription_count: usize,
    pub user_count: usize,
    pub cached: Option<CachedInfo>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedInfo {
    pub data: String,
    pub ttl_seconds: u64,
}

/// What a publish adds to a cache channel.
#[derive(Clone, Debug)]
pub struct CacheEntry {
    pub data: Box<str>,
    pub expires_ms: u64,
}

impl Channel {
    pub fn new(id: u64, name: ChannelName<'_>, is_shared: bool) -> Self {
        let state = State { shared: is_shared.then(Box::default), ..State::default() };
        Self {
            id,
            name: name.as_str().into(),
            access: name.access(),
            is_cache: name.is_cache(),
            state: Mutex::new(state),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn access(&self) -> Access {
        self.access
    }

    pub fn is_presence(&self) -> bool {
        self.access == Access::Presence
    }

    pub fn is_cache(&self) -> bool {
        self.is_cache
    }

    /// Adds a connection of `worker`, with its member identity on a presence channel. On a stored one `log_position`
    /// tells where the log stands, should nobody else have joined.
    pub fn join(
        &self,
        worker: usize,
        member: Option<&Member>,
        limits: JoinLimits,
        log_position: Option<LogPosition<'_>>,
        mailboxes: &[Mailbox],
        now_ms: u64,
    ) -> Result<Joined, JoinRefused> {
        let mut state = lock(&self.state);
        if state.is_gone {
            return Err(JoinRefused::Gone);
        }
        let succeeded = match member {
            None => server_message::subscription_succeeded(&self.name),
            Some(member) => {
                let members = state.members.get_or_insert_default();
                let is_first =
                    members.join(member, limits.max_members).map_err(|Full| JoinRefused::TooManyMembers)?;
                let succeeded = server_message::presence_succeeded(&self.name, members.iter());
                if is_first {
                    let info = member.user_info.as_deref();
                    let added = server_message::member_added(&self.name, &member.user_id, info);
                    self.push(&mut state, mailboxes, &added, Audience::Everyone);
                }
                succeeded
            }
        };
        state.workers |= 1 << worker;
        state.subscriptions += 1;
        let after = state.sequence;
        let cached = self.is_cache.then(|| state.live_cache(now_ms).map(|cached| cached.frame.clone()));
        let log_head = log_position.map(|position| state.join_log(position));
        let count_is_pending = limits.announce_count && self.announce_count(&mut state, mailboxes, now_ms);
        Ok(Joined { after, succeeded, cached, log_head, count_is_pending })
    }

    /// Removes a connection. `worker_is_done` says that it was the worker's last subscriber here.
    pub fn leave(
        &self,
        worker: usize,
        worker_is_done: bool,
        user_id: Option<&str>,
        announce_count: bool,
        mailboxes: &[Mailbox],
        now_ms: u64,
    ) -> Left {
        let mut state = lock(&self.state);
        state.subscriptions = state.subscriptions.saturating_sub(1);
        if worker_is_done {
            state.workers &= !(1 << worker);
        }
        if state.shared.is_some() {
            state.forget_member(user_id);
            let is_changed = state.report();
            return Left { is_changed, is_idle: state.is_idle(now_ms), count_is_pending: false };
        }
        if let (Some(user_id), Some(members)) = (user_id, state.members.as_mut()) {
            let is_last = members.leave(user_id);
            if members.is_empty() {
                state.members = None;
            }
            if is_last {
                let removed = server_message::member_removed(&self.name, user_id);
                self.push(&mut state, mailboxes, &removed, Audience::Everyone);
            }
        }
        let count_is_pending = announce_count && self.announce_count(&mut state, mailboxes, now_ms);
        Left { is_changed: false, is_idle: state.is_idle(now_ms), count_is_pending }
    }

    /// Sends one encoded frame to all subscribers but `except`, and keeps `cache` on a cache channel.
    /// Returns whether the channel has a cached event now that it had not before.
    ///
    /// `skipped_to` is where the log stands behind an event that it could not take in.
    pub fn publish(
        &self,
        frame: Bytes,
        except: Option<SocketId>,
        cache: Option<CacheEntry>,
        skipped_to: Option<Position>,
        mailboxes: &[Mailbox],
    ) -> Published {
        let mut state = lock(&self.state);
        if state.is_gone {
            return Published::Gone;
        }
        if let (Some(ring), Some(position)) = (&mut state.ring, skipped_to) {
            **ring = Ring::new(position);
        }
        let is_new_entry = cache.is_some_and(|cache| state.keep(&frame, cache, 0));
        let delivery = Delivery::new(self.id, frame, except);
        deliver(&mut state, mailboxes, delivery);
        Published::Done { is_new_entry }
    }

    /// As [`publish`](Self::publish), for a message that the log has taken in.
    pub fn publish_stored(
        &self,
        event: Arc<StoredEvent>,
        cache: Option<CacheEntry>,
        mailboxes: &[Mailbox],
    ) -> Published {
        let mut state = lock(&self.state);
        if state.is_gone {
            return Published::Gone;
        }
        let is_new_entry = cache.is_some_and(|cache| state.keep(event.plain(), cache, event.serial()));
        if state.take_in(&event) {
            let delivery = Delivery::new(self.id, event.plain().clone(), event.except);
            deliver(&mut state, mailboxes, Delivery { stored: Some(event), ..delivery });
        }
        Published::Done { is_new_entry }
    }

    /// Every message after `cursor`; `None` when some of them are only in the log. Later messages are on their way to
    /// the worker's mailbox, or will be.
    pub fn catch_up(&self, cursor: u64) -> Option<Vec<Arc<StoredEvent>>> {
        Some(lock(&self.state).ring.as_deref()?.after(cursor)?.cloned().collect())
    }

    /// Lets nobody have what was purged from the log. True when the cached event was among it.
    pub fn forget_before(&self, serial: u64) -> bool {
        let mut state = lock(&self.state);
        if let Some(ring) = &mut state.ring {
            ring.forget_before(serial);
        }
        state.cached.take_if(|cached| cached.serial < serial).is_some()
    }

    /// Where the log stands for those who are subscribed. `position` tells where the store has it, should nobody
    /// have joined since the channel is stored.
    pub fn begin_log(&self, position: LogPosition<'_>) -> Position {
        lock(&self.state).join_log(position)
    }

    /// Where the log stands for those who are subscribed; `None` when it is not stored, or nobody has joined.
    pub fn log_head(&self) -> Option<Position> {
        lock(&self.state).ring.as_deref().map(Ring::head)
    }

    /// Whether a client at `cursor` can go on from there; `None` when only the store can tell. `now_ms` is of the
    /// store's clock.
    pub fn resolve(
        &self,
        cursor: Position,
        retention: &Retention,
        max_replay: u64,
        now_ms: u64,
    ) -> Option<Result<(), Reason>> {
        lock(&self.state).ring.as_deref()?.resolve(cursor, retention, max_replay, now_ms)
    }

    /// Sends the count that the throttle held back, once it may go.
    /// Returns true while it still has to wait.
    pub fn flush_count(&self, mailboxes: &[Mailbox], now_ms: u64) -> bool {
        let mut state = lock(&self.state);
        if !state.count.is_pending {
            state.count.is_listed = false;
            return false;
        }
        if now_ms < state.count.last_sent_ms + COUNT_THROTTLE_MS {
            return true;
        }
        state.count.is_listed = false;
        self.send_count(&mut state, mailboxes, now_ms);
        false
    }

    pub fn info(&self, now_ms: u64) -> ChannelInfo {
        let state = lock(&self.state);
        ChannelInfo {
            occupied: state.subscriptions > 0,
            subscription_count: state.subscriptions as usize,
            user_count: state.members.as_ref().map_or(0, |members| members.len()),
            cached: state.live_cache(now_ms).map(|cached| CachedInfo {
                data: cached.data.to_string(),
                ttl_seconds: (cached.expires_ms - now_ms).div_ceil(1000),
            }),
        }
    }

    pub fn user_ids(&self) -> Vec<Box<str>> {
        let state = lock(&self.state);
        state.members.iter().flat_map(|members| members.user_ids().map(Box::from)).collect()
    }

    /// Drops an expired cache entry; true when there was one.
    pub fn expire_cache(&self, now_ms: u64) -> bool {
        let mut state = lock(&self.state);
        let is_expired = state.cached.is_some() && state.live_cache(now_ms).is_none();
        if is_expired {
            state.cached = None;
        }
        is_expired
    }

    /// Marks an idle channel as gone, for the directory that is about to drop it.
    pub fn retire(&self, now_ms: u64) -> Option<Retired> {
        let mut state = lock(&self.state);
        if state.is_gone || !state.is_idle(now_ms) {
            return None;
        }
        state.is_gone = true;
        Some(Retired { had_cache_entry: state.cached.take().is_some() })
    }

    /// Announces the new count now, or notes that it has to wait; true when it has just begun to wait.
    fn announce_count(&self, state: &mut State, mailboxes: &[Mailbox], now_ms: u64) -> bool {
        if matches!(self.access, Access::Presence | Access::User) {
            return false;
        }
        let is_quiet = now_ms >= state.count.last_sent_ms + COUNT_THROTTLE_MS;
        if state.all_subscriptions() <= COUNT_THROTTLE_FROM || is_quiet {
            self.send_count(state, mailboxes, now_ms);
            return false;
        }
        state.count.is_pending = true;
        !std::mem::replace(&mut state.count.is_listed, true)
    }

    fn send_count(&self, state: &mut State, mailboxes: &[Mailbox], now_ms: u64) {
        state.count.last_sent_ms = now_ms;
        state.count.is_pending = false;
        let text = server_message::subscription_count(&self.name, state.all_subscriptions() as usize);
        let audience =
            if self.access == Access::Encrypted { Audience::ExceptJava } else { Audience::Everyone };
        self.push(state, mailboxes, &text, audience);
    }

    fn push(&self, state: &mut State, mailboxes: &[Mailbox], text: &str, audience: Audience) {
        if state.workers != 0 {
            let delivery = Delivery::new(self.id, frame::encode_text(text), None);
            deliver(state, mailboxes, Delivery { audience, ..delivery });
        }
    }
}

pub enum Published {
    Gone,
    Done { is_new_entry: bool },
}

pub struct Retired {
    pub had_cache_entry: bool,
}

impl State {
    fn live_cache(&self, now_ms: u64) -> Option<&Cached> {
        self.cached.as_deref().filter(|cached| cached.expires_ms > now_ms)
    }

    /// Keeps a cache channel's last event; true when there was none before.
    fn keep(&mut self, frame: &Bytes, cache: CacheEntry, serial: u64) -> bool {
        let CacheEntry { data, expires_ms } = cache;
        self.cached.replace(Box::new(Cached { frame: frame.clone(), data, expires_ms, serial })).is_none()
    }

    /// Where the newcomer begins. The store's own position counts while no ring does: what was stored since will still
    /// be delivered, and is then known to be there already.
    fn join_log(&mut self, position: LogPosition<'_>) -> Position {
        self.ring.get_or_insert_with(|| Box::new(Ring::new(position()))).head()
    }

    /// Whether there is somebody to deliver the message to. Those who were told that they are past it know so.
    fn take_in(&mut self, event: &Arc<StoredEvent>) -> bool {
        if self.subscriptions == 0 {
            // Whoever joins next asks the store where the log stands.
            self.ring = None;
            return false;
        }
        let before = Position { serial: event.serial() - 1, ..event.stamp.position };
        // Subscribers without a ring came before the channel was stored.
        self.ring.get_or_insert_with(|| Box::new(Ring::new(before))).push(event);
        true
    }

    /// On all nodes, where there are others.
    fn all_subscriptions(&self) -> u32 {
        self.shared.as_ref().map_or(self.subscriptions, |shared| shared.count)
    }

    fn is_idle(&self, now_ms: u64) -> bool {
        match &self.shared {
            Some(shared) => shared.is_released(),
            None => self.subscriptions == 0 && self.live_cache(now_ms).is_none(),
        }
    }
}

/// Gives the frame its place in the channel's order, and a copy to each worker with subscribers.
fn deliver(state: &mut State, mailboxes: &[Mailbox], delivery: Delivery) {
    state.sequence += 1;
    let delivery = Delivery { sequence: state.sequence, ..delivery };
    let mut workers = state.workers;
    while workers != 0 {
        let worker = workers.trailing_zeros() as usize;
        workers &= workers - 1;
        mailboxes[worker].push(Job::Deliver(delivery.clone()));
    }
}
