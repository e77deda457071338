//! A full disk: stored channels say 503, or go on live only; others notice nothing; and all is well once there is
//! room again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::check::{Expect, Report};
use crate::publisher::{Load, Percent, Publishers};
use crate::server::Setup;
use crate::stage::{Options, Stage, channels, setup};

const DISK_BYTES: u64 = 8 << 20;
const LIVE_ONLY: &str = "live-only";
const PATIENCE: Duration = Duration::from_secs(30);

/// Fails where no file system can be mounted.
pub fn run(options: &Options, goes_live: bool) -> Result<Report> {
    let rule = json!({ "match": "*", "window": "24h", "max_messages": 1_000_000, "max_bytes": "1GiB" });
    let replay = json!({ "rules": [{ "match": "live-*", "stored": false }, rule], "max_bytes": "1GiB" });
    let mut setup = Setup { disk_bytes: Some(DISK_BYTES), ..setup(replay) };
    // Messages that were delivered but not stored end a generation, and expire the positions before them.
    let mut expect = Expect { has_disabled: true, ..Expect::default() };
    if goes_live {
        setup.on_store_error = "live_only";
        expect.may_lose = true;
    }
    let name = if goes_live { "full-live" } else { "full" };
    let mut stage = Stage::open(name, options, setup, expect, channels(4))?;
    let plan = |number: usize| {
        let mut plan = stage.plan("o", number, 2);
        plan.channels.push(LIVE_ONLY.to_owned());
        plan.pause = Duration::from_millis(600);
        plan
    };
    stage.watch((0..20).map(plan).collect())?;
    let stored = Load { per_second: 500.0, ..stage.load(8, 200) };
    let (channels, percent) = (vec![LIVE_ONLY.to_owned()], Percent::default());
    let live = Load { channels, percent, per_second: 20.0, ..stage.load(1, 60) };
    let stored = stage.publish("p", &stored, &stage.sockets())?;
    let live = stage.publish("l", &live, &Vec::new())?;
    for round in 0..options.pick(2, 5) {
        let is_killed = round % 2 == 1;
        fill_and_free(&mut stage, &stored, &live, goes_live, is_killed)?;
    }
    let tally = stored.stop()?;
    live.stop()?;
    stage.findings.tell(format!("filled     {tally:?}"));
    stage.finish()
}

fn fill_and_free(
    stage: &mut Stage,
    stored: &Publishers,
    live: &Publishers,
    goes_live: bool,
    is_killed: bool,
) -> Result<()> {
    let more = |publishers: &Publishers, count: u64| publishers.stored() + count;
    let enough = more(stored, 50);
    stage.wait("messages to be stored", PATIENCE, |_| stored.stored() > enough)?;
    stage.server.disk().context("it has one")?.fill()?;
    if goes_live {
        let enough = more(stored, 50);
        stage.wait("messages to go on live", PATIENCE, |_| stored.stored() > enough)?;
        stage.crowds[0].cut(3);
    } else {
        let refused = stored.tally.unavailable.load(Ordering::Relaxed);
        stage.wait("a 503", PATIENCE, |_| stored.tally.unavailable.load(Ordering::Relaxed) > refused + 10)?;
    }
    let enough = more(live, 20);
    stage.wait("live messages to go on", PATIENCE, |_| live.stored() > enough)?;
    if is_killed {
        stage.server.kill()?;
        restart_while_full(stage)?;
    } else {
        stage.server.disk().context("it has one")?.free()?;
    }
    let enough = more(stored, 50);
    stage.wait("stored messages to go on", PATIENCE, |_| stored.stored() > enough)
}

/// It may say that it cannot; then it can once there is room.
fn restart_while_full(stage: &mut Stage) -> Result<()> {
    let outcome = stage.server.start();
    let told = if outcome.is_ok() { "starts".to_owned() } else { format!("{outcome:#?}") };
    let told = told.lines().next().unwrap_or_default().to_owned();
    stage.findings.tell(format!("restarted  while full: {told}"));
    stage.server.disk().context("it has one")?.free()?;
    if outcome.is_err() {
        stage.server.forget();
        stage.server.start()?;
    }
    Ok(())
}
