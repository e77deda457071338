//! A log that has lost its end and goes on in another generation.

use super::*;

/// m1 to m3, and some that were acknowledged and are lost; n4 and n5 are in their place.
fn rolled_back(lost: &[u64]) -> Run {
    let mut run = Run::of(3);
    run.expect.may_lose = true;
    for serial in lost {
        run.ok(*serial);
    }
    for serial in [4, 5] {
        let mid = format!("n{serial}");
        run.say(json!({ "p": "p", "f": "publish", "type": "ok", "t0": 1, "mid": mid, "epoch": "a.2", "serial": serial }));
        run.say(json!({ "p": "log", "f": "log", "mid": mid, "epoch": "a.2", "serial": serial }));
    }
    run.say(json!({ "p": "log", "f": "bounds", "epoch": "a.2", "oldest": 1, "serial": 5 }));
    run.live(0).recv(1..=3);
    run
}

fn hears(run: &mut Run, serial: u64, prev: u64) {
    let mid = format!("n{serial}");
    run.recv_as(json!({ "serial": serial, "mid": mid, "epoch": "a.2", "prev": prev }));
}

#[test]
fn who_saw_nothing_of_what_is_lost_goes_on() {
    let mut run = rolled_back(&[4, 5]);
    hears(&mut run, 4, 3);
    hears(&mut run, 5, 4);
    run.is_clean();
    assert_eq!(run.report().gone, 2);
}

#[test]
fn who_saw_what_is_lost_must_be_told() {
    let mut run = rolled_back(&[4, 5]);
    run.recv([4]);
    hears(&mut run, 5, 4);
    run.shows(&[(Fault::WrongRecovery, 1)]);
}

#[test]
fn who_was_left_out_of_what_is_lost_misses_nothing_of_what_came_instead() {
    let mut run = rolled_back(&[5]);
    run.say(json!({ "p": "o", "f": "publish", "type": "info", "mid": "own", "sid": "1.1" }));
    // Another one saw it at 4.
    run.say(json!({ "p": "q", "f": "sub_ok", "type": "live", "epoch": "a.1", "serial": 3, "sid": "3.3" }));
    run.say(json!({ "p": "q", "f": "recv", "epoch": "a.1", "serial": 4, "mid": "own" }));
    run.recv_as(json!({ "serial": 5, "mid": "m5", "prev": 3 }));
    for (observer, from) in [("o", "a.1:5"), ("q", "a.1:4")] {
        run.say(json!({ "p": observer, "f": "resync", "epoch": "a.2", "serial": 3, "from": from,
                        "reason": "rolled_back" }));
        for serial in [4, 5] {
            let mid = format!("n{serial}");
            run.say(json!({ "p": observer, "f": "recv", "epoch": "a.2", "serial": serial, "mid": mid }));
        }
    }
    run.is_clean();
}
