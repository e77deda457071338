//! Servers of this process that work together through Redis.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use redis::{Connection, FromRedisValue, Pipeline, RedisResult, pipe};
use tidewire::Server;
use tidewire::config::{AppConfig, Config, RedisConfig};

use super::redis::{CutProxy, Options, RedisServer};
use super::{Client, Credentials, Rest, Upgrade, demo_app};

/// More than a process has tests.
const DATABASES: usize = 4_000;
/// Brings forward the end of every cached event and idempotency key, by milliseconds.
const AGE: &str = "
    for _, pattern in ipairs({'*}k:*', '*}i:*'}) do
        for _, key in ipairs(redis.call('KEYS', pattern)) do
            local left = redis.call('PTTL', key) - ARGV[1]
            if left > 0 then redis.call('PEXPIRE', key, left) else redis.call('DEL', key) end
        end
    end";

/// A cluster's part of a Redis.
#[derive(Clone)]
pub struct Place {
    pub server: Arc<RedisServer>,
    database: usize,
    prefix: String,
}

impl Place {
    /// In the Redis that the tests of this process share. It ends with the last of them that uses it.
    pub fn shared() -> Self {
        static SERVER: Mutex<Weak<RedisServer>> = Mutex::new(Weak::new());
        static TAKEN: AtomicUsize = AtomicUsize::new(0);
        let mut shared = SERVER.lock().unwrap();
        let server = shared.upgrade().unwrap_or_else(|| {
            let options = Options::default().arg("databases", DATABASES);
            Arc::new(RedisServer::with(options))
        });
        *shared = Arc::downgrade(&server);
        let number = TAKEN.fetch_add(1, Ordering::Relaxed);
        // Topics know no databases.
        Self { server, database: number % DATABASES, prefix: format!("test-{number}") }
    }

    /// In a Redis of its own, to be broken.
    pub fn own() -> Self {
        Self::on(RedisServer::start())
    }

    pub fn on(server: RedisServer) -> Self {
        Self { server: Arc::new(server), database: 0, prefix: "tidewire".to_owned() }
    }

    /// Another one on the same server.
    pub fn beside(&self, database: usize, prefix: &str) -> Self {
        Self { server: Arc::clone(&self.server), database, prefix: prefix.to_owned() }
    }

    pub fn config(&self) -> RedisConfig {
        RedisConfig {
            url: self.url().parse().unwrap(),
            prefix: self.prefix.clone(),
            node_timeout: Duration::from_secs(15),
            ..RedisConfig::default()
        }
    }

    pub fn url(&self) -> String {
        format!("{}/{}", self.server.url(), self.database)
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A connection apart from the code under test.
    fn connection(&self) -> RedisResult<Connection> {
        let mut connection = self.server.try_client()?;
        redis::cmd("SELECT").arg(self.database).exec(&mut connection)?;
        Ok(connection)
    }
}

/// What a cluster knows of an app, as Redis has it and as its nodes have it together.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Subscriptions of occupied channels.
    pub totals: BTreeMap<String, u64>,
    /// Users by presence channel.
    pub members: BTreeMap<String, BTreeSet<String>>,
    /// Nodes by signed-in user.
    pub online: BTreeMap<String, u64>,
}

/// Nodes with app 42, key `tw-demo-key`, secret `tw-demo-secret`.
pub struct Nodes {
    /// Empty where a node was stopped.
    servers: Vec<Mutex<Option<Arc<Server>>>>,
    pub place: Place,
    connection: Mutex<Option<Connection>>,
    path_prefix: String,
}

impl Nodes {
    /// In the shared Redis.
    pub fn start(count: usize) -> Arc<Self> {
        Self::with(count, |_| {})
    }

    pub fn with(count: usize, set: impl Fn(&mut AppConfig)) -> Arc<Self> {
        Self::with_config(count, Place::shared(), |config| set(&mut config.apps[0]))
    }

