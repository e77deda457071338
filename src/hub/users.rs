//! Signed-in users of one app: their connections, and who watches them (2.12, 2.13).

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use dashmap::DashMap;
use tidewire_protocol::{frame, server_message};

use super::channel::shared::Waiter;
use crate::worker::mailbox::{ConnectionRef, Job, Mailbox};

/// Users by id. An entry exists while somebody here is signed in as the user, watches it, or is about to.
#[derive(Debug)]
pub struct Users {
    users: DashMap<Box<str>, User>,
    mailboxes: Arc<[Mailbox]>,
    /// On a node of a cluster: whether a user is online is what all nodes say together.
    is_shared: bool,
}

#[derive(Debug, Default)]
struct User {
    connections: HashSet<ConnectionRef>,
    watchers: HashSet<ConnectionRef>,
    cluster: Cluster,
}

/// Of a user of a cluster.
#[derive(Debug, Default)]
struct Cluster {
    /// Sign-ins that are about to watch the user, or to be it.
    holds: usize,
    /// `None` until it is known.
    is_online: Option<bool>,
    /// Whether this node is told of changes.
    is_attached: bool,
    waiting: Vec<Waiter>,
    /// Whether the others know that somebody is signed in here.
    is_known: bool,
    /// Sign-ins that wait for them to.
    unknown: Vec<Waiter>,
    /// Whoever brings changes to the others knows that there are some.
    is_reported: bool,
}

/// A user of a cluster may have changed on this node: the others have to be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct IsChanged(pub bool);

impl Users {
    pub fn new(mailboxes: Arc<[Mailbox]>, is_shared: bool) -> Self {
        Self { users: DashMap::new(), mailboxes, is_shared }
    }

    /// Notes a sign-in; the user's watchers hear of the first one.
    pub fn sign_in(&self, user_id: &str, connection: ConnectionRef) -> IsChanged {
        let mut user = self.users.entry(user_id.into()).or_default();
        if !user.connections.insert(connection) || user.connections.len() != 1 {
            return IsChanged(false);
        }
        if self.is_shared {
            return user.report();
        }
        self.notify(user_id, &user.watchers, true);
        IsChanged(false)
    }

    /// Forgets a sign-in; the user's watchers hear of the last one.
    pub fn sign_out(&self, user_id: &str, connection: ConnectionRef) -> IsChanged {
        self.with(user_id, |user| {
            user.connections.remove(&connection);
            if self.is_shared {
                return user.report();
            }
            if user.connections.is_empty() {
                self.notify(user_id, &user.watchers, false);
            }
            IsChanged(false)
        })
    }

    /// Starts to tell `watcher` about the user, and returns whether the user is online right now.
    pub fn watch(&self, user_id: &str, watcher: ConnectionRef) -> bool {
        let mut user = self.users.entry(user_id.into()).or_default();
        user.watchers.insert(watcher);
        match self.is_shared {
            true => user.cluster.is_online.unwrap_or(false),
            false => !user.connections.is_empty(),
        }
    }

    pub fn unwatch(&self, user_id: &str, watcher: ConnectionRef) -> IsChanged {
        self.with(user_id, |user| {
            user.watchers.remove(&watcher);
            if self.is_shared { user.report() } else { IsChanged(false) }
        })
    }

    /// Asks for the end of every connection here that signed in as the user; returns how many there are.
    pub fn terminate(&self, user_id: &str) -> usize {
        let Some(user) = self.users.get(user_id) else { return 0 };
        for connection in &user.connections {
            self.mailboxes[connection.worker as usize].push(Job::Terminate(*connection));
        }
        user.connections.len()
    }

    /// Has this node follow what becomes of the user in the cluster; until [`let_go`](Self::let_go) it does. `None` when
    /// it does already, or else whether the others have to be told: the waiter gets its job when it is so.
    pub fn hold(&self, user_id: &str, waiter: &Waiter) -> Option<IsChanged> {
        let mut user = self.users.entry(user_id.into()).or_default();
        user.cluster.holds += 1;
        if user.cluster.is_attached {
            return None;
        }
        user.cluster.waiting.push(waiter.clone());
        Some(user.report())
    }

    /// Signs the waiter's connection in, as far as the others are concerned. `None` when they know already that the user
    /// is signed in here, or else whether they have to be told: the waiter gets its job when they were.
    ///
    /// Nobody may be told of the sign-in before: who then leaves another node would be offline for a moment.
    pub fn announce(&self, user_id: &str, waiter: &Waiter) -> Option<IsChanged> {
        let mut user = self.users.entry(user_id.into()).or_default();
        user.connections.insert(waiter.connection);
        if user.cluster.is_known {
            return None;
        }
        user.cluster.unknown.push(waiter.clone());
        Some(user.report())
    }

    /// The others know whether somebody is signed in here.
    pub fn confirm(&self, user_id: &str, is_signed_in: bool) {
        let Some(mut user) = self.users.get_mut(user_id) else { return };
        user.cluster.is_known = is_signed_in;
        if is_signed_in {
            self.call_in(std::mem::take(&mut user.cluster.unknown));
        }
    }

    pub fn let_go(&self, user_id: &str, waiter: &Waiter) -> IsChanged {
        self.with(user_id, |user| {
            let cluster = &mut user.cluster;
            cluster.holds = cluster.holds.saturating_sub(1);
            let is_other =
                |other: &Waiter| other.connection != waiter.connection || other.ticket != waiter.ticket;
            cluster.waiting.retain(is_other);
            cluster.unknown.retain(is_other);
            user.report()
        })
    }

