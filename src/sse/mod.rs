//! Event streams (SSE): the channels of a stream for whoever has HTTP and no WebSocket.
//!
//! A stream is an ordinary connection in the worker's slab. Its byte stream is a [pipe](pipe::Pipe) within the
//! process, and what reads the other end is the body of the answer. So a stream is authorised, counted, limited,
//! written to, caught up with its channels' logs and closed by the code that does it for sockets.
//!
//! `POST /app/{key}/sse` gives out a socket id to be signed for, with its [token]; `GET` opens a stream.

mod cursor;
mod opening;
mod pipe;
mod places;
mod refused;
mod request;
mod stream;
mod text;
mod token;
mod told;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, CACHE_CONTROL, CONNECTION, CONTENT_TYPE,
    HeaderMap, HeaderName, HeaderValue, ORIGIN, VARY,
};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use tidewire_protocol::{Rejection, SocketId, UserData};

use self::opening::Opening;
use self::pipe::Pipe;
use self::refused::Refused;
use self::request::{Query, RequestError, StreamRequest};
pub use self::stream::EventStream;
use crate::app::{App, Settings};
use crate::connection::Client;
use crate::handshake::{Hello, Peer, origin_is_allowed};
use crate::http::{body, respond};
use crate::node::{HttpPlace, Node};
use crate::worker::{Admission, Worker, new_socket_id};

/// Whole, or as it comes.
pub type Body = Either<Full<Bytes>, EventStream>;

const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");
const METHODS: &str = "GET, POST, OPTIONS";
const RECOVERED: HeaderName = HeaderName::from_static("tidewire-recovered");
const POSITION: HeaderName = HeaderName::from_static("tidewire-position");
const LAST_EVENT_ID: &str = "last-event-id";
/// Milliseconds after which clients come back whose stream broke. Random, so that they do not come all at once.
const RETRY_MS: std::ops::RangeInclusive<u64> = 1500..=4500;
/// The least of it during a drain.
const MIN_DRAIN_RETRY_MS: u64 = 500;

/// Answers a request for `/app/{key}/sse`. The connection gives up its place among those that speak HTTP as soon as
/// it has one among the app's.
pub async fn answer(
    worker: &Rc<Worker>,
    request: Request<Incoming>,
    peer: Peer,
    key: &str,
    place: &Cell<Option<HttpPlace>>,
) -> Response<Body> {
    let started = Instant::now();
    let node = &worker.node;
    let hello = Hello::on_behalf(node, &request, peer, Some(key));
    let app = node.apps.by_key(key);
    let (head, body) = request.into_parts();
    let answered = match head.method {
        Method::GET => {
            let query = Query(head.uri.query().unwrap_or(""));
            open(worker, &hello, app.as_ref(), query, &head.headers, place).await
        }
        Method::POST => give_token(node, &hello, app.as_ref()).map(|reply| reply.map(Body::Left)),
        Method::OPTIONS => allow(node, &hello, app.as_ref()).map(|reply| reply.map(Body::Left)),
        _ => Err(Refused::method_not_allowed(METHODS)),
    };
    if head.method != Method::GET {
        body::discard(body, &head.headers, node.config.max_request_body_bytes).await;
    }
    let (status, mut reply) = match answered {
        Ok(reply) => (reply.status(), reply),
        Err(refused) => {
            let status = refused.status();
            tracing::debug!(target: "tidewire::sse", %status, ?refused, "refused a stream");
            (status, refused.into_reply(&head.headers, retry(node)).map(Body::Left))
        }
    };
    share(&mut reply, app.as_deref(), &head.headers);
    node.metrics.api_request("sse", status.as_u16(), started.elapsed());
    reply
}

/// Opens a stream. The status is known once every channel has answered.
async fn open(
    worker: &Rc<Worker>,
    hello: &Hello,
    app: Option<&Arc<App>>,
    query: Query<'_>,
    headers: &HeaderMap,
    place: &Cell<Option<HttpPlace>>,
) -> Result<Response<Body>, Refused> {
    let node = &worker.node;
    let (_, app) = hello.check(node, app).map_err(|rejection| refuse(node, hello, rejection))?;
    let last_event_id = headers.get(LAST_EVENT_ID).map(|id| id.to_str().unwrap_or("?"));
    let max_name_length = app.settings().limits.max_channel_name_length;
    let request = StreamRequest::parse(&query, last_event_id, max_name_length)?;
    let socket_id = socket_id(node, app, &query, &request)?;
    let Some(handshake) = worker.begin_handshake() else {
        return Err(Refused::unavailable("Too many handshakes, try again in a second"));
    };
    let client = hello.decide(node, Some(app)).map_err(|rejection| refuse(node, hello, rejection))?;
    let mut pipe = admit(worker, app, client, socket_id, &request);
    let opening = Opening::answered(worker, &mut pipe, &request).await?;
    drop(handshake);
    // Not before: who is refused goes on speaking HTTP.
    drop(place.take());
    let mut reply = Response::new(());
    describe(reply.headers_mut(), &opening);
    let keepalive = keepalive(&app.settings(), &request);
    let stream = EventStream::new(Rc::clone(worker), pipe, opening, request.on_gap, retry(node), keepalive);
    Ok(reply.map(|()| Body::Right(stream)))
}

