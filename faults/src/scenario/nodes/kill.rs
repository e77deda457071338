//! `kill -9` of each node in turn.

use std::time::Duration;

use anyhow::Result;
use tidewire_bench::random::Random;

use super::{PATIENCE, Size, churn, finish, open, publish};
use crate::check::Report;
use crate::cluster::NODES;
use crate::stage::Options;

/// Every second node is back before the others know that it was away, and meets what it held under its old name.
pub fn run(options: &Options, times: Option<usize>) -> Result<Report> {
    let times = times.unwrap_or(options.pick(4, 100));
    let node_timeout = Duration::from_secs(3);
    let size = Size { observers: options.pick(30, 60), node_timeout, ..Size::SMALL };
    let mut stage = open("cluster-kill", options, &size)?;
    let publishers = publish(&stage, 150.0)?;
    let mut random = Random::new(11);
    for number in 0..times {
        std::thread::sleep(Duration::from_millis(300 + random.below(700) as u64));
        churn(&mut stage, 7);
        let away = if number.is_multiple_of(2) { Duration::ZERO } else { node_timeout };
        stage.server.kill(number % NODES, away + Duration::from_millis(random.below(500) as u64))?;
        if number % 3 != 1 {
            stage.wait_until_subscribed(PATIENCE)?;
        }
    }
    let tally = publishers.stop()?;
    stage.findings.tell(format!("kills      {times}; {tally:?}"));
    stage.wait_until_subscribed(PATIENCE)?;
    finish(stage, |_| true)
}
