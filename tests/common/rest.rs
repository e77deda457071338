//! A publisher of the HTTP API whose signature can be broken in every part.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use tidewire::clock::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::sign::{Credentials, hmac_hex, md5_hex};
use super::websocket::{PATIENCE, find};

/// Where and as whom requests are made.
#[derive(Clone)]
pub struct Rest {
    pub addr: SocketAddr,
    pub clock: Clock,
    pub credentials: Credentials,
    /// Deployment prefix: on the wire, never signed.
    pub prefix: String,
    /// Of a cluster; one node knows at once what it did.
    pub settled: Option<Settled>,
}

/// Whether all nodes have told the others of everything that has happened on them.
pub type Settled = Arc<dyn Fn() -> bool + Send + Sync>;

impl Rest {
    pub fn get(&self, path: &str) -> Request {
        self.request("GET", path, Vec::new())
    }

    pub fn post(&self, path: &str, body: impl Into<Vec<u8>>) -> Request {
        self.request("POST", path, body.into())
    }

    pub fn delete(&self, path: &str) -> Request {
        self.request("DELETE", path, Vec::new())
    }

    /// Waits until what clients were told can be read, and is on its way to all of them.
    pub async fn settle(&self) {
        let Some(settled) = &self.settled else { return };
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !settled() {
            assert!(tokio::time::Instant::now() < deadline, "Redis does not have what the nodes have");
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    fn request(&self, method: &str, path: &str, body: Vec<u8>) -> Request {
        let now = self.clock.unix_millis() / 1000;
        let mut params = vec![
            ("auth_key".to_owned(), self.credentials.key.clone()),
            ("auth_timestamp".to_owned(), now.to_string()),
            ("auth_version".to_owned(), "1.0".to_owned()),
        ];
        if !body.is_empty() {
            params.push(("body_md5".to_owned(), md5_hex(&body)));
        }
        Request {
            rest: self.clone(),
            method: method.into(),
            wire_path: format!("{}{path}", self.prefix),
            signed_path: path.into(),
            secret: self.credentials.secret.clone(),
            params,
            wire_query: None,
            headers: Vec::new(),
            wire_body: body,
            is_chunked: false,
        }
    }

    /// `POST /apps/42/events` with this body.
    pub async fn trigger(&self, body: Value) -> Response {
        self.post("/apps/42/events", body.to_string()).send().await
    }

    pub async fn batch(&self, items: Value) -> Response {
        self.post("/apps/42/batch_events", json!({ "batch": items }).to_string()).send().await
    }

    /// Publishes one event and insists on success.
    pub async fn publish(&self, channel: &str, event: &str, data: &str) {
        let answer = self.trigger(json!({"name": event, "data": data, "channels": [channel]})).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "{}"), "publishing on {channel}");
    }

    pub async fn publish_except(&self, channels: &[&str], event: &str, data: &str, socket_id: &str) {
        let body = json!({"name": event, "data": data, "channels": channels, "socket_id": socket_id});
        let answer = self.trigger(body).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "{}"), "publishing on {channels:?}");
    }

    /// The body of `GET /apps/42{path}` with `info` and other parameters, which must be 200.
    pub async fn read(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let mut request = self.get(&format!("/apps/42{path}"));
        for (name, value) in query {
            request = request.query(name, value);
        }
        let answer = request.send().await;
        assert_eq!(answer.status, 200, "GET {path}: {}", answer.body);
        answer.json()
    }
}

type WireQuery = Box<dyn Fn(&[(String, String)], &str) -> String + Send>;

/// A request that is right until a test makes it wrong.
pub struct Request {
    rest: Rest,
    method: String,
    wire_path: String,
    signed_path: String,
    secret: String,
    /// What is signed, and by default what is sent.
    params: Vec<(String, String)>,
    wire_query: Option<WireQuery>,
    headers: Vec<(String, String)>,
    wire_body: Vec<u8>,
    is_chunked: bool,
}

impl Request {
    /// Adds a parameter or replaces its value, in signature and query alike.
    pub fn query(mut self, name: &str, value: &str) -> Self {
        self = self.without(name);
        self.params.push((name.into(), value.into()));
        self
    }

    /// Leaves a parameter out of signature and query.
    pub fn without(mut self, name: &str) -> Self {
        self.params.retain(|(key, _)| key != name);
        self
    }

