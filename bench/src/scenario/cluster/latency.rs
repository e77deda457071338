//! How much later an event arrives on another node than on the one it was published on.

use std::net::SocketAddr;

use anyhow::{Context, Result};

use super::Nodes;
use crate::api::App;
use crate::control::Expected;
use crate::field::{Channels, Field};
use crate::pace::Pace;
use crate::publisher::Publisher;
use crate::redis::Redis;
use crate::report::{Mark, Row};
use crate::rounds::Rounds;
use crate::scenario::{DATA_BYTES, PUBLISHERS};
use crate::suite::Setup;

const CONNECTIONS: usize = 10_000;
const CHANNELS: usize = 1_000;
const MEMBERS: usize = CONNECTIONS / CHANNELS;
const TRIGGERS_PER_SECOND: f64 = 500.0;

/// Where it is published and who receives it.
struct Way {
    publish: SocketAddr,
    app: App,
    channels: Channels<'static>,
    field: Field,
}

pub fn run(setup: &Setup) -> Result<Vec<Row>> {
    let redis = Redis::start()?;
    let alone = Nodes::alone(setup, &[])?;
    let cluster = Nodes::on(&redis, "latency", 2, setup, &[])?;
    measure(setup, &alone, &cluster).with_context(|| format!("{}\n{}", alone.trouble(), cluster.trouble()))
}

fn measure(setup: &Setup, alone: &Nodes, cluster: &Nodes) -> Result<Vec<Row>> {
    let [from, to] = [cluster.addresses()[0], cluster.addresses()[1]];
    let mut ways = [
        Way::open(alone, alone.addresses()[0], alone.addresses()[0], "alone-")?,
        Way::open(cluster, from, from, "near-")?,
        Way::open(cluster, from, to, "far-")?,
    ];
    // Each is many seconds long.
    let count = (setup.plan.rounds / 3).max(2);
    let rounds = Rounds::run_several(count, ways.len(), |way| ways[way].round(setup))?;
    let mut rows = Vec::new();
    for (quantile, rounds) in ["p50", "p99"].into_iter().zip(&rounds) {
        for (way, what) in [(1, "on the same node of a cluster"), (2, "on another node")] {
            let what = format!(
                "cluster: publish → receive {what}, {CHANNELS} × {MEMBERS} subscribers, {TRIGGERS_PER_SECOND} triggers/s, {quantile}"
            );
            let row = Row::median(what, "tidewire", rounds, way, "ms");
            rows.push(row.against("one node without Redis", rounds, way, 0));
        }
        let what = format!("…on another node more than on one without Redis, {quantile}");
        let more = Row::of(what, "tidewire", rounds.differences(2, 0), "ms");
        rows.push(more.mark(Mark::Figure { at_most: 1.0 }, quantile == "p50"));
    }
    Ok(rows)
}

impl Way {
    fn open(nodes: &Nodes, publish: SocketAddr, receive: SocketAddr, prefix: &'static str) -> Result<Self> {
        let channels = Channels { prefix, count: CHANNELS };
        let mut field = Field::new()?;
        let app = nodes.app().clone();
        field.open(receive, CONNECTIONS, channels.dialect(&app))?;
        Ok(Way { publish, app, channels, field })
    }

    /// Milliseconds: p50 and p99.
    fn round(&mut self, setup: &Setup) -> Result<[f64; 2]> {
        let mut publisher = Publisher::connect(self.publish, PUBLISHERS)?;
        self.field.start_timing()?;
        let pace = Pace {
            per_second: TRIGGERS_PER_SECOND,
            seconds: setup.plan.latency_seconds,
            data_bytes: DATA_BYTES,
        };
        let published = pace.run(&mut publisher, &self.app, self.channels)?;
        self.field.wait(published.per_channel.iter().sum::<u64>() * MEMBERS as u64)?;
        let latency = self.field.stop_timing()?;
        self.field.verify(Expected::PerChannel(published.per_channel))?;
        Ok([latency.p50, latency.p99].map(|microseconds| microseconds as f64 / 1000.0))
    }
}
