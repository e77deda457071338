//! What a worker owns: its connections, and its subscribers by channel.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use slab::Slab;
use tidewire_protocol::error::{CloseCode, Refusal};
use tidewire_protocol::{frame, server_message};

use super::mailbox::ConnectionRef;
use crate::app::App;
use crate::connection::{CLOSE_GRACE_SECONDS, Connection, Phase, Subscription};
use crate::hub::channel::Channel;
use crate::node::Node;
use crate::replay::follower::Follower;
use crate::socket::Sent;

/// Room in a full outbox for what is not in a log, while the rest of a log waits for it to empty.
pub const CHASE_HEADROOM_BYTES: usize = 64 * 1024;
/// `last_seen` of a slot that nobody uses, or that is closing: never idle.
pub const NEVER_IDLE: u32 = u32::MAX;

pub struct State {
    pub node: Arc<Node>,
    pub worker: usize,
    connections: Slab<Connection>,
    /// Seconds of the clock at which each slot last received something; packed for the sweep.
    pub last_seen: Vec<u32>,
    channels: HashMap<u64, Subscribers, ById>,
    /// Closed connections and when their grace ends, in that order.
    pub closing: VecDeque<(u32, ConnectionRef)>,
    /// Connections that have to be authorised by a time (2.16), of apps that demand it.
    pub unauthorized: VecDeque<(u32, ConnectionRef)>,
    /// When connections that may live only so long are closed, by slot; seconds of the clock.
    pub lifetimes: HashMap<u32, u64, ById>,
    /// The same in the order of time.
    pub lifetime_ends: BTreeSet<(u64, u32)>,
    /// Connections that wait for the store to be asked again.
    pub stalled: Vec<ConnectionRef>,
    next_generation: Cell<u32>,
}

/// The connections of this worker that are subscribed to one channel.
pub struct Subscribers {
    pub app: Arc<App>,
    pub channel: Arc<Channel>,
    pub list: Vec<Subscriber>,
    /// By slot: those in `list` whose place in the channel's log is kept. `None` while there are none.
    pub followers: Option<Box<Followers>>,
}

pub type Followers = HashMap<u32, Follower, ById>;

#[derive(Clone, Copy, Debug)]
pub struct Subscriber {
    pub slot: u32,
    /// Index in the connection's list of subscriptions.
    pub subscription: u32,
    /// Sequence of the last frame of the channel that this subscriber has, or must not get.
    pub after: u64,
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug)]
pub struct Goodbye<'a> {
    pub code: u16,
    pub reason: &'a str,
    pub error: ErrorFrame,
    /// Drops what waits in the outbox, which the client does not read anyway.
    pub is_overflow: bool,
}

/// Whether a `pusher:error` frame goes before the close frame (1.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorFrame {
    Always,
    /// Clients of protocols before 6 need it.
    OldProtocols,
    Never,
}

impl<'a> Goodbye<'a> {
    /// A close whose code says it all.
    pub fn coded(code: CloseCode) -> Self {
        Self {
            code: code.number(),
            reason: code.meaning(),
            error: ErrorFrame::OldProtocols,
            is_overflow: false,
        }
    }

    /// A close that answers the client's own frames.
    pub fn quiet(code: u16, reason: &'a str) -> Self {
        Self { code, reason, error: ErrorFrame::Never, is_overflow: false }
    }

    /// A close that the client is told about by an error frame too.
    pub fn explained(code: CloseCode, reason: &'a str) -> Self {
        Self { code: code.number(), reason, error: ErrorFrame::Always, is_overflow: false }
    }
}

impl State {
    pub fn new(node: Arc<Node>, worker: usize) -> Self {
        Self {
            node,
            worker,
            connections: Slab::new(),
            last_seen: Vec::new(),
            channels: HashMap::default(),
            closing: VecDeque::new(),
            unauthorized: VecDeque::new(),
            lifetimes: HashMap::default(),
            lifetime_ends: BTreeSet::new(),
            stalled: Vec::new(),
            next_generation: Cell::new(0),
        }
    }

    pub fn next_generation(&self) -> u32 {
        self.next_generation.replace(self.next_generation.get().wrapping_add(1))
    }

    pub fn insert(&mut self, connection: Connection) -> u32 {
        let slot = self.connections.insert(connection);
        if self.last_seen.len() <= slot {
            self.last_seen.resize(slot + 1, NEVER_IDLE);
        }
        self.last_seen[slot] = self.node.clock.now_seconds();
        u32::try_from(slot).expect("a process has fewer than 2^32 sockets")
    }

