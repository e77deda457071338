//! The command line: flags, commands and exit codes.

pub mod descriptors;

mod api_call;
mod client;
mod credentials;
mod healthcheck;
mod inspect;
mod listen;
mod serve;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::{Flag, Loaded, Sources};

/// It did not work.
const FAILED: u8 = 1;
/// The configuration is wrong (`EX_CONFIG` of sysexits.h); init systems should not try again. Usage errors are 2.
const BAD_CONFIG: u8 = 78;

/// Self-hosted realtime server, wire-compatible with Pusher Channels.
#[derive(Debug, Parser)]
#[command(name = "tidewire", version, args_conflicts_with_subcommands = true, after_long_help = HELP, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeFlags,
}

const HELP: &str = "\
Without a command the server starts (`tidewire serve`). Without any configuration it offers an app
to try things out on 127.0.0.1:6001: id 1, key app-key, secret app-secret.

Configuration: a flag beats the environment, which beats the file, which beats the default.
  File         --config, else TIDEWIRE_CONFIG, else ./config.json, else /etc/tidewire/config.json
  Environment  TIDEWIRE_ and the path of the setting, joined by __; lists with commas:
               TIDEWIRE_SERVER__LISTEN=0.0.0.0:6001, TIDEWIRE_LIMITS__MAX_EVENT_BYTES=20000
  One app      TIDEWIRE_APP_ID, TIDEWIRE_APP_KEY, TIDEWIRE_APP_SECRET (or _SECRET_FILE);
               PUSHER_APP_ID, _KEY and _SECRET if nothing else defines an app
  Many nodes   TIDEWIRE_REDIS__URL=redis://10.0.0.5:6379, or REDIS_URL, the same on each
  Others       PORT, RUST_LOG, TIDEWIRE_LOG, TIDEWIRE_APPS (a JSON array)

Signals: SIGTERM and SIGINT close clients over server.drain_seconds, a second one stops at once.
SIGHUP reads the configuration again; a bad one changes nothing.

Exit codes: 0 fine, 1 failed, 2 wrong usage, 78 wrong configuration.

Examples:
  tidewire                                           try it out
  tidewire default-config > config.json && tidewire  a server of your own
  tidewire trigger my-channel my-event '{\"hello\":\"world\"}'
  tidewire listen my-channel private-orders";

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the server; what `tidewire` alone does
    Serve(ServeFlags),
    /// Check the configuration and print what would be in force, secrets masked; exit code 78 if it is wrong
    CheckConfig(ServeFlags),
    /// Print a complete config.json with a fresh app: id, key and secret
    DefaultConfig(inspect::DefaultConfigFlags),
    /// Ask a running server whether it is up; exit code 0 or 1 (for containers and load balancers)
    Healthcheck(healthcheck::HealthcheckFlags),
    /// Print a signed curl command for a call of the HTTP API
    Sign(api_call::SignFlags),
    /// Publish an event
    Trigger(api_call::TriggerFlags),
    /// Subscribe to channels and print their events, one a line
    Listen(listen::ListenFlags),
    /// Print the completions of a shell: tidewire completions bash > /etc/bash_completion.d/tidewire
    Completions { shell: Shell },
    /// Print the version
    Version,
}

/// The flags of the settings that are often given by hand; every other setting has its variable.
#[derive(Debug, Args)]
struct ServeFlags {
    /// Configuration file [default: ./config.json, then /etc/tidewire/config.json]
    #[arg(short, long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Address for clients and publishers, several with commas [default: 0.0.0.0:6001, or 127.0.0.1:6001 without an app]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Address for health and metrics, or off [default: 127.0.0.1:9601]
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<String>,
    /// Path in front of /app and /apps, such as /ws
    #[arg(long, value_name = "PATH")]
    path_prefix: Option<String>,
    /// Threads that carry connections [default: one for each core]
    #[arg(long, value_name = "NUMBER")]
    workers: Option<String>,
    /// Connections this node accepts [default: as many as the limit of open files allows]
    #[arg(long, value_name = "NUMBER")]
    max_connections: Option<String>,
    /// Proxies whose X-Forwarded-For and -Proto are believed: addresses or CIDR ranges with commas [default: loopback]
    #[arg(long, value_name = "NETWORKS")]
    trusted_proxies: Option<String>,
    /// Seconds over which clients are closed at the end [default: 10]
    #[arg(long, value_name = "SECONDS")]
    drain_seconds: Option<String>,
    /// error, warn, info, debug, trace, or a filter such as info,tidewire::hub=debug [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// auto, pretty, compact or json [default: auto: pretty on a terminal, else json]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Print at the start what to paste into pusher-js, Laravel Echo and .env
    #[arg(long)]
    snippets: bool,
}

