//! Keeps this node and the cluster in step.
//!
//! What this node has of each channel and user is made known to the others (*sync*), and what they have is followed here
//! (*attach*: subscribe to the topic, then load a snapshot). Both are driven by what is, and not by what happened: after
//! any trouble the same steps are taken again until they succeed, and steps that changed nothing announce nothing.

mod attach;
mod session;
mod sync;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::attach::detach;
use super::inbound::{Followed, Notice, Notices, Subject, Topics};
use super::keys;
use super::redis::lease::{Beat, Session};
use super::redis::reads::{Snapshot, UserSnapshot};
use super::redis::state::{State, Synced, UserSynced};
use super::redis::transport::{LinkError, Partition, Partitions};
use super::step::Step;
use crate::app::App;
use crate::hub::channel::replica::LogSnapshot;
use crate::hub::channel::shared::Changes;
use crate::node::Node;
use crate::telemetry::metrics::Metrics;

/// How long a topic is followed after its last user here has gone, by the server's clock: whoever reloads a page finds it
/// in place.
const LINGER_MS: u64 = 30_000;
/// Topics that linger at a time: clients may make up names.
const MAX_LINGERING: usize = 10_000;
/// Topics of one partition that are subscribed to at once.
const SUBSCRIBE_AT_ONCE: usize = 1_000;
/// Scripts and snapshots that are under way at a time.
const MAX_UNDER_WAY: usize = 256;
const TICK: Duration = Duration::from_secs(1);
/// Of `node_timeout`: how long a lease lasts, and how often it is renewed. What is left is for the others to notice.
const LEASE_SHARE: f64 = 0.7;
const BEAT_SHARE: f64 = 0.15;
/// What the end of the process waits for.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// What it works with.
#[derive(Debug)]
pub struct Parts {
    pub state: State,
    pub topics: Arc<Topics>,
    pub notices: Arc<Notices>,
    pub metrics: Arc<Metrics>,
    pub node_timeout: Duration,
    pub step: Arc<Step>,
    /// Its connections are counted for the others to see.
    pub node: Arc<OnceLock<Weak<Node>>>,
}

type Key = Box<[u8]>;

#[derive(Debug)]
struct Entry {
    subject: Subject,
    partition: Partition,
    attach: Attach,
    /// Counts the loads: the answer to an earlier one is not for this one.
    load: u64,
    /// A sync is under way.
    is_syncing: bool,
    /// What is here has to be told.
    is_dirty: bool,
    /// The session under which all was told that was here then.
    told_under: Option<Session>,
    /// The count, or whether the user is signed in, as it was told last.
    told_count: u32,
    /// What was told last may have come through or not.
    is_uncertain: bool,
    /// When the topic is let go of by the server's clock, should nobody here come back.
    lingers_until_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attach {
    /// In the partition's queue, or waiting for its server.
    Waiting,
    Subscribing,
    /// The topic is followed, and the snapshot is on its way or has to be taken.
    Loading,
    Attached,
}

/// What was under way has ended.
enum Done {
    Subscribed { keys: Vec<Key>, partition: Partition, result: Result<(), LinkError> },
    Loaded { key: Key, load: u64, result: Result<(Snapshot, Option<LogSnapshot>), LinkError> },
    LoadedUser { key: Key, load: u64, result: Result<UserSnapshot, LinkError> },
    Synced { key: Key, session: Session, changes: Changes, result: Result<Synced, LinkError> },
    SyncedUser { key: Key, session: Session, is_signed_in: bool, result: Result<UserSynced, LinkError> },
    Beaten { session: Session, good_until: Instant, result: Result<Beat, LinkError> },
    Other,
}

pub struct Registry {
    parts: Parts,
    entries: HashMap<Key, Entry>,
    under_way: JoinSet<Done>,
    /// Scripts and snapshots among them.
    busy: usize,
    session: Session,
    /// Redis knows the session.
    is_registered: bool,
    /// Until then nobody takes this node for dead. After it nothing is told under the session any more: this node may have
    /// been stopped, and the others may be done with it.
    lease_until: Instant,
    is_beating: bool,
    /// Sessions of this node that end as soon as everything is told under the new one.
    to_retire: Vec<Session>,
    /// Dead sessions that somebody has been removing since before the last beat.
    unfinished: Vec<Session>,
    to_attach: Vec<VecDeque<Key>>,
    /// What the server has refused: with the next tick again.
    to_attach_later: Vec<(Partition, Key)>,
    is_attaching: Vec<bool>,
    to_load: VecDeque<Key>,
    to_sync: VecDeque<Key>,
    /// Loads that have to be taken again, and when.
    reloads: VecDeque<(Instant, Key)>,
    /// Topics that nobody here uses, by when they are let go of.
    lingering: BTreeSet<(u64, Key)>,
    up: Partitions,
    /// Until then members may be missing in Redis that are there: not all nodes have told what they have.
    unsettled_until: Instant,
}

impl Registry {
    pub fn new(parts: Parts) -> Self {
        let partitions = usize::from(keys::PARTITIONS);
        Self {
            parts,
            entries: HashMap::new(),
            under_way: JoinSet::new(),
            busy: 0,
            session: Session::draw(),
            is_registered: false,
            lease_until: Instant::now(),
            is_beating: false,
            to_retire: Vec::new(),
            unfinished: Vec::new(),
            to_attach: vec![VecDeque::new(); partitions],
            to_attach_later: Vec::new(),
            is_attaching: vec![false; partitions],
            to_load: VecDeque::new(),
            to_sync: VecDeque::new(),
            reloads: VecDeque::new(),
            lingering: BTreeSet::new(),
            up: Partitions::NONE,
            unsettled_until: Instant::now(),
        }
    }

