//! New TCP connections: each speaks HTTP until it is upgraded.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::Worker;
use crate::handshake::Peer;
use crate::http::body::BoxError;
use crate::node::{HttpPlace, Node};
use crate::socket::Stream;
use crate::tls::{HANDSHAKE_RECORD, Tls};
use crate::{handshake, http, socket};

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

/// Speaks HTTP with a client, inside TLS when it begins so and there is a certificate.
async fn serve(worker: Rc<Worker>, _place: HttpPlace, stream: TcpStream, peer: SocketAddr) {
    let node = &worker.node;
    let address = peer.ip();
    let result = match &node.tls {
        None => serve_http(&worker, stream, Peer { address, is_tls: false }).await,
        Some(tls) => match timeout(header_timeout(node), begin_tls(tls, stream)).await {
            Ok(Ok(Stream::Plain(stream))) => {
                serve_http(&worker, stream, Peer { address, is_tls: false }).await
            }
            Ok(Ok(Stream::Tls(stream))) => serve_http(&worker, *stream, Peer { address, is_tls: true }).await,
            Ok(Err(error)) => Err(error.into()),
            Err(elapsed) => Err(elapsed.into()),
        },
    };
    if let Err(error) = result {
        tracing::debug!(target: "tidewire::http", %error, %peer, "an HTTP connection ended");
    }
}

/// Looks at the first byte: with a certificate, one port speaks TLS and plain HTTP.
async fn begin_tls(tls: &Tls, stream: TcpStream) -> io::Result<Stream> {
    let mut first = [0];
    stream.peek(&mut first).await?;
    if first == [HANDSHAKE_RECORD] {
        Ok(Stream::Tls(Box::new(tls.accept(stream).await?)))
    } else {
        Ok(Stream::Plain(stream))
    }
}

async fn serve_http(
    worker: &Rc<Worker>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
) -> Result<(), BoxError> {
    let service = service_fn(async |request| {
        let reply = if socket::is_upgrade(&request) {
            handshake::upgrade(worker, request, peer)
        } else {
            http::handle(&worker.node, request).await
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
