//! SIGSTOP: a process that is there but does not answer.

use std::time::Duration;

use anyhow::Result;
use rustix::process::Signal;

use crate::check::{Expect, Report};
use crate::publisher::Load;
use crate::stage::{Options, Stage, channels, keep_all, setup};

/// Half of the clients wait it out, the others give up and come back.
pub fn run(options: &Options) -> Result<Report> {
    let pause = Duration::from_secs(options.pick(4, 10));
    let mut stage = Stage::open("stop", options, setup(keep_all()), Expect::default(), channels(8))?;
    let observers = options.pick(60, 400);
    let plan = |number: usize| {
        let mut plan = stage.plan("o", number, 3);
        if number.is_multiple_of(2) {
            plan.silence = pause / 4;
        }
        plan
    };
    stage.watch((0..observers).map(plan).collect())?;
    let load = Load { per_second: 400.0, ..stage.load(8, 60) };
    let publishers = stage.publish("p", &load, &stage.sockets())?;
    for _ in 0..options.pick(1, 3) {
        std::thread::sleep(Duration::from_secs(1));
        stage.server.signal(Signal::STOP)?;
        std::thread::sleep(pause);
        stage.server.signal(Signal::CONT)?;
        stage.wait_until_subscribed(Duration::from_secs(60))?;
    }
    std::thread::sleep(Duration::from_secs(1));
    let tally = publishers.stop()?;
    stage.findings.tell(format!("stopped    for {pause:?}; {tally:?}"));
    stage.finish()
}
