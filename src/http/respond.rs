//! Answers and refusals as HTTP.
//!
//! Errors are plain text that ends in a newline, as the hosted service writes them; whoever accepts JSON gets an
//! object instead (4.4): the .NET SDK throws on any body that is not one.

use std::borrow::Cow;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ACCEPT, ALLOW, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, UPGRADE,
};
use hyper::{Response, StatusCode};
use serde::Serialize;

pub type Reply = Response<Full<Bytes>>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// A request that is not granted: the status, and a text for the person who reads the SDK's exception.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: StatusCode,
    pub text: Cow<'static, str>,
    pub hint: Hint,
}

/// What some statuses have to say in a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    None,
    /// Methods of the path, with 405.
    Allow(&'static str),
    /// Seconds, with 429 and 503.
    RetryAfter(u64),
    /// With 426.
    Upgrade,
}

impl Refusal {
    pub fn new(status: StatusCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self { status, text: text.into(), hint: Hint::None }
    }

    pub fn with(self, hint: Hint) -> Self {
        Self { hint, ..self }
    }

    /// The refusal as an answer to a request with these headers.
    pub fn into_reply(self, request: &HeaderMap) -> Reply {
        let mut reply = if accepts_json(request) {
            let body = ErrorBody { error: &self.text, status: self.status.as_u16() };
            with_body(self.status, JSON, to_json(&body))
        } else {
            let mut body = self.text.into_owned();
            body.push('\n');
            with_body(self.status, TEXT, body)
        };
        match self.hint {
            Hint::None => {}
            Hint::Allow(methods) => set(&mut reply, ALLOW, HeaderValue::from_static(methods)),
            Hint::RetryAfter(seconds) => set(&mut reply, RETRY_AFTER, HeaderValue::from(seconds)),
            Hint::Upgrade => {
                set(&mut reply, UPGRADE, HeaderValue::from_static("websocket"));
                set(&mut reply, CONNECTION, HeaderValue::from_static("upgrade"));
            }
        }
        reply
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
    status: u16,
}

/// `{}`: what a successful call without further data answers (4.5).
pub fn empty_object() -> Reply {
    with_body(StatusCode::OK, JSON, Bytes::from_static(b"{}"))
}

pub fn json(body: &impl Serialize) -> Reply {
    json_with(StatusCode::OK, body)
}

/// Errors whose members programs read, whatever they accept.
pub fn json_with(status: StatusCode, body: &impl Serialize) -> Reply {
    with_body(status, JSON, to_json(body))
}

/// What is JSON already.
pub fn json_text(body: impl Into<Bytes>) -> Reply {
    with_body(StatusCode::OK, JSON, body)
}

pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    with_body(status, TEXT, body)
}

pub fn html(body: impl Into<Bytes>) -> Reply {
    with_body(StatusCode::OK, HTML, body)
}

/// 202 without a body, the answer of the legacy publish (4.9).
pub fn accepted() -> Reply {
    let mut reply = Response::new(Full::default());
    *reply.status_mut() = StatusCode::ACCEPTED;
    reply
}

/// hyper adds `Content-Length` and `Date`, and keeps the connection.
pub fn with_body(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    set(&mut reply, CONTENT_TYPE, content_type);
    reply
}

fn set(reply: &mut Reply, name: HeaderName, value: HeaderValue) {
    reply.headers_mut().insert(name, value);
}

fn to_json(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("structs with string keys always serialise")
}

fn accepts_json(request: &HeaderMap) -> bool {
    request
        .get_all(ACCEPT)
        .iter()
        .any(|value| value.to_str().is_ok_and(|types| types.contains("application/json")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn body_of(reply: Reply) -> String {
        let bytes = reply.into_body().collect().await.expect("a full body cannot fail").to_bytes();
        String::from_utf8(bytes.to_vec()).expect("replies are text")
    }

    fn accepting(types: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(types))])
    }

    #[tokio::test]
    async fn s150_errors_are_text_with_a_newline_or_json_for_whoever_accepts_it() {
        let refusal = Refusal::new(StatusCode::UNAUTHORIZED, "Unknown auth_key \"x\"");

        let reply = refusal.clone().into_reply(&accepting("*/*"));
        assert_eq!(reply.status(), 401);
        assert_eq!(reply.headers()[CONTENT_TYPE], "text/plain; charset=utf-8");
        assert_eq!(body_of(reply).await, "Unknown auth_key \"x\"\n");

        let reply = refusal.into_reply(&accepting("text/json, application/json"));
        assert_eq!(reply.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(body_of(reply).await, r#"{"error":"Unknown auth_key \"x\"","status":401}"#);
    }

    #[test]
    fn hints_become_headers() {
        let refuse = |status, hint| Refusal::new(status, "no").with(hint).into_reply(&HeaderMap::new());
        let reply = refuse(StatusCode::METHOD_NOT_ALLOWED, Hint::Allow("GET"));
        assert_eq!(reply.headers()[ALLOW], "GET");
        let reply = refuse(StatusCode::TOO_MANY_REQUESTS, Hint::RetryAfter(3));
        assert_eq!(reply.headers()[RETRY_AFTER], "3");
        let reply = refuse(StatusCode::UPGRADE_REQUIRED, Hint::Upgrade);
        assert_eq!(reply.headers()[UPGRADE], "websocket");
    }
}