    /// Seconds that `auth_timestamp` is away from now.
    pub fn shifted(self, seconds: i64) -> Self {
        let now = self.params.iter().find(|(key, _)| key == "auth_timestamp").map(|(_, value)| value.clone());
        let now: i64 = now.and_then(|text| text.parse().ok()).expect("a request starts with a timestamp");
        self.query("auth_timestamp", &(now + seconds).to_string())
    }

    pub fn secret(mut self, secret: &str) -> Self {
        self.secret = secret.into();
        self
    }

    /// Sends another path than the signed one.
    pub fn wire_path(mut self, path: &str) -> Self {
        self.wire_path = path.into();
        self
    }

    /// Sends another body than the signed one.
    pub fn wire_body(mut self, body: &[u8]) -> Self {
        self.wire_body = body.to_vec();
        self
    }

    /// Announces the body as chunks; the test writes them itself.
    pub fn chunked(mut self) -> Self {
        self.is_chunked = true;
        self
    }

    /// Writes the query from the sorted signed parameters and the signature.
    pub fn wire_query(
        mut self,
        write: impl Fn(&[(String, String)], &str) -> String + Send + 'static,
    ) -> Self {
        self.wire_query = Some(Box::new(write));
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The string that is signed (specification 4.3).
    pub fn string_to_sign(&self) -> String {
        format!("{}\n{}\n{}", self.method, self.signed_path, join(&self.sorted()))
    }

    pub fn signature(&self) -> String {
        hmac_hex(&self.secret, &self.string_to_sign())
    }

    fn sorted(&self) -> Vec<(String, String)> {
        let mut params = self.params.clone();
        params.sort();
        params
    }

    pub fn bytes(&self) -> Vec<u8> {
        let signature = self.signature();
        let query = match &self.wire_query {
            Some(write) => write(&self.sorted(), &signature),
            None => format!("{}&auth_signature={signature}", join(&self.sorted())),
        };
        let mut head =
            format!("{} {}?{query} HTTP/1.1\r\nHost: tidewire.test\r\n", self.method, self.wire_path);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if self.is_chunked {
            head.push_str("Transfer-Encoding: chunked\r\n");
        } else if self.method != "GET" || !self.wire_body.is_empty() {
            head.push_str(&format!("Content-Length: {}\r\n", self.wire_body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.wire_body);
        bytes
    }

    pub async fn send(self) -> Response {
        // Of a cluster, a node reads what the others told it, and they have told it a moment later.
        if self.method == "GET" || find(&self.wire_body, b"\"info\"").is_some() {
            self.rest.settle().await;
        }
        let mut connection = HttpConnection::open(self.rest.addr).await;
        connection.exchange(self).await
    }
}

/// One keep-alive connection to the HTTP port.
pub struct HttpConnection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl HttpConnection {
    pub async fn open(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.expect("the server listens");
        stream.set_nodelay(true).expect("a fresh socket takes options");
        Self { stream, received: Vec::new() }
    }

    pub async fn exchange(&mut self, request: Request) -> Response {
        self.write(&request.bytes()).await.expect("the server takes the request");
        self.response().await
    }

    pub async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The next answer, which must come.
    pub async fn response(&mut self) -> Response {
        self.try_response().await.expect("the server answers before it hangs up")
    }

    /// The next answer, or none when the server hung up instead.
    pub async fn try_response(&mut self) -> Option<Response> {
        let head_end = loop {
            if let Some(end) = find(&self.received, b"\r\n\r\n") {
                break end;
            }
            if !self.fill().await {
                return None;
            }
        };
        let head = String::from_utf8_lossy(&self.received[..head_end]).into_owned();
        self.received.drain(..head_end + 4);
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length = length.map(|(_, value)| value.parse::<usize>().expect("a content length is a number"));
        // Answers of this API have a length; an empty one may leave it out (202, 204, 405).
        let length = length.unwrap_or_default();
        while self.received.len() < length {
            if !self.fill().await {
                return None;
            }
        }
        let body = String::from_utf8(self.received.drain(..length).collect()).expect("bodies are UTF-8");
        Some(Response { status: status.expect("a status line has a code"), headers, body })
    }

    async fn fill(&mut self) -> bool {
        let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await;
        let read = read.unwrap_or_else(|_| panic!("no answer within {PATIENCE:?}"));
        matches!(read, Ok(count) if count > 0)
    }
}

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// Checks the status and hands the body back for a closer look.
    pub fn refused(self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }
}

/// `k=v&…` without any escaping.
pub fn join(params: &[(String, String)]) -> String {
    params.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join("&")
}
