//! Fault injection: breaks a real server, or three on one Redis, and checks what every client saw.

mod all;
mod balancer;
mod check;
mod cluster;
mod crowd;
mod disk;
mod following;
mod history;
mod http;
mod junit;
mod membership;
mod observer;
mod proxy;
mod publisher;
mod redis;
mod reference;
mod scenario;
mod server;
mod socket;
mod stage;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};

use self::check::Report;
use self::cluster::Away;
use self::disk::CannotMount;
use self::junit::{Case, Verdict};
use self::redis::{Form, Loss, NoRedis};
use self::scenario::damage::{self, Harm};
use self::scenario::{
    cap, churn, drain, full, generation, herd, kill, nodes, purge, rollback, slow, soak, stop, trim,
};
use self::stage::Options;

/// Breaks a real server in every way it must stand, and checks what every client saw.
///
/// Each scenario starts the server as a child process with a store in a temporary directory. Publishers retry with
/// idempotency keys, observers come back with their positions, and all of them write down what they did and saw. An
/// offline checker then judges the histories: nothing lost, twice, out of order or contradictory, and nobody told to
/// start over without need. In a cluster it judges presence, too: who was told of whom, against who was there. Exit
/// status 1: something was violated.
#[derive(Parser)]
#[command(version, max_term_width = 110)]
struct Cli {
    /// The server
    #[arg(long, env = "TIDEWIRE_BIN", default_value = "target/release/tidewire", global = true)]
    server_bin: PathBuf,
    /// Where the runs have their directories; default: the system's temporary directory
    #[arg(long, global = true)]
    work_dir: Option<PathBuf>,
    /// Keep histories and stores of runs without a violation, too
    #[arg(long, global = true)]
    keep: bool,
    /// The size for CI
    #[arg(long, global = true)]
    short: bool,
    /// replay.durability of the server: always, interval or none
    #[arg(long, global = true, default_value = "")]
    durability: String,
    /// server.workers; 0 = one for each core
    #[arg(long, global = true, default_value_t = 0)]
    workers: usize,
    /// Write a JUnit report
    #[arg(long, global = true)]
    junit: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Subcommand)]
enum Command {
    /// Every scenario but the soak
    All {
        /// At a time
        #[arg(long, default_value_t = 1)]
        jobs: usize,
    },
    /// kill -9 in the middle of publishing, again and again
    Kill {
        #[arg(long)]
        times: Option<usize>,
    },
    /// New generations whose first message is not for everybody
    Generation,
    /// Clients that come, go, ask again and talk
    Churn,
    /// SIGTERM with thousands of clients
    Drain {
        #[arg(long)]
        clients: Option<usize>,
    },
    /// SIGSTOP for seconds
    Stop,
    /// Readers at 1 KB/s on a busy channel
    Slow,
    /// Logs trimmed by count while clients are away or catching up
    Trim,
    /// Logs trimmed by age
    Expire,
    /// More messages than are replayed at once
    Many,
    /// A full disk
    Full {
        /// With `on_store_error` = `live_only`
        #[arg(long)]
        live: bool,
    },
    /// A store that has lost its end, as after a power cut
    Rollback,
    /// A store that is smaller than what is published
    Cap,
    /// History that is purged while others read it
    Purge,
    /// A damaged file of the store
    Damage {
        #[arg(long, value_enum, default_value = "flip")]
        harm: Harm,
        /// While the server runs
        #[arg(long)]
        open: bool,
    },
    /// Thousands of clients cut off at once
    Herd {
        #[arg(long)]
        clients: Option<usize>,
    },
    /// Millions of deliveries with faults all the while
    Soak {
        #[arg(long, default_value_t = 12_000_000)]
        deliveries: u64,
        #[arg(long, default_value_t = 780)]
        seconds: u64,
    },
    /// kill -9 of each of three nodes in turn
    ClusterKill {
        #[arg(long)]
        times: Option<usize>,
    },
    /// SIGSTOP of a node for longer than its lease
    ClusterStop,
    /// A node that does not reach Redis
    ClusterCut,
    /// A Redis that is away and comes back
    ClusterRedis {
        #[arg(long, value_enum, default_value = "nothing")]
        loses: Loss,
    },
    /// No node reaches Redis for a while
    ClusterOutage {
        /// How long, one after the other: 2s,20s,5m
        #[arg(long, value_delimiter = ',', value_parser = duration)]
        outages: Vec<Duration>,
        #[arg(long, value_enum, default_value = "ended")]
        how: Away,
    },
    /// A connection to Redis that is dead without an end
    ClusterHalfOpen,
    /// SCRIPT FLUSH under load
    ClusterFlush,
    /// A master that dies, or is told to go, and Sentinel
    ClusterSentinel,
    /// The same in a Redis Cluster
    ClusterMasters,
    /// SIGTERM for one node after the other
    ClusterDrain,
    /// All faults of a cluster in any order
    ClusterSoak {
        #[arg(long, default_value_t = 600)]
        seconds: u64,
    },
    /// Check the histories of an earlier run
    Check { directory: PathBuf },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::Check { directory } = &cli.command {
        return check_again(directory);
    }
    let options = Options {
        binary: cli.server_bin,
        work: cli.work_dir.unwrap_or_else(|| std::env::temp_dir().join("tidewire-faults")),
        is_kept: cli.keep,
        is_short: cli.short,
        durability: cli.durability,
        workers: cli.workers,
    };
    let cases = match &cli.command {
        Command::All { jobs } => all::play(&options, *jobs),
        command => {
            let began = Instant::now();
            let verdict = verdict(play(&options, command));
            vec![Case { name: name(command), seconds: began.elapsed().as_secs_f64(), verdict }]
        }
    };
    if let Some(path) = &cli.junit
        && let Err(error) = junit::write(path, &cases)
    {
        eprintln!("{error:#}");
        return ExitCode::from(2);
    }
    summary(&cases)
}

