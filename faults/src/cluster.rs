//! Three nodes, their Redis, and the wires in between.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ValueEnum;
use rustix::process::Signal;
use serde::Deserialize;
use serde_json::json;
use tidewire_bench::api::App;

use crate::balancer::Balancer;
use crate::history::{Act, History, Record};
use crate::http::Connection;
use crate::proxy::Proxy;
use crate::redis::{Change, Form, Redis, free_address};
use crate::server::{Server, Setup};
use crate::stage::{Options, Target};

pub const NODES: usize = 3;
/// After the last outage and what follows from it: until nothing is under way.
const CALM: Duration = Duration::from_millis(2_500);

pub struct Node {
    pub server: Server,
    /// To a Redis that is alone.
    wire: Option<Proxy>,
}

/// Why nobody reaches Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Away {
    /// It ends in good order, and is started again.
    Ended,
    /// Every node is cut off from it.
    Cut,
    /// SIGSTOP: connections are there, and nothing is answered.
    Hung,
}

pub struct Cluster {
    pub redis: Redis,
    pub nodes: Vec<Node>,
    pub balancer: Arc<Balancer>,
    pub node_timeout: Duration,
    outages: History,
    /// Everything is as it should be from then on.
    calm_at: Instant,
    app: App,
}

/// `redis.node_timeout` and `redis.unready_after`, in whole seconds.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    pub node_timeout: Duration,
    pub unready_after: Duration,
}

/// A fault that goes on, of one node or of Redis.
#[derive(Clone, Copy)]
pub struct Outage {
    kind: &'static str,
    node: Option<usize>,
    began: u64,
}

#[derive(Deserialize)]
struct Users {
    users: Vec<User>,
}

#[derive(Deserialize)]
struct User {
    id: String,
}

impl Cluster {
    pub fn start(
        options: &Options,
        directory: &Path,
        setup: &Setup,
        form: Form,
        timing: &Timing,
        outages: History,
    ) -> Result<Self> {
        let redis = Redis::start(&directory.join("redis"), form)?;
        let mut nodes = Vec::new();
        for number in 0..NODES {
            let wire = redis.address().map(Proxy::start).transpose()?;
            let mut setup = setup.clone();
            let mut settings = redis.settings(wire.as_ref().map(Proxy::address));
            settings["node_timeout"] = json!(format!("{}s", timing.node_timeout.as_secs()));
            settings["unready_after"] = json!(format!("{}s", timing.unready_after.as_secs()));
            setup.redis = Some(settings);
            setup.admin = Some(free_address()?);
            let directory = directory.join(format!("node{number}"));
            nodes.push(Node { server: Server::new(options, &directory, setup)?, wire });
        }
        let balancer = Balancer::new(nodes.iter().map(|node| node.server.address).collect());
        let app = nodes[0].server.app.clone();
        let calm_at = Instant::now();
        let node_timeout = timing.node_timeout;
        let mut cluster = Self { redis, nodes, balancer, node_timeout, outages, calm_at, app };
        for node in &mut cluster.nodes {
            node.server.spawn()?;
        }
        for node in &mut cluster.nodes {
            node.server.wait_until_ready()?;
        }
        Ok(cluster)
    }

    /// Told to the checker when it [ends](Self::end).
    pub fn begin(&self, kind: &'static str, node: Option<usize>) -> Outage {
        Outage { kind, node, began: self.outages.now() }
    }

    pub fn end(&mut self, outage: Outage) {
        let Outage { kind, node, began } = outage;
        let node = node.and_then(|node| u8::try_from(node).ok());
        self.outages.note(&Record {
            p: "faults",
            f: Act::Outage,
            kind,
            node,
            t0: began,
            ..Record::default()
        });
        // A Redis that has forgotten is not believed at once who is gone.
        let share = if node.is_none() { 2 } else { 1 };
        self.calm_at = Instant::now() + self.node_timeout * share + CALM;
    }

    /// `kill -9`, and back after `pause`.
    pub fn kill(&mut self, node: usize, pause: Duration) -> Result<()> {
        let outage = self.begin("kill", Some(node));
        self.nodes[node].server.kill()?;
        std::thread::sleep(pause);
        self.nodes[node].server.start()?;
        self.end(outage);
        Ok(())
    }

    /// SIGSTOP, and SIGCONT after `pause`. A load balancer would have noticed.
    pub fn pause(&mut self, node: usize, pause: Duration) -> Result<()> {
        let outage = self.begin("stop", Some(node));
        self.balancer.take_out(node);
        self.nodes[node].server.signal(Signal::STOP)?;
        std::thread::sleep(pause);
        self.nodes[node].server.signal(Signal::CONT)?;
        self.balancer.put_back(node);
        self.end(outage);
        Ok(())
    }

    fn wires(&self) -> impl Iterator<Item = &Proxy> {
        self.nodes.iter().filter_map(|node| node.wire.as_ref())
    }

