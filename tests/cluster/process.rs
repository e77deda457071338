//! A node that is a process of its own, to be stopped in ways that a thread cannot be.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tidewire::clock::Clock;

use crate::common::nodes::Place;
use crate::common::{Client, Credentials, Rest, Upgrade};

/// `tidewire serve` with app 42. It is killed when this value is dropped.
pub struct Process {
    child: Child,
    addr: SocketAddr,
    // Its working directory: no `config.json` of a developer is found there.
    _directory: tempfile::TempDir,
}

impl Process {
    pub fn start(place: &Place, node_timeout: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = command(directory.path(), &place.url());
        command.env("TIDEWIRE_REDIS__PREFIX", place.prefix());
        command.env("TIDEWIRE_REDIS__NODE_TIMEOUT", node_timeout);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // Where it listens is in its log, for port 0 is any.
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut lines = log.lines().map_while(Result::ok);
        let addr = lines.by_ref().find_map(|line| address_in(&line));
        let addr = addr.unwrap_or_else(|| panic!("the node does not say where it listens"));
        // Nobody reads the rest; a full pipe would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        let mut page = child.stdout.take().unwrap();
        std::thread::spawn(move || drop(page.read_to_end(&mut Vec::new())));
        Self { child, addr, _directory: directory }
    }

    pub fn rest(&self) -> Rest {
        let (addr, clock) = (self.addr, Clock::default());
        Rest { addr, clock, credentials: Credentials::default(), prefix: String::new(), settled: None }
    }

    pub async fn connect(&self) -> Client {
        let upgrade = Upgrade::get("/app/tw-demo-key?protocol=7");
        Client::greeted(upgrade.send(self.addr).await.upgraded(), self.rest()).await
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGSTOP: its connections stay open, and it does nothing.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Runs `tidewire serve` on a Redis that it cannot use, to its end.
pub fn fail_to_start(url: &str, settings: &[(&str, &str)]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    command(directory.path(), url).envs(settings.iter().copied()).output().unwrap()
}

fn command(directory: &std::path::Path, url: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "off", "--workers", "2"]);
    command.current_dir(directory).env_clear().stdin(Stdio::null());
    command.env("TIDEWIRE_REDIS__URL", url);
    for (name, value) in [
        ("TIDEWIRE_APP_ID", "42"),
        ("TIDEWIRE_APP_KEY", "tw-demo-key"),
        ("TIDEWIRE_APP_SECRET", "tw-demo-secret"),
    ] {
        command.env(name, value);
    }
    command
}

/// The address in what a node logs when it has started.
fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once(r#""listen":"["#)?;
    rest.split_once(']')?.0.parse().ok()
}
