//! One channel with many subscribers, and a given number of events waiting to be delivered.

use std::time::Duration;

use anyhow::{Context, Result};

use super::DATA_BYTES;
use crate::api::Event;
use crate::control::{BareCommand, Expected, Open};
use crate::field::{BareField, Channels, Field, IN_FLIGHT};
use crate::payload;
use crate::publisher::Publisher;
use crate::report::{Mark, Row};
use crate::rounds::Rounds;
use crate::subject::Subject;
use crate::suite::Setup;

const CHANNEL: Channels<'_> = Channels { prefix: "fan-out-", count: 1 };

/// How the pending events get to the server at once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Burst {
    /// In one batch call (several, pipelined, where the server allows only smaller ones).
    Batch,
    /// As triggers written behind each other on one connection.
    Pipelined,
}

/// The subscribers of one server.
struct Crowd {
    subject: Subject,
    field: Field,
    subscribers: usize,
    sequence: u64,
    /// A frame as the server wrote it.
    last_event: Option<String>,
}

pub fn run(setup: &Setup) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for subscribers in setup.plan.fan_outs {
        let subjects = setup.subjects()?.into_iter();
        let mut crowds: Vec<Crowd> =
            subjects.map(|subject| Crowd::gather(subject, *subscribers)).collect::<Result<_>>()?;
        let mut bare = BareField::open(setup.workers, *subscribers)?;
        rows.extend(one_pending(setup, &mut crowds, &mut bare)?);
        for pending in [16, 64] {
            rows.extend(several_pending(setup, &mut crowds, &mut bare, pending)?);
        }
    }
    Ok(rows)
}

fn one_pending(setup: &Setup, crowds: &mut [Crowd], bare: &mut BareField) -> Result<Vec<Row>> {
    let subscribers = crowds[0].subscribers;
    let bursts = (setup.plan.sends / subscribers).max(1);
    let text = crowds[0].frame()?;
    let limit = crowds.len();
    let rounds = Rounds::run(setup.plan.rounds, limit + 1, |contender| match crowds.get_mut(contender) {
        Some(crowd) => crowd.round(bursts, 1, Burst::Pipelined),
        None => bare_round(bare, &text, bursts, 1, false),
    })?;
    let row = |(index, crowd): (usize, &Crowd)| {
        let what = format!("fan-out to {subscribers}, 1 pending");
        Row::median(what, &crowd.subject.name, &rounds, index, "µs/delivery")
            .against("bare, one send each", &rounds, index, limit)
            .mark(Mark::Ratio { at_most: 1.1 }, crowd.subject.ours)
    };
    Ok(crowds.iter().enumerate().map(row).collect())
}

fn several_pending(
    setup: &Setup,
    crowds: &mut [Crowd],
    bare: &mut BareField,
    pending: usize,
) -> Result<Vec<Row>> {
    let subscribers = crowds[0].subscribers;
    // As many calls of send() for everybody who merges; those who do not get fewer bursts of as many calls.
    let bursts = (setup.plan.sends / 2 / subscribers).max(1);
    // Of one send each the price does not depend on how many follow: 16 show it as well as 64.
    let copies = pending.min(16);
    let bursts_one_by_one = (setup.plan.sends / subscribers / copies).max(1);
    let text = crowds[0].frame()?;
    let count = crowds.len();
    let (joined, one_by_one) = (2 * count, 2 * count + 1);
    let rounds = Rounds::run(setup.plan.rounds, 2 * count + 2, |contender| match contender {
        contender if contender < 2 * count => {
            let burst = if contender < count { Burst::Batch } else { Burst::Pipelined };
            let crowd = &mut crowds[contender % count];
            let bursts = if crowd.subject.ours { bursts } else { bursts_one_by_one };
            crowd.round(bursts, pending, burst)
        }
        contender if contender == joined => bare_round(bare, &text, bursts, pending, true),
        _ => bare_round(bare, &text, bursts_one_by_one, copies, false),
    })?;
    let mut rows = Vec::new();
    for (index, crowd) in crowds.iter().enumerate() {
        let subject = &crowd.subject;
        let row = |how: &str, contender| {
            let what = format!("fan-out to {subscribers}, {pending} pending ({how})");
            Row::median(what, &subject.name, &rounds, contender, "µs/delivery")
        };
        let in_one = row("one batch", index).against("bare, all in one send", &rounds, index, joined);
        rows.push(in_one.mark(Mark::Ratio { at_most: 1.2 }, subject.ours));
        let single = row("one batch", index).against("bare, one send each", &rounds, index, one_by_one);
        rows.push(single.mark(Mark::Ratio { at_most: 0.15 }, subject.ours));
        let piped = row("pipelined triggers", count + index);
        rows.push(piped.against("bare, all in one send", &rounds, count + index, joined));
    }
    Ok(rows)
}

