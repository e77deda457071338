//! What a node asks that follows a channel on its topic, on the fan-out's thread. Positions are the channel's own, as
//! clients see them.

use std::sync::Arc;

use tidewire_protocol::position::{Epoch, Position};

use super::RedisStore;
use super::entry::{size_of, stored_event};
use super::names::partition_of;
use super::state::Head;
use crate::fanout::message::Stored;
use crate::replay::epochs::position_of;
use crate::replay::event::StoredEvent;
use crate::replay::store::{Direction, Entry, Message, Range, Stamp, StoreError, StreamName};

/// Messages that are read at once.
const STEP: usize = 256;
/// Bytes of them.
const STEP_BYTES: u64 = 1024 * 1024;

/// Where a channel's log stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelHead {
    pub position: Position,
    pub time_ms: u64,
    pub total_bytes: u64,
}

impl From<&Stamp> for ChannelHead {
    fn from(stamp: &Stamp) -> Self {
        Self { position: stamp.position, time_ms: stamp.time_ms, total_bytes: stamp.total_bytes }
    }
}

impl RedisStore {
    /// Where the log stands now.
    pub async fn head(&self, stream: &StreamName) -> Result<ChannelHead, StoreError> {
        let (log, head) = self.stand(stream).await?;
        let (generation, serial) =
            head.map_or((log.generation, log.base), |head| (head.generation, head.serial));
        let position = Position { epoch: Epoch { nonce: log.nonce, generation }, serial };
        let (time_ms, total_bytes) = head.map_or((0, 0), |head| (head.time_ms, head.total_bytes));
        Ok(ChannelHead { position: position_of(stream, position), time_ms, total_bytes })
    }

    /// The messages between two serials that are still there, oldest first.
    pub async fn range(
        &self,
        stream: &StreamName,
        after: u64,
        before: u64,
    ) -> Result<Vec<Message>, StoreError> {
        let mut messages: Vec<Message> = Vec::new();
        loop {
            let after = messages.last().map_or(after, |last| last.stamp.position.serial);
            let range = Range {
                after,
                before,
                direction: Direction::Forward,
                max_messages: STEP,
                max_bytes: STEP_BYTES,
            };
            let entries = self.read_range(stream, range).await?;
            if entries.is_empty() {
                return Ok(messages);
            }
            for entry in entries {
                // What cannot be read is a hole that stays.
                let Entry::Message(mut message) = entry else { return Ok(messages) };
                message.stamp.position = position_of(stream, message.stamp.position);
                messages.push(message);
            }
            if messages.last().is_some_and(|last| last.stamp.position.serial + 1 >= before) {
                return Ok(messages);
            }
        }
    }

    /// A message of the channel's topic as its subscribers get it. `last` is what the node had before it: a message
    /// of a later generation begins it.
    pub fn stored_event(&self, stream: &StreamName, stored: Stored, last: ChannelHead) -> Arc<StoredEvent> {
        let size = size_of(&stored);
        let Stored { generation, serial, time_ms, .. } = stored;
        let nonce = self.state.log(partition_of(stream)).nonce;
        let position = Position { epoch: Epoch { nonce, generation }, serial };
        let stamp = Stamp {
            position: position_of(stream, position),
            time_ms,
            total_bytes: last.total_bytes.saturating_add(size),
            begins_generation: last.position.epoch.generation < generation,
        };
        if last.position.serial + 1 == serial {
            self.note(stream, &stamp);
        }
        Arc::new(stored_event(stored, stamp, size))
    }

    /// Notes where the stream stands by a message that follows on one whose `total_bytes` were known.
    pub fn note(&self, stream: &StreamName, stamp: &Stamp) {
        let head = Head::of(stamp);
        self.state.note_head(stream, head, head.generation, None);
    }
}
