//! The WebSocket handshake: from an HTTP request to a greeted client, or to a refusal it understands (1.1, 1.2).
//!
//! Refusals come after the upgrade, as an error frame with a close code: clients take an HTTP status for a
//! broken network and try for ever without telling anybody why.

use std::borrow::Cow;
use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{
    ALLOW, HeaderMap, HeaderName, HeaderValue, ORIGIN, RETRY_AFTER, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION,
};
use hyper::{Method, Request, StatusCode};
use percent_encoding::percent_decode_str;
use tidewire_protocol::error::Rejection;
use tidewire_protocol::replay::{ReplayError, ReplayRequest, Start};
use tidewire_protocol::{frame, server_message};
use tokio::io::ReadBuf;

use crate::app::App;
use crate::connection::{Client, Library};
use crate::http::{respond, routes};
use crate::node::Node;
use crate::socket::{self, Socket, Stream, Upgrade};
use crate::worker::{Admission, Place, Worker, new_socket_id};

/// Protocol versions that are served; older ones are retired.
const PROTOCOLS: std::ops::RangeInclusive<u8> = 4..=7;
/// What a client that names none is taken for.
const DEFAULT_PROTOCOL: u8 = 7;
const SUBPROTOCOL_PREFIX: &str = "pusher-channels-protocol-";
/// Pause before a newcomer is refused during a drain: clients come back at once after 4200.
const DRAIN_REFUSAL_PAUSE: Duration = Duration::from_secs(1);
/// How long a refused client may take to read why and to hang up.
const REFUSAL_GRACE: Duration = Duration::from_secs(5);

/// Answers 101 and goes on in a task of its own; over the worker's limit of handshakes, 503.
pub fn upgrade(worker: &Rc<Worker>, mut request: Request<Incoming>, peer: Peer) -> respond::Reply {
    let refuse = |status: StatusCode, text: &str, header: HeaderName, value: &'static str| {
        worker.node.metrics.handshakes_refused(status.as_u16()).inc();
        let mut reply = respond::text(status, format!("{text}\n"));
        reply.headers_mut().insert(header, HeaderValue::from_static(value));
        reply
    };
    if request.method() != Method::GET {
        let text = "A WebSocket handshake is a GET request";
        return refuse(StatusCode::METHOD_NOT_ALLOWED, text, ALLOW, "GET");
    }
    let Some(place) = worker.begin_handshake() else {
        let text = "Too many handshakes, try again in a second";
        return refuse(StatusCode::SERVICE_UNAVAILABLE, text, RETRY_AFTER, "1");
    };
    let (mut reply, upgrade) = match socket::upgrade(&mut request) {
        Ok(answered) => answered,
        Err(error) => {
            let text = format!("Not a WebSocket handshake: {error}");
            return refuse(StatusCode::BAD_REQUEST, &text, SEC_WEBSOCKET_VERSION, "13");
        }
    };
    if let Some(subprotocol) = choose_subprotocol(request.headers()) {
        reply.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, subprotocol.clone());
    }
    let key = routes::socket_key(request.uri().path(), &worker.node.config.path_prefix);
    let hello = Hello::of(&worker.node, &request, peer, key);
    tokio::task::spawn_local(greet(Rc::clone(worker), place, upgrade, hello));
    reply
}

/// The first `pusher-channels-protocol-N` on offer (Apple's stack breaks off when nothing is chosen).
fn choose_subprotocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let offers = headers.get_all(SEC_WEBSOCKET_PROTOCOL);
    let names = offers.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let chosen = names.map(str::trim).find(|name| name.starts_with(SUBPROTOCOL_PREFIX))?;
    HeaderValue::from_str(chosen).ok()
}

/// The other end of a TCP connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub address: IpAddr,
    /// It speaks TLS to this server itself.
    pub is_tls: bool,
}

/// What of the request decides about the connection.
pub struct Hello {
    /// The part behind `/app/`; `None` on any other path.
    pub key: Option<Box<str>>,
    protocol: Option<Box<str>>,
    library: Library,
    pub origin: Option<Box<str>>,
    /// What the client asks of the log for all its subscriptions.
    replay: Option<Result<ReplayRequest, ReplayError>>,
    is_tls: bool,
    /// For the log: the peer, or who it speaks for when it is a trusted proxy.
    pub address: IpAddr,
}

