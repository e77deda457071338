//! The long run: millions of deliveries, with faults all the while, every one of them checked.

use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::process::Signal;
use tidewire_bench::random::Random;

use crate::check::{Expect, Report};
use crate::publisher::Load;
use crate::stage::{Options, Stage, keep_all, mixed_channels, setup};

pub fn run(options: &Options, deliveries: u64, limit: Duration) -> Result<Report> {
    let mut stage = Stage::open("soak", options, setup(keep_all()), Expect::default(), mixed_channels(20))?;
    stage.late = "{\"count\":2000}";
    let plan = |number: usize| {
        let mut plan = stage.plan("o", number, 2);
        plan.talks_every = number.is_multiple_of(50).then_some(Duration::from_secs(1));
        plan
    };
    stage.watch((0..600).map(plan).collect())?;
    let load = Load { per_second: 800.0, ..stage.load(8, 40) };
    let publishers = stage.publish("p", &load, &stage.sockets())?;
    let (began, mut random, mut faults) = (Instant::now(), Random::new(3), [0u32; 6]);
    while stage.received() < deliveries && began.elapsed() < limit {
        std::thread::sleep(Duration::from_millis(1500 + random.below(3000) as u64));
        stage.sample();
        let fault = random.below(faults.len());
        faults[fault] += 1;
        play(&mut stage, fault, &mut random)?;
    }
    let took = began.elapsed().as_secs_f64();
    let [kills, terms, stops, cuts, repairs, flaps] = faults;
    let received = stage.received();
    stage.wait_until_subscribed(Duration::from_secs(60))?;
    let tally = publishers.stop()?;
    stage.findings.tell(format!(
        "faults     {kills} kill -9, {terms} SIGTERM, {stops} SIGSTOP, {cuts} cuts of a part of the clients, \
         {repairs} repairs and {flaps} flaps of a part in {took:.0} s"
    ));
    stage.findings.tell(format!("load       {:.0} deliveries/s; {tally:?}", received as f64 / took));
    stage.findings.require(received >= deliveries, || format!("{received} of {deliveries} deliveries"));
    stage.finish()
}

fn play(stage: &mut Stage, fault: usize, random: &mut Random) -> Result<()> {
    let every = 1 + random.below(4);
    match fault {
        0 => {
            stage.server.kill()?;
            stage.server.start()?;
        }
        1 => {
            stage.server.signal(Signal::TERM)?;
            stage.server.wait(Duration::from_secs(30))?;
            stage.server.start()?;
        }
        2 => {
            stage.server.signal(Signal::STOP)?;
            std::thread::sleep(Duration::from_millis(200 + random.below(1500) as u64));
            stage.server.signal(Signal::CONT)?;
        }
        3 => stage.crowds[0].cut(every),
        4 => stage.crowds[0].repair(every),
        _ => stage.crowds[0].flap(every),
    }
    Ok(())
}
