//! All scenarios, one after the other.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::api::App;
use crate::procfs;
use crate::report::{self, Row};
use crate::scenario;
use crate::subject::{External, Subject};

#[derive(Args, Debug)]
pub struct Options {
    /// Fewer connections and rounds: four minutes instead of twenty, for a first look
    #[arg(long)]
    pub quick: bool,
    /// The server to start
    #[arg(long, value_name = "PATH", default_value = "target/release/tidewire")]
    pub server_bin: PathBuf,
    /// Worker threads of that server, and threads of the bare loop; 0 = number of cores
    #[arg(long, default_value_t = 0)]
    pub workers: usize,
    /// Also measure a server that is already running: NAME=http://127.0.0.1:PORT@PID[,PID…]. Its app has the id,
    /// key and secret below, client events are on and their rate is not limited. May be given several times
    #[arg(long, value_name = "NAME=URL@PID")]
    pub external: Vec<External>,
    /// Measure only the external servers
    #[arg(long, requires = "external")]
    pub external_only: bool,
    /// App of the external servers
    #[arg(long, default_value = "1")]
    pub app_id: String,
    #[arg(long, default_value = "app-key")]
    pub key: String,
    #[arg(long, default_value = "app-secret")]
    pub secret: String,
    /// Events one batch call of the external servers may carry
    #[arg(long, default_value_t = 10)]
    pub max_batch: usize,
    /// Engine that keeps the messages where they are stored: sqlite or memory
    #[arg(long, default_value = "sqlite")]
    pub store: String,
    /// Only these scenarios
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Scenario>,
    /// Write every round as JSON
    #[arg(long, value_name = "PATH")]
    pub json: Option<PathBuf>,
    /// Write date, machine, method and table between the markers of this file
    #[arg(long, value_name = "PATH", num_args = 0..=1, default_missing_value = "BENCHMARKS.md")]
    pub report: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Resident memory without connections, and user-space bytes of an idle connection
    Memory,
    /// One channel, many subscribers, 1, 16 and 64 events pending
    FanOut,
    /// 1,000 channels of 10, random signed triggers
    Chat,
    /// Client events in rooms of 10
    ClientEvents,
    /// Signed triggers that nobody receives
    Trigger,
    /// Connecting and subscribing to a private channel
    Handshake,
    /// Publish → receive times at a moderate load
    Latency,
    /// Memory after many connections have come and gone
    Churn,
    /// What a trigger costs more, and how much later it arrives, when its message is stored
    Stored,
    /// Sending what a client has missed
    CatchUp,
    /// Bytes of a channel that has messages
    StoredMemory,
    /// All that begin with `cluster-`: several nodes on a Redis, which has to be installed
    Cluster,
    /// Publish → receive times from one node to another
    ClusterLatency,
    /// What Redis spends on a publish, stored or not
    ClusterPublish,
    /// What a delivery costs when the subscribers are spread over nodes
    ClusterFanOut,
    /// What a node spends on a busy channel that nobody on it is subscribed to
    ClusterIdle,
    /// Coming to presence channels and going
    ClusterPresence,
}

impl Scenario {
    const CLUSTER: [Scenario; 5] = [
        Scenario::ClusterLatency,
        Scenario::ClusterPublish,
        Scenario::ClusterFanOut,
        Scenario::ClusterIdle,
        Scenario::ClusterPresence,
    ];

    /// `only` nothing means all.
    fn is_wanted(self, options: &Options) -> bool {
        if self == Scenario::Cluster {
            return false;
        }
        let is_cluster = Scenario::CLUSTER.contains(&self);
        // They have servers of their own.
        let can_be_measured = !(is_cluster && options.external_only);
        let only = &options.only;
        let is_named = only.contains(&self) || (is_cluster && only.contains(&Scenario::Cluster));
        can_be_measured && (only.is_empty() || is_named)
    }
}

/// The server's default.
pub const DURABILITY: &str = "interval";

/// How much is done in each scenario.
pub struct Plan {
    pub rounds: usize,
    pub idle_connections: usize,
    pub churn_cycles: usize,
    pub fan_outs: &'static [usize],
    /// `send()` calls in a round of fan-out.
    pub sends: usize,
    pub chat_triggers: u64,
    pub client_events: u64,
    pub triggers: usize,
    pub handshakes: usize,
    pub latency_seconds: u64,
    /// Clients that come back at a time.
    pub returning: usize,
    pub stored_channels: usize,
    /// Members of one presence channel.
    pub presence_members: usize,
}

/// Many short rounds rather than few long ones: CPU time is known to the nanosecond, and the median of many pairs
/// shrugs off what else the machine does.
const FULL: Plan = Plan {
    rounds: 15,
    idle_connections: 10_000,
    churn_cycles: 10,
    fan_outs: &[1_000, 10_000],
    sends: 60_000,
    chat_triggers: 10_000,
    client_events: 10_000,
    triggers: 20_000,
    handshakes: 3_000,
    latency_seconds: 10,
    returning: 1_000,
    stored_channels: 20_000,
    presence_members: 5_000,
};

const QUICK: Plan = Plan {
    rounds: 5,
    idle_connections: 2_000,
    churn_cycles: 3,
    fan_outs: &[1_000],
    sends: 20_000,
    chat_triggers: 3_000,
    client_events: 3_000,
    triggers: 10_000,
    handshakes: 1_000,
    latency_seconds: 3,
    returning: 200,
    stored_channels: 5_000,
    presence_members: 1_000,
};

