//! Clients that talk to each other in small rooms.

use std::time::Duration;

use anyhow::{Context, Result};

use super::DATA_BYTES;
use super::chat::ROOMS;
use crate::control::{Chatter, Expected};
use crate::field::{BareField, Channels, Field, ROOM};
use crate::payload;
use crate::report::{Mark, Row};
use crate::rounds::Rounds;
use crate::subject::Subject;
use crate::suite::Setup;

const CHANNELS: Channels<'_> = Channels { prefix: "private-room-", count: ROOMS };
/// Events under way at a time, over all rooms.
const WINDOW: u64 = 64;

struct Rooms {
    subject: Subject,
    field: Field,
    seed: u64,
    last_event: Option<String>,
}

pub fn run(setup: &Setup) -> Result<Vec<Row>> {
    let mut servers: Vec<Rooms> = setup.subjects()?.into_iter().map(Rooms::open).collect::<Result<_>>()?;
    let mut bare = BareField::open(setup.workers, ROOMS * ROOM)?;
    let events = setup.plan.client_events;
    servers[0].round(ROOMS as u64)?;
    let text = servers[0].last_event.clone().context("no frame was sampled")?;
    let limit = servers.len();
    let rounds = Rounds::run(setup.plan.rounds, limit + 1, |contender| match servers.get_mut(contender) {
        Some(rooms) => rooms.round(events),
        None => bare.scatter(text.clone(), events, 1, 7),
    })?;
    let row = |(index, rooms): (usize, &Rooms)| {
        let what = format!("client events, {ROOMS} rooms of {ROOM}");
        Row::median(what, &rooms.subject.name, &rounds, index, "CPU-s/million deliveries")
            .against("bare, one send each", &rounds, index, limit)
            .mark(Mark::Ratio { at_most: 1.2 }, rooms.subject.ours)
    };
    Ok(servers.iter().enumerate().map(row).collect())
}

impl Rooms {
    fn open(subject: Subject) -> Result<Self> {
        let mut field = Field::new()?;
        field
            .open(subject.address, ROOMS * ROOM, CHANNELS.dialect(&subject.app))
            .with_context(|| subject.trouble())?;
        Ok(Rooms { subject, field, seed: 3, last_event: None })
    }

    /// CPU microseconds of the server for each delivery, reading and checking the event included.
    fn round(&mut self, events: u64) -> Result<f64> {
        self.measure(events).with_context(|| self.subject.trouble())
    }

    fn measure(&mut self, events: u64) -> Result<f64> {
        self.seed += 1;
        let data = payload::data(1, Duration::ZERO, DATA_BYTES);
        let before = self.subject.cpu()?;
        self.field.chatter(Chatter { events, window: WINDOW, seed: self.seed, data })?;
        let spent = self.subject.cpu()? - before;
        self.last_event = self.field.verify(Expected::Chatter)?.or(self.last_event.take());
        Ok(spent.as_secs_f64() * 1e6 / (events * (ROOM - 1) as u64) as f64)
    }
}
