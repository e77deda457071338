//! One subscription of one observer: its list of members over time.

use std::collections::{HashMap, HashSet};

use super::super::intervals::Intervals;
use super::super::report::{Fault, Report};
use super::truth::Truth;
use super::{SLACK, at};
use crate::history::{Act, Record};

pub struct View {
    node: Option<u8>,
    began: u64,
    /// When each of those who were ever in the list came in and went out, by turns.
    turns: HashMap<Box<str>, Vec<u64>>,
}

impl View {
    /// With the list that it is given.
    pub fn begin(record: &Record<'_>, truth: &Truth, report: &mut Report) -> Self {
        let mut turns = HashMap::new();
        let (since, until) = (truth.under_way_since(record.node, record.t), record.t + SLACK);
        for user in record.users.split_ascii_whitespace() {
            if turns.insert(user.into(), vec![record.t]).is_some() {
                report.add(Fault::RepeatedChange, || format!("{}: {user} is twice in the list", at(record)));
            }
            if !truth.stay(record.ch, user).is_some_and(|stay| stay.is_possible(since, until)) {
                report.add(Fault::WrongMembers, || format!("{}: lists {user}, who is gone", at(record)));
            }
        }
        if !turns.contains_key(record.user) {
            report.add(Fault::WrongMembers, || format!("{}: its own user is missing", at(record)));
        }
        for (user, stay) in truth.stays(record.ch) {
            let is_missing = !turns.contains_key(user) && stay.is_sure(since, until.min(truth.end));
            if is_missing && !truth.has_forgotten(record.t) {
                report.add(Fault::WrongMembers, || format!("{}: {user} is missing in the list", at(record)));
            }
        }
        Self { node: record.node, began: record.t, turns }
    }

    /// How late a departure is told.
    pub fn change(&mut self, record: &Record<'_>, truth: &Truth, report: &mut Report) -> Option<u64> {
        let is_added = record.f == Act::MemberAdded;
        let turns = self.turns.entry(record.user.into()).or_default();
        let is_in = turns.len() % 2 == 1;
        let user = record.user;
        if is_in == is_added {
            let what = if is_added { "added, who is in the list" } else { "removed, who is not in the list" };
            report.add(Fault::RepeatedChange, || format!("{}: {user} is {what}", at(record)));
            return None;
        }
        turns.push(record.t);
        let (since, until) = (truth.under_way_since(self.node, record.t), record.t + SLACK);
        let stay = truth.stay(record.ch, user);
        if is_added {
            if !stay.is_some_and(|stay| stay.is_possible(since, until)) {
                report
                    .add(Fault::FalseChange, || format!("{}: {user} is added, who is not there", at(record)));
            }
            return None;
        }
        if stay.is_some_and(|stay| stay.is_sure(since, until.min(truth.end))) {
            report.add(Fault::FalseChange, || format!("{}: {user} is removed, who is there", at(record)));
        }
        stay.and_then(|stay| stay.left_before(record.t)).map(|left| record.t - left)
    }

    pub fn members(&self) -> HashSet<&str> {
        let in_list = self.turns.iter().filter(|(_, turns)| turns.len() % 2 == 1);
        in_list.map(|(user, _)| &**user).collect()
    }

    /// Whether every change was told in time, as far as this subscription went.
    pub fn close(&self, observer: &str, channel: &str, now: u64, truth: &Truth, report: &mut Report) {
        let all = Intervals::of(vec![(self.began, now)]);
        let hindered = truth.is_hindered(self.node);
        for (user, stay) in truth.stays(channel) {
            let turns = self.turns.get(user).map_or(&[][..], Vec::as_slice);
            let listed = turns.chunks(2).map(|turn| (turn[0], turn.get(1).copied().unwrap_or(now)));
            let listed = Intervals::of(listed.collect());
            let unlisted = all.without(&listed).without(&hindered).and(stay.sure());
            let ghost = listed.without(&hindered).without(stay.possible());
            for (what, wrong) in [("missing", unlisted), ("a ghost", ghost)] {
                for (from, until) in wrong.longer_than(SLACK) {
                    report.add(Fault::MissedChange, || {
                        let [from, until] = [from, until].map(|time| time as f64 / 1e6);
                        format!("{observer} on {channel}: {user} is {what} from {from:.3} to {until:.3} s")
                    });
                }
            }
        }
    }
}
