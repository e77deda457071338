//! Logs that are trimmed while clients are away or catching up: who missed nothing goes on, who did is told.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

use crate::check::{Expect, Report, SLOW};
use crate::publisher::{Load, Percent};
use crate::server::Setup;
use crate::socket::Reading;
use crate::stage::{Options, Stage, channels, keep_all, setup};

const MAX_MESSAGES: u64 = 300;
const MAX_REPLAY: u64 = 100;
const WINDOW: Duration = Duration::from_secs(2);

/// By count, with slow readers whom trimming overtakes.
pub fn by_count(options: &Options) -> Result<Report> {
    let rule = json!({ "match": "*", "window": "24h", "max_messages": MAX_MESSAGES, "max_bytes": "1GiB" });
    let expect = Expect { max_messages: MAX_MESSAGES, ..Expect::default() };
    let replay = json!({ "rules": [rule], "max_bytes": "1GiB" });
    let stage = Stage::open("trim", options, small_outbox(setup(replay)), expect, channels(4))?;
    play(stage, options, Duration::from_millis(1500))
}

/// By age: the boundary is the message's time, to the millisecond.
pub fn by_age(options: &Options) -> Result<Report> {
    let window = format!("{}s", WINDOW.as_secs());
    let rule = json!({ "match": "*", "window": window, "max_messages": 10_000_000, "max_bytes": "1GiB" });
    let expect = Expect { window: WINDOW.as_micros() as u64, ..Expect::default() };
    let replay = json!({ "rules": [rule], "max_bytes": "1GiB" });
    let stage = Stage::open("expire", options, small_outbox(setup(replay)), expect, channels(4))?;
    play(stage, options, WINDOW * 2)
}

/// Nothing is trimmed, but only so many are replayed at once.
pub fn too_many(options: &Options) -> Result<Report> {
    let mut setup = small_outbox(setup(keep_all()));
    setup.limits["max_replay_messages"] = json!(MAX_REPLAY);
    let mut stage = Stage::open("many", options, setup, Expect::default(), channels(4))?;
    // To go back to the earliest is too many, too.
    stage.late = "";
    play(stage, options, Duration::from_millis(800))
}

/// A slow reader is sent to the log at once, not after a megabyte.
fn small_outbox(setup: Setup) -> Setup {
    Setup { outbox_bytes: 64 << 10, ..setup }
}

fn play(mut stage: Stage, options: &Options, away: Duration) -> Result<Report> {
    let plan = |number: usize| {
        let mut plan = stage.plan("o", number, 2);
        plan.pause = away;
        plan.rejects_gaps = number.is_multiple_of(3);
        plan
    };
    stage.watch((0..options.pick(30, 100)).map(plan).collect())?;
    let slow = |number: usize| {
        let mut plan = stage.plan(SLOW, number, 1);
        plan.reading = Reading { bytes_per_second: 40_000 };
        plan
    };
    stage.watch((0..8).map(slow).collect())?;
    let load = Load { percent: Percent::FOR_ALL, ..stage.load(8, 400) };
    let publishers = stage.publish("p", &Load { per_second: 1000.0, ..load }, &Vec::new())?;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(options.pick(5, 60)) {
        std::thread::sleep(Duration::from_millis(700));
        stage.crowds[0].cut(2);
        stage.server.is_alive()?;
        stage.sample();
    }
    publishers.stop()?;
    stage.wait_until_subscribed(Duration::from_secs(60))?;
    let report = stage.finish()?;
    Ok(report)
}
