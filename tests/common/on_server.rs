//! What tests do with a `TestServer`, be it one node or, where this file is included once more, two.

use tidewire::config::AppConfig;

use super::{Client, Credentials, Handshake, Refusal, Rest, TestServer, Upgrade};

impl TestServer {
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    /// With other settings of the demo app.
    pub fn with(set: impl FnOnce(&mut AppConfig)) -> Self {
        Self::with_config(|config| set(&mut config.apps[0]))
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
        let rest = self.rest();
        let target = format!("{}/app/tw-demo-key?{query}", rest.prefix);
        let socket = self.upgrade(&target).await.upgraded();
        Client::greeted(socket, rest).await
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