    pub fn connection_mut(&mut self, slot: u32, generation: u32) -> Option<&mut Connection> {
        self.connections.get_mut(slot as usize).filter(|connection| connection.generation == generation)
    }

    /// The connection in `slot`, which the caller knows to be in use.
    pub fn at(&mut self, slot: u32) -> &mut Connection {
        &mut self.connections[slot as usize]
    }

    pub fn connections(&self) -> impl Iterator<Item = (u32, &Connection)> {
        #[allow(clippy::cast_possible_truncation, reason = "slots fit, see `insert`")]
        self.connections.iter().map(|(slot, connection)| (slot as u32, connection))
    }

    pub fn reference(&self, slot: u32) -> ConnectionRef {
        let generation = self.connections[slot as usize].generation;
        ConnectionRef { worker: self.worker as u32, slot, generation }
    }

    /// The subscriber's place in the channel's log.
    pub fn follower(&mut self, slot: u32, channel: u64) -> Option<&mut Follower> {
        self.channels.get_mut(&channel)?.followers.as_mut()?.get_mut(&slot)
    }

    /// The channel that subscribers of this worker know by its id.
    pub fn channel(&self, id: u64) -> Option<&Arc<Channel>> {
        self.channels.get(&id).map(|subscribers| &subscribers.channel)
    }

    /// The parts that a delivery needs at the same time.
    pub fn delivery_parts(&mut self, channel: u64) -> Option<(&mut Subscribers, &mut Slab<Connection>)> {
        let subscribers = self.channels.get_mut(&channel)?;
        Some((subscribers, &mut self.connections))
    }

    /// Sends a text to one connection; a full outbox closes it.
    pub fn send_text(&mut self, slot: u32, text: &str) {
        self.send(slot, &frame::encode_text(text));
    }

    pub fn send(&mut self, slot: u32, frame: &Bytes) {
        let outbox_bytes = self.node.config.outbox_bytes;
        let connection = self.at(slot);
        let max_bytes = outbox_bytes + if connection.is_chasing() { CHASE_HEADROOM_BYTES } else { 0 };
        if connection.phase != Phase::Open {
            return;
        }
        connection.app.metrics.messages_sent.inc();
        connection.app.metrics.sent_bytes.inc_by(frame.len() as u64);
        if connection.socket.send(frame, max_bytes) != Sent::Accepted {
            self.overflow(slot);
        }
    }

    /// `pusher:error` on a connection that stays open.
    pub fn send_error(&mut self, slot: u32, code: Option<u16>, message: &str) {
        self.send_text(slot, &server_message::error(code, message));
    }

    /// Answers a request that cannot be granted; the connection stays open.
    pub fn refuse(&mut self, slot: u32, refusal: &Refusal<'_>) {
        self.send_error(slot, refusal.code(), &refusal.to_string());
    }

    /// Closes a client that does not read what it is sent.
    pub fn overflow(&mut self, slot: u32) {
        let connection = self.at(slot);
        connection.app.metrics.outbox_overflow.inc();
        tracing::info!(target: "tidewire::connection", socket_id = %connection.socket_id,
            app_id = %connection.app.id, "closed a client that reads too slowly");
        self.close(slot, Goodbye { is_overflow: true, ..Goodbye::coded(CloseCode::OverCapacity) });
    }

    /// Takes the connection out of the hub, says goodbye and leaves the rest to its task.
    pub fn close(&mut self, slot: u32, goodbye: Goodbye<'_>) {
        if self.at(slot).phase != Phase::Open {
            return;
        }
        self.leave_hub(slot);
        let deadline = self.node.clock.now_seconds().saturating_add(CLOSE_GRACE_SECONDS);
        let reference = self.reference(slot);
        self.closing.push_back((deadline, reference));
        self.last_seen[slot as usize] = NEVER_IDLE;
        let connection = self.at(slot);
        let with_error = match goodbye.error {
            ErrorFrame::Always => true,
            ErrorFrame::OldProtocols => connection.client.protocol < 6,
            ErrorFrame::Never => false,
        };
        if with_error {
            let error = server_message::error(Some(goodbye.code), goodbye.reason);
            connection.socket.send(&frame::encode_text(&error), usize::MAX);
        }
        let close = frame::encode_close(goodbye.code, goodbye.reason);
        if goodbye.is_overflow {
            connection.socket.send_last(&close);
        } else {
            connection.socket.send(&close, usize::MAX);
        }
        connection.phase = Phase::Closing;
        connection.app.metrics.connections_closed(goodbye.code).inc();
        connection.socket.wake();
    }

