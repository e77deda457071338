//! Where the servers are found: by name, from sentinels, or from the nodes of a Redis Cluster.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::connect::{ConnectError, Connector};
use super::connection::Connection;
use super::topology::{Owners, Places, by_votes, text};
use super::transport::Shared;
use crate::config::{RedisAddress, RedisConfig, RedisMode};

/// What a sentinel or a node may take to say where the masters are.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// Between questions where the masters are, while nothing hints that they have moved.
const LOOK_AROUND: Duration = Duration::from_secs(15);
/// As above, of sentinels: after an ordered fail-over the old master takes writes for ten seconds more, which are lost.
const LOOK_AT_SENTINELS: Duration = Duration::from_secs(2);

pub struct Origin {
    connector: Rc<Connector>,
    shared: Arc<Shared>,
    kind: Kind,
    seeds: Vec<RedisAddress>,
}

enum Kind {
    Standalone,
    Sentinel { connector: Rc<Connector>, master: Box<str> },
    Cluster { prefix: Box<str> },
}

impl Origin {
    pub fn new(config: &RedisConfig, shared: Arc<Shared>) -> Result<Self, ConnectError> {
        let kind = match config.mode() {
            RedisMode::Standalone => Kind::Standalone,
            RedisMode::Sentinel { master } => Kind::Sentinel {
                connector: Rc::new(Connector::for_sentinels(config)?),
                master: master.into(),
            },
            RedisMode::Cluster => Kind::Cluster { prefix: (&*config.prefix).into() },
        };
        Ok(Self { connector: Rc::new(Connector::new(config)?), shared, kind, seeds: config.seeds() })
    }

    pub fn is_cluster(&self) -> bool {
        matches!(self.kind, Kind::Cluster { .. })
    }

    pub fn look_around_every(&self) -> Duration {
        if matches!(self.kind, Kind::Sentinel { .. }) { LOOK_AT_SENTINELS } else { LOOK_AROUND }
    }

    pub async fn open(&self, address: &RedisAddress) -> Result<Connection, ConnectError> {
        self.connector.open(address, &self.shared).await
    }

