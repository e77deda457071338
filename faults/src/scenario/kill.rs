//! `kill -9` in the middle of publishing, again and again.

use std::time::Duration;

use anyhow::Result;
use tidewire_bench::random::Random;

use crate::check::{Expect, Report};
use crate::stage::{Options, Stage, keep_all, mixed_channels, setup};

/// Messages that must be stored between two kills.
const PROGRESS: u64 = 50;

/// Everybody comes back by replay: nothing is lost, twice, out of order, and nobody is told to start over.
pub fn run(options: &Options, times: Option<usize>) -> Result<Report> {
    let times = times.unwrap_or(options.pick(5, 50));
    let mut stage = Stage::open("kill", options, setup(keep_all()), Expect::default(), mixed_channels(10))?;
    let observers = options.pick(24, 100);
    let plan = |number: usize| {
        let mut plan = stage.plan("o", number, 3);
        plan.talks_every = number.is_multiple_of(6).then_some(Duration::from_millis(150));
        plan
    };
    stage.watch((0..observers).map(plan).collect())?;
    let publishers = stage.publish("p", &stage.load(8, 60), &stage.sockets())?;
    let mut random = Random::new(1);
    for number in 0..times {
        let before = publishers.stored();
        stage.wait("messages to be stored", Duration::from_secs(60), |_| {
            publishers.stored() >= before + PROGRESS
        })?;
        std::thread::sleep(Duration::from_millis(random.below(400) as u64));
        stage.server.kill()?;
        if number % 4 == 3 {
            // Once more, while it reads what the first one left.
            stage.server.spawn()?;
            std::thread::sleep(Duration::from_millis(random.below(40) as u64));
            stage.server.kill()?;
        }
        stage.server.start()?;
        // Every second time they are still catching up at the next kill.
        if number.is_multiple_of(2) {
            stage.wait_until_subscribed(Duration::from_secs(60))?;
        }
    }
    stage.wait_until_subscribed(Duration::from_secs(60))?;
    let tally = publishers.stop()?;
    stage.findings.tell(format!("kills      {times}; {tally:?}"));
    stage.finish()
}