    /// Runs on the fan-out's thread until it is told to stop; then what this node has is taken back.
    pub async fn run(mut self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut beat = interval(self.parts.node_timeout.mul_f64(BEAT_SHARE));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let notices = Arc::clone(&self.parts.notices);
        loop {
            tokio::select! {
                () = notices.filled() => {
                    for notice in notices.take() {
                        if matches!(notice, Notice::Stop) {
                            return self.stop().await;
                        }
                        self.notice(notice);
                    }
                }
                Some(done) = self.under_way.join_next() => match done {
                    Ok(done) => self.done(done),
                    Err(error) => tracing::error!(target: "tidewire::fanout", %error, "a step was given up"),
                },
                _ = tick.tick() => self.tick(),
                _ = beat.tick() => self.beat(),
            }
            self.advance();
        }
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Touched(subject) => self.touched(subject),
            Notice::Gap(key) => self.load_again(key),
            Notice::Up { partitions, is_same_server } => self.server_is_up(partitions, is_same_server),
            Notice::Down(partitions) => self.server_is_down(partitions),
            Notice::Unsubscribed(key) => {
                if let Some(entry) = self.entries.get_mut(&key) {
                    detach(entry);
                    self.to_attach[usize::from(entry.partition)].push_back(key);
                }
            }
            Notice::Settings(app) => self.settings_changed(&app),
            Notice::Stop => {}
        }
    }