    /// Connects to the one master; not of a Redis Cluster.
    pub async fn open_master(&self) -> Result<Connection, ConnectError> {
        let Kind::Sentinel { connector, master } = &self.kind else {
            // Others than the first would be other data.
            return match self.seeds.first() {
                Some(seed) => self.open(seed).await,
                None => Err(ConnectError::new("", "no server is named", "set redis.url")),
            };
        };
        let mut last = None;
        for candidate in self.candidates(connector, master).await? {
            match self.open(&candidate).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| unknown_master(&self.seeds, master)))
    }

    /// Whether the sentinels now name another master than the one at `address`, which has to be fit for use.
    pub async fn has_other_master(&self, address: &RedisAddress) -> bool {
        let Kind::Sentinel { connector, master } = &self.kind else { return false };
        let Ok(candidates) = self.candidates(connector, master).await else { return false };
        match candidates.first() {
            Some(first) if first != address => self.open(first).await.is_ok(),
            _ => false,
        }
    }

    /// Whom the sentinels name, the one with the most votes first.
    async fn candidates(
        &self,
        connector: &Rc<Connector>,
        master: &str,
    ) -> Result<Vec<RedisAddress>, ConnectError> {
        let mut questions = JoinSet::new();
        for seed in self.seeds.clone() {
            let connector = Rc::clone(connector);
            let master: Box<str> = master.into();
            questions.spawn_local(async move { ask_sentinel(&connector, &seed, &master).await });
        }
        let mut votes = Vec::new();
        let mut error = None;
        while let Some(answer) = questions.join_next().await {
            match answer {
                Ok(Ok(vote)) => votes.extend(vote),
                Ok(Err(failed)) => error = Some(failed),
                Err(_) => {}
            }
        }
        match error {
            // Some sentinel has answered if there are votes; without any, a failure is what an operator wants to see.
            Some(error) if votes.is_empty() => Err(error),
            _ if votes.is_empty() => Err(unknown_master(&self.seeds, master)),
            _ => Ok(by_votes(votes)),
        }
    }

    /// The places of each master of the Redis Cluster. Asks the nodes that are connected, and if none answers, all that are
    /// known, one after the other.
    pub async fn plan(
        &self,
        connected: Vec<Rc<Connection>>,
        known: &[RedisAddress],
    ) -> Result<HashMap<RedisAddress, Places>, ConnectError> {
        let Kind::Cluster { prefix } = &self.kind else { return Ok(HashMap::new()) };
        let mut questions = JoinSet::new();
        for connection in connected {
            questions.spawn_local(async move {
                let answers = timeout(ASK_TIMEOUT, connection.exchange(&cluster_questions())).await;
                Owners::parse(&answers.ok()?.ok()?, &connection.address)
            });
        }
        let mut latest: Option<Owners> = None;
        while let Some(answer) = questions.join_next().await {
            if let Ok(Some(owners)) = answer
                && latest.as_ref().is_none_or(|latest| latest.epoch < owners.epoch)
            {
                latest = Some(owners);
            }
        }
        if let Some(owners) = latest {
            return Ok(owners.plan(prefix));
        }
        let mut last = None;
        for address in known.iter().chain(&self.seeds) {
            match self.ask_node(address).await {
                Ok(owners) => return Ok(owners.plan(prefix)),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| ConnectError::new("", "no server is named", "set redis.url")))
    }

    async fn ask_node(&self, address: &RedisAddress) -> Result<Owners, ConnectError> {
        let answers = ask(&self.connector, address, &cluster_questions()).await?;
        if let Some(Value::ServerError(error)) = answers.first() {
            let advice = "set redis.cluster to false if it is no node of a Redis Cluster";
            return Err(ConnectError::new(address, error, advice));
        }
        Owners::parse(&answers, address).ok_or_else(|| {
            let advice = "redis-cli cluster info and redis-cli --cluster check tell more";
            ConnectError::new(address, "its cluster is not in order", advice)
        })
    }
}

fn cluster_questions() -> Pipeline {
    let mut questions = Pipeline::new();
    questions.cmd("CLUSTER").arg("INFO").cmd("CLUSTER").arg("SLOTS");
    questions
}

/// The master's address as this sentinel knows it; none if it does not watch such a master.
async fn ask_sentinel(
    connector: &Connector,
    sentinel: &RedisAddress,
    master: &str,
) -> Result<Option<RedisAddress>, ConnectError> {
    let mut question = Pipeline::new();
    question.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    let answers = ask(connector, sentinel, &question).await?;
    match answers.first() {
        Some(Value::Array(address)) => {
            let [host, port] = &**address else { return Ok(None) };
            let (host, port) = (text(host), text(port).and_then(|port| port.parse().ok()));
            Ok(host.zip(port).map(|(host, port)| RedisAddress { host, port }))
        }
        Some(Value::ServerError(error)) => {
            Err(ConnectError::new(sentinel, error, "redis.url and redis.nodes have to name sentinels"))
        }
        _ => Ok(None),
    }
}

async fn ask(
    connector: &Connector,
    address: &RedisAddress,
    questions: &Pipeline,
) -> Result<Vec<Value>, ConnectError> {
    let asked = async {
        let mut connection: MultiplexedConnection = connector.open_briefly(address).await?;
        let answers = connection.send_packed_commands(questions, 0, questions.len()).await;
        answers.map_err(|error| connector.error(address, &error))
    };
    match timeout(ASK_TIMEOUT, asked).await {
        Ok(answers) => answers,
        Err(_) => Err(ConnectError::new(
            address,
            "no answer",
            "check redis.url, and that no firewall is in between",
        )),
    }
}

fn unknown_master(sentinels: &[RedisAddress], master: &str) -> ConnectError {
    let sentinels: Vec<String> = sentinels.iter().map(RedisAddress::to_string).collect();
    let reason = format!("these sentinels know no master named {master}");
    ConnectError::new(sentinels.join(", "), reason, "check redis.sentinel_master")
}
