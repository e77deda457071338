//! One channel, its store, a worker, and clients that come, go, read slowly and remember.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tidewire::hub::channel::{Channel, JoinLimits};
use tidewire::replay::event::StoredEvent;
use tidewire::replay::follower::{Follower, Plan};
use tidewire::replay::pages::{Page, PageEntry};
use tidewire::replay::store::{Retention, Stamp};
use tidewire::worker::mailbox::{Job, Mailbox};
use tidewire_protocol::channel_name::ChannelName;
use tidewire_protocol::position::{Epoch, Position};
use tidewire_protocol::replay::{Bounds, Generation};
use tidewire_protocol::{DataToken, SocketId, frame, server_message};

const CLIENTS: usize = 4;
/// Frames that fit into a client's outbox.
const OUTBOX: usize = 4;
const PAGE: usize = 3;
const MAX_REPLAY: u64 = 1_000_000;
const KEEP_ALL: Retention =
    Retention { window_ms: u64::MAX, max_messages: u64::MAX, max_bytes: u64::MAX, inactivity_ttl_ms: 0 };

/// What happened, to know that the schedules are worth their name.
#[derive(Debug, Default)]
pub struct Seen {
    pub recovered: u64,
    pub gaps: u64,
    pub demoted: u64,
    pub pages: u64,
    pub resets: u64,
    pub excluded: u64,
    pub power_cuts: u64,
}

impl Seen {
    pub fn all(&self) -> [u64; 7] {
        let Self { recovered, gaps, demoted, pages, resets, excluded, power_cuts } = *self;
        [recovered, gaps, demoted, pages, resets, excluded, power_cuts]
    }
}

pub struct World {
    channel: Arc<Channel>,
    mailboxes: [Mailbox; 1],
    /// Every message of the present timeline; index 0 is serial 1.
    log: Vec<Arc<StoredEvent>>,
    /// Messages of `log` that a power cut spares.
    synced: usize,
    floor: u64,
    generations: Vec<Generation>,
    generation: u32,
    /// Written, and not delivered yet.
    committed: VecDeque<Arc<StoredEvent>>,
    clients: [Client; CLIENTS],
    next_message: u64,
    pub seen: Seen,
}

/// Connected while it has a session.
#[derive(Default)]
struct Client {
    session: Option<Session>,
    /// What it remembers: its position, and the message that was there when it was told.
    position: Option<(Position, Option<u64>)>,
    /// Of the epoch that it was told last.
    generation: u32,
    /// Number of its connection, for socket ids.
    connection: u32,
    /// Messages it got since it was last told of a gap, by serial.
    got: BTreeMap<u64, u64>,
    /// Serial after which it is owed everything.
    owed_after: u64,
}

struct Session {
    socket_id: SocketId,
    follower: Follower,
    outbox: VecDeque<Bytes>,
    /// Read from the log, and on its way.
    page: Option<(u64, Page)>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            channel: new_channel(),
            mailboxes: [Mailbox::new(usize::MAX)],
            log: Vec::new(),
            synced: 0,
            floor: 1,
            generations: vec![Generation { number: 1, start: 1 }],
            generation: 1,
            committed: VecDeque::new(),
            clients: Default::default(),
            next_message: 1,
            seen: Seen::default(),
        }
    }
}

fn new_channel() -> Arc<Channel> {
    Arc::new(Channel::new(1, ChannelName::parse("orders", 200).unwrap(), false))
}

fn socket_id(client: usize, connection: u32) -> SocketId {
    SocketId::from_bits((client as u64 + 1) << 32 | u64::from(connection + 1)).unwrap()
}

