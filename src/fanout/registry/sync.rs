//! Telling the others what this node has.

use std::sync::Arc;

use super::attach::wanted;
use super::{Done, Entry, Key, Registry};
use crate::app::App;
use crate::fanout::inbound::Subject;
use crate::fanout::redis::lease::Session;
use crate::fanout::redis::state::{State, Synced, Transition, Update, UserSynced};
use crate::fanout::redis::transport::LinkError;
use crate::hub::channel::Channel;
use crate::hub::channel::shared::Changes;
use crate::telemetry::metrics::Metrics;

impl Entry {
    /// Whether Redis has this count already. A session begins with nothing.
    fn knows(&self, count: u32, tells_all: bool) -> bool {
        !self.is_uncertain && count == if tells_all { 0 } else { self.told_count }
    }

    /// Done or not, doing it again does no harm.
    fn may_be_told(&mut self) {
        self.is_dirty = true;
        self.told_under = None;
        self.is_uncertain = true;
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
                let mut changes = channel.take_changes(tells_all);
                if !wanted(app, channel).count {
                    // Nobody asks how many there are: only the first one and the last one are news.
                    changes.count = changes.count.min(1);
                }
                let has_news = !changes.added.is_empty() || !changes.removed.is_empty();
                if !has_news && entry.knows(changes.count, tells_all) {
                    entry.told_under = Some(session);
                    entry.told_count = changes.count;
                    channel.confirm(&changes, 0, &[], app.channels.mailboxes());
                    return self.linger_if_unused(key);
                }
                let (app, channel) = (Arc::clone(app), Arc::clone(channel));
                let predecessors = self.to_retire.clone();
                entry.is_syncing = true;
                self.busy += 1;
                self.under_way.spawn_local(async move {
                    let result =
                        sync_channel(&state, &session, &predecessors, &app, &channel, &changes).await;
                    Done::Synced { key, session, changes, result }
                });
            }
            Subject::User { app, user_id } => {
                let is_signed_in = app.users.take_state(user_id, tells_all);
                if entry.knows(u32::from(is_signed_in), tells_all) {
                    entry.told_under = Some(session);
                    entry.told_count = u32::from(is_signed_in);
                    app.users.confirm(user_id, is_signed_in);
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
                channel.confirm(&changes, version, &refused, app.channels.mailboxes());
                self.told(key, session, changes.count);
            }
            Ok(Synced::Dead) => {
                channel.restore_changes(changes);
                entry.is_dirty = true;
                self.is_dead(&session);
            }
            Err(error) => {
                channel.restore_changes(changes);
                entry.may_be_told();
                self.parts.step.telling.note_failure(&error);
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
        let Subject::User { app, user_id } = &entry.subject else { return };
        match result {
            Ok(UserSynced::Done { .. }) => {
                app.users.confirm(user_id, is_signed_in);
                self.told(key, session, u32::from(is_signed_in));
            }
            Ok(UserSynced::Dead) => {
                entry.is_dirty = true;
                self.is_dead(&session);
            }
            Err(error) => {
                entry.may_be_told();
                self.parts.step.telling.note_failure(&error);
            }
        }
    }

    /// All that was here when the telling began was told under this session.
    fn told(&mut self, key: Key, session: Session, count: u32) {
        self.parts.step.telling.note_success();
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.told_count = count;
        entry.is_uncertain = false;
        if session == self.session {
            entry.told_under = Some(session);
        } else {
            entry.is_dirty = true;
        }
        if entry.is_dirty {
            self.to_sync.push_back(key);
        } else {
            self.linger_if_unused(key);
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
    predecessors: &[Session],
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
        announce: wanted(app, channel).count,
        max_members: settings.limits.max_presence_members,
        removed: &removed,
        added: &added,
        predecessors,
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
