//! Questions to the log that a task awaits: where it stands, and what came after a message that was delivered.

use std::sync::Arc;

use tidewire_protocol::position::Position;
use tidewire_protocol::replay::{Reason, Rewind, Start};
use tokio::sync::oneshot;

use super::event::StoredEvent;
use super::pages::PageEntry;
use super::store::{Direction, Entry, Message, Range, Retention, Store, StoreError, StreamName};
use super::{Busy, Replay, Resolved};

/// What a log has that a node has not delivered.
#[derive(Debug)]
pub struct Missed {
    /// Of the newest message.
    pub head: Position,
    /// Serial of the oldest message that may be read.
    pub floor: u64,
    /// Everything after the position that was asked about, in order.
    pub events: Vec<Arc<StoredEvent>>,
    /// Why there is no going on from that position; then there are no events.
    pub broken: Option<Reason>,
}

impl Replay {
    /// Where a stream stands, also when other nodes write to it.
    pub async fn head(&self, stream: Arc<StreamName>) -> Result<Position, StoreError> {
        if !self.is_shared {
            return Ok(self.position(&stream));
        }
        let newest = Start::Rewind(Rewind::Count(1));
        Ok(self.resolved(stream, newest, EVERYTHING).await?.bounds.position())
    }

    /// What came after `known`, or, where nothing is known, only where the stream stands.
    pub async fn missed(
        &self,
        stream: Arc<StreamName>,
        known: Option<Position>,
        retention: Retention,
    ) -> Result<Missed, StoreError> {
        let start = known.map_or(Start::Rewind(Rewind::Count(1)), Start::After);
        let Resolved { bounds, verdict } = self.resolved(Arc::clone(&stream), start, retention).await?;
        let (head, floor) = (bounds.position(), bounds.floor);
        let broken = |reason| Ok(Missed { head, floor, events: Vec::new(), broken: Some(reason) });
        let mut cursor = match (known, verdict) {
            (None, _) => return Ok(Missed { head, floor, events: Vec::new(), broken: None }),
            (Some(_), Err(reason)) => return broken(reason),
            (Some(_), Ok(cursor)) => cursor,
        };
        let mut events = Vec::new();
        while cursor < head.serial {
            let (answer, page) = oneshot::channel();
            let done = Box::new(move |page| drop(answer.send(page)));
            self.page(Arc::clone(&stream), cursor, done).map_err(busy)?;
            let page = page.await.map_err(|_| ended())??;
            let entries = page.after(cursor);
            if entries.is_empty() {
                return broken(Reason::Expired);
            }
            for entry in entries {
                match entry {
                    PageEntry::Event(event) if event.serial() == cursor + 1 => events.push(Arc::clone(event)),
                    _ => return broken(Reason::Expired),
                }
                cursor += 1;
            }
        }
        let head = events.last().map_or(head, |newest| newest.stamp.position);
        Ok(Missed { head, floor, events, broken: None })
    }

    /// The newest message of a backend: client events are nothing that a channel caches.
    pub async fn newest(&self, stream: Arc<StreamName>) -> Result<Option<Message>, StoreError> {
        let (answer, newest) = oneshot::channel();
        let job = Box::new(move |store: &dyn Store, _| drop(answer.send(store.read(&stream, NEWEST))));
        self.read(job).map_err(busy)?;
        let is_of_backend = |entry| match entry {
            Entry::Message(message) if !message.content.event.starts_with("client-") => Some(message),
            _ => None,
        };
        Ok(newest.await.map_err(|_| ended())??.into_iter().find_map(is_of_backend))
    }

    async fn resolved(
        &self,
        stream: Arc<StreamName>,
        start: Start,
        retention: Retention,
    ) -> Result<Resolved, StoreError> {
        let (answer, resolved) = oneshot::channel();
        let done = Box::new(move |resolved| drop(answer.send(resolved)));
        self.resolve(stream, start, retention, u64::MAX, done).map_err(busy)?;
        resolved.await.map_err(|_| ended())?
    }
}

const EVERYTHING: Retention =
    Retention { window_ms: u64::MAX, max_messages: u64::MAX, max_bytes: u64::MAX, inactivity_ttl_ms: 0 };

/// Enough to find an event among clients' own.
const NEWEST: Range = Range {
    after: 0,
    before: u64::MAX,
    direction: Direction::Backward,
    max_messages: 16,
    max_bytes: 256 * 1024,
};

#[allow(clippy::needless_pass_by_value, reason = "fits map_err")]
fn busy(busy: Busy) -> StoreError {
    StoreError::Unavailable(busy.to_string())
}

fn ended() -> StoreError {
    StoreError::Unavailable("the server stops".to_owned())
}
