//! What the server is told to do: every setting resolved to a value, wherever it came from.
//!
//! Values come in four layers, the first that speaks wins: flag, environment, file, default. The sections below
//! (`ServerConfig`, `AdminConfig`, `LogConfig`, `RedisConfig`, `ReplayConfig`, `AppLimits`) are at once the shape of the file, the source of
//! `config.schema.json` and of the environment's names, so a setting is declared exactly once: here.

mod changes;
mod doubts;
mod environment;
mod file;
mod load;
mod problem;
mod redis;
mod replay;
pub mod schema;
mod text;
mod units;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::changes::{Change, changes, effective};
pub use self::file::AppFile;
pub use self::load::{Flag, Loaded, Origin, Sources};
pub use self::problem::{ConfigError, Problem};
pub use self::redis::{RedisAddress, RedisConfig, RedisCredentials, RedisHost, RedisMode, RedisUrl};
pub use self::replay::{
    AppReplay, ChannelPattern, Durability, OnStoreError, ReplayConfig, ReplayRule, StoreKind,
};

/// The port of everything clients and publishers use; soketi's, so that existing snippets keep working.
pub const DEFAULT_PORT: u16 = 6001;
/// The port of health and metrics.
pub const DEFAULT_ADMIN_PORT: u16 = 9601;

/// The built-in app, for trying things out. Everybody knows its secret, so a server that has only this app
/// listens on loopback and refuses to do otherwise.
pub const DEFAULT_APP_ID: &str = "1";
pub const DEFAULT_APP_KEY: &str = "app-key";
pub const DEFAULT_APP_SECRET: &str = "app-secret";

/// The whole configuration, checked and complete.
#[derive(Clone, Debug)]
pub struct Config {
    pub server: ServerConfig,
    pub admin: AdminConfig,
    pub log: LogConfig,
    pub redis: RedisConfig,
    pub replay: ReplayConfig,
    pub apps: Vec<AppConfig>,
    /// The built-in app is the only one.
    pub default_app: bool,
    /// The file that was read, if there was one.
    pub source: Option<PathBuf>,
}

/// How the node listens and what it will carry.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Addresses to listen on, as `"0.0.0.0:6001"`, `"[::]:6001"` or only a port. One string or a list.
    /// Default: 0.0.0.0:6001, or 127.0.0.1:6001 while no app is configured.
    #[serde(deserialize_with = "text::addresses")]
    #[schemars(schema_with = "text::addresses_schema")]
    pub listen: Vec<SocketAddr>,
    /// Path in front of `/app/…` and `/apps/…`, for example `/ws`.
    #[serde(deserialize_with = "text::prefix")]
    #[schemars(schema_with = "text::prefix_schema")]
    pub path_prefix: String,
    /// Threads that carry connections; 0 = one for each core.
    #[schemars(range(max = 64))]
    pub workers: usize,
    /// Proxies (addresses or CIDR ranges) whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
    #[serde(deserialize_with = "text::networks")]
    #[schemars(schema_with = "text::networks_schema")]
    pub trusted_proxies: Vec<IpNet>,
    /// Connections this node accepts, more are refused with 4100; 0 = as many as the limit of open files allows.
    pub max_connections: usize,
    /// Connections of one worker that may be inside their handshake; more are answered 503 with Retry-After.
    #[schemars(range(min = 1))]
    pub max_handshakes: usize,
    /// Seconds a client may take to send its request head; an idle keep-alive connection is closed after as long.
    /// Above the 60 seconds for which nginx keeps its connections, so that it is not the server who closes first.
    #[schemars(range(min = 1, max = 3600))]
    pub header_timeout_seconds: u64,
    /// Seconds a client may take from connecting to being a WebSocket.
    #[schemars(range(min = 1, max = 3600))]
    pub handshake_timeout_seconds: u64,
    /// Largest body of an HTTP API request in bytes; larger ones are answered 413.
    #[schemars(range(min = 1024))]
    pub max_request_body_bytes: usize,
    /// Window over which clients are closed when the server stops, so that they do not all reconnect at once.
    #[schemars(range(max = 86400))]
    pub drain_seconds: u64,
    /// Bytes that may wait for one slow client before it is closed.
    #[schemars(range(min = 65536))]
    pub outbox_bytes: usize,
    /// Jobs that may wait for one worker before publishers are told to slow down.
    #[schemars(range(min = 1024))]
    pub mailbox_jobs: usize,
    /// PEM file with the certificate chain. With it the port speaks https and wss beside http and ws; the file is read
    /// again on SIGHUP and when it changes. Empty = no TLS.
    pub tls_certificate: String,
    /// PEM file with the certificate's private key.
    pub tls_private_key: String,
    /// Refuse clients that do not name their protocol version (4008) instead of taking them for version 7.
    pub require_protocol_version: bool,
}

