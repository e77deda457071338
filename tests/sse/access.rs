//! Who gets a stream, and what the others are told.

use serde_json::Value;
use tidewire::config::AppConfig;

use super::reader::{Get, PATH, get};
use crate::common::rest::Response;
use crate::common::{Credentials, HttpConnection, TestServer, eventually, member};

/// What `POST` gives out.
pub struct Token {
    pub socket_id: String,
    pub token: String,
    credentials: Credentials,
}

impl Token {
    pub async fn fetch(server: &TestServer) -> Self {
        let answer = request(server, "POST", PATH, "").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let body = answer.json();
        assert_eq!(body["expires_in"], 7200);
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        Self { socket_id: text("socket_id"), token: text("token"), credentials: Credentials::default() }
    }

    /// Token and signatures of private channels.
    pub fn query(&self, channels: &[&str]) -> String {
        let mut query = format!("token={}", self.token);
        for channel in channels {
            let auth = self.credentials.channel_auth(&self.socket_id, channel, None);
            query.push_str(&format!("&auth.{channel}={auth}"));
        }
        query
    }

    /// Token, member and signature of a presence channel.
    pub fn member(&self, channel: &str, user_id: &str) -> String {
        self.signed(channel, &member(user_id))
    }

    pub fn signed(&self, channel: &str, channel_data: &str) -> String {
        let auth = self.credentials.channel_auth(&self.socket_id, channel, Some(channel_data));
        let channel_data = encoded(channel_data);
        format!("token={}&auth.{channel}={auth}&channel_data.{channel}={channel_data}", self.token)
    }

    /// Token and signature of a user.
    pub fn user(&self, user_data: &str) -> String {
        let auth = self.credentials.user_auth(&self.socket_id, user_data);
        format!("token={}&user_auth={auth}&user_data={}", self.token, encoded(user_data))
    }
}

/// As `encodeURIComponent` does it.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

async fn request(server: &TestServer, method: &str, target: &str, headers: &str) -> Response {
    let mut connection = HttpConnection::open(server.addr()).await;
    let request = format!("{method} {target} HTTP/1.1\r\nHost: t\r\n{headers}Content-Length: 0\r\n\r\n");
    connection.write(request.as_bytes()).await.unwrap();
    connection.response().await
}

fn error(body: &Value) -> &str {
    body["error"].as_str().unwrap()
}

#[tokio::test]
async fn what_is_signed_needs_a_token() {
    let server = TestServer::start();
    let body = get("channels=news,private-a&auth.private-a=tw-demo-key:00").refused(&server, 401).await;
    assert!(error(&body).starts_with("Auth info required to subscribe to private-a"), "{body}");
    let body = get("channels=news&token=1.2.3.4").refused(&server, 401).await;
    assert!(error(&body).starts_with("The token is not one of this application"), "{body}");

    let token = Token::fetch(&server).await;
    let query = format!("channels=private-a&{}", token.query(&["private-a"]));
    server.advance(7190);
    drop(get(&query).open(&server).await);
    server.advance(20);
    let body = get(&query).refused(&server, 401).await;
    assert!(error(&body).starts_with("The token has expired"), "{body}");
}

#[tokio::test]
async fn a_wrong_signature_is_refused_with_the_string_to_sign() {
    let server = TestServer::start();
    let [token, other] = [Token::fetch(&server).await, Token::fetch(&server).await];
    for (query, expected) in [
        (format!("token={}", token.token), "Auth info required to subscribe to private-a"),
        (
            format!("token={}&auth.private-a=x", token.token),
            "Auth value for subscription to private-a is invalid",
        ),
        (format!("token={}&auth.private-a=x:00", token.token), "Invalid key in subscription auth data: 'x'"),
        (
            format!("{}&token={}", other.query(&["private-a"]).split_once('&').unwrap().1, token.token),
            "Invalid signature: Expected HMAC SHA256 hex digest of",
        ),
    ] {
        let body = get(&format!("channels=news,private-a&{query}")).refused(&server, 403).await;
        assert!(error(&body).starts_with(expected), "{body}");
        assert_eq!(body["channel"], "private-a");
    }
    let query = format!("channels=news&{}", token.user("{\"id\":\"u-1\"}").replace("u-1", "u-2"));
    let body = get(&query).refused(&server, 403).await;
    assert!(error(&body).starts_with("Invalid signature"), "{body}");
    eventually("nobody to be left", async || server.total(|node| node.node().connection_count()) == 0).await;
}

#[tokio::test]
async fn a_query_that_asks_for_nothing_sensible_is_refused() {
    let server = TestServer::start();
    let eleven: Vec<String> = (0..11).map(|number| format!("c{number}")).collect();
    for (query, expected) in [
        (String::new(), "Missing parameter: channels"),
        (
            format!("channels={}", eleven.join(",")),
            "An event stream carries at most 10 channels, this one asks for 11",
        ),
        ("channels=a b".replace(' ', "%20"), "Invalid channel name"),
        (format!("channels={}", "x".repeat(201)), ""),
        ("channels=a&on_gap=x".to_owned(), "on_gap must be"),
        ("channels=a&rewind=x".to_owned(), "rewind must be"),
        ("channels=a&last_event_id=x".to_owned(), "Not a cursor of this stream"),
        ("channels=a&user_data=%7B%7D".to_owned(), "user_data and user_auth go together"),
    ] {
        let body = get(&query).refused(&server, 400).await;
        assert!(error(&body).starts_with(expected), "{query}: {body}");
    }
    get("channels=a").header("Last-Event-ID", "\u{e9}").refused(&server, 400).await;
    server.assert_serves_others().await;
}

