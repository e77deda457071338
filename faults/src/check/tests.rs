//! Every kind of violation is planted, and found; what looks alike but is right, is not.

mod generations;

use serde_json::{Value, json};

use super::{Checker, Expect, Fault, Report};
use crate::history::Record;

/// A run on the channel `c`, line by line.
struct Run {
    lines: Vec<String>,
    expect: Expect,
    clock: u64,
}

impl Run {
    /// `n` messages m1, m2 … at the serials 1, 2 …, all acknowledged, all in the log.
    fn of(n: u64) -> Self {
        let mut run = Self { lines: Vec::new(), expect: Expect::default(), clock: 1_000_000 };
        for serial in 1..=n {
            run.ok(serial);
            run.log(serial, serial);
        }
        run.bounds(1, n);
        run
    }

    fn say(&mut self, mut line: Value) -> &mut Self {
        self.clock += 1000;
        if line["t"].is_null() {
            line["t"] = json!(self.clock);
        }
        line["ch"] = json!("c");
        self.lines.push(line.to_string());
        self
    }

    fn ok(&mut self, serial: u64) -> &mut Self {
        self.say(json!({ "p": "p", "f": "publish", "type": "ok", "t0": 1, "mid": format!("m{serial}"), "epoch": "a.1", "serial": serial }))
    }

    fn log(&mut self, serial: u64, mid: u64) -> &mut Self {
        self.say(
            json!({ "p": "log", "f": "log", "mid": format!("m{mid}"), "epoch": "a.1", "serial": serial }),
        )
    }

    fn bounds(&mut self, oldest: u64, newest: u64) -> &mut Self {
        self.say(json!({ "p": "log", "f": "bounds", "epoch": "a.1", "oldest": oldest, "serial": newest }))
    }

    fn live(&mut self, serial: u64) -> &mut Self {
        self.say(json!({ "p": "o", "f": "sub_ok", "type": "live", "epoch": "a.1", "serial": serial, "sid": "1.1" }))
    }

    fn recovered(&mut self, from: u64, serial: u64) -> &mut Self {
        let from_text = format!("a.1:{from}");
        self.say(json!({ "p": "o", "f": "sub_ok", "type": "recovered", "from": from_text, "epoch": "a.1",
                         "serial": serial, "count": serial - from, "sid": "2.2", "not_from": "1.1" }))
    }

    fn gap(&mut self, from: u64, serial: u64, reason: &str, oldest: u64) -> &mut Self {
        let from = format!("a.1:{from}");
        self.say(
            json!({ "p": "o", "f": "sub_ok", "type": "gap", "from": from, "epoch": "a.1", "serial": serial,
                         "reason": reason, "oldest": oldest, "sid": "2.2" }),
        )
    }

    fn recv(&mut self, serials: impl IntoIterator<Item = u64>) -> &mut Self {
        for serial in serials {
            self.recv_as(json!({ "serial": serial, "mid": format!("m{serial}") }));
        }
        self
    }

    fn replayed(&mut self, serials: impl IntoIterator<Item = u64>) -> &mut Self {
        for serial in serials {
            self.recv_as(json!({ "serial": serial, "mid": format!("m{serial}"), "type": "replayed" }));
        }
        self
    }

    fn recv_as(&mut self, mut line: Value) -> &mut Self {
        line["p"] = json!("o");
        line["f"] = json!("recv");
        if line["epoch"].is_null() {
            line["epoch"] = json!("a.1");
        }
        self.say(line)
    }

    fn done(&mut self, serial: u64) -> &mut Self {
        self.say(json!({ "p": "o", "f": "done", "serial": serial }))
    }

    fn close(&mut self) -> &mut Self {
        self.say(json!({ "p": "o", "f": "close", "type": "lost" }))
    }

    fn report(&self) -> Report {
        let mut checker = Checker::new(self.expect.clone());
        let records: Vec<Record<'_>> =
            self.lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        records.iter().for_each(|record| checker.learn(record));
        records.iter().for_each(|record| checker.follow(record));
        checker.conclude()
    }

    /// These kinds and no others.
    #[track_caller]
    fn shows(&self, faults: &[(Fault, u64)]) {
        let report = self.report();
        for (fault, count) in faults {
            assert_eq!(report.count(*fault), *count, "{fault:?}\n{report}");
        }
        assert_eq!(report.violations(), faults.iter().map(|(_, count)| count).sum::<u64>(), "{report}");
    }