impl ServeFlags {
    fn sources(&self) -> Sources {
        let flags = [
            ("--listen", "server.listen", &self.listen),
            ("--admin-listen", "admin.listen", &self.admin_listen),
            ("--path-prefix", "server.path_prefix", &self.path_prefix),
            ("--workers", "server.workers", &self.workers),
            ("--max-connections", "server.max_connections", &self.max_connections),
            ("--trusted-proxies", "server.trusted_proxies", &self.trusted_proxies),
            ("--drain-seconds", "server.drain_seconds", &self.drain_seconds),
            ("--log-level", "log.level", &self.log_level),
            ("--log-format", "log.format", &self.log_format),
        ];
        let given = flags.into_iter().filter_map(|(name, path, value)| {
            let value = value.clone()?;
            Some(Flag { name, path, value })
        });
        Sources::of_process(self.config.clone(), given.collect())
    }
}

/// Parses the arguments and does what they say.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(flags) => serve::serve(&flags),
        Command::CheckConfig(flags) => inspect::check_config(&flags),
        Command::DefaultConfig(flags) => inspect::default_config(&flags),
        Command::Healthcheck(flags) => healthcheck::healthcheck(&flags),
        Command::Sign(flags) => api_call::sign(&flags),
        Command::Trigger(flags) => api_call::trigger(&flags),
        Command::Listen(flags) => listen::listen(&flags),
        Command::Completions { shell } => completions(shell),
        Command::Version => print_line(&format!("tidewire {}", env!("CARGO_PKG_VERSION"))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}

/// Why a command ends with something else than 0.
#[derive(Debug)]
enum Failure {
    /// 78
    Config(crate::config::ConfigError),
    /// 1
    Other(anyhow::Error),
    /// 1, and everything has been said.
    Silent,
}

type Done = Result<(), Failure>;

impl Failure {
    fn tell(&self) -> ExitCode {
        match self {
            // Not through the logs: they are not set up yet, and this is for the person in front of it.
            Failure::Config(error) => eprintln!("tidewire: {error}"),
            Failure::Other(error) => eprintln!("tidewire: {error:#}"),
            Failure::Silent => {}
        }
        ExitCode::from(match self {
            Failure::Config(_) => BAD_CONFIG,
            Failure::Other(_) | Failure::Silent => FAILED,
        })
    }
}

impl From<crate::config::ConfigError> for Failure {
    fn from(error: crate::config::ConfigError) -> Self {
        Failure::Config(error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Failure::Other(error)
    }
}

/// The configuration for commands that talk to a server; what is doubtful in it does not concern them.
fn load_quietly(file: Option<&PathBuf>) -> Result<Loaded, Failure> {
    Ok(Sources::of_process(file.cloned(), Vec::new()).load()?)
}

/// The one-threaded runtime of everything here; the server has threads of its own.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn completions(shell: Shell) -> Done {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tidewire", &mut script);
    print_bytes(&script)
}

fn print_line(text: &str) -> Done {
    print_bytes(format!("{text}\n").as_bytes())
}

/// `println!` panics when the reader of a pipe has gone, as after `| head`; for us that is an end like any other.
fn print_bytes(bytes: &[u8]) -> Done {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Other(error.into())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_names_a_setting_that_exists() {
        let given = |flag: &str| vec!["tidewire".to_owned(), format!("--{flag}"), "1".to_owned()];
        let flags = [
            "listen",
            "admin-listen",
            "path-prefix",
            "workers",
            "max-connections",
            "trusted-proxies",
            "drain-seconds",
            "log-level",
            "log-format",
        ];
        let paths = crate::config::schema::ConfigSchema::new().paths();
        for flag in flags {
            let cli = Cli::try_parse_from(given(flag)).expect("the flag exists");
            let sources = cli.serve.sources();
            assert_eq!(sources.flags.len(), 1, "{flag}");
            assert!(paths.contains(&sources.flags[0].path.to_owned()), "{flag}");
        }
    }
}
