//! All that is known of one channel: what was published, what stands in the log, and what observers say of it.

use std::collections::{BTreeMap, HashMap};

use tidewire_protocol::position::{Epoch, Position};

use super::report::{Fault, Report};
use crate::history::Record;

/// Number of a message's name.
pub type Mid = u32;

/// What the publisher of a message knows.
#[derive(Clone, Debug, Default)]
pub struct Published {
    pub outcome: Outcome,
    pub position: Option<Position>,
    /// The socket that was left out.
    pub excluded: Option<Box<str>>,
    /// When its first attempt began, and when its publisher knew.
    pub began: u64,
    pub known: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    Stored,
    Refused,
    #[default]
    Unknown,
}

/// One answer to the question which message is at a serial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    epoch: Epoch,
    mid: Mid,
}

/// What the reference log covers.
#[derive(Clone, Copy, Debug)]
pub struct Covered {
    pub epoch: Epoch,
    pub oldest: u64,
    pub newest: u64,
}

#[derive(Debug, Default)]
pub struct Channel {
    pub name: Box<str>,
    pub published: HashMap<Mid, Published>,
    /// The reference log.
    pub stored: BTreeMap<u64, Mid>,
    pub covered: Option<Covered>,
    /// When they were asked for, and what was before which serial.
    pub purges: Vec<(u64, u64)>,
    /// The same, when they were answered.
    pub purged: Vec<(u64, u64)>,
    /// Messages that were delivered but not stored: when they were begun, and when acknowledged.
    pub live_only: Vec<(u64, u64)>,
    shelved: HashMap<Mid, u64>,
    versions: HashMap<u64, Vec<Version>>,
    /// Where each message was first seen to be.
    places: HashMap<Mid, (Epoch, u64)>,
}

impl Channel {
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// A publisher's line. A key that is published again has several.
    pub fn publish(&mut self, mid: Mid, record: &Record<'_>, position: Option<Position>) {
        let known = self.published.entry(mid).or_default();
        if known.known == 0 {
            known.excluded = (!record.sid.is_empty()).then(|| record.sid.into());
            (known.began, known.known) = (record.t0, record.t);
        }
        match record.kind {
            "ok" => {
                known.outcome = Outcome::Stored;
                known.position = known.position.or(position);
            }
            // Once stored it stays so, whatever a later attempt was told.
            "fail" if known.outcome == Outcome::Unknown => known.outcome = Outcome::Refused,
            _ => {}
        }
    }

    /// A line of the reference log. Returns the other serial of a message that stands there twice.
    pub fn store(&mut self, serial: u64, mid: Mid) -> Option<u64> {
        self.stored.insert(serial, mid);
        self.shelved.insert(mid, serial)
    }

    /// Somebody says that `mid` is at `position`.
    pub fn place(
        &mut self,
        mid: Mid,
        name: &str,
        position: Position,
        may_lose: bool,
        who: &str,
        report: &mut Report,
    ) {
        let Position { epoch, serial } = position;
        let channel = &self.name;
        let (first_epoch, first) = *self.places.entry(mid).or_insert((epoch, serial));
        // What a store lost may be published again, in a later generation.
        let is_elsewhere = first != serial || first_epoch.nonce != epoch.nonce;
        if is_elsewhere && !(may_lose && first_epoch != epoch) {
            report.add(Fault::TwoSerials, || {
                format!("{channel}: {name} is at {first_epoch}:{first} and at {position} ({who})")
            });
        }
        let versions = self.versions.entry(serial).or_default();
        if versions.contains(&Version { epoch, mid }) {
            return;
        }
        let clash = versions.iter().find(|known| {
            known.mid != mid
                && known.epoch.nonce == epoch.nonce
                && (known.epoch.generation == epoch.generation || !may_lose)
        });
        if let Some(clash) = clash {
            report.add(Fault::Inconsistent, || {
                format!("{channel}: {position} is {name} ({who}) and, by {}, another message", clash.epoch)
            });
        }
        versions.push(Version { epoch, mid });
    }

    /// The message at a serial: by the reference log, else by whoever saw it in this log.
    pub fn at(&self, nonce: u64, serial: u64) -> Option<Mid> {
        let is_same_log = self.covered.is_some_and(|covered| covered.epoch.nonce == nonce);
        let stored = self.stored.get(&serial).copied().filter(|_| is_same_log);
        stored.or_else(|| {
            let versions = self.versions.get(&serial)?;
            versions
                .iter()
                .filter(|version| version.epoch.nonce == nonce)
                .map(|version| version.mid)
                .next_back()
        })
    }

