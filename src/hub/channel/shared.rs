//! A channel of a cluster: what all nodes have of it together, as far as this node knows, and who waits for that.
//!
//! This node's own part, its subscriptions and members, is brought to the others by whoever calls
//! [`Channel::take_changes`] and [`Channel::confirm`]. What they have comes as a snapshot and the changes after it.
//! Subscribers hear of what changes here, in the replica: of each change once, wherever it was made, and after a loss of
//! contact of exactly the difference.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::value::RawValue;
use tidewire_protocol::channel_name::Access;
use tidewire_protocol::identity::Member;
use tidewire_protocol::position::{Epoch, Position};
use tidewire_protocol::server_message;

use super::replica::Early;
use super::{COUNT_THROTTLE_FROM, Channel, Joined, LogPosition, State};
use crate::sync::lock;
use crate::worker::mailbox::{ConnectionRef, Job, Mailbox};

#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) phase: Phase,
    /// Counts the snapshots.
    pub(super) loads: u32,
    /// Everybody in a presence channel.
    pub(super) members: BTreeMap<Arc<str>, Option<Box<RawValue>>>,
    /// Of `members`: the last change that is in them.
    pub(super) version: u64,
    /// Subscriptions on all nodes.
    pub(super) count: u32,
    /// Not all nodes have told what they have: until they did, `count` does not go down.
    pub(super) is_count_held: bool,
    pub(super) early: Early,
    /// Texts that subscribers have yet to be sent.
    pub(super) news: Vec<String>,
    /// Users whose connections came or went on this node since [`Channel::take_changes`].
    changed: BTreeSet<Arc<str>>,
    /// By user that this node has: what the cluster says of it.
    confirmed: BTreeMap<Arc<str>, Confirmed>,
    waiting: Vec<Waiter>,
    /// Counts the connections that came. Those up to `told` are known to the others.
    came: u64,
    told: u64,
    /// Whoever brings changes to the others knows that there are some.
    is_reported: bool,
    /// Nobody looks after the channel any more.
    is_released: bool,
}

/// Whether the replica follows the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    Detached,
    /// Changes come in, and a snapshot is on its way.
    Loading,
    Attached,
}

#[derive(Clone, Copy, Debug)]
enum Confirmed {
    /// The user is there since this change, or an earlier one.
    Since(u64),
    /// The channel is full.
    Refused,
}

/// A connection that waits to join.
#[derive(Clone, Debug)]
pub struct Waiter {
    pub connection: ConnectionRef,
    pub ticket: u32,
}

/// A place among those that came: it is good once the others know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    came: u64,
    /// How often the channel had been loaded then.
    loads: u32,
}

/// A connection that wants to join.
#[derive(Clone, Debug)]
pub struct Newcomer<'a> {
    pub waiter: Waiter,
    pub member: Option<&'a Member>,
    /// What it was given when it could not enter [at once](Entrance::Wait).
    pub place: Option<Place>,
    /// Of the log in which its beginning was looked up, where it goes on from a message that it has.
    pub looked_up_in: Option<Epoch>,
}

/// Whether a connection may join.
#[derive(Debug)]
pub enum Entrance {
    Open(Joined),
    /// Its job will come: see [`Job::Enter`].
    Wait(Place),
    /// The log is not the one in which the beginning was looked up, or it was read again since: the beginning may not be
    /// there any more.
    LookAgain(Place),
    TooManyMembers,
    /// The channel left the directory: look it up again.
    Gone,
}

/// This node's part, to be told to the others.
#[derive(Debug, Default)]
pub struct Changes {
    /// All that came before.
    came: u64,
    pub count: u32,
    pub added: Vec<(Arc<str>, Option<Box<RawValue>>)>,
    pub removed: Vec<Arc<str>>,
}

