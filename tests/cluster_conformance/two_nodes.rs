//! A `TestServer` that is two.

use std::iter::Sum;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tidewire::Server;
use tidewire::config::{Config, StoreKind};

use crate::ON_ONE_NODE;
use crate::harness::nodes::Place;
use crate::harness::{Client, Credentials, Handshake, Nodes, Refusal, Rest, Upgrade};

#[path = "../common/on_server.rs"]
#[allow(clippy::duplicate_mod, reason = "it is about another `TestServer` here")]
mod on_server;

pub struct TestServer {
    nodes: Arc<Nodes>,
    first: Arc<Server>,
    is_spread: bool,
    turn: AtomicUsize,
}

impl TestServer {
    /// With other settings of the servers or more apps.
    pub fn with_config(set: impl FnOnce(&mut Config)) -> Self {
        Self::at(Place::shared(), set)
    }

    /// As [`with_config`](Self::with_config), and goes on with what is there.
    pub fn at(place: Place, set: impl FnOnce(&mut Config)) -> Self {
        // A test's thread has its name.
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        let is_spread = !ON_ONE_NODE.iter().any(|(name, _reason)| test.ends_with(name));
        let nodes = Nodes::with_config(2, place, |config| {
            set(config);
            // A cluster has no other.
            config.replay.store = StoreKind::Redis;
        });
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

    /// The sum over both.
    #[allow(dead_code, reason = "for the suites of replay")]
    pub fn total<T: Sum>(&self, of: impl Fn(&Server) -> T) -> T {
        self.nodes.running().map(|node| of(&node)).sum()
    }

    /// Moves the time of both; nobody waits.
    pub fn advance(&self, seconds: u64) {
        self.nodes.advance(seconds);
    }

    pub fn rest(&self) -> Rest {
        self.nodes.rest(1)
    }
}
