//! What the checker found, with counts, for a person and for CI.

use std::collections::BTreeMap;
use std::fmt;

use hdrhistogram::Histogram;

/// Kinds of violation. The numbers are those of the invariants in the design of replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// I1: a message's predecessor is not what the observer had before.
    Gap,
    /// I1: an older message after a newer one.
    Reordered,
    /// I2: a message that the observer has already.
    Duplicate,
    /// I3: two messages at one position.
    Inconsistent,
    /// I4: stored, inside of what an observer followed, never seen by it; or gone from the log.
    Lost,
    /// I4: the observer never came to the end of the log.
    Unseen,
    /// I5: seen although its publisher was told no.
    Aborted,
    /// I6: one key at two positions.
    TwoSerials,
    /// I7: `recovered: true`, and not exactly what was missed.
    WrongRecovery,
    /// I8: told to start over although nothing was missing.
    NeedlessResync,
    /// I9: seen by the socket that was left out, or on a foreign channel, or never published.
    Foreign,
    /// Replayed although it had been purged.
    Purged,
    /// I10: memory or disk above the cap.
    OverCap,
    /// Two observers got messages of a channel without a log in different order.
    Disordered,
    /// Presence: told of a member who was there all the time that he came or left.
    FalseChange,
    /// Presence: told twice of one who came, or of the end of one who was not there.
    RepeatedChange,
    /// Presence: not told, or too late.
    MissedChange,
    /// Presence: a list with somebody else in it, or somebody missing.
    WrongMembers,
    /// What a scenario wants beside the invariants.
    Expectation,
    /// The record contradicts itself: a mistake of the observer, or a frame out of turn.
    Garbled,
}

#[derive(Debug)]
pub struct Report {
    pub published: u64,
    pub refused: u64,
    pub unknown: u64,
    pub deliveries: u64,
    pub replayed: u64,
    pub unstored: u64,
    /// Without a log, and nothing was broken: those had to be delivered.
    pub due: u64,
    pub observers: u64,
    pub connections_lost: u64,
    pub recoveries: u64,
    /// By reason.
    pub resyncs: BTreeMap<String, u64>,
    pub skips: u64,
    pub stored: u64,
    /// Acknowledged, and lost by a store that may lose some.
    pub gone: u64,
    pub max_rss: u64,
    pub max_disk: u64,
    /// Microseconds from the start of a publish to its live delivery, slow readers left out.
    pub latency: Histogram<u64>,
    /// Microseconds from the end of a connection to the last message that was missed.
    pub catch_up: Histogram<u64>,
    counts: BTreeMap<Fault, u64>,
    examples: BTreeMap<Fault, Vec<String>>,
    notes: Vec<String>,
}

/// Told of each kind; the counts are exact.
const MAX_EXAMPLES: usize = 8;
/// Longer than any run.
const MAX_MICROSECONDS: u64 = 3_600_000_000;

impl Default for Report {
    fn default() -> Self {
        let histogram =
            || Histogram::new_with_max(MAX_MICROSECONDS, 3).expect("three digits are within the range");
        Self {
            published: 0,
            refused: 0,
            unknown: 0,
            deliveries: 0,
            replayed: 0,
            unstored: 0,
            due: 0,
            observers: 0,
            connections_lost: 0,
            recoveries: 0,
            resyncs: BTreeMap::new(),
            skips: 0,
            stored: 0,
            gone: 0,
            max_rss: 0,
            max_disk: 0,
            latency: histogram(),
            catch_up: histogram(),
            counts: BTreeMap::new(),
            examples: BTreeMap::new(),
            notes: Vec::new(),
        }
    }
}

impl Report {
    pub fn add(&mut self, fault: Fault, text: impl FnOnce() -> String) {
        *self.counts.entry(fault).or_default() += 1;
        let examples = self.examples.entry(fault).or_default();
        if examples.len() < MAX_EXAMPLES {
            examples.push(text());
        }
    }

    /// Something the scenario measured.
    pub fn tell(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Something the scenario wants.
    pub fn require(&mut self, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.add(Fault::Expectation, text);
        }
    }

    /// Takes over what a scenario found by itself.
    pub fn join(&mut self, other: Report) {
        for (fault, count) in other.counts {
            *self.counts.entry(fault).or_default() += count;
        }
        for (fault, examples) in other.examples {
            self.examples.entry(fault).or_default().extend(examples);
        }
        self.notes.extend(other.notes);
    }

    pub fn is_clean(&self) -> bool {
        self.counts.is_empty()
    }

    pub fn count(&self, fault: Fault) -> u64 {
        self.counts.get(&fault).copied().unwrap_or(0)
    }

    pub fn violations(&self) -> u64 {
        self.counts.values().sum()
    }

    pub fn resynced(&self) -> u64 {
        self.resyncs.values().sum()
    }

    /// The violations alone.
    pub fn complaints(&self) -> String {
        let mut text = String::new();
        for (fault, count) in &self.counts {
            text += &format!("  VIOLATION {fault:?} x {count}\n");
            for example in &self.examples[fault] {
                text += &format!("    {example}\n");
            }
        }
        text
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  published  {} stored, {} refused, {} unknown; {} in the log at the end, {} acknowledged ones gone",
            self.published, self.refused, self.unknown, self.stored, self.gone
        )?;
        writeln!(
            f,
            "  delivered  {} to {} observers, of them {} replayed, {} without a serial",
            self.deliveries, self.observers, self.replayed, self.unstored
        )?;
        let resyncs: Vec<String> =
            self.resyncs.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        let resyncs = if resyncs.is_empty() { "none".to_owned() } else { resyncs.join(", ") };
        writeln!(
            f,
            "  resumed    {} channels recovered after {} lost connections; resyncs: {resyncs}; skips: {}",
            self.recoveries, self.connections_lost, self.skips
        )?;
        writeln!(f, "  latency    {} ms from publish to live delivery", Milliseconds(&self.latency))?;
        writeln!(
            f,
            "  catch-up   {} ms from the loss of a connection to replay_done",
            Milliseconds(&self.catch_up)
        )?;
        if self.max_rss > 0 {
            let [rss, disk] = [self.max_rss, self.max_disk].map(|bytes| bytes as f64 / 1e6);
            writeln!(f, "  peak       {rss:.1} MB resident, {disk:.1} MB on disk")?;
        }
        for note in &self.notes {
            writeln!(f, "  {note}")?;
        }
        let [lost, duplicate, reordered, resynced] = [
            self.count(Fault::Lost) + self.count(Fault::Gap) + self.count(Fault::Unseen),
            self.count(Fault::Duplicate),
            self.count(Fault::Reordered),
            self.count(Fault::NeedlessResync),
        ];
        write!(
            f,
            "{}  lost {lost}, duplicate {duplicate}, reordered {reordered}, needless resyncs {resynced}",
            self.complaints()
        )
    }
}

struct Milliseconds<'a>(&'a Histogram<u64>);

impl fmt::Display for Milliseconds<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99] = [0.5, 0.99].map(|quantile| self.0.value_at_quantile(quantile) as f64 / 1000.0);
        write!(f, "p50 {p50:.1}, p99 {p99:.1}, max {:.1}", self.0.max() as f64 / 1000.0)
    }
}
