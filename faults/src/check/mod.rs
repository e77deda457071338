//! The checker: reads histories offline and judges them against the invariants of replay.
//!
//! First it learns what was published and what stands in the log at the end, then it follows each observer message
//! by message. A breach is never explained away: what a scenario may do to the log, [`Expect`] says beforehand.

mod channel;
mod follow;
mod intervals;
mod ordinary;
mod presence;
mod report;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tidewire_protocol::position::{Epoch, Position};

use self::channel::{Channel, Covered, Mid};
use self::ordinary::Ordinary;
use self::presence::Presence;
pub use self::report::{Fault, Report};
use self::watch::Watch;
use crate::history::{Act, Record};

/// What a run may do to the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Expect {
    /// Of the channels' rule; 0 = more than the run publishes.
    pub max_messages: u64,
    /// Microseconds; 0 = longer than the run.
    pub window: u64,
    pub max_replay: u64,
    /// The fault destroys stored messages.
    pub may_lose: bool,
    /// The store is smaller than what is published.
    pub drops_early: bool,
    /// Some channels are not stored.
    pub has_disabled: bool,
    pub max_rss: u64,
    pub max_disk: u64,
    /// Microseconds; of the nodes of a cluster, whose presence channels are judged. 0 = one server.
    pub node_timeout: u64,
}

impl Default for Expect {
    fn default() -> Self {
        Self {
            max_messages: 0,
            window: 0,
            max_replay: 10_000,
            may_lose: false,
            drops_early: false,
            has_disabled: false,
            max_rss: u64::MAX,
            max_disk: u64::MAX,
            node_timeout: 0,
        }
    }
}

/// Whether nothing stores the messages of a channel: the scenarios' names say so.
pub fn is_ordinary(channel: &str) -> bool {
    channel.contains("plain")
}

/// Nobody measures the latency of observers of this name.
pub const SLOW: &str = "slow";
/// In the directory of the histories.
pub const EXPECT_FILE: &str = "expect.json";

#[derive(Default)]
struct Names {
    numbers: HashMap<Box<str>, Mid>,
    names: Vec<Box<str>>,
}

#[derive(Default)]
pub struct Checker {
    expect: Expect,
    names: Names,
    channels: HashMap<Box<str>, Channel>,
    /// By observer and channel.
    watches: HashMap<Box<str>, HashMap<Box<str>, Watch>>,
    presence: Presence,
    ordinary: Ordinary,
    report: Report,
}

/// Reads the histories of a run.
pub fn check(directory: &Path) -> Result<Report> {
    let expect = directory.join(EXPECT_FILE);
    let expect = fs::read(&expect).with_context(|| format!("reading {}", expect.display()))?;
    let mut checker = Checker::new(serde_json::from_slice(&expect)?);
    let mut files: Vec<_> = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    for path in &files {
        each_line(path, |record| checker.learn(record))?;
    }
    checker.has_learnt();
    for path in &files {
        each_line(path, |record| checker.follow(record))?;
    }
    Ok(checker.conclude())
}

