//! A store that is smaller than what is published: it keeps its size, and tells whom it no longer serves.

use std::time::Duration;

use anyhow::Result;

use crate::check::{Expect, Report};
use crate::publisher::{Load, Percent};
use crate::server::Setup;
use crate::stage::{Options, Stage, channels, keep_all, setup};

const STORE_BYTES: u64 = 32 << 20;
/// A slice more than the cap, and the longest write-ahead log that docs/replay.md allows for; far less than is written.
const MAX_DISK: u64 = STORE_BYTES + STORE_BYTES / 16 + (64 << 20);
const DATA: usize = 8_000;

pub fn run(options: &Options) -> Result<Report> {
    let expect = Expect { drops_early: true, max_disk: MAX_DISK, max_rss: 256 << 20, ..Expect::default() };
    let setup = Setup { store_bytes: STORE_BYTES, ..setup(keep_all()) };
    let mut stage = Stage::open("cap", options, setup, expect, channels(6))?;
    let plan = |number: usize| {
        let mut plan = stage.plan("o", number, 2);
        plan.pause = Duration::from_secs(8);
        plan
    };
    stage.watch((0..30).map(plan).collect())?;
    let load = Load { percent: Percent::FOR_ALL, per_second: 2000.0, ..stage.load(16, DATA) };
    let publishers = stage.publish("p", &load, &Vec::new())?;
    let target = options.pick(3, 16) * STORE_BYTES / 2 / DATA as u64;
    while publishers.stored() < target {
        std::thread::sleep(Duration::from_millis(200));
        stage.crowds[0].cut(7);
        stage.sample();
        stage.server.is_alive()?;
    }
    let tally = publishers.stop()?;
    let published = (target * DATA as u64) >> 20;
    stage.findings.tell(format!("wrote      {published} MiB into {} MiB; {tally:?}", STORE_BYTES >> 20));
    stage.wait_until_subscribed(Duration::from_secs(60))?;
    stage.finish()
}
