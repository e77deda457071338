//! Channels without a log: one order for everybody, each message once on a connection, and while nothing is broken all of
//! them.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use super::report::{Fault, Report};
use crate::history::{Act, Record};

/// Microseconds within which a message arrives; and after an outage until all is as before.
const SLACK: u64 = 1_000_000;
const SETTLE: u64 = 3_000_000;

type Mid = u32;

struct Published {
    name: Box<str>,
    began: u64,
    known: u64,
    is_accepted: bool,
    excluded: Box<str>,
}

/// What came on one connection.
#[derive(Default)]
struct Sequence {
    observer: Box<str>,
    socket: Box<str>,
    opened: u64,
    closed: Option<u64>,
    mids: Vec<Mid>,
}

#[derive(Default)]
struct Channel {
    numbers: HashMap<Box<str>, Mid>,
    published: Vec<Published>,
    sequences: Vec<Sequence>,
    /// By observer.
    open: HashMap<Box<str>, usize>,
}

#[derive(Default)]
pub struct Ordinary {
    channels: HashMap<Box<str>, Channel>,
    outages: Vec<(u64, u64)>,
}

impl Ordinary {
    pub fn learn(&mut self, record: &Record<'_>) {
        match record.f {
            Act::Outage => self.outages.push((record.t0, record.t)),
            Act::Publish => {
                let channel = self.channels.entry(record.ch.into()).or_default();
                if let Some(number) = channel.numbers.get(record.mid) {
                    // A repeat; what is asked twice is known last.
                    let known = &mut channel.published[*number as usize];
                    known.known = known.known.max(record.t);
                    return;
                }
                let number = Mid::try_from(channel.published.len()).unwrap_or(Mid::MAX);
                channel.numbers.insert(record.mid.into(), number);
                channel.published.push(Published {
                    name: record.mid.into(),
                    began: record.t0,
                    known: record.t,
                    is_accepted: record.kind == "ok",
                    excluded: record.sid.into(),
                });
            }
            _ => {}
        }
    }

    pub fn follow(&mut self, record: &Record<'_>, report: &mut Report) {
        match record.f {
            Act::SubOk => {
                let channel = self.channels.entry(record.ch.into()).or_default();
                channel.close(record.p, record.t);
                channel.open.insert(record.p.into(), channel.sequences.len());
                let (observer, socket) = (record.p.into(), record.sid.into());
                channel.sequences.push(Sequence {
                    observer,
                    socket,
                    opened: record.t,
                    ..Sequence::default()
                });
            }
            Act::Recv => self.recv(record, report),
            Act::Close => self.channels.values_mut().for_each(|channel| channel.close(record.p, record.t)),
            _ => {}
        }
    }

    fn recv(&mut self, record: &Record<'_>, report: &mut Report) {
        report.deliveries += 1;
        report.unstored += 1;
        let channel = self.channels.entry(record.ch.into()).or_default();
        let text = |what: &str| format!("{} {} on {} {what}", record.p, record.mid, record.ch);
        let Some(open) = channel.open.get(record.p) else {
            return report.add(Fault::Foreign, || text("is not subscribed"));
        };
        let Some(number) = channel.numbers.get(record.mid).copied() else {
            return report.add(Fault::Foreign, || text("was published by nobody"));
        };
        let sequence = &mut channel.sequences[*open];
        if *channel.published[number as usize].excluded == *sequence.socket {
            report.add(Fault::Foreign, || text("was left out of it"));
        }
        sequence.mids.push(number);
    }

    pub fn conclude(&mut self, may_forget: bool, report: &mut Report) {
        let mut checked = 0;
        for (name, channel) in &self.channels {
            report.published += channel.published.iter().filter(|known| known.is_accepted).count() as u64;
            let repeated = channel.repeated(name, may_forget, report);
            channel.order(name, &repeated, report);
            checked += channel.completeness(name, &self.outages, report);
        }
        if !self.channels.is_empty() {
            report.due = checked;
            report.tell(format!(
                "ordinary   {} deliveries in one order, {checked} of them due",
                report.unstored
            ));
        }
    }
}

impl Channel {
    fn close(&mut self, observer: &str, now: u64) {
        if let Some(open) = self.open.remove(observer) {
            self.sequences[open].closed = Some(now);
        }
    }

    fn name_of(&self, mid: Mid) -> &str {
        &self.published[mid as usize].name
    }

    /// What came more than once on a connection; a Redis that has forgotten keys cannot prevent it.
    fn repeated(&self, name: &str, may_forget: bool, report: &mut Report) -> HashSet<Mid> {
        let mut repeated = HashSet::new();
        for sequence in &self.sequences {
            let mut seen = HashSet::new();
            for mid in sequence.mids.iter().filter(|mid| !seen.insert(**mid)) {
                repeated.insert(*mid);
                if !may_forget {
                    let (observer, mid) = (&sequence.observer, self.name_of(*mid));
                    report.add(Fault::Duplicate, || format!("{observer} got {mid} of {name} twice"));
                }
            }
        }
        repeated
    }

    /// There is an order in which everybody's messages came, if no message comes before itself by what observers saw.
    fn order(&self, name: &str, repeated: &HashSet<Mid>, report: &mut Report) {
        let mut next: Vec<Vec<Mid>> = vec![Vec::new(); self.published.len()];
        let mut before = vec![0_u32; self.published.len()];
        for sequence in &self.sequences {
            let mids: Vec<Mid> =
                sequence.mids.iter().copied().filter(|mid| !repeated.contains(mid)).collect();
            for pair in mids.windows(2) {
                next[pair[0] as usize].push(pair[1]);
                before[pair[1] as usize] += 1;
            }
        }
        let mut free: Vec<usize> = (0..before.len()).filter(|mid| before[*mid] == 0).collect();
        while let Some(mid) = free.pop() {
            for later in &next[mid] {
                before[*later as usize] -= 1;
                if before[*later as usize] == 0 {
                    free.push(*later as usize);
                }
            }
        }
        let bound: Vec<usize> = (0..before.len()).filter(|mid| before[*mid] > 0).collect();
        if let Some(mid) = bound.first() {
            let (known, count) = (&self.published[*mid], bound.len());
            let (first, at) = (&known.name, known.began as f64 / 1e6);
            report.add(Fault::Disordered, || {
                format!("{name}: {count} messages have no order, among them {first}, published at {at:.3} s")
            });
        }
    }

    /// Who was connected, and nothing broken, has it.
    fn completeness(&self, name: &str, outages: &[(u64, u64)], report: &mut Report) -> u64 {
        let is_calm = |known: &Published| {
            let (from, until) = (known.began.saturating_sub(SLACK), known.known + SLACK);
            known.is_accepted
                && !outages.iter().any(|(began, ended)| *began <= until && from <= *ended + SETTLE)
        };
        let calm: Vec<(Mid, &Published)> =
            (0..).zip(&self.published).filter(|(_, known)| is_calm(known)).collect();
        let mut due = 0;
        for sequence in &self.sequences {
            let got: HashSet<Mid> = sequence.mids.iter().copied().collect();
            let closed = sequence.closed.unwrap_or(u64::MAX);
            for (mid, known) in &calm {
                let is_due = sequence.opened < known.began && known.known + SLACK < closed;
                if !is_due || *known.excluded == *sequence.socket {
                    continue;
                }
                due += 1;
                if !got.contains(mid) {
                    report.add(Fault::Lost, || {
                        let (observer, mid, at) = (&sequence.observer, &known.name, known.began as f64 / 1e6);
                        format!("{observer} never got {mid} of {name}, published at {at:.3} s")
                    });
                }
            }
        }
        due
    }
}