fn each_line(path: &Path, mut take: impl FnMut(&Record<'_>)) -> Result<()> {
    let mut reader = BufReader::with_capacity(1 << 18, File::open(path)?);
    let mut line = Vec::with_capacity(512);
    let mut number = 0;
    while reader.read_until(b'\n', &mut line)? > 0 {
        number += 1;
        let record = serde_json::from_slice(&line).with_context(|| format!("{}:{number}", path.display()))?;
        take(&record);
        line.clear();
    }
    Ok(())
}

impl Names {
    fn number(&mut self, name: &str) -> Mid {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = Mid::try_from(self.names.len()).unwrap_or(Mid::MAX);
        self.names.push(name.into());
        self.numbers.insert(name.into(), number);
        number
    }

    fn of(&self, number: Mid) -> String {
        self.names.get(number as usize).map_or_else(|| format!("#{number}"), ToString::to_string)
    }
}

impl Checker {
    pub fn new(expect: Expect) -> Self {
        let presence = Presence::new(expect.node_timeout, expect.may_lose);
        Self { expect, presence, ..Self::default() }
    }

    /// First pass: publishers and the log.
    pub fn learn(&mut self, record: &Record<'_>) {
        self.presence.learn(record);
        if is_ordinary(record.ch) || record.f == Act::Outage {
            return self.ordinary.learn(record);
        }
        match record.f {
            Act::Publish => self.learn_publish(record),
            Act::Log => self.learn_log(record),
            Act::Purge => {
                let purge = (record.t, record.serial.unwrap_or(0));
                let channel = channel_mut(&mut self.channels, record.ch);
                if record.kind == "ok" { channel.purged.push(purge) } else { channel.purges.push(purge) }
            }
            Act::Bounds => {
                let covered = record.epoch.parse().ok().zip(record.oldest).zip(record.serial);
                let channel = channel_mut(&mut self.channels, record.ch);
                channel.covered = covered.map(|((epoch, oldest), newest)| Covered { epoch, oldest, newest });
            }
            _ => {}
        }
    }

    fn learn_publish(&mut self, record: &Record<'_>) {
        match record.kind {
            "ok" => self.report.published += 1,
            "fail" => self.report.refused += 1,
            _ => self.report.unknown += 1,
        }
        let mid = self.names.number(record.mid);
        let channel = channel_mut(&mut self.channels, record.ch);
        let position = position(record);
        channel.publish(mid, record, position);
        if record.kind == "ok" && position.is_none() && record.sid.is_empty() {
            channel.live_only.push((record.t0, record.t));
        }
        if let Some(position) = position {
            let may_lose = self.expect.may_lose;
            channel.place(mid, record.mid, position, may_lose, record.p, &mut self.report);
        }
    }

    /// The log does not tell the generation of each message: an acknowledgement or an observer does.
    fn learn_log(&mut self, record: &Record<'_>) {
        let mid = self.names.number(record.mid);
        let Some(serial) = record.serial else { return };
        let channel = channel_mut(&mut self.channels, record.ch);
        if !record.id.is_empty() {
            self.report.add(Fault::Inconsistent, || {
                format!("{}: {} has the id {} in the log", record.ch, record.mid, record.id)
            });
        }
        if let Some(other) = channel.store(serial, mid) {
            self.report.add(Fault::TwoSerials, || {
                format!("{}: {} stands in the log at {other} and at {serial}", record.ch, record.mid)
            });
        }
    }

    /// Between the passes.
    pub fn has_learnt(&mut self) {
        self.presence.has_learnt();
    }

    /// Second pass: observers.
    pub fn follow(&mut self, record: &Record<'_>) {
        self.presence.follow(record, &mut self.report);
        if is_ordinary(record.ch) || record.f == Act::Close {
            self.ordinary.follow(record, &mut self.report);
        }
        if is_ordinary(record.ch) {
            return;
        }
        match record.f {
            Act::Publish | Act::Log | Act::Bounds | Act::Purge => {}
            Act::Ask | Act::Leave | Act::Members | Act::MemberAdded | Act::MemberRemoved => {}
            Act::Outage | Act::Quiet | Act::Census => {}
            Act::Sample => self.sample(record),
            Act::Close => self.close(record),
            Act::SubOk => self.sub_ok(record),
            Act::Recv => self.recv(record),
            Act::Done => self.done(record),
            Act::Skip => self.skip(record),
            Act::Resync => self.resync(record),
            Act::Refused => self.refused(record),
        }
    }

    fn sample(&mut self, record: &Record<'_>) {
        self.report.max_rss = self.report.max_rss.max(record.rss);
        self.report.max_disk = self.report.max_disk.max(record.disk);
    }

    fn close(&mut self, record: &Record<'_>) {
        if record.kind == "garbled" {
            self.report.add(Fault::Garbled, || format!("{} could not read a frame", record.p));
        }
        let Some(watches) = self.watches.get_mut(record.p) else { return };
        if record.kind != "stopped" && watches.values().any(|watch| watch.is_open) {
            self.report.connections_lost += 1;
        }
        watches.values_mut().for_each(|watch| watch.closes(record.t));
    }

    /// Judges what can only be judged at the end.
    pub fn conclude(mut self) -> Report {
        self.report.observers = self.watches.len() as u64;
        self.presence.conclude(&mut self.report);
        self.ordinary.conclude(self.expect.may_lose, &mut self.report);
        let report = &mut self.report;
        for channel in self.channels.values() {
            channel.conclude(self.expect.may_lose, |mid| self.names.of(mid), report);
        }
        for (observer, watches) in &mut self.watches {
            for (name, watch) in watches {
                watch.end_segment(true);
                let Some(channel) = self.channels.get(name) else { continue };
                judge_segments(observer, channel, watch, &self.names, report);
                judge_end(observer, channel, watch, report);
            }
        }
        if report.max_rss > self.expect.max_rss {
            let text = format!("{} bytes resident, the cap is {}", report.max_rss, self.expect.max_rss);
            report.add(Fault::OverCap, || text);
        }
        if report.max_disk > self.expect.max_disk {
            let text = format!("{} bytes on disk, the cap is {}", report.max_disk, self.expect.max_disk);
            report.add(Fault::OverCap, || text);
        }
        self.report
    }
}

fn judge_segments(observer: &str, channel: &Channel, watch: &Watch, names: &Names, report: &mut Report) {
    for segment in &watch.segments {
        for serial in &segment.missing {
            let Some(mid) = channel.at_by(segment.epoch, *serial) else { continue };
            if !is_excluded(channel, watch, mid) {
                report.add(Fault::Lost, || {
                    let (name, mid) = (&channel.name, names.of(mid));
                    format!("{observer} never got {mid}, serial {serial} of {name}, and was not told")
                });
            }
        }
        for (serial, mid) in segment.trusted.iter().filter(|_| segment.is_last) {
            let stored = channel.stored.get(serial);
            if stored.is_some_and(|stored| stored != mid) {
                report.add(Fault::WrongRecovery, || {
                    let (name, mid) = (&channel.name, names.of(*mid));
                    format!("{observer} holds {mid} at serial {serial} of {name}, which the log lost, and was not told")
                });
            }
        }
    }
}

/// Everybody comes to the end of the log, but for what was not for them.
fn judge_end(observer: &str, channel: &Channel, watch: &Watch, report: &mut Report) {
    let Some(covered) = channel.covered else { return };
    let is_same_log = watch.position.is_none_or(|position| position.epoch.nonce == covered.epoch.nonce);
    let end = watch.position.filter(|_| is_same_log).map_or(0, |position| position.serial);
    let waits = (end + 1..=covered.newest)
        .any(|serial| channel.stored.get(&serial).is_some_and(|mid| !is_excluded(channel, watch, *mid)));
    if waits {
        report.add(Fault::Unseen, || {
            let (name, newest) = (&channel.name, covered.newest);
            format!("{observer} is at {end} of {name} at the end, the log at {newest}")
        });
    }
}

fn is_excluded(channel: &Channel, watch: &Watch, mid: Mid) -> bool {
    watch.sockets.iter().any(|socket| channel.excludes(mid, socket))
}

fn channel_mut<'a>(channels: &'a mut HashMap<Box<str>, Channel>, name: &str) -> &'a mut Channel {
    // Twice looked up only the first time.
    if !channels.contains_key(name) {
        channels.insert(name.into(), Channel::new(name));
    }
    channels.get_mut(name).expect("it was put there above")
}

fn position(record: &Record<'_>) -> Option<Position> {
    let epoch: Epoch = record.epoch.parse().ok()?;
    Some(Position { epoch, serial: record.serial? })
}
