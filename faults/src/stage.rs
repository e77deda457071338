//! A run: one server, its observers and publishers, their histories, and the verdict at the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tidewire_bench::api::App;

use crate::balancer::Balancer;
use crate::check::{self, EXPECT_FILE, Expect, Report};
use crate::crowd::Crowd;
use crate::history::{Act, History, Record};
use crate::observer::{Field, Plan};
use crate::publisher::{Load, Percent, Publisher, Publishers, Sockets};
use crate::reference;
use crate::server::{Server, Setup};
use crate::socket::Reading;

/// What every scenario is told.
#[derive(Clone, Debug)]
pub struct Options {
    pub binary: PathBuf,
    /// Where the runs have their directories.
    pub work: PathBuf,
    pub is_kept: bool,
    pub is_short: bool,
    /// `replay.durability`; empty = the default.
    pub durability: String,
    /// `server.workers`.
    pub workers: usize,
}

impl Options {
    /// The one for CI, or the full size.
    pub fn pick<T>(&self, short: T, full: T) -> T {
        if self.is_short { short } else { full }
    }
}

pub struct Stage<T = Server> {
    pub server: T,
    pub channels: Vec<String>,
    pub expect: Expect,
    pub crowds: Vec<Crowd>,
    /// `replay.rewind` of those who join at the end.
    pub late: &'static str,
    /// What the scenario found beside the invariants.
    pub findings: Report,
    published: Arc<History>,
    samples: History,
    directory: PathBuf,
    began: Instant,
    is_kept: bool,
}

/// What a run is played on: one server, or several nodes.
pub trait Target {
    fn balancer(&self) -> &Arc<Balancer>;
    fn app(&self) -> &App;
    /// An error when a process has ended by itself.
    fn is_alive(&mut self) -> Result<()>;
    fn last_words(&self) -> String;
    fn resident(&self) -> u64;
    fn stored(&self) -> u64;

    /// All observers are there, and nothing more is published.
    fn conclude(&mut self, _channels: &[String]) -> Result<()> {
        Ok(())
    }
}

/// A rule that keeps everything for as long as a run takes.
pub fn keep_all() -> Value {
    json!({ "rules": [{ "match": "*", "window": "24h", "max_messages": 10_000_000, "max_bytes": "16GiB",
                         "client_events": true }],
            "max_bytes": "16GiB" })
}

pub fn setup(replay: Value) -> Setup {
    let limits = json!({ "max_replay_messages": MAX_REPLAY, "max_message_bytes": 65_536 });
    let on_store_error = "reject";
    let (store_bytes, outbox_bytes, drain_seconds, disk_bytes) = (16 << 30, 1 << 20, 1, None);
    let (redis, admin) = (None, None);
    Setup {
        replay,
        limits,
        store_bytes,
        outbox_bytes,
        drain_seconds,
        disk_bytes,
        on_store_error,
        redis,
        admin,
    }
}

pub const MAX_REPLAY: u64 = 1_000_000;

/// Public and private ones by turns.
pub fn channels(count: usize) -> Vec<String> {
    let prefix = |number: usize| if number.is_multiple_of(2) { "faults" } else { "private-faults" };
    (0..count).map(|number| format!("{}-{number}", prefix(number))).collect()
}

/// Of every kind that has a rule of its own.
pub fn mixed_channels(count: usize) -> Vec<String> {
    let kinds = ["faults", "private-faults", "presence-faults", "cache-faults", "private-cache-faults"];
    (0..count).map(|number| format!("{}-{number}", kinds[number % kinds.len()])).collect()
}

impl Stage {
    /// Makes the directory and starts the server.
    pub fn open(
        name: &str,
        options: &Options,
        setup: Setup,
        expect: Expect,
        channels: Vec<String>,
    ) -> Result<Self> {
        let max_replay = setup.limits["max_replay_messages"].as_u64().unwrap_or(MAX_REPLAY);
        let expect = Expect { max_replay, ..expect };
        Self::open_on(name, options, expect, channels, |directory, _| {
            let mut server = Server::new(options, directory, setup)?;
            server.start()?;
            Ok(server)
        })
    }
}

impl<T: Target> Stage<T> {
    /// Makes the directory and starts what `start` does in it.
    pub fn open_on(
        name: &str,
        options: &Options,
        expect: Expect,
        channels: Vec<String>,
        start: impl FnOnce(&Path, Instant) -> Result<T>,
    ) -> Result<Self> {
        println!("\n== {name}");
        let directory = options.work.join(format!("{name}-{}", std::process::id()));
        // What a run left that was interrupted.
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(directory.join("history"))
            .with_context(|| format!("in {}", directory.display()))?;
        let began = Instant::now();
        let file = |name: &str| History::create(&directory.join("history").join(name), began);
        let published = Arc::new(file("publish.jsonl")?);
        let samples = file("samples.jsonl")?;
        Ok(Self {
            server: start(&directory, began)?,
            channels,
            expect,
            crowds: Vec::new(),
            late: "\"earliest\"",
            findings: Report::default(),
            published,
            samples,
            directory,
            began,
            is_kept: options.is_kept,
        })
    }

    /// An observer of `count` channels, the `number`th of its kind.
    pub fn plan(&self, kind: &str, number: usize, count: usize) -> Plan {
        let all = self.channels.len();
        let own = (0..count.min(all)).map(|step| self.channels[(number + step * 7 % all) % all].clone());
        let mut channels: Vec<String> = Vec::new();
        for channel in own {
            if !channels.contains(&channel) {
                channels.push(channel);
            }
        }
        Plan {
            name: format!("{kind}{number}"),
            channels,
            rewind: "",
            rejects_gaps: false,
            reading: Reading::FAST,
            silence: Duration::from_secs(30),
            pause: Duration::from_millis(200),
            starts_after: Duration::from_micros(200 * number as u64),
            talks_every: None,
            user: String::new(),
        }
    }

