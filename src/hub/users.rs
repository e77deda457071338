//! Signed-in users of one app: their connections, and who watches them (2.12, 2.13).

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use dashmap::DashMap;
use tidewire_protocol::{frame, server_message};

use crate::worker::mailbox::{ConnectionRef, Job, Mailbox};

/// Users by id. An entry exists while somebody is signed in as the user or watches it.
#[derive(Debug)]
pub struct Users {
    users: DashMap<Box<str>, User>,
    mailboxes: Arc<[Mailbox]>,
}

#[derive(Debug, Default)]
struct User {
    connections: HashSet<ConnectionRef>,
    watchers: HashSet<ConnectionRef>,
}

impl Users {
    pub fn new(mailboxes: Arc<[Mailbox]>) -> Self {
        Self { users: DashMap::new(), mailboxes }
    }

    /// Notes a sign-in; the user's watchers hear of the first one.
    pub fn sign_in(&self, user_id: &str, connection: ConnectionRef) {
        let mut user = self.users.entry(user_id.into()).or_default();
        user.connections.insert(connection);
        if user.connections.len() == 1 {
            self.notify(user_id, &user.watchers, true);
        }
    }

    /// Forgets a sign-in; the user's watchers hear of the last one.
    pub fn sign_out(&self, user_id: &str, connection: ConnectionRef) {
        self.with(user_id, |user| {
            user.connections.remove(&connection);
            if user.connections.is_empty() {
                self.notify(user_id, &user.watchers, false);
            }
        });
    }

    /// Starts to tell `watcher` about the user, and returns whether the user is online right now.
    pub fn watch(&self, user_id: &str, watcher: ConnectionRef) -> bool {
        let mut user = self.users.entry(user_id.into()).or_default();
        user.watchers.insert(watcher);
        !user.connections.is_empty()
    }

    pub fn unwatch(&self, user_id: &str, watcher: ConnectionRef) {
        self.with(user_id, |user| {
            user.watchers.remove(&watcher);
        });
    }

    /// Asks for the end of every connection that signed in as the user; returns how many there are.
    pub fn terminate(&self, user_id: &str) -> usize {
        let Some(user) = self.users.get(user_id) else { return 0 };
        for connection in &user.connections {
            self.mailboxes[connection.worker as usize].push(Job::Terminate(*connection));
        }
        user.connections.len()
    }

    fn with(&self, user_id: &str, change: impl FnOnce(&mut User)) {
        let Some(mut user) = self.users.get_mut(user_id) else { return };
        change(&mut user);
        let is_unused = user.connections.is_empty() && user.watchers.is_empty();
        drop(user);
        if is_unused {
            self.users.remove_if(user_id, |_, user| user.connections.is_empty() && user.watchers.is_empty());
        }
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
        let users = Users::new(Arc::from([Mailbox::new(10)]));
        assert!(!users.watch("u-2", connection(9)));
        users.sign_in("u-2", connection(1));
        assert_eq!(waiting(&users), 1);
        users.sign_in("u-2", connection(2));
        users.sign_out("u-2", connection(1));
        assert_eq!(waiting(&users), 0);
        assert!(users.watch("u-2", connection(8)));
        users.sign_out("u-2", connection(2));
        assert_eq!(waiting(&users), 2);
        users.unwatch("u-2", connection(8));
        users.unwatch("u-2", connection(9));
        assert!(users.users.is_empty());
    }
}