    pub fn with_config(count: usize, place: Place, set: impl FnOnce(&mut Config)) -> Arc<Self> {
        let mut config = Config::for_tests(vec![demo_app()]);
        // Most deliveries cross from one worker to the other, too.
        config.server.workers = 2;
        config.redis = place.config();
        set(&mut config);
        Self::with_configs(place, vec![config; count])
    }

    /// Two nodes; the second reaches Redis only this way.
    pub fn behind(proxy: &CutProxy, place: Place, set: impl FnOnce(&mut Config)) -> Arc<Self> {
        let mut direct = Config::for_tests(vec![demo_app()]);
        direct.server.workers = 2;
        direct.redis = place.config();
        set(&mut direct);
        let mut behind = direct.clone();
        behind.redis.url = format!("{}/{}", proxy.url(), place.database).parse().unwrap();
        Self::with_configs(place, vec![direct, behind])
    }

    fn with_configs(place: Place, configs: Vec<Config>) -> Arc<Self> {
        let path_prefix = configs[0].server.path_prefix.clone();
        let start = |config| Mutex::new(Some(Arc::new(Server::start(config).expect("the node starts"))));
        let servers = configs.into_iter().map(start).collect();
        Arc::new(Self { servers, place, connection: Mutex::default(), path_prefix })
    }

    pub fn node(&self, index: usize) -> Arc<Server> {
        self.servers[index].lock().unwrap().clone().expect("the node was not stopped")
    }

    pub fn running(&self) -> impl Iterator<Item = Arc<Server>> {
        self.servers.iter().filter_map(|server| server.lock().unwrap().clone())
    }

    pub fn addr(&self, index: usize) -> SocketAddr {
        self.node(index).addr()
    }

    pub fn path_prefix(&self) -> &str {
        &self.path_prefix
    }

    /// Stops the node as SIGTERM does when the drain is over.
    pub fn stop(&self, index: usize) {
        let server = self.servers[index].lock().unwrap().take();
        drop(Arc::into_inner(server.expect("it runs")).expect("nobody else has it"));
    }

    /// Moves the time of all nodes, and that of cached events and idempotency keys in Redis; nobody waits.
    pub fn advance(&self, seconds: u64) {
        for server in self.running() {
            server.clock().advance(Duration::from_secs(seconds));
        }
        self.ask(|redis| redis::cmd("EVAL").arg(AGE).arg(0).arg(seconds * 1000).exec(redis)).unwrap();
    }

    pub fn rest(self: &Arc<Self>, index: usize) -> Rest {
        let nodes = Arc::downgrade(self);
        Rest {
            addr: self.addr(index),
            clock: self.node(index).clock().clone(),
            credentials: Credentials::default(),
            prefix: self.path_prefix.clone(),
            // Nodes that are gone have nothing to tell.
            settled: Some(Arc::new(move || nodes.upgrade().is_none_or(|nodes| nodes.is_settled()))),
        }
    }

    /// An established connection to the node.
    pub async fn connect(self: &Arc<Self>, index: usize) -> Client {
        self.connect_with(index, "protocol=7").await
    }

    pub async fn connect_with(self: &Arc<Self>, index: usize, query: &str) -> Client {
        let target = format!("{}/app/tw-demo-key?{query}", self.path_prefix);
        let socket = Upgrade::get(&target).send(self.addr(index)).await.upgraded();
        Client::greeted(socket, self.rest(index)).await
    }

    /// Whether Redis has exactly what the nodes have together.
    pub fn is_settled(&self) -> bool {
        let apps: BTreeSet<String> =
            self.running().flat_map(|server| server.apps().all()).map(|app| app.id.to_string()).collect();
        apps.iter().all(|app| {
            let in_redis = self.ask(|redis| read(redis, &self.place.config().namespace(), app));
            in_redis.is_ok_and(|known| known == self.have(app))
        })
    }

