//! Thousands of clients cut off at the same moment, who all come back at once.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::check::{Expect, Report};
use crate::publisher::{Load, Percent};
use crate::stage::{Options, Stage, channels, keep_all, setup};

pub fn run(options: &Options, clients: Option<usize>) -> Result<Report> {
    let clients = clients.unwrap_or(options.pick(500, 5_000));
    let mut stage = Stage::open("herd", options, setup(keep_all()), Expect::default(), channels(50))?;
    let plan = |number: usize| {
        let mut plan = stage.plan("o", number, 5);
        plan.pause = Duration::from_millis(1000);
        plan
    };
    stage.watch((0..clients).map(plan).collect())?;
    let load = Load { per_second: 50.0, percent: Percent::FOR_ALL, ..stage.load(4, 60) };
    let publishers = stage.publish("p", &load, &stage.sockets())?;
    for _ in 0..options.pick(2, 5) {
        std::thread::sleep(Duration::from_secs(1));
        let began = Instant::now();
        stage.crowds[0].cut(1);
        // The order has to reach them before they can be counted as back.
        stage.wait("the clients to leave", Duration::from_secs(30), |stage| {
            stage.crowds[0].subscribed() < clients / 10 * 9
        })?;
        stage.wait_until_subscribed(Duration::from_secs(120))?;
        stage.sample();
        stage.findings.tell(format!(
            "herd       {clients} clients with 5 channels each, all back after {:.1} s",
            began.elapsed().as_secs_f64()
        ));
    }
    publishers.stop()?;
    stage.finish()
}
