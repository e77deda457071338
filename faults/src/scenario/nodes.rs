//! Three nodes on one Redis, or several: every kind of channel, clients that go from node to node, and what breaks in between.

pub mod cut;
pub mod drain;
pub mod fail_over;
pub mod flush;
pub mod half_open;
pub mod kill;
pub mod outage;
pub mod redis;
pub mod soak;
pub mod stop;

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::check::{Expect, Report, is_ordinary};
use crate::cluster::{Cluster, Timing};
use crate::history::History;
use crate::observer::Plan;
use crate::publisher::{Load, Percent, Publishers};
use crate::redis::{Form, Loss};
use crate::stage::{MAX_REPLAY, Options, Stage, mixed_channels, setup};

const PATIENCE: Duration = Duration::from_secs(90);
const CALM: Duration = Duration::from_secs(3);

type Nodes = Stage<Cluster>;

/// What the scenarios have in common.
struct Size {
    observers: usize,
    node_timeout: Duration,
    unready_after: Duration,
    redis: Form,
    drain_seconds: u64,
}

impl Size {
    /// For CI, on one Redis that loses nothing.
    const SMALL: Self = Self {
        observers: 30,
        node_timeout: Duration::from_secs(3),
        unready_after: Duration::from_secs(30),
        redis: Form::Alone(Loss::Nothing),
        drain_seconds: 1,
    };
}

fn open(name: &str, options: &Options, size: &Size) -> Result<Nodes> {
    let mut channels = mixed_channels(10);
    channels.extend(["presence-plain-0", "presence-plain-1", "plain-0", "plain-1"].map(str::to_owned));
    let rules = json!([
        { "match": "plain-*", "stored": false },
        { "match": "presence-plain-*", "stored": false },
        { "match": "*", "window": "24h", "max_messages": 10_000_000, "max_bytes": "16GiB", "client_events": true },
    ]);
    let mut setup = setup(json!({ "rules": rules, "max_bytes": "16GiB" }));
    setup.drain_seconds = size.drain_seconds;
    let node_timeout = u64::try_from(size.node_timeout.as_micros())?;
    let may_lose = size.redis.may_lose();
    let timing = Timing { node_timeout: size.node_timeout, unready_after: size.unready_after };
    let expect = Expect { max_replay: MAX_REPLAY, node_timeout, may_lose, ..Expect::default() };
    let mut stage = Stage::open_on(name, options, expect, channels, |directory, began| {
        let outages = History::create(&directory.join("history/outages.jsonl"), began)?;
        Cluster::start(options, directory, &setup, size.redis, &timing, outages)
    })?;
    let plans = (0..size.observers).map(|number| plan(&stage, size, number)).collect();
    stage.watch(plans)?;
    Ok(stage)
}

/// A member of two channels, and an observer of two more.
fn plan(stage: &Nodes, size: &Size, number: usize) -> Plan {
    let mut plan = stage.plan("o", number, 1);
    let of = |kind: &str| {
        let all: Vec<&String> = stage.channels.iter().filter(|channel| channel.starts_with(kind)).collect();
        all[number % all.len()].clone()
    };
    plan.channels = vec![of("presence-faults"), of("presence-plain"), of("plain")];
    let others = ["faults", "private-faults", "cache-faults", "private-cache-faults"];
    plan.channels.push(of(others[number % others.len()]));
    // Some users have a second connection, mostly on another node.
    plan.user = format!("u{}", if number % 8 == 6 { number - 4 } else { number });
    plan.talks_every = number.is_multiple_of(6).then_some(Duration::from_millis(300));
    plan.silence = Duration::from_secs(if number % 3 == 1 { 4 } else { 30 });
    if number % 5 == 4 {
        // Long enough for everybody to know that he is gone.
        plan.pause = size.node_timeout + Duration::from_secs(3);
    }
    plan
}

/// Publishers, and a while in which nothing is broken: what was published then has to reach everybody.
fn publish(stage: &Nodes, per_second: f64) -> Result<Publishers> {
    let publishers = stage.publish("p", &load(stage, per_second), &stage.sockets())?;
    std::thread::sleep(CALM);
    Ok(publishers)
}

fn load(stage: &Nodes, per_second: f64) -> Load {
    let percent = if stage.expect.may_lose { Percent::FOR_ALL } else { Percent::MIXED };
    Load { per_second, percent, ..stage.load(6, 80) }
}

/// The verdict, if there was anything to judge.
fn finish(stage: Nodes, is_told: impl FnOnce(&Report) -> bool) -> Result<Report> {
    let mut report = stage.finish()?;
    let (is_due, is_told) = (report.due > 0, is_told(&report));
    report.require(is_due, || "no message of a channel without a log was due".to_owned());
    report.require(is_told, || "who had seen what is gone was not told".to_owned());
    if !(is_due && is_told) {
        print!("{}", report.complaints());
    }
    Ok(report)
}

/// Part of the clients go and come back.
fn churn(stage: &mut Nodes, every: usize) {
    stage.crowds[0].cut(every);
    std::thread::sleep(Duration::from_millis(300));
}

/// Of everybody's connections.
fn sockets(stage: &Nodes) -> Vec<String> {
    stage
        .crowds
        .iter()
        .flat_map(|crowd| crowd.progress().iter().map(|progress| progress.socket_id()))
        .collect()
}

/// The channels with a log.
fn stored(stage: &Nodes) -> usize {
    stage.channels.iter().filter(|channel| !is_ordinary(channel)).count()
}
