//! Following the others: a topic is subscribed to, then a snapshot is loaded, and what comes is told here.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::{Attach, Done, Entry, Key, Registry, SUBSCRIBE_AT_ONCE};
use crate::app::App;
use crate::fanout::inbound::{Subject, Topics, cache_entry};
use crate::fanout::redis::reads::{Cached, Snapshot, UserSnapshot, Want};
use crate::fanout::redis::state::State;
use crate::fanout::redis::transport::{LinkError, Partition};
use crate::hub::channel::Channel;
use crate::hub::channel::replica::{self, LogSnapshot};
use crate::replay::Missed;
use crate::replay::store::StreamName;

impl Entry {
    /// Whether the answer to this load is still wanted: the topic may have been left and followed anew since.
    fn awaits(&self, load: u64) -> bool {
        self.attach == Attach::Loading && self.load == load
    }
}

impl Registry {
    pub(super) fn load_again(&mut self, key: Key) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if entry.attach != Attach::Attached {
            return;
        }
        entry.attach = Attach::Loading;
        begin_loading(&self.parts.topics, &key, &entry.subject);
        self.to_load.push_back(key);
    }

    pub(super) fn attach(&mut self, partition: Partition) {
        let index = usize::from(partition);
        if self.is_attaching[index] || !self.up.contains(partition) {
            return;
        }
        let mut keys = Vec::new();
        while keys.len() < SUBSCRIBE_AT_ONCE {
            let Some(key) = self.to_attach[index].pop_front() else { break };
            let Some(entry) = self.entries.get_mut(&key).filter(|entry| entry.attach == Attach::Waiting)
            else {
                continue;
            };
            entry.attach = Attach::Subscribing;
            begin_loading(&self.parts.topics, &key, &entry.subject);
            keys.push(key);
        }
        if keys.is_empty() {
            return;
        }
        self.is_attaching[index] = true;
        let transport = self.parts.state.transport().clone();
        self.under_way.spawn_local(async move {
            let result = transport.subscribe(partition, &keys).await;
            Done::Subscribed { keys, partition, result }
        });
    }

    pub(super) fn subscribed(
        &mut self,
        keys: Vec<Key>,
        partition: Partition,
        result: &Result<(), LinkError>,
    ) {
        self.is_attaching[usize::from(partition)] = false;
        if result.is_ok() {
            self.parts.step.following.note_success();
        }
        for key in keys {
            let Some(entry) = self.entries.get_mut(&key).filter(|entry| entry.attach == Attach::Subscribing)
            else {
                continue;
            };
            if result.is_err() {
                entry.attach = Attach::Waiting;
                self.to_attach_later.push((partition, key));
                continue;
            }
            entry.attach = Attach::Loading;
            self.to_load.push_back(key);
        }
        if let Err(error) = result {
            self.parts.step.following.note_failure(error);
        }
    }

    pub(super) fn load(&mut self, key: Key) {
        let Some(entry) = self.entries.get_mut(&key).filter(|entry| entry.attach == Attach::Loading) else {
            return;
        };
        entry.load += 1;
        let load = entry.load;
        let state = self.parts.state.clone();
        match &entry.subject {
            Subject::Channel { app, channel } => {
                let want = wanted(app, channel);
                let is_stored = app.settings().replay.rule(channel.name()).is_some();
                if want == Want::default() && !is_stored {
                    return self.loaded(key, load, Ok((Snapshot::default(), None)));
                }
                let (app, channel) = (Arc::clone(app), Arc::clone(channel));
                self.busy += 1;
                self.under_way.spawn_local(async move {
                    let result = load_channel(&state, &app, &channel, want).await;
                    Done::Loaded { key, load, result }
                });
            }
            Subject::User { app, user_id } => {
                let (app, user_id) = (Arc::clone(app), user_id.clone());
                self.busy += 1;
                self.under_way.spawn_local(async move {
                    let result = state.user(&app.id, &user_id).await;
                    Done::LoadedUser { key, load, result }
                });
            }
        }
    }

    pub(super) fn loaded(
        &mut self,
        key: Key,
        load: u64,
        result: Result<(Snapshot, Option<LogSnapshot>), LinkError>,
    ) {
        let may_remove = Instant::now() >= self.unsettled_until;
        let Some(entry) = self.entries.get_mut(&key).filter(|entry| entry.awaits(load)) else {
            return;
        };
        let Subject::Channel { app, channel } = &entry.subject else { return };
        let (snapshot, log) = match result {
            Ok(loaded) => loaded,
            Err(_) => return self.load_later(key),
        };
        let now_ms = app.now_ms();
        let want = wanted(app, channel);
        let snapshot = replica::Snapshot {
            members: snapshot.members,
            version: snapshot.version,
            count: want.count.then(|| u32::try_from(snapshot.count).unwrap_or(u32::MAX)),
            cached: snapshot
                .cached
                .map(|cached| (cached.frame.clone(), cache_entry(&cached.data, cached.ttl_ms, now_ms))),
            log,
        };
        entry.attach = Attach::Attached;
        let loaded = channel.load(snapshot, may_remove, want.count, app.channels.mailboxes(), now_ms);
        if loaded.count_is_pending {
            app.channels.await_count(channel);
        }
        if loaded.is_unsettled {
            if may_remove {
                // Redis has lost what it was told, and this node is the first to see it.
                self.unsettled_until = Instant::now() + self.parts.node_timeout;
            }
            self.reloads.push_back((self.unsettled_until, key.clone()));
        }
        if loaded.is_changed {
            self.make_dirty(key.clone());
        }
        if loaded.has_gap {
            self.load_again(key);
        }
    }

    pub(super) fn loaded_user(&mut self, key: Key, load: u64, result: Result<UserSnapshot, LinkError>) {
        let Some(entry) = self.entries.get_mut(&key).filter(|entry| entry.awaits(load)) else {
            return;
        };
        let Subject::User { app, user_id } = &entry.subject else { return };
        let Ok(UserSnapshot { is_online, terminated }) = result else { return self.load_later(key) };
        let Some(followed) = self.parts.topics.get(&key) else { return };
        let is_told = followed.is_told.load(Ordering::Relaxed);
        // Those that this node did not hear of. Whoever signs in while it begins to follow the user came after them.
        if followed.terminated.fetch_max(terminated, Ordering::Relaxed) < terminated && load > 1 {
            app.users.terminate(user_id);
        }
        drop(followed);
        // Who is signed in here is online, whatever Redis has forgotten: it is being told. So are others, maybe.
        let is_online = is_online || app.users.is_signed_in(user_id);
        let is_settled = is_online || Instant::now() >= self.unsettled_until;
        if !is_told && (is_settled || !app.users.is_online(user_id)) {
            app.users.set_online(user_id, is_online);
        }
        if !is_settled {
            self.reloads.push_back((self.unsettled_until, key.clone()));
        }
        entry.attach = Attach::Attached;
        app.users.set_attached(user_id, true);
    }

    /// The server is away, or slow: with the next tick again.
    pub(super) fn load_later(&mut self, key: Key) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.attach = Attach::Attached;
            self.reloads.push_front((Instant::now(), key));
        }
    }
}