    #[track_caller]
    fn is_clean(&self) {
        self.shows(&[]);
    }
}

#[test]
fn a_run_without_a_fault_is_clean() {
    let mut run = Run::of(8);
    run.live(2).recv(3..=4).close().recovered(4, 7).replayed(5..=7).done(7).recv([8]);
    run.is_clean();
    let report = run.report();
    assert_eq!((report.published, report.deliveries, report.replayed, report.recoveries), (8, 6, 3, 1));
    assert_eq!((report.latency.len(), report.catch_up.len()), (3, 1));
}

#[test]
fn nothing_missed_is_a_recovery_of_nothing() {
    Run::of(4).live(2).recv(3..=4).close().recovered(4, 4).done(4).is_clean();
}

#[test]
fn a_message_that_is_left_out_in_silence_is_lost() {
    Run::of(4).live(0).recv([1, 2, 4]).shows(&[(Fault::Gap, 1), (Fault::Lost, 1)]);
}

#[test]
fn a_message_that_is_left_out_with_a_false_prev_is_lost() {
    let mut run = Run::of(4);
    run.live(0).recv([1, 2]).recv_as(json!({ "serial": 4, "mid": "m4", "prev": 2 }));
    run.shows(&[(Fault::Lost, 1)]);
}

#[test]
fn a_message_that_came_before_is_a_duplicate() {
    Run::of(3).live(0).recv([1, 2, 2, 3]).shows(&[(Fault::Duplicate, 1)]);
    let mut run = Run::of(3);
    run.live(0).recv([1, 2]).close().recovered(2, 3).replayed([2, 3]).done(3);
    run.shows(&[(Fault::Duplicate, 1)]);
}

#[test]
fn messages_out_of_order_are_told_from_duplicates() {
    Run::of(3).live(0).recv([1, 3, 2]).shows(&[(Fault::Gap, 1), (Fault::Reordered, 1)]);
}

#[test]
fn two_messages_at_one_position_are_inconsistent() {
    let mut run = Run::of(3);
    run.say(json!({ "p": "p", "f": "publish", "type": "info", "mid": "m9" }));
    run.live(0).recv([1, 2]).recv_as(json!({ "serial": 3, "mid": "m9" }));
    run.shows(&[(Fault::Inconsistent, 1)]);
}

#[test]
fn an_id_that_is_not_the_key_is_inconsistent() {
    let mut run = Run::of(1);
    run.live(0).recv_as(json!({ "serial": 1, "mid": "m1", "id": "m7" }));
    run.shows(&[(Fault::Inconsistent, 1)]);
}

#[test]
fn an_acknowledged_message_that_is_not_in_the_log_is_lost() {
    let mut run = Run::of(3);
    run.ok(4).live(3);
    run.shows(&[(Fault::Lost, 1)]);
    // A scenario that destroys messages says so.
    run.expect.may_lose = true;
    run.is_clean();
}

#[test]
fn a_trimmed_message_is_not_lost() {
    let mut run = Run::of(0);
    run.lines.clear();
    (1..=3).for_each(|serial| {
        run.ok(serial);
    });
    run.log(3, 3).bounds(3, 3).live(3);
    run.is_clean();
}

#[test]
fn a_refused_message_that_is_seen_is_an_aborted_read() {
    let mut run = Run::of(2);
    run.say(json!({ "p": "p", "f": "publish", "type": "fail", "mid": "m3", "status": 413 }));
    run.log(3, 3).bounds(1, 3).live(0).recv(1..=3);
    run.shows(&[(Fault::Aborted, 1)]);
}

#[test]
fn a_message_that_nobody_published_is_foreign() {
    Run::of(2).log(3, 3).bounds(1, 3).live(0).recv(1..=3).shows(&[(Fault::Foreign, 1)]);
}

#[test]
fn a_message_whose_fate_is_unknown_may_be_seen_or_not() {
    let mut run = Run::of(2);
    run.say(json!({ "p": "p", "f": "publish", "type": "info", "mid": "m3" }));
    run.say(json!({ "p": "p", "f": "publish", "type": "info", "mid": "m4" }));
    run.log(3, 3).bounds(1, 3).live(0).recv(1..=3);
    run.is_clean();
}

