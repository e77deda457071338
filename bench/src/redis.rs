//! A Redis of the bench's own, and what it tells of its work.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::procfs;
use crate::subject::free_address;

const START_DEADLINE: Duration = Duration::from_secs(10);

/// `redis-server` on a free port, which keeps nothing on disk.
pub struct Redis {
    process: Child,
    address: SocketAddr,
    directory: PathBuf,
}

/// What Redis has done so far, by its own account.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Work {
    commands: HashMap<String, Calls>,
    /// Reads from sockets.
    pub reads: u64,
    /// Commands of clients, those of scripts not counted again.
    pub processed: u64,
}

/// Of one command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    pub count: u64,
    /// Time in the command itself: reading it and writing the answer are not in it, commands of a script are.
    pub microseconds: u64,
}

impl Redis {
    pub fn start() -> Result<Self> {
        let address = free_address()?;
        let directory = std::env::temp_dir().join(format!("tidewire-bench-redis-{}", address.port()));
        fs::create_dir_all(&directory)?;
        let process = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
            .args(["--save", "", "--appendonly", "no", "--logfile", "redis.log"])
            .current_dir(&directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("redis-server: install it (Debian: redis-server), or choose scenarios with --only")?;
        let mut redis = Redis { process, address, directory };
        let deadline = Instant::now() + START_DEADLINE;
        while redis.work().is_err() {
            let ended = redis.process.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(redis.directory.join("redis.log")).unwrap_or_default();
                bail!("redis-server did not start: {log}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(redis)
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// CPU time of all its threads so far.
    pub fn cpu(&self) -> Result<Duration> {
        procfs::cpu(&[self.process.id()]).context("Redis")
    }

    /// Asks on a connection of its own, which Redis counts as well: a handful of reads in a round of thousands.
    pub fn work(&self) -> Result<Work> {
        Work::parse(&self.ask("INFO commandstats stats").context("asking Redis")?)
    }

    /// A command that is answered with one text.
    fn ask(&self, command: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(format!("{command}\r\n").as_bytes())?;
        let mut answer = BufReader::new(stream);
        let mut head = String::new();
        answer.read_line(&mut head)?;
        let length = head.trim_end().strip_prefix('$').with_context(|| format!("Redis said {head:?}"))?;
        let mut text = vec![0; length.parse()?];
        answer.read_exact(&mut text)?;
        Ok(String::from_utf8(text)?)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may be gone already; either way nothing is left to do about it.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Work {
    /// The answer to `INFO`.
    fn parse(info: &str) -> Result<Self> {
        let mut work = Work::default();
        let number = |text: &str| text.parse::<u64>().with_context(|| format!("{text:?} in INFO"));
        for (name, value) in info.lines().filter_map(|line| line.split_once(':')) {
            match name {
                "total_reads_processed" => work.reads = number(value)?,
                "total_commands_processed" => work.processed = number(value)?,
                _ => {}
            }
            let Some(command) = name.strip_prefix("cmdstat_") else { continue };
            let field = |name: &str| {
                let mut fields = value.split(',').filter_map(|field| field.split_once('='));
                fields.find(|field| field.0 == name).map_or(Ok(0), |field| number(field.1))
            };
            let calls = Calls { count: field("calls")?, microseconds: field("usec")? };
            work.commands.insert(command.to_owned(), calls);
        }
        ensure!(work.processed > 0, "INFO without its statistics");
        Ok(work)
    }

    /// What was done after `before`.
    pub fn since(&self, before: &Self) -> Self {
        let calls = |(name, after): (&String, &Calls)| {
            let before = before.of(name);
            let count = after.count - before.count;
            (name.clone(), Calls { count, microseconds: after.microseconds - before.microseconds })
        };
        Work {
            commands: self.commands.iter().map(calls).collect(),
            reads: self.reads - before.reads,
            processed: self.processed - before.processed,
        }
    }

    /// Calls of a command; none if it was never given.
    pub fn of(&self, command: &str) -> Calls {
        self.commands.get(command).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "# Stats\r\ntotal_commands_processed:10\r\ntotal_reads_processed:4\r\n\
                          # Commandstats\r\ncmdstat_publish:calls=3,usec=12,usec_per_call=4.00,failed_calls=0\r\n";
    const AFTER: &str = "# Stats\r\ntotal_commands_processed:110\r\ntotal_reads_processed:14\r\n\
                         # Commandstats\r\ncmdstat_publish:calls=93,usec=102,usec_per_call=1.1,failed_calls=0\r\n\
                         cmdstat_config|get:calls=1,usec=5,usec_per_call=5.00\r\n";

    #[test]
    fn work_is_what_was_done_since() {
        let work = Work::parse(AFTER).unwrap().since(&Work::parse(BEFORE).unwrap());
        assert_eq!(work.of("publish"), Calls { count: 90, microseconds: 90 });
        assert_eq!(work.of("config|get"), Calls { count: 1, microseconds: 5 });
        assert_eq!(work.of("evalsha"), Calls::default());
        assert_eq!((work.reads, work.processed), (10, 100));
    }

    #[test]
    fn an_answer_without_figures_is_an_error() {
        assert!(Work::parse("# Server\r\nredis_version:7.0.15\r\n").is_err());
        assert!(Work::parse("total_commands_processed:many\r\n").is_err());
    }
}
