//! HTTP: the REST API, health, and what is said to a request that wanted something else.
//!
//! Upgrades to WebSocket are not here: the worker takes them before it calls [`handle`].

pub mod admin;
mod api;
pub mod body;
mod health;
pub mod respond;
pub mod routes;

use std::time::Instant;

use bytes::Bytes;
use hyper::body::Body;
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode};

use self::body::BoxError;
use self::respond::{Hint, Refusal, Reply};
use self::routes::{NoRoute, Route};
use crate::node::Node;

/// Answers every request that is not a WebSocket upgrade. Never fails: what goes wrong is an answer, too.
pub async fn handle<B>(node: &Node, request: Request<B>) -> Reply
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let started = Instant::now();
    let (head, body) = request.into_parts();
    let path = routes::strip_prefix(head.uri.path(), &node.config.path_prefix);
    let route = Route::find(&head.method, path);
    let answered = match route {
        Ok(Route::Api { app_id, call }) => api::answer(node, app_id, call, path, &head, body).await,
        Ok(Route::Probe(probe)) => Ok(health::answer(probe, node.unreadiness(), &head.headers)),
        Ok(Route::Socket) => Err(upgrade_required()),
        Err(no_route) => {
            body::discard(body, &head.headers, node.config.max_request_body_bytes).await;
            Err(refuse(no_route, &head))
        }
    };
    let name = route.map_or("none", Route::name);
    let reply = answered.unwrap_or_else(|refusal| {
        let status = refusal.status.as_u16();
        tracing::debug!(target: "tidewire::http", route = name, status, text = %refusal.text, "refused");
        refusal.into_reply(&head.headers)
    });
    node.metrics.api_request(name, reply.status().as_u16(), started.elapsed());
    reply
}

fn refuse(no_route: NoRoute, head: &Parts) -> Refusal {
    match no_route {
        NoRoute::NotFound => Refusal::new(StatusCode::NOT_FOUND, not_found(&head.method, head.uri.path())),
        NoRoute::MethodNotAllowed { allow } => {
            let text = format!("{} is not allowed here, only {allow}", shown(head.method.as_str()));
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, text).with(Hint::Allow(allow))
        }
    }
}

fn upgrade_required() -> Refusal {
    let text = "This is a WebSocket endpoint: connect with ws:// or wss://. If you did, a proxy in between dropped \
                the Upgrade and Connection headers; nginx needs proxy_http_version 1.1 and both headers set.";
    Refusal::new(StatusCode::UPGRADE_REQUIRED, text).with(Hint::Upgrade)
}

/// What somebody needs to know who proxied only half of the paths, or kept a prefix nobody configured.
fn not_found(method: &Method, path: &str) -> String {
    let mut text = format!(
        "This is Tidewire, and there is nothing at {} {}. \
         WebSocket clients connect to /app/{{key}}, event streams are at /app/{{key}}/sse; the HTTP API is \
         /apps/{{app_id}}/events, …/batch_events, …/channels and …/users/{{user_id}}/terminate_connections; health is /up.",
        shown(method.as_str()),
        shown(path),
    );
    if let Some(prefix) = routes::unknown_prefix(path) {
        let prefix = shown(prefix);
        text.push_str(&format!(
            " To serve them below {prefix}, set server.path_prefix to \"{prefix}\" or let the proxy cut it off."
        ));
    }
    text
}

/// Text of the request in an answer, cut to a length that a log can bear.
fn shown(text: &str) -> &str {
    const MAX_BYTES: usize = 200;
    text.get(..MAX_BYTES).unwrap_or(text)
}

#[cfg(test)]
mod tests;
