//! History that is purged while others read it: who was further back is told, nobody else notices.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::check::{Expect, Report};
use crate::publisher::{Load, Percent};
use crate::reference;
use crate::stage::{Options, Stage, channels, keep_all, setup};

pub fn run(options: &Options) -> Result<Report> {
    let mut stage = Stage::open("purge", options, setup(keep_all()), Expect::default(), channels(4))?;
    let plan = |number: usize| {
        let mut plan = stage.plan("o", number, 2);
        plan.pause = Duration::from_millis(600);
        plan
    };
    stage.watch((0..options.pick(30, 100)).map(plan).collect())?;
    let load = Load { percent: Percent::FOR_ALL, per_second: 1000.0, ..stage.load(8, 100) };
    let publishers = stage.publish("p", &load, &Vec::new())?;
    let began = Instant::now();
    let mut number = 0;
    while began.elapsed() < Duration::from_secs(options.pick(4, 30)) {
        std::thread::sleep(Duration::from_millis(50));
        stage.crowds[0].cut(3);
        let channel = stage.channels[number % stage.channels.len()].clone();
        number += 1;
        // A few messages stay, so that some of those who are away have missed nothing.
        reference::purge(stage.server.address, &stage.server.app, &channel, 20, stage.published())?;
        stage.server.is_alive()?;
    }
    publishers.stop()?;
    stage.findings.tell(format!("purged     {number} times"));
    stage.wait_until_subscribed(Duration::from_secs(60))?;
    stage.finish()
}