#[test]
fn one_key_at_two_positions_is_found_wherever_it_shows() {
    // In the answers to its publisher.
    let mut run = Run::of(3);
    run.say(json!({ "p": "p", "f": "publish", "type": "ok", "mid": "m1", "epoch": "a.1", "serial": 3 }));
    assert_eq!(run.report().count(Fault::TwoSerials), 1);
    // In the log.
    let mut run = Run::of(3);
    run.log(4, 1).bounds(1, 4).live(4);
    assert_eq!(run.report().count(Fault::TwoSerials), 1);
    // On a socket.
    let mut run = Run::of(3);
    run.live(0).recv(1..=3).recv_as(json!({ "serial": 4, "mid": "m1" }));
    assert_eq!(run.report().count(Fault::TwoSerials), 1);
}

#[test]
fn a_repeat_has_the_position_of_the_first() {
    let mut run = Run::of(3);
    run.ok(2).live(0).recv(1..=3);
    run.is_clean();
}

#[test]
fn recovered_means_all_that_was_missed() {
    let mut run = Run::of(5);
    run.live(0).recv(1..=2).close().recovered(2, 5).replayed([3, 4]).done(5);
    // The fifth never comes: the recovery is wrong, and it's lost.
    run.shows(&[(Fault::WrongRecovery, 1), (Fault::Lost, 1)]);
}

#[test]
fn recovered_tells_the_count() {
    let mut run = Run::of(3);
    run.live(0).recv([1]).close();
    run.say(
        json!({ "p": "o", "f": "sub_ok", "type": "recovered", "from": "a.1:1", "epoch": "a.1", "serial": 3,
                    "count": 5, "sid": "2.2" }),
    );
    run.replayed(2..=3).done(3);
    run.shows(&[(Fault::WrongRecovery, 1)]);
}

#[test]
fn nobody_recovers_beyond_the_end_of_the_log() {
    let mut run = Run::of(3);
    run.live(0).recv(1..=3).close();
    run.say(
        json!({ "p": "o", "f": "sub_ok", "type": "recovered", "from": "a.1:3", "epoch": "a.1", "serial": 2,
                    "sid": "2.2" }),
    );
    run.done(2);
    run.shows(&[(Fault::WrongRecovery, 1)]);
}

#[test]
fn who_holds_what_the_log_lost_must_not_be_told_recovered() {
    let mut run = Run::of(2);
    run.expect.may_lose = true;
    run.ok(3).live(0).recv(1..=3).close();
    // The store lost m3, and has m4 in its place.
    run.say(json!({ "p": "p", "f": "publish", "type": "ok", "mid": "m4", "epoch": "a.2", "serial": 3 }));
    run.say(json!({ "p": "log", "f": "log", "mid": "m4", "epoch": "a.2", "serial": 3 }));
    run.say(json!({ "p": "log", "f": "bounds", "epoch": "a.2", "oldest": 1, "serial": 3 }));
    let mut told = Run { lines: run.lines.clone(), expect: run.expect.clone(), clock: run.clock };
    run.say(
        json!({ "p": "o", "f": "sub_ok", "type": "recovered", "from": "a.1:3", "epoch": "a.2", "serial": 3,
                    "count": 0, "sid": "2.2" }),
    );
    run.done(3);
    run.shows(&[(Fault::WrongRecovery, 1)]);
    told.say(json!({ "p": "o", "f": "sub_ok", "type": "gap", "reason": "rolled_back", "from": "a.1:3",
                     "epoch": "a.2", "serial": 3, "oldest": 1, "sid": "2.2" }));
    told.is_clean();
}

#[test]
fn a_resync_that_nothing_calls_for_is_needless() {
    for reason in ["expired", "rolled_back", "stream_reset", "too_many", "disabled"] {
        let mut run = Run::of(5);
        run.live(0).recv(1..=2).close().gap(2, 5, reason, 4);
        run.shows(&[(Fault::NeedlessResync, 1)]);
    }
}

