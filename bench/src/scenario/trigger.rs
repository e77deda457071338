//! What a signed trigger costs that nobody receives.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{DATA_BYTES, PUBLISHERS};
use crate::answer::Answering;
use crate::api::{App, Event};
use crate::payload;
use crate::procfs;
use crate::publisher::Publisher;
use crate::report::{Mark, Row};
use crate::rounds::Rounds;
use crate::subject::Subject;
use crate::suite::Setup;

/// What a server answers at the least.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\
                        date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n{}";

pub fn run(setup: &Setup) -> Result<Vec<Row>> {
    let subjects = setup.subjects()?;
    let answering = Answering::start(&[ANSWER.to_vec()])?;
    let count = setup.plan.triggers;
    let mut sequence = 0;
    let limit = subjects.len();
    let rounds = Rounds::run(setup.plan.rounds, limit + 1, |contender| {
        let subject = subjects.get(contender);
        let calls = calls(&subject.unwrap_or(&subjects[0]).app, count, &mut sequence);
        let address = subject.map_or(answering.address, |subject| subject.address);
        let spent = || subject.map_or_else(|| procfs::cpu(&[answering.pid()]), Subject::cpu);
        // New connections: between two rounds a server may have closed what was idle.
        let mut publisher = Publisher::connect(address, PUBLISHERS)?;
        let before = spent()?;
        for call in &calls {
            publisher.send(call)?;
        }
        publisher.finish()?;
        std::thread::sleep(Duration::from_millis(5));
        Ok((spent()? - before).as_secs_f64() * 1e6 / count as f64)
    })
    .with_context(|| subjects[0].trouble())?;
    let row = |(index, subject): (usize, &Subject)| {
        Row::median("signed trigger over keep-alive, no subscribers", &subject.name, &rounds, index, "CPU µs")
            .against("bare, read and canned answer", &rounds, index, limit)
            .mark(Mark::Figure { at_most: 20.0 }, subject.ours)
    };
    Ok(subjects.iter().enumerate().map(row).collect())
}

/// Signed beforehand, so that they come as fast as they are taken.
fn calls(app: &App, count: usize, sequence: &mut u64) -> Vec<Vec<u8>> {
    let call = |number| {
        let data = payload::data(number, Duration::ZERO, DATA_BYTES);
        app.trigger(&Event { name: payload::EVENT, channel: "nobody", data: &data })
    };
    let first = *sequence;
    *sequence += count as u64;
    (first..*sequence).map(call).collect()
}