    /// The message that stood at a serial while `epoch` was the newest: once it was lost, a later generation has another
    /// one there.
    pub fn at_by(&self, epoch: Epoch, serial: u64) -> Option<Mid> {
        let is_known = |known: Epoch| known.nonce == epoch.nonce && known.generation <= epoch.generation;
        let place = |mid: &Mid| self.places.get(mid).is_none_or(|(first, _)| is_known(*first));
        let is_same_log = self.covered.is_some_and(|covered| covered.epoch.nonce == epoch.nonce);
        let stored = self.stored.get(&serial).filter(|mid| is_same_log && place(mid));
        stored.copied().or_else(|| {
            let versions = self.versions.get(&serial)?.iter().filter(|version| is_known(version.epoch));
            versions.max_by_key(|version| version.epoch.generation).map(|version| version.mid)
        })
    }

    /// Whether something was delivered and not stored between two times, for all but whom it was not for.
    pub fn went_on_without_log(&self, after: u64, before: u64) -> bool {
        self.live_only.iter().any(|(began, known)| *began > after && *known < before)
    }

    /// Whether a serial had been purged by then.
    pub fn is_purged(&self, serial: u64, by: u64) -> bool {
        self.purged.iter().any(|(at, before)| *at < by && serial < *before)
    }

    pub fn excludes(&self, mid: Mid, socket_id: &str) -> bool {
        self.published.get(&mid).and_then(|known| known.excluded.as_deref()) == Some(socket_id)
    }

    /// The newest message that may have been there at a time.
    pub fn head_by(&self, time: u64) -> u64 {
        let begun = self.published.values().filter(|known| known.began <= time);
        begun.filter_map(|known| known.position).map(|position| position.serial).max().unwrap_or(0)
    }

    /// Whether every message of `(after, upto]` stands in the reference log.
    pub fn has_all(&self, epoch: Epoch, after: u64, upto: u64) -> bool {
        self.covered.is_some_and(|covered| covered.epoch.nonce == epoch.nonce)
            && (after >= upto || self.stored.range(after + 1..=upto).count() as u64 == upto - after)
    }

    /// The log against the publishers, once everything is read.
    pub fn conclude(&self, may_lose: bool, name_of: impl Fn(Mid) -> String, report: &mut Report) {
        let channel = &self.name;
        report.stored += self.stored.len() as u64;
        let seen = self.places.keys().chain(self.stored.values());
        for mid in seen.collect::<std::collections::HashSet<_>>() {
            match self.published.get(mid).map(|known| known.outcome) {
                Some(Outcome::Refused) => {
                    report.add(Fault::Aborted, || {
                        format!("{channel}: {} was refused, and seen", name_of(*mid))
                    });
                }
                None => report.add(Fault::Foreign, || {
                    format!("{channel}: {} was published by nobody, and seen", name_of(*mid))
                }),
                Some(_) => {}
            }
        }
        let Some(covered) = self.covered else { return };
        for (mid, known) in &self.published {
            let Some(position) = known.position else { continue };
            let is_trimmed = position.serial < covered.oldest && position.epoch.nonce == covered.epoch.nonce;
            let stands = self.stored.get(&position.serial) == Some(mid);
            if stands || is_trimmed {
                continue;
            }
            if may_lose {
                report.gone += 1;
            } else {
                report.add(Fault::Lost, || {
                    format!(
                        "{channel}: {} was stored at {position} and is not in the log, {} to {} of {}",
                        name_of(*mid),
                        covered.oldest,
                        covered.newest,
                        covered.epoch
                    )
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_that_was_rolled_back_is_judged_by_what_stood_there_before() {
        let mut channel = Channel::new("a");
        let mut report = Report::default();
        let epoch = |generation| Epoch { nonce: 7, generation };
        for (mid, generation) in [(1, 1), (2, 2)] {
            let position = Position { epoch: epoch(generation), serial: 5 };
            channel.place(mid, "m", position, true, "o1", &mut report);
        }
        channel.store(5, 2);
        channel.covered = Some(Covered { epoch: epoch(2), oldest: 1, newest: 5 });
        assert_eq!(channel.at_by(epoch(1), 5), Some(1));
        assert_eq!(channel.at_by(epoch(2), 5), Some(2));
        // Nobody saw it: the log tells alone.
        channel.store(6, 3);
        assert_eq!(channel.at_by(epoch(1), 6), Some(3));
        assert!(report.is_clean());
    }
}
