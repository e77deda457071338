//! Three nodes under load for long: every event counted, and what grows is told.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::{Nodes, Spread};
use crate::control::Latency;
use crate::field::{Channels, Field};
use crate::pace::Pace;
use crate::publisher::Publisher;
use crate::redis::Redis;
use crate::scenario::{DATA_BYTES, PUBLISHERS};
use crate::subject::Subject;

#[derive(Args, Debug)]
pub struct Options {
    /// The server to start
    #[arg(long, value_name = "PATH", default_value = "target/release/tidewire")]
    server_bin: PathBuf,
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Worker threads of each node
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Connections to all nodes together
    #[arg(long, short = 'c', default_value_t = 9_000)]
    connections: usize,
    /// Channels they are spread over; as many again have their messages stored
    #[arg(long, default_value_t = 300)]
    channels: usize,
    /// Triggers a second, each to a random channel by any node
    #[arg(long, short = 'r', default_value_t = 300.0)]
    rate: f64,
    /// At least four periods of ten seconds
    #[arg(long, short = 's', default_value_t = 900)]
    seconds: u64,
}

/// Every event of a period has arrived before the next one begins.
const PERIOD_SECONDS: u64 = 10;
/// Between two lines that tell how it goes.
const PERIODS_TOLD: usize = 6;
/// Connections that come and go in each period.
const PASSING: usize = 300;
/// By turns.
const PREFIXES: [&str; 2] = ["private-soak-", "private-stored-"];
const RULE: &str =
    r#"{"rules":[{"match":"private-stored-*","max_messages":200,"max_bytes":"1MiB","window":"1h"}]}"#;
/// What a node may have in the second half, against the first: rings, buffers and the allocator's pools fill in that
/// one, if it is long enough. A megabyte is the grain of the allocator.
const MAX_GROWTH: f64 = 1.05;
/// Messages of a stored channel, more than its ring takes: only then its memory can be judged.
const FILLED: f64 = 100.0;
const GRAIN_BYTES: f64 = (1 << 20) as f64;

struct Soak {
    nodes: Nodes,
    crowds: Vec<Spread>,
    passing: Field,
    channels: usize,
    rate: f64,
    events: u64,
    deliveries: u64,
    latency: Latency,
    /// Resident bytes of each node after each period.
    resident: Vec<Vec<u64>>,
    /// Of each node before the load began, about its settings.
    complaints: Vec<usize>,
    /// Dropped after the nodes.
    _redis: Redis,
}

pub fn run(options: &Options) -> Result<()> {
    let sizes = [options.nodes, options.workers, options.channels];
    ensure!(sizes.iter().all(|size| *size > 0) && options.rate > 0.0, "at least one of each");
    let redis = Redis::start()?;
    let url = redis.url();
    let settings = [("TIDEWIRE_REDIS__URL", url.as_str()), ("TIDEWIRE_APP_REPLAY", RULE)];
    let start = |_| Subject::start(&options.server_bin, options.workers, &settings);
    let nodes = Nodes { subjects: (0..options.nodes).map(start).collect::<Result<_>>()? };
    let mut soak = Soak {
        nodes,
        crowds: Vec::new(),
        passing: Field::new()?,
        channels: options.channels,
        rate: options.rate,
        events: 0,
        deliveries: 0,
        latency: Latency::default(),
        resident: Vec::new(),
        complaints: Vec::new(),
        _redis: redis,
    };
    soak.run(options).with_context(|| soak.nodes.trouble())
}

impl Soak {
    fn run(&mut self, options: &Options) -> Result<()> {
        self.connect(options.connections / PREFIXES.len())?;
        println!("connected    {} connections to {} nodes", options.connections, options.nodes);
        self.complaints = self.nodes.subjects.iter().map(|subject| subject.complaints().len()).collect();
        let begin = Instant::now();
        let periods = options.seconds.div_ceil(PERIOD_SECONDS).max(4) as usize;
        for number in 0..periods {
            self.period(number)?;
            if (number + 1) % PERIODS_TOLD == 0 || number + 1 == periods {
                self.tell(begin.elapsed());
            }
        }
        self.judge()
    }

