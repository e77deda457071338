//! What the tests publish, and how they read it.

use std::time::Duration;

use serde_json::{Value, json};
use tidewire::config::{AppConfig, AppReplay, ChannelPattern, ReplayRule};

use crate::common::Rest;
use crate::common::rest::Response;

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
