//! What this node knows of the log without asking: the log of each partition, and heads of streams.

use std::collections::HashMap;
use std::sync::Mutex;

use tidewire_protocol::position::{Epoch, Position};

use super::names::partition_of;
use crate::fanout::keys::PARTITIONS;
use crate::fanout::redis::transport::Partition;
use crate::replay::store::StreamName;
use crate::sync::lock;

/// Streams of a partition whose heads are kept for certain; those that were used last are.
const MAX_HEADS: usize = 4096;

/// A partition's log as an answer told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub nonce: u64,
    pub generation: u32,
    /// The largest serial of streams that were forgotten.
    pub base: u64,
}

/// Where a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Of the newest message.
    pub generation: u32,
    pub serial: u64,
    pub time_ms: u64,
    pub total_bytes: u64,
    /// False when the generation begins with the next message.
    pub has_begun: bool,
}

/// What is known of a stream.
#[derive(Clone, Copy, Debug)]
struct Known {
    head: Head,
    /// The log's generation when this was found: what comes later counts, though it may be less.
    found_in: u32,
    /// When the stream was last tidied up by this node.
    tidied_ms: u64,
}

/// Of all partitions.
#[derive(Debug)]
pub struct State(Box<[Mutex<Shard>]>);

#[derive(Debug, Default)]
struct Shard {
    log: Option<Log>,
    /// The newest generation that was ever seen: none is ever begun that is not later.
    newest: u32,
    young: HashMap<StreamName, Known>,
    old: HashMap<StreamName, Known>,
}

/// What an append goes by.
#[derive(Clone, Debug)]
pub struct Guess {
    pub log: Log,
    pub newest: u32,
    pub head: Option<Head>,
    pub tidied_ms: u64,
}

impl Log {
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let mut word = || words.next();
        let generation = word()?.parse().ok()?;
        let nonce = word()?.parse().ok()?;
        Some(Self { nonce, generation, base: word()?.parse().ok()? })
    }

    pub fn epoch(&self) -> Epoch {
        Epoch { nonce: self.nonce, generation: self.generation }
    }

    /// As the scripts have it behind the server's identity.
    pub fn text(&self) -> String {
        format!("{} {} {}", self.generation, self.nonce, self.base)
    }
}

impl Default for State {
    fn default() -> Self {
        Self((0..PARTITIONS).map(|_| Mutex::default()).collect())
    }
}

impl State {
    fn shard(&self, partition: Partition) -> &Mutex<Shard> {
        &self.0[usize::from(partition)]
    }

    pub fn log(&self, partition: Partition) -> Log {
        lock(self.shard(partition)).log()
    }

    pub fn newest(&self, partition: Partition) -> u32 {
        lock(self.shard(partition)).newest
    }

    /// Notes the log that an answer told.
    pub fn note_log(&self, partition: Partition, log: Log) {
        let mut shard = lock(self.shard(partition));
        shard.newest = shard.newest.max(log.generation);
        match &shard.log {
            Some(known) if known.nonce != log.nonce => {
                shard.young.clear();
                shard.old.clear();
            }
            // Answers of calls at the same time may come in any order.
            Some(known) if (known.generation, known.base) > (log.generation, log.base) => return,
            _ => {}
        }
        shard.log = Some(log);
    }

    /// Notes a head that was found when the log's generation was `found_in`.
    pub fn note_head(&self, stream: &StreamName, head: Head, found_in: u32, tidied_ms: Option<u64>) {
        let mut shard = lock(self.shard(partition_of(stream)));
        shard.newest = shard.newest.max(head.generation);
        let found_in = found_in.max(head.generation);
        let known = Known { head, found_in, tidied_ms: tidied_ms.unwrap_or(0) };
        match shard.known(stream) {
            Some(last) => {
                let order = |known: &Known| (known.found_in, known.head.generation, known.head.serial);
                last.tidied_ms = last.tidied_ms.max(known.tidied_ms);
                if order(last) <= order(&known) {
                    *last = Known { tidied_ms: last.tidied_ms, ..known };
                }
            }
            None => shard.insert(stream.clone(), known),
        }
    }

    pub fn guess(&self, stream: &StreamName) -> Guess {
        let mut shard = lock(self.shard(partition_of(stream)));
        let (log, newest) = (shard.log(), shard.newest);
        let known = shard.known(stream).map(|known| *known);
        Guess {
            log,
            newest,
            head: known.map(|known| known.head),
            tidied_ms: known.map_or(0, |known| known.tidied_ms),
        }
    }

    pub fn position(&self, stream: &StreamName) -> Position {
        let Guess { log, head, .. } = self.guess(stream);
        let (generation, serial) =
            head.map_or((log.generation, log.base), |head| (head.generation, head.serial));
        Position { epoch: Epoch { nonce: log.nonce, generation }, serial }
    }
}

impl Shard {
    fn log(&self) -> Log {
        // Every partition was asked when the store was opened.
        self.log.clone().unwrap_or(Log { nonce: 0, generation: 0, base: 0 })
    }

    fn known(&mut self, stream: &StreamName) -> Option<&mut Known> {
        if !self.young.contains_key(stream) {
            let (name, known) = self.old.remove_entry(stream)?;
            self.insert(name, known);
        }
        self.young.get_mut(stream)
    }

    fn insert(&mut self, stream: StreamName, known: Known) {
        if self.young.len() >= MAX_HEADS {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(stream, known);
    }
}
