//! Redis servers that belong to one test.

#[path = "cut_proxy.rs"]
mod cut_proxy;
#[path = "redis_groups.rs"]
mod redis_groups;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use rand::Rng;
use redis::{Client, Connection, FromRedisValue};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tidewire::config::{RedisConfig, Secret};

pub use self::cut_proxy::CutProxy;
pub use self::redis_groups::{RedisCluster, Sentinel};

/// How long a server may take to do what it surely will.
const PATIENCE: Duration = Duration::from_secs(20);
/// Below the ports that the kernel gives to clients, so that a stopped server's port stays free.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// How a server is started.
#[derive(Clone, Default)]
pub struct Options {
    pub password: Option<String>,
    /// Everything is in the append-only file before it is acknowledged: nothing is lost by a kill.
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

/// A redis-server of its own in a directory of its own. It dies with this value, or with the test's process.
pub struct RedisServer {
    port: u16,
    directory: TempDir,
    options: Options,
    running: Mutex<Option<Running>>,
}

struct Running {
    server: Child,
    /// Kills the server when the test's process is gone, however it went.
    watchdog: Child,
}

impl RedisServer {
    /// Keeps nothing on disk.
    pub fn start() -> Self {
        Self::with(Options::default())
    }

    /// Keeps everything over a kill.
    pub fn durable() -> Self {
        Self::with(Options { appendonly: true, ..Options::default() })
    }

    pub fn with(options: Options) -> Self {
        Self::with_file(options, |_| None)
    }

    /// With a configuration file; `file` gets the port.
    pub fn with_file(options: Options, file: impl Fn(u16) -> Option<String>) -> Self {
        for _ in 0..20 {
            let port = free_port();
            let directory = tempfile::tempdir().unwrap();
            if let Some(text) = file(port) {
                fs::write(directory.path().join("redis.conf"), text).unwrap();
            }
            let server = Self { port, directory, options: options.clone(), running: Mutex::default() };
            if server.try_run() {
                return server;
            }
        }
        panic!("redis-server does not start on any port");
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Without the password.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// For a node of Tidewire, with the password.
    pub fn config(&self) -> RedisConfig {
        let mut config = config(&self.url(), &[]);
        config.password = Secret::new(self.options.password.as_deref().unwrap_or_default());
        config
    }

    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A connection apart from the code under test.
    pub fn client(&self) -> Connection {
        self.try_client().unwrap_or_else(|error| panic!("redis on port {}: {error}", self.port))
    }

    pub fn try_client(&self) -> redis::RedisResult<Connection> {
        let password =
            self.options.password.as_ref().map_or(String::new(), |password| format!(":{password}@"));
        let client = Client::open(format!("redis://{password}127.0.0.1:{}", self.port))?;
        let connection = client.get_connection_with_timeout(Duration::from_secs(5))?;
        connection.set_read_timeout(Some(PATIENCE))?;
        Ok(connection)
    }

    /// Runs one command, given as words.
    pub fn command<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_command(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    pub fn try_command<T: FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        command.query(&mut self.try_client()?)
    }

    /// A field of `INFO`.
    pub fn info(&self, field: &str) -> String {
        let info: String = self.command(&["INFO", "everything"]);
        let value = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.unwrap_or_else(|| panic!("INFO has no {field}")).trim().to_owned()
    }

    /// SIGKILL: clients see a reset, and what is not on disk is gone.
    pub fn kill(&self) {
        if let Some(running) = self.running.lock().unwrap().take() {
            running.end();
        }
    }

    /// On the same port, with what is on disk.
    pub fn restart(&self) {
        self.kill();
        let deadline = Instant::now() + PATIENCE;
        while !self.try_run() {
            assert!(Instant::now() < deadline, "redis-server does not start again on port {}", self.port);
        }
    }

    /// SIGSTOP: connections stay open, nothing is answered.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    pub fn is_running(&self) -> bool {
        self.running.lock().unwrap().is_some()
    }

    pub fn pid(&self) -> u32 {
        self.running.lock().unwrap().as_ref().expect("it runs").server.id()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    fn try_run(&self) -> bool {
        let mut command = Command::new("redis-server");
        let file = self.directory.path().join("redis.conf");
        if file.exists() {
            command.arg(&file);
        }
        if self.options.args.iter().any(|arg| arg == "--sentinel") {
            command.arg("--sentinel");
        } else {
            let appendonly = if self.options.appendonly { "yes" } else { "no" };
            command.args(["--port", &self.port.to_string(), "--save", "", "--appendonly", appendonly]);
            command.args(["--bind", "127.0.0.1", "--appendfsync", "always"]);
            command.args(&self.options.args);
            if let Some(password) = &self.options.password {
                command.args(["--requirepass", password, "--masterauth", password]);
            }
        }
        command.current_dir(self.directory.path()).stdin(Stdio::null());
        let log =
            fs::File::options().create(true).append(true).open(self.directory.path().join("log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let server = command.spawn().expect("redis-server is installed");
        let mut running = Running { watchdog: watchdog(server.id()), server };
        if self.answers(&mut running.server) {
            *self.running.lock().unwrap() = Some(running);
            return true;
        }
        running.end();
        false
    }

    /// Whether it is this server that answers on the port, and not another one's.
    fn answers(&self, server: &mut Child) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if server.try_wait().unwrap().is_some() {
                return false;
            }
            let own = format!("process_id:{}\r\n", server.id());
            match self.try_command::<String>(&["INFO", "server"]) {
                Ok(info) if info.contains(&own) && self.try_command::<String>(&["PING"]).is_ok() => {
                    return true;
                }
                Ok(info) if !info.contains(&own) => return false,
                _ => thread::sleep(Duration::from_millis(5)),
            }
        }
        false
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Running {
    fn end(mut self) {
        self.watchdog.kill().ok();
        self.watchdog.wait().ok();
        self.server.kill().ok();
        self.server.wait().ok();
    }
}

/// Reads from a pipe whose other end the test's process holds: it ends with it.
fn watchdog(pid: u32) -> Child {
    let script = format!("read _; kill -9 {pid}");
    let mut command = Command::new("sh");
    command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("sh is installed")
}

pub fn free_port() -> u16 {
    loop {
        let port = rand::rng().random_range(PORTS);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Sentinel {
    /// For a node of Tidewire.
    pub fn config(&self) -> RedisConfig {
        RedisConfig { sentinel_master: Self::MASTER.to_owned(), ..config(&self.url(), &self.nodes()) }
    }
}

impl RedisCluster {
    /// For a node of Tidewire.
    pub fn config(&self) -> RedisConfig {
        RedisConfig { cluster: true, ..config(&self.url(), &self.seeds()) }
    }
}

/// A node of Tidewire on these servers.
pub fn config(url: &str, nodes: &[String]) -> RedisConfig {
    RedisConfig {
        url: url.parse().unwrap(),
        nodes: nodes.iter().map(|node| node.parse().unwrap()).collect(),
        ..RedisConfig::default()
    }
}

/// Waits until something is true of a server.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come true within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(10));
    }
}
