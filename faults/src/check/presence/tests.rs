//! Planted mistakes about members are found; what looks alike but is right, is not.

use serde_json::{Value, json};

use super::super::{Checker, Expect, Fault, Report};
use crate::history::Record;

const SECOND: u64 = 1_000_000;

/// Three users on three nodes for a minute, in the channel `presence-c`; times in seconds.
struct Run {
    lines: Vec<Value>,
    may_lose: bool,
}

impl Run {
    fn new() -> Self {
        let mut run = Self { lines: Vec::new(), may_lose: false };
        run.join("a", 0, 1.0, "a").join("b", 1, 2.0, "a b").join("c", 2, 3.0, "a b c");
        run.added("a", 2.1, "b").added("a", 3.1, "c").added("b", 3.1, "c");
        run
    }

    fn say(&mut self, at: f64, who: &str, act: &str, mut line: Value) -> &mut Self {
        line["t"] = json!((at * SECOND as f64) as u64);
        line["p"] = json!(who);
        line["f"] = json!(act);
        line["ch"] = json!("presence-c");
        self.lines.push(line);
        self
    }

    fn join(&mut self, who: &str, node: u8, at: f64, list: &str) -> &mut Self {
        self.say(at - 0.1, who, "ask", json!({ "node": node, "user": who }));
        self.say(at, who, "sub_ok", json!({ "type": "live", "epoch": "x.1", "serial": 0 }));
        self.say(at, who, "members", json!({ "node": node, "user": who, "users": list }))
    }

    fn added(&mut self, who: &str, at: f64, user: &str) -> &mut Self {
        self.say(at, who, "member_added", json!({ "user": user }))
    }

    fn removed(&mut self, who: &str, at: f64, user: &str) -> &mut Self {
        self.say(at, who, "member_removed", json!({ "user": user }))
    }

    fn closed(&mut self, who: &str, at: f64) -> &mut Self {
        self.say(at, who, "close", json!({ "type": "lost" }))
    }

    fn outage(&mut self, node: Option<u8>, from: f64, until: f64) -> &mut Self {
        let from = (from * SECOND as f64) as u64;
        self.say(until, "faults", "outage", json!({ "type": "kill", "node": node, "t0": from }))
    }

    fn census(&mut self, users: &str) -> &mut Self {
        self.say(60.1, "users", "census", json!({ "node": 1, "users": users }))
    }

    fn report(&mut self) -> Report {
        self.say(60.0, "faults", "quiet", json!({}));
        self.lines.sort_by_key(|line| line["t"].as_u64());
        let lines: Vec<String> = self.lines.iter().map(Value::to_string).collect();
        let records: Vec<Record<'_>> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let expect = Expect { node_timeout: 4 * SECOND, may_lose: self.may_lose, ..Expect::default() };
        let mut checker = Checker::new(expect);
        records.iter().for_each(|record| checker.learn(record));
        checker.has_learnt();
        records.iter().for_each(|record| checker.follow(record));
        checker.conclude()
    }

    #[track_caller]
    fn shows(&mut self, faults: &[(Fault, u64)]) {
        let report = self.report();
        for (fault, count) in faults {
            assert_eq!(report.count(*fault), *count, "{fault:?}\n{report}");
        }
        assert_eq!(report.violations(), faults.iter().map(|(_, count)| count).sum::<u64>(), "{report}");
    }
}

#[test]
fn a_run_without_a_fault_is_clean() {
    Run::new().census("c a b").shows(&[]);
    let mut run = Run::new();
    run.closed("c", 20.0).removed("a", 20.1, "c").removed("b", 20.2, "c");
    run.join("c", 0, 30.0, "b a c").added("a", 30.0, "c").added("b", 30.1, "c");
    run.shows(&[]);
}

#[test]
fn who_is_there_is_not_told_as_gone() {
    let mut run = Run::new();
    run.removed("a", 20.0, "b").added("a", 20.1, "b");
    run.shows(&[(Fault::FalseChange, 1)]);
    // Nor when his node is away for a moment, or another one, or Redis.
    for outage in [Some(1), Some(2), None] {
        let mut run = Run::new();
        run.outage(outage, 19.0, 19.5).removed("a", 24.0, "b").added("a", 24.1, "b");
        run.shows(&[(Fault::FalseChange, 1)]);
    }
    // When it was away for longer than a lease, he is.
    let mut run = Run::new();
    run.outage(Some(1), 19.0, 24.5).removed("a", 24.0, "b").added("a", 25.0, "b");
    run.removed("c", 24.0, "b").added("c", 25.0, "b");
    run.shows(&[]);
}

