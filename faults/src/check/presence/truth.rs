//! Who was where and when, as far as histories can tell.

use std::collections::{HashMap, HashSet};

use super::super::intervals::Intervals;
use super::{SETTLE, SLACK};
use crate::history::{Act, Record};

/// Beside `node_timeout`, until everybody knows that a node is dead.
const NOTICE: u64 = 1_500_000;
/// Of `node_timeout`: what is shorter is survived. A lease is 0.7 of it and renewed at each 0.15, and a node may wait a
/// second before it tries Redis again.
const SURVIVED: f64 = 0.5;
const RETRY: u64 = 1_200_000;

#[derive(Default)]
struct Connection {
    node: Option<u8>,
    asked: u64,
    joined: Option<u64>,
    left: Option<u64>,
}

/// User and number of a connection that is open.
type Open = (Box<str>, usize);

struct Outage {
    /// `None` = Redis.
    node: Option<u8>,
    from: u64,
    until: u64,
}

/// When a user was in a channel.
#[derive(Default)]
pub struct Stay {
    connections: Vec<Connection>,
    /// Nobody may say that he isn't there.
    sure: Intervals,
    /// Nobody may say at any other time that he is there.
    possible: Intervals,
}

pub struct Truth {
    node_timeout: u64,
    may_forget: bool,
    outages: Vec<Outage>,
    /// By channel and user.
    stays: HashMap<Box<str>, HashMap<Box<str>, Stay>>,
    /// By observer and channel.
    open: HashMap<Box<str>, HashMap<Box<str>, Open>>,
    /// Nothing happened after that.
    pub end: u64,
}

impl Truth {
    pub fn new(node_timeout: u64, may_forget: bool) -> Self {
        let (outages, stays, open) = Default::default();
        Self { node_timeout, may_forget, outages, stays, open, end: u64::MAX }
    }

    pub fn learn(&mut self, record: &Record<'_>) {
        match record.f {
            Act::Outage => {
                self.outages.push(Outage { node: record.node, from: record.t0, until: record.t });
            }
            Act::Quiet => self.end = record.t,
            Act::Ask if record.ch.starts_with("presence-") => self.ask(record),
            Act::SubOk => {
                if let Some(connection) = self.open_mut(record.p, record.ch) {
                    connection.joined = connection.joined.or(Some(record.t));
                }
            }
            Act::Close => {
                for (channel, (user, number)) in self.open.remove(record.p).into_iter().flatten() {
                    let stay = self.stays.get_mut(&channel).and_then(|stays| stays.get_mut(&user));
                    if let Some(stay) = stay {
                        stay.connections[number].left = Some(record.t);
                    }
                }
            }
            Act::Leave => {
                if let Some(connection) = self.open_mut(record.p, record.ch) {
                    connection.left = Some(record.t);
                    self.open.get_mut(record.p).and_then(|open| open.remove(record.ch));
                }
            }
            _ => {}
        }
    }

    fn ask(&mut self, record: &Record<'_>) {
        if self.open_mut(record.p, record.ch).is_some() {
            // It asks for messages, and is a member already.
            return;
        }
        let stays = self.stays.entry(record.ch.into()).or_default();
        let stay = stays.entry(record.user.into()).or_default();
        let number = stay.connections.len();
        let (node, asked) = (record.node, record.t);
        stay.connections.push(Connection { node, asked, ..Connection::default() });
        let open = self.open.entry(record.p.into()).or_default();
        open.insert(record.ch.into(), (record.user.into(), number));
    }

    fn open_mut(&mut self, observer: &str, channel: &str) -> Option<&mut Connection> {
        let (user, number) = self.open.get(observer)?.get(channel)?;
        self.stays.get_mut(channel)?.get_mut(user)?.connections.get_mut(*number)
    }

    /// Everything is learnt.
    pub fn settle(&mut self) {
        let mut stays = std::mem::take(&mut self.stays);
        for stay in stays.values_mut().flat_map(HashMap::values_mut) {
            let (mut sure, mut possible) = (Vec::new(), Vec::new());
            for connection in &stay.connections {
                let left = connection.left.unwrap_or(u64::MAX);
                possible.push((connection.asked, self.latest_departure(connection.node, left)));
                if let Some(joined) = connection.joined {
                    let here = Intervals::of(vec![(joined, left)]);
                    sure.push(here.without(&self.taken_for_dead(connection.node)));
                }
            }
            let sure = sure.into_iter().flat_map(|some| some.longer_than(0).collect::<Vec<_>>());
            stay.sure = Intervals::of(sure.collect());
            stay.possible = Intervals::of(possible);
        }
        self.stays = stays;
    }

