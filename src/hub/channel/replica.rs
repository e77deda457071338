//! What the other nodes have of a channel, as this one follows it: a snapshot, then each change in its order.
//!
//! Whatever comes from them is told to the subscribers here when it changes the replica, and only then: of what a
//! snapshot repeats nobody hears twice.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;
use tidewire_protocol::position::{Epoch, Position};
use tidewire_protocol::replay::Reason;
use tidewire_protocol::server_message;
use tidewire_protocol::socket_id::SocketId;

use super::shared::{Phase, Shared};
use super::{CacheEntry, Channel, State, deliver};
use crate::replay::event::StoredEvent;
use crate::replay::ring::Ring;
use crate::replay::store::Stamp;
use crate::sync::lock;
use crate::worker::mailbox::{Audience, Delivery, Job, Mailbox};

/// What may come while a snapshot is on its way; with more, another one is needed.
const MAX_EARLY: usize = 1024;

/// What came before the snapshot did.
#[derive(Debug, Default)]
pub(super) struct Early {
    changes: Vec<MemberChange>,
    events: Vec<RemoteEvent>,
    /// What a snapshot says of the count, or of the cached event, is older than what came since.
    count: Option<u32>,
    has_cache: bool,
}

/// A change of the members, as all nodes hear of it. Versions are contiguous.
#[derive(Clone, Debug)]
pub struct MemberChange {
    pub version: u64,
    pub user_id: Box<str>,
    pub kind: MemberChangeKind,
}

#[derive(Clone, Debug)]
pub enum MemberChangeKind {
    Added(Option<Box<RawValue>>),
    /// Only their `user_info` is another.
    Changed(Option<Box<RawValue>>),
    Removed,
}

/// What the cluster has of a channel.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Of a presence channel.
    pub members: Vec<(Box<str>, Option<Box<RawValue>>)>,
    pub version: u64,
    /// Subscriptions on all nodes, where they were asked for.
    pub count: Option<u32>,
    /// Of a cache channel.
    pub cached: Option<(Bytes, CacheEntry)>,
    /// Of a stored channel.
    pub log: Option<LogSnapshot>,
}

/// What a channel's log has that this node has not delivered.
#[derive(Debug)]
pub struct LogSnapshot {
    /// Of the newest message.
    pub head: Position,
    /// Serial of the oldest message that may be read; what is before it may have been purged.
    pub floor: u64,
    /// Every message after the newest that was delivered here; none where nothing was.
    pub missed: Vec<Arc<StoredEvent>>,
    /// Why there is no going on from what was delivered.
    pub broken: Option<Reason>,
}

/// A message of a stored channel as all nodes hear of it.
#[derive(Clone, Debug)]
pub struct RemoteEvent {
    pub generation: u32,
    pub serial: u64,
    /// By the store's clock.
    pub time_ms: u64,
    /// What it counts in the store.
    pub size: u64,
    pub id: Option<Box<str>>,
    pub except: Option<SocketId>,
    pub frame: Bytes,
    pub cache: Option<Arc<CacheEntry>>,
}

/// How the replica took something in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replicated {
    Done,
    /// Something is missing: a snapshot is needed.
    Gap,
}

/// What a snapshot came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loaded {
    /// More was kept than the snapshot has: load another when all nodes have told what they have.
    pub is_unsettled: bool,
    /// Changes between the snapshot and now are missing: load another.
    pub has_gap: bool,
    /// There is something to report.
    pub is_changed: bool,
    /// See [`Channel::flush_count`].
    pub count_is_pending: bool,
}

impl Channel {
    /// Follows the channel from now on; what comes is kept for after the snapshot.
    pub fn begin_loading(&self) {
        if let Some(shared) = &mut lock(&self.state).shared {
            shared.phase = Phase::Loading;
            shared.early = Early::default();
        }
    }

    /// Is not told of changes any more. Subscribers stay, and newcomers wait.
    pub fn detach(&self) {
        if let Some(shared) = &mut lock(&self.state).shared {
            shared.phase = Phase::Detached;
            shared.early = Early::default();
        }
    }