fn bare_round(bare: &mut BareField, text: &str, bursts: usize, copies: usize, joined: bool) -> Result<f64> {
    let order = BareCommand::Send { text: text.to_owned(), copies, joined };
    let (mut microseconds, mut frames) = (0.0, 0);
    for _ in 0..bursts {
        let sent = bare.send(&order, frames)?;
        microseconds += sent.microseconds;
        frames += sent.frames;
    }
    bare.verify(Expected::Each((bursts * copies) as u64))?;
    Ok(microseconds / frames as f64)
}

impl Crowd {
    fn gather(subject: Subject, subscribers: usize) -> Result<Self> {
        let mut field = Field::new()?;
        let open = Open {
            address: subject.address,
            count: subscribers,
            in_flight: IN_FLIGHT,
            first: 0,
            dialect: CHANNEL.dialect(&subject.app),
            ordered: true,
        };
        field.open_as(open).with_context(|| subject.trouble())?;
        Ok(Crowd { subject, field, subscribers, sequence: 0, last_event: None })
    }

    /// A frame as the server writes it: what the bare loop repeats.
    fn frame(&mut self) -> Result<String> {
        self.round(1, 1, Burst::Pipelined)?;
        self.last_event.clone().context("no frame was sampled")
    }

    /// CPU microseconds the server spends on a delivery, the triggers included.
    fn round(&mut self, bursts: usize, pending: usize, burst: Burst) -> Result<f64> {
        self.measure(bursts, pending, burst).with_context(|| self.subject.trouble())
    }

    fn measure(&mut self, bursts: usize, pending: usize, burst: Burst) -> Result<f64> {
        let prepared: Vec<(Vec<u8>, usize)> = (0..bursts).map(|_| self.calls(pending, burst)).collect();
        let mut received = 0;
        // A new connection: between two rounds a server may have closed what was idle.
        let mut publisher = Publisher::connect(self.subject.address, 1)?;
        let before = self.subject.cpu()?;
        for (calls, count) in &prepared {
            publisher.pipeline(calls, *count)?;
            received += (pending * self.subscribers) as u64;
            self.field.wait(received)?;
        }
        let spent = self.subject.cpu()? - before;
        self.last_event =
            self.field.verify(Expected::Each((bursts * pending) as u64))?.or(self.last_event.take());
        Ok(spent.as_secs_f64() * 1e6 / received as f64)
    }

    /// The HTTP requests of one burst behind each other, and their number.
    fn calls(&mut self, pending: usize, burst: Burst) -> (Vec<u8>, usize) {
        let channel = CHANNEL.name(0);
        let data: Vec<String> = (0..pending)
            .map(|_| {
                self.sequence += 1;
                payload::data(self.sequence, Duration::ZERO, DATA_BYTES)
            })
            .collect();
        let events: Vec<Event<'_>> =
            data.iter().map(|data| Event { name: payload::EVENT, channel: &channel, data }).collect();
        let app = &self.subject.app;
        let calls: Vec<Vec<u8>> = match burst {
            Burst::Pipelined => events.iter().map(|event| app.trigger(event)).collect(),
            Burst::Batch => events.chunks(self.subject.max_batch).map(|events| app.batch(events)).collect(),
        };
        (calls.concat(), calls.len())
    }
}
