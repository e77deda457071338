//! Replay over the REST API: idempotency keys, positions, history, purge.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a failing test panics")]

#[path = "../common/mod.rs"]
mod common;

mod batches;
mod gone;
mod history;
mod idempotency;
mod live_only;
mod positions;
mod purge;
mod refusals;
mod rules;

use std::path::Path;
use std::time::Duration;

use common::rest::Response;
use common::{Rest, TestServer};
use serde_json::{Value, json};
use tidewire::config::{AppConfig, AppReplay, ChannelPattern, Config, ReplayRule, StoreKind};

/// Messages of a channel called `log-…` are kept for an hour, those of other channels are not.
pub fn rule() -> ReplayRule {
    ReplayRule {
        pattern: ChannelPattern::new("*log-*"),
        window: Duration::from_secs(3600),
        max_messages: 10_000,
        max_bytes: 64 << 20,
        client_events: true,
        ..ReplayRule::default()
    }
}

pub fn keep(app: &mut AppConfig, rules: Vec<ReplayRule>) {
    app.replay = AppReplay { rules, ..AppReplay::default() };
}

pub fn in_memory() -> TestServer {
    in_memory_with(|_| {})
}

pub fn in_memory_with(set: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::with_config(|config| {
        config.replay.store = StoreKind::Memory;
        keep(&mut config.apps[0], vec![rule()]);
        set(config);
    })
}

pub fn on_disk(directory: &Path) -> TestServer {
    TestServer::with_config(|config| {
        config.replay.store = StoreKind::Sqlite;
        config.replay.dir = directory.to_owned();
        keep(&mut config.apps[0], vec![rule()]);
    })
}

/// Runs a test with each engine.
pub async fn on_each_store(test: impl AsyncFn(&TestServer)) {
    test(&in_memory()).await;
    let directory = tempfile::tempdir().unwrap();
    test(&on_disk(directory.path())).await;
}

/// An event that says so much.
pub fn event(channel: &str, data: &str) -> Value {
    json!({"name": "e", "data": data, "channels": [channel]})
}

pub fn keyed(channel: &str, data: &str, key: &str) -> Value {
    json!({"name": "e", "data": data, "channels": [channel], "idempotency_key": key})
}

/// Publishes `1`, `2` and so on, each once it is known that the one before is kept.
pub async fn publish_numbers(rest: &Rest, channel: &str, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        rest.publish(channel, "e", &number.to_string()).await;
    }
}

pub const HISTORY: &str = "/apps/42/channels/log-a/history";

/// A page of `log-a`, which must be there.
pub async fn page(rest: &Rest, query: &[(&str, &str)]) -> Value {
    rest.read("/channels/log-a/history", query).await
}

/// The answer to a request for a page of `log-a`, whatever it is.
pub async fn ask(rest: &Rest, query: &[(&str, &str)]) -> Response {
    let request = query.iter().fold(rest.get(HISTORY), |request, (name, value)| request.query(name, value));
    request.send().await
}

pub async fn position_of(rest: &Rest, channel: &str) -> String {
    let answer = rest.read(&format!("/channels/{channel}"), &[("info", "position")]).await;
    answer["position"].as_str().unwrap_or_else(|| panic!("no position: {answer}")).to_owned()
}

/// With another serial.
pub fn moved(position: &str, serial: u64) -> String {
    format!("{}:{serial}", position.split(':').next().unwrap())
}

pub fn serials(page: &Value) -> Vec<u64> {
    let items = page["items"].as_array().unwrap();
    items.iter().map(|item| item["serial"].as_u64().unwrap()).collect()
}

pub fn data_of(page: &Value) -> Vec<&str> {
    let items = page["items"].as_array().unwrap();
    items.iter().map(|item| item["data"].as_str().unwrap()).collect()
}

/// Everything that is kept of `log-a`, oldest first.
pub async fn kept(rest: &Rest) -> Vec<String> {
    let page = page(rest, &[("direction", "forward"), ("limit", "1000")]).await;
    assert_eq!(page["complete"], true);
    data_of(&page).into_iter().map(str::to_owned).collect()
}

pub fn deduplicated(response: &Response) -> Option<&str> {
    response.header("tidewire-deduplicated")
}
