//! SIGSTOP: a node that the others take for dead, and that goes on.

use std::time::Duration;

use anyhow::Result;

use super::{PATIENCE, Size, churn, finish, open, publish};
use crate::check::Report;
use crate::cluster::NODES;
use crate::stage::Options;

/// A part of its clients wait, the others go elsewhere.
pub fn run(options: &Options) -> Result<Report> {
    let times = options.pick(2_usize, 12);
    let node_timeout = Duration::from_secs(3);
    let size = Size { observers: options.pick(30, 60), node_timeout, ..Size::SMALL };
    let mut stage = open("cluster-stop", options, &size)?;
    let publishers = publish(&stage, 150.0)?;
    for number in 0..times {
        std::thread::sleep(Duration::from_millis(700));
        churn(&mut stage, 7);
        let pause =
            node_timeout + Duration::from_millis(if number.is_multiple_of(2) { 1_000 } else { 4_000 });
        stage.server.pause(number % NODES, pause)?;
        stage.wait_until_subscribed(PATIENCE)?;
    }
    let tally = publishers.stop()?;
    stage.findings.tell(format!("stopped    {times} times for longer than {node_timeout:?}; {tally:?}"));
    finish(stage, |_| true)
}
