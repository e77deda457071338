//! Triggers at a given rate, to random channels, each with the time at which it was signed.

use std::time::Duration;

use anyhow::Result;

use crate::api::{App, Event};
use crate::clock;
use crate::field::Channels;
use crate::payload;
use crate::publisher::Publisher;
use crate::random::Random;

pub struct Pace {
    pub per_second: f64,
    pub seconds: u64,
    pub data_bytes: usize,
}

pub struct Published {
    /// Events of each channel.
    pub per_channel: Vec<u64>,
    /// How far behind its schedule the publisher was at worst.
    pub behind: Duration,
}

impl Pace {
    /// Keeps to the schedule whether or not the server keeps up: what comes late is stamped with the time at which
    /// it was due, so that a stall of the server is not hidden by the publisher waiting for it.
    pub fn run(&self, publisher: &mut Publisher, app: &App, channels: Channels<'_>) -> Result<Published> {
        /// A sleep overshoots by about as much; that is not the server's doing.
        const SLEEP: Duration = Duration::from_millis(1);
        let mut published = Published { per_channel: vec![0; channels.count], behind: Duration::ZERO };
        let mut random = Random::new(5);
        let begin = clock::monotonic();
        let total = (self.per_second * self.seconds as f64) as u64;
        for number in 0..total {
            let due = begin + Duration::from_secs_f64(number as f64 / self.per_second);
            std::thread::sleep(due.saturating_sub(clock::monotonic()));
            let now = clock::monotonic();
            let behind = now.saturating_sub(due);
            published.behind = published.behind.max(behind);
            let at = if behind > SLEEP { due } else { now };
            let index = random.below(channels.count);
            let data = payload::data(number + 1, at, self.data_bytes);
            let channel = channels.name(index);
            publisher.send(&app.trigger(&Event { name: payload::EVENT, channel: &channel, data: &data }))?;
            published.per_channel[index] += 1;
        }
        publisher.finish()?;
        Ok(published)
    }
}