    /// Starts observers and waits until all are subscribed.
    pub fn watch(&mut self, plans: Vec<Plan>) -> Result<()> {
        let path = self.directory.join("history").join(format!("observe{}.jsonl", self.crowds.len()));
        let history = Arc::new(History::create(&path, self.began)?);
        let (balancer, app) = (Arc::clone(self.server.balancer()), self.server.app().clone());
        let field = move |received| Field { balancer, app, history, received };
        self.crowds.push(Crowd::start(plans, field)?);
        self.wait_until_subscribed(Duration::from_secs(60))
    }

    pub fn wait_until_subscribed(&mut self, patience: Duration) -> Result<()> {
        self.wait("all observers to be subscribed", patience, |stage| {
            stage.crowds.iter().all(|crowd| crowd.subscribed() == crowd.len())
        })
    }

    pub fn wait(
        &mut self,
        what: &str,
        patience: Duration,
        mut holds: impl FnMut(&mut Self) -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + patience;
        while !holds(self) {
            self.server.is_alive()?;
            if Instant::now() > deadline {
                let subscribed: Vec<usize> = self.crowds.iter().map(Crowd::subscribed).collect();
                bail!("waited in vain for {what}; subscribed: {subscribed:?}; {}", self.server.last_words());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Everybody's connections, for messages that leave one out.
    pub fn sockets(&self) -> Sockets {
        let of = |crowd: &Crowd| {
            let channels = crowd.plans().iter().map(|plan| plan.channels.clone());
            crowd.progress().iter().cloned().zip(channels).collect::<Vec<_>>()
        };
        self.crowds.iter().flat_map(of).collect()
    }

    pub fn publish(&self, prefix: &str, load: &Load, sockets: &Sockets) -> Result<Publishers> {
        Publishers::start(prefix, self.server.balancer(), self.server.app(), &self.published, load, sockets)
    }

    /// Where publishers write what they did.
    pub fn published(&self) -> &History {
        &self.published
    }

    pub fn app(&self) -> &App {
        self.server.app()
    }

    /// One that sends when it is told to.
    pub fn publisher(&self, name: &str) -> Publisher {
        Publisher::new(name, self.server.balancer(), self.server.app(), &self.published)
    }

    /// Everything a publisher can do, as fast as it is answered.
    pub fn load(&self, publishers: usize, bytes: usize) -> Load {
        let channels = self.channels.clone();
        Load { channels, publishers, per_second: 0.0, bytes, percent: Percent::MIXED }
    }

    pub fn received(&self) -> u64 {
        self.crowds.iter().map(Crowd::received).sum()
    }

    pub fn sample(&self) {
        let (rss, disk) = (self.server.resident(), self.server.stored());
        self.samples.note(&Record { p: "server", f: Act::Sample, rss, disk, ..Record::default() });
    }

    /// Lets late observers in and waits until everybody has come to the end of every log.
    fn settle(&mut self) -> Result<()> {
        self.crowds.iter().for_each(Crowd::hurry);
        if !self.late.is_empty() {
            let mut plans: Vec<_> =
                (0..self.channels.len()).map(|number| self.plan("late", number, 1)).collect();
            plans.iter_mut().for_each(|plan| plan.rewind = self.late);
            self.watch(plans)?;
        }
        let mut publisher = self.publisher("mark");
        let mut ends = Vec::new();
        for channel in self.channels.iter().filter(|channel| !check::is_ordinary(channel)) {
            let serial = publisher.send(channel, "").with_context(|| self.server.last_words())?;
            ends.push((channel.clone(), serial));
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        for (channel, serial) in &ends {
            // Whoever is behind after that is a violation, which the checker reports.
            while self.behind(channel, *serial) && Instant::now() < deadline {
                self.server.is_alive()?;
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }

    fn behind(&self, channel: &str, serial: u64) -> bool {
        self.crowds.iter().any(|crowd| !crowd.behind(channel, serial).is_empty())
    }

    /// Ends the run: last messages, the reference log, the verdict.
    pub fn finish(mut self) -> Result<Report> {
        self.settle()?;
        self.sample();
        self.server.conclude(&self.channels)?;
        let log = History::create(&self.directory.join("history/log.jsonl"), self.began)?;
        for channel in &self.channels {
            reference::read(self.server.balancer().address(0), self.server.app(), channel, &log)
                .with_context(|| format!("reading the log of {channel}"))?;
        }
        for crowd in &mut self.crowds {
            crowd.stop()?;
        }
        for history in [&*self.published, &self.samples, &log] {
            history.flush()?;
        }
        let took = self.began.elapsed();
        let history = self.directory.join("history");
        fs::write(history.join(EXPECT_FILE), serde_json::to_vec(&self.expect)?)?;
        let mut report = check::check(&history)?;
        report.join(std::mem::take(&mut self.findings));
        println!("{report}");
        println!(
            "  took       {:.1} s, and {:.1} s to check",
            took.as_secs_f64(),
            (self.began.elapsed() - took).as_secs_f64()
        );
        if report.is_clean() && !self.is_kept {
            drop(self.server);
            let _ = fs::remove_dir_all(&self.directory);
        } else {
            println!("  histories and log are in {}", self.directory.display());
        }
        Ok(report)
    }
}
