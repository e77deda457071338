//! The newest messages of a channel that somebody is subscribed to, ready encoded: what most of those who come back
//! have missed.

use std::collections::VecDeque;
use std::sync::Arc;

use tidewire_protocol::position::Position;
use tidewire_protocol::replay::Reason;

use super::event::StoredEvent;
use super::store::Retention;

const MAX_MESSAGES: usize = 64;
const MAX_BYTES: usize = 64 * 1024;

/// A contiguous end of the channel's log. Its head is the newest message that was delivered.
#[derive(Debug)]
pub struct Ring {
    head: Position,
    events: VecDeque<Arc<StoredEvent>>,
    bytes: usize,
}

impl Ring {
    /// An empty end of a log whose newest message is at `head`.
    pub fn new(head: Position) -> Self {
        Self { head, events: VecDeque::new(), bytes: 0 }
    }

    pub fn head(&self) -> Position {
        self.head
    }

    /// Takes in the next message; one that the head is past already changes nothing.
    pub fn push(&mut self, event: &Arc<StoredEvent>) {
        let (last, serial) = (self.head.serial, event.serial());
        if serial <= last {
            return;
        }
        if serial != last + 1 {
            // Messages in between were delivered but not stored: nobody may resume across them.
            self.events.clear();
            self.bytes = 0;
        }
        self.head = event.stamp.position;
        self.bytes += event.plain().len();
        self.events.push_back(Arc::clone(event));
        while self.events.len() > MAX_MESSAGES || (self.bytes > MAX_BYTES && self.events.len() > 1) {
            self.drop_oldest();
        }
    }

    /// Drops the messages before this serial.
    pub fn forget_before(&mut self, serial: u64) {
        while self.events.front().is_some_and(|oldest| oldest.serial() < serial) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let oldest = self.events.pop_front();
        self.bytes -= oldest.map_or(0, |oldest| oldest.plain().len());
    }

    /// Every message after `cursor`; `None` when some of them are only in the log. A cursor out of the log may be
    /// ahead of what was delivered.
    pub fn after(&self, cursor: u64) -> Option<impl Iterator<Item = &Arc<StoredEvent>>> {
        let missing = self.head.serial.saturating_sub(cursor);
        let skipped = self.events.len().checked_sub(usize::try_from(missing).ok()?)?;
        Some(self.events.range(skipped..))
    }

    /// [`Bounds::resolve`](tidewire_protocol::replay::Bounds::resolve) for a position that the ring reaches back to;
    /// `None` when only the store can tell.
    pub fn resolve(
        &self,
        cursor: Position,
        retention: &Retention,
        max_replay: u64,
        now_ms: u64,
    ) -> Option<Result<(), Reason>> {
        let is_known = cursor.epoch == self.head.epoch && cursor.serial <= self.head.serial;
        let mut missed = self.after(cursor.serial).filter(|_| is_known)?;
        let Some(oldest) = missed.next() else { return Some(Ok(())) };
        let newest = self.events.back()?;
        let count = self.head.serial - cursor.serial;
        let age_ms = |event: &StoredEvent| now_ms.saturating_sub(event.stamp.time_ms);
        // Not by the totals: those of messages that other nodes stored are not known here.
        let bytes: u64 = self.after(cursor.serial)?.map(|event| event.size()).sum();
        let is_interrupted = |(one, next): (&Arc<StoredEvent>, &Arc<StoredEvent>)| {
            let pause_ms = next.stamp.time_ms - one.stamp.time_ms;
            retention.inactivity_ttl_ms > 0 && pause_ms > retention.inactivity_ttl_ms
        };
        if self.after(cursor.serial)?.zip(missed).any(is_interrupted) {
            return Some(Err(Reason::Expired));
        }
        let is_kept = age_ms(oldest) <= retention.window_ms
            && (retention.inactivity_ttl_ms == 0 || age_ms(newest) <= retention.inactivity_ttl_ms)
            && count <= retention.max_messages
            && (count == 1 || bytes <= retention.max_bytes);
        Some(match (is_kept, count <= max_replay) {
            (false, _) => Err(Reason::Expired),
            (true, false) => Err(Reason::TooMany),
            (true, true) => Ok(()),
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tidewire_protocol::position::Epoch;

    use super::*;
    use crate::replay::store::Stamp;

    #[test]
    fn bytes_are_counted_whether_totals_are_known_or_not() {
        let at = |serial| Position { epoch: Epoch { nonce: 1, generation: 1 }, serial };
        let event = |serial, total_bytes| {
            let stamp = Stamp { position: at(serial), time_ms: 0, total_bytes, begins_generation: false };
            Arc::new(StoredEvent::new(Bytes::from_static(b"frame"), stamp, None, None, 100))
        };
        let mut ring = Ring::new(at(0));
        // Two out of the log, then one that another node stored.
        [event(1, 5_100), event(2, 5_200), event(3, 0)].iter().for_each(|event| ring.push(event));
        let within = |max_bytes| {
            let retention = Retention { window_ms: 1_000, max_messages: 10, max_bytes, inactivity_ttl_ms: 0 };
            ring.resolve(at(0), &retention, 10, 0)
        };
        assert_eq!(within(300), Some(Ok(())));
        assert_eq!(within(299), Some(Err(Reason::Expired)));
    }
}
