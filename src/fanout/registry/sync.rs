//! Telling the others what this node has.

use std::sync::Arc;

use super::{Done, Entry, Key, Registry};
use crate::app::App;
use crate::fanout::inbound::Subject;
use crate::fanout::redis::lease::Session;
use crate::fanout::redis::state::{State, Synced, Transition, Update, UserSynced, UserTransition};
use crate::fanout::redis::transport::LinkError;
use crate::hub::channel::Channel;
use crate::hub::channel::shared::Changes;
use crate::telemetry::metrics::Metrics;

impl Entry {
    /// Whether Redis has this count already. A session begins with nothing.
    fn knows(&self, count: u32, tells_all: bool) -> bool {
        !self.is_uncertain && count == if tells_all { 0 } else { self.told_count }
    }
}

impl Registry {
    pub(super) fn sync(&mut self, key: Key) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if !entry.is_dirty || entry.is_syncing || !self.up.contains(entry.partition) {
            return;
        }
        entry.is_dirty = false;
        let tells_all = entry.told_under.as_ref() != Some(&self.session);
        let (state, session) = (self.parts.state.clone(), self.session.clone());
        match &entry.subject {
            Subject::Channel { app, channel } => {
                let changes = channel.take_changes(tells_all);
                let has_news = !changes.added.is_empty() || !changes.removed.is_empty();
                if !has_news && entry.knows(changes.count, tells_all) {
                    entry.told_under = Some(session);
                    entry.told_count = changes.count;
                    channel.confirm(&changes, 0, &[], app.channels.mailboxes());
                    return self.linger_if_unused(key);
                }
                let (app, channel) = (Arc::clone(app), Arc::clone(channel));
                entry.is_syncing = true;
                self.busy += 1;
                self.under_way.spawn_local(async move {
                    let result = sync_channel(&state, &session, &app, &channel, &changes).await;
                    Done::Synced { key, session, changes, result }
                });
            }
            Subject::User { app, user_id } => {
                let is_signed_in = app.users.take_state(user_id);
                if entry.knows(u32::from(is_signed_in), tells_all) {
                    entry.told_under = Some(session);
                    entry.told_count = u32::from(is_signed_in);
                    return self.linger_if_unused(key);
                }
                let (app, user_id) = (Arc::clone(app), user_id.clone());
                entry.is_syncing = true;
                self.busy += 1;
                self.under_way.spawn_local(async move {
                    let result = state.sync_user(&session, &app.id, &user_id, is_signed_in).await;
                    Done::SyncedUser { key, session, is_signed_in, result }
                });
            }
        }
    }

    pub(super) fn synced(
        &mut self,
        key: Key,
        session: Session,
        changes: Changes,
        result: Result<Synced, LinkError>,
    ) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.is_syncing = false;
        let Subject::Channel { app, channel } = &entry.subject else { return };
        match result {
            Ok(Synced::Done { transition, version, refused, .. }) => {
                count_transition(&self.parts.metrics, transition);
                let is_current = session == self.session;
                if is_current {
                    entry.told_under = Some(session);
                }
                entry.told_count = changes.count;
                entry.is_uncertain = false;
                channel.confirm(&changes, version, &refused, app.channels.mailboxes());
                if entry.is_dirty || !is_current {
                    entry.is_dirty = true;
                    self.to_sync.push_back(key);
                } else {
                    self.linger_if_unused(key);
                }
            }
            Ok(Synced::Dead) => {
                channel.restore_changes(changes);
                entry.is_dirty = true;
                self.is_dead(&session);
            }
            // Done or not, doing it again does no harm.
            Err(error) => {
                channel.restore_changes(changes);
                entry.is_dirty = true;
                entry.told_under = None;
                entry.is_uncertain = true;
                note_failure(&error);
            }
        }
    }

    pub(super) fn synced_user(
        &mut self,
        key: Key,
        session: Session,
        is_signed_in: bool,
        result: Result<UserSynced, LinkError>,
    ) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.is_syncing = false;
        match result {
            Ok(UserSynced::Done { transition }) => {
                count_user_transition(&self.parts.metrics, transition);
                let is_current = session == self.session;
                if is_current {
                    entry.told_under = Some(session);
                }
                entry.told_count = u32::from(is_signed_in);
                entry.is_uncertain = false;
                if entry.is_dirty || !is_current {
                    entry.is_dirty = true;
                    self.to_sync.push_back(key);
                } else {
                    self.linger_if_unused(key);
                }
            }
            Ok(UserSynced::Dead) => {
                entry.is_dirty = true;
                self.is_dead(&session);
            }
            Err(error) => {
                entry.is_dirty = true;
                entry.told_under = None;
                entry.is_uncertain = true;
                note_failure(&error);
            }
        }
    }

    pub(super) fn make_dirty(&mut self, key: Key) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if !std::mem::replace(&mut entry.is_dirty, true) && !entry.is_syncing {
            self.to_sync.push_back(key);
        }
    }
}

pub(super) async fn sync_channel(
    state: &State,
    session: &Session,
    app: &App,
    channel: &Channel,
    changes: &Changes,
) -> Result<Synced, LinkError> {
    let settings = app.settings();
    let removed: Vec<&str> = changes.removed.iter().map(|id| &**id).collect();
    let added: Vec<_> = changes.added.iter().map(|(id, info)| (&**id, info.as_deref())).collect();
    let update = Update {
        app: &app.id,
        channel: channel.name(),
        count: changes.count,
        announce: settings.subscription_count,
        max_members: settings.limits.max_presence_members,
        removed: &removed,
        added: &added,
    };
    drop(settings);
    state.sync(session, update).await
}

pub(super) fn count_transition(metrics: &Metrics, transition: Transition) {
    match transition {
        Transition::None => {}
        Transition::Occupied => drop(metrics.fanout.occupied.inc()),
        Transition::Vacated => drop(metrics.fanout.vacated.inc()),
    }
}

pub(super) fn count_user_transition(_metrics: &Metrics, transition: UserTransition) {
    if transition != UserTransition::None {
        tracing::trace!(target: "tidewire::fanout", ?transition, "a user came or went");
    }
}

pub(super) fn note_failure(error: &LinkError) {
    match error {
        LinkError::Refused(_) => {
            tracing::warn!(target: "tidewire::fanout", %error, "cannot tell the cluster what this node has");
        }
        _ => {
            tracing::debug!(target: "tidewire::fanout", %error, "cannot tell the cluster what this node has")
        }
    }
}