#[test]
fn expired_is_right_only_beyond_the_retention() {
    let trimmed = |oldest: u64, told: u64| {
        let mut run = Run { lines: Vec::new(), expect: Expect::default(), clock: 1_000_000 };
        run.expect.max_messages = 3;
        (1..=9).for_each(|serial| {
            run.ok(serial);
        });
        (oldest..=9).for_each(|serial| {
            run.log(serial, serial);
        });
        run.bounds(oldest, 9).live(0).recv(1..=3).close().gap(3, 9, "expired", told);
        run
    };
    trimmed(7, 7).is_clean();
    // The oldest is the next that is missing: it had nothing to miss.
    trimmed(7, 4).shows(&[(Fault::NeedlessResync, 1)]);
    // What was trimmed cannot be recovered.
    let mut run = trimmed(7, 7);
    run.lines.pop();
    run.recovered(3, 9).replayed(7..=9).done(9);
    assert_eq!(run.report().count(Fault::WrongRecovery), 1);
}

#[test]
fn expired_by_age_is_right_once_the_message_is_as_old() {
    let run = |age: u64| {
        let mut run = Run { lines: Vec::new(), expect: Expect::default(), clock: 1_000_000 };
        run.expect.window = 5_000_000;
        for serial in 1..=4 {
            run.say(json!({ "p": "p", "f": "publish", "type": "ok", "t": 9_000_010, "t0": 9_000_000,
                            "mid": format!("m{serial}"), "epoch": "a.1", "serial": serial }));
        }
        run.log(4, 4).bounds(4, 4).live(0).recv(1..=2).close();
        run.clock = 9_000_000 + age;
        run.gap(2, 4, "expired", 4);
        run
    };
    run(5_000_000).is_clean();
    run(4_900_000).shows(&[(Fault::NeedlessResync, 1)]);
}

#[test]
fn a_place_lost_while_connected_is_judged_alike() {
    let mut run = Run::of(6);
    run.live(0).recv(1..=2);
    run.say(
        json!({ "p": "o", "f": "resync", "from": "a.1:2", "epoch": "a.1", "serial": 6, "reason": "expired" }),
    );
    run.shows(&[(Fault::NeedlessResync, 1)]);
    let mut run = Run::of(6);
    run.live(0).recv(1..=2);
    run.say(json!({ "p": "o", "f": "refused", "type": "gone", "from": "a.1:2", "reason": "expired", "oldest": 5 }));
    run.live(6);
    run.shows(&[(Fault::NeedlessResync, 1)]);
}

#[test]
fn the_socket_that_is_left_out_must_not_see_it() {
    let excluding = |sid: &str| {
        let mut run = Run::of(2);
        run.say(json!({ "p": "p", "f": "publish", "type": "ok", "t0": 1, "mid": "m3", "sid": sid, "epoch": "a.1", "serial": 3 }));
        run.ok(4).log(3, 3).log(4, 4).bounds(1, 4);
        run
    };
    // Left out, and told by prev.
    let mut run = excluding("1.1");
    run.live(0).recv(1..=2).recv_as(json!({ "serial": 4, "mid": "m4", "prev": 2 }));
    run.is_clean();
    // At the end nothing follows that could tell it.
    let mut run = excluding("1.1");
    run.lines.retain(|line| !line.contains("m4"));
    run.bounds(1, 3).live(0).recv(1..=2);
    run.is_clean();
    let mut run = excluding("1.1");
    run.live(0).recv(1..=4);
    run.shows(&[(Fault::Foreign, 1)]);
    // Nor by replay, as the socket that follows the one that was left out.
    let mut run = excluding("1.1");
    run.live(0).recv(1..=2).close().recovered(2, 4).replayed(3..=4).done(4);
    run.shows(&[(Fault::Foreign, 1)]);
}

#[test]
fn a_channel_that_nobody_asked_for_is_foreign() {
    Run::of(1).recv([1]).shows(&[(Fault::Foreign, 1)]);
}

#[test]
fn who_never_comes_to_the_end_is_reported() {
    Run::of(5).live(0).recv(1..=3).shows(&[(Fault::Unseen, 1)]);
}

#[test]
fn an_unreadable_message_that_is_told_is_not_lost() {
    let mut run = Run::of(4);
    run.live(0).recv(1..=2).say(json!({ "p": "o", "f": "skip", "serial": 3 }));
    run.recv([4]);
    run.is_clean();
}

