//! Settings of the Redis that several nodes share: without `redis.url`, a node is alone.

mod checks;
mod url;

use std::fmt;
use std::path::Path;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

pub use self::checks::{redis_doubts, redis_problems};
pub use self::url::{RedisHost, RedisUrl, check_host, check_password, check_prefix};
use super::{Secret, text, units};

const DEFAULT_PORT: u16 = 6379;
const DEFAULT_SENTINEL_PORT: u16 = 26_379;

/// The Redis or Valkey through which the nodes of a cluster work together.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RedisConfig {
    /// Redis or Valkey, from 7.0 on: `redis://host:6379` or, with TLS, `rediss://user:password@host:6379/0`. Empty = this
    /// node is alone.
    #[schemars(schema_with = "url::url_schema")]
    pub url: RedisUrl,
    /// User of Redis's ACL; before the one in `url`. Empty = Redis's `default` user.
    pub username: String,
    /// Password of Redis; before the one in `url`.
    #[serde(serialize_with = "masked")]
    #[schemars(schema_with = "url::password_schema")]
    pub password: Secret,
    /// Further servers as `host:port`, to ask when the one in `url` is away: nodes of the Redis Cluster, or sentinels.
    #[serde(deserialize_with = "url::hosts")]
    #[schemars(schema_with = "url::hosts_schema")]
    pub nodes: Vec<RedisHost>,
    /// `url` and `nodes` are nodes of a Redis Cluster.
    pub cluster: bool,
    /// Name of the master that Sentinel watches; `url` and `nodes` are then sentinels. Empty = no Sentinel.
    pub sentinel_master: String,
    /// User of the sentinels' own ACL.
    pub sentinel_username: String,
    /// Password of the sentinels themselves. Those in `url` and `password` are the master's.
    #[serde(serialize_with = "masked")]
    #[schemars(schema_with = "url::password_schema")]
    pub sentinel_password: Secret,
    /// Begins every key and topic. Each cluster of Tidewire on one Redis needs its own; all nodes of a cluster have the same.
    #[schemars(extend("format" = "redis-prefix", "minLength" = 1))]
    pub prefix: String,
    /// PEM file with the authorities that sign Redis's certificate (`rediss://`). Empty = the public ones.
    pub tls_ca: String,
    /// Time after which a node that is silent counts as dead, and the others remove what it held.
    #[serde(with = "units::time")]
    #[schemars(schema_with = "units::time_schema", extend("minimum" = 3, "maximum" = 3600))]
    pub node_timeout: Duration,
    /// Time that Redis may take to answer.
    #[serde(with = "units::time")]
    #[schemars(schema_with = "units::time_schema", extend("minimum" = 1, "maximum" = 60))]
    pub response_timeout: Duration,
    /// Time without Redis after which `/ready` turns 503, so that new clients go to a node that reaches it; 0 = never.
    #[serde(with = "units::time")]
    #[schemars(schema_with = "units::time_schema", extend("maximum" = 86_400))]
    pub unready_after: Duration,
}

/// How many servers Redis is, and who knows which of them counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisMode<'a> {
    /// The seed is the server. With several, the first that answers.
    Standalone,
    /// The seeds are sentinels, and know the address of the master of this name.
    Sentinel { master: &'a str },
    /// The seeds are some nodes of a Redis Cluster.
    Cluster,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RedisAddress {
    /// A name or an IP address, without brackets.
    pub host: String,
    pub port: u16,
}

/// Who the node is for a server; nothing where none is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RedisCredentials<'a> {
    pub username: Option<&'a str>,
    pub password: Option<&'a Secret>,
}

impl RedisConfig {
    /// Whether this node is one of several.
    pub fn is_on(&self) -> bool {
        self.url.parts().is_some()
    }

    pub fn mode(&self) -> RedisMode<'_> {
        match &*self.sentinel_master {
            "" if self.cluster => RedisMode::Cluster,
            "" => RedisMode::Standalone,
            master => RedisMode::Sentinel { master },
        }
    }

    /// The servers to begin with: of `url`, then of `nodes`. Never empty while it is on.
    pub fn seeds(&self) -> Vec<RedisAddress> {
        let port = match self.mode() {
            RedisMode::Sentinel { .. } => DEFAULT_SENTINEL_PORT,
            _ => DEFAULT_PORT,
        };
        let mut seeds: Vec<RedisAddress> = Vec::new();
        for host in self.url.parts().map(|url| &url.host).into_iter().chain(&self.nodes) {
            let seed = RedisAddress { host: host.name.clone(), port: host.port.unwrap_or(port) };
            if !seeds.contains(&seed) {
                seeds.push(seed);
            }
        }
        seeds
    }

    /// Whether all connections, those to sentinels included, are encrypted.
    pub fn has_tls(&self) -> bool {
        self.url.parts().is_some_and(|url| url.has_tls)
    }

    /// The authorities to believe instead of the public ones.
    pub fn tls_ca(&self) -> Option<&Path> {
        Some(Path::new(&self.tls_ca)).filter(|path| !path.as_os_str().is_empty())
    }

    /// What all names in Redis begin with. Topics know no databases, so the prefix tells them apart.
    pub fn namespace(&self) -> String {
        match self.database() {
            0 => self.prefix.clone(),
            database => format!("{}@{database}", self.prefix),
        }
    }

    /// The database on the server; always 0 on a Redis Cluster.
    pub fn database(&self) -> u32 {
        self.url.parts().and_then(|url| url.database).unwrap_or(0)
    }

    /// For the servers that hold the data.
    pub fn credentials(&self) -> RedisCredentials<'_> {
        let url = self.url.parts();
        let username = given(&self.username).or_else(|| given(&url?.username));
        let password = given_secret(&self.password).or_else(|| given_secret(&url?.password));
        RedisCredentials { username, password }
    }

    /// For the sentinels.
    pub fn sentinel_credentials(&self) -> RedisCredentials<'_> {
        RedisCredentials {
            username: given(&self.sentinel_username),
            password: given_secret(&self.sentinel_password),
        }
    }
}

/// For logs and errors: which servers, and what they are; nothing of credentials.
impl fmt::Display for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seeds: Vec<String> = self.seeds().iter().map(RedisAddress::to_string).collect();
        write!(f, "{} (", seeds.join(", "))?;
        match self.mode() {
            RedisMode::Standalone => f.write_str("standalone")?,
            RedisMode::Sentinel { master } => write!(f, "Sentinel, master {master}")?,
            RedisMode::Cluster => f.write_str("Redis Cluster")?,
        }
        f.write_str(if self.has_tls() { ", TLS)" } else { ")" })
    }
}

impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RedisAddress { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl Default for RedisConfig {
    fn default() -> Self {
        RedisConfig {
            url: RedisUrl::default(),
            username: String::new(),
            password: Secret::new(""),
            nodes: Vec::new(),
            cluster: false,
            sentinel_master: String::new(),
            sentinel_username: String::new(),
            sentinel_password: Secret::new(""),
            prefix: "tidewire".to_owned(),
            tls_ca: String::new(),
            node_timeout: Duration::from_secs(15),
            response_timeout: Duration::from_secs(5),
            unready_after: Duration::from_secs(30),
        }
    }
}

fn given(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn given_secret(secret: &Secret) -> Option<&Secret> {
    Some(secret).filter(|secret| !secret.expose().is_empty())
}

fn masked<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(if secret.expose().is_empty() { "" } else { text::MASK })
}