    /// Makes the replica equal to the snapshot, and tells the difference. `may_remove` is false while members and
    /// subscriptions may be missing in it that are still there: then nobody is removed, the count does not go down, and
    /// it has to be loaded again later, which [`Loaded::is_unsettled`] says.
    pub fn load(
        &self,
        snapshot: Snapshot,
        may_remove: bool,
        announce_count: bool,
        mailboxes: &[Mailbox],
        now_ms: u64,
    ) -> Loaded {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let Some(shared) = &mut state.shared else { return Loaded::default() };
        if shared.phase != Phase::Loading {
            return Loaded::default();
        }
        shared.phase = Phase::Attached;
        shared.loads = shared.loads.saturating_add(1);
        let Early { changes, events, count: early_count, has_cache } = std::mem::take(&mut shared.early);
        let Snapshot { members, version, count, cached, log } = snapshot;
        let mut loaded = Loaded::default();
        let is_here = |user_id: &str| state.members.as_ref().is_some_and(|here| here.get(user_id).is_some());
        let is_unsettled = shared.replace_members(members, version, may_remove, &self.name, is_here);
        for text in std::mem::take(&mut shared.news) {
            self.push(state, mailboxes, &text, Audience::Everyone);
        }
        loaded.is_unsettled = is_unsettled;
        if !has_cache {
            // It may have been purged, or lost.
            state.cached = None;
            if let Some((frame, entry)) = cached {
                state.keep(&frame, entry, 0);
            }
        }
        if let Some(log) = log {
            self.load_log(state, log, mailboxes);
        }
        let overflowed = changes.len() > MAX_EARLY || events.len() > MAX_EARLY;
        loaded.has_gap = overflowed
            || changes
                .into_iter()
                .filter(|change| change.version > version)
                .any(|change| self.take_in_member(state, change, mailboxes) == Replicated::Gap)
            || events.into_iter().any(|event| self.take_in_event(state, event, mailboxes) == Replicated::Gap);
        if let Some(count) = early_count.or(count) {
            if let Some(shared) = &mut state.shared {
                shared.is_count_held = !may_remove && count < shared.count;
                loaded.is_unsettled |= shared.is_count_held;
            }
            loaded.count_is_pending = self.take_in_count(state, count, announce_count, mailboxes, now_ms);
        }
        state.note_gap(loaded.has_gap);
        if let Some(shared) = &mut state.shared {
            shared.call_in(mailboxes);
        }
        loaded.is_changed = state.report();
        loaded
    }

    /// Takes in a change of the members, and tells it.
    pub fn change_member(&self, change: MemberChange, mailboxes: &[Mailbox]) -> Replicated {
        self.follow(change, |early| &mut early.changes, Self::take_in_member, mailboxes)
    }

    /// Delivers a message that the cluster has stored, in the order of the log.
    pub fn deliver_stored(&self, event: RemoteEvent, mailboxes: &[Mailbox]) -> Replicated {
        self.follow(event, |early| &mut early.events, Self::take_in_event, mailboxes)
    }

    /// Takes in what has come, or keeps it for after the snapshot.
    fn follow<T>(
        &self,
        news: T,
        early: fn(&mut Early) -> &mut Vec<T>,
        take_in: fn(&Self, &mut State, T, &[Mailbox]) -> Replicated,
        mailboxes: &[Mailbox],
    ) -> Replicated {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let Some(shared) = &mut state.shared else { return Replicated::Done };
        match shared.phase {
            Phase::Detached => Replicated::Done,
            Phase::Loading => {
                let early = early(&mut shared.early);
                if early.len() <= MAX_EARLY {
                    early.push(news);
                }
                Replicated::Done
            }
            Phase::Attached => {
                let replicated = take_in(self, state, news, mailboxes);
                state.note_gap(replicated == Replicated::Gap);
                if let Some(shared) = &mut state.shared {
                    shared.call_in(mailboxes);
                }
                replicated
            }
        }
    }

    fn take_in_member(&self, state: &mut State, change: MemberChange, mailboxes: &[Mailbox]) -> Replicated {
        let Some(shared) = &mut state.shared else { return Replicated::Done };
        let MemberChange { version, user_id, kind } = change;
        // Of a channel that nobody was in, the count begins anew.
        if version != shared.version + 1 && !shared.members.is_empty() {
            return Replicated::Gap;
        }
        shared.version = version;
        let text = match kind {
            MemberChangeKind::Added(info) => {
                let added = server_message::member_added(&self.name, &user_id, info.as_deref());
                shared.members.insert(Arc::from(user_id), info).is_none().then_some(added)
            }
            MemberChangeKind::Changed(info) => {
                shared.members.insert(Arc::from(user_id), info);
                None
            }
            MemberChangeKind::Removed => {
                let removed = server_message::member_removed(&self.name, &user_id);
                shared.members.remove(&*user_id).is_some().then_some(removed)
            }
        };
        if let Some(text) = text {
            self.push(state, mailboxes, &text, Audience::Everyone);
        }
        Replicated::Done
    }

    /// Takes in how many subscriptions there are. True when telling it has to wait: see [`Channel::flush_count`].
    pub fn change_count(&self, count: u32, announce: bool, mailboxes: &[Mailbox], now_ms: u64) -> bool {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let Some(shared) = &mut state.shared else { return false };
        match shared.phase {
            Phase::Detached => false,
            Phase::Loading => {
                shared.early.count = Some(count);
                false
            }
            Phase::Attached => self.take_in_count(state, count, announce, mailboxes, now_ms),
        }
    }

