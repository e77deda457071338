//! New TCP connections: each speaks HTTP until it is upgraded.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use super::Worker;
use crate::{handshake, http, socket};

/// Bytes of a request head that are read before it is refused with 431.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Pause after a failed accept, which is most often a lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Failed accepts between two log lines.
const FAILURES_PER_WARNING: u32 = 100;

pub async fn accept(worker: Rc<Worker>, listener: TcpListener) {
    let mut failures = 0;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                tokio::task::spawn_local(serve(Rc::clone(&worker), stream, peer));
            }
            Err(error) => {
                if failures % FAILURES_PER_WARNING == 0 {
                    tracing::warn!(target: "tidewire::worker", %error, failures, "cannot accept a connection; \
                        raise the limit of open files if it says that there are too many");
                }
                failures += 1;
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr) {
    let node = &worker.node;
    node.metrics.http_connections.inc();
    let service = service_fn(async |request| {
        let reply = if socket::is_upgrade(&request) {
            handshake::upgrade(&worker, request, peer.ip())
        } else {
            http::handle(&worker.node, request).await
        };
        Ok::<_, Infallible>(reply)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(node.config.header_timeout_seconds))
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(target: "tidewire::http", %error, %peer, "an HTTP connection ended");
    }
    node.metrics.http_connections.dec();
}