impl Hello {
    pub fn of<B>(node: &Node, request: &Request<B>, peer: Peer, key: Option<&str>) -> Self {
        let headers = request.headers();
        let is_trusted =
            |address: &IpAddr| node.config.trusted_proxies.iter().any(|network| network.contains(address));
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let forwarded = |name: &str| header(name).filter(|_| is_trusted(&peer.address));
        let query = request.uri().query().unwrap_or("");
        let first = |list: &str| list.split(',').next().unwrap_or("").trim().to_owned();
        Self {
            key: key.map(Box::from),
            protocol: parameter(query, "protocol").map(|value| value.as_ref().into()),
            library: parameter(query, "client").map_or(Library::Other, |name| Library::from_name(&name)),
            origin: header(ORIGIN.as_str()).map(Box::from),
            replay: replay_request(query),
            is_tls: peer.is_tls
                || forwarded("x-forwarded-proto").map(first).is_some_and(|scheme| {
                    scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("wss")
                }),
            address: forwarded("x-forwarded-for")
                .and_then(|list| client_of(list, is_trusted))
                .unwrap_or(peer.address),
        }
    }

    /// Of a client that does not speak the protocol itself: the server does it on its behalf.
    pub fn on_behalf<B>(node: &Node, request: &Request<B>, peer: Peer, key: Option<&str>) -> Self {
        let protocol = Some(DEFAULT_PROTOCOL.to_string().into());
        Self { protocol, library: Library::Js, ..Self::of(node, request, peer, key) }
    }

    /// The rows of 1.2 in their order; the first that applies refuses. The connection is counted if none does.
    pub fn decide<'a>(&'a self, node: &Node, app: Option<&Arc<App>>) -> Result<Client, Rejection<'a>> {
        let (client, app) = self.check(node, app)?;
        if !node.admit_connection() {
            return Err(Rejection::OverCapacity);
        }
        if !app.admit_connection() {
            node.release_connection();
            let max_connections = app.settings().limits.max_connections;
            return Err(Rejection::OverConnectionQuota { max_connections });
        }
        Ok(client)
    }

    /// The rows that do not depend on how many connections there are.
    pub fn check<'a, 'n>(
        &'a self,
        node: &Node,
        app: Option<&'n Arc<App>>,
    ) -> Result<(Client, &'n Arc<App>), Rejection<'a>> {
        let key = self.key.as_deref().ok_or(Rejection::PathNotFound)?;
        let app = app.ok_or(Rejection::AppUnknown { key })?;
        let settings = app.settings();
        if !app.is_enabled() {
            return Err(Rejection::AppDisabled);
        }
        if settings.require_tls && !self.is_tls {
            return Err(Rejection::TlsRequired);
        }
        let protocol = self.protocol_version(node.config.require_protocol_version)?;
        if let Some(origin) = self.origin.as_deref()
            && !origin_is_allowed(&settings.allowed_origins, origin)
        {
            return Err(Rejection::OriginNotAllowed { origin });
        }
        if node.is_draining() {
            return Err(Rejection::Draining);
        }
        Ok((Client { protocol, library: self.library }, app))
    }

    fn protocol_version(&self, is_required: bool) -> Result<u8, Rejection<'_>> {
        match self.protocol.as_deref() {
            None if is_required => Err(Rejection::ProtocolMissing),
            None => Ok(DEFAULT_PROTOCOL),
            Some(version) => version
                .parse()
                .ok()
                .filter(|version| PROTOCOLS.contains(version))
                .ok_or(Rejection::UnsupportedProtocol { version }),
        }
    }
}

/// `?replay=1` asks for positions; `?last_message_id=` resumes after one, for clients of a single channel.
fn replay_request(query: &str) -> Option<Result<ReplayRequest, ReplayError>> {
    match (parameter(query, "last_message_id"), parameter(query, "replay")) {
        (Some(position), _) => Some(match position.parse() {
            Ok(position) => Ok(ReplayRequest { start: Start::After(position), ..ReplayRequest::LIVE }),
            Err(error) => Err(ReplayError::From(error)),
        }),
        (None, Some(version)) => match &*version {
            "1" => Some(Ok(ReplayRequest::LIVE)),
            "" | "0" => None,
            _ => Some(Err(ReplayError::Version)),
        },
        (None, None) => None,
    }
}

/// The last address of `X-Forwarded-For` that is not one of our proxies: clients can make up those before it.
fn client_of(list: &str, is_trusted: impl Fn(&IpAddr) -> bool) -> Option<IpAddr> {
    list.rsplit(',').filter_map(|address| address.trim().parse().ok()).find(|address| !is_trusted(address))
}

/// The first value of a query parameter, percent-decoded.
fn parameter<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| percent_decode_str(value).decode_utf8_lossy())
}

/// Patterns are hosts or URLs; `*` allows all, `*.example.com` every host below. An empty list allows all.
pub fn origin_is_allowed(patterns: &[String], origin: &str) -> bool {
    fn host_of(url: &str) -> &str {
        let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
        authority.split('/').next().unwrap_or(authority)
    }
    fn without_port(host: &str) -> &str {
        match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        }
    }
    let origin = origin.to_ascii_lowercase();
    let host = host_of(&origin);
    patterns.is_empty()
        || patterns.iter().any(|pattern| {
            let pattern = pattern.to_ascii_lowercase();
            if pattern.contains("://") {
                return origin == pattern.trim_end_matches('/');
            }
            // A pattern without a port allows every port.
            let name = without_port(host);
            match pattern.strip_prefix("*.") {
                Some(domain) => name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')),
                None => pattern == "*" || pattern == host || pattern == name,
            }
        })
}

