//! What only the whole configuration can show of its Redis.

use std::time::Duration;

use super::super::units::Quantity;
use super::super::{Config, OnStoreError, Problem, StoreKind};
use super::RedisConfig;

/// `url_name` is what the operator knows `redis.url` by.
pub fn redis_problems(config: &Config, url_name: &str) -> Vec<Problem> {
    let redis = &config.redis;
    let mut problems = Vec::new();
    let mut report = |at: &str, text: String| problems.push(Problem::new(at, text));
    if redis.cluster && !redis.sentinel_master.is_empty() {
        report("redis.cluster", "and redis.sentinel_master are both set, keep one".to_owned());
    }
    if !redis.is_on()
        && let Some(setting) = names_servers(redis)
    {
        report("redis.url", format!("is empty, but {setting} is set; name one of the servers here"));
    }
    if redis.cluster && redis.database() != 0 {
        let text = format!("names database {}, but a Redis Cluster has only database 0", redis.database());
        report("redis.url", text);
    }
    for (credentials, username, password) in [
        (redis.credentials(), "redis.username", "redis.password"),
        (redis.sentinel_credentials(), "redis.sentinel_username", "redis.sentinel_password"),
    ] {
        if credentials.username.is_some() && credentials.password.is_none() {
            report(password, format!("is missing, but {username} is set"));
        }
    }
    match config.replay.store {
        StoreKind::Redis if !redis.is_on() => {
            report("replay.store", r#""redis" needs redis.url"#.to_owned());
        }
        StoreKind::Sqlite | StoreKind::Memory if redis.is_on() => {
            if let Some(app) = config.apps.iter().find(|app| app.replay.is_on()) {
                let text = format!(
                    r#"expected "redis": {url_name} is set, and app {} keeps messages that every node has to find"#,
                    app.id
                );
                report("replay.store", text);
            }
        }
        _ => {}
    }
    problems
}

/// The setting that makes no sense without a server.
fn names_servers(redis: &RedisConfig) -> Option<&'static str> {
    if !redis.nodes.is_empty() {
        Some("redis.nodes")
    } else if redis.cluster {
        Some("redis.cluster")
    } else if !redis.sentinel_master.is_empty() {
        Some("redis.sentinel_master")
    } else {
        None
    }
}

/// What works and is probably a mistake.
pub fn redis_doubts(config: &Config) -> Vec<String> {
    let redis = &config.redis;
    let mut doubts = Vec::new();
    if !redis.is_on() {
        if !redis.password.expose().is_empty() {
            doubts.push("redis.password is set, but redis.url is not: this node is alone".to_owned());
        }
        return doubts;
    }
    if redis.tls_ca().is_some() && !redis.has_tls() {
        doubts.push(
            "redis.tls_ca is set, but redis.url begins with redis://, so nothing is encrypted".to_owned(),
        );
    }
    if !redis.cluster && redis.sentinel_master.is_empty() && !redis.nodes.is_empty() {
        doubts.push(
            "redis.nodes is set, but neither redis.cluster nor redis.sentinel_master: only redis.url is used"
                .to_owned(),
        );
    }
    if redis.sentinel_master.is_empty() && redis.sentinel_credentials().password.is_some() {
        doubts.push("redis.sentinel_password is set, but redis.sentinel_master is not".to_owned());
    }
    let is_stored = config.apps.iter().any(|app| app.replay.is_on());
    if is_stored && config.replay.on_store_error == OnStoreError::LiveOnly {
        doubts.push(
            "replay.on_store_error is \"live_only\", but with redis.url it is as \"reject\": without Redis an event \
             reaches no other node"
                .to_owned(),
        );
    }
    if redis.response_timeout >= redis.node_timeout {
        let time = |time: Duration| Quantity::Time.render(time.as_secs());
        let (response, node) = (time(redis.response_timeout), time(redis.node_timeout));
        doubts.push(format!(
            "redis.response_timeout ({response}) is not below redis.node_timeout ({node}): while this node waits for \
             one answer, the others take it for dead"
        ));
    }
    doubts
}
