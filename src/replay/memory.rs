//! The engine that keeps the log in memory: gone with the process, and with the same semantics.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use tidewire_protocol::position::{Epoch, Position};
use tidewire_protocol::replay::Bounds;

use super::keys::{Keyed, Keys, Known};
use super::store::{
    Append, Appended, Caps, Direction, Entry, Message, Range, Retention, Stats, Store, StoreError, StreamName,
};
use super::streams::{StoreNonce, StreamState, unknown_bounds};
use crate::sync::lock;

/// What a message takes beside its texts: its allocations, and its place in two queues.
const MESSAGE_OVERHEAD: u64 = 192;

/// A log that ends with the process. Its caps hold to the byte.
#[derive(Debug)]
pub struct MemoryStore(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    nonce: StoreNonce,
    /// Of messages to come.
    generation: u32,
    /// The largest head of any stream that was forgotten.
    base: u64,
    longest_window_ms: u64,
    max_bytes: u64,
    app_max_bytes: HashMap<Box<str>, u64>,
    bytes: u64,
    streams: HashMap<Arc<StreamName>, Stream>,
    apps: HashMap<Box<str>, AppLog>,
    /// Streams without messages, by the time of their last one.
    idle: BTreeMap<u64, Vec<Arc<StreamName>>>,
    keys: Keys,
}

#[derive(Debug)]
struct Stream {
    name: Arc<StreamName>,
    state: StreamState,
    messages: VecDeque<Message>,
}

/// An app's messages in the order in which they go.
#[derive(Debug, Default)]
struct AppLog {
    bytes: u64,
    order: VecDeque<Queued>,
}

#[derive(Debug)]
struct Queued {
    stream: Arc<StreamName>,
    serial: u64,
    time_ms: u64,
    bytes: u64,
}

impl MemoryStore {
    pub fn new(caps: &Caps) -> Self {
        let mut inner = Inner {
            nonce: StoreNonce(rand::random()),
            generation: 1,
            base: 0,
            longest_window_ms: 0,
            max_bytes: 0,
            app_max_bytes: HashMap::new(),
            bytes: 0,
            streams: HashMap::new(),
            apps: HashMap::new(),
            idle: BTreeMap::new(),
            keys: Keys::default(),
        };
        inner.set_caps(caps);
        Self(Mutex::new(inner))
    }
}

impl Stream {
    /// Serial of the oldest message that is there; `head + 1` when there is none.
    fn first(&self) -> u64 {
        self.messages.front().map_or(self.state.head + 1, |message| message.stamp.position.serial)
    }

    /// How many messages are before the first that `is_kept` is true of, and of every later one.
    fn count_until(&self, is_kept: impl Fn(&Message) -> bool) -> usize {
        self.messages.partition_point(|message| !is_kept(message))
    }

    fn serial_at(&self, index: usize) -> u64 {
        self.messages.get(index).map_or(self.state.head + 1, |message| message.stamp.position.serial)
    }

    fn floor(&self, retention: &Retention, now_ms: u64) -> u64 {
        let Self { state, .. } = self;
        let since_ms = now_ms.saturating_sub(retention.window_ms);
        let by_age = self.serial_at(self.count_until(|message| message.stamp.time_ms >= since_ms));
        let floor = state.floor_of(retention, now_ms).max(by_age).max(self.first());
        let beyond = state.beyond_bytes(retention.max_bytes);
        let before_first =
            self.messages.front().map_or(0, |message| message.stamp.total_bytes - message.content.size());
        if beyond <= before_first {
            return floor;
        }
        let last_beyond = self.serial_at(self.count_until(|message| message.stamp.total_bytes >= beyond));
        floor.max((last_beyond + 1).min(state.head))
    }
}

impl Inner {
    fn set_caps(&mut self, caps: &Caps) {
        self.longest_window_ms = caps.longest_window_ms;
        self.max_bytes = caps.max_bytes;
        self.app_max_bytes = caps.app_max_bytes.iter().cloned().collect();
        self.enforce_caps();
    }

    /// Of a stream's messages to come.
    fn epoch(&self, stream: &StreamName) -> Epoch {
        Epoch { nonce: self.nonce.of(stream), generation: self.generation }
    }