async fn greet(worker: Rc<Worker>, place: Place, upgrade: Upgrade, hello: Hello) {
    let limit = Duration::from_secs(worker.node.config.handshake_timeout_seconds);
    let Ok(Some((stream, early))) = tokio::time::timeout(limit, upgrade.into_stream()).await else { return };
    let app = hello.key.as_deref().and_then(|key| worker.node.apps.by_key(key));
    let decision = hello.decide(&worker.node, app.as_ref());
    match (decision, app) {
        (Ok(client), Some(app)) => {
            drop(place);
            let lifetime = app.settings().limits.max_connection_lifetime;
            let socket_id = new_socket_id();
            let admission = Admission { app, client, socket_id, replay: hello.replay, lifetime };
            worker.admit(stream, &early, admission);
        }
        (Err(rejection), _) => {
            let patience = worker.begin_refusal();
            drop(place);
            refuse(&worker, stream, &rejection, hello.address, patience).await;
        }
        (Ok(_), None) => {}
    }
}

/// Tells why in both ways, then waits for the client to hang up (1.2). Without a place to wait in, it is cut off
/// as soon as it was told.
async fn refuse(
    worker: &Worker,
    stream: Stream,
    rejection: &Rejection<'_>,
    address: IpAddr,
    patience: Option<Place>,
) {
    let code = rejection.close_code().number();
    let message = rejection.to_string();
    worker.node.metrics.handshakes_refused(code).inc();
    if *rejection == Rejection::Draining && patience.is_some() {
        let _ = tokio::time::timeout(DRAIN_REFUSAL_PAUSE, worker.node.drained()).await;
    } else if *rejection != Rejection::Draining {
        tracing::info!(target: "tidewire::handshake", code, %address, "refused a connection: {message}");
    }
    let mut frames = frame::encode_text(&server_message::error(Some(code), &message)).to_vec();
    frames.extend_from_slice(&frame::encode_close(code, rejection.close_code().meaning()));
    let mut socket = Socket::new(stream);
    socket.send(&frames.into(), usize::MAX);
    if patience.is_none() {
        return;
    }
    let goodbye = async {
        poll_fn(|cx| socket.poll_shutdown(cx)).await?;
        let mut discarded = [0; 512];
        loop {
            let mut read = ReadBuf::new(&mut discarded);
            poll_fn(|cx| socket.poll_read(cx, &mut read)).await?;
            if read.filled().is_empty() {
                return std::io::Result::Ok(());
            }
        }
    };
    // The client is gone already, or does not care to read.
    let _ = tokio::time::timeout(REFUSAL_GRACE, goodbye).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(pattern: &str, origin: &str) -> bool {
        origin_is_allowed(&[pattern.to_owned()], origin)
    }

    #[test]
    fn s018_origins_match_by_host_url_or_wildcard() {
        assert!(origin_is_allowed(&[], "https://any.example"));
        assert!(allows("*", "https://any.example"));
        assert!(allows("app.example.com", "https://app.example.com"));
        assert!(allows("app.example.com", "http://APP.example.com:8080"));
        assert!(allows("localhost:3000", "http://localhost:3000"));
        assert!(!allows("localhost:3000", "http://localhost:3001"));
        assert!(allows("https://app.example.com/", "https://app.example.com"));
        assert!(!allows("https://app.example.com", "http://app.example.com"));
        assert!(allows("*.example.com", "https://a.b.example.com"));
        assert!(!allows("*.example.com", "https://example.com"));
        assert!(!allows("*.example.com", "https://badexample.com"));
        assert!(!allows("example.com", "null"));
    }

    #[test]
    fn only_pushers_own_subprotocol_is_chosen() {
        let mut headers = HeaderMap::new();
        assert_eq!(choose_subprotocol(&headers), None);
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("chat, pusher-channels-protocol-7"));
        assert_eq!(choose_subprotocol(&headers).unwrap(), "pusher-channels-protocol-7");
    }

    #[test]
    fn forwarded_addresses_that_a_client_made_up_are_not_believed() {
        let is_trusted = |address: &IpAddr| address.is_loopback();
        let client = |list| client_of(list, is_trusted).map(|address| address.to_string());
        assert_eq!(client("6.6.6.6, 9.9.9.9, 127.0.0.1").as_deref(), Some("9.9.9.9"));
        assert_eq!(client("127.0.0.1"), None);
        assert_eq!(client("nonsense"), None);
    }

    #[test]
    fn parameters_are_decoded() {
        assert_eq!(parameter("a=1&client=js%2Dx", "client").as_deref(), Some("js-x"));
        assert_eq!(parameter("a=1", "client"), None);
    }
}
