//! A `TestServer` that is two.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tidewire::Server;
use tidewire::config::{AppConfig, Config};

use crate::harness::nodes::Place;
use crate::harness::{Client, Credentials, Handshake, Nodes, Refusal, Rest, Upgrade};

/// Tests of what is one node's own. Their clients are all on the first node, and only publishing and reading go to the
/// second.
const ON_ONE_NODE: [(&str, &str); 7] = [
    (
        "s017_a_full_app_refuses_with_4004_and_serves_again_once_a_place_is_free",
        "each node has its own places",
    ),
    ("s017_refused_and_lost_connections_leak_no_place", "each node has its own places"),
    (
        "s019_every_refusal_has_an_object_with_a_number_equal_to_the_close_code",
        "each node has its own places",
    ),
    ("s026_a_draining_server_closes_with_4200_and_refuses_with_4200", "the other node does not drain"),
    ("s027_a_full_node_refuses_with_4100", "the limit is the node's"),
    ("s032_a_client_below_the_idle_limit_is_left_alone", "one worker has to sweep both clients"),
    ("s035_every_inbound_frame_is_a_sign_of_life", "one worker has to sweep both clients"),
];

pub struct TestServer {
    nodes: Arc<Nodes>,
    first: Arc<Server>,
    is_spread: bool,
    turn: AtomicUsize,
}

impl TestServer {
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    /// With other settings of the demo app.
    pub fn with(set: impl FnOnce(&mut AppConfig)) -> Self {
        Self::with_config(|config| set(&mut config.apps[0]))
    }

    /// With other settings of the servers or more apps.
    pub fn with_config(set: impl FnOnce(&mut Config)) -> Self {
        // A test's thread has its name.
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        let is_spread = !ON_ONE_NODE.iter().any(|(name, _reason)| test.ends_with(name));
        let nodes = Nodes::with_config(2, Place::shared(), set);
        Self { first: nodes.node(0), nodes, is_spread, turn: AtomicUsize::new(0) }
    }

    /// The node whose turn it is.
    fn next(&self) -> usize {
        if self.is_spread { self.turn.fetch_add(1, Ordering::Relaxed) % 2 } else { 0 }
    }

    pub fn addr(&self) -> SocketAddr {
        self.nodes.addr(self.next())
    }

    pub fn inner(&self) -> &Server {
        &self.first
    }

    /// Moves the time of both; nobody waits.
    pub fn advance(&self, seconds: u64) {
        self.nodes.advance(seconds);
    }

    pub fn rest(&self) -> Rest {
        self.nodes.rest(1)
    }

    pub fn rest_as(&self, key: &str, secret: &str) -> Rest {
        Rest { credentials: Credentials::new(key, secret), ..self.rest() }
    }

    pub async fn connect(&self) -> Client {
        self.connect_with("protocol=7").await
    }

    pub async fn connect_with(&self, query: &str) -> Client {
        let target = format!("{}/app/tw-demo-key?{query}", self.nodes.path_prefix());
        let socket = self.upgrade(&target).await.upgraded();
        Client::greeted(socket, self.rest()).await
    }

    pub async fn upgrade(&self, target: &str) -> Handshake {
        Upgrade::get(target).send(self.addr()).await
    }

    pub async fn refused(&self, upgrade: Upgrade) -> Refusal {
        Refusal::of(upgrade.send(self.addr()).await).await
    }

    pub async fn refusal(&self, target: &str) -> u16 {
        self.refused(Upgrade::get(target)).await.code
    }

    pub async fn assert_serves_others(&self) {
        let mut client = self.connect().await;
        client.subscribe("health").await;
        self.rest().publish("health", "beat", "1").await;
        client.expect_event("beat", "health", "1").await;
    }
}
