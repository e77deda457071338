//! The server under test: a child process with a store of its own, to be killed, stopped and started again.

use std::fs::{self, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tidewire_bench::api::App;
use tidewire_bench::procfs;

use crate::balancer::Balancer;
use crate::disk::Disk;
use crate::http::Connection;
use crate::redis::free_address;
use crate::stage::{Options, Target};

/// A debug build on a busy machine, with a store to read.
const START: Duration = Duration::from_secs(30);
const READY: &[u8] = b"GET /ready HTTP/1.1\r\nHost: faults\r\n\r\n";

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// `apps[0].replay`.
    pub replay: Value,
    /// `apps[0].limits`.
    pub limits: Value,
    /// `replay.max_bytes`: a sixteenth of it is a slice.
    pub store_bytes: u64,
    pub drain_seconds: u64,
    /// What may wait for one client before it is sent to the log.
    pub outbox_bytes: u64,
    /// The store's directory is a file system of so many bytes of its own.
    pub disk_bytes: Option<u64>,
    /// `replay.on_store_error`.
    pub on_store_error: &'static str,
    /// `redis`: the server is one of several nodes.
    pub redis: Option<Value>,
    /// `admin.listen`; `None` = off.
    pub admin: Option<SocketAddr>,
}

pub struct Server {
    pub address: SocketAddr,
    pub app: App,
    binary: PathBuf,
    directory: PathBuf,
    setup: Setup,
    balancer: Arc<Balancer>,
    /// Dropped after the child.
    child: Option<Child>,
    disk: Option<Disk>,
}

impl Server {
    /// Prepares one on a free port; [`Server::start`] starts it.
    pub fn new(options: &Options, directory: &Path, setup: Setup) -> Result<Self> {
        let binary = &options.binary;
        let binary =
            fs::canonicalize(binary).with_context(|| format!("no server at {}", binary.display()))?;
        let address = free_address()?;
        let [id, key, secret] = ["42", "tw-faults-key", "tw-faults-secret"].map(str::to_owned);
        let app = App { id, key, secret, path_prefix: String::new() };
        let (directory, disk) = (directory.to_owned(), None);
        let balancer = Balancer::new(vec![address]);
        let mut server = Self { address, app, binary, directory, setup, balancer, child: None, disk };
        fs::create_dir_all(server.store())?;
        server.disk = server.setup.disk_bytes.map(|bytes| Disk::mount(&server.store(), bytes)).transpose()?;
        let mut configuration = server.configuration();
        configuration["server"]["workers"] = json!(options.workers);
        if let Some(redis) = &server.setup.redis {
            configuration["redis"] = redis.clone();
            let replay = json!({ "store": "redis", "max_bytes": server.setup.store_bytes });
            configuration["replay"] = replay;
        } else if !options.durability.is_empty() {
            configuration["replay"]["durability"] = json!(options.durability);
        }
        fs::write(server.config(), configuration.to_string())?;
        Ok(server)
    }

    fn config(&self) -> PathBuf {
        self.directory.join("config.json")
    }

    pub fn log(&self) -> PathBuf {
        self.directory.join("server.log")
    }

    pub fn store(&self) -> PathBuf {
        self.directory.join("store")
    }

    fn configuration(&self) -> Value {
        json!({
            "server": {
                "listen": self.address.to_string(),
                "drain_seconds": self.setup.drain_seconds,
                "outbox_bytes": self.setup.outbox_bytes,
                "max_handshakes": 16_384,
            },
            "admin": { "listen": self.setup.admin.map_or("off".to_owned(), |address| address.to_string()) },
            "log": { "level": "info", "format": "compact" },
            "replay": {
                "store": "sqlite",
                "dir": self.store(),
                "max_bytes": self.setup.store_bytes,
                "on_store_error": self.setup.on_store_error,
            },
            "apps": [{
                "id": self.app.id,
                "key": self.app.key,
                "secret": self.app.secret,
                "replay": self.setup.replay,
                "limits": self.setup.limits,
            }],
        })
    }

