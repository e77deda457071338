//! A small file system of its own, so that it can be full: in a name space that a process of ours keeps open.

use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// It is no fault of the server's.
#[derive(Debug)]
pub struct CannotMount;

pub struct Disk {
    holder: Child,
    directory: PathBuf,
    bytes: u64,
}

impl fmt::Display for CannotMount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no name space to mount a small file system in")
    }
}

impl std::error::Error for CannotMount {}

impl Disk {
    /// Mounts one at a directory. Fails where this is not allowed.
    pub fn mount(directory: &Path, bytes: u64) -> Result<Self> {
        const SCRIPT: &str = r#"mount -t tmpfs -o size="$1" faults "$2" && echo mounted && exec cat"#;
        let mut holder = Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-c", SCRIPT, "sh"])
            .arg(bytes.to_string())
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|_| CannotMount)?;
        let mut line = String::new();
        let output = holder.stdout.take().context("stdout was asked for")?;
        BufReader::new(output).read_line(&mut line)?;
        let disk = Self { holder, directory: directory.to_owned(), bytes };
        ensure!(line == "mounted\n", CannotMount);
        Ok(disk)
    }

    /// A command that runs inside.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.holder.id().to_string());
        command.args(["--user", "--mount", "--preserve-credentials"]).arg(program);
        command
    }

    /// The directory as it is seen from outside.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.holder.id(), self.directory.display()))
    }

    /// Takes all the room that is left.
    pub fn fill(&self) -> Result<()> {
        let mut file = File::create(self.filler())?;
        let block = [7; 4096];
        for _ in 0..2 * self.bytes / block.len() as u64 {
            if file.write_all(&block).is_err() {
                return Ok(());
            }
        }
        bail!("{} does not become full", self.directory.display())
    }

    /// Gives it back.
    pub fn free(&self) -> Result<()> {
        Ok(fs::remove_file(self.filler())?)
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