impl Channel {
    /// Adds a connection as soon as this node knows what the others have, and they know of it. True beside the answer
    /// when there is something to report.
    pub fn enter(
        &self,
        newcomer: Newcomer<'_>,
        log_position: Option<LogPosition<'_>>,
        now_ms: u64,
    ) -> (Entrance, bool) {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        if state.is_gone || state.shared.is_none() {
            return (Entrance::Gone, false);
        }
        let Newcomer { waiter, member, place, looked_up_in } = newcomer;
        let place = place.unwrap_or_else(|| state.come(member));
        let Some(shared) = &mut state.shared else { return (Entrance::Gone, false) };
        let entrance = match shared.verdict(member.map(|member| &*member.user_id), place) {
            Verdict::Wait => {
                shared.waiting.push(waiter);
                Entrance::Wait(place)
            }
            Verdict::Refuse => Entrance::TooManyMembers,
            Verdict::Enter => {
                let loads = shared.loads;
                let is_read_again = place.loads > 0 && place.loads != loads;
                let log_head = log_position.map(|position| state.join_log(position));
                match (looked_up_in, log_head) {
                    (Some(epoch), Some(head)) if is_another_log(epoch, head.epoch) || is_read_again => {
                        Entrance::LookAgain(Place { loads, ..place })
                    }
                    _ => {
                        let worker = waiter.connection.worker as usize;
                        Entrance::Open(self.let_in(state, worker, member.is_some(), log_head, now_ms))
                    }
                }
            }
        };
        (entrance, state.report())
    }

    fn let_in(
        &self,
        state: &mut State,
        worker: usize,
        is_presence: bool,
        log_head: Option<Position>,
        now_ms: u64,
    ) -> Joined {
        let succeeded = match &state.shared {
            Some(shared) if is_presence => server_message::presence_succeeded(&self.name, shared.iter()),
            _ => server_message::subscription_succeeded(&self.name),
        };
        state.workers |= 1 << worker;
        Joined {
            after: state.sequence,
            succeeded,
            cached: self.is_cache.then(|| state.live_cache(now_ms).map(|cached| cached.frame.clone())),
            log_head,
            count_is_pending: false,
        }
    }

    /// The channel's count, for a newcomer: everybody else was told when it came. `None` where it is not told at once.
    pub fn count_for_newcomer(&self) -> Option<String> {
        let state = lock(&self.state);
        let count = state.all_subscriptions();
        let is_told = !matches!(self.access, Access::Presence | Access::User) && count <= COUNT_THROTTLE_FROM;
        is_told.then(|| server_message::subscription_count(&self.name, count as usize))
    }

    /// Takes back what [`enter`](Self::enter) began for a connection that waits, or that was refused. True when there
    /// is something to report.
    pub fn give_up(&self, user_id: Option<&str>, waiter: &Waiter) -> bool {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        if let Some(shared) = &mut state.shared {
            shared
                .waiting
                .retain(|other| other.connection != waiter.connection || other.ticket != waiter.ticket);
        }
        state.subscriptions = state.subscriptions.saturating_sub(1);
        state.forget_member(user_id);
        state.report()
    }

    /// What changed on this node since the last call, or, for others that know nothing of it, all that it has.
    pub fn take_changes(&self, everything: bool) -> Changes {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let Some(shared) = &mut state.shared else { return Changes::default() };
        shared.is_reported = false;
        let mut users = std::mem::take(&mut shared.changed);
        if everything {
            shared.confirmed.clear();
            users.extend(state.members.iter().flat_map(|members| members.user_ids()).map(Arc::from));
        }
        let mut changes = Changes { came: shared.came, count: state.subscriptions, ..Changes::default() };
        for user_id in users {
            match state.members.as_ref().and_then(|members| members.get(&user_id)) {
                Some(info) => changes.added.push((user_id, info.map(ToOwned::to_owned))),
                None => changes.removed.push(user_id),
            }
        }
        changes
    }

    /// The changes did not get through, or nobody knows: they are to be taken again.
    pub fn restore_changes(&self, changes: Changes) {
        if let Some(shared) = &mut lock(&self.state).shared {
            shared.changed.extend(changes.removed);
            shared.changed.extend(changes.added.into_iter().map(|(user_id, _)| user_id));
        }
    }

