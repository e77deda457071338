//! A node that does not reach Redis: for a moment, for longer than its lease, or with a connection that is half open.

use std::time::Duration;

use anyhow::Result;

use super::{PATIENCE, Size, churn, finish, open, publish};
use crate::check::Report;
use crate::cluster::NODES;
use crate::stage::Options;

/// What is over before the lease is, nobody hears of.
pub fn run(options: &Options) -> Result<Report> {
    let rounds = options.pick(1, 6);
    let node_timeout = Duration::from_secs(options.pick(5, 7));
    let moment = Duration::from_millis(options.pick(1_200, 2_000));
    let long = node_timeout + Duration::from_secs(1);
    let size = Size { observers: options.pick(30, 60), node_timeout, ..Size::SMALL };
    let mut stage = open("cluster-cut", options, &size)?;
    let publishers = publish(&stage, 150.0)?;
    let ways = [(moment, false), (long, false), (long, true), (moment, true)];
    for round in 0..rounds {
        for (number, (pause, is_held)) in ways.iter().enumerate() {
            std::thread::sleep(Duration::from_millis(500));
            churn(&mut stage, 7);
            stage.server.cut((round + number) % NODES, *pause, *is_held);
            if number != 1 {
                stage.wait_until_subscribed(PATIENCE)?;
            }
        }
    }
    std::thread::sleep(Duration::from_secs(1));
    let tally = publishers.stop()?;
    stage
        .findings
        .tell(format!("cut off    {rounds} x {moment:?} and {long:?}, cut and half open; {tally:?}"));
    stage.wait_until_subscribed(PATIENCE)?;
    finish(stage, |_| true)
}