    fn kind(&self, number: usize) -> Channels<'static> {
        Channels { prefix: PREFIXES[number], count: self.channels }
    }

    fn connect(&mut self, count: usize) -> Result<()> {
        let addresses = self.nodes.addresses();
        for number in 0..PREFIXES.len() {
            let crowd = Spread::open(&addresses, count, self.kind(number), self.nodes.app(), false)?;
            self.crowds.push(crowd);
        }
        Ok(())
    }

    /// Channels of one kind get events, and those of the other none; members of presence channels come and go.
    fn period(&mut self, number: usize) -> Result<()> {
        let kind = number % PREFIXES.len();
        let addresses = self.nodes.addresses();
        let passing = Channels { prefix: "presence-passing-", count: 10 };
        let guests = passing.dialect(self.nodes.app());
        self.passing.open(addresses[number % addresses.len()], PASSING, guests)?;
        let shares = &mut self.crowds[kind].shares;
        shares.iter_mut().try_for_each(|share| share.field.start_timing())?;
        let mut publisher = Publisher::over(&addresses, PUBLISHERS.max(addresses.len()))?;
        let pace = Pace { per_second: self.rate, seconds: PERIOD_SECONDS, data_bytes: DATA_BYTES };
        let published = pace.run(&mut publisher, self.nodes.app(), self.kind(kind))?.per_channel;
        self.crowds[kind].wait(&published)?;
        for share in &mut self.crowds[kind].shares {
            self.latency = self.latency.or(&share.field.stop_timing()?);
            self.deliveries += share.due(&published);
        }
        self.crowds[kind].verify(&published)?;
        self.crowds[1 - kind].verify(&vec![0; self.channels])?;
        self.passing.close()?;
        self.events += published.iter().sum::<u64>();
        let resident = self.nodes.subjects.iter().map(|subject| Ok(subject.memory()?.resident));
        self.resident.push(resident.collect::<Result<_>>()?);
        Ok(())
    }

    fn tell(&self, elapsed: Duration) {
        let megabytes = |bytes: &u64| format!("{:.1}", *bytes as f64 / 1e6);
        let resident: Vec<String> = self.resident.last().into_iter().flatten().map(megabytes).collect();
        println!(
            "after {:>5.0} s  {} events, {} deliveries, all and once; worst of a period in ms: {}; resident MB: {}",
            elapsed.as_secs_f64(),
            self.events,
            self.deliveries,
            self.latency,
            resident.join(" ")
        );
    }

    /// Nobody complained, and nothing grew.
    fn judge(&mut self) -> Result<()> {
        for crowd in &mut self.crowds {
            crowd.close()?;
        }
        for (number, (subject, before)) in self.nodes.subjects.iter().zip(&self.complaints).enumerate() {
            let complaints = subject.complaints().split_off(*before);
            ensure!(complaints.is_empty(), "node {number} complained:\n{}", complaints.join("\n"));
        }
        println!("nothing lost, doubled or complained of");
        let half = self.resident.len() / 2;
        let stored = half as f64 / 2.0 * PERIOD_SECONDS as f64 * self.rate / self.channels as f64;
        if stored < FILLED {
            println!("too short to judge memory: rings are still filling; fewer --channels fill sooner");
            return Ok(());
        }
        for number in 0..self.nodes.subjects.len() {
            let highest = |periods: &[Vec<u64>]| periods.iter().map(|nodes| nodes[number]).max().unwrap_or(0);
            let (before, after) = (highest(&self.resident[..half]), highest(&self.resident[half..]));
            ensure!(
                after as f64 <= before as f64 * MAX_GROWTH + GRAIN_BYTES,
                "node {number} grew from {before} to {after} resident bytes in the second half"
            );
        }
        println!("no node grew in the second half");
        Ok(())
    }
}