/// The id that the client's signatures are for, which only a token can prove; a new one where nothing is signed.
fn socket_id(
    node: &Node,
    app: &App,
    query: &Query<'_>,
    request: &StreamRequest,
) -> Result<SocketId, Refused> {
    let needs_token = request.needs_token();
    if needs_token.is_none() && app.settings().authorized_connections {
        // It could never become authorised: better say so now than close it in half a minute (2.16).
        return Err(Refused::new(403, "Only authorized streams: ask for a private channel, or sign in"));
    }
    match (query.get("token"), needs_token) {
        (Some(token), _) => {
            let verified = token::verify(app, &token, node.clock.unix_seconds());
            verified.map_err(|error| RequestError::from(error).into())
        }
        (None, Some(error)) => Err(error.into()),
        (None, None) => Ok(new_socket_id()),
    }
}

/// A connection in the worker's slab, to which everything the client wants was said; its other end.
fn admit(
    worker: &Rc<Worker>,
    app: &Arc<App>,
    client: Client,
    socket_id: SocketId,
    request: &StreamRequest,
) -> Pipe {
    let (server, pipe) = Pipe::new();
    let lifetime = app.settings().limits.max_sse_lifetime;
    let admission = Admission { app: Arc::clone(app), client, socket_id, replay: None, lifetime };
    worker.admit(server, &request.frames(), admission);
    pipe
}

/// Headers of a stream.
fn describe(headers: &mut HeaderMap, opening: &Opening) {
    headers.insert(CONTENT_TYPE, EVENT_STREAM);
    // nginx would wait for more before it passes anything on.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    // It gave up its place among the connections that speak HTTP.
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    if opening.places.has_start() {
        let recovered = if opening.is_recovered() { "true" } else { "false" };
        headers.insert(RECOVERED, HeaderValue::from_static(recovered));
    }
    let position = opening.places.position().and_then(|position| position.to_string().try_into().ok());
    if let Some(position) = position {
        headers.insert(POSITION, position);
    }
}

/// The shortest of what the app, its channels' rules and the user's backend ask for. The backend's word was accepted
/// when the connection signed in.
fn keepalive(settings: &Settings, request: &StreamRequest) -> Duration {
    let rules = request.channels.iter().filter_map(|wanted| settings.replay.rule(&wanted.name));
    let user = request.sign_in.as_ref().and_then(|sign_in| UserData::parse(sign_in.user_data(), 0).ok());
    let of_user = user.and_then(|user| user.replay.keepalive_seconds).map(Duration::from_secs);
    let others = rules.filter_map(|rule| rule.keepalive_interval).chain(of_user);
    others.fold(settings.limits.keepalive_interval, Duration::min)
}

#[derive(Serialize)]
struct Token {
    socket_id: String,
    token: String,
    expires_in: i64,
}

/// A socket id to sign for, and what opens streams with it.
fn give_token(node: &Node, hello: &Hello, app: Option<&Arc<App>>) -> Result<Response<Full<Bytes>>, Refused> {
    let (_, app) = hello.check(node, app).map_err(|rejection| refuse(node, hello, rejection))?;
    let socket_id = new_socket_id();
    let token = token::issue(app, socket_id, node.clock.unix_seconds());
    let token = token.ok_or_else(|| Refused::new(403, "This application has no key"))?;
    let expires_in = token::LIFETIME_SECONDS;
    Ok(respond::json(&Token { socket_id: socket_id.to_string(), token, expires_in }))
}

/// Answers the question that browsers ask before a request with headers of its own.
fn allow(node: &Node, hello: &Hello, app: Option<&Arc<App>>) -> Result<Response<Full<Bytes>>, Refused> {
    // Whatever else is wrong is told to the request itself, in an answer that the page can read.
    if let Err(rejection @ Rejection::OriginNotAllowed { .. }) = hello.check(node, app) {
        return Err(refuse(node, hello, rejection));
    }
    let mut reply = Response::new(Full::default());
    *reply.status_mut() = StatusCode::NO_CONTENT;
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (ACCESS_CONTROL_ALLOW_HEADERS, "Accept, Cache-Control, Content-Type, Last-Event-ID"),
        (ACCESS_CONTROL_MAX_AGE, "86400"),
    ] {
        reply.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Ok(reply)
}

/// Lets pages of allowed origins read the answer, and caches keep none.
fn share(reply: &mut Response<Body>, app: Option<&App>, request: &HeaderMap) {
    let headers = reply.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    headers.insert(VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = request.get(ORIGIN) else { return };
    let is_allowed = |app: &App, origin: &str| origin_is_allowed(&app.settings().allowed_origins, origin);
    if origin.to_str().is_ok_and(|origin| app.is_none_or(|app| is_allowed(app, origin))) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        let exposed = HeaderValue::from_static("Retry-After, Tidewire-Position, Tidewire-Recovered");
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
}

fn refuse(node: &Node, hello: &Hello, rejection: Rejection<'_>) -> Refused {
    let code = rejection.close_code().number();
    node.metrics.handshakes_refused(code).inc();
    if rejection != Rejection::Draining {
        let address = hello.address;
        tracing::info!(target: "tidewire::sse", code, %address, "refused a stream: {rejection}");
    }
    rejection.into()
}

/// When a client comes back whose stream broke, or that was told to come again.
fn retry(node: &Node) -> Duration {
    if node.is_draining() { drain_retry(node) } else { Duration::from_millis(rand::random_range(RETRY_MS)) }
}

/// Over the whole window: the next server is not to get everybody at once.
fn drain_retry(node: &Node) -> Duration {
    let window_ms = node.config.drain_seconds.saturating_mul(1000).max(*RETRY_MS.start());
    Duration::from_millis(rand::random_range(MIN_DRAIN_RETRY_MS..=window_ms))
}
