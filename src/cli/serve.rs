//! `serve`: the life of the server's process, from the configuration to the exit code.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{debug, error, info, warn};

use super::descriptors::{self, DescriptorLimit};
use super::{Done, Failure, ServeFlags, runtime};
use crate::banner::Banner;
use crate::config::{Change, Config, Loaded, LogFormat, Problem, ReplayConfig, Sources, changes};
use crate::server::Server;
use crate::telemetry::logs::{Logs, LogsError};

/// How often the files of the configuration are looked at. Polling also sees what notification does not: network
/// file systems, and Kubernetes swapping the directory a link points at.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

pub fn serve(flags: &ServeFlags) -> Done {
    let sources = flags.sources();
    let loaded = sources.load()?;
    let watched = Watched::new(&sources, &loaded.config);
    let logs = Logs::start(&loaded.config.log).map_err(anyhow::Error::from)?;
    tell_origins(&loaded);
    let descriptors = descriptors::raise();

    let runtime = runtime()?;
    // Before the start, so that a stop that comes early is not the default one: a killed process.
    let signals = runtime.block_on(async { Signals::new() }).map_err(anyhow::Error::from)?;
    let server = Server::start(loaded.config.clone())?;
    announce(&server, &loaded.config, descriptors, flags.snippets, &logs);

    let mut process = Process { server, running: loaded.config, sources, watched, logs };
    let ended = runtime.block_on(process.run(signals));
    process.server.stop();
    ended.map_err(Failure::Other)?;
    info!("stopped");
    Ok(())
}

/// The running server with what it takes to reload it.
struct Process {
    server: Server,
    /// What is in force, settings that wait for a restart excluded.
    running: Config,
    sources: Sources,
    watched: Watched,
    logs: Logs,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn stop(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

impl Process {
    /// Serves until a signal says stop, then drains; a second signal ends the drain. Fails when the server broke.
    async fn run(&mut self, mut signals: Signals) -> anyhow::Result<()> {
        let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + WATCH_INTERVAL, WATCH_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let reason = loop {
            tokio::select! {
                _ = signals.terminate.recv() => break "SIGTERM",
                _ = signals.interrupt.recv() => break "SIGINT",
                _ = signals.hangup.recv() => self.reload("SIGHUP"),
                _ = tick.tick() => {
                    if let Some(reason) = self.server.broken() {
                        error!("{reason}, see above; stopping, so that whoever watches starts anew");
                        return Err(anyhow::anyhow!(reason));
                    }
                    if Watched::new(&self.sources, &self.running) != self.watched {
                        self.reload("the file changed");
                    }
                }
            }
        };
        info!(
            reason,
            drain_seconds = self.running.server.drain_seconds,
            "draining; a second signal stops at once"
        );
        tokio::select! {
            () = self.server.drain() => {}
            signal = signals.stop() => warn!(signal, "stopping without waiting"),
        }
        Ok(())
    }

    /// Reads the configuration again. Whatever is wrong with it, the running one stays in force.
    fn reload(&mut self, reason: &str) {
        self.watched = Watched::new(&self.sources, &self.running);
        let taken_over = self.try_reload(reason);
        let result = if taken_over.is_ok() { "ok" } else { "error" };
        self.server.node().metrics.config_reloads(result).inc();
        if let Err(problems) = taken_over {
            error!(reason, problems = problems.len(), "configuration not reloaded, the running one stays");
            problems.iter().for_each(|problem| error!("{problem}"));
        }
    }

    fn try_reload(&mut self, reason: &str) -> Result<(), Vec<Problem>> {
        let loaded = self.sources.load().map_err(|error| error.problems)?;
        let new = loaded.config;
        if new.default_app && !self.running.default_app {
            // The built-in app's secret is public, and this server may be listening everywhere.
            return Err(vec![Problem::new("apps", "no app is left; stop the server instead")]);
        }
        loaded.warnings.iter().for_each(|warning| warn!("{warning}"));
        let stays_in_cluster = new.redis.is_on() == self.running.redis.is_on();
        if self.server.node().replay.get().is_none() && stays_in_cluster {
            // Nothing of it is in force yet.
            self.running.replay.clone_from(&new.replay);
        }
        let found = changes(&self.running, &new);
        // First what can fail, so that nothing is taken over by halves.
        let unusable = |setting: &'static str| {
            move |error: anyhow::Error| vec![Problem::new(setting, format!("{error:#}"))]
        };
        self.server.reload_certificate().map_err(unusable("server.tls_certificate"))?;
        // A store that is opened now is still the one of the Redis that is in force, or of none.
        let replay = ReplayConfig { max_bytes: new.replay.max_bytes, ..self.running.replay.clone() };
        self.server.reload(Config { replay, ..new.clone() }).map_err(unusable("replay"))?;
        if new.log.level != self.running.log.level {
            let failed = |error: LogsError| vec![Problem::new("log.level", error.to_string())];
            self.logs.set_level(&new.log.level).map_err(failed)?;
        }
        info!(reason, changes = found.len(), "configuration reloaded");
        for change in &found {
            match change {
                Change::Setting { needs_restart: true, .. } => warn!("{change}"),
                _ => info!("{change}"),
            }
        }
        self.running.log.level = new.log.level;
        self.running.replay.max_bytes = new.replay.max_bytes;
        self.running.apps = new.apps;
        self.running.default_app = new.default_app;
        Ok(())
    }
}

/// What the files of the configuration, and the certificate, look like from outside; a difference means they should be read again.
#[derive(Debug, PartialEq)]
struct Watched(Vec<(PathBuf, Option<(SystemTime, u64)>)>);

impl Watched {
    fn new(sources: &Sources, config: &Config) -> Self {
        let look = |path: PathBuf| {
            let seen = fs::metadata(&path).ok().and_then(|meta| Some((meta.modified().ok()?, meta.len())));
            (path, seen)
        };
        let server = &config.server;
        let tls =
            [&server.tls_certificate, &server.tls_private_key].into_iter().filter(|path| !path.is_empty());
        Watched(sources.files().into_iter().chain(tls.map(PathBuf::from)).map(look).collect())
    }
}

fn tell_origins(loaded: &Loaded) {
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    for (path, origin) in &loaded.origins {
        debug!(setting = path, %origin, "configured");
    }
}

/// A page for a person, or one event for a log collector.
fn announce(server: &Server, config: &Config, descriptors: DescriptorLimit, snippets: bool, logs: &Logs) {
    let max_connections = server.node().max_connections();
    if logs.format() != LogFormat::Json {
        let banner = Banner {
            config,
            listen: server.addresses(),
            admin: server.admin_addr(),
            descriptors,
            max_connections,
            snippets: snippets || config.default_app,
        };
        eprintln!("{}", banner.render());
    }
    let source = config.source.as_ref().map(|path| path.display().to_string());
    info!(
        version = env!("CARGO_PKG_VERSION"),
        listen = ?server.addresses(),
        admin = server.admin_addr().map(tracing::field::display),
        path_prefix = config.server.path_prefix,
        config = source,
        redis = config.redis.is_on().then(|| config.redis.to_string()),
        apps = config.apps.len(),
        open_files = descriptors.is,
        open_files_before = descriptors.was,
        max_connections,
        "listening"
    );
    if config.default_app {
        warn!("no app is configured: offering the built-in one (key app-key) on loopback only");
    }
    if descriptors.is < descriptors::FEW {
        warn!(
            open_files = descriptors.is,
            "few open files allowed: raise LimitNOFILE=, ulimit -n or --ulimit nofile="
        );
    }
}
