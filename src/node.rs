//! What all workers of this process share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::watch;

use crate::app::Apps;
use crate::clock::Clock;
use crate::config::{AppConfig, Config, ReplayConfig, ServerConfig};
use crate::fanout::cluster::Cluster;
use crate::replay::{Replay, ReplayHandle};
use crate::sync::count_up;
use crate::telemetry::metrics::Metrics;
use crate::tls::Tls;
use crate::worker::mailbox::Mailbox;

/// File descriptors that are kept free for listeners, the admin port, logs and configuration files.
const RESERVED_DESCRIPTORS: usize = 128;
/// Part of the other descriptors that is for connections which speak HTTP, handshakes included.
const HTTP_SHARE: usize = 8;

#[derive(Debug)]
pub struct Node {
    pub config: ServerConfig,
    pub apps: Apps,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    pub mailboxes: Arc<[Mailbox]>,
    /// When the listeners have a certificate.
    pub tls: Option<Tls>,
    /// Open once an app has a channel to store.
    pub replay: ReplayHandle,
    /// The other nodes, if there are any.
    pub cluster: Option<Arc<Cluster>>,
    /// Connections of all apps and workers.
    connections: AtomicUsize,
    max_connections: usize,
    /// Connections that speak HTTP.
    http_connections: AtomicUsize,
    max_http_connections: usize,
    /// Between HTTP and a greeting or a refusal.
    handshakes: AtomicUsize,
    is_draining: AtomicBool,
    /// Becomes true when all connections are closed.
    is_drained: watch::Sender<bool>,
}

impl Node {
    /// Connects to the other nodes, if the configuration names a Redis.
    pub fn new(config: Config, tls: Option<Tls>, workers: usize, clock: Clock) -> anyhow::Result<Self> {
        let metrics = Arc::new(Metrics::new());
        let cluster =
            if config.redis.is_on() { Some(Cluster::start(&config.redis, &metrics)?) } else { None };
        let mailboxes: Arc<[Mailbox]> =
            (0..workers).map(|_| Mailbox::new(config.server.mailbox_jobs)).collect();
        let replay = ReplayHandle::default();
        let apps = Apps::new(
            config.apps,
            Arc::clone(&mailboxes),
            Arc::clone(&metrics),
            clock.clone(),
            replay.clone(),
            cluster.clone(),
        );
        let descriptors = descriptor_limit().saturating_sub(RESERVED_DESCRIPTORS).max(HTTP_SHARE);
        let max_http_connections = descriptors / HTTP_SHARE;
        let max_connections = match config.server.max_connections {
            0 => descriptors - max_http_connections,
            max => max,
        };
        Ok(Self {
            config: config.server,
            apps,
            clock,
            metrics,
            mailboxes,
            tls,
            replay,
            cluster,
            connections: AtomicUsize::new(0),
            max_connections,
            http_connections: AtomicUsize::new(0),
            max_http_connections,
            handshakes: AtomicUsize::new(0),
            is_draining: AtomicBool::new(false),
            is_drained: watch::Sender::new(false),
        })
    }

    /// Opens the log if it is not open and one of these apps stores something, and sizes it for them. When no app
    /// stores anything any more it is left as it is: what it has goes when its time is over.
    pub fn size_replay(&self, config: &ReplayConfig, apps: &[AppConfig]) -> anyhow::Result<()> {
        if !apps.iter().any(|app| app.replay.is_on()) {
            return Ok(());
        }
        let caps = config.caps(apps);
        let open = || {
            let (mailboxes, metrics) = (Arc::clone(&self.mailboxes), Arc::clone(&self.metrics));
            Replay::start(config, &caps, self.clock.clone(), mailboxes, metrics, self.cluster.as_ref())
        };
        self.replay.get_or_open(open)?.set_caps(&caps);
        Ok(())
    }

    /// Connections above which newcomers are refused with 4100.
    pub fn max_connections(&self) -> usize {
        self.max_connections
    }

    pub fn connection_count(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Counts a connection unless the node is full.
    pub fn admit_connection(&self) -> bool {
        count_up(&self.connections, self.max_connections)
    }

    pub fn release_connection(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a connection that speaks HTTP, until the guard is dropped; `None` when there are too many.
    pub fn admit_http(self: &Arc<Self>) -> Option<HttpPlace> {
        count_up(&self.http_connections, self.max_http_connections).then(|| {
            self.metrics.http_connections.inc();
            HttpPlace(Arc::clone(self))
        })
    }

    pub fn handshakes(&self) -> usize {
        self.handshakes.load(Ordering::Relaxed)
    }

    pub fn begin_handshake(&self) {
        self.handshakes.fetch_add(1, Ordering::Relaxed);
    }

    pub fn end_handshake(&self) {
        self.handshakes.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether the server is on its way out: not ready, and refusing connections with 4200.
    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// Why new clients are better off on another node.
    pub fn unreadiness(&self) -> Option<Unready> {
        if self.is_draining() {
            return Some(Unready::Draining);
        }
        let is_cut_off = self.cluster.as_ref().is_some_and(|cluster| cluster.is_cut_off());
        is_cut_off.then_some(Unready::CutOff)
    }

    /// Starts the drain; false when it had begun already.
    pub fn begin_drain(&self) -> bool {
        let begins = !self.is_draining.swap(true, Ordering::Relaxed);
        self.metrics.draining.set(1);
        begins
    }

    /// Says that all connections are closed.
    pub fn end_drain(&self) {
        self.is_drained.send_replace(true);
    }

    /// Returns when a drain has closed all connections.
    pub async fn drained(&self) {
        // The sender is `self`: it cannot be gone.
        let _ = self.is_drained.subscribe().wait_for(|is_drained| *is_drained).await;
    }
}

/// Why a node is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unready {
    Draining,
    /// It has not reached Redis, or Redis has refused it, for too long.
    CutOff,
}

/// A place among the connections that speak HTTP.
#[derive(Debug)]
pub struct HttpPlace(Arc<Node>);

impl Drop for HttpPlace {
    fn drop(&mut self) {
        self.0.http_connections.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.http_connections.dec();
    }
}

/// The soft limit of open files, which `main` has raised to the hard one.
pub fn descriptor_limit() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}