/// What the cluster has of a channel whose topic is followed.
pub(super) async fn load_channel(
    state: &State,
    app: &App,
    channel: &Channel,
    want: Want,
) -> Result<(Snapshot, Option<LogSnapshot>), LinkError> {
    let mut snapshot = if want == Want::default() {
        Snapshot::default()
    } else {
        state.snapshot(&app.id, channel.name(), want).await?
    };
    if want.cached && snapshot.cached.is_none() {
        let in_log = app.cached_in_log(channel.name()).await?;
        snapshot.cached = in_log.map(|(frame, entry)| Cached {
            frame,
            data: entry.data.into_string().into(),
            ttl_ms: entry.expires_ms.saturating_sub(app.now_ms()),
        });
    }
    let retention = app.settings().replay.rule(channel.name()).map(|rule| rule.retention());
    let (Some(retention), Some(replay)) = (retention, app.replay.get()) else { return Ok((snapshot, None)) };
    let stream = StreamName { app: app.id.clone(), channel: channel.name().into() };
    // Some of them may have been purged while nobody told this node.
    replay.forget_pages(&stream);
    let missed = replay.missed(Arc::new(stream), channel.log_head(), retention).await;
    let Missed { head, floor, events, broken } = missed.map_err(|error| {
        tracing::debug!(target: "tidewire::fanout", %error, channel = channel.name(), "cannot read the log yet");
        LinkError::Unknown
    })?;
    Ok((snapshot, Some(LogSnapshot { head, floor, missed: events, broken })))
}

pub(super) fn wanted(app: &App, channel: &Channel) -> Want {
    Want {
        members: channel.is_presence(),
        count: app.settings().subscription_count && !channel.is_presence(),
        cached: channel.is_cache(),
    }
}

pub(super) fn begin_loading(topics: &Topics, key: &Key, subject: &Subject) {
    if let Some(followed) = topics.get(key) {
        followed.is_told.store(false, Ordering::Relaxed);
    }
    if let Subject::Channel { channel, .. } = subject {
        channel.begin_loading();
    }
}

pub(super) fn detach(entry: &mut Entry) {
    entry.attach = Attach::Waiting;
    match &entry.subject {
        Subject::Channel { channel, .. } => channel.detach(),
        Subject::User { app, user_id } => app.users.set_attached(user_id, false),
    }
}
