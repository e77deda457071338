//! What is kept in memory: where each stream stands, and in which slices its messages are.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex};

use super::slice::Slice;
use crate::replay::store::StreamName;
use crate::replay::streams::StreamState;
use crate::sync::lock;

/// So many that one which grows is done in a few milliseconds, with a million streams.
const SHARDS: usize = 64;

/// A stream. Nothing of it grows with its messages: about 350 bytes with names, and 32 more for each further slice
/// that has messages of it.
#[derive(Clone, Debug)]
pub struct Tracked {
    pub state: StreamState,
    /// Its rows, oldest first. Some may be in slices that are gone.
    pub segments: Box<[Segment]>,
}

/// A stream's row in a slice: what comes after it, until the next, is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Serial of its first message.
    pub first: u64,
    /// The stream's total and newest message before that.
    pub total_bytes: u64,
    pub time_ms: u64,
    pub slice: u32,
    /// Of the row in `streams`.
    pub row: u32,
}

type Shard = HashMap<StreamName, Box<Tracked>>;

/// All streams.
#[derive(Debug)]
pub struct Streams {
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
}

impl Default for Streams {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { hasher: RandomState::new(), shards }
    }
}

impl Streams {
    fn shard(&self, name: &StreamName) -> &Mutex<Shard> {
        let hash = self.hasher.hash_one(name);
        &self.shards[(hash % SHARDS as u64) as usize]
    }

    /// What `look` says of a stream, if it is known.
    pub fn look<T>(&self, name: &StreamName, look: impl FnOnce(&Tracked) -> T) -> Option<T> {
        lock(self.shard(name)).get(name).map(|tracked| look(tracked))
    }

    pub fn get(&self, name: &StreamName) -> Option<Tracked> {
        self.look(name, Tracked::clone)
    }

    pub fn put(&self, name: &StreamName, tracked: Tracked) {
        let mut shard = lock(self.shard(name));
        match shard.get_mut(name) {
            Some(present) => **present = tracked,
            None => drop(shard.insert(name.clone(), Box::new(tracked))),
        }
    }

    pub fn remove(&self, name: &StreamName) {
        lock(self.shard(name)).remove(name);
    }

    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// The names of those that `is_wanted` is true of. Takes a time that is proportional to the number of streams.
    pub fn names(&self, is_wanted: impl Fn(&Tracked) -> bool) -> Vec<StreamName> {
        let mut names = Vec::new();
        for shard in &self.shards {
            let shard = lock(shard);
            let wanted = shard.iter().filter(|(_, tracked)| is_wanted(tracked));
            names.extend(wanted.map(|(name, _)| name.clone()));
        }
        names
    }
}

/// The slices of the log, by number.
#[derive(Debug, Default)]
pub struct Slices(Mutex<BTreeMap<u32, Arc<Slice>>>);

impl Slices {
    pub fn insert(&self, slice: &Arc<Slice>) {
        lock(&self.0).insert(slice.number, Arc::clone(slice));
    }

    /// `None` when it is gone already.
    pub fn remove(&self, slice: &Slice) -> Option<Arc<Slice>> {
        lock(&self.0).remove(&slice.number)
    }

    pub fn get(&self, number: u32) -> Option<Arc<Slice>> {
        lock(&self.0).get(&number).cloned()
    }

    pub fn oldest(&self) -> Option<Arc<Slice>> {
        lock(&self.0).values().next().cloned()
    }

    pub fn newest(&self) -> Option<Arc<Slice>> {
        lock(&self.0).values().next_back().cloned()
    }

    pub fn all(&self) -> Vec<Arc<Slice>> {
        lock(&self.0).values().cloned().collect()
    }

    /// The slice before whose messages nothing of the app is replayed, because newer ones come to `max_bytes`.
    pub fn oldest_within(&self, app: &str, max_bytes: u64) -> u32 {
        let slices = lock(&self.0);
        let mut bytes = 0;
        let reached = slices.values().rev().find(|slice| {
            bytes += slice.app_bytes(app);
            bytes >= max_bytes
        });
        reached.map_or(0, |slice| slice.number)
    }

    /// What can be read of a stream now.
    pub fn view(&self, tracked: Tracked) -> View {
        let slices = lock(&self.0);
        let live = tracked.segments.iter().rev().map_while(|segment| {
            let slice = slices.get(&segment.slice)?;
            Some(Part { segment: *segment, slice: Arc::clone(slice) })
        });
        let mut parts: Vec<Part> = live.collect();
        parts.reverse();
        View { state: tracked.state, parts }
    }
}

/// A stream at one moment, with what is left of its log. The slices stay while it is held.
#[derive(Debug)]
pub struct View {
    pub state: StreamState,
    /// Oldest first, without a gap between them.
    pub parts: Vec<Part>,
}

#[derive(Debug)]
pub struct Part {
    pub segment: Segment,
    pub slice: Arc<Slice>,
}

/// A message without what it says.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    pub serial: u64,
    pub time_ms: u64,
    pub total_bytes: u64,
}

impl View {
    /// Serial of the oldest message that may be read.
    pub fn first(&self) -> u64 {
        let oldest = self.parts.first().map_or(self.state.head + 1, |part| part.segment.first);
        oldest.max(self.state.floor)
    }

    /// The total before [`first`](Self::first).
    pub fn bytes_before_first(&self) -> u64 {
        match self.parts.first() {
            Some(part) if part.segment.first >= self.state.floor => part.segment.total_bytes,
            Some(_) => self.state.floor_bytes,
            None => self.state.total_bytes,
        }
    }

    /// The last message of a part, or of those before it if it has none.
    pub fn last_of(&self, part: usize) -> Mark {
        match self.parts.get(part + 1) {
            Some(Part { segment, .. }) => {
                Mark { serial: segment.first - 1, time_ms: segment.time_ms, total_bytes: segment.total_bytes }
            }
            None => Mark {
                serial: self.state.head,
                time_ms: self.state.time_ms,
                total_bytes: self.state.total_bytes,
            },
        }
    }
}