    fn take_in_count(
        &self,
        state: &mut State,
        count: u32,
        announce: bool,
        mailboxes: &[Mailbox],
        now_ms: u64,
    ) -> bool {
        let Some(shared) = &mut state.shared else { return false };
        if shared.is_count_held && count < shared.count {
            return false;
        }
        shared.is_count_held = false;
        let is_new = std::mem::replace(&mut shared.count, count) != count;
        is_new && announce && self.announce_count(state, mailboxes, now_ms)
    }

    /// Delivers an event that came from the cluster, or this node by way of it.
    pub fn deliver(
        &self,
        frame: Bytes,
        except: Option<SocketId>,
        cache: Option<CacheEntry>,
        mailboxes: &[Mailbox],
    ) {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        if let Some(entry) = cache.filter(|_| self.is_cache) {
            state.keep(&frame, entry, 0);
            if let Some(shared) = &mut state.shared {
                shared.early.has_cache = true;
            }
        }
        deliver(state, mailboxes, Delivery::new(self.id, frame, except));
    }

    fn take_in_event(&self, state: &mut State, event: RemoteEvent, mailboxes: &[Mailbox]) -> Replicated {
        // Since the snapshot the channel may have become a stored one.
        let Some(ring) = &state.ring else { return Replicated::Gap };
        let head = ring.head();
        if event.serial <= head.serial {
            // The log has lost its end, or all it had, and goes on with serials that were given out before.
            let is_new = event.generation > head.epoch.generation;
            return if is_new { Replicated::Gap } else { Replicated::Done };
        }
        if event.serial != head.serial + 1 {
            return Replicated::Gap;
        }
        let RemoteEvent { generation, serial, time_ms, size, id, except, frame, cache } = event;
        let stamp = Stamp {
            position: Position { epoch: Epoch { generation, ..head.epoch }, serial },
            time_ms,
            total_bytes: 0,
            begins_generation: generation != head.epoch.generation,
        };
        if let Some(cache) = cache.filter(|_| self.is_cache) {
            state.keep(&frame, CacheEntry::clone(&cache), serial);
        }
        self.deliver_log(state, &Arc::new(StoredEvent::new(frame, stamp, id, except, size)), mailboxes);
        Replicated::Done
    }

    fn load_log(&self, state: &mut State, log: LogSnapshot, mailboxes: &[Mailbox]) {
        let LogSnapshot { head, floor, missed, broken } = log;
        let goes_on = state.ring.is_some() && broken.is_none();
        if goes_on {
            missed.iter().for_each(|event| self.deliver_log(state, event, mailboxes));
            if let Some(ring) = &mut state.ring {
                ring.forget_before(floor);
            }
            return;
        }
        let had_log = state.ring.replace(Box::new(Ring::new(head))).is_some();
        if let Some(reason) = broken.filter(|_| had_log) {
            let mut workers = state.workers;
            while workers != 0 {
                mailboxes[workers.trailing_zeros() as usize].push(Job::LogBroke {
                    channel: self.id,
                    head,
                    reason,
                });
                workers &= workers - 1;
            }
        }
    }

    fn deliver_log(&self, state: &mut State, event: &Arc<StoredEvent>, mailboxes: &[Mailbox]) {
        if let Some(ring) = &mut state.ring {
            ring.push(event);
        }
        let delivery = Delivery::new(self.id, event.plain().clone(), event.except);
        deliver(state, mailboxes, Delivery { stored: Some(Arc::clone(event)), ..delivery });
    }
}

impl Shared {
    /// Notes in `news` what is different. True when members were kept that the others may still tell of.
    fn replace_members(
        &mut self,
        members: Vec<(Box<str>, Option<Box<RawValue>>)>,
        version: u64,
        may_remove: bool,
        channel: &str,
        is_here: impl Fn(&str) -> bool,
    ) -> bool {
        let mut left = std::mem::take(&mut self.members);
        for (user_id, info) in members {
            if left.remove(&*user_id).is_none() {
                self.news.push(server_message::member_added(channel, &user_id, info.as_deref()));
            }
            self.members.insert(Arc::from(user_id), info);
        }
        // Who is here is there. If Redis knew and does not any more, it has lost others, too.
        let may_remove = may_remove && !left.keys().any(|user_id| is_here(user_id));
        let is_unsettled = !may_remove && !left.is_empty();
        if may_remove {
            self.news.extend(left.keys().map(|user_id| server_message::member_removed(channel, user_id)));
        } else {
            self.members.append(&mut left);
        }
        self.version = version;
        self.note_lost_users();
        is_unsettled
    }
}

impl State {
    /// After a gap only a snapshot helps.
    fn note_gap(&mut self, has_gap: bool) {
        if let (true, Some(shared)) = (has_gap, &mut self.shared) {
            shared.phase = Phase::Detached;
        }
    }
}