/// Health and metrics.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// Address for `/up`, `/ready` and `/metrics`; null or `"off"` = none.
    #[serde(deserialize_with = "text::optional_address")]
    #[schemars(schema_with = "text::optional_address_schema")]
    pub listen: Option<SocketAddr>,
}

/// What is written to stderr.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,tidewire::hub=debug`.
    #[schemars(extend("format" = "log-filter"))]
    pub level: String,
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// `pretty` on a terminal, `json` elsewhere.
    #[default]
    Auto,
    /// One line for each event, with colours on a terminal.
    Pretty,
    /// A shorter line, without colours.
    Compact,
    /// One JSON object for each event.
    Json,
}

/// Everything about one app, every limit resolved to a number.
#[derive(Clone, Debug, PartialEq)]
pub struct AppConfig {
    pub id: String,
    pub name: String,
    /// The pairs that are accepted; the first signs what the server signs. Several while a secret is being rotated.
    pub credentials: Vec<Credential>,
    pub enabled: bool,
    pub require_tls: bool,
    /// Origins a browser may connect from, as host or URL, `*.example.com` for subdomains; empty = any.
    pub allowed_origins: Vec<String>,
    pub client_events: bool,
    pub subscription_count: bool,
    pub watchlist: bool,
    pub strict_user_info: bool,
    pub authorized_connections: bool,
    pub replay: AppReplay,
    pub limits: AppLimits,
}

/// A key and the secret that goes with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Credential {
    pub key: String,
    pub secret: Secret,
}

/// Text that no log, banner or error may show.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct Secret(Box<str>);

/// Limits of an app. A limit is a plain number; 0 means "no limit" only where it says so.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AppLimits {
    /// Connections at once, more are refused with 4004; 0 = no limit.
    pub max_connections: usize,
    /// Channels one connection may be subscribed to.
    #[schemars(range(min = 1))]
    pub max_subscriptions_per_connection: usize,
    /// Largest WebSocket message of a client in bytes.
    #[schemars(range(min = 1024, max = 16777216))]
    pub max_message_bytes: usize,
    /// Characters of a channel name, prefix included.
    #[schemars(range(min = 1, max = 1024))]
    pub max_channel_name_length: usize,
    /// Characters of an event name.
    #[schemars(range(min = 1, max = 1024))]
    pub max_event_name_length: usize,
    /// Bytes of an event's data.
    #[schemars(range(min = 1, max = 16777216))]
    pub max_event_bytes: usize,
    /// Channels one API call may publish to.
    #[schemars(range(min = 1))]
    pub max_channels_per_trigger: usize,
    /// Events in one batch call.
    #[schemars(range(min = 1))]
    pub max_batch_events: usize,
    /// Distinct users in one presence channel.
    #[schemars(range(min = 1))]
    pub max_presence_members: usize,
    /// Characters of a user id.
    #[schemars(range(min = 1, max = 1024))]
    pub max_user_id_length: usize,
    /// Bytes of a presence member's `user_info`.
    pub max_user_info_bytes: usize,
    /// User ids kept of a watch-list; the rest is dropped with error 4302.
    pub max_watchlist: usize,
    /// Client events a connection may send each second; more are refused with 4301.
    #[schemars(range(min = 1))]
    pub client_events_per_second: u32,
    /// Events published over the API each second; more are answered 429; 0 = no limit.
    pub triggers_per_second: u32,
    /// Seconds a cache channel keeps its last event.
    #[schemars(range(min = 1, max = 31536000))]
    pub cache_ttl_seconds: u64,
    /// Cache channels whose last event is kept; the events of further ones are delivered but not kept.
    pub max_cached_events: usize,
    /// `activity_timeout` told to clients: after so many silent seconds they send a ping.
    #[schemars(range(min = 10, max = 120))]
    pub activity_timeout_seconds: u32,
    /// Seconds of silence after which the server itself pings a client.
    #[schemars(range(min = 5, max = 3600))]
    pub idle_seconds: u32,
    /// Seconds a pinged client has to show life before it is closed with 4201.
    #[schemars(range(min = 1, max = 3600))]
    pub pong_timeout_seconds: u32,
    /// Seconds a connection has to sign in or subscribe privately when `authorized_connections` is on (else 4009).
    #[schemars(range(min = 1, max = 3600))]
    pub authorization_timeout_seconds: u32,
    /// Messages that are replayed to one subscriber at once; one who missed more is told so instead.
    #[schemars(range(min = 1))]
    pub max_replay_messages: u64,
    /// Time between the comments that keep a quiet event stream (SSE) alive in proxies, ±10 %.
    #[serde(with = "units::time")]
    #[schemars(schema_with = "units::time_schema", extend("minimum" = 1, "maximum" = 3600))]
    pub keepalive_interval: Duration,
    /// Time after which a WebSocket is closed with 4200, ±10 %, and its client comes back at once; 0 = off.
    #[serde(with = "units::time")]
    #[schemars(schema_with = "units::time_schema", extend("maximum" = replay::MAX_WINDOW_SECONDS))]
    pub max_connection_lifetime: Duration,
    /// Time after which an event stream (SSE) is ended, ±10 %, and its client comes back at once; 0 = off.
    #[serde(with = "units::time")]
    #[schemars(schema_with = "units::time_schema", extend("maximum" = replay::MAX_WINDOW_SECONDS))]
    pub max_sse_lifetime: Duration,
}

