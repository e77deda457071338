//! A server under measurement: one of ours, started for a scenario, or one that somebody else runs.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::api::App;
use crate::procfs::{self, Memory};
use crate::target::Target;

const START_DEADLINE: Duration = Duration::from_secs(10);
/// What follows the last delivery (answers, timers, freed memory) gets this long before the clock is read.
const QUIET: Duration = Duration::from_millis(5);

pub struct Subject {
    pub name: String,
    pub address: SocketAddr,
    pub app: App,
    /// Events one batch call may carry.
    pub max_batch: usize,
    /// The project's own server: started fresh, and measured against the project's marks.
    pub ours: bool,
    pids: Vec<u32>,
    process: Option<Server>,
}

/// `NAME=URL@PID[,PID…]`
#[derive(Clone, Debug)]
pub struct External {
    name: String,
    target: Target,
    pids: Vec<u32>,
}

impl std::str::FromStr for External {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split_once('=').and_then(|(name, rest)| Some((name, rest.rsplit_once('@')?)));
        let (name, (url, pids)) = parts.context("expected NAME=URL@PID")?;
        let pids = pids.split(',').map(str::parse).collect::<Result<_, _>>().context("PIDs are numbers")?;
        Ok(External { name: name.to_owned(), target: url.parse()?, pids })
    }
}

impl Subject {
    pub fn external(external: &External, app: &App, max_batch: usize) -> Self {
        Subject {
            name: external.name.clone(),
            address: external.target.address,
            app: App { path_prefix: external.target.path_prefix.clone(), ..app.clone() },
            max_batch,
            ours: false,
            pids: external.pids.clone(),
            process: None,
        }
    }

    /// Starts the binary on a free port, with the limits raised that a benchmark runs into, and the environment's
    /// `settings`.
    pub fn start(binary: &Path, workers: usize, settings: &[(&str, &str)]) -> Result<Self> {
        let app = App {
            id: "1".into(),
            key: "app-key".into(),
            secret: "app-secret".into(),
            path_prefix: String::new(),
        };
        let address = free_address()?;
        let server = Server::start(binary, workers, address, &app, settings)?;
        Ok(Subject {
            name: "tidewire".into(),
            address,
            app,
            max_batch: 64,
            ours: true,
            pids: vec![server.child.id()],
            process: Some(server),
        })
    }

    pub fn memory(&self) -> Result<Memory> {
        procfs::memory(&self.pids).with_context(|| self.trouble())
    }

    /// CPU time so far, read when the server has become quiet.
    pub fn cpu(&self) -> Result<Duration> {
        std::thread::sleep(QUIET);
        procfs::cpu(&self.pids).with_context(|| self.trouble())
    }

    /// CPU time so far of several servers together.
    pub fn cpu_of(subjects: &[Subject]) -> Result<Duration> {
        std::thread::sleep(QUIET);
        let each =
            subjects.iter().map(|subject| procfs::cpu(&subject.pids).with_context(|| subject.trouble()));
        each.sum()
    }

    /// What the server complained of since it was started.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.process.as_ref().map(|server| fs::read_to_string(&server.log).unwrap_or_default());
        let is_complaint =
            |line: &&str| line.contains(r#""level":"WARN""#) || line.contains(r#""level":"ERROR""#);
        log.unwrap_or_default().lines().filter(is_complaint).map(str::to_owned).collect()
    }

    /// What the server wrote, for errors.
    pub fn trouble(&self) -> String {
        let log = self.process.as_ref().map(|server| fs::read_to_string(&server.log).unwrap_or_default());
        let log = log.unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(5).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        format!("{} {}", self.name, tail.join("\n"))
    }
}

struct Server {
    child: Child,
    directory: PathBuf,
    log: PathBuf,
}

impl Server {
    fn start(
        binary: &Path,
        workers: usize,
        address: SocketAddr,
        app: &App,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let binary = fs::canonicalize(binary)
            .with_context(|| format!("{}: build it with `cargo build --release`", binary.display()))?;
        // A directory of its own, so that no config.json of the place it was called from is found.
        let directory = std::env::temp_dir().join(format!("tidewire-bench-{}", address.port()));
        fs::create_dir_all(&directory)?;
        let log = directory.join("stderr.log");
        let mut command = Command::new(binary);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TIDEWIRE_") {
                command.env_remove(name);
            }
        }
        let child = command
            .current_dir(&directory)
            .env("TIDEWIRE_SERVER__LISTEN", address.to_string())
            .env("TIDEWIRE_SERVER__WORKERS", workers.to_string())
            .env("TIDEWIRE_ADMIN__LISTEN", "127.0.0.1:0")
            .env("TIDEWIRE_LOG", "warn")
            .env("TIDEWIRE_LOG__FORMAT", "json")
            .env("TIDEWIRE_APP_ID", &app.id)
            .env("TIDEWIRE_APP_KEY", &app.key)
            .env("TIDEWIRE_APP_SECRET", &app.secret)
            .env("TIDEWIRE_LIMITS__MAX_BATCH_EVENTS", "64")
            .env("TIDEWIRE_LIMITS__CLIENT_EVENTS_PER_SECOND", "1000000")
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()?;
        let mut server = Server { child, directory, log };
        server.wait_until_it_listens(address)?;
        Ok(server)
    }

    fn wait_until_it_listens(&mut self, address: SocketAddr) -> Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        while TcpStream::connect(address).is_err() {
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                bail!("the server did not start: {}", fs::read_to_string(&self.log).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already; either way nothing is left to do about it.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A port nobody listens on now. Somebody else could take it before the server does: then the server says so.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
