//! What the nodes of a cluster have in common: a Redis, or several that belong together.

mod server;

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use rustix::process::Signal;
use serde_json::{Value, json};

pub use self::server::free_address;
use self::server::groups::{RedisCluster, Sentinel};
use self::server::{Options, RedisServer, wait_until};

/// There is no redis-server on this machine.
#[derive(Debug)]
pub struct NoRedis;

/// What a Redis has lost when it comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Loss {
    /// It ends in good order, with its append-only file.
    Nothing,
    /// `kill -9`: it writes the file at every second.
    Second,
    /// It has no file.
    Everything,
}

/// How many servers, and what they are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Alone(Loss),
    /// A master, two replicas and three sentinels.
    Sentinel,
    /// Redis Cluster: three masters, each with a replica.
    Masters,
}

/// How the others come to have another master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// `kill -9` of the old one, which comes back as a replica.
    Killed,
    /// It is told to.
    Ordered,
}

pub enum Redis {
    Alone(RedisServer, Loss),
    Sentinel(Sentinel),
    Masters(RedisCluster),
}

impl fmt::Display for NoRedis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("redis-server is not installed")
    }
}

impl std::error::Error for NoRedis {}

impl Form {
    /// Replication is asynchronous, as is writing a file: what was acknowledged last may be gone.
    pub fn may_lose(self) -> bool {
        self != Self::Alone(Loss::Nothing)
    }
}

impl Redis {
    pub fn start(directory: &Path, form: Form) -> Result<Self> {
        let version = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
        ensure!(version.is_ok(), NoRedis);
        let appendonly = form != Form::Alone(Loss::Everything);
        let options = Options { directory: directory.to_owned(), appendonly, args: Vec::new() };
        Ok(match form {
            Form::Alone(loss) => Self::Alone(RedisServer::start(options, |_| None)?, loss),
            Form::Sentinel => {
                // As docs/cluster.md has it.
                let options = options.arg("min-replicas-to-write", 1).arg("min-replicas-max-lag", 10);
                Self::Sentinel(Sentinel::with(&options, 2))
            }
            Form::Masters => Self::Masters(RedisCluster::with(&options, true)),
        })
    }

    /// The only one, to which there may be a wire.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Alone(server, _) => Some(server.address()),
            _ => None,
        }
    }

    /// `redis` of a node; `through` leads to the only one.
    pub fn settings(&self, through: Option<SocketAddr>) -> Value {
        match self {
            Self::Alone(server, _) => {
                json!({ "url": format!("redis://{}", through.unwrap_or(server.address())) })
            }
            Self::Sentinel(group) => {
                json!({ "url": group.url(), "nodes": group.nodes(), "sentinel_master": Sentinel::MASTER })
            }
            Self::Masters(group) => json!({ "url": group.url(), "nodes": group.seeds(), "cluster": true }),
        }
    }

    fn servers(&mut self) -> Vec<&mut RedisServer> {
        match self {
            Self::Alone(server, _) => vec![server],
            Self::Sentinel(group) => group.servers.iter_mut().chain(&mut group.sentinels).collect(),
            Self::Masters(group) => group.masters.iter_mut().chain(&mut group.replicas).collect(),
        }
    }

    pub fn is_alive(&mut self) -> Result<()> {
        self.servers().into_iter().try_for_each(RedisServer::is_alive)
    }

    /// All of them end, as they are set up to.
    pub fn stop(&mut self) -> Result<()> {
        let Self::Alone(server, Loss::Nothing) = self else {
            self.servers().into_iter().for_each(RedisServer::kill);
            return Ok(());
        };
        server.stop()
    }

    /// With what is on disk.
    pub fn restart(&mut self) -> Result<()> {
        self.servers().into_iter().try_for_each(RedisServer::restart)
    }

    /// SIGSTOP or SIGCONT for all of them.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.servers().into_iter().try_for_each(|server| server.signal(signal))
    }

    /// Scripts are sent by their hash: now nobody knows one.
    pub fn forget_scripts(&mut self) -> Result<()> {
        for server in self.servers() {
            server.try_command::<()>(&["SCRIPT", "FLUSH", "SYNC"]).context("SCRIPT FLUSH")?;
        }
        Ok(())
    }

    /// Another server becomes the master, the `round`th time; returns when it is one, and the old one has ended or obeys.
    pub fn change_master(&mut self, round: usize, how: Change) -> Result<()> {
        match self {
            Self::Alone(..) => bail!("one Redis alone has no successor"),
            Self::Sentinel(group) => {
                let old = group.master_port();
                let number = group.servers.iter().position(|server| server.port() == old);
                let number = number.context("the sentinels name a server that is not theirs")?;
                match how {
                    Change::Killed => group.servers[number].kill(),
                    Change::Ordered => group.fail_over(),
                }
                wait_until("another master", || {
                    group.master_port() != old && group.master().info("role") == "master"
                });
                if how == Change::Ordered {
                    wait_until("the old master obeys", || group.servers[number].info("role") == "slave");
                }
            }
            Self::Masters(group) => {
                let shard = round % group.masters.len();
                let is_first = group.masters[shard].info("role") == "master";
                let (old, new) = (&mut group.masters[shard], &mut group.replicas[shard]);
                let (old, new) = if is_first { (old, new) } else { (new, old) };
                match how {
                    Change::Killed => old.kill(),
                    Change::Ordered => {
                        new.try_command::<()>(&["CLUSTER", "FAILOVER"]).context("the order")?
                    }
                }
                wait_until("another master", || new.info("role") == "master");
                group.wait_until_ok();
            }
        }
        Ok(())
    }

    /// Who was killed is back, and all replicas follow their masters.
    pub fn mend(&mut self) -> Result<()> {
        for server in self.servers() {
            if !server.is_running() {
                server.restart()?;
            }
        }
        match self {
            Self::Alone(..) => {}
            Self::Sentinel(group) => wait_until("replicas that follow", || {
                let is_up = |server: &RedisServer| server.info("master_link_status") == "up";
                group.servers.iter().filter(|server| is_up(server)).count() == group.servers.len() - 1
            }),
            Self::Masters(group) => {
                group.wait_until_ok();
                let pairs = || group.masters.iter().zip(&group.replicas);
                let is_up = |server: &RedisServer| server.info("master_link_status") == "up";
                wait_until("replicas that follow", || pairs().all(|(one, other)| is_up(one) || is_up(other)));
            }
        }
        Ok(())
    }
}
