//! What it costs to come to a presence channel and to go, and how long it takes until everybody knows.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Nodes, Spread, microseconds};
use crate::field::{Channels, ROOM};
use crate::publisher::Publisher;
use crate::redis::Redis;
use crate::report::Row;
use crate::roster::Roster;
use crate::rounds::Rounds;
use crate::suite::Setup;

const NODES: usize = 2;
const SETTINGS: [(&str, &str); 1] = [("TIDEWIRE_LIMITS__MAX_PRESENCE_MEMBERS", "100000")];
/// Until what the last client's end causes is over.
const SETTLE: Duration = Duration::from_secs(1);

/// Nodes whose clients come and go.
struct Rooms<'a> {
    nodes: &'a Nodes,
    spread: Spread,
    kind: &'static str,
    /// Rooms of earlier rounds are not entered again: a node stays subscribed for a while to what it has left.
    round: usize,
}

pub fn run(setup: &Setup) -> Result<Vec<Row>> {
    let redis = Redis::start()?;
    let alone = Nodes::alone(setup, &SETTINGS)?;
    let cluster = Nodes::on(&redis, "presence", NODES, setup, &SETTINGS)?;
    let measure = || -> Result<Vec<Row>> {
        let mut rows = coming_and_going(setup, &redis, &alone, &cluster)?;
        rows.extend(one_channel(setup, &redis, &alone, &cluster)?);
        Ok(rows)
    };
    measure().with_context(|| format!("{}\n{}", alone.trouble(), cluster.trouble()))
}

/// Clients that come to rooms of ten and go again.
fn coming_and_going(setup: &Setup, redis: &Redis, alone: &Nodes, cluster: &Nodes) -> Result<Vec<Row>> {
    const PRESENCE: &str = "presence";
    let mut contenders =
        [Rooms::new(alone, PRESENCE)?, Rooms::new(cluster, PRESENCE)?, Rooms::new(cluster, "private")?];
    let count = setup.plan.handshakes;
    let rounds = Rounds::run_several(setup.plan.rounds, contenders.len(), |index| {
        contenders[index].visit(count, redis)
    })?;
    let [nodes, spent] = &rounds;
    let what =
        format!("cluster: client that joins a presence channel of {ROOM} and leaves it, over {NODES} nodes");
    let row =
        |what: &str, subject, rounds, contender| Row::median(what, subject, rounds, contender, "CPU µs");
    Ok(vec![
        row(&format!("{what}, both, connecting included"), "tidewire", nodes, 1).against(
            "one node without Redis",
            nodes,
            1,
            0,
        ),
        Row::of("…more than on a private channel", "tidewire", nodes.differences(1, 2), "CPU µs"),
        row(&what, "Redis", spent, 1),
        row("…the same on a private channel", "Redis", spent, 2),
    ])
}

/// All in one channel, from the first connection until each of them has the list of all.
fn one_channel(setup: &Setup, redis: &Redis, alone: &Nodes, cluster: &Nodes) -> Result<Vec<Row>> {
    let count = setup.plan.presence_members;
    let mut rows = Vec::new();
    for (nodes, place) in [(alone, "one node without Redis"), (cluster, "2 nodes")] {
        let channels = Channels { prefix: "presence-crowd-", count: 1 };
        let before = (nodes.cpu()?, redis.cpu()?);
        let begin = Instant::now();
        let mut spread = Spread::open(&addresses(nodes), count, channels, nodes.app(), false)?;
        spread.know_each_other(channels)?;
        let seconds = begin.elapsed().as_secs_f64();
        let spent = (nodes.cpu()? - before.0, redis.cpu()? - before.1);
        spread.close()?;
        std::thread::sleep(SETTLE);
        nobody_is_left(nodes)?;
        let what = format!("cluster: {count} clients join one presence channel");
        rows.push(Row::single(format!("{what}, until all know all, {place}"), "tidewire", seconds, "s"));
        let each = |spent| microseconds(spent) / count as f64;
        rows.push(Row::single(format!("…a client, {place}"), "tidewire", each(spent.0), "CPU µs"));
        if nodes.subjects.len() > 1 {
            rows.push(Row::single(format!("…a client, {place}"), "Redis", each(spent.1), "CPU µs"));
        }
    }
    Ok(rows)
}

impl<'a> Rooms<'a> {
    fn new(nodes: &'a Nodes, kind: &'static str) -> Result<Self> {
        Ok(Rooms { nodes, spread: Spread::new(NODES)?, kind, round: 0 })
    }

    /// Microseconds of all nodes, and of Redis, for each client.
    fn visit(&mut self, count: usize, redis: &Redis) -> Result<[f64; 2]> {
        self.round += 1;
        let prefix = format!("{}-room-{}-", self.kind, self.round);
        let channels = Channels { prefix: &prefix, count: (count / ROOM).max(1) };
        let before = (self.nodes.cpu()?, redis.cpu()?);
        self.spread.fill(&addresses(self.nodes), count, channels, self.nodes.app(), false)?;
        if self.kind == "presence" {
            self.spread.know_each_other(channels)?;
        }
        self.spread.close()?;
        std::thread::sleep(SETTLE);
        let spent = (self.nodes.cpu()? - before.0, redis.cpu()? - before.1);
        nobody_is_left(self.nodes)?;
        Ok([spent.0, spent.1].map(|spent| microseconds(spent) / count as f64))
    }
}

/// As many addresses as a cluster has, so that as many sinks hold the clients of one node.
fn addresses(nodes: &Nodes) -> Vec<SocketAddr> {
    nodes.addresses().into_iter().cycle().take(NODES).collect()
}

impl Spread {
    /// Waits until every list is as long as it should be, then compares them with who is there.
    fn know_each_other(&mut self, channels: Channels<'_>) -> Result<()> {
        let sizes: Vec<usize> = (0..channels.count)
            .map(|channel| self.shares.iter().map(|share| share.members(channels.count, channel)).sum())
            .collect();
        for share in &mut self.shares {
            let known = |(channel, size): (usize, &usize)| share.members(channels.count, channel) * size;
            let known: usize = sizes.iter().enumerate().map(known).sum();
            share.field.wait_for_members(known as u64)?;
        }
        let mut real = vec![Roster::default(); channels.count];
        let mut seen = Vec::new();
        for share in &mut self.shares {
            for (channel, rosters) in share.field.rosters()?.into_iter().enumerate() {
                real[channel] = real[channel].and(rosters.own);
                seen.extend(rosters.seen.map(|roster| (channel, roster)));
            }
        }
        for (channel, roster) in seen {
            let name = channels.name(channel);
            ensure!(roster == real[channel], "{name} has {:?}, its clients see {roster:?}", real[channel]);
        }
        Ok(())
    }
}

/// Fails if a node believes that somebody is still there.
fn nobody_is_left(nodes: &Nodes) -> Result<()> {
    for address in nodes.addresses() {
        let mut publisher = Publisher::connect(address, 1)?;
        let answer = publisher.ask(&nodes.app().request("GET", "channels", &[]))?;
        let answer: serde_json::Value = serde_json::from_str(&answer)?;
        let left = answer["channels"].as_object().map_or(usize::MAX, serde_json::Map::len);
        ensure!(left == 0, "{left} channels are occupied after everybody has gone: {answer:.300}");
    }
    Ok(())
}
