//! Many small rooms that receive triggers at random.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{DATA_BYTES, PUBLISHERS};
use crate::api::Event;
use crate::control::Expected;
use crate::field::{BareField, Channels, Field, ROOM};
use crate::payload;
use crate::publisher::Publisher;
use crate::random::Random;
use crate::report::{Mark, Row};
use crate::rounds::Rounds;
use crate::subject::Subject;
use crate::suite::Setup;

pub const ROOMS: usize = 1_000;
const CHANNELS: Channels<'_> = Channels { prefix: "chat-", count: ROOMS };

struct Chat {
    subject: Subject,
    field: Field,
    random: Random,
    sequence: u64,
    last_event: Option<String>,
}

pub fn run(setup: &Setup) -> Result<Vec<Row>> {
    let mut chats: Vec<Chat> = setup.subjects()?.into_iter().map(Chat::open).collect::<Result<_>>()?;
    let mut bare = BareField::open(setup.workers, ROOMS * ROOM)?;
    let events = setup.plan.chat_triggers;
    chats[0].round(ROOMS as u64)?;
    let text = chats[0].last_event.clone().context("no frame was sampled")?;
    let limit = chats.len();
    let rounds = Rounds::run(setup.plan.rounds, limit + 1, |contender| match chats.get_mut(contender) {
        Some(chat) => chat.round(events),
        None => bare.scatter(text.clone(), events, 0, 7),
    })?;
    let row = |(index, chat): (usize, &Chat)| {
        let what = format!("chat: {ROOMS} channels of {ROOM}, random signed triggers");
        Row::median(what, &chat.subject.name, &rounds, index, "CPU-s/million deliveries")
            .against("bare, one send each", &rounds, index, limit)
            .mark(Mark::Figure { at_most: 14.0 }, chat.subject.ours)
    };
    Ok(chats.iter().enumerate().map(row).collect())
}

impl Chat {
    fn open(subject: Subject) -> Result<Self> {
        let mut field = Field::new()?;
        field
            .open(subject.address, ROOMS * ROOM, CHANNELS.dialect(&subject.app))
            .with_context(|| subject.trouble())?;
        Ok(Chat { subject, field, random: Random::new(11), sequence: 0, last_event: None })
    }

    /// CPU microseconds of the server for each delivery, the triggers included.
    fn round(&mut self, triggers: u64) -> Result<f64> {
        self.measure(triggers).with_context(|| self.subject.trouble())
    }

    fn measure(&mut self, triggers: u64) -> Result<f64> {
        let mut expected = vec![0; ROOMS];
        let calls: Vec<Vec<u8>> = (0..triggers)
            .map(|_| {
                let room = self.random.below(ROOMS);
                expected[room] += 1;
                self.sequence += 1;
                let data = payload::data(self.sequence, Duration::ZERO, DATA_BYTES);
                let channel = CHANNELS.name(room);
                self.subject.app.trigger(&Event { name: payload::EVENT, channel: &channel, data: &data })
            })
            .collect();
        let deliveries = triggers * ROOM as u64;
        // New connections: between two rounds a server may have closed what was idle.
        let mut publisher = Publisher::connect(self.subject.address, PUBLISHERS)?;
        let before = self.subject.cpu()?;
        for call in &calls {
            publisher.send(call)?;
        }
        publisher.finish()?;
        self.field.wait(deliveries)?;
        let spent = self.subject.cpu()? - before;
        self.last_event = self.field.verify(Expected::PerChannel(expected))?.or(self.last_event.take());
        Ok(spent.as_secs_f64() * 1e6 / deliveries as f64)
    }
}
