//! Planted mistakes on channels without a log are found.

use serde_json::{Value, json};

use super::super::{Checker, Expect, Fault, Report};
use crate::history::Record;

/// Messages m1, m2 … of `plain-c`, a second apart, and what observers make of them; times in seconds.
#[derive(Default)]
struct Run {
    lines: Vec<Value>,
    may_lose: bool,
}

impl Run {
    fn of(count: u64) -> Self {
        let mut run = Self::default();
        for number in 1..=count {
            let t0 = number * 1_000_000;
            let mid = format!("m{number}");
            let line = json!({ "f": "publish", "type": "ok", "t0": t0, "mid": mid, "sid": "9.9" });
            run.say(number as f64 + 0.01, "p", line);
        }
        run
    }

    fn say(&mut self, at: f64, who: &str, mut line: Value) -> &mut Self {
        line["t"] = json!((at * 1e6) as u64);
        line["p"] = json!(who);
        line["ch"] = json!("plain-c");
        self.lines.push(line);
        self
    }

    fn open(&mut self, who: &str, at: f64, sid: &str) -> &mut Self {
        self.say(at, who, json!({ "f": "sub_ok", "sid": sid }))
    }

    fn got(&mut self, who: &str, numbers: &[u64]) -> &mut Self {
        for number in numbers {
            self.say(50.0, who, json!({ "f": "recv", "mid": format!("m{number}") }));
        }
        self
    }

    fn outage(&mut self, from: u64, until: f64) -> &mut Self {
        self.say(until, "faults", json!({ "f": "outage", "type": "cut", "node": 1, "t0": from * 1_000_000 }))
    }

    fn report(&self) -> Report {
        let lines: Vec<String> = self.lines.iter().map(Value::to_string).collect();
        let records: Vec<Record<'_>> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let mut checker = Checker::new(Expect { may_lose: self.may_lose, ..Expect::default() });
        records.iter().for_each(|record| checker.learn(record));
        checker.has_learnt();
        records.iter().for_each(|record| checker.follow(record));
        checker.conclude()
    }

    #[track_caller]
    fn shows(&self, faults: &[(Fault, u64)]) {
        let report = self.report();
        for (fault, count) in faults {
            assert_eq!(report.count(*fault), *count, "{fault:?}\n{report}");
        }
        assert_eq!(report.violations(), faults.iter().map(|(_, count)| count).sum::<u64>(), "{report}");
    }
}

#[test]
fn all_in_one_order_is_clean() {
    Run::of(4)
        .open("a", 0.0, "1.1")
        .got("a", &[1, 2, 3, 4])
        .open("b", 2.5, "2.2")
        .got("b", &[3, 4])
        .shows(&[]);
    // What is published at the same time may come in any order, the same for all.
    Run::of(3)
        .open("a", 0.0, "1.1")
        .got("a", &[2, 1, 3])
        .open("b", 0.0, "2.2")
        .got("b", &[2, 1, 3])
        .shows(&[]);
}

#[test]
fn two_orders_are_found() {
    let mut run = Run::of(4);
    run.open("a", 0.0, "1.1").got("a", &[1, 2, 3, 4]).open("b", 0.0, "2.2").got("b", &[1, 3, 2, 4]);
    run.shows(&[(Fault::Disordered, 1)]);
    // Also where no two observers saw the same two messages.
    let mut run = Run::of(3);
    run.outage(0, 60.0);
    run.open("a", 0.0, "1.1").got("a", &[1, 2]).open("b", 0.0, "2.2").got("b", &[2, 3]);
    run.open("c", 0.0, "3.3").got("c", &[3, 1]);
    run.shows(&[(Fault::Disordered, 1)]);
}

#[test]
fn a_repeat_is_found() {
    let mut run = Run::of(2);
    run.open("a", 0.0, "1.1").got("a", &[1, 2, 1]);
    run.shows(&[(Fault::Duplicate, 1)]);
    // The keys are in Redis: if it forgets, a retry is a repetition.
    run.may_lose = true;
    run.shows(&[]);
}

#[test]
fn while_nothing_is_broken_nothing_is_lost() {
    let mut run = Run::of(3);
    run.open("a", 0.0, "1.1").got("a", &[1, 3]);
    run.shows(&[(Fault::Lost, 1)]);
    run.outage(1, 1.5);
    run.shows(&[]);
    // A connection that comes or goes meanwhile need not get it.
    let mut run = Run::of(3);
    run.open("a", 2.0, "1.1").got("a", &[3]);
    run.shows(&[]);
}

#[test]
fn who_is_left_out_gets_nothing() {
    let mut run = Run::of(2);
    run.open("a", 0.0, "9.9");
    run.shows(&[]);
    run.got("a", &[1]);
    run.shows(&[(Fault::Foreign, 1)]);
}

#[test]
fn what_nobody_published_is_foreign() {
    Run::of(1).open("a", 0.0, "1.1").got("a", &[1, 7]).shows(&[(Fault::Foreign, 1)]);
}
