//! What Redis spends on an event.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Nodes, Spread, microseconds};
use crate::api::{App, Event};
use crate::field::Channels;
use crate::payload;
use crate::publisher::Publisher;
use crate::random::Random;
use crate::redis::Redis;
use crate::report::{Mark, Row};
use crate::rounds::Rounds;
use crate::suite::Setup;

/// Triggers under way at a time: what has come meanwhile goes to Redis at once.
const PUBLISHERS: usize = 64;
const CHANNELS: usize = 1_000;
const STORED: &str = "stored-";
/// So few messages of a channel that the oldest go in the rounds that count, too.
const RULE: &str = r#"{"rules":[{"match":"stored-*","max_messages":50,"window":"1h"}]}"#;

/// One kind of event.
struct Kind {
    bytes: usize,
    prefix: &'static str,
    is_stored: bool,
    /// The subscribers, one of each channel, on the node that is not published on.
    audience: Option<Spread>,
}

pub fn run(setup: &Setup) -> Result<Vec<Row>> {
    let redis = Redis::start()?;
    let settings = [("TIDEWIRE_APP_REPLAY", RULE), ("TIDEWIRE_REPLAY__STORE", "redis")];
    let cluster = Nodes::on(&redis, "publish", 2, setup, &settings)?;
    measure(setup, &redis, &cluster).with_context(|| cluster.trouble())
}

fn measure(setup: &Setup, redis: &Redis, cluster: &Nodes) -> Result<Vec<Row>> {
    let mut kinds = Vec::new();
    let heard = |prefix| {
        let channels = Channels { prefix, count: CHANNELS };
        Spread::open(&cluster.addresses()[1..], CHANNELS, channels, cluster.app(), false).map(Some)
    };
    for bytes in [100, 1024] {
        kinds.push(Kind { bytes, prefix: "unheard-", is_stored: false, audience: None });
        let prefix = if bytes == 100 { "small-" } else { "large-" };
        kinds.push(Kind { bytes, prefix, is_stored: false, audience: heard(prefix)? });
    }
    kinds.push(Kind { bytes: 1024, prefix: "stored-unheard-", is_stored: true, audience: None });
    let prefix = "stored-heard-";
    kinds.push(Kind { bytes: 1024, prefix, is_stored: true, audience: heard(prefix)? });
    let mut random = Random::new(17);
    let rounds = Rounds::run_several(setup.plan.rounds, kinds.len(), |kind| {
        kinds[kind].round(setup.plan.triggers, redis, cluster, &mut random)
    })?;
    let [spent, commands, together, nodes] = &rounds;
    let mut rows = Vec::new();
    for (index, kind) in kinds.iter().enumerate() {
        let size = if kind.bytes == 1024 { "1 KB".to_owned() } else { format!("{} bytes", kind.bytes) };
        let stored = if kind.is_stored { "stored" } else { "not stored" };
        let audience = if kind.audience.is_some() { "one node has subscribers" } else { "nobody subscribed" };
        let what = format!("cluster: publish of {size}, {stored}, {PUBLISHERS} at a time, {audience}");
        let mark = Mark::Figure { at_most: if kind.is_stored { 40.0 } else { 3.0 } };
        let row = |what: &str, rounds, unit| Row::median(what, "Redis", rounds, index, unit);
        rows.push(row(&what, spent, "CPU µs").mark(mark, true));
        if kind.audience.is_some() {
            rows.push(row("…of it in the commands, by Redis's own clock", commands, "µs"));
            rows.push(row("…commands that Redis finds in one read", together, "commands"));
            let what = "…both nodes, trigger and delivery to one included";
            rows.push(Row::median(what, "tidewire", nodes, index, "CPU µs"));
        }
    }
    Ok(rows)
}

impl Kind {
    /// Microseconds of Redis a trigger, and of them those in commands; commands a read; microseconds of the nodes.
    fn round(
        &mut self,
        count: usize,
        redis: &Redis,
        cluster: &Nodes,
        random: &mut Random,
    ) -> Result<[f64; 4]> {
        let mut per_channel = vec![0; CHANNELS];
        let calls = self.calls(cluster.app(), count, &mut per_channel, random);
        let mut publisher = Publisher::connect(cluster.addresses()[0], PUBLISHERS)?;
        let work_before = redis.work()?;
        let nodes_before = cluster.cpu()?;
        let redis_before = redis.cpu()?;
        for call in &calls {
            publisher.send(call)?;
        }
        publisher.finish()?;
        if let Some(audience) = &mut self.audience {
            audience.wait(&per_channel)?;
        }
        let nodes = cluster.cpu()? - nodes_before;
        let spent = redis.cpu()? - redis_before;
        let work = redis.work()?.since(&work_before);
        if let Some(audience) = &mut self.audience {
            audience.verify(&per_channel)?;
        }
        // Those that a script gives are counted, too.
        let published = work.of("publish");
        ensure!(published.count == count as u64, "Redis got {} of {count} messages", published.count);
        let in_commands = if self.is_stored { work.of("evalsha") } else { published };
        let count = count as f64;
        Ok([
            microseconds(spent) / count,
            in_commands.microseconds as f64 / count,
            work.processed as f64 / work.reads as f64,
            microseconds(nodes) / count,
        ])
    }

    /// Signed beforehand, so that they come as fast as they are taken.
    fn calls(&self, app: &App, count: usize, per_channel: &mut [u64], random: &mut Random) -> Vec<Vec<u8>> {
        debug_assert_eq!(self.is_stored, self.prefix.starts_with(STORED));
        let channels = Channels { prefix: self.prefix, count: CHANNELS };
        let call = |number| {
            let index = random.below(channels.count);
            per_channel[index] += 1;
            let data = payload::data(number, Duration::ZERO, self.bytes);
            app.trigger(&Event { name: payload::EVENT, channel: &channels.name(index), data: &data })
        };
        (1..=count as u64).map(call).collect()
    }
}
