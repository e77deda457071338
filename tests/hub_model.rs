//! The hub against a model of a few lines: whatever happens in whatever order, each connection receives
//! exactly what the model says, through real sockets.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a failing test panics")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{Client, TestServer, eventually, member};
use proptest::prelude::*;
use serde_json::{Value, json};

const CONNECTIONS: usize = 5;
const CHANNELS: [&str; 6] =
    ["news", "cache-x", "private-a", "private-cache-b", "presence-p", "presence-cache-q"];

#[derive(Clone, Debug)]
enum Step {
    Connect(usize),
    Disconnect(usize),
    Subscribe(usize, &'static str),
    Unsubscribe(usize, &'static str),
    Publish(&'static str, Option<usize>),
    ClientEvent(usize, &'static str),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let connection = 0..CONNECTIONS;
    let channel = prop::sample::select(&CHANNELS[..]);
    let step = prop_oneof![
        2 => connection.clone().prop_map(Step::Connect),
        1 => connection.clone().prop_map(Step::Disconnect),
        8 => (connection.clone(), channel.clone()).prop_map(|(who, channel)| Step::Subscribe(who, channel)),
        3 => (connection.clone(), channel.clone()).prop_map(|(who, channel)| Step::Unsubscribe(who, channel)),
        5 => (channel.clone(), prop::option::of(connection.clone())).prop_map(|(channel, but)| Step::Publish(channel, but)),
        4 => (connection, channel).prop_map(|(who, channel)| Step::ClientEvent(who, channel)),
    ];
    prop::collection::vec(step, 1..150)
}

/// Connections share users, so that a user has several.
fn user_of(connection: usize) -> String {
    format!("u-{}", connection % 3)
}

/// What a connection is told, without the texts that are free.
#[derive(Clone, Debug, PartialEq)]
enum Heard {
    Refused,
    Event { event: String, channel: String, data: Value, user_id: Option<String> },
}

impl Heard {
    fn event(event: &str, channel: &str, data: Value) -> Self {
        Heard::Event { event: event.into(), channel: channel.into(), data, user_id: None }
    }

    fn of(event: &common::Event) -> Self {
        if event.event == "pusher:error" {
            return Heard::Refused;
        }
        let mut data = event.json();
        if let Some(ids) = data.pointer_mut("/presence/ids").and_then(Value::as_array_mut) {
            ids.sort_by_key(Value::to_string);
        }
        let channel = event.channel.clone().unwrap_or_default();
        Heard::Event { event: event.event.clone(), channel, data, user_id: event.user_id.clone() }
    }
}

/// What each connection is to hear next, in order.
type Expected = BTreeMap<usize, Vec<Heard>>;

#[derive(Default)]
struct Model {
    connected: BTreeSet<usize>,
    subscribers: BTreeMap<&'static str, BTreeSet<usize>>,
    cached: BTreeMap<&'static str, u64>,
}

impl Model {
    fn holds(&self, who: usize, channel: &str) -> bool {
        self.subscribers.get(channel).is_some_and(|held| held.contains(&who))
    }

    fn users(&self, channel: &str) -> BTreeSet<String> {
        self.subscribers.get(channel).into_iter().flatten().map(|who| user_of(*who)).collect()
    }

    fn others(&self, channel: &str, who: Option<usize>) -> Vec<usize> {
        self.subscribers
            .get(channel)
            .into_iter()
            .flatten()
            .copied()
            .filter(|other| Some(*other) != who)
            .collect()
    }

    fn subscribe(&mut self, who: usize, channel: &'static str) -> Expected {
        let mut expected = Expected::new();
        if self.holds(who, channel) {
            expected.insert(who, vec![Heard::Refused]);
            return expected;
        }
        let is_new_user = !self.users(channel).contains(&user_of(who));
        let others = self.others(channel, None);
        self.subscribers.entry(channel).or_default().insert(who);
        let mut data = json!({});
        if channel.starts_with("presence-") {
            let users = self.users(channel);
            let hash: BTreeMap<&String, Value> =
                users.iter().map(|user| (user, json!({ "name": user }))).collect();
            data = json!({"presence": {"count": users.len(), "ids": users, "hash": hash}});
            if is_new_user {
                let added = json!({"user_id": user_of(who), "user_info": {"name": user_of(who)}});
                for other in others {
                    let heard = Heard::event("pusher_internal:member_added", channel, added.clone());
                    expected.insert(other, vec![heard]);
                }
            }
        }
        let mut heard = vec![Heard::event("pusher_internal:subscription_succeeded", channel, data)];
        if channel.contains("cache-") {
            heard.push(match self.cached.get(channel) {
                Some(serial) => Heard::event("published", channel, json!(serial)),
                None => Heard::event("pusher:cache_miss", channel, json!({})),
            });
        }
        expected.insert(who, heard);
        expected
    }

    fn leave(&mut self, who: usize, channel: &'static str) -> Expected {
        let mut expected = Expected::new();
        self.subscribers.entry(channel).or_default().remove(&who);
        if channel.starts_with("presence-") && !self.users(channel).contains(&user_of(who)) {
            for other in self.others(channel, None) {
                let removed = json!({"user_id": user_of(who)});
                expected
                    .insert(other, vec![Heard::event("pusher_internal:member_removed", channel, removed)]);
            }
        }
        expected
    }

    fn publish(&mut self, channel: &'static str, but: Option<usize>, serial: u64) -> Expected {
        if channel.contains("cache-") {
            self.cached.insert(channel, serial);
        }
        let heard = Heard::event("published", channel, json!(serial));
        self.others(channel, but).into_iter().map(|who| (who, vec![heard.clone()])).collect()
    }

    fn client_event(&self, who: usize, channel: &'static str, serial: u64) -> Expected {
        let is_allowed = channel.starts_with("private-") || channel.starts_with("presence-");
        if !is_allowed || !self.holds(who, channel) {
            return Expected::from([(who, vec![Heard::Refused])]);
        }
        let user_id = channel.starts_with("presence-").then(|| user_of(who));
        let (event, channel_text, data) = ("client-e".to_owned(), channel.to_owned(), json!(serial));
        let heard = Heard::Event { event, channel: channel_text, data, user_id };
        self.others(channel, Some(who)).into_iter().map(|other| (other, vec![heard.clone()])).collect()
    }
}

/// The server under test with its open connections.
struct Real {
    server: TestServer,
    clients: BTreeMap<usize, Client>,
}

impl Real {
    async fn hear(&mut self, step: &Step, expected: Expected) {
        for (who, heard) in expected {
            let client = self.clients.get_mut(&who).unwrap();
            // Frames of one channel keep their order, and each step concerns one channel.
            for expected in heard {
                let seen = Heard::of(&client.next_event().await);
                assert_eq!(seen, expected, "connection {who} after {step:?}");
            }
        }
    }

    /// A disconnect leaves several channels in an order of the server's choosing; frames that belong to
    /// another of them are kept for their turn.
    async fn hear_unordered(&mut self, step: &Step, expected: Expected) {
        for (who, heard) in expected {
            let client = self.clients.get_mut(&who).unwrap();
            for expected in heard {
                let mut later = Vec::new();
                loop {
                    let event = client.next_event().await;
                    if Heard::of(&event) == expected {
                        break;
                    }
                    assert_eq!(
                        event.event, "pusher_internal:member_removed",
                        "connection {who} after {step:?}"
                    );
                    assert!(later.len() < CHANNELS.len(), "connection {who} never heard {expected:?}");
                    later.push(event);
                }
                client.put_back(later);
            }
        }
    }

    /// The server has seen a connection go when its channels have the model's counts.
    async fn settled(&self, model: &Model) {
        let app = self.server.inner().apps().by_id("42").unwrap();
        eventually("the counts of the model", async || {
            CHANNELS.iter().all(|channel| {
                let info = app.channels.info(channel, app.now_ms());
                let subscribers = model.subscribers.get(channel).map_or(0, BTreeSet::len);
                let is_presence = channel.starts_with("presence-");
                let users = if is_presence { model.users(channel).len() } else { 0 };
                (info.subscription_count, info.user_count) == (subscribers, users)
                    && info.occupied == (subscribers > 0)
            })
        })
        .await;
    }
}

async fn run(steps: Vec<Step>) {
    let mut model = Model::default();
    let server = TestServer::with(|app| app.limits.client_events_per_second = 1_000);
    let mut real = Real { server, clients: BTreeMap::new() };
    // Everybody is there from the start, else short schedules are spent on arriving.
    for who in 0..CONNECTIONS {
        model.connected.insert(who);
        real.clients.insert(who, real.server.connect().await);
    }
    for (serial, step) in (0u64..).zip(&steps) {
        match *step {
            Step::Connect(who) => {
                if model.connected.insert(who) {
                    real.clients.insert(who, real.server.connect().await);
                }
            }
            Step::Disconnect(who) => {
                if model.connected.remove(&who) {
                    let client = real.clients.remove(&who).unwrap();
                    if serial % 2 == 0 {
                        client.close().await
                    } else {
                        client.reset()
                    }
                    for channel in CHANNELS {
                        if model.holds(who, channel) {
                            let expected = model.leave(who, channel);
                            real.hear_unordered(step, expected).await;
                        }
                    }
                    real.settled(&model).await;
                }
            }
            Step::Subscribe(who, channel) => {
                if let Some(client) = real.clients.get_mut(&who) {
                    let data = channel.starts_with("presence-").then(|| member(&user_of(who)));
                    client.request(channel, data.as_deref()).await;
                    let expected = model.subscribe(who, channel);
                    real.hear(step, expected).await;
                }
            }
            Step::Unsubscribe(who, channel) => {
                if let Some(client) = real.clients.get_mut(&who) {
                    client.unsubscribe(channel).await;
                    let expected = match model.holds(who, channel) {
                        true => model.leave(who, channel),
                        false => Expected::from([(who, vec![Heard::Refused])]),
                    };
                    real.hear(step, expected).await;
                }
            }
            Step::Publish(channel, but) => {
                let data = serial.to_string();
                let rest = real.server.rest();
                match but.and_then(|who| real.clients.get(&who)) {
                    Some(client) => {
                        rest.publish_except(&[channel], "published", &data, &client.socket_id).await
                    }
                    None => rest.publish(channel, "published", &data).await,
                }
                let expected = model.publish(channel, but, serial);
                real.hear(step, expected).await;
            }
            Step::ClientEvent(who, channel) => {
                if let Some(client) = real.clients.get_mut(&who) {
                    client.trigger("client-e", channel, json!(serial)).await;
                    // Nobody may be there to hear it; whoever comes next must not.
                    client.sync().await;
                    let expected = model.client_event(who, channel, serial);
                    real.hear(step, expected).await;
                }
            }
        }
    }
    real.settled(&model).await;
    for (who, client) in &mut real.clients {
        let surplus: Vec<Heard> = client.pending_events().await.iter().map(Heard::of).collect();
        assert_eq!(surplus, [], "connection {who} heard more than the model");
    }
}

/// Every case starts a server; `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(48);
    // A failing schedule often waits for a frame that never comes: seconds, each time it is tried again.
    ProptestConfig { cases, max_shrink_time: 60_000, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_connection_hears_exactly_what_the_model_says(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}