/// What every scenario needs to know.
pub struct Setup {
    pub plan: Plan,
    pub workers: usize,
    options: Options,
}

impl Setup {
    /// A fresh server of ours, and the others.
    pub fn subjects(&self) -> Result<Vec<Subject>> {
        let options = &self.options;
        let app = App {
            id: options.app_id.clone(),
            key: options.key.clone(),
            secret: options.secret.clone(),
            path_prefix: String::new(),
        };
        let mut subjects = Vec::new();
        if !options.external_only {
            subjects.push(self.ours(&[])?);
        }
        let externals = options.external.iter();
        subjects.extend(externals.map(|external| Subject::external(external, &app, options.max_batch)));
        Ok(subjects)
    }

    /// A fresh server of ours with settings of its environment.
    pub fn ours(&self, settings: &[(&str, &str)]) -> Result<Subject> {
        Subject::start(&self.options.server_bin, self.workers, settings)
    }

    /// One that stores what is published to `*stored-*`; `None` when ours is not measured.
    pub fn storing(&self, durability: &str) -> Result<Option<Subject>> {
        const RULE: &str =
            r#"{"rules":[{"match":"*stored-*","max_messages":100000,"max_bytes":"1GiB","window":"1h"}]}"#;
        let settings = [
            ("TIDEWIRE_APP_REPLAY", RULE),
            ("TIDEWIRE_REPLAY__STORE", &self.options.store),
            ("TIDEWIRE_REPLAY__DURABILITY", durability),
        ];
        let is_wanted = !self.options.external_only;
        is_wanted.then(|| self.ours(&settings)).transpose()
    }
}

pub fn run(options: Options) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = if options.workers == 0 { cores } else { options.workers };
    let plan = if options.quick { QUICK } else { FULL };
    let setup = Setup { plan, workers, options };
    let options = &setup.options;
    let load = procfs::load_average();
    let mut rows = Vec::new();
    for scenario in Scenario::value_variants() {
        if scenario.is_wanted(options) {
            rows.extend(run_one(*scenario, &setup)?);
        }
    }
    println!("{}", report::table(&rows));
    if let Some(path) = &options.json {
        std::fs::write(path, report::json(&rows, load)?).with_context(|| path.display().to_string())?;
    }
    if let Some(path) = &options.report {
        report::write_markdown(path, &rows, load, &command(options))?;
    }
    Ok(())
}

fn run_one(scenario: Scenario, setup: &Setup) -> Result<Vec<Row>> {
    let begin = Instant::now();
    eprintln!("{scenario:?} …");
    let rows = match scenario {
        Scenario::Memory => scenario::memory::run(setup),
        Scenario::FanOut => scenario::fan_out::run(setup),
        Scenario::Chat => scenario::chat::run(setup),
        Scenario::ClientEvents => scenario::client_events::run(setup),
        Scenario::Trigger => scenario::trigger::run(setup),
        Scenario::Handshake => scenario::handshake::run(setup),
        Scenario::Latency => scenario::latency::run(setup),
        Scenario::Churn => scenario::churn::run(setup),
        Scenario::Stored => scenario::stored::run(setup),
        Scenario::CatchUp => scenario::catch_up::run(setup),
        Scenario::StoredMemory => scenario::stored_memory::run(setup),
        // A name for the following ones.
        Scenario::Cluster => Ok(Vec::new()),
        Scenario::ClusterLatency => scenario::cluster::latency::run(setup),
        Scenario::ClusterPublish => scenario::cluster::publish::run(setup),
        Scenario::ClusterFanOut => scenario::cluster::fan_out::run(setup),
        Scenario::ClusterIdle => scenario::cluster::idle::run(setup),
        Scenario::ClusterPresence => scenario::cluster::presence::run(setup),
    };
    let rows = rows.with_context(|| format!("scenario {scenario:?}"))?;
    for row in &rows {
        eprintln!("  {}", row.line());
    }
    eprintln!("{scenario:?}: {:.1} s", begin.elapsed().as_secs_f64());
    Ok(rows)
}

/// The command without paths and names that mean nothing elsewhere.
fn command(options: &Options) -> String {
    let quick = if options.quick { " --quick" } else { "" };
    let others = if options.external.is_empty() { "" } else { " --external …" };
    format!("tidewire-bench suite{quick}{others} --report")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    fn wanted(arguments: &[&str]) -> Vec<Scenario> {
        let Cli { options } = Cli::try_parse_from([&["suite"], arguments].concat()).unwrap();
        let all = Scenario::value_variants().iter().copied();
        all.filter(|scenario| scenario.is_wanted(&options)).collect()
    }

    #[test]
    fn the_cluster_is_a_name_for_its_scenarios() {
        assert_eq!(wanted(&["--only", "cluster"]), Scenario::CLUSTER);
        let some = [Scenario::Chat, Scenario::ClusterIdle];
        assert_eq!(wanted(&["--only", "chat,cluster-idle"]), some);
        let all = wanted(&[]);
        assert_eq!(all.len(), Scenario::value_variants().len() - 1);
        let others = wanted(&["--external", "other=http://127.0.0.1:80@1", "--external-only"]);
        assert_eq!(others.len(), all.len() - Scenario::CLUSTER.len());
    }
}
