//! Nodes of one Redis, an ear on every topic, and a look at every key.

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use redis::Commands;
use serde_json::value::RawValue;
use tidewire::config::RedisConfig;
use tidewire::fanout::keys::partition;
use tidewire::fanout::message::{Delta, Message};
use tidewire::fanout::redis::lease::Session;
use tidewire::fanout::redis::reads::{Snapshot, Want};
use tidewire::fanout::redis::state::{State, Synced, Transition, Update};
use tidewire::fanout::redis::transport::{Listener, Partitions, Transport};
use tidewire::telemetry::metrics::Metrics;

pub use crate::fixture::RedisServer;

pub const APP: &str = "42";
const PATIENCE: Duration = Duration::from_secs(20);

/// A server of a test's own.
pub struct World {
    pub server: RedisServer,
    pub redis: redis::Connection,
}

impl World {
    pub fn start() -> Self {
        let server = RedisServer::start();
        let redis = connection(&server);
        Self { server, redis }
    }

    pub fn node(&self) -> Node {
        Node::start(&config(&self.server), Arc::new(Deaf))
    }

    pub fn ear(&self) -> Ear {
        Ear { topics: connection(&self.server), redis: connection(&self.server) }.listening()
    }

    /// Everything in Redis but fences, as text.
    pub fn dump(&mut self) -> BTreeMap<String, BTreeMap<String, String>> {
        let keys: Vec<String> = self.redis.keys("*").expect("keys");
        let keys = keys.into_iter().filter(|key| !key.contains("}x:"));
        keys.map(|key| (key.clone(), self.entries(&key))).collect()
    }

    fn entries(&mut self, key: &str) -> BTreeMap<String, String> {
        let kind: String = redis::cmd("TYPE").arg(key).query(&mut self.redis).expect("a type");
        let pairs: Vec<(Vec<u8>, Vec<u8>)> = match &*kind {
            "hash" => self.redis.hgetall(key).expect("a hash"),
            "zset" => self.redis.zrange_withscores(key, 0, -1).expect("a sorted set"),
            "set" => {
                let members: Vec<Vec<u8>> = self.redis.smembers(key).expect("a set");
                members.into_iter().map(|member| (member, Vec::new())).collect()
            }
            "string" => vec![(Vec::new(), self.redis.get(key).expect("a string"))],
            other => panic!("{key} is a {other}"),
        };
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        pairs.into_iter().map(|(field, value)| (text(field), text(value))).collect()
    }
}

pub fn connection(server: &RedisServer) -> redis::Connection {
    let client = redis::Client::open(server.url()).expect("an address");
    client.get_connection().expect("a connection")
}

pub fn config(server: &RedisServer) -> RedisConfig {
    RedisConfig { url: server.url().parse().expect("a URL"), ..RedisConfig::default() }
}

struct Deaf;

impl Listener for Deaf {
    fn message(&self, _: &[u8], _: Bytes) {}
    fn up(&self, _: Partitions, _: bool) {}
    fn down(&self, _: Partitions) {}
    fn unsubscribed(&self, _: &[u8]) {}
}

/// A node's way to Redis, and its session.
pub struct Node {
    pub state: State,
    pub session: Session,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    pub fn start(config: &RedisConfig, listener: Arc<dyn Listener>) -> Self {
        let (sender, receiver) = mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let settings = config.clone();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            tokio::task::LocalSet::new().block_on(&runtime, async {
                let metrics = Arc::new(Metrics::default());
                let (transport, driver) = Transport::connect(&settings, metrics).await.expect("it connects");
                sender.send(transport).expect("the test waits");
                tokio::select! {
                    _ = driver.run(listener) => {}
                    _ = stopped => {}
                }
            });
        });
        let transport = receiver.recv_timeout(PATIENCE).expect("it connects");
        wait_until("the node is connected", || transport.is_connected());
        let state = State::new(transport, &config.prefix);
        Self { state, session: Session::draw(), stop: Some(stop), thread: Some(thread) }
    }

    /// As a node that stopped and started, on the same connection.
    pub fn renew(&mut self) -> Session {
        std::mem::replace(&mut self.session, Session::draw())
    }

    pub fn wait<F: Future>(&self, future: F) -> F::Output {
        self.state.transport().block_on(future)
    }

    pub fn sync(&self, update: Update<'_>) -> Synced {
        self.sync_as(&self.session, update)
    }

    pub fn sync_as(&self, session: &Session, update: Update<'_>) -> Synced {
        self.wait(self.state.sync(session, update)).expect("it is done")
    }

    /// One user comes, with one subscription.
    pub fn join(&self, channel: &str, user_id: &str, info: &str) -> Synced {
        self.sync(Update { added: &[(user_id, json(info).as_deref())], ..with_count(channel, 1) })
    }

    /// One user goes, and the last subscription.
    pub fn leave(&self, channel: &str, user_id: &str) -> Synced {
        self.sync(Update { removed: &[user_id], ..with_count(channel, 0) })
    }

    pub fn snapshot(&self, channel: &str) -> Snapshot {
        let want = Want { members: true, count: true, cached: true };
        self.wait(self.state.snapshot(APP, channel, want)).expect("a snapshot")
    }

    pub fn members(&self, channel: &str) -> BTreeMap<String, String> {
        let members = self.snapshot(channel).members.into_iter();
        members
            .map(|(id, info)| (id.into(), info.map_or_else(String::new, |info| info.get().to_owned())))
            .collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.take().map(|stop| stop.send(()));
        self.thread.take().map(JoinHandle::join);
    }
}