    fn append(&mut self, append: &Append, now_ms: u64) -> Appended {
        let Append { stream, content, inactivity_ttl_ms, .. } = append;
        let print = Keyed::new(stream, content).map(|keyed| self.keys.fingerprint(&keyed));
        match print.map(|print| self.keys.look_up(print, now_ms)) {
            Some(Known::Conflict) => return Appended::Conflict,
            Some(Known::Repeat(Some(position))) => return Appended::Repeat(position),
            Some(Known::New | Known::Repeat(None)) | None => {}
        }
        let epoch = self.epoch(stream);
        let stream = self.stream(stream, now_ms);
        let stamp = stream.state.append(content.size(), now_ms, epoch, *inactivity_ttl_ms);
        stream.messages.push_back(Message { stamp, content: content.clone() });
        let has_expired = stream.first() < stream.state.floor;
        let bytes = content.size() + MESSAGE_OVERHEAD;
        let (serial, time_ms) = (stamp.position.serial, stamp.time_ms);
        let queued = Queued { stream: Arc::clone(&stream.name), serial, time_ms, bytes };
        let app = self.apps.entry(append.stream.app.clone()).or_default();
        app.order.push_back(queued);
        app.bytes += bytes;
        self.bytes += bytes;
        if has_expired {
            self.drop_below_floor(&append.stream);
        }
        if let Some(print) = print {
            self.keys.insert(print, Some(stamp.position), now_ms);
        }
        Appended::Stored(stamp)
    }

    fn stream(&mut self, name: &StreamName, now_ms: u64) -> &mut Stream {
        // Not the entry interface: it takes the name by value.
        if !self.streams.contains_key(name) {
            let name = Arc::new(name.clone());
            let state = StreamState::new(self.base, now_ms);
            let stream = Stream { name: Arc::clone(&name), state, messages: VecDeque::new() };
            self.streams.insert(name, stream);
        }
        self.streams.get_mut(name).expect("it was there, or was inserted above")
    }

    fn enforce_caps(&mut self) {
        for (app, max_bytes) in &self.app_max_bytes {
            while let Some(log) = self.apps.get_mut(app).filter(|log| log.bytes > *max_bytes)
                && let Some(oldest) = log.pop()
            {
                self.bytes -= oldest.bytes;
                drop_message(&mut self.streams, &mut self.idle, &oldest);
            }
        }
        while self.bytes > self.max_bytes
            && let Some(oldest) = self.pop_oldest(u64::MAX)
        {
            drop_message(&mut self.streams, &mut self.idle, &oldest);
        }
    }

    /// The oldest message of all that came before `before_ms`.
    fn pop_oldest(&mut self, before_ms: u64) -> Option<Queued> {
        let age = |log: &AppLog| log.order.front().map_or(u64::MAX, |oldest| oldest.time_ms);
        let log = self.apps.values_mut().min_by_key(|log| age(log)).filter(|log| age(log) < before_ms)?;
        let oldest = log.pop()?;
        self.bytes -= oldest.bytes;
        Some(oldest)
    }

    fn purge(&mut self, name: &StreamName, before: u64) {
        if let Some(stream) = self.streams.get_mut(name) {
            stream.state.raise_floor(before.min(stream.state.head + 1), 0);
            self.drop_below_floor(name);
        }
    }

    fn drop_below_floor(&mut self, name: &StreamName) {
        let Some(stream) = self.streams.get_mut(name) else { return };
        let floor = stream.state.floor;
        let count = stream.count_until(|message| message.stamp.position.serial >= floor);
        if count == 0 {
            return;
        }
        let purged: u64 =
            stream.messages.drain(..count).map(|message| message.content.size() + MESSAGE_OVERHEAD).sum();
        self.bytes -= purged;
        if stream.messages.is_empty() {
            self.idle.entry(stream.state.time_ms).or_default().push(Arc::clone(&stream.name));
        }
        if let Some(app) = self.apps.get_mut(&name.app) {
            app.bytes -= purged;
            app.order.retain(|queued| *queued.stream != *name || queued.serial >= floor);
        }
    }

    fn skip(&mut self, name: &StreamName) {
        let stream = self.streams.get(name);
        if stream.is_some_and(|stream| stream.state.has_messages_of(self.generation)) {
            self.generation += 1;
        }
        let generation = self.generation;
        self.stream(name, 0).state.skip(generation);
        self.drop_below_floor(name);
    }

    fn maintain(&mut self, now_ms: u64) {
        let window_ms = self.longest_window_ms;
        while let Some(oldest) = self.pop_oldest(now_ms.saturating_sub(window_ms)) {
            drop_message(&mut self.streams, &mut self.idle, &oldest);
        }
        self.apps.retain(|_, log| !log.order.is_empty());
        let forgotten_ms = now_ms.saturating_sub(window_ms.saturating_mul(2));
        let idle = self.idle.split_off(&forgotten_ms);
        for (time_ms, names) in std::mem::replace(&mut self.idle, idle) {
            for name in names {
                self.forget(&name, time_ms);
            }
        }
        self.enforce_caps();
    }

