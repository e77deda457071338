//! A rolling restart: SIGTERM for one node after the other.

use std::time::Instant;

use anyhow::Result;

use super::{PATIENCE, Size, finish, open, publish};
use crate::check::Report;
use crate::cluster::NODES;
use crate::stage::Options;

pub fn run(options: &Options) -> Result<Report> {
    let rounds = options.pick(1, 5);
    let node_timeout = std::time::Duration::from_secs(3);
    let size = Size { observers: options.pick(60, 400), node_timeout, ..Size::SMALL };
    let mut stage = open("cluster-drain", options, &size)?;
    let publishers = publish(&stage, 150.0)?;
    for _ in 0..rounds {
        for node in 0..NODES {
            let began = Instant::now();
            let status = stage.server.roll(node)?;
            let took = began.elapsed().as_secs_f64();
            stage.findings.require(status == 0, || format!("exit status {status} after SIGTERM"));
            stage.wait_until_subscribed(PATIENCE)?;
            stage.findings.tell(format!(
                "rolled     node {node} in {took:.1} s, everybody back after {:.1} s",
                began.elapsed().as_secs_f64()
            ));
        }
    }
    let tally = publishers.stop()?;
    stage.findings.tell(format!("load       {tally:?}"));
    finish(stage, |_| true)
}