#[tokio::test]
async fn every_reason_to_refuse_a_socket_has_its_status() {
    let server = TestServer::with_config(|config| {
        let app = |id: &str| AppConfig::new(id, &format!("key-{id}"), "secret");
        config.apps.push(AppConfig { enabled: false, ..app("disabled") });
        config.apps.push(AppConfig { require_tls: true, ..app("tls") });
        let mut quota = app("quota");
        quota.limits.max_connections = 1;
        config.apps.push(quota);
        config.apps.push(AppConfig { authorized_connections: true, ..app("authorized") });
    });
    let target = |id: &str| Get::target(&format!("/app/key-{id}/sse?channels=news"));
    let body = target("nobody").refused(&server, 404).await;
    assert_eq!(error(&body), "App key key-nobody does not exist on this server");
    target("disabled").refused(&server, 403).await;
    target("tls").refused(&server, 403).await;
    target("authorized").refused(&server, 403).await;
    let _held = target("quota").open(&server).await;
    let body = target("quota").refused(&server, 429).await;
    assert_eq!(error(&body), "Application is over its connection quota (1)");
    for id in ["nobody", "disabled", "tls"] {
        let answer = request(&server, "POST", &format!("/app/key-{id}/sse"), "").await;
        assert_eq!(answer.status, if id == "nobody" { 404 } else { 403 }, "{}", answer.body);
    }
}

#[tokio::test]
async fn what_will_pass_is_told_by_503_or_to_an_event_source_in_a_stream() {
    let server = TestServer::with_config(|config| config.server.max_connections = 1);
    let _held = server.connect().await;
    let mut answer = get("channels=news").send(&server).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert!(answer.body().await.contains("Server is over capacity"));

    let from_browser = get("channels=news").header("Accept", "text/event-stream");
    let mut stream = from_browser.open(&server).await;
    assert!(stream.next().await.retry.is_some());
    assert_eq!(stream.expect_end(4100).await, "Server is over capacity");
}

#[tokio::test]
async fn too_many_handshakes_are_told_to_come_back() {
    let server = TestServer::with_config(|config| config.server.max_handshakes = 0);
    get("channels=news").refused(&server, 503).await;
    assert_eq!(server.rest().get("/apps/42/channels").send().await.status, 200);
}

#[tokio::test]
async fn only_pages_of_allowed_origins_read_a_stream() {
    let server = TestServer::with(|app| app.allowed_origins = vec!["app.example.com".to_owned()]);
    let ours = get("channels=news").header("Origin", "https://app.example.com");
    let stream = ours.open(&server).await;
    assert_eq!(stream.header("access-control-allow-origin"), Some("https://app.example.com"));
    let exposed = stream.header("access-control-expose-headers");
    assert_eq!(exposed, Some("Retry-After, Tidewire-Position, Tidewire-Recovered"));

    let theirs = get("channels=news").header("Origin", "https://evil.example");
    let mut answer = theirs.send(&server).await;
    let body = answer.body().await;
    assert_eq!(answer.status, 403, "{body}");
    assert_eq!(answer.header("access-control-allow-origin"), None);

    // A page can read why it was refused.
    let answer = get("channels=").header("Origin", "https://app.example.com").send(&server).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example.com"));
    assert_eq!(answer.header("vary"), Some("Origin"));
}

#[tokio::test]
async fn a_browser_may_ask_first() {
    let server = TestServer::with(|app| app.allowed_origins = vec!["app.example.com".to_owned()]);
    let asking = "Origin: https://app.example.com\r\nAccess-Control-Request-Method: GET\r\n";
    let answer = request(&server, "OPTIONS", PATH, asking).await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example.com"));
    assert_eq!(answer.header("access-control-allow-methods"), Some("GET, POST, OPTIONS"));
    assert!(answer.header("access-control-allow-headers").unwrap().contains("Last-Event-ID"));
    let answer = request(&server, "OPTIONS", PATH, "Origin: https://evil.example\r\n").await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (403, None));
    let asking = "Origin: https://any.example\r\n";
    let answer = request(&server, "OPTIONS", "/app/nobody/sse", asking).await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://any.example"));
}

#[tokio::test]
async fn other_methods_and_paths_have_their_own_answers() {
    let server = TestServer::with_config(|config| config.server.path_prefix = "/ws".to_owned());
    for method in ["PUT", "DELETE", "PATCH", "HEAD"] {
        let answer = Get::target(PATH).method(method).send(&server).await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, POST, OPTIONS")), "{method}");
    }
    for path in ["/app/tw-demo-key/sse/more", "/app/tw-demo-key/other", "/sse"] {
        assert_eq!(request(&server, "GET", path, "").await.status, 404, "{path}");
    }
    drop(Get::target("/ws/app/tw-demo-key/sse?channels=news").open(&server).await);
    // A WebSocket has no business there.
    assert_eq!(server.refusal("/app/tw-demo-key/sse?protocol=7").await, 4005);
}
