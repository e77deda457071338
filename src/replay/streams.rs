//! What every engine keeps of a stream: where it stands, and which generations it has.

use tidewire_protocol::position::{Epoch, Position};
use tidewire_protocol::replay::{Bounds, Generation};

use super::store::{Retention, Stamp, StreamName};

/// Generations that a stream remembers; a position of an earlier one is answered with a reset.
const MAX_GENERATIONS: usize = 64;

/// Tells the positions of a store from those of others. Drawn when the store is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoreNonce(pub u64);

impl StoreNonce {
    /// The nonce of a stream's epochs: a position of another channel is no position of this one. It follows from
    /// the name, so that a stream nobody published to needs no state. FNV-1a, folded to 48 bits: nine characters.
    pub fn of(self, name: &StreamName) -> u64 {
        const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0100_0000_01b3;
        const BITS: u32 = 48;
        let nonce = self.0.to_le_bytes();
        let bytes = nonce.iter().chain(name.app.as_bytes()).chain(&[0]).chain(name.channel.as_bytes());
        let hash = bytes.fold(BASIS, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME));
        (hash >> BITS) ^ (hash & ((1 << BITS) - 1))
    }
}

/// A stream at one moment. A stream that nobody published to, or whose last message is long gone, needs none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StreamState {
    /// Serial before the first message it ever had.
    pub base: u64,
    /// Serial of the newest message.
    pub head: u64,
    /// Sizes of all messages up to the newest.
    pub total_bytes: u64,
    /// When the newest message came.
    pub time_ms: u64,
    /// Nothing before this serial is replayed, whatever is still there.
    pub floor: u64,
    /// `total_bytes` before the message at `floor`.
    pub floor_bytes: u64,
    /// When the newest message had come when the floor was raised: it may be erased since.
    pub floor_ms: u64,
    /// In ascending order. The last may begin with the message that comes next.
    generations: Box<[Generation]>,
}

impl StreamState {
    /// Before the first message.
    pub fn new(base: u64, now_ms: u64) -> Self {
        Self {
            base,
            head: base,
            total_bytes: 0,
            time_ms: now_ms,
            floor: base + 1,
            floor_bytes: 0,
            floor_ms: 0,
            generations: Box::default(),
        }
    }

    pub fn with_generations(mut self, generations: Vec<Generation>) -> Self {
        self.generations = generations.into_boxed_slice();
        self
    }

    /// Appends a message of `size` bytes, in `epoch` from now on.
    pub fn append(&mut self, size: u64, now_ms: u64, epoch: Epoch, inactivity_ttl_ms: u64) -> Stamp {
        if inactivity_ttl_ms > 0 && now_ms.saturating_sub(self.time_ms) > inactivity_ttl_ms {
            // What nobody could have any more does not come back with the next message.
            self.raise_floor(self.head + 1, self.total_bytes);
        }
        self.begin_generation(epoch.generation);
        self.head += 1;
        // What is read from a damaged file may be anything.
        self.total_bytes = self.total_bytes.saturating_add(size);
        // The clock may have been set back; the log's time is not.
        self.time_ms = self.time_ms.max(now_ms);
        self.stamp(epoch.nonce, self.head, self.time_ms, self.total_bytes)
    }

    /// Leaves a serial without a message, so that whoever was at the head has missed something.
    pub fn skip(&mut self, generation: u32) {
        // One that has no message yet begins after this serial, too.
        if let Some(last) = self.generations.last_mut()
            && last.start > self.head
        {
            last.start += 1;
        }
        self.head += 1;
        self.begin_generation(generation);
        self.raise_floor(self.head + 1, self.total_bytes);
    }

    /// Takes into account that messages may be lost that followed the newest one: whoever saw any of them is told,
    /// and whoever did not has missed something. `generation` and the one before it must be new.
    pub fn lose_end(&mut self, generation: u32) {
        // What was lost had the next serial, too: it must not pass for the one that is left out.
        self.begin_generation(generation - 1);
        self.head += 1;
        self.begin_generation(generation);
        self.raise_floor(self.head + 1, self.total_bytes);
    }

    /// Whether it has messages of this generation, so that a skip has to begin another.
    pub fn has_messages_of(&self, generation: u32) -> bool {
        self.generations.last().is_some_and(|last| last.number >= generation && last.start <= self.head)
    }

    pub fn raise_floor(&mut self, floor: u64, floor_bytes: u64) {
        if floor > self.floor {
            self.floor = floor;
            self.floor_bytes = floor_bytes;
            self.floor_ms = self.time_ms;
        }
    }

    /// Nothing happens when it is the present one.
    fn begin_generation(&mut self, number: u32) {
        if self.generations.last().is_some_and(|last| last.number >= number) {
            return;
        }
        let forgotten = (self.generations.len() + 1).saturating_sub(MAX_GENERATIONS);
        let next = Generation { number, start: self.head + 1 };
        self.generations = self.generations[forgotten..].iter().copied().chain([next]).collect();
    }

    pub fn generations(&self) -> &[Generation] {
        &self.generations
    }

    /// The stamp of a message as it was given out when it came.
    pub fn stamp(&self, nonce: u64, serial: u64, time_ms: u64, total_bytes: u64) -> Stamp {
        let later = self.generations.partition_point(|one| one.start <= serial);
        let generation = self.generations.get(later.saturating_sub(1));
        let epoch = Epoch { nonce, generation: generation.map_or(0, |one| one.number) };
        Stamp {
            position: Position { epoch, serial },
            time_ms,
            total_bytes,
            begins_generation: generation.is_some_and(|one| one.start == serial),
        }
    }

    /// Of the newest message.
    pub fn position(&self, nonce: u64) -> Position {
        let generation = self.generations.last().map_or(0, |last| last.number);
        Position { epoch: Epoch { nonce, generation }, serial: self.head }
    }

    /// With the floor that was found.
    pub fn bounds(&self, nonce: u64, floor: u64) -> Bounds {
        let Self { base, head, .. } = *self;
        Bounds { nonce, base, generations: self.generations.to_vec(), floor: floor.min(head + 1), head }
    }

    /// The floor that needs no look at the messages: by count and inactivity.
    pub fn floor_of(&self, retention: &Retention, now_ms: u64) -> u64 {
        let ttl_ms = retention.inactivity_ttl_ms;
        let age_ms = now_ms.saturating_sub(self.time_ms);
        if age_ms > retention.window_ms || (ttl_ms > 0 && age_ms > ttl_ms) {
            return self.head + 1;
        }
        self.floor.max((self.head + 1).saturating_sub(retention.max_messages))
    }

    /// The first message with at least this total, and every one before it, is beyond `max_bytes`. 0: none is.
    pub fn beyond_bytes(&self, max_bytes: u64) -> u64 {
        self.total_bytes.saturating_sub(max_bytes)
    }
}

/// Bounds of a stream of which nothing is known.
pub(super) fn unknown_bounds(epoch: Epoch, base: u64) -> Bounds {
    let generations = vec![Generation { number: epoch.generation, start: base + 1 }];
    Bounds { nonce: epoch.nonce, base, generations, floor: base + 1, head: base }
}
