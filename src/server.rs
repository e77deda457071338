//! Listeners and worker threads: start, reload, drain, stop.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::sync::oneshot;

use crate::app::Apps;
use crate::clock::Clock;
use crate::config::Config;
use crate::http::admin;
use crate::node::Node;
use crate::tls::Tls;
use crate::worker;
use crate::worker::mailbox::Job;

/// Workers are bits of a channel's mask.
const MAX_WORKERS: usize = 64;
/// Connections that the kernel completes before they are accepted.
const BACKLOG: i32 = 4096;
/// Unsent bytes the kernel takes for a slow client; without it that is megabytes, and no bound of ours binds.
const NOTSENT_LOWAT_BYTES: u32 = 16 * 1024;
/// Finds peers that have vanished, also while they speak HTTP.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(10))
    .with_retries(6);
/// What closed clients may take to hang up before the server stops anyway.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);
/// How long an HTTP client may not take its answers; lifted when it becomes a WebSocket.
const HTTP_WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// What newcomers may take to hear that they are refused, at the end of a drain.
const REFUSALS_DEADLINE: Duration = Duration::from_secs(1);
const DRAIN_POLL: Duration = Duration::from_millis(20);

/// A running server; dropping it stops it at once.
#[derive(Debug)]
pub struct Server {
    node: Arc<Node>,
    addresses: Vec<SocketAddr>,
    admin_address: Option<SocketAddr>,
    workers: Vec<JoinHandle<std::io::Result<()>>>,
    admin: Option<(oneshot::Sender<()>, JoinHandle<std::io::Result<()>>)>,
}