    /// Counts may be wanted that were not, and the other way round.
    fn settings_changed(&mut self, app: &Arc<App>) {
        let of_app = |entry: &Entry| matches!(&entry.subject, Subject::Channel { app: other, .. } if Arc::ptr_eq(other, app));
        let keys: Vec<Key> =
            self.entries.iter().filter(|(_, entry)| of_app(entry)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.is_uncertain = true;
            }
            self.make_dirty(key.clone());
            self.load_again(key);
        }
    }

    fn touched(&mut self, subject: Subject) {
        let keys = self.parts.state.keys();
        let (topic, partition) = match &subject {
            Subject::Channel { app, channel } => {
                (keys.channel_topic(&app.id, channel.name()), keys::partition(&app.id, channel.name()))
            }
            Subject::User { app, user_id } => {
                (keys.user_topic(&app.id, user_id), keys::user_partition(&app.id, user_id))
            }
        };
        let key: Key = topic.into_bytes().into();
        if self.entries.get(&key).is_some_and(|entry| is_another(&entry.subject, &subject)) {
            self.forget(&key);
        }
        if !self.entries.contains_key(&key) {
            self.parts.topics.insert(key.clone(), Followed::new(subject.clone()));
            self.to_attach[usize::from(partition)].push_back(key.clone());
            let entry = Entry {
                subject,
                partition,
                attach: Attach::Waiting,
                load: 0,
                is_syncing: false,
                is_dirty: false,
                told_under: None,
                told_count: 0,
                is_uncertain: false,
                lingers_until_ms: None,
            };
            self.entries.insert(key.clone(), entry);
        }
        self.stop_lingering(&key);
        self.make_dirty(key);
    }

    fn server_is_up(&mut self, partitions: Partitions, is_same_server: bool) {
        self.up = Partitions(self.up.0 | partitions.0);
        for partition in (0..keys::PARTITIONS).filter(|partition| partitions.contains(*partition)) {
            self.to_attach[usize::from(partition)].clear();
        }
        for (key, entry) in &mut self.entries {
            if partitions.contains(entry.partition) && entry.attach == Attach::Waiting {
                self.to_attach[usize::from(entry.partition)].push_back(key.clone());
            }
        }
        if !is_same_server {
            self.data_may_be_lost();
        }
        self.beat();
    }

    fn server_is_down(&mut self, partitions: Partitions) {
        self.up = Partitions(self.up.0 & !partitions.0);
        for entry in self.entries.values_mut().filter(|entry| partitions.contains(entry.partition)) {
            detach(entry);
        }
        self.parts.step.set_in_step(false);
    }

    fn tick(&mut self) {
        let now = Instant::now();
        while self.reloads.front().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, key)) = self.reloads.pop_front() {
                self.load_again(key);
            }
        }
        while self.lingering.first().is_some_and(|(due_ms, key)| self.is_due(*due_ms, key)) {
            if let Some((_, key)) = self.lingering.pop_first() {
                self.end_linger(&key);
            }
        }
        // What failed is tried again.
        let dirty: Vec<Key> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.is_dirty && !entry.is_syncing)
            .map(|(key, _)| key.clone())
            .collect();
        self.to_sync = dirty.into();
        for (partition, key) in std::mem::take(&mut self.to_attach_later) {
            self.to_attach[usize::from(partition)].push_back(key);
        }
        // On a node where something always changes there is no other moment.
        self.end_predecessors();
    }

    /// Begins what can begin.
    fn advance(&mut self) {
        for partition in 0..keys::PARTITIONS {
            self.attach(partition);
        }
        while self.busy < MAX_UNDER_WAY {
            let Some(key) = self.to_load.pop_front() else { break };
            self.load(key);
        }
        if !self.is_registered || Instant::now() >= self.lease_until {
            return;
        }
        while self.busy < MAX_UNDER_WAY {
            let Some(key) = self.to_sync.pop_front() else { break };
            self.sync(key);
        }
        if self.busy == 0 && self.to_sync.is_empty() {
            self.end_predecessors();
        }
    }

    /// When everything is told under the session.
    fn end_predecessors(&mut self) {
        let is_done = self.to_retire.is_empty() && self.parts.step.is_in_step();
        let is_told = |entry: &Entry| entry.told_under.as_ref() == Some(&self.session);
        if is_done || !self.is_registered || !self.entries.values().all(is_told) {
            return;
        }
        for old in std::mem::take(&mut self.to_retire) {
            let state = self.parts.state.clone();
            self.under_way.spawn_local(async move {
                if let Err(error) = state.retire(&old).await {
                    // Its lease ends, and somebody sees to it.
                    tracing::debug!(target: "tidewire::fanout", %error, "an old session is left to its lease");
                }
                Done::Other
            });
        }
        let is_attached = self.up == Partitions::ALL;
        self.parts.step.set_in_step(is_attached);
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Subscribed { keys, partition, result } => self.subscribed(keys, partition, &result),
            Done::Loaded { key, load, result } => {
                self.busy -= 1;
                self.loaded(key, load, result);
            }
            Done::LoadedUser { key, load, result } => {
                self.busy -= 1;
                self.loaded_user(key, load, result);
            }
            Done::Synced { key, session, changes, result } => {
                self.busy -= 1;
                self.synced(key, session, changes, result);
            }
            Done::SyncedUser { key, session, is_signed_in, result } => {
                self.busy -= 1;
                self.synced_user(key, session, is_signed_in, result);
            }
            Done::Beaten { session, good_until, result } => self.beaten(&session, good_until, result),
            Done::Other => {}
        }
    }

    fn linger_if_unused(&mut self, key: Key) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if !is_in_use(&entry.subject) && entry.lingers_until_ms.is_none() {
            let due_ms = entry.subject.app().now_ms() + LINGER_MS;
            entry.lingers_until_ms = Some(due_ms);
            self.lingering.insert((due_ms, key));
        }
        if self.lingering.len() > MAX_LINGERING
            && let Some((_, oldest)) = self.lingering.pop_first()
        {
            self.end_linger(&oldest);
        }
    }

    /// Somebody came or left: the time begins anew.
    fn stop_lingering(&mut self, key: &Key) {
        let due_ms = self.entries.get_mut(key).and_then(|entry| entry.lingers_until_ms.take());
        if let Some(due_ms) = due_ms {
            self.lingering.remove(&(due_ms, key.clone()));
        }
    }

    fn is_due(&self, due_ms: u64, key: &Key) -> bool {
        self.entries.get(key).is_none_or(|entry| entry.subject.app().now_ms() >= due_ms)
    }

    fn end_linger(&mut self, key: &Key) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.lingers_until_ms = None;
        if is_in_use(&entry.subject) || entry.is_dirty || entry.is_syncing {
            return;
        }
        let is_released = match &entry.subject {
            Subject::Channel { channel, .. } => channel.release(),
            Subject::User { app, user_id } => app.users.release(user_id),
        };
        if !is_released {
            return;
        }
        if let Subject::Channel { app, channel } = &entry.subject {
            app.channels.remove_idle(channel, app.now_ms());
        }
        let (partition, is_subscribed) = (entry.partition, entry.attach != Attach::Waiting);
        self.forget(key);
        if is_subscribed {
            let (transport, topic) = (self.parts.state.transport().clone(), key.clone());
            self.under_way.spawn_local(async move {
                // When the link is gone, so is the subscription.
                drop(transport.unsubscribe(partition, &[topic]).await);
                Done::Other
            });
        }
    }

    fn forget(&mut self, key: &Key) {
        self.stop_lingering(key);
        self.entries.remove(key);
        self.parts.topics.remove(key);
    }

    /// Takes back what this node has, so that the others need not wait for its lease to end.
    async fn stop(mut self) {
        let sessions = std::mem::take(&mut self.to_retire).into_iter().chain([self.session.clone()]);
        for session in sessions {
            let retired = tokio::time::timeout(STOP_DEADLINE, self.parts.state.retire(&session)).await;
            if !matches!(retired, Ok(Ok(_))) {
                tracing::warn!(target: "tidewire::fanout",
                    "the cluster does not know yet that this node is gone; it will when its lease ends");
            }
        }
    }
}

fn is_in_use(subject: &Subject) -> bool {
    match subject {
        Subject::Channel { channel, .. } => channel.is_in_use(),
        Subject::User { app, user_id } => app.users.is_in_use(user_id),
    }
}

/// Whether a topic's subject was let go of and made again.
fn is_another(one: &Subject, other: &Subject) -> bool {
    match (one, other) {
        (Subject::Channel { channel: one, .. }, Subject::Channel { channel: other, .. }) => {
            !Arc::ptr_eq(one, other)
        }
        (Subject::User { app: one, .. }, Subject::User { app: other, .. }) => !Arc::ptr_eq(one, other),
        _ => true,
    }
}
