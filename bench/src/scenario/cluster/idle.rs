//! What a node spends on a busy channel that nobody on it is subscribed to.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Nodes, Spread, microseconds};
use crate::api::Event;
use crate::field::Channels;
use crate::payload;
use crate::publisher::Publisher;
use crate::redis::Redis;
use crate::report::{Mark, Row};
use crate::rounds::Rounds;
use crate::scenario::{DATA_BYTES, PUBLISHERS};
use crate::suite::Setup;

/// Of each round, at the least: long enough for what a node does by itself.
const PUBLISHES: usize = 20_000;
const BUSY: Channels<'_> = Channels { prefix: "busy-", count: 1 };
/// So that the node that is measured has clients, and is subscribed to something.
const OTHERS: Channels<'_> = Channels { prefix: "others-", count: 10 };

/// Three nodes: one is published on, one has a subscriber, one has none.
const PUBLISHING: usize = 0;
const SUBSCRIBED: usize = 1;
const OUTSIDE: usize = 2;

pub fn run(setup: &Setup) -> Result<Vec<Row>> {
    let redis = Redis::start()?;
    let cluster = Nodes::on(&redis, "idle", 3, setup, &[])?;
    measure(setup, &cluster).with_context(|| cluster.trouble())
}

fn measure(setup: &Setup, cluster: &Nodes) -> Result<Vec<Row>> {
    let at = |node: usize| [cluster.addresses()[node]];
    let mut subscriber = Spread::open(&at(SUBSCRIBED), 1, BUSY, cluster.app(), false)?;
    let mut others = Spread::open(&at(OUTSIDE), OTHERS.count, OTHERS, cluster.app(), false)?;
    let data = payload::data(1, Duration::ZERO, DATA_BYTES);
    let (name, channel) = (payload::EVENT, BUSY.name(0));
    let calls: Vec<Vec<u8>> = (0..PUBLISHES)
        .map(|_| cluster.app().trigger(&Event { name, channel: &channel, data: &data }))
        .collect();
    let spent = |node: usize| Ok::<_, anyhow::Error>(microseconds(cluster.subjects[node].cpu()?));
    let rounds = Rounds::run_several(setup.plan.rounds, 1, |_| {
        let mut publisher = Publisher::connect(at(PUBLISHING)[0], PUBLISHERS)?;
        let begin = Instant::now();
        let (outside, subscribed) = (spent(OUTSIDE)?, spent(SUBSCRIBED)?);
        for call in &calls {
            publisher.send(call)?;
        }
        publisher.finish()?;
        subscriber.wait(&[PUBLISHES as u64])?;
        let (outside, subscribed) = (spent(OUTSIDE)? - outside, spent(SUBSCRIBED)? - subscribed);
        let seconds = begin.elapsed().as_secs_f64();
        subscriber.verify(&[PUBLISHES as u64])?;
        others.verify(&[0; OTHERS.count])?;
        // As long again with nothing to do.
        let begin = Instant::now();
        let before = spent(OUTSIDE)?;
        std::thread::sleep(Duration::from_secs_f64(seconds).saturating_sub(begin.elapsed()));
        let idle = spent(OUTSIDE)? - before;
        let idle = idle / begin.elapsed().as_secs_f64() * seconds;
        let publishes = PUBLISHES as f64;
        Ok([
            outside / seconds / 1e3,
            idle / seconds / 1e3,
            (outside - idle) / publishes,
            subscribed / publishes,
        ])
    })?;
    let [outside, idle, more, subscribed] = &rounds;
    let row = |what: &str, rounds, unit| Row::median(what, "tidewire", rounds, 0, unit);
    Ok(vec![
        row("cluster: idle node", idle, "CPU ms/s"),
        row(
            "cluster: node without a subscriber of a busy channel, while 20,000 events are published elsewhere",
            outside,
            "CPU ms/s",
        ),
        row("…more than idle, an event", more, "CPU µs").mark(Mark::Figure { at_most: 0.1 }, true),
        row("cluster: node with one subscriber of that channel, an event", subscribed, "CPU µs"),
    ])
}