    /// Until when a user may be listed who left a node.
    fn latest_departure(&self, node: Option<u8>, left: u64) -> u64 {
        let mut latest = left;
        for outage in self.outages.iter().filter(|outage| outage.node.is_none() || outage.node == node) {
            if left.saturating_add(SLACK) < outage.from || left > outage.until + SETTLE {
                continue;
            }
            let begins = if outage.node.is_none() { outage.until + self.node_timeout } else { left };
            latest = latest.max(begins.saturating_add(self.node_timeout + NOTICE));
        }
        latest
    }

    /// When the others may have taken a node for dead although it lived.
    fn taken_for_dead(&self, node: Option<u8>) -> Intervals {
        let survived = ((self.node_timeout as f64 * SURVIVED) as u64).saturating_sub(RETRY);
        let own = self.outages.iter().filter(|outage| outage.node.is_some() && outage.node == node);
        let long = own.filter(|outage| outage.until - outage.from > survived);
        Intervals::of(long.map(|outage| (outage.from, outage.until + SETTLE)).collect())
    }

    /// When an observer on a node may be told late.
    pub fn is_hindered(&self, node: Option<u8>) -> Intervals {
        let spans = self.outages.iter().filter(|outage| outage.node.is_none() || outage.node == node);
        let until = |outage: &Outage| {
            let is_unsettled = outage.node.is_none() && self.may_forget;
            outage.until + SETTLE + if is_unsettled { 2 * self.node_timeout } else { 0 }
        };
        Intervals::of(spans.map(|outage| (outage.from, until(outage))).collect())
    }

    /// Since when what is told at `now` on a node may have been on its way.
    pub fn under_way_since(&self, node: Option<u8>, now: u64) -> u64 {
        let touching = self.outages.iter().filter(|outage| outage.node.is_none() || outage.node == node);
        let touching = touching.filter(|outage| outage.from <= now && now <= outage.until + SETTLE);
        touching.map(|outage| outage.from).fold(now, u64::min).saturating_sub(SLACK)
    }

    /// Whether Redis may have forgotten members that nobody has told it again.
    pub fn has_forgotten(&self, now: u64) -> bool {
        let redis = |outage: &Outage| outage.node.is_none() && outage.from <= now;
        self.may_forget && self.outages.iter().any(|outage| redis(outage) && now <= outage.until + SETTLE)
    }

    pub fn stays(&self, channel: &str) -> impl Iterator<Item = (&str, &Stay)> {
        self.stays.get(channel).into_iter().flatten().map(|(user, stay)| (&**user, stay))
    }

    pub fn stay(&self, channel: &str, user: &str) -> Option<&Stay> {
        self.stays.get(channel)?.get(user)
    }

    pub fn there_at_the_end(&self, channel: &str) -> HashSet<&str> {
        let is_there = |connection: &Connection| {
            connection.joined.is_some_and(|joined| joined <= self.end)
                && connection.left.is_none_or(|left| left > self.end)
        };
        let there = self.stays(channel).filter(|(_, stay)| stay.connections.iter().any(is_there));
        there.map(|(user, _)| user).collect()
    }

    pub fn outages(&self) -> usize {
        self.outages.len()
    }
}

impl Stay {
    pub fn is_sure(&self, from: u64, until: u64) -> bool {
        self.sure.covers(from, until)
    }

    pub fn is_possible(&self, from: u64, until: u64) -> bool {
        self.possible.touches(from, until)
    }

    pub fn sure(&self) -> &Intervals {
        &self.sure
    }

    pub fn possible(&self) -> &Intervals {
        &self.possible
    }

    /// When his last connection before `now` ended, if none is open.
    pub fn left_before(&self, now: u64) -> Option<u64> {
        let is_open = |connection: &Connection| {
            connection.asked <= now && connection.left.is_none_or(|left| left > now)
        };
        if self.connections.iter().any(is_open) {
            return None;
        }
        self.connections.iter().filter_map(|connection| connection.left).filter(|left| *left <= now).max()
    }
}
