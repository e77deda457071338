//! The narrow trait behind which a log of messages is kept, and what passes through it.
//!
//! An engine knows streams (one per app and channel), serials and generations. It knows no subscriber, no socket
//! and no JSON. Its calls block: only the threads of [`super::Replay`] make them.

use std::fmt::Debug;
use std::path::PathBuf;

use tidewire_protocol::position::Position;
use tidewire_protocol::replay::Bounds;

pub use tidewire_protocol::history::Direction;

pub use crate::config::Durability;

/// One channel's log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StreamName {
    /// Id of the app.
    pub app: Box<str>,
    pub channel: Box<str>,
}

/// What a message says; the store adds when it came and its serial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The publisher's idempotency key, which subscribers see as the message's `id`.
    pub id: Option<Box<str>>,
    pub event: Box<str>,
    /// A JSON string token with its quotes, as [`tidewire_protocol::DataToken`] holds it.
    pub data: Box<str>,
    /// The sender, of client events on presence channels.
    pub user_id: Option<Box<str>>,
    /// [`SocketId::to_bits`](tidewire_protocol::SocketId::to_bits) of the connection that is left out.
    pub except: Option<u64>,
}

impl Content {
    /// What counts for `max_bytes`: the texts, and a constant for what is kept beside them.
    pub fn size(&self) -> u64 {
        const OVERHEAD: usize = 32;
        let texts = [Some(&self.event), Some(&self.data), self.id.as_ref(), self.user_id.as_ref()];
        texts.into_iter().flatten().map(|text| text.len()).sum::<usize>() as u64 + OVERHEAD as u64
    }
}

/// A message to be stored. Its `content.id`, if any, makes it once only for
/// [`IDEMPOTENCY_WINDOW_MS`](super::keys::IDEMPOTENCY_WINDOW_MS).
#[derive(Clone, Debug)]
pub struct Append {
    pub stream: StreamName,
    pub content: Content,
    /// What was there before is not replayed any more if the last message is older than this; 0 = no such limit.
    pub inactivity_ttl_ms: u64,
    pub hints: Hints,
}

/// What an engine may make use of when a message comes. None of it says what is replayed: [`Retention`] does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// What the rule keeps of the channel; 0 = unknown.
    pub max_messages: u64,
    pub max_bytes: u64,
    pub window_ms: u64,
    /// Of cache channels: how long the event is kept for later subscribers.
    pub cache_ttl_ms: Option<u64>,
}

/// What became of an [`Append`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    Stored(Stamp),
    /// A message with this id and content is there already.
    Repeat(Position),
    /// The id belongs to a message with another content.
    Conflict,
}

/// What the store adds to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub position: Position,
    /// Milliseconds since the Unix epoch by the store's clock; never goes back within a stream.
    pub time_ms: u64,
    /// Sizes of the stream's messages up to and with this one, trimmed ones included.
    pub total_bytes: u64,
    /// The first message of its generation in this stream.
    pub begins_generation: bool,
}

/// A message as it is read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub stamp: Stamp,
    pub content: Content,
}

/// One entry of a page. A serial that is missing between two entries was lost with a damaged slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Message(Message),
    /// Its checksum fails: the message cannot be had any more.
    Unreadable {
        serial: u64,
    },
}

impl Entry {
    pub fn serial(&self) -> u64 {
        match self {
            Self::Message(message) => message.stamp.position.serial,
            Self::Unreadable { serial } => *serial,
        }
    }
}

/// Logical limits of what may be replayed; what is beyond them goes when its slice does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    pub window_ms: u64,
    pub max_messages: u64,
    /// The newest message is kept whatever its size.
    pub max_bytes: u64,
    /// Nothing is replayed of a stream without a message for so long; 0 = no such limit.
    pub inactivity_ttl_ms: u64,
}

impl Retention {
    /// The narrower of both in every respect.
    pub fn narrowed(self, other: Self) -> Self {
        let ttl = match (self.inactivity_ttl_ms, other.inactivity_ttl_ms) {
            (0, ttl) | (ttl, 0) => ttl,
            (one, two) => one.min(two),
        };
        Self {
            window_ms: self.window_ms.min(other.window_ms),
            max_messages: self.max_messages.min(other.max_messages),
            max_bytes: self.max_bytes.min(other.max_bytes),
            inactivity_ttl_ms: ttl,
        }
    }
}

