//! The shape of `config.json`, from which the configuration is resolved.

use std::collections::HashMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::problem::Problem;
use super::{
    AdminConfig, AppConfig, AppLimits, AppReplay, Config, Credential, LogConfig, RedisConfig, ReplayConfig,
    Secret, ServerConfig, StoreKind, replay, text,
};

/// Configuration of Tidewire.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct File {
    /// Where editors find this schema; the server ignores it.
    #[serde(rename = "$schema")]
    #[allow(dead_code, reason = "an editor reads it")]
    pub schema: String,
    pub server: ServerConfig,
    pub admin: AdminConfig,
    pub log: LogConfig,
    pub redis: RedisConfig,
    pub replay: ReplayConfig,
    /// Limits of every app that does not set its own.
    pub limits: AppLimits,
    pub apps: Vec<AppFile>,
    /// Of the app that exists while `apps` is empty.
    #[serde(skip)]
    pub built_in_replay: AppReplay,
}

/// One app: who may connect and publish, and what it may do.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AppFile {
    /// Stands in API paths. Digits: several SDKs take nothing else.
    #[serde(deserialize_with = "text::app_id")]
    #[schemars(schema_with = "text::app_id_schema")]
    pub id: String,
    /// What logs and the banner call the app; its id if absent.
    pub name: Option<String>,
    /// Public: browsers connect with it.
    #[schemars(schema_with = "text::app_key_schema")]
    pub key: String,
    /// Signs API calls and channel authorisations.
    #[schemars(schema_with = "text::secret_schema")]
    pub secret: Secret,
    /// Further pairs that are accepted, for rotating a secret.
    #[serde(default)]
    pub keys: Vec<KeyPair>,
    /// A disabled app keeps its id and key, and refuses connections with 4003.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Refuse connections that are not wss (4000).
    #[serde(default)]
    pub require_tls: bool,
    /// Origins a browser may connect from: hosts or URLs, `*.example.com` for subdomains; empty = any.
    #[serde(default, deserialize_with = "text::origins")]
    #[schemars(schema_with = "text::origins_schema")]
    pub allowed_origins: Vec<String>,
    /// Let clients send `client-…` events to each other on private and presence channels.
    #[serde(default = "yes")]
    pub client_events: bool,
    /// Tell subscribers how many they are (`pusher_internal:subscription_count`).
    #[serde(default)]
    pub subscription_count: bool,
    /// Tell signed-in users who of their watch-list is online.
    #[serde(default = "yes")]
    pub watchlist: bool,
    /// Refuse a presence member whose `user_info` is not an object.
    #[serde(default)]
    pub strict_user_info: bool,
    /// Close connections that neither sign in nor subscribe to a private channel in time (4009).
    #[serde(default)]
    pub authorized_connections: bool,
    /// Which channels keep their messages for clients that were away: `true` = all, or rules.
    #[serde(default, deserialize_with = "replay::app_replay")]
    #[schemars(extend("default" = false))]
    pub replay: AppReplay,
    /// What differs from the common `limits`.
    #[serde(default)]
    pub limits: AppLimits,
}

/// A further key of an app.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyPair {
    #[schemars(schema_with = "text::app_key_schema")]
    pub key: String,
    #[schemars(schema_with = "text::secret_schema")]
    pub secret: Secret,
}

fn yes() -> bool {
    true
}

impl File {
    /// Checks what only the whole can show. `apps[].limits` must already be complete.
    pub fn resolve(self, source: Option<PathBuf>, problems: &mut Vec<Problem>) -> Config {
        let mut apps: Vec<AppConfig> = self.apps.into_iter().map(AppFile::resolve).collect();
        report_duplicates(&apps, problems);
        report_caps(&apps, problems);
        let default_app = apps.is_empty();
        if default_app {
            apps.push(AppConfig {
                limits: self.limits,
                replay: self.built_in_replay,
                ..AppConfig::built_in()
            });
        }
        report_directory(&self.replay, &apps, problems);
        Config {
            server: self.server,
            admin: self.admin,
            log: self.log,
            redis: self.redis,
            replay: self.replay,
            apps,
            default_app,
            source,
        }
    }
}

impl AppFile {
    fn resolve(self) -> AppConfig {
        let first = KeyPair { key: self.key, secret: self.secret };
        let pairs = std::iter::once(first).chain(self.keys);
        AppConfig {
            name: self.name.filter(|name| !name.is_empty()).unwrap_or_else(|| self.id.clone()),
            id: self.id,
            credentials: pairs.map(|p| Credential { key: p.key, secret: p.secret }).collect(),
            enabled: self.enabled,
            require_tls: self.require_tls,
            allowed_origins: self.allowed_origins,
            client_events: self.client_events,
            subscription_count: self.subscription_count,
            watchlist: self.watchlist,
            strict_user_info: self.strict_user_info,
            authorized_connections: self.authorized_connections,
            replay: self.replay,
            limits: self.limits,
        }
    }
}

fn report_duplicates(apps: &[AppConfig], problems: &mut Vec<Problem>) {
    let mut ids: HashMap<&str, usize> = HashMap::new();
    let mut keys: HashMap<&str, String> = HashMap::new();
    for (i, app) in apps.iter().enumerate() {
        if let Some(other) = ids.insert(&app.id, i) {
            problems.push(Problem::new(
                format!("apps[{i}].id"),
                format!("{:?} is also the id of apps[{other}]", app.id),
            ));
        }
        for (k, pair) in app.credentials.iter().enumerate() {
            let at = if k == 0 { format!("apps[{i}].key") } else { format!("apps[{i}].keys[{}].key", k - 1) };
            if let Some(other) = keys.insert(&pair.key, at.clone()) {
                problems.push(Problem::new(at, format!("{:?} is also {other}", pair.key)));
            }
        }
    }
}

/// Less would be one full disk page a channel.
const MIN_APP_REPLAY_BYTES: u64 = 1 << 20;

fn report_caps(apps: &[AppConfig], problems: &mut Vec<Problem>) {
    for (i, app) in apps.iter().enumerate() {
        if (1..MIN_APP_REPLAY_BYTES).contains(&app.replay.max_bytes) {
            let text = "expected 0 (only replay.max_bytes counts) or at least 1MiB";
            problems.push(Problem::new(format!("apps[{i}].replay.max_bytes"), text));
        }
    }
}

/// Whether the directory can be written to shows when it is opened; here only what cannot get better by itself.
fn report_directory(replay: &ReplayConfig, apps: &[AppConfig], problems: &mut Vec<Problem>) {
    let is_used = replay.store == StoreKind::Sqlite && apps.iter().any(|app| app.replay.is_on());
    if is_used && replay.dir.exists() && !replay.dir.is_dir() {
        let text = format!("expected a directory, but {} is a file", replay.dir.display());
        problems.push(Problem::new("replay.dir", text));
    }
}
