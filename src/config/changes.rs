//! A configuration as text with its secrets masked, and what differs between two of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    AdminConfig, AppConfig, AppLimits, AppReplay, Config, LogConfig, RedisConfig, ReplayConfig, ServerConfig,
    text,
};

/// One difference between the running configuration and a newly read one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    AppAdded {
        id: String,
    },
    AppRemoved {
        id: String,
    },
    /// `settings` are `name: old -> new`; credentials are only said to differ.
    AppChanged {
        id: String,
        settings: Vec<String>,
    },
    /// A setting of the process, `name: old -> new`.
    Setting {
        text: String,
        needs_restart: bool,
    },
}

/// Settings of the process that take effect when they are read again.
const AT_ONCE: [&str; 2] = ["log.level:", "replay.max_bytes:"];

/// Everything that differs, in the order of the file.
pub fn changes(old: &Config, new: &Config) -> Vec<Change> {
    let mut found: Vec<Change> = Vec::new();
    let sections = |c: &Config| {
        let Config { server, admin, log, redis, replay, .. } = c;
        json!({ "server": server, "admin": admin, "log": log, "redis": redis, "replay": replay })
    };
    for text in differences(&sections(old), &sections(new)) {
        let needs_restart = !AT_ONCE.iter().any(|setting| text.starts_with(setting));
        found.push(Change::Setting { text, needs_restart });
    }
    let passwords = |c: &Config| {
        let (redis, sentinel) = (c.redis.credentials(), c.redis.sentinel_credentials());
        [redis.password.cloned(), sentinel.password.cloned()]
    };
    if passwords(old) != passwords(new) {
        found.push(Change::Setting { text: "redis credentials".to_owned(), needs_restart: true });
    }
    let (was, is) = (by_id(old), by_id(new));
    for id in was.keys().filter(|id| !is.contains_key(*id)) {
        found.push(Change::AppRemoved { id: (*id).to_owned() });
    }
    for (id, app) in is {
        match was.get(id) {
            None => found.push(Change::AppAdded { id: id.to_owned() }),
            Some(before) if *before != app => {
                found.push(Change::AppChanged { id: id.to_owned(), settings: app_differences(before, app) });
            }
            Some(_) => {}
        }
    }
    found
}

/// The configuration in the shape of the file, every default filled in, no secret in it.
pub fn effective(config: &Config) -> String {
    let shown = Shown {
        server: &config.server,
        admin: &config.admin,
        log: &config.log,
        redis: &config.redis,
        replay: &config.replay,
        apps: config.apps.iter().map(ShownApp::from).collect(),
    };
    serde_json::to_string_pretty(&shown).unwrap_or_default()
}

/// In the order in which people write it.
#[derive(Serialize)]
struct Shown<'a> {
    server: &'a ServerConfig,
    admin: &'a AdminConfig,
    log: &'a LogConfig,
    redis: &'a RedisConfig,
    replay: &'a ReplayConfig,
    apps: Vec<ShownApp<'a>>,
}

#[derive(Serialize)]
struct ShownApp<'a> {
    id: &'a str,
    name: &'a str,
    key: &'a str,
    secret: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    keys: Vec<ShownPair<'a>>,
    enabled: bool,
    require_tls: bool,
    allowed_origins: &'a [String],
    client_events: bool,
    subscription_count: bool,
    watchlist: bool,
    strict_user_info: bool,
    authorized_connections: bool,
    replay: &'a AppReplay,
    limits: &'a AppLimits,
}

#[derive(Serialize)]
struct ShownPair<'a> {
    key: &'a str,
    secret: &'static str,
}

impl<'a> From<&'a AppConfig> for ShownApp<'a> {
    fn from(app: &'a AppConfig) -> Self {
        let mut keys = app.credentials.iter().map(|pair| pair.key.as_str());
        ShownApp {
            id: &app.id,
            name: &app.name,
            key: keys.next().unwrap_or_default(),
            secret: text::MASK,
            keys: keys.map(|key| ShownPair { key, secret: text::MASK }).collect(),
            enabled: app.enabled,
            require_tls: app.require_tls,
            allowed_origins: &app.allowed_origins,
            client_events: app.client_events,
            subscription_count: app.subscription_count,
            watchlist: app.watchlist,
            strict_user_info: app.strict_user_info,
            authorized_connections: app.authorized_connections,
            replay: &app.replay,
            limits: &app.limits,
        }
    }
}