    /// Forgets a stream that had no message since `time_ms`.
    fn forget(&mut self, name: &StreamName, time_ms: u64) {
        let is_idle = |stream: &Stream| stream.messages.is_empty() && stream.state.time_ms == time_ms;
        if let Some(stream) = self.streams.get(name).filter(|stream| is_idle(stream)) {
            self.base = self.base.max(stream.state.head);
            self.streams.remove(name);
        }
    }
}

impl AppLog {
    fn pop(&mut self) -> Option<Queued> {
        let oldest = self.order.pop_front()?;
        self.bytes -= oldest.bytes;
        Some(oldest)
    }
}

fn drop_message(
    streams: &mut HashMap<Arc<StreamName>, Stream>,
    idle: &mut BTreeMap<u64, Vec<Arc<StreamName>>>,
    oldest: &Queued,
) {
    if let Some(stream) = streams.get_mut(&oldest.stream)
        && stream.first() == oldest.serial
    {
        stream.messages.pop_front();
        if stream.messages.is_empty() {
            idle.entry(stream.state.time_ms).or_default().push(Arc::clone(&stream.name));
        }
    }
}

impl Store for MemoryStore {
    fn append(&self, batch: &[Append], now_ms: u64) -> Result<Vec<Appended>, StoreError> {
        let mut inner = lock(&self.0);
        let appended = batch.iter().map(|append| inner.append(append, now_ms)).collect();
        inner.enforce_caps();
        Ok(appended)
    }

    fn conflicts(&self, message: &Append, now_ms: u64) -> bool {
        lock(&self.0).keys.conflicts(message, now_ms)
    }

    fn position(&self, stream: &StreamName) -> Position {
        let inner = lock(&self.0);
        let epoch = inner.epoch(stream);
        let unknown = Position { epoch, serial: inner.base };
        inner.streams.get(stream).map_or(unknown, |stream| stream.state.position(epoch.nonce))
    }

    fn bounds(&self, stream: &StreamName, retention: &Retention, now_ms: u64) -> Result<Bounds, StoreError> {
        let inner = lock(&self.0);
        let epoch = inner.epoch(stream);
        Ok(match inner.streams.get(stream) {
            Some(stream) => stream.state.bounds(epoch.nonce, stream.floor(retention, now_ms)),
            None => unknown_bounds(epoch, inner.base),
        })
    }

    fn read(&self, stream: &StreamName, range: Range) -> Result<Vec<Entry>, StoreError> {
        let inner = lock(&self.0);
        let Some(stream) = inner.streams.get(stream) else { return Ok(Vec::new()) };
        let start = stream.count_until(|message| message.stamp.position.serial > range.after);
        let end = stream.count_until(|message| message.stamp.position.serial >= range.before).max(start);
        let messages = stream.messages.range(start..end);
        Ok(match range.direction {
            Direction::Forward => page(messages, &range),
            Direction::Backward => page(messages.rev(), &range),
        })
    }

    fn first_since(&self, stream: &StreamName, since_ms: u64) -> Result<u64, StoreError> {
        let inner = lock(&self.0);
        Ok(match inner.streams.get(stream) {
            Some(stream) => stream.serial_at(stream.count_until(|message| message.stamp.time_ms >= since_ms)),
            None => inner.base + 1,
        })
    }

    fn purge(&self, stream: &StreamName, before: u64, _now_ms: u64) -> Result<(), StoreError> {
        lock(&self.0).purge(stream, before);
        Ok(())
    }

    fn skip(&self, stream: &StreamName) {
        lock(&self.0).skip(stream);
    }

    fn set_caps(&self, caps: &Caps) {
        lock(&self.0).set_caps(caps);
    }

    fn maintain(&self, now_ms: u64) -> Result<(), StoreError> {
        lock(&self.0).maintain(now_ms);
        Ok(())
    }

    fn stats(&self) -> Stats {
        let inner = lock(&self.0);
        Stats { streams: inner.streams.len() as u64, bytes: inner.bytes, ..Stats::default() }
    }

    fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

fn page<'a>(messages: impl Iterator<Item = &'a Message>, range: &Range) -> Vec<Entry> {
    let mut bytes = 0;
    let mut entries = Vec::new();
    for message in messages.take(range.max_messages) {
        bytes += message.content.size();
        if bytes > range.max_bytes && !entries.is_empty() {
            break;
        }
        entries.push(Entry::Message(message.clone()));
    }
    entries
}
