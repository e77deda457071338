//! The session under which the others know this node, its lease, and those of dead nodes.

use std::sync::{Arc, Weak};

use tokio::time::Instant;

use super::{Done, Key, LEASE_SHARE, Registry};
use crate::app::App;
use crate::fanout::redis::lease::{Beat, Session, SessionHealth};
use crate::fanout::redis::transport::LinkError;

impl Registry {
    /// Everything is told anew under a session of its own, and then what was told before is taken back: whoever is here
    /// all the time is never gone for the others.
    pub(super) fn begin_session(&mut self) {
        let old = std::mem::replace(&mut self.session, Session::draw());
        self.to_retire.push(old);
        self.is_registered = false;
        self.parts.step.set_in_step(false);
        let keys: Vec<Key> = self.entries.keys().cloned().collect();
        keys.into_iter().for_each(|key| self.make_dirty(key));
    }

    pub(super) fn beat(&mut self) {
        if self.is_beating || self.up.is_empty() {
            return;
        }
        self.is_beating = true;
        let (state, session, is_new) = (self.parts.state.clone(), self.session.clone(), !self.is_registered);
        let predecessors = self.to_retire.clone();
        let lease = self.parts.node_timeout.mul_f64(LEASE_SHARE);
        let lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        // By the time that Redis renews it, it lasts longer.
        let good_until = Instant::now() + lease;
        let connections = self.connections();
        self.under_way.spawn_local(async move {
            let connections: Vec<(&str, u64)> =
                connections.iter().map(|(app, count)| (&**app, *count)).collect();
            let result = state.beat(&session, is_new, lease_ms, &predecessors, &connections).await;
            Done::Beaten { session, good_until, result }
        });
    }

    /// By app.
    pub(super) fn connections(&self) -> Vec<(Box<str>, u64)> {
        let apps = self.parts.node.get().and_then(Weak::upgrade).map(|node| node.apps.all());
        let count = |app: &Arc<App>| (app.id.clone(), app.connection_count() as u64);
        apps.iter().flatten().map(count).collect()
    }

    pub(super) fn beaten(&mut self, session: &Session, good_until: Instant, result: Result<Beat, LinkError>) {
        self.is_beating = false;
        let Ok(Beat { health, expired, unfinished }) = result else { return };
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
        match health {
            SessionHealth::Alive => {
                self.is_registered = true;
                self.lease_until = good_until;
            }
            SessionHealth::Dead => self.is_dead(session),
            SessionHealth::Forgotten => {
                tracing::warn!(target: "tidewire::fanout",
                    "Redis does not know this node any more; it tells the others anew what it has");
                self.data_may_be_lost();
                let keys: Vec<Key> = self.entries.keys().cloned().collect();
                keys.into_iter().for_each(|key| self.load_again(key));
                self.beat();
            }
        }
    }

    /// Redis may have lost what it was told last, by any node.
    pub(super) fn data_may_be_lost(&mut self) {
        self.unsettled_until = Instant::now() + self.parts.node_timeout;
        let node = self.parts.node.get().and_then(Weak::upgrade);
        if let Some(replay) = node.and_then(|node| node.replay.get().cloned()) {
            replay.forget_all_pages();
        }
        self.begin_session();
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

    /// The others took this node for dead. They see to what it had; so does this node, once it has told them anew: who
    /// comes back after very long may have told something after they were done.
    pub(super) fn is_dead(&mut self, session: &Session) {
        if *session == self.session {
            tracing::warn!(target: "tidewire::fanout",
                "the other nodes took this one for dead; it tells them anew what it has");
            self.begin_session();
            self.beat();
        }
    }
}
