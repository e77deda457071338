//! How long an event is under way while the server is moderately busy.

use anyhow::{Context, Result};

use super::{DATA_BYTES, PUBLISHERS};
use crate::control::Expected;
use crate::field::{Channels, Field};
use crate::pace::Pace;
use crate::publisher::Publisher;
use crate::report::Row;
use crate::subject::Subject;
use crate::suite::Setup;

/// Connections, channels and triggers a second.
const LOADS: [(usize, usize, f64); 2] = [(1_000, 1, 10.0), (10_000, 1_000, 500.0)];

pub fn run(setup: &Setup) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for subject in setup.subjects()? {
        for load in LOADS {
            rows.extend(measure(setup, &subject, load).with_context(|| subject.trouble())?);
        }
    }
    Ok(rows)
}

fn measure(setup: &Setup, subject: &Subject, load: (usize, usize, f64)) -> Result<[Row; 2]> {
    let (connections, count, per_second) = load;
    let channels = Channels { prefix: "latency-", count };
    let mut field = Field::new()?;
    field.open(subject.address, connections, channels.dialect(&subject.app))?;
    let mut publisher = Publisher::connect(subject.address, PUBLISHERS)?;
    field.start_timing()?;
    let pace = Pace { per_second, seconds: setup.plan.latency_seconds, data_bytes: DATA_BYTES };
    let published = pace.run(&mut publisher, &subject.app, channels)?;
    let members = (connections / count) as u64;
    field.wait(published.per_channel.iter().sum::<u64>() * members)?;
    let latency = field.stop_timing()?;
    field.verify(Expected::PerChannel(published.per_channel))?;
    let what = format!("publish → receive, {count} × {members} subscribers, {per_second} triggers/s");
    let row = |name: &str, microseconds: u64| {
        Row::single(format!("{what}, {name}"), &subject.name, microseconds as f64 / 1000.0, "ms")
    };
    Ok([row("p50", latency.p50), row("p99", latency.p99)])
}
