//! New TCP connections: each speaks HTTP until it is upgraded.

use std::cell::Cell;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout_at};

use super::Worker;
use crate::handshake::Peer;
use crate::http::body::BoxError;
use crate::http::routes;
use crate::node::{HttpPlace, Node};
use crate::tls::HANDSHAKE_RECORD;
use crate::{handshake, http, socket, sse};

/// Bytes of a request head that are read before it is refused with 431.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Pause after a failed accept, which is most often a lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Failed accepts between two log lines.
const FAILURES_PER_WARNING: u64 = 1000;

pub async fn accept(worker: Rc<Worker>, listener: TcpListener) {
    let mut failures = Failures::default();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => match worker.node.admit_http() {
                Some(place) => drop(tokio::task::spawn_local(serve(Rc::clone(&worker), place, stream, peer))),
                // Dropping it is all there is time for: whoever floods would keep an answer waiting.
                None => {
                    failures.tell("closed a connection: too many speak HTTP, raise the limit of open files")
                }
            },
            Err(error) => {
                failures.tell(&format!(
                    "cannot accept a connection: {error}; raise the limit of open files \
                    if it says that there are too many"
                ));
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Warns of the first of many failures.
#[derive(Default)]
struct Failures(u64);

impl Failures {
    fn tell(&mut self, text: &str) {
        if self.0.is_multiple_of(FAILURES_PER_WARNING) {
            tracing::warn!(target: "tidewire::worker", failures = self.0 + 1, "{text}");
        }
        self.0 += 1;
    }
}

/// Serves a client until it or the server is done with it.
async fn serve(worker: Rc<Worker>, place: HttpPlace, stream: TcpStream, peer: SocketAddr) {
    if let Err(error) = speak(&worker, place, stream, peer.ip()).await {
        tracing::debug!(target: "tidewire::http", %error, %peer, "an HTTP connection ended");
    }
}

/// Speaks HTTP, inside TLS when the first byte says so and there is a certificate: one port has both.
async fn speak(
    worker: &Rc<Worker>,
    place: HttpPlace,
    stream: TcpStream,
    address: IpAddr,
) -> Result<(), BoxError> {
    let plain = Peer { address, is_tls: false };
    let Some(tls) = &worker.node.tls else { return serve_http(worker, place, stream, plain).await };
    let deadline = Instant::now() + header_timeout(&worker.node);
    let mut first = [0];
    timeout_at(deadline, stream.peek(&mut first)).await??;
    if first != [HANDSHAKE_RECORD] {
        return serve_http(worker, place, stream, plain).await;
    }
    let stream = timeout_at(deadline, tls.accept(stream)).await??;
    serve_http(worker, place, stream, Peer { address, is_tls: true }).await
}

async fn serve_http(
    worker: &Rc<Worker>,
    place: HttpPlace,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
) -> Result<(), BoxError> {
    let place = &Cell::new(Some(place));
    let service = service_fn(async |request: Request<Incoming>| {
        let path = request.uri().path();
        let reply = if socket::is_upgrade(&request) {
            handshake::upgrade(worker, request, peer).map(sse::Body::Left)
        } else if let Some(key) =
            routes::stream_key(path, &worker.node.config.path_prefix).map(Box::<str>::from)
        {
            sse::answer(worker, request, peer, &key, place).await
        } else {
            http::handle(&worker.node, request).await.map(sse::Body::Left)
        };
        Ok::<_, Infallible>(reply)
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout(&worker.node))
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await?;
    Ok(())
}

fn header_timeout(node: &Node) -> Duration {
    Duration::from_secs(node.config.header_timeout_seconds)
}