    /// Between a node and Redis: cut, or with `is_held` nothing gets through.
    pub fn cut(&mut self, node: usize, pause: Duration, is_held: bool) {
        let outage = self.begin(if is_held { "hold" } else { "cut" }, Some(node));
        if let Some(wire) = &self.nodes[node].wire {
            if is_held {
                wire.hold()
            } else {
                wire.cut()
            }
            std::thread::sleep(pause);
            wire.heal();
        }
        self.end(outage);
    }

    /// The connections of these nodes to Redis are dead from now on, and nobody is told.
    pub fn swallow(&self, nodes: impl Iterator<Item = usize>) {
        nodes.filter_map(|node| self.nodes[node].wire.as_ref()).for_each(Proxy::swallow);
    }

    /// SIGTERM, and back when it has ended.
    pub fn roll(&mut self, node: usize) -> Result<i32> {
        let outage = self.begin("drain", Some(node));
        let server = &mut self.nodes[node].server;
        server.signal(Signal::TERM)?;
        let status = server.wait(Duration::from_secs(60))?;
        server.start()?;
        self.end(outage);
        Ok(status)
    }

    /// Redis ends, as it is set up to, and is back after `pause`.
    pub fn restart_redis(&mut self, pause: Duration) -> Result<()> {
        let outage = self.begin("redis", None);
        self.redis.stop()?;
        std::thread::sleep(pause);
        self.redis.restart()?;
        self.end(outage);
        Ok(())
    }

    /// From now on no node reaches Redis.
    pub fn lose_redis(&mut self, how: Away) -> Result<Vec<Outage>> {
        let mut outages = vec![self.begin("redis", None)];
        match how {
            Away::Ended => self.redis.stop()?,
            Away::Hung => self.redis.signal(Signal::STOP)?,
            Away::Cut => self.wires().for_each(Proxy::cut),
        }
        if how != Away::Ended {
            // Redis has gone on, and leases have run out in it: the first to be back takes the others for dead.
            outages.extend((0..NODES).map(|node| self.begin("cut", Some(node))));
        }
        Ok(outages)
    }

    pub fn find_redis(&mut self, how: Away, outages: Vec<Outage>) -> Result<()> {
        match how {
            Away::Ended => self.redis.restart()?,
            Away::Hung => self.redis.signal(Signal::CONT)?,
            Away::Cut => self.wires().for_each(Proxy::heal),
        }
        outages.into_iter().for_each(|outage| self.end(outage));
        Ok(())
    }

    /// Another master takes over.
    pub fn change_master(&mut self, round: usize, how: Change) -> Result<()> {
        let outage = self.begin("fail-over", None);
        self.redis.change_master(round, how)?;
        self.end(outage);
        Ok(())
    }

    /// Who is in a presence channel, as one node tells it.
    fn users(&self, node: usize, channel: &str) -> Result<String> {
        let mut connection = Connection::new(self.nodes[node].server.address, Duration::from_secs(10));
        let answer = connection.call(&self.app.request("GET", &format!("channels/{channel}/users"), &[]))?;
        let users: Users = serde_json::from_slice(&answer.body)
            .with_context(|| format!("the users of {channel} were answered {}", answer.status))?;
        let names: Vec<String> = users.users.into_iter().map(|user| user.id).collect();
        Ok(names.join(" "))
    }
}

impl Target for Cluster {
    fn balancer(&self) -> &Arc<Balancer> {
        &self.balancer
    }

    fn app(&self) -> &App {
        &self.app
    }

    fn is_alive(&mut self) -> Result<()> {
        for node in self.nodes.iter_mut().filter(|node| node.server.pid().is_some()) {
            node.server.is_alive()?;
        }
        self.redis.is_alive()
    }

    fn last_words(&self) -> String {
        let words = self.nodes.iter().map(|node| node.server.last_words());
        words.collect::<Vec<_>>().join("\n    --\n    ")
    }

    fn resident(&self) -> u64 {
        self.nodes.iter().map(|node| node.server.resident()).max().unwrap_or(0)
    }

    fn stored(&self) -> u64 {
        0
    }

    /// When nothing happens any more, everybody knows the same.
    fn conclude(&mut self, channels: &[String]) -> Result<()> {
        // Those that came last, too.
        let calm_at = self.calm_at.max(Instant::now() + Duration::from_secs(1));
        std::thread::sleep(calm_at.saturating_duration_since(Instant::now()));
        self.outages.note(&Record { p: "faults", f: Act::Quiet, ..Record::default() });
        for node in 0..self.nodes.len() {
            for channel in channels.iter().filter(|channel| channel.starts_with("presence-")) {
                let users = self.users(node, channel)?;
                let own = Record { p: "users", f: Act::Census, ch: channel, ..Record::default() };
                self.outages.note(&Record { node: u8::try_from(node).ok(), users: &users, ..own });
            }
        }
        self.outages.flush()
    }
}
