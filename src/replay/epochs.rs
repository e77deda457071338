//! Gives each channel's log an epoch of its own, so that a position of one channel is none of another.
//!
//! An engine draws one nonce for all that it keeps. What clients see is derived from it and the channel's name, so
//! that nothing has to be kept for a channel, and least of all for one that only a client has made up.

use std::sync::Arc;

use tidewire_protocol::position::{Epoch, Position};
use tidewire_protocol::replay::Bounds;

use super::store::{
    Append, Appended, Caps, Entry, Message, Range, Retention, Stamp, Stats, Store, StoreError, StreamName,
};

/// An engine, seen with the nonces of its channels.
#[derive(Debug)]
pub struct ChannelEpochs(pub Arc<dyn Store>);

/// Bits of a nonce: eight or nine characters.
const NONCE_BITS: u32 = 48;

/// FNV-1a, 64 bits: never to be changed, or every position that clients hold is one of another log.
fn nonce_of(stream: &StreamName, store: u64) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let names = stream.app.bytes().chain([0]).chain(stream.channel.bytes());
    let hash = store
        .to_le_bytes()
        .into_iter()
        .chain(names)
        .fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    (hash >> NONCE_BITS) ^ (hash & ((1 << NONCE_BITS) - 1))
}

/// An engine's position as clients see it.
pub fn position_of(stream: &StreamName, position: Position) -> Position {
    let epoch = Epoch { nonce: nonce_of(stream, position.epoch.nonce), ..position.epoch };
    Position { epoch, ..position }
}

fn stamp_of(stream: &StreamName, stamp: Stamp) -> Stamp {
    Stamp { position: position_of(stream, stamp.position), ..stamp }
}

fn appended_of(stream: &StreamName, appended: Appended) -> Appended {
    match appended {
        Appended::Stored(stamp) => Appended::Stored(stamp_of(stream, stamp)),
        Appended::Repeat(position) => Appended::Repeat(position_of(stream, position)),
        Appended::Conflict => Appended::Conflict,
    }
}

impl Store for ChannelEpochs {
    fn append(&self, batch: &[Append], now_ms: u64) -> Result<Vec<Appended>, StoreError> {
        let appended = self.0.append(batch, now_ms)?.into_iter().zip(batch);
        Ok(appended.map(|(one, Append { stream, .. })| appended_of(stream, one)).collect())
    }

    fn append_each(&self, batch: &[Append], now_ms: u64) -> Vec<Result<Appended, StoreError>> {
        let outcomes = self.0.append_each(batch, now_ms).into_iter().zip(batch);
        outcomes.map(|(one, Append { stream, .. })| one.map(|one| appended_of(stream, one))).collect()
    }

    fn conflicts(&self, message: &Append, now_ms: u64) -> bool {
        self.0.conflicts(message, now_ms)
    }

    fn position(&self, stream: &StreamName) -> Position {
        position_of(stream, self.0.position(stream))
    }

    fn head(&self, stream: &StreamName) -> Result<u64, StoreError> {
        self.0.head(stream)
    }

    fn bounds(&self, stream: &StreamName, retention: &Retention, now_ms: u64) -> Result<Bounds, StoreError> {
        let bounds = self.0.bounds(stream, retention, now_ms)?;
        Ok(Bounds { nonce: nonce_of(stream, bounds.nonce), ..bounds })
    }

    fn read(&self, stream: &StreamName, range: Range) -> Result<Vec<Entry>, StoreError> {
        let entries = self.0.read(stream, range)?;
        let entries = entries.into_iter().map(|entry| match entry {
            Entry::Message(Message { stamp, content }) => {
                Entry::Message(Message { stamp: stamp_of(stream, stamp), content })
            }
            unreadable @ Entry::Unreadable { .. } => unreadable,
        });
        Ok(entries.collect())
    }

    fn first_since(&self, stream: &StreamName, since_ms: u64) -> Result<u64, StoreError> {
        self.0.first_since(stream, since_ms)
    }

    fn purge(&self, stream: &StreamName, before: u64, now_ms: u64) -> Result<(), StoreError> {
        self.0.purge(stream, before, now_ms)
    }

    fn skip(&self, stream: &StreamName) {
        self.0.skip(stream);
    }

    fn set_caps(&self, caps: &Caps) {
        self.0.set_caps(caps);
    }

    fn maintain(&self, now_ms: u64) -> Result<(), StoreError> {
        self.0.maintain(now_ms)
    }

    fn stats(&self) -> Stats {
        self.0.stats()
    }

    fn close(&self) -> Result<(), StoreError> {
        self.0.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_channel_has_its_own_nonce_for_good() {
        let nonce = |app: &str, channel: &str, store| {
            nonce_of(&StreamName { app: app.into(), channel: channel.into() }, store)
        };
        // As it was when the first positions were given out.
        assert_eq!(nonce("42", "orders", 7), 196_607_826_551_523);
        let others = [nonce("42", "order", 7), nonce("4", "2orders", 7), nonce("42", "orders", 8)];
        assert!(others.iter().all(|other| *other != nonce("42", "orders", 7) && *other < 1 << NONCE_BITS));
    }
}