/// The number behind a member of a frame; frames here hold no other text with its name.
fn number(text: &str, member: &str) -> Option<u64> {
    let (_, rest) = text.split_once(&format!("\"{member}\":"))?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

impl World {
    pub fn step(&mut self, what: u8, which: u8) {
        let client = usize::from(which) % CLIENTS;
        match what % 32 {
            0..=6 => self.publish(which),
            7..=10 => self.deliver_one(),
            11..=14 => self.drain_mailbox(),
            15..=17 => self.read(client, 1 + usize::from(which >> 6)),
            18..=21 => self.chase(client),
            22..=23 => self.take_page(client),
            24..=26 => self.subscribe(client),
            27 => self.disconnect(client),
            28 => self.trim(u64::from(which) % 4),
            29 => self.synced = self.log.len(),
            30 if which < 8 => self.restart(self.log.len()),
            31 if which < 8 => self.power_cut(),
            _ => self.rewind(client),
        }
    }

    fn bounds(&self) -> Bounds {
        let generations = self.generations.clone();
        Bounds { nonce: 7, base: 0, generations, floor: self.floor, head: self.log.len() as u64 }
    }

    fn publish(&mut self, which: u8) {
        let serial = self.log.len() as u64 + 1;
        if self.generations.last().is_some_and(|last| last.number < self.generation) {
            self.generations.push(Generation { number: self.generation, start: serial });
        }
        let begins_generation = self.generations.last().is_some_and(|last| last.start == serial);
        // Now and then the sender is one of the clients.
        let except = (which < 64).then(|| usize::from(which) % CLIENTS);
        let except = except.map(|client| socket_id(client, self.clients[client].connection));
        let data = DataToken::from_text(&self.next_message.to_string());
        let text = server_message::channel_event("e", "orders", &data, None)
            .replace("\"data\":\"", "\"m\":")
            .replace("\"}", "}");
        self.next_message += 1;
        let position = Position { epoch: Epoch { nonce: 7, generation: self.generation }, serial };
        let stamp = Stamp { position, time_ms: 0, total_bytes: serial, begins_generation };
        let event = Arc::new(StoredEvent::new(frame::encode_text(&text), stamp, None, except, 1));
        self.log.push(Arc::clone(&event));
        self.committed.push_back(event);
    }

    fn deliver_one(&mut self) {
        if let Some(event) = self.committed.pop_front() {
            self.channel.publish_stored(event, None, &self.mailboxes);
        }
    }

    /// What the worker does with its mail, one message after the other.
    fn drain_mailbox(&mut self) {
        let mut jobs = Vec::new();
        self.mailboxes[0].take(&mut jobs);
        for job in jobs {
            let Job::Deliver(delivery) = job else { continue };
            let event = delivery.stored.unwrap();
            for client in 0..CLIENTS {
                let Some(session) = &mut self.clients[client].session else { continue };
                let plan = session.follower.plan_live(std::iter::once(&event), session.socket_id);
                if !session.send(&plan) {
                    session.follower.demote();
                    self.seen.demoted += 1;
                }
            }
        }
    }

    /// The client subscribes again with what it remembers, or for the first time.
    fn subscribe(&mut self, index: usize) {
        if self.clients[index].session.is_some() {
            return;
        }
        let position = self.clients[index].position;
        let verdict = position.map(|(position, held)| {
            // The ring may answer; if it does, as the store would.
            let bounds = self.bounds();
            let verdict = bounds.resolve(position, MAX_REPLAY);
            if let Some(by_ring) = self.channel.resolve(position, &KEEP_ALL, MAX_REPLAY, 0)
                && position.serial + 1 >= self.floor
            {
                assert_eq!(by_ring, verdict, "the ring and the store disagree on {position}");
            }
            let is_whole = held == self.message_at(position.serial) && position.serial + 1 >= self.floor;
            assert_eq!(verdict.is_ok(), is_whole, "{position} under {bounds:?}: {verdict:?}");
            verdict
        });
        let stand = self.bounds().position();
        let limits = JoinLimits { max_members: 0, announce_count: false };
        let joined = self.channel.join(0, None, limits, Some(&|| stand), &self.mailboxes, 0).unwrap();
        let head = joined.log_head.unwrap();
        let old = self.clients[index].connection;
        let client = &mut self.clients[index];
        let follower = match (position, verdict) {
            (Some((position, _)), Some(Ok(()))) => {
                self.seen.recovered += 1;
                let target = Position { serial: head.serial.max(position.serial), ..head };
                Follower::resuming(position.serial, target, Some(socket_id(index, old)))
            }
            _ => {
                self.seen.gaps += u64::from(position.is_some());
                client.got.clear();
                client.owed_after = head.serial;
                Follower::live(true, head)
            }
        };
        client.connection += 1;
        client.generation = head.epoch.generation;
        let socket_id = socket_id(index, client.connection);
        client.session = Some(Session { socket_id, follower, outbox: VecDeque::new(), page: None });
        if verdict != Some(Ok(())) {
            self.tell(index, head.serial);
        }
    }

    /// A subscriber goes back to what it has, as the plugin does when it sees a gap.
    fn rewind(&mut self, index: usize) {
        let Some((position, _)) = self.clients[index].position else { return };
        let not_from = Some(socket_id(index, self.clients[index].connection));
        let Some(session) = &mut self.clients[index].session else { return };
        // What waits for it was sent by the old follower: it comes before the answer, and counts.
        if !session.outbox.is_empty() || position.serial + 1 < self.floor {
            return;
        }
        if let Some(head) = self.channel.log_head() {
            let target = Position { serial: head.serial.max(position.serial), ..head };
            session.follower = Follower::resuming(position.serial, target, not_from);
            self.clients[index].generation = head.epoch.generation;
        }
    }

    fn disconnect(&mut self, client: usize) {
        if self.clients[client].session.take().is_some() {
            let is_last = self.clients.iter().all(|client| client.session.is_none());
            self.channel.leave(0, is_last, None, false, &self.mailboxes, 0);
        }
    }

    /// One step of a chase: into the live ones, or the next page is read.
    fn chase(&mut self, index: usize) {
        let Some(session) = &mut self.clients[index].session else { return };
        if !session.follower.is_chasing() || session.page.is_some() || !session.outbox.is_empty() {
            return;
        }
        let cursor = session.follower.cursor();
        match self.channel.catch_up(cursor) {
            Some(missed) => {
                let plan = session.follower.plan_ring("orders", missed.iter(), session.socket_id);
                if session.send(&plan) {
                    session.follower.go_live();
                }
            }
            None => {
                let from = cursor.max(self.floor - 1);
                let entries = self.log.iter().skip(usize::try_from(from).unwrap()).take(PAGE);
                let entries = entries.map(|event| PageEntry::Event(Arc::clone(event))).collect();
                session.page = Some((cursor, Page { entries }));
                self.seen.pages += 1;
            }
        }
    }

    fn take_page(&mut self, index: usize) {
        let Some(session) = &mut self.clients[index].session else { return };
        let Some((cursor, page)) = session.page.take() else { return };
        if !session.follower.is_chasing() || session.follower.cursor() != cursor {
            return;
        }
        match session.follower.plan_page("orders", page.after(cursor), session.socket_id) {
            Ok(plan) => drop(session.send(&plan)),
            Err(_) if self.channel.catch_up(cursor).is_some() => {}
            Err(_) => {
                assert!(cursor + 1 < self.floor, "a reset without need at {cursor}, floor {}", self.floor);
                let head = self.channel.log_head().unwrap();
                session.follower.reset(head);
                self.seen.resets += 1;
                // It is told after all that waits for it.
                self.read(index, usize::MAX);
                let client = &mut self.clients[index];
                client.got.clear();
                client.owed_after = head.serial;
                client.generation = head.epoch.generation;
                self.tell(index, head.serial);
            }
        }
    }

    fn read(&mut self, index: usize, frames: usize) {
        for _ in 0..frames {
            let session = self.clients[index].session.as_mut();
            let Some(frame) = session.and_then(|session| session.outbox.pop_front()) else { return };
            self.hear(index, frame::text_of(&frame));
        }
    }

    fn hear(&mut self, index: usize, text: &str) {
        let serial = number(text, "serial").unwrap();
        if let Some((_, generation)) = text.split_once("\"epoch\":\"7.") {
            let digits = generation.split('"').next().unwrap();
            self.clients[index].generation = digits.parse().unwrap();
        }
        if text.contains("replay_done") {
            return self.tell(index, serial);
        }
        let message = number(text, "m").unwrap();
        let held = self.clients[index].position.unwrap().0.serial;
        let prev = number(text, "prev").unwrap_or(serial - 1);
        assert_eq!(prev, held, "client {index} was at {held}: {text}");
        assert_eq!(Some(message), self.message_at(serial), "client {index}: {text}");
        let before = self.clients[index].got.insert(serial, message);
        assert_eq!(before, None, "client {index} has it: {text}");
        self.tell(index, serial);
    }

    fn tell(&mut self, index: usize, serial: u64) {
        let held = self.message_at(serial);
        let epoch = Epoch { nonce: 7, generation: self.clients[index].generation };
        self.clients[index].position = Some((Position { epoch, serial }, held));
    }

    fn message_at(&self, serial: u64) -> Option<u64> {
        let event = self.log.get(usize::try_from(serial.checked_sub(1)?).unwrap())?;
        number(frame::text_of(event.plain()), "m")
    }

    fn trim(&mut self, count: u64) {
        self.floor = (self.floor + count).min(self.log.len() as u64 + 1);
    }

    /// `kill -9`: what was written stays, what was on its way is gone, clients are cut off.
    fn restart(&mut self, kept: usize) {
        self.log.truncate(kept);
        self.committed.clear();
        self.generations.retain(|one| one.start <= kept.max(1) as u64);
        self.generation += 1;
        self.synced = self.log.len();
        self.floor = self.floor.min(kept as u64 + 1);
        (0..CLIENTS).for_each(|client| self.clients[client].session = None);
        self.channel = new_channel();
        self.mailboxes = [Mailbox::new(usize::MAX)];
        for client in &mut self.clients {
            client.got.retain(|serial, _| *serial <= kept as u64);
        }
    }

    fn power_cut(&mut self) {
        self.seen.power_cuts += 1;
        self.restart(self.synced.min(self.log.len()));
    }

    /// Everybody comes back and reads to the end; then everybody has all that it is owed.
    pub fn settle(&mut self) {
        while !self.committed.is_empty() {
            self.deliver_one();
        }
        (0..CLIENTS).for_each(|client| self.subscribe(client));
        for _ in 0..self.log.len() + 10 {
            self.drain_mailbox();
            for client in 0..CLIENTS {
                self.read(client, usize::MAX);
                self.take_page(client);
                self.read(client, usize::MAX);
                self.chase(client);
                self.read(client, usize::MAX);
            }
            if self.clients.iter().all(|one| one.session.as_ref().is_some_and(Session::is_settled)) {
                break;
            }
        }
        for index in 0..CLIENTS {
            let owed_after = self.clients[index].owed_after;
            for event in self.log.iter().filter(|event| event.serial() > owed_after) {
                let is_own = event.except.is_some_and(|except| except.to_bits() >> 32 == index as u64 + 1);
                let has_it = self.clients[index].got.contains_key(&event.serial());
                self.seen.excluded += u64::from(is_own && !has_it);
                assert!(has_it || is_own, "client {index} never got {}", event.serial());
            }
        }
    }
}

impl Session {
    /// False when the outbox does not take all.
    fn send(&mut self, plan: &Plan) -> bool {
        let accepted = plan.frames.len().min(OUTBOX.saturating_sub(self.outbox.len()));
        self.outbox.extend(plan.frames[..accepted].iter().cloned());
        self.follower.accept(plan, accepted)
    }

    fn is_settled(&self) -> bool {
        !self.follower.is_chasing() && self.outbox.is_empty()
    }
}