    /// What the nodes have together.
    pub fn have(&self, app: &str) -> Known {
        let mut known = Known::default();
        for app in self.running().filter_map(|server| server.apps().by_id(app)) {
            for user in app.users.signed_in() {
                *known.online.entry(user.to_string()).or_default() += 1;
            }
            for (name, info) in app.channels.occupied("", app.now_ms()) {
                // Where nobody asks for it, a node only tells whether there is one.
                let is_counted = app.settings().subscription_count && !name.starts_with("presence-");
                let count = info.subscription_count as u64;
                *known.totals.entry(name.to_string()).or_default() +=
                    if is_counted { count } else { count.min(1) };
                let users = app.channels.get(&name).map(|channel| channel.user_ids()).unwrap_or_default();
                if !users.is_empty() {
                    let members = known.members.entry(name.to_string()).or_default();
                    members.extend(users.into_iter().map(String::from));
                }
            }
        }
        known
    }

    /// What Redis has.
    pub fn in_redis(&self, app: &str) -> Known {
        self.ask(|redis| read(redis, &self.place.config().namespace(), app)).unwrap()
    }

    pub fn ask<T>(&self, question: impl Fn(&mut Connection) -> RedisResult<T>) -> RedisResult<T> {
        let mut kept = self.connection.lock().unwrap();
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => self.place.connection()?,
        };
        let answer = question(&mut connection)?;
        *kept = Some(connection);
        Ok(answer)
    }

    /// The sum of a counter or gauge over the nodes; `series` with its labels, as on the page.
    pub fn metric(&self, series: &str) -> u64 {
        self.running().map(|server| metric(&server, series).unwrap_or(0)).sum()
    }
}

/// The value of a series of `/metrics`.
pub fn metric(server: &Server, series: &str) -> Option<u64> {
    let page = server.node().metrics.encode();
    let value = page.lines().find_map(|line| {
        let rest = line.strip_prefix(series)?;
        rest.strip_prefix("{}").unwrap_or(rest).strip_prefix(' ')
    })?;
    Some(value.parse().expect("a whole number"))
}

fn read(redis: &mut Connection, prefix: &str, app: &str) -> RedisResult<Known> {
    let names: Vec<String> = redis::cmd("KEYS").arg(format!("{{{prefix}[.}}]*")).query(redis)?;
    let kind = |name: &String, kind: &str| {
        let (_, rest) = name.split_once('}')?;
        Some(rest.strip_prefix(kind)?.strip_prefix(app)?.to_owned())
    };
    let (mut totals, mut members, mut online) = (Vec::new(), Vec::new(), Vec::new());
    for name in &names {
        if kind(name, "t:").is_some_and(|rest| rest.is_empty()) {
            totals.push(name);
        } else if let Some(channel) =
            kind(name, "u:").and_then(|rest| rest.strip_prefix(':').map(str::to_owned))
        {
            members.push((name, channel));
        } else if kind(name, "o:").is_some_and(|rest| rest.is_empty()) {
            online.push(name);
        }
    }
    let mut questions = pipe();
    for name in totals.iter().chain(&online) {
        questions.hgetall(name);
    }
    let totals: usize = totals.len();
    let mut member_questions = pipe();
    for (name, _) in &members {
        member_questions.hkeys(name);
    }
    let hashes: Vec<BTreeMap<String, u64>> = answers(&questions, redis)?;
    let lists: Vec<Vec<String>> = answers(&member_questions, redis)?;

    let mut known = Known::default();
    for (name, total) in hashes[..totals].iter().flatten().filter(|(name, _)| !name.starts_with('#')) {
        known.totals.insert(name.clone(), *total);
    }
    for ((_, channel), users) in members.into_iter().zip(lists) {
        known.members.insert(channel, users.into_iter().filter(|user| !user.is_empty()).collect());
    }
    known.online = hashes[totals..].iter().flatten().map(|(user, count)| (user.clone(), *count)).collect();
    Ok(known)
}

fn answers<T: FromRedisValue>(questions: &Pipeline, redis: &mut Connection) -> RedisResult<Vec<T>> {
    if questions.is_empty() { Ok(Vec::new()) } else { questions.query(redis) }
}
