//! What it costs to send clients what they have missed.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::api::Event;
use crate::control::{Expected, Open};
use crate::field::{Channels, Field, IN_FLIGHT};
use crate::payload;
use crate::publisher::Publisher;
use crate::report::Row;
use crate::rounds::Rounds;
use crate::subject::Subject;
use crate::suite::{DURABILITY, Setup};

/// So that the end of the last round's connections is not counted in the next round.
const SETTLE: Duration = Duration::from_millis(300);
/// Missed messages that a channel's ring still has.
const FEW: u64 = 50;
/// …and that only the log has.
const MANY: u64 = 1_000;
/// Clients that each have missed other messages than the others.
const LONE: usize = 64;

/// Clients of which each has missed the same number of messages.
struct Case {
    what: String,
    channels: Channels<'static>,
    clients: usize,
    missed: u64,
    data_bytes: usize,
}

pub fn run(setup: &Setup) -> Result<Vec<Row>> {
    let returning = setup.plan.returning;
    let cases = [
        Case {
            what: format!("catch-up of {FEW} messages, {returning} clients of one channel (ring)"),
            channels: Channels { prefix: "stored-ring-", count: 1 },
            clients: returning,
            missed: FEW,
            data_bytes: super::DATA_BYTES,
        },
        Case {
            what: format!(
                "catch-up of {MANY} messages of 1 KB, {LONE} clients of one channel (pages in memory)"
            ),
            channels: Channels { prefix: "stored-shared-", count: 1 },
            clients: LONE,
            missed: MANY,
            data_bytes: 1024,
        },
        Case {
            what: format!("catch-up of {MANY} messages of 1 KB, {LONE} clients of {LONE} channels (log)"),
            channels: Channels { prefix: "stored-lone-", count: LONE },
            clients: LONE,
            missed: MANY,
            data_bytes: 1024,
        },
    ];
    let mut rows = Vec::new();
    for case in cases {
        let Some(subject) = setup.storing(DURABILITY)? else { break };
        rows.extend(case.measure(setup, &subject).with_context(|| subject.trouble())?);
    }
    Ok(rows)
}

impl Case {
    /// CPU of each message, beyond what the connection and its subscription cost.
    fn measure(&self, setup: &Setup, subject: &Subject) -> Result<[Row; 2]> {
        // Somebody stays, as in a herd that comes back bit by bit.
        let mut staying = Field::new()?;
        staying.open(subject.address, self.channels.count, self.channels.dialect(&subject.app))?;
        let resuming = match self.channels.count {
            1 => json!({ "v": 1, "from": position(subject, &self.channels.name(0))? }),
            // A position is of one channel.
            _ => json!({ "v": 1, "rewind": "earliest" }),
        };
        self.publish(subject)?;
        staying.wait(self.missed * self.channels.count as u64)?;
        let mut field = Field::new()?;
        let mut seconds = Vec::new();
        let rounds = Rounds::run(setup.plan.rounds, 2, |contender| {
            let replay = if contender == 0 { json!({ "v": 1 }) } else { resuming.clone() };
            let missed = if contender == 0 { 0 } else { self.missed };
            let before = subject.cpu()?;
            let begin = std::time::Instant::now();
            field.open_as(Open {
                address: subject.address,
                count: self.clients,
                in_flight: IN_FLIGHT,
                first: 0,
                dialect: self.channels.replaying(&subject.app, Some(replay)),
                ordered: true,
            })?;
            field.wait(missed * self.clients as u64)?;
            if contender == 1 {
                seconds.push(begin.elapsed().as_secs_f64());
            }
            let spent = subject.cpu()? - before;
            field.verify(Expected::Each(missed))?;
            field.close()?;
            std::thread::sleep(SETTLE);
            Ok(spent.as_secs_f64() * 1e6 / (self.missed * self.clients as u64) as f64)
        })?;
        let cost = rounds.differences(1, 0);
        let deliveries = (self.missed * self.clients as u64) as f64;
        // The first is the warm-up.
        let rate = seconds[1..].iter().map(|seconds| deliveries / seconds).collect();
        Ok([
            Row::of(&self.what, &subject.name, cost, "CPU µs/message"),
            Row::of(format!("{}, connecting included", self.what), &subject.name, rate, "messages/s"),
        ])
    }

    /// Every channel the same number of messages, in their order.
    fn publish(&self, subject: &Subject) -> Result<()> {
        let mut publisher = Publisher::connect(subject.address, 1)?;
        for channel in (0..self.channels.count).map(|index| self.channels.name(index)) {
            let data: Vec<String> = (1..=self.missed)
                .map(|number| payload::data(number, Duration::ZERO, self.data_bytes))
                .collect();
            for data in data.chunks(subject.max_batch) {
                let event = |data| Event { name: payload::EVENT, channel: &channel, data };
                let events: Vec<Event<'_>> = data.iter().map(|data| event(data)).collect();
                publisher.send(&subject.app.batch(&events))?;
            }
        }
        publisher.finish()
    }
}

/// Where a channel's log stands.
fn position(subject: &Subject, channel: &str) -> Result<String> {
    let mut publisher = Publisher::connect(subject.address, 1)?;
    let call = subject.app.request("GET", &format!("channels/{channel}"), &[("info", "position")]);
    let answer: serde_json::Value = serde_json::from_str(&publisher.ask(&call)?)?;
    Ok(answer["position"].as_str().context("no position")?.to_owned())
}
