//! What a delivery costs all nodes together, when its channel's subscribers are spread over them.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{Nodes, Spread, microseconds};
use crate::api::Event;
use crate::field::{Channels, ROOM};
use crate::payload;
use crate::publisher::Publisher;
use crate::random::Random;
use crate::redis::Redis;
use crate::report::{Mark, Row};
use crate::rounds::Rounds;
use crate::scenario::chat::ROOMS;
use crate::scenario::{DATA_BYTES, PUBLISHERS};
use crate::suite::Setup;

const NODES: usize = 3;
const CROWD: Channels<'_> = Channels { prefix: "fan-out-", count: 1 };
const SUBSCRIBERS: usize = 1_000;
const CHAT: Channels<'_> = Channels { prefix: "chat-", count: ROOMS };

/// Some nodes with their subscribers, whom three sinks hold in every case.
struct Gathering {
    nodes: Nodes,
    spread: Spread,
    channels: Channels<'static>,
    random: Random,
    sequence: u64,
}

/// Microseconds of all nodes a delivery, and of Redis a trigger.
type Spent = [f64; 2];

pub fn run(setup: &Setup) -> Result<Vec<Row>> {
    let redis = Redis::start()?;
    let mut rows = fan_out(setup, &redis)?;
    rows.extend(chat(setup, &redis)?);
    Ok(rows)
}

/// One node without Redis, one with it, and several.
fn gather(
    setup: &Setup,
    redis: &Redis,
    channels: Channels<'static>,
    connections: usize,
) -> Result<[Gathering; 3]> {
    let prefix = |count: usize| format!("{}{count}", channels.prefix);
    let gather = |nodes| Gathering::open(nodes, channels, connections);
    Ok([
        gather(Nodes::alone(setup, &[])?)?,
        gather(Nodes::on(redis, &prefix(1), 1, setup, &[])?)?,
        gather(Nodes::on(redis, &prefix(NODES), NODES, setup, &[])?)?,
    ])
}

fn fan_out(setup: &Setup, redis: &Redis) -> Result<Vec<Row>> {
    let mut gatherings = gather(setup, redis, CROWD, SUBSCRIBERS)?;
    let mut rows = Vec::new();
    for pending in [1, 16] {
        let sends = if pending == 1 { setup.plan.sends } else { setup.plan.sends / 2 };
        let bursts = (sends / SUBSCRIBERS).max(1);
        let rounds = Rounds::run_several(setup.plan.rounds, gatherings.len(), |contender| {
            gatherings[contender].round(redis, |gathering, redis| gathering.bursts(bursts, pending, redis))
        })?;
        let how =
            if pending == 1 { "1 pending".to_owned() } else { format!("{pending} pending (one batch)") };
        let what = format!("cluster: fan-out to {SUBSCRIBERS}, {how}");
        rows.extend(table(&what, "µs/delivery", &rounds, Some(Mark::Ratio { at_most: 1.15 })));
    }
    Ok(rows)
}

fn chat(setup: &Setup, redis: &Redis) -> Result<Vec<Row>> {
    let mut gatherings = gather(setup, redis, CHAT, ROOMS * ROOM)?;
    let triggers = setup.plan.chat_triggers;
    let rounds = Rounds::run_several(setup.plan.rounds, gatherings.len(), |contender| {
        gatherings[contender].round(redis, |gathering, redis| gathering.chat(triggers, redis))
    })?;
    let what = format!("cluster: chat, {ROOMS} channels of {ROOM}");
    Ok(table(&what, "CPU-s/million deliveries", &rounds, None))
}

