//! What every integration test starts from: a real server in this process and clients over real TCP.
#![allow(dead_code, unused_imports, reason = "each test binary uses its part of the harness")]

pub mod client;
pub mod nodes;
mod on_server;
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

    /// The sum over all nodes, of which there is one.
    pub fn total<T>(&self, of: impl Fn(&Server) -> T) -> T {
        of(&self.server)
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