/// What to read: serials after `after` and before `before`, both exclusive.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    pub after: u64,
    pub before: u64,
    /// Forward from `after` on, or backward from `before` on.
    pub direction: Direction,
    pub max_messages: usize,
    /// At least one entry is read whatever its size.
    pub max_bytes: u64,
}

/// How much the store keeps on disk or in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caps {
    /// The longest window of any rule: nothing is kept for longer.
    pub longest_window_ms: u64,
    /// Of the whole store.
    pub max_bytes: u64,
    /// Of each app that has a limit of its own; 0 = none. On disk by whole slices: what newer slices have when they
    /// come to so much is all that is replayed.
    pub app_max_bytes: Vec<(Box<str>, u64)>,
}

/// Where and how an engine keeps its files.
#[derive(Clone, Debug)]
pub struct Location {
    pub directory: PathBuf,
    pub durability: Durability,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No space is left. Nothing of the batch was kept; a later append may succeed.
    #[error("the disk, or Redis's memory, is full")]
    Full,
    /// Nothing of the batch was kept; a later call may succeed.
    #[error("{0}")]
    Unavailable(String),
    /// The store must not be written to any more: the process ends, and its supervisor starts it again.
    #[error("{0}")]
    Failed(String),
}

/// Sizes for metrics and `history/state`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub streams: u64,
    /// On disk or in memory.
    pub bytes: u64,
    pub slices: u64,
    /// Slices that were damaged and set aside since the start.
    pub slices_set_aside: u64,
    /// Slices dropped for [`Caps::max_bytes`] since the start.
    pub slices_dropped_early: u64,
}

/// An engine. Times are milliseconds since the Unix epoch; an engine reads no clock.
pub trait Store: Debug + Send + Sync {
    /// Stores a batch whole or not at all, and tells what became of each message, in their order. One thread at a
    /// time calls it. When it returns, every read sees the batch, and `kill -9` cannot undo it.
    fn append(&self, batch: &[Append], now_ms: u64) -> Result<Vec<Appended>, StoreError>;

    /// As [`append`](Self::append), for an engine that may store a part of the batch: what became of each message.
    fn append_each(&self, batch: &[Append], now_ms: u64) -> Vec<Result<Appended, StoreError>> {
        match self.append(batch, now_ms) {
            Ok(appended) => appended.into_iter().map(Ok).collect(),
            Err(error) => batch.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    /// Whether the message's id is known to belong to another message, so that appending it would come to
    /// [`Appended::Conflict`]. Never waits for the disk.
    fn conflicts(&self, message: &Append, now_ms: u64) -> bool;

    /// Where a stream stands. One without messages is at serial 0, or where forgotten streams ended: it need not
    /// be known. Never waits for the disk.
    fn position(&self, stream: &StreamName) -> Position;

    /// The serial of the last message of a stream, whoever wrote it. May wait for an engine that others write to, too.
    fn head(&self, stream: &StreamName) -> Result<u64, StoreError> {
        Ok(self.position(stream).serial)
    }

    /// What of a stream may be replayed under `retention`.
    fn bounds(&self, stream: &StreamName, retention: &Retention, now_ms: u64) -> Result<Bounds, StoreError>;

    /// Entries of `range` that are there, in its direction; fewer than asked only at the end, or at a byte limit.
    /// Looks at no retention: what is still there is read.
    fn read(&self, stream: &StreamName, range: Range) -> Result<Vec<Entry>, StoreError>;

    /// Serial of the first message not older than `since_ms`; `head + 1` when there is none.
    fn first_since(&self, stream: &StreamName, since_ms: u64) -> Result<u64, StoreError>;

    /// Forgets what is before serial `before`. Serials and generation go on.
    fn purge(&self, stream: &StreamName, before: u64, now_ms: u64) -> Result<(), StoreError>;

    /// Notes that messages of the stream were delivered without being stored: its generation ends, and a position
    /// from before it is expired.
    fn skip(&self, stream: &StreamName);

    /// Sizes the slices and the caps anew.
    fn set_caps(&self, caps: &Caps);

    /// Begins and drops slices, and does what else is due. Called about once a second.
    fn maintain(&self, now_ms: u64) -> Result<(), StoreError>;

    fn stats(&self) -> Stats;

    /// The last call: makes everything safe and notes that no tail was lost.
    fn close(&self) -> Result<(), StoreError>;
}
