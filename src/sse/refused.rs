//! Why there is no stream: a status and JSON, or for an `EventSource` a stream that ends at once.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use serde::Serialize;
use tidewire_protocol::error::Rejection;

use super::places::Gap;
use super::request::RequestError;
use super::{EVENT_STREAM, text};
use crate::http::respond::{self, Reply};

/// Seconds after which to ask again, where that may help.
const RETRY_AFTER_SECONDS: u64 = 1;

/// A request that opens no stream.
#[derive(Debug)]
pub struct Refused {
    status: StatusCode,
    body: Box<Body>,
    /// The close code that a socket would have got.
    code: Option<u16>,
    allow: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Body {
    error: String,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<String>,
    #[serde(flatten)]
    gap: Option<Gap>,
}

/// What an event says that ends a stream.
#[derive(Debug, Serialize)]
pub struct End<'a> {
    /// A close code, or a status.
    pub code: u16,
    pub reason: &'a str,
}

impl Refused {
    pub fn new(status: u16, error: &str) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
        let body = Body { error: error.to_owned(), status: status.as_u16(), channel: None, gap: None };
        Self { status, body: Box::new(body), code: None, allow: None }
    }

    /// Asking again may help.
    pub fn unavailable(error: &str) -> Self {
        Self::new(503, error)
    }

    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self { allow: Some(allow), ..Self::new(405, &format!("Only {allow} are allowed here")) }
    }

    /// The client has messages that the log has not, or the log has no more what the client has not.
    pub fn gone(gap: Gap) -> Self {
        let mut refused = Self::new(410, "position_gone");
        refused.body.gap = Some(gap);
        refused
    }

    /// What a socket would be told by `pusher:error` and `pusher:subscription_error`.
    pub fn subscription(channel: &str, kind: &str, status: u16, message: &str) -> Self {
        // 401 is for the token: with a new one, this would be refused again.
        let status = if kind == "AuthError" { 403 } else { status };
        let mut refused = Self::new(status, message);
        refused.body.channel = Some(channel.to_owned());
        refused
    }

    /// What a socket would be closed with.
    pub fn closed(code: u16, reason: &str) -> Self {
        let status = match code {
            1009 => 413,
            4001 => 404,
            4003 | 4009 => 403,
            _ => 503,
        };
        Self { code: Some(code), ..Self::new(status, reason) }
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// An `EventSource` does not come back after any other status than 200: what will pass is told in a stream.
    pub fn into_reply(self, request: &HeaderMap, retry: Duration) -> Reply {
        let is_temporary = self.status == StatusCode::SERVICE_UNAVAILABLE;
        if is_temporary && accepts_event_stream(request) {
            return self.into_stream(retry);
        }
        let body = serde_json::to_vec(&self.body).unwrap_or_default();
        let mut reply = respond::with_body(self.status, HeaderValue::from_static("application/json"), body);
        if is_temporary {
            reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        if let Some(allow) = self.allow {
            reply.headers_mut().insert(hyper::header::ALLOW, HeaderValue::from_static(allow));
        }
        reply
    }

    fn into_stream(self, retry: Duration) -> Reply {
        let mut stream = Vec::new();
        text::push_retry(&mut stream, retry);
        let code = self.code.unwrap_or(self.body.status);
        End { code, reason: &self.body.error }.push(&mut stream);
        respond::with_body(StatusCode::OK, EVENT_STREAM, stream)
    }
}

impl End<'_> {
    /// A client that only has to come back is not told anything.
    pub fn push(&self, out: &mut Vec<u8>) {
        if self.code != RECONNECT_NOW {
            let data = serde_json::to_string(self).unwrap_or_default();
            text::push_block(out, None, Some("tidewire:error"), Some(&data));
        }
    }
}

/// The close code of a drain, and of a connection that has lived long enough.
pub const RECONNECT_NOW: u16 = tidewire_protocol::CloseCode::ReconnectNow as u16;

impl From<RequestError> for Refused {
    fn from(error: RequestError) -> Self {
        Self::new(error.status(), &error.to_string())
    }
}

impl From<Rejection<'_>> for Refused {
    fn from(rejection: Rejection<'_>) -> Self {
        let status = match rejection {
            Rejection::PathNotFound | Rejection::AppUnknown { .. } => 404,
            Rejection::AppDisabled | Rejection::TlsRequired | Rejection::OriginNotAllowed { .. } => 403,
            Rejection::UnsupportedProtocol { .. } | Rejection::ProtocolMissing => 400,
            Rejection::OverConnectionQuota { .. } => 429,
            Rejection::OverCapacity | Rejection::Draining => 503,
        };
        let code = Some(rejection.close_code().number());
        Self { code, ..Self::new(status, &rejection.to_string()) }
    }
}

fn accepts_event_stream(request: &HeaderMap) -> bool {
    let accept = request.get_all(hyper::header::ACCEPT);
    accept.iter().any(|value| value.to_str().is_ok_and(|types| types.contains("text/event-stream")))
}