    /// Forgets a connection whose task has ended.
    pub fn remove(&mut self, slot: u32, generation: u32) {
        let Some(connection) = self.connection_mut(slot, generation) else { return };
        if connection.phase == Phase::Open {
            connection.app.metrics.connections_closed(1006).inc();
            self.leave_hub(slot);
        }
        self.last_seen[slot as usize] = NEVER_IDLE;
        self.connections.remove(slot as usize);
    }

    /// Ends everything that others could notice of this connection.
    fn leave_hub(&mut self, slot: u32) {
        self.stop_joining(slot);
        self.unsubscribe_all(slot);
        self.forget_user(slot);
        self.forget_lifetime(slot);
        let connection = self.at(slot);
        connection.input = None;
        if let Some(replaying) = connection.replaying.take() {
            let chasing = i64::try_from(replaying.chasing.len()).unwrap_or(i64::MAX);
            self.node.metrics.replay.chasing.dec_by(chasing);
        }
        let connection = self.at(slot);
        connection.app.release_connection();
        connection.app.metrics.connections.dec();
        self.node.release_connection();
    }

    /// Notes the subscription on both sides.
    pub fn add_subscription(
        &mut self,
        slot: u32,
        channel: Arc<Channel>,
        after: u64,
        member: Option<Box<str>>,
    ) {
        let connection = &mut self.connections[slot as usize];
        let id = channel.id;
        let subscribers = self.channels.entry(id).or_insert_with(|| Subscribers {
            app: Arc::clone(&connection.app),
            channel,
            list: Vec::new(),
            followers: None,
        });
        if subscribers.list.is_empty() {
            subscribers.list.reserve_exact(1);
        }
        if connection.subscriptions.is_empty() {
            connection.subscriptions.reserve_exact(1);
        }
        let index = u32::try_from(subscribers.list.len()).expect("a process has fewer than 2^32 sockets");
        let subscription = u32::try_from(connection.subscriptions.len()).expect("limited by configuration");
        subscribers.list.push(Subscriber { slot, subscription, after });
        connection.subscriptions.push(Subscription { channel: id, index, member: member.map(Box::new) });
        connection.app.metrics.subscriptions.inc();
    }

    /// Ends the subscription at `position` of the connection's list, here and in the hub.
    pub fn unsubscribe(&mut self, slot: u32, position: usize) {
        let connection = &mut self.connections[slot as usize];
        let gone = connection.subscriptions.swap_remove(position);
        // The last subscription has moved into the hole: its channel's list has to know.
        if let Some(moved) = connection.subscriptions.get(position) {
            let (channel, index) = (moved.channel, moved.index as usize);
            if let Some(subscriber) = self.channels.get_mut(&channel).and_then(|s| s.list.get_mut(index)) {
                subscriber.subscription = position as u32;
            }
        }
        let Some(subscribers) = self.channels.get_mut(&gone.channel) else { return };
        subscribers.list.swap_remove(gone.index as usize);
        if let Some(followers) = &mut subscribers.followers {
            followers.remove(&slot);
        }
        if let Some(moved) = subscribers.list.get(gone.index as usize) {
            let moved_connection = &mut self.connections[moved.slot as usize];
            moved_connection.subscriptions[moved.subscription as usize].index = gone.index;
        }
        let is_done = subscribers.list.is_empty();
        let (app, channel) = (Arc::clone(&subscribers.app), Arc::clone(&subscribers.channel));
        if is_done {
            self.channels.remove(&gone.channel);
        }
        app.metrics.subscriptions.dec();
        let member = gone.member.as_deref().map(|id| &**id);
        let announce = app.settings().subscription_count;
        let now_ms = self.node.clock.now_ms();
        let is_changed = app.channels.unsubscribe(&channel, self.worker, is_done, member, announce, now_ms);
        app.touch_channel(&channel, is_changed);
    }

    fn unsubscribe_all(&mut self, slot: u32) {
        while let Some(last) = self.at(slot).subscriptions.len().checked_sub(1) {
            self.unsubscribe(slot, last);
        }
        self.at(slot).subscriptions = Vec::new();
    }

    /// Where in the connection's list the channel is.
    pub fn subscription_position(&self, slot: u32, channel: u64) -> Option<usize> {
        self.connections[slot as usize].subscriptions.iter().position(|s| s.channel == channel)
    }
}

/// Channel ids are counted up: they are their own hash, spread so that hashbrown's top bits differ.
#[derive(Default)]
pub struct IdHasher(u64);

/// Builds the hasher of maps by channel id.
pub type ById = BuildHasherDefault<IdHasher>;

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, slot: u32) {
        self.write_u64(slot.into());
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = (self.0 ^ id).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(26);
    }
}