impl Config {
    /// A server for tests: free ports on loopback, these apps, nothing read from anywhere.
    pub fn for_tests(apps: Vec<AppConfig>) -> Self {
        let any_port = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        Config {
            server: ServerConfig {
                listen: vec![any_port],
                workers: 2,
                drain_seconds: 0,
                ..ServerConfig::default()
            },
            admin: AdminConfig { listen: Some(any_port) },
            log: LogConfig::default(),
            redis: RedisConfig::default(),
            replay: ReplayConfig::default(),
            apps,
            default_app: false,
            source: None,
        }
    }
}

impl AppConfig {
    /// An app with one key and the default of everything else.
    pub fn new(id: &str, key: &str, secret: &str) -> Self {
        AppConfig {
            id: id.to_owned(),
            name: id.to_owned(),
            credentials: vec![Credential { key: key.to_owned(), secret: Secret::new(secret) }],
            ..AppConfig::default()
        }
    }

    /// The app that exists when nobody defined one.
    pub fn built_in() -> Self {
        AppConfig {
            name: "built-in".to_owned(),
            ..Self::new(DEFAULT_APP_ID, DEFAULT_APP_KEY, DEFAULT_APP_SECRET)
        }
    }
}

impl Secret {
    pub fn new(text: &str) -> Self {
        Secret(text.into())
    }

    /// The text itself; the long name is there to be noticed in review.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        ServerConfig {
            listen: vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), DEFAULT_PORT)],
            path_prefix: String::new(),
            workers: 0,
            trusted_proxies: loopback_networks(),
            max_connections: 0,
            max_handshakes: 1024,
            header_timeout_seconds: 65,
            handshake_timeout_seconds: 15,
            max_request_body_bytes: 2 * 1024 * 1024,
            drain_seconds: 10,
            outbox_bytes: 1024 * 1024,
            mailbox_jobs: 65_536,
            tls_certificate: String::new(),
            tls_private_key: String::new(),
            require_protocol_version: false,
        }
    }
}

fn loopback_networks() -> Vec<IpNet> {
    let v4 = IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8);
    let v6 = IpNet::new_assert(IpAddr::V6(std::net::Ipv6Addr::LOCALHOST), 128);
    vec![v4, v6]
}

impl Default for AdminConfig {
    fn default() -> Self {
        AdminConfig { listen: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), DEFAULT_ADMIN_PORT)) }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig { level: "info".to_owned(), format: LogFormat::Auto }
    }
}

impl Default for AppConfig {
    fn default() -> Self {
        AppConfig {
            id: String::new(),
            name: String::new(),
            credentials: Vec::new(),
            enabled: true,
            require_tls: false,
            allowed_origins: Vec::new(),
            client_events: true,
            subscription_count: false,
            watchlist: true,
            strict_user_info: false,
            authorized_connections: false,
            replay: AppReplay::default(),
            limits: AppLimits::default(),
        }
    }
}

/// The numbers of Pusher Channels where it publishes one.
impl Default for AppLimits {
    fn default() -> Self {
        AppLimits {
            max_connections: 0,
            max_subscriptions_per_connection: 10_000,
            max_message_bytes: 65_536,
            max_channel_name_length: 200,
            max_event_name_length: 200,
            max_event_bytes: 10_240,
            max_channels_per_trigger: 100,
            max_batch_events: 10,
            max_presence_members: 100,
            max_user_id_length: 128,
            max_user_info_bytes: 1024,
            max_watchlist: 100,
            client_events_per_second: 10,
            triggers_per_second: 0,
            cache_ttl_seconds: 1800,
            max_cached_events: 100_000,
            activity_timeout_seconds: 120,
            idle_seconds: 120,
            pong_timeout_seconds: 30,
            authorization_timeout_seconds: 30,
            max_replay_messages: 10_000,
            keepalive_interval: Duration::from_secs(25),
            max_connection_lifetime: Duration::ZERO,
            max_sse_lifetime: Duration::from_secs(2 * 60 * 60),
        }
    }
}
