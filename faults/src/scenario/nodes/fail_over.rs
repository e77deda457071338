//! Another master: by Sentinel, or in a Redis Cluster.
//!
//! Replication is asynchronous. What was acknowledged last may be gone, and who had seen it is told.

use std::time::Duration;

use anyhow::Result;

use super::{CALM, PATIENCE, Size, churn, finish, open, publish, sockets};
use crate::check::Report;
use crate::redis::{Change, Form};
use crate::stage::Options;

pub fn run(options: &Options, form: Form) -> Result<Report> {
    let size = Size { observers: options.pick(30, 60), redis: form, ..Size::SMALL };
    let name = if form == Form::Sentinel { "cluster-sentinel" } else { "cluster-masters" };
    let mut stage = open(name, options, &size)?;
    let publishers = publish(&stage, 150.0)?;
    for round in 0..options.pick(2, 8) {
        let how = if round % 2 == 0 { Change::Killed } else { Change::Ordered };
        churn(&mut stage, 7);
        stage.wait_until_subscribed(PATIENCE)?;
        let before = sockets(&stage);
        stage.server.change_master(round, how)?;
        let stored = publishers.stored();
        stage.wait("messages to be stored again", PATIENCE, |_| publishers.stored() > stored + 50)?;
        std::thread::sleep(CALM);
        let stayed = before == sockets(&stage);
        stage.findings.require(stayed, || format!("clients lost their connection when a master was {how:?}"));
        stage.server.redis.mend()?;
        std::thread::sleep(Duration::from_secs(1));
    }
    let tally = publishers.stop()?;
    stage.findings.tell(format!("load       {tally:?}"));
    stage.wait_until_subscribed(PATIENCE)?;
    finish(stage, |_| true)
}
