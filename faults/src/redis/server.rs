//! A Redis server of its own, as a child process: alone, or one of those in [`groups`].

#[path = "../../../tests/common/redis_groups.rs"]
#[allow(dead_code, reason = "the tests of the server use the rest")]
pub mod groups;

use std::fs::{self, OpenOptions};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use redis::{Client, FromRedisValue, RedisResult};
use rustix::process::{Pid, Signal, kill_process};
use tidewire_bench::random::Random;

/// How long a server may take to do what it surely will.
const PATIENCE: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(5);

/// How a server is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// In which each server has a directory of its own.
    pub directory: PathBuf,
    /// It writes its file at every second; otherwise it has none.
    pub appendonly: bool,
    /// Further arguments, as `--name value`.
    pub args: Vec<String>,
}

impl Options {
    pub fn arg(mut self, name: &str, value: impl ToString) -> Self {
        self.args.extend([format!("--{name}"), value.to_string()]);
        self
    }
}

pub struct RedisServer {
    address: SocketAddr,
    directory: PathBuf,
    options: Options,
    child: Option<Child>,
}

impl RedisServer {
    pub fn start(options: Options, file: impl Fn(u16) -> Option<String>) -> Result<Self> {
        let mut last = None;
        for _ in 0..20 {
            let address = free_address()?;
            let directory = options.directory.join(format!("redis-{}", address.port()));
            fs::create_dir_all(&directory)?;
            if let Some(text) = file(address.port()) {
                fs::write(directory.join("redis.conf"), text)?;
            }
            let mut server = Self { address, directory, options: options.clone(), child: None };
            match server.restart() {
                Ok(()) => return Ok(server),
                // Somebody else has taken the port meanwhile.
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no port was tried")?)
    }

    /// For groups of servers, which are nothing without all of their members.
    fn with(options: Options) -> Self {
        Self::with_file(options, |_| None)
    }

    fn with_file(options: Options, file: impl Fn(u16) -> Option<String>) -> Self {
        Self::start(options, file).expect("a Redis server starts")
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn addr(&self) -> SocketAddr {
        self.address
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Starts it with what is on disk, and waits until it answers.
    pub fn restart(&mut self) -> Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(self.directory.join("redis.log"))?;
        let mut command = Command::new("redis-server");
        let file = self.directory.join("redis.conf");
        if file.exists() {
            command.arg(file);
        }
        if self.options.args.iter().any(|arg| arg == "--sentinel") {
            command.arg("--sentinel");
        } else {
            let appendonly = if self.options.appendonly { "yes" } else { "no" };
            command.args(["--port", &self.port().to_string(), "--bind", "127.0.0.1", "--save", ""]);
            command.args(["--appendonly", appendonly, "--appendfsync", "everysec"]);
            command.args(["--maxmemory-policy", "noeviction"]);
            command.args(["--client-output-buffer-limit", "pubsub", "256mb", "64mb", "60"]);
            command.args(&self.options.args);
        }
        command.current_dir(&self.directory).stdin(Stdio::null());
        let child = command.stdout(log.try_clone()?).stderr(log).spawn().context("starting redis-server")?;
        let own = format!("process_id:{}\r\n", child.id());
        self.child = Some(child);
        let deadline = Instant::now() + PATIENCE;
        while !self.answers(&own) {
            self.is_alive()?;
            ensure!(Instant::now() < deadline, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Whether it is this server that has loaded its data, and not another one on the port.
    fn answers(&self, own: &str) -> bool {
        let info = self.try_command::<String>(&["INFO", "server"]);
        info.is_ok_and(|info| info.contains(own)) && self.try_command::<String>(&["PING"]).is_ok()
    }

    pub fn is_alive(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        match child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("redis-server ended with {status}"),
        }
    }

    /// Nobody has ended it.
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.child.as_ref().context("redis-server does not run")?;
        let pid = Pid::from_raw(i32::try_from(child.id())?).context("no process id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// In good order.
    pub fn stop(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + PATIENCE;
        while let Some(child) = &mut self.child {
            if child.try_wait()?.is_some() {
                self.child = None;
            }
            ensure!(Instant::now() < deadline, "redis-server does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// `kill -9`: what is not in the file is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Runs one command, given as words.
    pub fn try_command<T: FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(*word);
        }
        let mut connection = Client::open(self.url())?.get_connection_with_timeout(ANSWER)?;
        connection.set_read_timeout(Some(ANSWER))?;
        command.query(&mut connection)
    }

    fn command<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let answer = self.try_command(words).with_context(|| format!("{words:?} on port {}", self.port()));
        answer.expect("Redis answers")
    }

    /// A field of `INFO`; empty if the server does not answer, or has none.
    pub fn info(&self, field: &str) -> String {
        let info: String = self.try_command(&["INFO", "everything"]).unwrap_or_default();
        let value = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.unwrap_or_default().trim().to_owned()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits until something is true of a server.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come true within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn free_port() -> u16 {
    free_address().expect("a port is free").port()
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
