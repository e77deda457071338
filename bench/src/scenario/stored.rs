//! What it costs that a message is stored before it is delivered, and how long that takes.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::api::{App, Event};
use crate::control::Expected;
use crate::field::{Channels, Field};
use crate::pace::Pace;
use crate::payload;
use crate::publisher::Publisher;
use crate::random::Random;
use crate::report::{Mark, Row};
use crate::rounds::Rounds;
use crate::subject::Subject;
use crate::suite::{DURABILITY, Setup};

/// Bytes of event data: what a store writes weighs more than what it does for each message.
const DATA_BYTES: usize = 1024;
/// Keep-alive connections: as many triggers are under way at a time, and can share a commit.
const PUBLISHERS: usize = 64;
const STORED: Channels<'_> = Channels { prefix: "stored-", count: 1_000 };
const OTHERS: Channels<'_> = Channels { prefix: "plain-", count: 1_000 };
const TRIGGERS_PER_SECOND: f64 = 5_000.0;

pub fn run(setup: &Setup) -> Result<Vec<Row>> {
    let Some(storing) = setup.storing(DURABILITY)? else { return Ok(Vec::new()) };
    let mut rows = cost(setup, &storing).with_context(|| storing.trouble())?;
    for (what, channels) in [("not stored", OTHERS), ("stored", STORED)] {
        let measured = latency(setup, &storing, what, channels);
        let [p50, p99] = measured.with_context(|| storing.trouble())?;
        rows.extend([p50, p99.mark(Mark::Figure { at_most: 5.0 }, what == "stored")]);
    }
    if let Some(always) = setup.storing("always")? {
        let measured = latency(setup, &always, "stored and synced (durability always)", STORED);
        rows.extend(measured.with_context(|| always.trouble())?);
    }
    Ok(rows)
}

fn cost(setup: &Setup, storing: &Subject) -> Result<Vec<Row>> {
    let plain = setup.ours(&[])?;
    let contenders = [(&plain, OTHERS), (storing, OTHERS), (storing, STORED)];
    let mut random = Random::new(13);
    let rounds = Rounds::run(setup.plan.rounds, contenders.len(), |contender| {
        let (subject, channels) = contenders[contender];
        let calls = calls(&subject.app, channels, setup.plan.triggers, &mut random);
        let mut publisher = Publisher::connect(subject.address, PUBLISHERS)?;
        let before = subject.cpu()?;
        for call in &calls {
            publisher.send(call)?;
        }
        publisher.finish()?;
        Ok((subject.cpu()? - before).as_secs_f64() * 1e6 / setup.plan.triggers as f64)
    })?;
    let what = format!("signed trigger of 1 KB, {PUBLISHERS} at a time, no subscribers");
    let name = &storing.name;
    let unchanged = Row::median(format!("{what}, not stored"), name, &rounds, 1, "CPU µs");
    let stored = Row::median(format!("{what}, stored"), name, &rounds, 2, "CPU µs");
    let more = Row::of("…more than the same not stored", name, rounds.differences(2, 1), "CPU µs");
    Ok(vec![
        unchanged.against("server without replay", &rounds, 1, 0).mark(Mark::Ratio { at_most: 1.05 }, true),
        stored.against("not stored", &rounds, 2, 1),
        more.mark(Mark::Figure { at_most: 25.0 }, true),
    ])
}

/// Signed beforehand, so that they come as fast as they are taken.
fn calls(app: &App, channels: Channels<'_>, count: usize, random: &mut Random) -> Vec<Vec<u8>> {
    let call = |number| {
        let data = payload::data(number, Duration::ZERO, DATA_BYTES);
        let channel = channels.name(random.below(channels.count));
        app.trigger(&Event { name: payload::EVENT, channel: &channel, data: &data })
    };
    (1..=count as u64).map(call).collect()
}

fn latency(setup: &Setup, subject: &Subject, what: &str, channels: Channels<'_>) -> Result<[Row; 2]> {
    let mut field = Field::new()?;
    field.open(subject.address, channels.count, channels.dialect(&subject.app))?;
    let mut publisher = Publisher::connect(subject.address, PUBLISHERS)?;
    field.start_timing()?;
    let pace =
        Pace { per_second: TRIGGERS_PER_SECOND, seconds: setup.plan.latency_seconds, data_bytes: DATA_BYTES };
    let published = pace.run(&mut publisher, &subject.app, channels)?;
    field.wait(published.per_channel.iter().sum())?;
    let latency = field.stop_timing()?;
    field.verify(Expected::PerChannel(published.per_channel))?;
    let what = format!(
        "publish → receive, {} × 1 subscribers, {TRIGGERS_PER_SECOND} triggers/s of 1 KB, {what}",
        channels.count
    );
    let row = |name: &str, microseconds: u64| {
        Row::single(format!("{what}, {name}"), &subject.name, microseconds as f64 / 1000.0, "ms")
    };
    Ok([row("p50", latency.p50), row("p99", latency.p99)])
}
