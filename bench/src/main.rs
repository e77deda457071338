//! Load generator and benchmarks of Tidewire, for any server that speaks the Pusher protocol.

mod answer;
mod bare;
mod child;
mod clock;
mod control;
mod field;
mod load;
mod pace;
mod payload;
mod publisher;
mod redis;
mod report;
mod roster;
mod rounds;
mod scenario;
mod sink;
mod subject;
mod suite;
mod target;

use clap::{Parser, Subcommand};
// Where the modules look for them.
use tidewire_bench::{api, frame, procfs, random};

/// Load generator and benchmarks of Tidewire.
///
/// `suite` measures a server against the physical limit: everything is compared with plain loops of send() over as
/// many sockets, in the same run. `load` puts a load of your choice on any server that speaks the Pusher protocol
/// and tells how long events took. `soak` keeps several servers on a Redis busy and says at the end whether anything was lost
/// or grew.
#[derive(Parser)]
#[command(version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the benchmarks and print one table
    Suite(suite::Options),
    /// Put load on a running server and report latency and losses
    Load(load::Options),
    /// Keep nodes on a Redis busy for long: every event counted, memory watched
    Soak(scenario::cluster::soak::Options),
    /// Receive and count (started by the others)
    #[command(hide = true)]
    Sink,
    /// Send in plain loops (started by `suite`)
    #[command(hide = true)]
    Bare {
        #[arg(long)]
        threads: usize,
    },
    /// Answer with canned responses (started by `suite`)
    #[command(hide = true)]
    Answer,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Suite(options) => suite::run(options),
        Command::Load(options) => load::run(&options),
        Command::Soak(options) => scenario::cluster::soak::run(&options),
        Command::Sink => sink::run(),
        Command::Bare { threads } => bare::run(threads),
        Command::Answer => answer::run(),
    }
}