fn play(options: &Options, command: &Command) -> Result<Report> {
    match command {
        Command::Kill { times } => kill::run(options, *times),
        Command::Generation => generation::run(options),
        Command::Churn => churn::run(options),
        Command::Drain { clients } => drain::run(options, *clients),
        Command::Stop => stop::run(options),
        Command::Slow => slow::run(options),
        Command::Trim => trim::by_count(options),
        Command::Expire => trim::by_age(options),
        Command::Many => trim::too_many(options),
        Command::Full { live } => full::run(options, *live),
        Command::Rollback => rollback::run(options),
        Command::Cap => cap::run(options),
        Command::Purge => purge::run(options),
        Command::Damage { harm, open } => damage::run(options, *harm, *open),
        Command::Herd { clients } => herd::run(options, *clients),
        Command::Soak { deliveries, seconds } => {
            soak::run(options, *deliveries, Duration::from_secs(*seconds))
        }
        Command::ClusterKill { times } => nodes::kill::run(options, *times),
        Command::ClusterStop => nodes::stop::run(options),
        Command::ClusterCut => nodes::cut::run(options),
        Command::ClusterRedis { loses } => nodes::redis::run(options, *loses),
        Command::ClusterOutage { outages, how } => {
            let usual = options.pick([1, 5].as_slice(), &[2, 20, 300]);
            let usual: Vec<Duration> = usual.iter().copied().map(Duration::from_secs).collect();
            nodes::outage::run(options, *how, if outages.is_empty() { &usual } else { outages })
        }
        Command::ClusterHalfOpen => nodes::half_open::run(options),
        Command::ClusterFlush => nodes::flush::run(options),
        Command::ClusterSentinel => nodes::fail_over::run(options, Form::Sentinel),
        Command::ClusterMasters => nodes::fail_over::run(options, Form::Masters),
        Command::ClusterDrain => nodes::drain::run(options),
        Command::ClusterSoak { seconds } => nodes::soak::run(options, Duration::from_secs(*seconds)),
        Command::All { .. } | Command::Check { .. } => bail!("no scenario of its own"),
    }
}

