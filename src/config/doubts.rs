//! What works and is probably a mistake.

use super::redis::redis_doubts;
use super::units::Quantity;
use super::{AppConfig, Config};

/// Secrets that stand in manuals: ours, soketi's, and the one of `config.json.example`.
const PUBLISHED_SECRETS: [&str; 4] = ["app-secret", "secret", "change-this-secret", "tw-demo-secret"];

/// Each as one line for the operator.
pub fn doubts(config: &Config) -> Vec<String> {
    let mut doubts = redis_doubts(config);
    doubts.extend(config.apps.iter().flat_map(|app| replay_doubts(app, config.replay.max_bytes)));
    for app in config.apps.iter().filter(|_| !config.default_app) {
        doubts.extend(app_doubts(app));
        let event = app.limits.max_event_bytes;
        if config.server.max_request_body_bytes < event {
            doubts.push(format!(
                "app {}: max_event_bytes is {event}, but server.max_request_body_bytes is only {}",
                app.id, config.server.max_request_body_bytes
            ));
        }
        if config.server.outbox_bytes < event.saturating_mul(2) {
            doubts.push(format!(
                "app {}: server.outbox_bytes ({}) holds hardly one event of max_event_bytes ({event}), slow clients \
                 will be closed",
                app.id, config.server.outbox_bytes
            ));
        }
    }
    doubts
}

fn app_doubts(app: &AppConfig) -> Vec<String> {
    let mut doubts = Vec::new();
    if !app.id.bytes().all(|b| b.is_ascii_digit()) {
        doubts.push(format!(
            "app {}: the Python SDK and the URL forms of the Go and Node SDKs accept only digits as an app id",
            app.id
        ));
    }
    for pair in &app.credentials {
        let secret = pair.secret.expose();
        if PUBLISHED_SECRETS.contains(&secret) {
            doubts.push(format!(
                "app {}: the secret of key {} stands in manuals, choose another",
                app.id, pair.key
            ));
        } else if secret.trim() != secret {
            doubts.push(format!(
                "app {}: the secret of key {} begins or ends with white space",
                app.id, pair.key
            ));
        }
    }
    doubts
}

fn replay_doubts(app: &AppConfig, store_max_bytes: u64) -> Vec<String> {
    let mut doubts = Vec::new();
    let id = &app.id;
    let size = |bytes| Quantity::Size.render(bytes);
    if app.replay.max_bytes > store_max_bytes {
        let (own, whole) = (size(app.replay.max_bytes), size(store_max_bytes));
        doubts.push(format!("app {id}: replay.max_bytes is {own}, but the whole store keeps only {whole}"));
    }
    let event = app.limits.max_event_bytes as u64;
    for (i, rule) in app.replay.rules.iter().enumerate() {
        let pattern = rule.pattern.as_str();
        if rule.stored && rule.max_bytes < event {
            let bytes = size(rule.max_bytes);
            doubts.push(format!(
                "app {id}: replay.rules[{i}] ({pattern}) keeps {bytes}, less than one event of max_event_bytes ({event})"
            ));
        }
        if rule.stored && rule.client_events && !app.client_events {
            doubts.push(format!(
                "app {id}: replay.rules[{i}] ({pattern}) stores client events, but the app's client_events is false"
            ));
        }
        let earlier = app.replay.rules[..i].iter().position(|earlier| earlier.pattern.covers(&rule.pattern));
        if let Some(first) = earlier {
            doubts.push(format!(
                "app {id}: replay.rules[{i}] ({pattern}) is never reached, rules[{first}] matches the same channels"
            ));
        }
    }
    doubts
}
