//! What every integration test starts from: a real server in this process and clients over real TCP.
#![allow(dead_code, unused_imports, reason = "each test binary uses its part of the harness")]

pub mod client;
pub mod nodes;
pub mod redis;
pub mod rest;
pub mod sign;
pub mod websocket;

use std::net::SocketAddr;
use std::time::Duration;

use tidewire::Server;
use tidewire::config::{AppConfig, Config};

pub use client::{Client, Event, error_message, member};
pub use nodes::Nodes;
pub use rest::{HttpConnection, Rest};
pub use sign::Credentials;
pub use websocket::{Frame, Handshake, PATIENCE, Upgrade, WebSocket};

/// A server on a free port with app 42, key `tw-demo-key`, secret `tw-demo-secret`.
pub struct TestServer {
    server: Server,
    prefix: String,
}

impl TestServer {
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    /// With other settings of the demo app.
    pub fn with(set: impl FnOnce(&mut AppConfig)) -> Self {
        Self::with_config(|config| set(&mut config.apps[0]))
    }

    /// With other settings of the server or more apps.
    pub fn with_config(set: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::for_tests(vec![demo_app()]);
        // Two workers: most deliveries of a test cross from one to the other.
        config.server.workers = 2;
        set(&mut config);
        let prefix = config.server.path_prefix.clone();
        let server = Server::start(config).expect("the test server starts");
        Self { server, prefix }
    }

    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    pub fn inner(&self) -> &Server {
        &self.server
    }

    /// Moves the server's time; nobody waits.
    pub fn advance(&self, seconds: u64) {
        self.server.clock().advance(Duration::from_secs(seconds));
    }

    pub fn rest(&self) -> Rest {
        Rest {
            addr: self.addr(),
            clock: self.server.clock().clone(),
            credentials: Credentials::default(),
            prefix: self.prefix.clone(),
            settled: None,
        }
    }

    pub fn rest_as(&self, key: &str, secret: &str) -> Rest {
        Rest { credentials: Credentials::new(key, secret), ..self.rest() }
    }

    /// An established connection of protocol 7 that names no client library.
    pub async fn connect(&self) -> Client {
        self.connect_with("protocol=7").await
    }

    /// An established connection of the demo app with this query.
    pub async fn connect_with(&self, query: &str) -> Client {
        let target = format!("{}/app/tw-demo-key?{query}", self.prefix);
        let socket = self.upgrade(&target).await.upgraded();
        Client::greeted(socket, self.rest()).await
    }

    pub async fn upgrade(&self, target: &str) -> Handshake {
        Upgrade::get(target).send(self.addr()).await
    }

    /// Upgrades and must be told why it may not stay: error frame, close frame, equal codes.
    pub async fn refused(&self, upgrade: Upgrade) -> Refusal {
        Refusal::of(upgrade.send(self.addr()).await).await
    }

    /// The code with which this target is refused.
    pub async fn refusal(&self, target: &str) -> u16 {
        self.refused(Upgrade::get(target)).await.code
    }

    /// The server still does its work: a fresh client connects, subscribes and gets an event.
    pub async fn assert_serves_others(&self) {
        let mut client = self.connect().await;
        client.subscribe("health").await;
        self.rest().publish("health", "beat", "1").await;
        client.expect_event("beat", "health", "1").await;
    }
}

/// How a connection was turned away.
#[derive(Debug)]
pub struct Refusal {
    pub code: u16,
    pub frame: String,
}

impl Refusal {
    /// What the server says after this upgrade: error frame, close frame, equal codes.
    pub async fn of(handshake: Handshake) -> Self {
        let mut socket = handshake.upgraded();
        let Frame::Text(text) = socket.next_frame().await else { panic!("the first frame is text") };
        let event = Event::parse(&text);
        assert_eq!(event.event, "pusher:error", "{text}");
        let code = event.frame["data"]["code"].as_u64().unwrap_or_else(|| panic!("a number: {text}"));
        let code = u16::try_from(code).expect("a close code has 16 bits");
        error_message(&event, Some(code));
        let Frame::Close(close_code, _) = socket.next_frame().await else { panic!("a close frame follows") };
        assert_eq!(close_code, Some(code), "error frame and close frame agree");
        Self { code, frame: text }
    }
}

pub fn demo_app() -> AppConfig {
    AppConfig::new("42", "tw-demo-key", "tw-demo-secret")
}

/// Retries a question about the server's state until the answer is yes.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "{what} did not come true within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
