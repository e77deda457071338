//! Which server has which partition.

use std::collections::HashMap;

use redis::Value;

use super::transport::{PLACES, Partitions, Place, SHARED};
use crate::config::RedisAddress;
use crate::fanout::keys::{Keys, PARTITIONS};

const SLOTS: u16 = 16_384;

/// A set of places: partitions, and the keys of none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Places(u128);

impl Places {
    pub const ALL: Self = Self((1 << PLACES) - 1);

    pub fn insert(&mut self, place: Place) {
        self.0 |= 1 << place;
    }

    pub fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = Place> {
        (0..=SHARED).filter(move |place| self.0 >> place & 1 == 1)
    }

    pub fn partitions(self) -> Partitions {
        // The partitions are the lower bits.
        Partitions(self.0 as u64)
    }

    pub fn has_shared(self) -> bool {
        self.0 >> SHARED & 1 == 1
    }
}

impl FromIterator<Place> for Places {
    fn from_iter<I: IntoIterator<Item = Place>>(places: I) -> Self {
        let mut all = Self::default();
        places.into_iter().for_each(|place| all.insert(place));
        all
    }
}

/// The master of each slot, as one node of a Redis Cluster sees it.
pub struct Owners {
    /// First and last slot.
    ranges: Vec<(u16, u16, RedisAddress)>,
    /// Of two views, the later one.
    pub epoch: u64,
}

impl Owners {
    /// Reads the answers to `CLUSTER INFO` and `CLUSTER SLOTS` of the node at `asked`. None while that node takes the
    /// cluster for broken: it may be the node that is cut off.
    pub fn parse(answers: &[Value], asked: &RedisAddress) -> Option<Self> {
        let [info, slots] = answers else { return None };
        let info = text(info)?;
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        if field("cluster_state")? != "ok" {
            return None;
        }
        let epoch = field("cluster_current_epoch")?.parse().ok()?;
        let Value::Array(slots) = slots else { return None };
        let ranges = slots.iter().filter_map(|range| owner(range, asked)).collect();
        Some(Self { ranges, epoch })
    }

    /// The places of each master.
    pub fn plan(&self, prefix: &str) -> HashMap<RedisAddress, Places> {
        let mut plan: HashMap<RedisAddress, Places> = HashMap::new();
        for place in 0..=SHARED {
            let slot = slot_of(prefix, place);
            let owner = self.ranges.iter().find(|(first, last, _)| (*first..=*last).contains(&slot));
            if let Some((_, _, address)) = owner {
                plan.entry(address.clone()).or_default().insert(place);
            }
        }
        plan
    }
}

/// `[first, last, [host, port, …] of the master, …]`
fn owner(range: &Value, asked: &RedisAddress) -> Option<(u16, u16, RedisAddress)> {
    let Value::Array(parts) = range else { return None };
    let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = &**parts else { return None };
    let [host, Value::Int(port), ..] = &**master else { return None };
    // A node that does not know its own name leaves it out: it is the one that was asked.
    let host =
        text(host).filter(|host| !host.is_empty() && host != "?").unwrap_or_else(|| asked.host.clone());
    let address = RedisAddress { host, port: u16::try_from(*port).ok()? };
    Some((u16::try_from(*first).ok()?, u16::try_from(*last).ok()?, address))
}

pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text.clone()),
        _ => None,
    }
}

/// The slot of the keys of a place: that of what stands in their braces.
fn slot_of(prefix: &str, place: Place) -> u16 {
    let tag = if place < PARTITIONS { Keys::new(prefix).tag(place) } else { format!("{{{prefix}}}") };
    slot(tag.trim_matches(['{', '}']).as_bytes())
}

/// CRC16 in the variant XMODEM, which Redis Cluster's specification prescribes.
fn slot(tag: &[u8]) -> u16 {
    let crc = tag.iter().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    });
    crc % SLOTS
}

/// The addresses that sentinels name as the master's, those named most often first.
pub fn by_votes(votes: Vec<RedisAddress>) -> Vec<RedisAddress> {
    let mut counted: Vec<(RedisAddress, usize)> = Vec::new();
    for vote in votes {
        match counted.iter_mut().find(|(address, _)| *address == vote) {
            Some((_, count)) => *count += 1,
            None => counted.push((vote, 1)),
        }
    }
    counted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counted.into_iter().map(|(address, _)| address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: &str, port: u16) -> RedisAddress {
        RedisAddress { host: host.to_owned(), port }
    }

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn range(first: i64, last: i64, host: Value, port: i64) -> Value {
        let master = Value::Array(vec![host, Value::Int(port), bulk("id"), Value::Map(Vec::new())]);
        Value::Array(vec![Value::Int(first), Value::Int(last), master])
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        // The check value of CRC16/XMODEM, and what `CLUSTER KEYSLOT` answers.
        assert_eq!(slot(b"123456789"), 0x31C3);
        assert_eq!(slot(b"foo"), 12_182);
        assert_eq!(slot_of("foo", SHARED), 12_182);
    }

    #[test]
    fn every_place_has_its_slot_s_master() {
        let info = bulk("cluster_state:ok\r\ncluster_current_epoch:7\r\n");
        let slots =
            Value::Array(vec![range(0, 8191, bulk("10.0.0.1"), 6379), range(8192, 16_383, Value::Nil, 6380)]);
        let owners = Owners::parse(&[info, slots], &address("seed", 7000)).expect("it parses");
        assert_eq!(owners.epoch, 7);
        let plan = owners.plan("tidewire");
        let (low, high) = (plan[&address("10.0.0.1", 6379)], plan[&address("seed", 6380)]);
        assert_eq!(Places(low.0 | high.0), Places::ALL);
        assert_eq!(low.without(high), low);
        for place in low.iter() {
            assert!(slot_of("tidewire", place) < 8192);
        }
    }

    #[test]
    fn a_node_that_is_cut_off_is_not_believed() {
        let info = bulk("cluster_state:fail\r\ncluster_current_epoch:7\r\n");
        let slots = Value::Array(vec![range(0, 16_383, bulk("10.0.0.1"), 6379)]);
        assert!(Owners::parse(&[info, slots], &address("seed", 7000)).is_none());
    }

    #[test]
    fn the_master_that_most_sentinels_name_comes_first() {
        let (a, b) = (address("a", 1), address("b", 1));
        assert_eq!(by_votes(vec![a.clone(), b.clone(), b.clone()]), [b, a]);
        assert!(by_votes(Vec::new()).is_empty());
    }

    #[test]
    fn places_are_partitions_and_the_shared_keys() {
        let places: Places = [0, 63, SHARED].into_iter().collect();
        assert_eq!(places.iter().collect::<Vec<_>>(), [0, 63, SHARED]);
        assert_eq!(places.partitions(), Partitions(1 | 1 << 63));
        assert!(places.has_shared() && !places.is_empty());
        assert_eq!(Places::ALL.partitions(), Partitions::ALL);
    }
}