#[test]
fn who_is_elsewhere_meanwhile_is_not_told_as_gone() {
    // His second connection is on another node than the one that dies.
    let mut run = Run::new();
    run.say(9.9, "b2", "ask", json!({ "node": 0, "user": "b" }));
    run.say(10.0, "b2", "sub_ok", json!({ "type": "live", "epoch": "x.1", "serial": 0 }));
    run.say(10.0, "b2", "members", json!({ "node": 0, "user": "b", "users": "a b c" }));
    run.outage(Some(1), 19.0, 30.0).closed("b", 19.0);
    run.removed("a", 23.0, "b").added("a", 23.1, "b");
    run.shows(&[(Fault::FalseChange, 1)]);
}

#[test]
fn who_is_not_there_is_not_told_as_come() {
    let mut run = Run::new();
    run.added("a", 20.0, "z").removed("a", 20.1, "z");
    run.shows(&[(Fault::FalseChange, 1)]);
    let mut run = Run::new();
    run.closed("c", 10.0).removed("a", 10.1, "c").removed("b", 10.1, "c");
    run.added("a", 20.0, "c").removed("a", 20.1, "c");
    run.shows(&[(Fault::FalseChange, 1)]);
}

#[test]
fn nothing_is_told_twice() {
    let mut run = Run::new();
    run.added("a", 20.0, "b");
    run.shows(&[(Fault::RepeatedChange, 1)]);
    let mut run = Run::new();
    run.closed("c", 10.0).removed("a", 10.1, "c").removed("b", 10.1, "c").removed("b", 10.2, "c");
    run.shows(&[(Fault::RepeatedChange, 1)]);
    let mut run = Run::new();
    run.join("d", 0, 5.0, "a b c d d").added("a", 5.1, "d").added("b", 5.1, "d").added("c", 5.1, "d");
    run.shows(&[(Fault::RepeatedChange, 1)]);
}

#[test]
fn a_change_is_told_in_time() {
    // `b` is never told that `c` is gone.
    let mut run = Run::new();
    run.closed("c", 10.0).removed("a", 10.1, "c");
    run.shows(&[(Fault::MissedChange, 1), (Fault::WrongMembers, 1)]);
    // Or too late.
    let mut run = Run::new();
    run.closed("c", 10.0).removed("a", 10.1, "c").removed("b", 14.0, "c");
    run.shows(&[(Fault::MissedChange, 1)]);
    // Or that he has come.
    let mut run = Run::new();
    run.join("d", 0, 5.0, "a b c d").added("a", 5.1, "d").added("c", 5.1, "d").added("b", 9.0, "d");
    run.shows(&[(Fault::MissedChange, 1)]);
}

#[test]
fn a_dead_node_is_noticed_within_its_time() {
    for (told, faults) in [(14.0, 0), (19.0, 2)] {
        let mut run = Run::new();
        run.outage(Some(2), 10.0, 11.0).closed("c", 10.0).removed("a", told, "c").removed("b", told, "c");
        run.shows(&[(Fault::MissedChange, faults)]);
    }
}

#[test]
fn a_list_has_those_who_are_there() {
    let mut run = Run::new();
    run.join("d", 0, 10.0, "a c d").added("a", 10.1, "d").added("b", 10.1, "d").added("c", 10.1, "d");
    run.added("d", 10.2, "b");
    run.shows(&[(Fault::WrongMembers, 1)]);
    // With itself.
    let mut run = Run::new();
    run.join("d", 0, 10.0, "a b c").added("a", 10.1, "d").added("b", 10.1, "d").added("c", 10.1, "d");
    run.added("d", 10.2, "d");
    run.shows(&[(Fault::WrongMembers, 1)]);
    // And nobody who left.
    let mut run = Run::new();
    run.closed("c", 10.0).removed("a", 10.1, "c").removed("b", 10.1, "c");
    run.join("d", 0, 20.0, "a b c d").added("a", 20.1, "d").added("b", 20.1, "d").removed("d", 20.2, "c");
    run.shows(&[(Fault::WrongMembers, 1)]);
}

#[test]
fn a_redis_that_forgot_may_give_a_short_list() {
    let mut run = Run::new();
    run.outage(None, 9.0, 9.5);
    run.join("d", 0, 10.0, "a d").added("a", 10.1, "d").added("b", 10.1, "d").added("c", 10.1, "d");
    run.added("d", 10.5, "b").added("d", 10.5, "c");
    run.may_lose = true;
    run.shows(&[]);
    run.may_lose = false;
    run.shows(&[(Fault::WrongMembers, 2)]);
}

#[test]
fn everybody_agrees_at_the_end() {
    Run::new().census("a b").shows(&[(Fault::WrongMembers, 1)]);
    Run::new().census("a b c d").shows(&[(Fault::WrongMembers, 1)]);
    // A change so late that nobody could have missed it yet.
    let mut run = Run::new();
    run.closed("c", 59.5).removed("a", 59.6, "c");
    run.shows(&[(Fault::WrongMembers, 1)]);
}
