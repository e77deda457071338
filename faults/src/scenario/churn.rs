//! No fault of the server's: clients that come, go, ask again and talk, all at once, on every kind of channel.

use std::time::{Duration, Instant};

use anyhow::Result;
use tidewire_bench::random::Random;

use crate::check::{Expect, Report};
use crate::publisher::Load;
use crate::stage::{Options, Stage, keep_all, mixed_channels, setup};

pub fn run(options: &Options) -> Result<Report> {
    let mut stage = Stage::open("churn", options, setup(keep_all()), Expect::default(), mixed_channels(10))?;
    let plan = |number: usize| {
        let mut plan = stage.plan("o", number, 3);
        plan.talks_every = number.is_multiple_of(4).then_some(Duration::from_millis(300));
        plan
    };
    stage.watch((0..options.pick(40, 120)).map(plan).collect())?;
    let load = Load { per_second: 1000.0, ..stage.load(8, 100) };
    let publishers = stage.publish("p", &load, &stage.sockets())?;
    let (began, mut random, mut orders) = (Instant::now(), Random::new(9), [0u32; 3]);
    while began.elapsed() < Duration::from_secs(options.pick(5, 60)) {
        std::thread::sleep(Duration::from_millis(20 + random.below(200) as u64));
        let (order, every) = (random.below(orders.len()), 1 + random.below(4));
        orders[order] += 1;
        match order {
            0 => stage.crowds[0].cut(every),
            1 => stage.crowds[0].repair(every),
            _ => stage.crowds[0].flap(every),
        }
        stage.server.is_alive()?;
        stage.sample();
    }
    let tally = publishers.stop()?;
    let [cuts, repairs, flaps] = orders;
    stage.findings.tell(format!("orders     {cuts} cuts, {repairs} repairs, {flaps} flaps; {tally:?}"));
    stage.wait_until_subscribed(Duration::from_secs(60))?;
    stage.finish()
}
