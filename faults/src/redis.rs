//! The Redis of a cluster: a child process of its own.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use rustix::process::{Pid, Signal, kill_process};
use tidewire_bench::random::Random;

const PATIENCE: Duration = Duration::from_secs(20);

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

pub struct Redis {
    pub address: SocketAddr,
    directory: PathBuf,
    loss: Loss,
    child: Option<Child>,
}

impl fmt::Display for NoRedis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("redis-server is not installed")
    }
}

impl std::error::Error for NoRedis {}

impl Redis {
    pub fn start(directory: &Path, loss: Loss) -> Result<Self> {
        let version = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
        ensure!(version.is_ok(), NoRedis);
        fs::create_dir_all(directory)?;
        let address = free_address()?;
        let mut redis = Self { address, directory: directory.to_owned(), loss, child: None };
        redis.restart()?;
        Ok(redis)
    }

    pub fn url_through(address: SocketAddr) -> String {
        format!("redis://{address}")
    }

    /// Starts it with what is on disk, and waits until it answers.
    pub fn restart(&mut self) -> Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(self.directory.join("redis.log"))?;
        let mut command = Command::new("redis-server");
        let appendonly = if self.loss == Loss::Everything { "no" } else { "yes" };
        command.args(["--port", &self.address.port().to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.args(["--appendonly", appendonly, "--appendfsync", "everysec"]);
        command.args(["--maxmemory-policy", "noeviction"]);
        command.args(["--client-output-buffer-limit", "pubsub", "256mb", "64mb", "60"]);
        command.current_dir(&self.directory).stdin(Stdio::null());
        let child = command.stdout(log.try_clone()?).stderr(log).spawn().context("starting redis-server")?;
        self.child = Some(child);
        let deadline = Instant::now() + PATIENCE;
        while self.ask().is_err() {
            self.is_alive()?;
            if Instant::now() > deadline {
                bail!("redis-server does not answer");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn ask(&self) -> Result<()> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 7];
        stream.read_exact(&mut answer)?;
        ensure!(&answer == b"+PONG\r\n", "it is still loading");
        Ok(())
    }

    pub fn is_alive(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        match child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("redis-server ended with {status}"),
        }
    }

    /// Ends it.
    pub fn stop(&mut self) -> Result<()> {
        let Some(child) = self.child.as_mut().filter(|_| self.loss == Loss::Nothing) else {
            self.kill();
            return Ok(());
        };
        let pid = Pid::from_raw(i32::try_from(child.id())?).context("no process id")?;
        kill_process(pid, Signal::TERM)?;
        let deadline = Instant::now() + PATIENCE;
        while child.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "redis-server does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.child = None;
        Ok(())
    }

    /// `kill -9`: what is not in the file is gone.
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Below the ports that the kernel gives to clients, so that it is still free when a process comes back to it.
pub fn free_address() -> Result<SocketAddr> {
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos() as u64;
    let mut random = Random::new(seed ^ u64::from(std::process::id()) << 32);
    for _ in 0..100 {
        let port = 12_000 + random.below(20_000) as u16;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no free port on loopback")
}