#[test]
fn memory_and_disk_have_caps() {
    let mut run = Run::of(0);
    run.say(json!({ "p": "server", "f": "sample", "rss": 100, "disk": 50 }));
    run.is_clean();
    (run.expect.max_rss, run.expect.max_disk) = (99, 49);
    run.shows(&[(Fault::OverCap, 2)]);
}

#[test]
fn a_rewind_begins_where_its_first_message_is() {
    let mut run = Run::of(5);
    let rewound = json!({ "p": "o", "f": "sub_ok", "type": "rewound", "epoch": "a.1", "serial": 5, "count": 3, "sid": "1.1" });
    run.say(rewound).replayed(3..=5).done(5);
    run.is_clean();
    let mut run = Run::of(0);
    run.say(json!({ "p": "o", "f": "sub_ok", "type": "rewound", "epoch": "a.1", "serial": 0, "count": 0, "sid": "1.1" }));
    run.done(0).ok(1).log(1, 1).bounds(1, 1).recv([1]);
    run.is_clean();
}

#[test]
fn on_one_connection_a_client_may_ask_for_what_it_has() {
    let again = |last: u64| {
        let mut run = Run::of(6);
        run.live(0).recv(1..=5).recovered(3, 6).replayed(4..=last).done(6);
        run
    };
    again(6).is_clean();
    // It has the fifth from before; the sixth is nowhere.
    again(5).shows(&[(Fault::WrongRecovery, 1), (Fault::Lost, 1)]);
    let mut run = Run::of(6);
    run.live(0).recv(1..=5).recovered(3, 6).replayed([4, 6]).done(6);
    run.shows(&[(Fault::Gap, 1), (Fault::WrongRecovery, 1), (Fault::Lost, 1)]);
}

#[test]
fn a_purge_expires_what_was_before() {
    let purged = |before: u64| {
        let mut run = Run { lines: Vec::new(), expect: Expect::default(), clock: 1_000_000 };
        (1..=6).for_each(|serial| {
            run.ok(serial);
        });
        run.log(6, 6).bounds(6, 6).say(json!({ "p": "purge", "f": "purge", "serial": before }));
        run.live(0).recv(1..=2).close().gap(2, 6, "expired", 6);
        run
    };
    purged(6).is_clean();
    purged(3).shows(&[(Fault::NeedlessResync, 1)]);
}

#[test]
fn what_was_purged_must_not_be_replayed() {
    let mut run = Run::of(6);
    run.live(0).recv(1..=2).close().say(json!({ "p": "purge", "f": "purge", "type": "ok", "serial": 4 }));
    run.clock += 1_000_000;
    run.recovered(2, 6).replayed(3..=6).done(6);
    run.shows(&[(Fault::Purged, 1)]);
}

#[test]
fn nobody_recovers_over_messages_that_were_not_stored() {
    let mut run = Run::of(2);
    run.live(0).recv(1..=2).close();
    let t0 = run.clock + 1;
    run.say(json!({ "p": "p", "f": "publish", "type": "ok", "t0": t0, "mid": "m9" }));
    run.clock += 1_000_000;
    run.recovered(2, 2).done(2);
    run.shows(&[(Fault::WrongRecovery, 1)]);
}

#[test]
fn a_stored_message_has_a_serial() {
    let mut run = Run::of(1);
    run.live(0).recv([1]).recv_as(json!({ "mid": "m1" }));
    run.shows(&[(Fault::Garbled, 1)]);
}

#[test]
fn who_stays_behind_in_a_log_that_is_gone_is_found() {
    let mut run = Run::of(0);
    run.lines.clear();
    run.expect.may_lose = true;
    run.say(
        json!({ "p": "p", "f": "publish", "type": "ok", "t0": 1, "mid": "m1", "epoch": "b.1", "serial": 1 }),
    );
    run.say(json!({ "p": "log", "f": "log", "mid": "m1", "epoch": "b.1", "serial": 1 }));
    run.say(json!({ "p": "log", "f": "bounds", "epoch": "b.1", "oldest": 1, "serial": 1 }));
    // It believes to be at 5 of another log, and is told nothing.
    run.live(5);
    run.shows(&[(Fault::Unseen, 1)]);
}