fn table(what: &str, unit: &'static str, rounds: &[Rounds; 2], mark: Option<Mark>) -> Vec<Row> {
    const ALONE: &str = "one node without Redis";
    let [nodes, redis] = rounds;
    let row = |where_: &str, contender| {
        Row::median(format!("{what}, {where_}"), "tidewire", nodes, contender, unit)
    };
    let on_three = || row(&format!("{NODES} nodes"), 2);
    let mut rows = vec![
        row("one node with Redis", 1).against(ALONE, nodes, 1, 0),
        on_three().against(ALONE, nodes, 2, 0),
        on_three().against("one node with Redis", nodes, 2, 1),
    ];
    if let Some(mark) = mark {
        rows = rows.into_iter().enumerate().map(|(index, row)| row.mark(mark, index > 0)).collect();
    }
    rows.push(Row::median(format!("…Redis, a trigger, {NODES} nodes"), "Redis", redis, 2, "CPU µs"));
    rows
}

impl Gathering {
    fn open(nodes: Nodes, channels: Channels<'static>, connections: usize) -> Result<Self> {
        let addresses: Vec<_> = nodes.addresses().into_iter().cycle().take(NODES).collect();
        // Events of the chat's triggers may pass each other.
        let ordered = channels.count == 1;
        let spread = Spread::open(&addresses, connections, channels, nodes.app(), ordered)
            .with_context(|| nodes.trouble())?;
        Ok(Gathering { nodes, spread, channels, random: Random::new(11), sequence: 0 })
    }

    fn round(
        &mut self,
        redis: &Redis,
        measure: impl FnOnce(&mut Self, &Redis) -> Result<Spent>,
    ) -> Result<Spent> {
        measure(self, redis).with_context(|| self.nodes.trouble())
    }

    fn data(&mut self) -> String {
        self.sequence += 1;
        payload::data(self.sequence, Duration::ZERO, DATA_BYTES)
    }

    /// Bursts to the one channel, published on the first node; the next begins when everybody has the last.
    fn bursts(&mut self, bursts: usize, pending: usize, redis: &Redis) -> Result<Spent> {
        let channel = self.channels.name(0);
        let mut calls = Vec::with_capacity(bursts);
        for _ in 0..bursts {
            let data: Vec<String> = (0..pending).map(|_| self.data()).collect();
            let event = |data| Event { name: payload::EVENT, channel: &channel, data };
            let events: Vec<Event<'_>> = data.iter().map(|data| event(data)).collect();
            let app = self.nodes.app();
            calls.push(if pending == 1 { app.trigger(&events[0]) } else { app.batch(&events) });
        }
        // New connections: between two rounds a server may have closed what was idle.
        let mut publisher = Publisher::connect(self.nodes.addresses()[0], 1)?;
        let before = (self.nodes.cpu()?, redis.cpu()?);
        let mut published = 0;
        for call in &calls {
            publisher.pipeline(call, 1)?;
            published += pending as u64;
            self.spread.wait(&[published])?;
        }
        let after = (self.nodes.cpu()?, redis.cpu()?);
        self.spread.verify(&[published])?;
        Ok([
            microseconds(after.0 - before.0) / (published * SUBSCRIBERS as u64) as f64,
            microseconds(after.1 - before.1) / published as f64,
        ])
    }

    /// Triggers for random channels, published on all nodes in turn.
    fn chat(&mut self, triggers: u64, redis: &Redis) -> Result<Spent> {
        let mut per_channel = vec![0; ROOMS];
        let mut calls = Vec::with_capacity(triggers as usize);
        for _ in 0..triggers {
            let room = self.random.below(ROOMS);
            per_channel[room] += 1;
            let (data, channel) = (self.data(), self.channels.name(room));
            calls.push(self.nodes.app().trigger(&Event {
                name: payload::EVENT,
                channel: &channel,
                data: &data,
            }));
        }
        let mut publisher = Publisher::over(&self.nodes.addresses(), PUBLISHERS)?;
        let before = (self.nodes.cpu()?, redis.cpu()?);
        for call in &calls {
            publisher.send(call)?;
        }
        publisher.finish()?;
        self.spread.wait(&per_channel)?;
        let after = (self.nodes.cpu()?, redis.cpu()?);
        self.spread.verify(&per_channel)?;
        Ok([
            microseconds(after.0 - before.0) / (triggers * ROOM as u64) as f64,
            microseconds(after.1 - before.1) / triggers as f64,
        ])
    }
}