fn by_id(config: &Config) -> BTreeMap<&str, &AppConfig> {
    config.apps.iter().map(|app| (app.id.as_str(), app)).collect()
}

fn app_differences(old: &AppConfig, new: &AppConfig) -> Vec<String> {
    let mut settings = Vec::new();
    if old.credentials != new.credentials {
        settings.push("credentials".to_owned());
    }
    let without_keys = |app| json!(ShownApp { key: "", keys: Vec::new(), ..ShownApp::from(app) });
    settings.extend(differences(&without_keys(old), &without_keys(new)));
    settings
}

/// `path: old -> new` for every leaf that differs.
fn differences(old: &Value, new: &Value) -> Vec<String> {
    let (mut was, mut is) = (BTreeMap::new(), BTreeMap::new());
    flatten(old, String::new(), &mut was);
    flatten(new, String::new(), &mut is);
    let paths: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
    let shown = |leaf: Option<&&Value>| leaf.map_or_else(|| "none".to_owned(), |v| v.to_string());
    let differing = paths.into_iter().filter(|path| was.get(*path) != is.get(*path));
    differing.map(|path| format!("{path}: {} -> {}", shown(was.get(path)), shown(is.get(path)))).collect()
}

fn flatten<'v>(value: &'v Value, path: String, leaves: &mut BTreeMap<String, &'v Value>) {
    let Value::Object(object) = value else {
        leaves.insert(path, value);
        return;
    };
    for (key, inner) in object {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        flatten(inner, path, leaves);
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::AppAdded { id } => write!(f, "app {id} added"),
            Change::AppRemoved { id } => write!(f, "app {id} removed"),
            Change::AppChanged { id, settings } => write!(f, "app {id} changed ({})", settings.join(", ")),
            Change::Setting { text, needs_restart: true } => {
                write!(f, "{text} (takes effect after a restart)")
            }
            Change::Setting { text, .. } => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ReplayRule;
    use super::*;

    fn app(id: &str) -> AppConfig {
        AppConfig::new(id, &format!("key-{id}"), "hidden")
    }

    #[test]
    fn changes_name_apps_and_settings() {
        let old = Config::for_tests(vec![app("1"), app("2")]);
        let mut new = Config::for_tests(vec![AppConfig { client_events: false, ..app("2") }, app("3")]);
        new.server.workers = 7;
        let texts: Vec<String> = changes(&old, &new).iter().map(Change::to_string).collect();
        assert_eq!(
            texts,
            [
                "server.workers: 2 -> 7 (takes effect after a restart)",
                "app 1 removed",
                "app 2 changed (client_events: true -> false)",
                "app 3 added",
            ]
        );
    }

    #[test]
    fn rules_and_caps_of_replay_change_at_once_and_its_place_after_a_restart() {
        let mut old = Config::for_tests(vec![app("1")]);
        let mut new = old.clone();
        new.replay.dir = "/var/lib/tidewire".into();
        old.apps[0].replay.rules = vec![ReplayRule::default()];
        new.replay.max_bytes = 8 << 30;
        new.apps[0].replay.rules = Vec::new();
        let texts: Vec<String> = changes(&old, &new).iter().map(Change::to_string).collect();
        assert_eq!(
            texts[..2],
            [
                r#"replay.dir: "./data/replay" -> "/var/lib/tidewire" (takes effect after a restart)"#,
                r#"replay.max_bytes: "4GiB" -> "8GiB""#,
            ]
        );
        assert!(
            texts[2].starts_with(r#"app 1 changed (replay.rules: [{"client_events":false,"#),
            "{texts:?}"
        );
        assert!(texts[2].ends_with(r#""window":"24h"}] -> [])"#), "{texts:?}");
    }

    #[test]
    fn a_changed_secret_is_noticed_and_not_shown() {
        let old = Config::for_tests(vec![app("1")]);
        let new = Config::for_tests(vec![AppConfig::new("1", "key-1", "other-hidden")]);
        let text = changes(&old, &new)[0].to_string();
        assert_eq!(text, "app 1 changed (credentials)");
        assert!(!effective(&new).contains("hidden"));
    }
}