    /// Whether somebody is signed in here as the user, to be told to others, who may know `nothing`. Later changes are
    /// reported anew.
    pub fn take_state(&self, user_id: &str, nothing: bool) -> bool {
        let Some(mut user) = self.users.get_mut(user_id) else { return false };
        let is_signed_in = !user.connections.is_empty();
        user.cluster.is_reported = false;
        user.cluster.is_known &= is_signed_in && !nothing;
        is_signed_in
    }

    /// Whether somebody is signed in here as the user.
    pub fn is_signed_in(&self, user_id: &str) -> bool {
        self.users.get(user_id).is_some_and(|user| !user.connections.is_empty())
    }

    /// Users that somebody here is signed in as.
    pub fn signed_in(&self) -> Vec<Box<str>> {
        let is_signed_in = |user: &User| !user.connections.is_empty();
        self.users
            .iter()
            .filter(|entry| is_signed_in(entry.value()))
            .map(|entry| entry.key().clone())
            .collect()
    }

    /// Whether anything here depends on the user.
    pub fn is_in_use(&self, user_id: &str) -> bool {
        self.users.get(user_id).is_some_and(|user| user.is_in_use())
    }

    /// Nobody looks after the user any more; false when somebody has to.
    pub fn release(&self, user_id: &str) -> bool {
        let Some(mut user) = self.users.get_mut(user_id) else { return true };
        let is_released = !user.is_in_use() && !user.cluster.is_reported;
        if is_released {
            user.cluster.is_attached = false;
        }
        drop(user);
        self.users.remove_if(user_id, |_, user| user.is_unused());
        is_released
    }

    /// Whether the user is online, as far as it is known.
    pub fn is_online(&self, user_id: &str) -> bool {
        self.users.get(user_id).is_some_and(|user| user.cluster.is_online == Some(true))
    }

    /// What all nodes together say of the user; watchers hear of a change.
    pub fn set_online(&self, user_id: &str, is_online: bool) {
        let Some(mut user) = self.users.get_mut(user_id) else { return };
        let before = user.cluster.is_online.replace(is_online);
        if before.is_some_and(|before| before != is_online) {
            self.notify(user_id, &user.watchers, is_online);
        }
    }

    /// Whether this node is told of changes of the user from now on. When it is, those who wait for it try again.
    pub fn set_attached(&self, user_id: &str, is_attached: bool) {
        let Some(mut user) = self.users.get_mut(user_id) else { return };
        user.cluster.is_attached = is_attached;
        if is_attached {
            self.call_in(std::mem::take(&mut user.cluster.waiting));
        }
    }

    /// Lets those who waited go on.
    fn call_in(&self, waiting: Vec<Waiter>) {
        for Waiter { connection, ticket } in waiting {
            self.mailboxes[connection.worker as usize].push(Job::Enter(connection, ticket));
        }
    }

    fn with(&self, user_id: &str, change: impl FnOnce(&mut User) -> IsChanged) -> IsChanged {
        let Some(mut user) = self.users.get_mut(user_id) else { return IsChanged(false) };
        let is_changed = change(&mut user);
        let is_unused = user.is_unused();
        drop(user);
        if is_unused {
            self.users.remove_if(user_id, |_, user| user.is_unused());
        }
        is_changed
    }

    /// Runs under the user's entry, so that watchers see changes in the order they happened.
    fn notify(&self, user_id: &str, watchers: &HashSet<ConnectionRef>, is_online: bool) {
        if watchers.is_empty() {
            return;
        }
        let text = server_message::watchlist_events(&[(is_online, vec![user_id])]);
        let frame: Bytes = frame::encode_text(&text);
        for watcher in watchers {
            self.mailboxes[watcher.worker as usize].push(Job::Send(*watcher, frame.clone()));
        }
    }
}

impl User {
    fn is_in_use(&self) -> bool {
        !self.connections.is_empty() || !self.watchers.is_empty() || self.cluster.holds > 0
    }

    fn is_unused(&self) -> bool {
        !self.is_in_use() && !self.cluster.is_attached && !self.cluster.is_reported
    }

    fn report(&mut self) -> IsChanged {
        IsChanged(!std::mem::replace(&mut self.cluster.is_reported, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(slot: u32) -> ConnectionRef {
        ConnectionRef { worker: 0, slot, generation: 0 }
    }

    fn waiting(users: &Users) -> usize {
        let mut jobs = Vec::new();
        users.mailboxes[0].take(&mut jobs);
        jobs.len()
    }

    #[test]
    fn s125_watchers_hear_of_the_first_and_of_the_last_connection_only() {
        let users = Users::new(Arc::from([Mailbox::new(10)]), false);
        assert!(!users.watch("u-2", connection(9)));
        let _ = users.sign_in("u-2", connection(1));
        assert_eq!(waiting(&users), 1);
        let _ = users.sign_in("u-2", connection(2));
        let _ = users.sign_out("u-2", connection(1));
        assert_eq!(waiting(&users), 0);
        assert!(users.watch("u-2", connection(8)));
        let _ = users.sign_out("u-2", connection(2));
        assert_eq!(waiting(&users), 2);
        let _ = users.unwatch("u-2", connection(8));
        let _ = users.unwatch("u-2", connection(9));
        assert!(users.users.is_empty());
    }
}
