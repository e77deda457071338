//! The long run of a cluster: all its faults, in any order, under load all the while.

use std::time::{Duration, Instant};

use anyhow::Result;
use tidewire_bench::random::Random;

use super::{Nodes, PATIENCE, Size, churn, finish, open, publish};
use crate::check::Report;
use crate::cluster::NODES;
use crate::stage::Options;

pub fn run(options: &Options, limit: Duration) -> Result<Report> {
    let node_timeout = Duration::from_secs(4);
    let size = Size { observers: options.pick(60, 300), node_timeout, ..Size::SMALL };
    let mut stage = open("cluster-soak", options, &size)?;
    stage.late = "{\"count\":2000}";
    let publishers = publish(&stage, options.pick(150.0, 400.0))?;
    let (began, mut random, mut faults) = (Instant::now(), Random::new(17), [0_u32; 6]);
    while began.elapsed() < limit {
        std::thread::sleep(Duration::from_millis(500 + random.below(2_500) as u64));
        stage.sample();
        let fault = random.below(faults.len());
        faults[fault] += 1;
        play(&mut stage, fault, node_timeout, &mut random)?;
    }
    let took = began.elapsed().as_secs_f64();
    let [kills, stops, cuts, rolls, restarts, churns] = faults;
    let received = stage.received();
    let tally = publishers.stop()?;
    stage.wait_until_subscribed(PATIENCE)?;
    stage.findings.tell(format!(
        "faults     {kills} kill -9, {stops} SIGSTOP, {cuts} cuts from Redis, {rolls} SIGTERM, {restarts} restarts of \
         Redis, {churns} cuts of a part of the clients in {took:.0} s"
    ));
    stage.findings.tell(format!("load       {:.0} deliveries/s; {tally:?}", received as f64 / took));
    finish(stage, |_| true)
}

fn play(stage: &mut Nodes, fault: usize, node_timeout: Duration, random: &mut Random) -> Result<()> {
    let node = random.below(NODES);
    let pause = node_timeout.mul_f64(random.below(150) as f64 / 100.0);
    match fault {
        0 => stage.server.kill(node, pause),
        1 => stage.server.pause(node, pause),
        2 => {
            stage.server.cut(node, pause, random.below(2) == 0);
            Ok(())
        }
        3 => {
            let status = stage.server.roll(node)?;
            stage.findings.require(status == 0, || format!("exit status {status} after SIGTERM"));
            Ok(())
        }
        4 => stage.server.restart_redis(pause / 4),
        _ => {
            churn(stage, 1 + random.below(4));
            Ok(())
        }
    }
}