impl Server {
    /// Binds every address and starts the workers. Fails with the address that cannot be had and why.
    pub fn start(config: Config) -> anyhow::Result<Self> {
        let workers = match config.server.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        }
        .min(MAX_WORKERS);
        let tls = match (&*config.server.tls_certificate, &*config.server.tls_private_key) {
            ("", _) | (_, "") => None,
            (certificate, private_key) => Some(Tls::load(certificate.as_ref(), private_key.as_ref())?),
        };
        let mut listeners: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
        let mut addresses = Vec::new();
        for address in &config.server.listen {
            let wanted = *address;
            // `[::]` takes IPv4 as well, unless that has an address of its own.
            let only_v6 =
                config.server.listen.iter().any(|other| other.is_ipv4() && other.port() == wanted.port());
            let mut address = wanted;
            let cannot = || format!("cannot listen on {wanted}; is another server running there?");
            claim(address, only_v6).with_context(cannot)?;
            for own in &mut listeners {
                let listener = listen(address, only_v6).with_context(cannot)?;
                // Port 0 is chosen once and shared by all workers.
                address = listener.local_addr()?;
                own.push(listener);
            }
            addresses.push(address);
        }
        let admin_listener = match config.admin.listen {
            Some(address) => Some(TcpListener::bind(address).with_context(|| {
                format!(
                    "cannot listen on the admin address {address}; set admin.listen to another, or to null"
                )
            })?),
            None => None,
        };
        let (replay, apps) = (config.replay.clone(), config.apps.clone());
        let node = Arc::new(Node::new(config, tls, workers, Clock::default())?);
        if let Some(cluster) = &node.cluster {
            cluster.count_connections_of(&node);
        }
        node.size_replay(&replay, &apps)?;
        let mut server = Self { node, addresses, admin_address: None, workers: Vec::new(), admin: None };
        for (id, listeners) in listeners.into_iter().enumerate() {
            let node = Arc::clone(&server.node);
            let thread = std::thread::Builder::new().name(format!("worker-{id}"));
            server.workers.push(thread.spawn(move || worker::run(id, node, listeners))?);
        }
        if let Some(listener) = admin_listener {
            server.start_admin(listener)?;
        }
        Ok(server)
    }

    fn start_admin(&mut self, listener: TcpListener) -> anyhow::Result<()> {
        listener.set_nonblocking(true)?;
        self.admin_address = Some(listener.local_addr()?);
        let node = Arc::clone(&self.node);
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                tokio::select! {
                    () = admin::serve(listener, node) => {}
                    _ = stopped => {}
                }
                Ok(())
            })
        })?;
        self.admin = Some((stop, thread));
        Ok(())
    }

    /// The first address that is listened on.
    pub fn addr(&self) -> SocketAddr {
        self.addresses[0]
    }

    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    pub fn clock(&self) -> &Clock {
        &self.node.clock
    }

    pub fn apps(&self) -> &Apps {
        &self.node.apps
    }

    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Takes over apps and limits without touching a connection of an app that stays. Fails, and changes nothing,
    /// when an app is the first to store messages and the store cannot be opened.
    pub fn reload(&self, config: Config) -> anyhow::Result<()> {
        self.node.size_replay(&config.replay, &config.apps)?;
        self.node.apps.reload(config.apps);
        Ok(())
    }

    /// Reads the certificate again for new connections. When it cannot be used the old one stays.
    pub fn reload_certificate(&self) -> anyhow::Result<()> {
        self.node.tls.as_ref().map_or(Ok(()), Tls::reload)
    }

    /// Not ready any more, closes every client with 4200 over the drain window, and returns when they are gone
    /// or the deadline has passed. Newcomers are refused with 4200 until the server is stopped.
    pub async fn drain(&self) {
        if self.node.begin_drain() {
            self.node.mailboxes.iter().for_each(|mailbox| mailbox.push(Job::Drain));
        }
        let window = Duration::from_secs(self.node.config.drain_seconds);
        wait_until(window + DRAIN_DEADLINE, || self.node.connection_count() == 0).await;
        // Newcomers that wait to be refused hear of it before the process ends.
        self.node.end_drain();
        wait_until(REFUSALS_DEADLINE, || self.node.handshakes() == 0).await;
        // The last close frames are on their way.
        tokio::time::sleep(DRAIN_POLL).await;
    }

    /// Why the server is not whole any more: a thread has ended though nobody stopped it, or the store has failed.
    pub fn broken(&self) -> Option<&'static str> {
        if self.workers.iter().any(JoinHandle::is_finished) {
            return Some("a worker has ended");
        }
        let has_failed = self.node.replay.get().is_some_and(|replay| replay.is_failed());
        has_failed.then_some("the replay store has failed")
    }

    /// Stops now; whoever is still connected is cut off. What publishers were told is stored, is.
    pub fn stop(&mut self) {
        self.node.mailboxes.iter().for_each(|mailbox| mailbox.push(Job::Stop));
        if let Some((stop, thread)) = self.admin.take() {
            let _ = stop.send(());
            report(thread);
        }
        self.workers.drain(..).for_each(report);
        if let Some(replay) = self.node.replay.get() {
            replay.close();
        }
        if let Some(cluster) = &self.node.cluster {
            cluster.stop();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn wait_until(deadline: Duration, is_done: impl Fn() -> bool) {
    let done = async {
        while !is_done() {
            tokio::time::sleep(DRAIN_POLL).await;
        }
    };
    let _ = tokio::time::timeout(deadline, done).await;
}

fn report(thread: JoinHandle<std::io::Result<()>>) {
    let name = thread.thread().name().unwrap_or("thread").to_owned();
    match thread.join() {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(target: "tidewire::server", %error, name, "a thread failed"),
        Err(_) => tracing::error!(target: "tidewire::server", name, "a thread panicked"),
    }
}

fn new_socket(address: SocketAddr, only_v6: bool) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    Ok(socket)
}

/// Fails when somebody listens on the address already. Our own listeners share it, and another Tidewire's would
/// share it too, each getting half of the clients.
fn claim(address: SocketAddr, only_v6: bool) -> std::io::Result<()> {
    let socket = new_socket(address, only_v6)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

/// A listener that shares its address with those of the other workers. Accepted sockets inherit its options.
fn listen(address: SocketAddr, only_v6: bool) -> std::io::Result<TcpListener> {
    let socket = new_socket(address, only_v6)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    #[cfg(target_os = "linux")]
    {
        socket.set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES)?;
        socket.set_tcp_user_timeout(Some(HTTP_WRITE_TIMEOUT))?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
