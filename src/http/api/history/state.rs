//! Where a channel's log stands, as JSON.

use serde::Serialize;
use tidewire_protocol::replay::Bounds;

use crate::replay::store::{Direction, Entry, Range, Retention, Store, StoreError, StreamName};

#[derive(Debug, Serialize)]
pub struct State {
    channel: Box<str>,
    epoch: String,
    /// Of the newest message, or of the beginning of a log without one.
    position: String,
    /// Serial of the oldest message that is kept; `head + 1` when none is.
    floor: u64,
    /// Serial of the newest message.
    head: u64,
    messages: u64,
    /// Of these messages; absent when the first or the last of them cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    generations: Vec<GenerationState>,
}

#[derive(Debug, Serialize)]
struct GenerationState {
    number: u32,
    /// Serial of its first message.
    start: u64,
}

impl State {
    /// Blocks, as the store does.
    pub fn read(
        store: &dyn Store,
        stream: &StreamName,
        retention: &Retention,
        now_ms: u64,
    ) -> Result<Self, StoreError> {
        let bounds = store.bounds(stream, retention, now_ms)?;
        let generations = bounds.generations.iter();
        Ok(Self {
            channel: stream.channel.clone(),
            epoch: bounds.epoch().to_string(),
            position: bounds.position().to_string(),
            floor: bounds.floor,
            head: bounds.head,
            messages: (bounds.head + 1).saturating_sub(bounds.floor),
            bytes: bytes(store, stream, &bounds)?,
            generations: generations
                .map(|one| GenerationState { number: one.number, start: one.start })
                .collect(),
        })
    }
}

/// Every message tells the bytes up to and with it, so the first and the last are enough.
fn bytes(store: &dyn Store, stream: &StreamName, bounds: &Bounds) -> Result<Option<u64>, StoreError> {
    if bounds.head < bounds.floor {
        return Ok(Some(0));
    }
    let one = |direction| {
        let range = Range {
            after: bounds.floor.saturating_sub(1),
            before: bounds.head.saturating_add(1),
            direction,
            max_messages: 1,
            max_bytes: 0,
        };
        store.read(stream, range).map(|entries| entries.into_iter().next())
    };
    let (first, last) = (one(Direction::Forward)?, one(Direction::Backward)?);
    let (Some(Entry::Message(first)), Some(Entry::Message(last))) = (first, last) else { return Ok(None) };
    let before = first.stamp.total_bytes.saturating_sub(first.content.size());
    Ok(Some(last.stamp.total_bytes.saturating_sub(before)))
}
