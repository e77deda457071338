//! How much memory a stored channel needs that nothing happens on.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{DATA_BYTES, PUBLISHERS};
use crate::api::Event;
use crate::field::{Channels, Field};
use crate::payload;
use crate::publisher::Publisher;
use crate::report::Row;
use crate::subject::Subject;
use crate::suite::{DURABILITY, Setup};

const SETTLE: Duration = Duration::from_secs(2);
/// Published first, so that the caches of the store are full before anything is counted.
const WARM_UP: usize = 20_000;
const WARM: Channels<'_> = Channels { prefix: "stored-warm-", count: 64 };

pub fn run(setup: &Setup) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    if let Some(subject) = setup.storing(DURABILITY)? {
        rows.push(with_messages(setup, &subject).with_context(|| subject.trouble())?);
    }
    if let Some(subject) = setup.storing(DURABILITY)? {
        rows.push(with_subscribers(setup, &subject).with_context(|| subject.trouble())?);
    }
    Ok(rows)
}

/// Channels of one message each, which nobody is subscribed to.
fn with_messages(setup: &Setup, subject: &Subject) -> Result<Row> {
    let count = setup.plan.stored_channels;
    publish(subject, WARM, WARM_UP)?;
    std::thread::sleep(SETTLE);
    let before = subject.memory()?.anonymous;
    publish(subject, Channels { prefix: "stored-", count }, count)?;
    std::thread::sleep(SETTLE);
    let bytes = (subject.memory()?.anonymous as f64 - before as f64) / count as f64;
    Ok(Row::single("stored channel with messages, nobody subscribed", &subject.name, bytes, "bytes"))
}

/// Connections that asked for positions, each on a channel of its own.
fn with_subscribers(setup: &Setup, subject: &Subject) -> Result<Row> {
    let count = setup.plan.idle_connections;
    let replay = Some(serde_json::json!({ "v": 1 }));
    let mut first = Field::new()?;
    first.open(subject.address, WARM.count, WARM.replaying(&subject.app, replay.clone()))?;
    std::thread::sleep(SETTLE);
    let before = subject.memory()?.anonymous;
    let own = Channels { prefix: "private-stored-", count };
    let mut field = Field::new()?;
    field.open(subject.address, count, own.replaying(&subject.app, replay))?;
    std::thread::sleep(SETTLE);
    let bytes = (subject.memory()?.anonymous as f64 - before as f64) / count as f64;
    let what = "idle connection on a stored private channel of its own, with positions";
    Ok(Row::single(what, &subject.name, bytes, "bytes"))
}

fn publish(subject: &Subject, channels: Channels<'_>, count: usize) -> Result<()> {
    let mut publisher = Publisher::connect(subject.address, PUBLISHERS)?;
    for number in 0..count {
        let data = payload::data(number as u64 + 1, Duration::ZERO, DATA_BYTES);
        let channel = channels.name(number % channels.count);
        publisher.send(&subject.app.trigger(&Event {
            name: payload::EVENT,
            channel: &channel,
            data: &data,
        }))?;
    }
    publisher.finish()
}