/// Hears every topic of the server, as a plain client.
pub struct Ear {
    topics: redis::Connection,
    redis: redis::Connection,
}

#[derive(Clone, Debug)]
pub struct Heard {
    pub topic: String,
    pub message: Message,
}

const MARK: &str = "end of what was published";

impl Ear {
    fn listening(mut self) -> Self {
        self.topics.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        redis::cmd("PSUBSCRIBE").arg("*").exec(&mut self.topics).expect("it subscribes");
        self
    }

    /// All that was published since the last time.
    pub fn hear(&mut self) -> Vec<Heard> {
        let _: u64 = self.redis.publish(MARK, "").expect("it publishes");
        let mut heard = Vec::new();
        loop {
            let answer = self.topics.recv_response().expect("a message");
            let parts: Vec<Vec<u8>> = match answer {
                redis::Value::Array(parts) | redis::Value::Push { data: parts, .. } => {
                    parts.into_iter().filter_map(|part| redis::from_redis_value(part).ok()).collect()
                }
                other => panic!("not a message: {other:?}"),
            };
            let [.., topic, payload] = &parts[..] else { panic!("not a message: {parts:?}") };
            let topic = String::from_utf8(topic.clone()).expect("text");
            if topic == MARK {
                return heard;
            }
            let message = Message::decode(Bytes::from(payload.clone())).expect("a message");
            heard.push(Heard { topic, message });
        }
    }

    /// The same in short.
    pub fn told(&mut self) -> Vec<String> {
        self.hear().iter().map(|heard| short(&heard.message)).collect()
    }
}

/// A message without its version.
pub fn short(message: &Message) -> String {
    let delta = |kind: &str, delta: &Delta| {
        let info = delta.info.as_ref().map_or("", |info| info.get());
        format!("{kind}{}{info}", delta.user_id)
    };
    match message {
        Message::Event(event) => format!("E{}", String::from_utf8_lossy(&event.frame)),
        Message::Added(added) => delta("+", added),
        Message::Changed(changed) => delta("i", changed),
        Message::Removed(removed) => delta("-", removed),
        Message::Count(count) => format!("#{count}"),
        other => format!("{other:?}"),
    }
}

pub fn version_of(message: &Message) -> Option<u64> {
    match message {
        Message::Added(delta) | Message::Changed(delta) | Message::Removed(delta) => Some(delta.version),
        _ => None,
    }
}

pub fn with_count(channel: &str, count: u32) -> Update<'_> {
    Update { app: APP, channel, count, max_members: 100, ..Update::default() }
}

pub fn json(text: &str) -> Option<Box<RawValue>> {
    (!text.is_empty()).then(|| RawValue::from_string(text.to_owned()).expect("JSON"))
}

/// Of an update that names no user.
pub fn done(total: u64, transition: Transition) -> Synced {
    Synced::Done { total, transition, version: 0, refused: Vec::new() }
}

pub fn transition(synced: &Synced) -> Transition {
    match synced {
        Synced::Done { transition, .. } => *transition,
        Synced::Dead => panic!("the session is dead"),
    }
}

/// The first `count` names that share a partition with the first.
pub fn neighbours(stem: &str, count: usize) -> Vec<String> {
    let first = partition(APP, &format!("{stem}0"));
    let names = (0..).map(|i| format!("{stem}{i}"));
    names.filter(|name| partition(APP, name) == first).take(count).collect()
}

pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
