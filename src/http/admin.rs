//! The operator's port: metrics, health and a page that says where they are.
//!
//! It has no password: it listens on loopback unless the configuration says otherwise, and it only reads.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::health;
use super::respond::{self, Hint, Refusal, Reply};
use super::routes::Route;
use crate::node::Node;
use crate::telemetry::metrics::CONTENT_TYPE;

/// Scrapers and probes are few; whoever floods this port waits in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed accept, which is most often a lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers on `listener` until the future is dropped; dropping it closes the connections as well.
pub async fn serve(listener: TcpListener, node: Arc<Node>) {
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(target: "tidewire::http", %error, "the admin port cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let node = Arc::clone(&node);
        connections.spawn(async move {
            let service =
                service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&node, &request))));
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(target: "tidewire::http", %error, "a connection to the admin port ended");
            }
            drop(permit);
        });
    }
}

/// Answers one request. Bodies are not read: nothing here takes one.
pub fn answer<B>(node: &Node, request: &Request<B>) -> Reply {
    let (method, path, headers) = (request.method(), request.uri().path(), request.headers());
    if !matches!(*method, Method::GET | Method::HEAD) {
        let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "The admin port only answers GET");
        return refusal.with(Hint::Allow("GET, HEAD")).into_reply(headers);
    }
    match path {
        "/" => respond::html(index()),
        "/metrics" => {
            respond::with_body(StatusCode::OK, HeaderValue::from_static(CONTENT_TYPE), node.metrics.encode())
        }
        _ => match Route::find(method, path) {
            Ok(Route::Probe(probe)) => health::answer(probe, node.unreadiness(), headers),
            _ => Refusal::new(StatusCode::NOT_FOUND, WRONG_PORT).into_reply(headers),
        },
    }
}

const WRONG_PORT: &str = "This is the admin port of Tidewire: it has /metrics, /up, /live and /ready. \
                          Clients and publishers use the other port.";

fn index() -> Bytes {
    Bytes::from_static(
        concat!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Tidewire</title>\n",
            "<h1>Tidewire ",
            env!("CARGO_PKG_VERSION"),
            "</h1>\n<ul>\n",
            "<li><a href=\"/metrics\">/metrics</a> for Prometheus\n",
            "<li><a href=\"/up\">/up</a>, <a href=\"/live\">/live</a>: the process answers\n",
            "<li><a href=\"/ready\">/ready</a>: 503 while it drains\n",
            "</ul>\n</html>\n"
        )
        .as_bytes(),
    )
}
