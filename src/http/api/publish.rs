//! Publishing: one event, a batch, and the way of before 2012 (4.5, 4.6, 4.9).

use hyper::StatusCode;
use hyper::header::HeaderMap;
use tidewire_protocol::ChannelName;
use tidewire_protocol::http_api::{Batch, Info, Trigger, check_idempotency_key};

use super::deliveries;
use super::read::{Attributes, ByName, attributes};
use super::verify::{Verified, bad_request};
use crate::app::App;
use crate::http::respond::{self, Refusal, Reply};
use crate::node::Node;

/// An event's `idempotency_key`, for publishers that cannot add to the body.
const KEY_HEADER: &str = "x-idempotency-key";

pub async fn trigger(
    node: &Node,
    request: Verified<'_, Trigger<'_>>,
    headers: &HeaderMap,
) -> Result<Reply, Refusal> {
    let (app, event) = request.into_input();
    let key = key_of_request(headers)?;
    let kept = deliveries::publish(node, app, std::slice::from_ref(&event), key).await?;
    if event.info.is_empty() {
        return Ok(kept.mark(respond::empty_object()));
    }
    let mut channels = Vec::with_capacity(event.channels.len());
    for (number, channel) in event.channels.iter().enumerate() {
        let attributes = attributes_of(app, channel.name(), event.info).await;
        channels.push((&**channel, attributes.at(kept.position(number))));
    }
    Ok(kept.mark(respond::json(&ChannelsReply { channels: ByName(channels) })))
}

/// What was asked for beside a publish. The event is delivered: what cannot be found out then is left out.
async fn attributes_of(app: &App, channel: ChannelName<'_>, info: Info) -> Attributes {
    if !(info.user_count || info.subscription_count) {
        return Attributes::default();
    }
    let found = app.channel_info(channel).await.unwrap_or_default();
    attributes(channel, info, &found, &app.settings())
}

pub async fn batch(
    node: &Node,
    request: Verified<'_, Batch<'_>>,
    headers: &HeaderMap,
) -> Result<Reply, Refusal> {
    if headers.contains_key(KEY_HEADER) {
        let text =
            "X-Idempotency-Key is for a single event: give each item of the batch an idempotency_key instead";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, text));
    }
    let (app, Batch { events }) = request.into_input();
    let kept = deliveries::publish(node, app, &events, None).await?;
    if events.iter().all(|event| event.info.is_empty()) {
        return Ok(kept.mark(respond::empty_object()));
    }
    // As many items as were sent, in their order: Go decodes an array by position.
    let mut batch = Vec::with_capacity(events.len());
    for (number, event) in events.iter().enumerate() {
        batch.push(match event.channels.first() {
            Some(channel) if !event.info.is_empty() => {
                attributes_of(app, channel.name(), event.info).await.at(kept.position(number))
            }
            _ => Attributes::default(),
        });
    }
    Ok(kept.mark(respond::json(&BatchReply { batch })))
}

pub async fn legacy(
    node: &Node,
    request: Verified<'_, Trigger<'_>>,
    headers: &HeaderMap,
) -> Result<Reply, Refusal> {
    let (app, event) = request.into_input();
    let key = key_of_request(headers)?;
    let kept = deliveries::publish(node, app, &[event], key).await?;
    Ok(kept.mark(respond::accepted()))
}

/// The key in the header, which holds for an event that has none in its body.
fn key_of_request(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let Some(value) = headers.get(KEY_HEADER) else { return Ok(None) };
    let key = std::str::from_utf8(value.as_bytes())
        .map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "X-Idempotency-Key is not UTF-8"))?;
    check_idempotency_key(key).map_err(bad_request)?;
    Ok(Some(key))
}

#[derive(serde::Serialize)]
struct ChannelsReply<'a> {
    channels: ByName<&'a str>,
}

#[derive(serde::Serialize)]
struct BatchReply {
    batch: Vec<Attributes>,
}
