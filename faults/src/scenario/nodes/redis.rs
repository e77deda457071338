//! A Redis that is away and comes back: with all it had, without its last second, or without anything.

use std::time::Duration;

use anyhow::Result;

use super::{PATIENCE, Size, churn, finish, open, publish, stored};
use crate::check::Report;
use crate::redis::{Form, Loss};
use crate::stage::Options;

pub fn run(options: &Options, loss: Loss) -> Result<Report> {
    let node_timeout = Duration::from_secs(3);
    let size =
        Size { observers: options.pick(30, 60), node_timeout, redis: Form::Alone(loss), ..Size::SMALL };
    let name = match loss {
        Loss::Nothing => "cluster-redis-restart",
        Loss::Second => "cluster-redis-crash",
        Loss::Everything => "cluster-redis-forgets",
    };
    let mut stage = open(name, options, &size)?;
    let publishers = publish(&stage, 150.0)?;
    // The last is away for longer than any lease.
    let pauses = options.pick(&[300, 4_500][..], &[300, 2_000, 0, 4_500, 1_000, 20_000][..]);
    for pause in pauses {
        std::thread::sleep(Duration::from_secs(1));
        churn(&mut stage, 7);
        stage.server.restart_redis(Duration::from_millis(*pause))?;
        let before = publishers.stored();
        stage.wait("messages to be stored again", PATIENCE, |_| publishers.stored() > before + 50)?;
        stage.wait_until_subscribed(PATIENCE)?;
    }
    let tally = publishers.stop()?;
    stage.findings.tell(format!("restarts   {} of Redis; {tally:?}", pauses.len()));
    let channels = stored(&stage) as u64;
    finish(stage, |report| {
        let resets = report.resyncs.iter().filter(|(reason, _)| reason.starts_with("stream_reset"));
        loss != Loss::Everything || resets.map(|(_, count)| *count).sum::<u64>() >= channels
    })
}