    /// The others know of the changes since `version`, but for users for whom there was no room.
    pub fn confirm(&self, changes: &Changes, version: u64, refused: &[Box<str>], mailboxes: &[Mailbox]) {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let Some(shared) = &mut state.shared else { return };
        shared.told = shared.told.max(changes.came);
        for (user_id, _) in &changes.added {
            let is_here = state.members.as_ref().is_some_and(|members| members.get(user_id).is_some());
            if is_here {
                let is_refused = refused.iter().any(|refused| **refused == **user_id);
                let confirmed = if is_refused { Confirmed::Refused } else { Confirmed::Since(version) };
                shared.confirmed.insert(Arc::clone(user_id), confirmed);
            }
        }
        shared.call_in(mailboxes);
    }

    /// Lets go of a channel that nobody here is in or waits for; false when somebody is.
    pub fn release(&self) -> bool {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let is_unused = state.subscriptions == 0 && state.members.is_none();
        let Some(shared) = &mut state.shared else { return true };
        shared.is_released = is_unused && shared.waiting.is_empty() && !shared.is_reported;
        if shared.is_released {
            shared.phase = Phase::Detached;
        }
        shared.is_released
    }

    /// Whether anybody here is in it, or waits for it.
    pub fn is_in_use(&self) -> bool {
        let state = lock(&self.state);
        state.subscriptions > 0
            || state.members.is_some()
            || state.shared.as_ref().is_some_and(|shared| !shared.waiting.is_empty())
    }
}

/// Whether what was looked up in the one log may be wrong in the other. What was delivered may be behind what is stored:
/// an earlier generation than that of the store does no harm.
fn is_another_log(looked_up_in: Epoch, now: Epoch) -> bool {
    now.nonce != looked_up_in.nonce || now.generation > looked_up_in.generation
}

enum Verdict {
    Enter,
    Wait,
    Refuse,
}

impl Shared {
    pub(super) fn is_released(&self) -> bool {
        self.is_released
    }

    /// Of what this node has, the others may have lost something.
    pub(super) fn note_lost_users(&mut self) {
        let is_lost = |(user_id, confirmed): &(&Arc<str>, &Confirmed)| {
            matches!(confirmed, Confirmed::Since(_)) && !self.members.contains_key(*user_id)
        };
        let lost: Vec<Arc<str>> =
            self.confirmed.iter().filter(is_lost).map(|(user_id, _)| Arc::clone(user_id)).collect();
        lost.iter().for_each(|user_id| self.note_user(user_id));
    }

    fn iter(&self) -> impl Iterator<Item = (&str, Option<&RawValue>)> + Clone {
        self.members.iter().map(|(id, info)| (&**id, info.as_deref()))
    }

    fn verdict(&self, user_id: Option<&str>, place: Place) -> Verdict {
        let is_ready = self.phase == Phase::Attached && place.came <= self.told;
        let Some(user_id) = user_id else {
            return if is_ready { Verdict::Enter } else { Verdict::Wait };
        };
        match self.confirmed.get(user_id) {
            Some(Confirmed::Refused) => Verdict::Refuse,
            Some(Confirmed::Since(version))
                if is_ready && *version <= self.version && self.members.contains_key(user_id) =>
            {
                Verdict::Enter
            }
            _ => Verdict::Wait,
        }
    }

    /// Whether the user is here may not be what the others think.
    pub(super) fn note_user(&mut self, user_id: &str) {
        self.confirmed.remove(user_id);
        self.changed.insert(Arc::from(user_id));
    }

    /// Lets those who wait try again, once something may have changed for them.
    pub(super) fn call_in(&mut self, mailboxes: &[Mailbox]) {
        if self.waiting.is_empty() {
            return;
        }
        for Waiter { connection, ticket } in self.waiting.drain(..) {
            mailboxes[connection.worker as usize].push(Job::Enter(connection, ticket));
        }
    }
}

