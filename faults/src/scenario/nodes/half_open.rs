//! A connection to Redis that is dead, and nobody was told.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{CALM, PATIENCE, Size, finish, open, publish, sockets};
use crate::check::Report;
use crate::cluster::{NODES, Outage};
use crate::stage::Options;

const RECONNECTS: &str = "tidewire_fanout_reconnects_total";
/// A ping each second, and three to answer it, on a busy machine.
const MAX_NOTICE: Duration = Duration::from_secs(8);

/// What a node says into its connection, and what Redis says, is swallowed from then on: only silence tells.
pub fn run(options: &Options) -> Result<Report> {
    let node_timeout = Duration::from_secs(7);
    let size = Size { observers: options.pick(30, 60), node_timeout, ..Size::SMALL };
    let mut stage = open("cluster-half-open", options, &size)?;
    let publishers = publish(&stage, 150.0)?;
    for round in 0..options.pick(2, 12) {
        stage.wait_until_subscribed(PATIENCE)?;
        let connected = sockets(&stage);
        // One after the other, and all at once.
        let is_all = round % 2 == 1;
        let nodes = if is_all { 0..NODES } else { round % NODES..round % NODES + 1 };
        let before = nodes.clone().map(|node| stage.server.nodes[node].server.metric(RECONNECTS));
        let before = before.collect::<Result<Vec<_>>>()?;
        let outages: Vec<Outage> =
            nodes.clone().map(|node| stage.server.begin("swallow", Some(node))).collect();
        let began = Instant::now();
        stage.server.swallow(nodes.clone());
        stage.wait("a dead connection to be replaced", PATIENCE, |stage| {
            nodes.clone().zip(&before).all(|(node, before)| {
                let server = &stage.server.nodes[node].server;
                server.metric(RECONNECTS).is_ok_and(|after| after > *before)
                    && server.metric("tidewire_fanout_connected").is_ok_and(|connected| connected > 0.0)
            })
        })?;
        let took = began.elapsed();
        outages.into_iter().for_each(|outage| stage.server.end(outage));
        stage.findings.tell(format!("swallowed  {nodes:?} connected anew after {:.1} s", took.as_secs_f64()));
        stage.findings.require(took < MAX_NOTICE, || format!("{nodes:?} took {took:?} to notice"));
        std::thread::sleep(CALM + Duration::from_secs(1));
        let stayed = connected == sockets(&stage);
        stage.findings.require(stayed, || format!("clients lost their connection with {nodes:?}"));
    }
    let tally = publishers.stop()?;
    stage.findings.tell(format!("load       {tally:?}"));
    finish(stage, |_| true)
}