/// For reports.
fn name(command: &Command) -> String {
    let text = match command {
        Command::Kill { .. } => "kill -9 while publishing loses nothing",
        Command::Generation => "a new generation is told to everybody",
        Command::Churn => "clients that come and go miss nothing",
        Command::Drain { .. } => "a drained server has everybody back",
        Command::Stop => "a stopped process loses nothing",
        Command::Slow => "slow readers cost no memory",
        Command::Trim => "trimming by count is told to those it concerns",
        Command::Expire => "trimming by age is told to those it concerns",
        Command::Many => "more than is replayed at once is told to those it concerns",
        Command::Full { live: false } => "a full disk is answered 503 and survived",
        Command::Full { live: true } => "a full disk lets messages through that are not stored",
        Command::Rollback => "a lost end of the log is told to those who saw it",
        Command::Cap => "a store keeps its size",
        Command::Purge => "a purge is told to those it concerns",
        Command::Herd { .. } => "a herd that comes back at once misses nothing",
        Command::Soak { .. } => "millions of deliveries under faults",
        Command::ClusterKill { .. } => "a killed node of three loses nothing, and is told once",
        Command::ClusterStop => "a stopped node of three loses nothing, and its members come back",
        Command::ClusterCut => "a node that does not reach Redis loses nothing",
        Command::ClusterRedis { loses: Loss::Nothing } => "a Redis that comes back loses nothing",
        Command::ClusterRedis { loses: Loss::Second } => "a Redis that crashes is told to those it concerns",
        Command::ClusterRedis { loses: Loss::Everything } => {
            "a Redis that forgets is told to those it concerns"
        }
        Command::ClusterOutage { how: Away::Ended, .. } => {
            "without a Redis triggers are refused, and all comes back"
        }
        Command::ClusterOutage { how: Away::Cut, .. } => "a Redis that no node reaches loses nothing",
        Command::ClusterOutage { how: Away::Hung, .. } => "a Redis that hangs loses nothing",
        Command::ClusterHalfOpen => "a dead connection to Redis is noticed and replaced",
        Command::ClusterFlush => "a script flush is noticed by nobody",
        Command::ClusterSentinel => "a fail-over by Sentinel is told to those it concerns",
        Command::ClusterMasters => "a master of a Redis Cluster that is lost is told to those it concerns",
        Command::ClusterDrain => "a rolling restart of three nodes loses nothing",
        Command::ClusterSoak { .. } => "a cluster under all its faults",
        Command::Damage { harm, open } => {
            let state = if *open { "an open" } else { "a closed" };
            return format!("damage to {state} store is told to those it concerns ({harm:?})");
        }
        Command::All { .. } | Command::Check { .. } => "",
    };
    text.to_owned()
}

fn verdict(result: Result<Report>) -> Verdict {
    match result {
        Ok(report) if report.is_clean() => Verdict::Passed,
        Ok(report) => Verdict::Failed(report.complaints()),
        Err(error) if error.is::<CannotMount>() || error.is::<NoRedis>() => {
            println!("  skipped    {error}");
            Verdict::Skipped
        }
        Err(error) => {
            println!("  FAILED     {error:#}");
            Verdict::Failed(format!("{error:#}"))
        }
    }
}

fn summary(cases: &[Case]) -> ExitCode {
    println!();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for Case { name, seconds, verdict } in cases {
        let word = match verdict {
            Verdict::Passed => "ok",
            Verdict::Skipped => "skipped",
            Verdict::Failed(_) => "FAILED",
        };
        println!("{word:<8} {seconds:>6.1} s  {name}");
        match verdict {
            Verdict::Passed => passed += 1,
            Verdict::Skipped => skipped += 1,
            Verdict::Failed(_) => failed += 1,
        }
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    ExitCode::from(u8::from(failed > 0))
}

/// `500ms`, `20s` or `5m`.
fn duration(text: &str) -> Result<Duration> {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = (text[..end].parse::<u64>()?, &text[end..]);
    Ok(match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number * 60),
        _ => bail!("a number and ms, s or m"),
    })
}

fn check_again(directory: &std::path::Path) -> ExitCode {
    let report = match check::check(directory) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::from(2);
        }
    };
    println!("{report}\n{} violations", report.violations());
    let _ = report.resynced();
    ExitCode::from(u8::from(!report.is_clean()))
}