impl State {
    /// Counts a connection, and its member, as this node's.
    fn come(&mut self, member: Option<&Member>) -> Place {
        self.subscriptions += 1;
        let is_news = member.is_some_and(|member| self.members.get_or_insert_default().join_here(member));
        let Some(shared) = &mut self.shared else { return Place { came: 0, loads: 0 } };
        shared.is_released = false;
        shared.came += 1;
        if let (true, Some(member)) = (is_news, member) {
            shared.note_user(&member.user_id);
        }
        Place { came: shared.came, loads: shared.loads }
    }

    /// True when somebody has to be told that there are changes.
    pub(super) fn report(&mut self) -> bool {
        self.shared.as_mut().is_some_and(|shared| !std::mem::replace(&mut shared.is_reported, true))
    }

    /// Takes a connection of the user out of this node's members.
    pub(super) fn forget_member(&mut self, user_id: Option<&str>) {
        let (Some(user_id), Some(members)) = (user_id, self.members.as_mut()) else { return };
        let is_last = members.leave(user_id);
        if members.is_empty() {
            self.members = None;
        }
        if let (true, Some(shared)) = (is_last, &mut self.shared) {
            shared.note_user(user_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use tidewire_protocol::channel_name::ChannelName;

    use super::*;
    use crate::hub::channel::replica::{LogSnapshot, Snapshot};

    const WAITER: Waiter =
        Waiter { connection: ConnectionRef { worker: 1, slot: 0, generation: 0 }, ticket: 1 };

    fn at(text: &str) -> Position {
        text.parse().unwrap()
    }

    /// A channel whose log is at `head`, and the place of a connection of which the others know.
    fn joining(head: &str) -> (Channel, Place) {
        let channel = Channel::new(1, ChannelName::parse("news", 200).unwrap(), true);
        channel.begin_loading();
        let log = LogSnapshot { head: at(head), floor: 1, missed: Vec::new(), broken: None };
        channel.load(Snapshot { log: Some(log), ..Snapshot::default() }, true, false, &[], 0);
        let newcomer = Newcomer { waiter: WAITER, member: None, place: None, looked_up_in: None };
        let (Entrance::Wait(place), _) = channel.enter(newcomer, None, 0) else {
            panic!("nobody knows of it")
        };
        let mailboxes = [Mailbox::new(10), Mailbox::new(10)];
        channel.confirm(&channel.take_changes(false), 0, &[], &mailboxes);
        (channel, place)
    }

    #[test]
    fn a_beginning_of_another_log_is_looked_up_again_and_takes_no_part_until_then() {
        for (looked_up, head, is_good) in [
            ("a.1:15", "a.1:15", true),
            ("a.1:15", "a.1:20", true),
            ("a.2:15", "a.1:14", true),
            ("a.1:15", "a.2:14", false),
            ("a.1:15", "a.2:20", false),
            ("a.1:15", "b.1:20", false),
        ] {
            let (channel, place) = joining(head);
            let enter = |looked_up_in| {
                let newcomer = Newcomer { waiter: WAITER, member: None, place: Some(place), looked_up_in };
                channel.enter(newcomer, Some(&|| at(head)), 0).0
            };
            match enter(Some(at(looked_up).epoch)) {
                Entrance::Open(joined) => assert_eq!((is_good, joined.log_head), (true, Some(at(head)))),
                Entrance::LookAgain(again) => {
                    assert_eq!((is_good, again), (false, place), "{looked_up} {head}");
                    assert_eq!(lock(&channel.state).workers, 0, "nothing is delivered to its worker");
                    assert!(matches!(enter(Some(at(head).epoch)), Entrance::Open(_)));
                }
                other => panic!("{looked_up} {head}: {other:?}"),
            }
            assert_eq!(lock(&channel.state).workers, 0b10);
        }
    }
}
