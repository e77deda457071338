//! Presence in a cluster: what each observer was told of members, against who was there.
//!
//! First the connections and the outages are learnt, and from them when each user was there for sure, and when he may have
//! been ([`truth`]); then each subscription is followed ([`view`]).

#[cfg(test)]
mod tests;
mod truth;
mod view;

use std::collections::{HashMap, HashSet};

use hdrhistogram::Histogram;

use self::truth::Truth;
use self::view::View;
use super::report::{Fault, Report};
use crate::history::{Act, Record};

/// Microseconds that a change may take to reach everybody, on a busy machine.
const SLACK: u64 = 2_000_000;
/// Microseconds until all is as before an outage, beside what waits for a lease.
const SETTLE: u64 = 3_000_000;
/// Longer than any run.
const LONGEST: u64 = 3_600_000_000;

pub struct Presence {
    node_timeout: u64,
    truth: Truth,
    /// By observer and channel.
    views: HashMap<Box<str>, HashMap<Box<str>, View>>,
    lists: u64,
    changes: u64,
    compared: u64,
    /// Microseconds from the end of a user's last connection to `member_removed`.
    departures: Option<Histogram<u64>>,
}

impl Default for Presence {
    fn default() -> Self {
        Self::new(0, false)
    }
}

impl Presence {
    pub fn new(node_timeout: u64, may_forget: bool) -> Self {
        Self {
            node_timeout,
            truth: Truth::new(node_timeout, may_forget),
            views: HashMap::new(),
            lists: 0,
            changes: 0,
            compared: 0,
            departures: Histogram::new_with_max(LONGEST, 3).ok(),
        }
    }

    fn is_off(&self) -> bool {
        self.node_timeout == 0
    }

    pub fn learn(&mut self, record: &Record<'_>) {
        if !self.is_off() {
            self.truth.learn(record);
        }
    }

    pub fn has_learnt(&mut self) {
        self.truth.settle();
    }

    pub fn follow(&mut self, record: &Record<'_>, report: &mut Report) {
        if self.is_off() || record.t > self.truth.end {
            // All have their lists; now they leave. The census was taken in between.
            if record.f == Act::Census {
                self.compare(record, report);
            }
            return;
        }
        match record.f {
            Act::Members => {
                self.lists += 1;
                let view = View::begin(record, &self.truth, report);
                let views = self.views.entry(record.p.into()).or_default();
                if let Some(before) = views.insert(record.ch.into(), view) {
                    before.close(record.p, record.ch, record.t, &self.truth, report);
                }
            }
            Act::MemberAdded | Act::MemberRemoved => {
                self.changes += 1;
                let views = self.views.get_mut(record.p);
                let Some(view) = views.and_then(|views| views.get_mut(record.ch)) else {
                    let text = || format!("{}: {} without a list", at(record), record.user);
                    return report.add(Fault::RepeatedChange, text);
                };
                let late = view.change(record, &self.truth, report);
                if let (Some(late), Some(departures)) = (late, &mut self.departures) {
                    departures.saturating_record(late);
                }
            }
            Act::Close => {
                for (channel, view) in self.views.remove(record.p).into_iter().flatten() {
                    view.close(record.p, &channel, record.t, &self.truth, report);
                }
            }
            Act::Leave => {
                let view = self.views.get_mut(record.p).and_then(|views| views.remove(record.ch));
                if let Some(view) = view {
                    view.close(record.p, record.ch, record.t, &self.truth, report);
                }
            }
            _ => {}
        }
    }

    /// What the API of a node says, when nothing happens any more.
    fn compare(&mut self, record: &Record<'_>, report: &mut Report) {
        if self.is_off() {
            return;
        }
        self.compared += 1;
        let told: HashSet<&str> = record.users.split_ascii_whitespace().collect();
        let real = self.truth.there_at_the_end(record.ch);
        if told != real {
            report.add(Fault::WrongMembers, || {
                let node = record.node.unwrap_or(0);
                format!("the API of node {node} on {}: {}", record.ch, difference(&told, &real))
            });
        }
    }

    pub fn conclude(&mut self, report: &mut Report) {
        if self.is_off() {
            return;
        }
        let end = self.truth.end;
        if end == u64::MAX {
            report.add(Fault::Garbled, || "nobody said that nothing happens any more".to_owned());
        }
        let views = std::mem::take(&mut self.views);
        for (observer, views) in &views {
            for (channel, view) in views {
                self.compared += 1;
                let real = self.truth.there_at_the_end(channel);
                let told = view.members();
                if told != real {
                    report.add(Fault::WrongMembers, || {
                        format!("{observer} on {channel} at the end: {}", difference(&told, &real))
                    });
                }
            }
        }
        for (observer, own) in views {
            for (channel, view) in own {
                view.close(&observer, &channel, end, &self.truth, report);
            }
        }
        let departures = self.departures.as_ref().map_or([0.0; 3], |departures| {
            [0.5, 0.99, 1.0].map(|quantile| departures.value_at_quantile(quantile) as f64 / 1e6)
        });
        let [p50, p99, max] = departures;
        report.tell(format!(
            "presence   {} lists, {} joins and leaves, {} lists compared at the end; departures told after p50 {p50:.2}, \
             p99 {p99:.2}, max {max:.2} s; {} outages",
            self.lists,
            self.changes,
            self.compared,
            self.truth.outages()
        ));
    }
}

fn difference(told: &HashSet<&str>, real: &HashSet<&str>) -> String {
    let list = |some: Vec<&&str>| some.into_iter().take(5).copied().collect::<Vec<_>>().join(" ");
    let (missing, beyond) = (real.difference(told).collect(), told.difference(real).collect());
    format!(
        "{} told, {} there; missing: {}; not there: {}",
        told.len(),
        real.len(),
        list(missing),
        list(beyond)
    )
}

fn at(record: &Record<'_>) -> String {
    format!("{} on {} at {:.3} s", record.p, record.ch, record.t as f64 / 1e6)
}
