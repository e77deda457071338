//! Publishing: one event, a batch, and the way of before 2012 (4.5, 4.6, 4.9).

use hyper::StatusCode;
use tidewire_protocol::http_api::{Batch, Trigger};

use super::read::{Attributes, ByName, attributes};
use super::verify::Verified;
use crate::app::App;
use crate::http::respond::{self, Hint, Refusal, Reply};
use crate::node::Node;
use crate::worker::mailbox::{Hold, Mailbox};

/// Milliseconds are told as whole seconds in `Retry-After`.
const MS_PER_SECOND: u64 = 1_000;

pub fn trigger(node: &Node, request: Verified<'_, Trigger<'_>>) -> Result<Reply, Refusal> {
    let event = &request.input;
    publish(node, request.app, std::slice::from_ref(event))?;
    if event.info.is_empty() {
        return Ok(respond::empty_object());
    }
    let channels = event.channels.iter().map(|channel| {
        let found = request.app.channel_info(channel.name());
        (&**channel, attributes(channel.name(), event.info, &found, &request.settings))
    });
    Ok(respond::json(&ChannelsReply { channels: ByName(channels.collect()) }))
}

pub fn batch(node: &Node, request: Verified<'_, Batch<'_>>) -> Result<Reply, Refusal> {
    let events = &request.input.events;
    publish(node, request.app, events)?;
    if events.iter().all(|event| event.info.is_empty()) {
        return Ok(respond::empty_object());
    }
    // As many items as were sent, in their order: Go decodes an array by position.
    let batch = events.iter().map(|event| match event.channels.first() {
        Some(channel) if !event.info.is_empty() => {
            let found = request.app.channel_info(channel.name());
            attributes(channel.name(), event.info, &found, &request.settings)
        }
        _ => Attributes::default(),
    });
    Ok(respond::json(&BatchReply { batch: batch.collect() }))
}

pub fn legacy(node: &Node, request: Verified<'_, Trigger<'_>>) -> Result<Reply, Refusal> {
    publish(node, request.app, std::slice::from_ref(&request.input))?;
    Ok(respond::accepted())
}

#[derive(serde::Serialize)]
struct ChannelsReply<'a> {
    channels: ByName<&'a str>,
}

#[derive(serde::Serialize)]
struct BatchReply {
    batch: Vec<Attributes>,
}

/// Publishes valid events in their order, if the app's rate and the workers' queues allow it.
fn publish(node: &Node, app: &App, events: &[Trigger<'_>]) -> Result<(), Refusal> {
    let count = u32::try_from(events.len()).unwrap_or(u32::MAX);
    app.take_triggers(count).map_err(over_rate)?;

    let deliveries: usize = events.iter().map(|event| event.channels.len()).sum();
    if deliveries > 1 && !node.mailboxes.iter().all(Mailbox::has_room) {
        return Err(overloaded(node, 0, deliveries));
    }
    let _hold = (deliveries > 1).then(|| Hold::new(&node.mailboxes));
    let mut sent = 0;
    for event in events {
        for channel in &event.channels {
            app.publish(channel.name(), &event.name, &event.data, event.socket_id)
                .map_err(|_| overloaded(node, sent, deliveries))?;
            sent += 1;
        }
    }
    app.metrics.triggers.inc_by(u64::from(count));
    Ok(())
}

fn over_rate(retry_after_ms: u64) -> Refusal {
    let text = "The app publishes more events than its limits.triggers_per_second allows";
    let seconds = retry_after_ms.div_ceil(MS_PER_SECOND).max(1);
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, text).with(Hint::RetryAfter(seconds))
}

/// `sent` tells a publisher whether repeating the call delivers something twice.
fn overloaded(node: &Node, sent: usize, deliveries: usize) -> Refusal {
    node.metrics.mailbox_full.inc();
    let text = format!(
        "The server is overloaded: {sent} of {deliveries} deliveries were sent, try again in a second"
    );
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text).with(Hint::RetryAfter(1))
}
