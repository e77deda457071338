//! The session under which the others know this node, its lease, and those of dead nodes.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use super::{Done, Key, LEASE_SHARE, Registry};
use crate::app::App;
use crate::fanout::redis::lease::{Beat, Session};
use crate::fanout::redis::transport::LinkError;

impl Registry {
    /// Everything is told anew under a session of its own, and then what was told before is taken back: whoever is here
    /// all the time is never gone for the others.
    pub(super) fn begin_session(&mut self) {
        let old = std::mem::replace(&mut self.session, Session::draw());
        self.to_retire.push(old);
        self.is_registered = false;
        self.parts.in_step.store(false, Ordering::Relaxed);
        let keys: Vec<Key> = self.entries.keys().cloned().collect();
        keys.into_iter().for_each(|key| self.make_dirty(key));
    }

    pub(super) fn beat(&mut self) {
        if self.is_beating || self.up.is_empty() {
            return;
        }
        self.is_beating = true;
        let (state, session, is_new) = (self.parts.state.clone(), self.session.clone(), !self.is_registered);
        let lease_ms =
            u64::try_from(self.parts.node_timeout.mul_f64(LEASE_SHARE).as_millis()).unwrap_or(u64::MAX);
        let connections = self.connections();
        self.under_way.spawn_local(async move {
            let connections: Vec<(&str, u64)> =
                connections.iter().map(|(app, count)| (&**app, *count)).collect();
            let result = state.beat(&session, is_new, lease_ms, &connections).await;
            Done::Beaten { session, result }
        });
    }

    /// By app.
    pub(super) fn connections(&self) -> Vec<(Box<str>, u64)> {
        let apps = self.parts.node.get().and_then(Weak::upgrade).map(|node| node.apps.all());
        let count = |app: &Arc<App>| (app.id.clone(), app.connection_count() as u64);
        apps.iter().flatten().map(count).collect()
    }

    pub(super) fn beaten(&mut self, session: &Session, result: Result<Beat, LinkError>) {
        self.is_beating = false;
        let Ok(Beat { is_alive, expired, unfinished }) = result else { return };
        // Whoever found those that are not new may be at it.
        let (left, seen): (Vec<Session>, Vec<Session>) =
            unfinished.into_iter().partition(|dead| self.unfinished.contains(dead));
        self.unfinished = seen;
        for dead in expired.into_iter().chain(left) {
            if dead != self.session && !self.to_retire.contains(&dead) {
                self.reap(dead);
            }
        }
        if *session != self.session {
            return self.beat();
        }
        if is_alive {
            self.is_registered = true;
        } else {
            tracing::warn!(target: "tidewire::fanout",
                "the other nodes took this one for dead; it tells them anew what it has");
            self.begin_session();
            // The others see to what it had.
            self.to_retire.pop();
            self.beat();
        }
    }

    pub(super) fn reap(&mut self, dead: Session) {
        let (state, metrics) = (self.parts.state.clone(), Arc::clone(&self.parts.metrics));
        self.under_way.spawn_local(async move {
            match state.reap(&dead).await {
                Ok(reaped) => {
                    metrics.fanout.vacated.inc_by(reaped.channels);
                    tracing::info!(target: "tidewire::fanout", session = %dead, members = reaped.members,
                        channels = reaped.channels, users = reaped.users, "removed what a dead node held");
                }
                Err(error) => {
                    tracing::debug!(target: "tidewire::fanout", %error, "a dead node waits to be removed")
                }
            }
            Done::Other
        });
    }

    /// A script found that the others took this node for dead.
    pub(super) fn is_dead(&mut self, session: &Session) {
        if *session == self.session {
            self.begin_session();
            self.to_retire.pop();
            self.beat();
        }
    }
}
