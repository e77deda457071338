//! How a connection to Redis is made, and what is said when it cannot be.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, Pipeline,
    ProtocolVersion, RedisConnectionInfo, RedisError, ServerErrorKind, TlsCertificates, Value,
};

use super::connection::{Connection, Health, Pushes};
use super::server_info::{ServerInfo, ServerMode};
use super::transport::Shared;
use crate::config::{RedisAddress, RedisConfig, RedisCredentials, RedisMode, Secret};

/// What a server may take to accept and to log in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes that are sent and not acknowledged for so long end the connection.
const USER_TIMEOUT: Duration = Duration::from_secs(10);
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(10))
    .with_retries(6);
/// Requests that wait for the task which writes them.
const PIPELINE_BUFFER: usize = 1024;

/// Why a server cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("Redis at {server}: {reason}; {advice}")]
pub struct ConnectError {
    /// Host and port, or several.
    server: Box<str>,
    reason: Box<str>,
    advice: &'static str,
}

impl ConnectError {
    pub fn new(server: impl ToString, reason: impl ToString, advice: &'static str) -> Self {
        Self { server: server.to_string().into(), reason: reason.to_string().into(), advice }
    }
}

/// Makes connections to servers of one kind.
pub struct Connector {
    has_tls: bool,
    authorities: Option<Vec<u8>>,
    username: Option<Box<str>>,
    password: Option<Secret>,
    database: u32,
    response_timeout: Duration,
    mode: ServerMode,
}

impl Connector {
    /// For the servers that hold the data.
    pub fn new(config: &RedisConfig) -> Result<Self, ConnectError> {
        let mode = match config.mode() {
            RedisMode::Cluster => ServerMode::Cluster,
            RedisMode::Standalone | RedisMode::Sentinel { .. } => ServerMode::Standalone,
        };
        Self::with(config, config.credentials(), config.database(), mode)
    }

    pub fn for_sentinels(config: &RedisConfig) -> Result<Self, ConnectError> {
        Self::with(config, config.sentinel_credentials(), 0, ServerMode::Sentinel)
    }

    fn with(
        config: &RedisConfig,
        credentials: RedisCredentials<'_>,
        database: u32,
        mode: ServerMode,
    ) -> Result<Self, ConnectError> {
        let authorities = config.tls_ca().map(fs::read).transpose().map_err(|error| {
            ConnectError::new(config, format!("{}: {error}", config.tls_ca), "check redis.tls_ca")
        })?;
        Ok(Self {
            has_tls: config.has_tls(),
            authorities,
            username: credentials.username.map(Box::from),
            password: credentials.password.cloned(),
            database,
            response_timeout: config.response_timeout,
            mode,
        })
    }

    /// Connects to a server of the data, which has to be of the right kind, new enough, ready and a master.
    pub async fn open(
        &self,
        address: &RedisAddress,
        shared: &Arc<Shared>,
    ) -> Result<Connection, ConnectError> {
        let health = Arc::new(Health::default());
        let pushes = Pushes { shared: Arc::clone(shared), health: Arc::clone(&health) };
        let settings = self.settings().set_push_sender(pushes);
        let mut multiplexed = self.dial(address, &settings).await?;
        let server = self.greet(address, &mut multiplexed).await?;
        Ok(Connection::new(multiplexed, health, address.clone(), server))
    }

    /// Connects for a single question to a server of any kind and role.
    pub async fn open_briefly(&self, address: &RedisAddress) -> Result<MultiplexedConnection, ConnectError> {
        self.dial(address, &self.settings()).await
    }