    /// Starts it and waits until it is ready.
    pub fn start(&mut self) -> Result<()> {
        self.spawn()?;
        self.wait_until_ready()
    }

    /// Starts it.
    pub fn spawn(&mut self) -> Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(self.log())?;
        let mut command = self.command();
        // The names of the suites would be settings of the server.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TIDEWIRE_") {
                command.env_remove(name);
            }
        }
        let child = command
            .current_dir(&self.directory)
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("starting the server")?;
        self.child = Some(child);
        Ok(())
    }

    fn command(&self) -> Command {
        let mut command =
            self.disk.as_ref().map_or_else(|| Command::new(&self.binary), |disk| disk.command(&self.binary));
        command.arg("--config").arg(self.config());
        command
    }

    /// A metric without labels.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let mut connection =
            Connection::new(self.setup.admin.context("no admin port")?, Duration::from_secs(5));
        let answer = connection.call(b"GET /metrics HTTP/1.1\r\nHost: faults\r\n\r\n")?;
        let text = String::from_utf8_lossy(&answer.body);
        let value = |line: &str| {
            let rest = line.strip_prefix(name)?;
            rest.strip_prefix("{}").unwrap_or(rest).strip_prefix(' ')?.parse().ok()
        };
        text.lines().find_map(value).with_context(|| format!("the server does not tell {name}"))
    }

    /// What `GET /ready` is answered.
    pub fn readiness(&self) -> Result<u16> {
        let mut connection = Connection::new(self.address, Duration::from_secs(5));
        Ok(connection.call(READY)?.status)
    }

    pub fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START;
        let mut connection = Connection::new(self.address, Duration::from_secs(1));
        while !connection.call(READY).is_ok_and(|answer| answer.status == 200) {
            if let Some(status) = self.exited()? {
                bail!("the server ended with {status}: {}", self.last_words());
            }
            if Instant::now() > deadline {
                bail!("the server did not become ready: {}", self.last_words());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn child(&mut self) -> Result<&mut Child> {
        self.child.as_mut().context("the server is not running")
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    fn exited(&mut self) -> Result<Option<std::process::ExitStatus>> {
        Ok(self.child()?.try_wait()?)
    }

    /// An error when the server has ended by itself.
    pub fn is_alive(&mut self) -> Result<()> {
        match self.exited()? {
            None => Ok(()),
            Some(status) => bail!("the server ended with {status}: {}", self.last_words()),
        }
    }

    /// `kill -9`, and its end.
    pub fn kill(&mut self) -> Result<()> {
        self.is_alive()?;
        self.signal(Signal::KILL)?;
        self.wait(Duration::from_secs(30)).map(|_| ())
    }

    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child()?.id())?;
        let pid = Pid::from_raw(pid).context("no process id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits for its end; the exit status, or the negated signal.
    pub fn wait(&mut self, patience: Duration) -> Result<i32> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.exited()? {
                self.child = None;
                return Ok(status.code().unwrap_or_else(|| -status.signal().unwrap_or(0)));
            }
            if Instant::now() > deadline {
                bail!("the server does not end: {}", self.last_words());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(8).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n    ")
    }

    /// The small file system that it was set up with.
    pub fn disk(&self) -> Option<&Disk> {
        self.disk.as_ref()
    }

    /// It has ended by itself, and may be started again.
    pub fn forget(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Target for Server {
    fn balancer(&self) -> &Arc<Balancer> {
        &self.balancer
    }

    fn app(&self) -> &App {
        &self.app
    }

    fn is_alive(&mut self) -> Result<()> {
        Self::is_alive(self)
    }

    fn last_words(&self) -> String {
        Self::last_words(self)
    }

    fn resident(&self) -> u64 {
        let pid = self.pid();
        pid.and_then(|pid| procfs::memory(&[pid]).ok()).map_or(0, |memory| memory.resident)
    }

    /// Bytes of the store.
    fn stored(&self) -> u64 {
        self.disk.as_ref().map_or_else(|| size(&self.store()), |disk| size(&disk.path()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already, or stopped: only this signal ends it in every state.
        self.forget();
    }
}

fn size(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.filter_map(Result::ok).map(of).sum()
}
