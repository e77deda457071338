//! Servers that store, and clients with the extras of replay.

use serde_json::{Value, json};
use tidewire::config::{AppReplay, ReplayRule, StoreKind};

use crate::common::{Client, Event, TestServer};

/// A server that stores every channel: a single one in memory.
pub fn server() -> TestServer {
    server_with(ReplayRule::default())
}

pub fn server_with(rule: ReplayRule) -> TestServer {
    TestServer::with_config(|config| {
        config.replay.store = StoreKind::Memory;
        config.apps[0].replay = AppReplay { rules: vec![rule], ..AppReplay::default() };
    })
}

/// A client with the extras of replay.
pub(crate) trait Replaying {
    /// Subscribes with this `replay` member; does not read the answer.
    async fn ask(&mut self, channel: &str, replay: Value);
    /// Subscribes, and gives the `replay` member of the answer.
    async fn subscribe_replaying(&mut self, channel: &str, replay: Value) -> Value;
    /// The next event, which must be this one of `channel` with this serial.
    async fn expect_serial(&mut self, channel: &str, data: &str, serial: u64) -> Event;
    async fn expect_done(&mut self, channel: &str, serial: u64);
}

impl Replaying for Client {
    async fn ask(&mut self, channel: &str, replay: Value) {
        let mut data = json!({ "channel": channel, "replay": replay });
        if channel.starts_with("private-") {
            data["auth"] = self.auth(channel, None).into();
        }
        self.send_subscribe(data).await;
    }

    async fn subscribe_replaying(&mut self, channel: &str, replay: Value) -> Value {
        self.ask(channel, replay).await;
        let answer = self.succeeded(channel).await;
        assert_eq!(answer.data(), "{}", "what is new stands beside the data");
        answer.frame["replay"].clone()
    }

    async fn expect_serial(&mut self, channel: &str, data: &str, serial: u64) -> Event {
        let event = self.expect_event("e", channel, data).await;
        assert_eq!(event.frame["serial"], json!(serial), "{event:?}");
        event
    }

    async fn expect_done(&mut self, channel: &str, serial: u64) {
        let done = self.expect("pusher_internal:replay_done").await;
        assert_eq!((done.channel.as_deref(), &done.frame["serial"]), (Some(channel), &json!(serial)));
    }
}

/// The position of an answer, as text.
pub fn position(answer: &Value) -> String {
    format!("{}:{}", answer["epoch"].as_str().unwrap(), answer["serial"])
}

/// The same epoch, another serial.
pub fn at(position: &str, serial: u64) -> String {
    format!("{}:{serial}", position.split_once(':').unwrap().0)
}

/// Publishes the numbers as the data of event `e`.
pub async fn publish(server: &TestServer, channel: &str, numbers: impl IntoIterator<Item = u64>) {
    let rest = server.rest();
    for number in numbers {
        rest.publish(channel, "e", &number.to_string()).await;
    }
}