    fn settings(&self) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT.min(self.response_timeout)))
            .set_response_timeout(Some(self.response_timeout))
            .set_pipeline_buffer_size(PIPELINE_BUFFER)
    }

    async fn dial(
        &self,
        address: &RedisAddress,
        settings: &AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, ConnectError> {
        let client = self.client(address).map_err(|error| self.error(address, &error))?;
        let connection = client.get_multiplexed_async_connection_with_config(settings).await;
        connection.map_err(|error| self.error(address, &error))
    }

    fn client(&self, address: &RedisAddress) -> redis::RedisResult<Client> {
        let (host, port) = (address.host.clone(), address.port);
        let addr = if self.has_tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        let mut redis = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_lib_name("tidewire", env!("CARGO_PKG_VERSION"))
            .set_db(self.database.into());
        if let Some(username) = &self.username {
            redis = redis.set_username(username);
        }
        if let Some(password) = &self.password {
            redis = redis.set_password(password.expose());
        }
        let tcp = TcpSettings::default()
            .set_nodelay(true)
            .set_keepalive(KEEPALIVE.clone())
            .set_user_timeout(USER_TIMEOUT);
        let info: ConnectionInfo =
            addr.into_connection_info()?.set_redis_settings(redis).set_tcp_settings(tcp);
        match &self.authorities {
            Some(pem) if self.has_tls => {
                let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem.clone()) };
                Client::build_with_tls(info, certificates)
            }
            _ => Client::open(info),
        }
    }

    /// Asks the server what it is.
    async fn greet(
        &self,
        address: &RedisAddress,
        connection: &mut MultiplexedConnection,
    ) -> Result<ServerInfo, ConnectError> {
        let mut questions = Pipeline::new();
        for section in ["server", "replication", "memory"] {
            questions.cmd("INFO").arg(section);
        }
        questions.cmd("PING");
        let answers = connection.send_packed_commands(&questions, 0, questions.len()).await;
        let mut answers = answers.map_err(|error| self.error(address, &error))?;
        // PING is refused while data is being loaded, INFO is not.
        let mut info = String::new();
        for answer in answers.drain(..) {
            match answer {
                Value::ServerError(error) => return Err(self.error(address, &error.into())),
                Value::BulkString(text) => info.push_str(&String::from_utf8_lossy(&text)),
                Value::VerbatimString { text, .. } => info.push_str(&text),
                _ => {}
            }
        }
        let server = ServerInfo::parse(&info);
        self.check(address, &server)?;
        if let (Some(policy), false) = (&server.eviction_policy, server.mode == ServerMode::Sentinel) {
            tracing::warn!(target: "tidewire::fanout", redis = %address, maxmemory_policy = &**policy,
                "Redis may drop who is in the channels, and messages that are to be replayed, when its memory is full; set \
                its maxmemory-policy to noeviction");
        }
        Ok(server)
    }

    fn check(&self, address: &RedisAddress, server: &ServerInfo) -> Result<(), ConnectError> {
        let (reason, advice) = match (server.mode, self.mode) {
            _ if !server.is_new_enough() && server.mode != ServerMode::Sentinel => {
                let reason = format!("it is version {}", server.version);
                return Err(ConnectError::new(address, reason, "Redis from 7.0 on or Valkey is needed"));
            }
            (ServerMode::Cluster, ServerMode::Standalone) => {
                ("it is a node of a Redis Cluster", "set redis.cluster to true")
            }
            (ServerMode::Standalone, ServerMode::Cluster) => {
                ("it is not a node of a Redis Cluster", "set redis.cluster to false")
            }
            (ServerMode::Sentinel, _) => {
                ("it is a sentinel", "set redis.sentinel_master to the name of the master it watches")
            }
            _ if !server.is_master => {
                ("it is a replica", "name its master in redis.url, or set redis.sentinel_master")
            }
            _ => return Ok(()),
        };
        Err(ConnectError::new(address, reason, advice))
    }

    /// The reason in words, with what to do. Nothing that the client says of an error holds a password.
    pub fn error(&self, address: &RedisAddress, error: &RedisError) -> ConnectError {
        let settings = match self.mode {
            ServerMode::Sentinel => "check redis.sentinel_username and redis.sentinel_password",
            _ => "check redis.username and redis.password",
        };
        let new = |reason: &str, advice| ConnectError::new(address, reason, advice);
        let text = error.to_string();
        match error.kind() {
            _ if error.code() == Some("NOAUTH") || text.contains("NOAUTH") => {
                new("it asks for a password", settings)
            }
            _ if matches!(error.code(), Some("WRONGPASS" | "NOPERM")) => {
                new(&format!("it refuses the login ({})", short(error)), settings)
            }
            ErrorKind::AuthenticationFailed => {
                new(&format!("it refuses the login ({})", short(error)), settings)
            }
            ErrorKind::RESP3NotSupported => {
                new("it is too old to know RESP3", "Redis from 7.0 on or Valkey is needed")
            }
            ErrorKind::Server(ServerErrorKind::BusyLoading) => {
                new("it is still loading its data", "try again when it has")
            }
            _ if error.is_connection_refusal() => {
                new("connection refused", "is it running there? Check redis.url")
            }
            _ if error.is_timeout() && self.has_tls => new(
                "no answer",
                "check redis.url: does this port speak TLS? And that no firewall is in between",
            ),
            _ if error.is_timeout() => {
                new("no answer", "check redis.url, and that no firewall is in between")
            }
            ErrorKind::Parse => {
                new("what answers there is not Redis", "check redis.url; with TLS it begins with rediss://")
            }
            ErrorKind::Io if error.is_connection_dropped() && !self.has_tls => new(
                &text,
                "check redis.url; with TLS it begins with rediss://; and that the server's protected-mode lets this host in",
            ),
            ErrorKind::Io if self.has_tls => new(
                &error.to_string(),
                "check redis.url, and redis.tls_ca if its authority is not a public one",
            ),
            ErrorKind::Io => new(&text, "check redis.url; with TLS it begins with rediss://"),
            _ => new(&short(error), "check the settings of redis"),
        }
    }
}

fn short(error: &RedisError) -> String {
    let text = match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        (None, Some(detail)) => detail.to_owned(),
        _ => error.to_string(),
    };
    text.trim_end_matches('.').to_owned()
}
