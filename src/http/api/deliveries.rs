//! What one publish request delivers: queued in its order, then awaited together.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};
use tidewire_protocol::channel_name::ENCRYPTED_CHANNEL_PREFIX;
use tidewire_protocol::http_api::Trigger;
use tidewire_protocol::position::Position;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{link_error, store_error};
use crate::app::{App, PublishError, Published, Receipt};
use crate::fanout::cluster::{LinkError, Once, Sending};
use crate::http::respond::{Hint, Refusal, Reply};
use crate::node::Node;
use crate::replay::keys::IDEMPOTENCY_WINDOW_MS;
use crate::replay::store::StoreError;
use crate::worker::mailbox::{Hold, Mailbox};

/// Tells that what a request asks for had been done by an earlier one: `true` for all of it, `partial` for some.
const DEDUPLICATED: HeaderName = HeaderName::from_static("tidewire-deduplicated");
/// How long a publisher waits for the store.
const STORE_DEADLINE: Duration = Duration::from_secs(10);
const NO_ANSWER: &str = "the store does not answer, and what it was given may be kept or not: try again with the same idempotency_key";
/// Milliseconds are told as whole seconds in `Retry-After`.
const MS_PER_SECOND: u64 = 1_000;

/// Deliveries that succeeded. Of those that have neither position nor key nothing is noted: most requests allocate
/// nothing here.
#[derive(Debug, Default)]
pub struct Kept {
    count: usize,
    /// Those that an earlier request had made.
    repeats: usize,
    /// By the delivery's number in the request, for those that asked, in ascending order.
    positions: Vec<(usize, Position)>,
}

impl Kept {
    /// Where delivery `number` stands in its channel's log.
    pub fn position(&self, number: usize) -> Option<Position> {
        let index = self.positions.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some(self.positions[index].1)
    }

    /// Says in a header what was a repetition.
    pub fn mark(&self, mut reply: Reply) -> Reply {
        if self.repeats > 0 {
            let extent = if self.repeats == self.count { "true" } else { "partial" };
            reply.headers_mut().insert(DEDUPLICATED, HeaderValue::from_static(extent));
        }
        reply
    }
}

/// Publishes valid events in their order, if the app's rate and the server's queues allow it, and returns when all
/// of them are kept. `key` is of the request, for events that have none.
pub async fn publish(
    node: &Node,
    app: &App,
    events: &[Trigger<'_>],
    key: Option<&str>,
) -> Result<Kept, Refusal> {
    let count = u32::try_from(events.len()).unwrap_or(u32::MAX);
    app.take_triggers(count).map_err(over_rate)?;
    if let Some(channel) = conflict(app, events, key).await {
        return Err(Failure::Conflict(channel.into()).refusal(node, 0, deliveries_of(events)));
    }
    let mut sent = send(node, app, events, key)?;
    if !sent.pending.is_empty() {
        sent.settle().await;
    }
    if let Some(failure) = sent.failure {
        return Err(failure.refusal(node, sent.kept.count, sent.total));
    }
    app.metrics.triggers.inc_by(events.len() as u64);
    Ok(sent.kept)
}

/// A delivery on its way through the log.
struct Pending {
    number: usize,
    channel: Box<str>,
    wants_position: bool,
    published: Awaited,
}

/// Where it is on its way.
enum Awaited {
    Log(oneshot::Receiver<Result<Published, StoreError>>),
    Cluster(Sending),
}

#[derive(Default)]
struct Sent {
    total: usize,
    kept: Kept,
    pending: Vec<Pending>,
    /// Why the rest was not sent, or not kept.
    failure: Option<Failure>,
}

/// One synchronous turn: workers are woken when all is queued.
fn send(node: &Node, app: &App, events: &[Trigger<'_>], key: Option<&str>) -> Result<Sent, Refusal> {
    let mut sent = Sent { total: deliveries_of(events), ..Sent::default() };
    if sent.total > 1 && !node.mailboxes.iter().all(Mailbox::has_room) {
        return Err(Failure::Overloaded.refusal(node, 0, sent.total));
    }
    let _hold = (sent.total > 1).then(|| Hold::new(&node.mailboxes));
    let mut number = 0;
    for event in events {
        let key = key_of(event, key);
        for channel in &event.channels {
            let receipt = app.publish(channel.name(), &event.name, &event.data, event.socket_id, key);
            match receipt {
                Ok(Receipt::Delivered) => sent.kept.count += 1,
                Ok(Receipt::Repeat) => {
                    sent.kept.count += 1;
                    sent.kept.repeats += 1;
                }
                Ok(Receipt::Pending(published)) => {
                    sent.wait(number, channel, event.info.position, Awaited::Log(published));
                }
                Ok(Receipt::Sending(sending)) => sent.wait(number, channel, false, Awaited::Cluster(sending)),
                Err(error) => {
                    sent.failure = Some(Failure::of(error, channel));
                    return Ok(sent);
                }
            }
            number += 1;
        }
    }
    Ok(sent)
}

fn deliveries_of(events: &[Trigger<'_>]) -> usize {
    events.iter().map(|event| event.channels.len()).sum()
}

impl Sent {
    fn wait(&mut self, number: usize, channel: &str, wants_position: bool, published: Awaited) {
        self.pending.push(Pending { number, channel: channel.into(), wants_position, published });
    }

    /// Waits for what is pending. It was queued in order, so it is done in order.
    async fn settle(&mut self) {
        let deadline = Instant::now() + STORE_DEADLINE;
        for Pending { number, channel, wants_position, published } in std::mem::take(&mut self.pending) {
            let published = match published {
                Awaited::Log(published) => published,
                Awaited::Cluster(sending) => {
                    self.note_sending(sending.await, channel);
                    continue;
                }
            };
            let Ok(published) = tokio::time::timeout_at(deadline, published).await else {
                self.fail(Failure::Store(StoreError::Unavailable(NO_ANSWER.to_owned())));
                return;
            };
            let position = match published {
                Ok(Ok(Published::Live)) => None,
                Ok(Ok(Published::Stored(position))) => Some(position),
                Ok(Ok(Published::Repeat(position))) => {
                    self.kept.repeats += 1;
                    Some(position)
                }
                Ok(Ok(Published::Conflict)) => {
                    self.fail(Failure::Conflict(channel));
                    continue;
                }
                Ok(Err(error)) => {
                    self.fail(Failure::Store(error));
                    continue;
                }
                Err(_) => {
                    self.fail(Failure::Store(StoreError::Unavailable("the server stops".to_owned())));
                    continue;
                }
            };
            self.kept.count += 1;
            if let Some(position) = position.filter(|_| wants_position) {
                self.kept.positions.push((number, position));
            }
        }
    }

    /// It has a deadline of its own.
    fn note_sending(&mut self, sent: Result<Once, LinkError>, channel: Box<str>) {
        match sent {
            Ok(Once::Conflict) => return self.fail(Failure::Conflict(channel)),
            Err(error) => return self.fail(Failure::Link(error)),
            Ok(Once::Repeat) => self.kept.repeats += 1,
            Ok(Once::Published) => {}
        }
        self.kept.count += 1;
    }

    /// A conflict outweighs the rest: sending the same again would not help.
    fn fail(&mut self, failure: Failure) {
        if self.failure.is_none() || matches!(failure, Failure::Conflict(_)) {
            self.failure = Some(failure);
        }
    }
}

fn key_of<'a>(event: &'a Trigger<'_>, of_request: Option<&'a str>) -> Option<&'a str> {
    event.idempotency_key.as_deref().or(of_request)
}

/// The first channel for which a key was used before with another event: then nothing of the request is published.
/// What others publish meanwhile is found out when it is kept.
async fn conflict<'a>(app: &App, events: &'a [Trigger<'_>], key: Option<&'a str>) -> Option<&'a str> {
    if deliveries_of(events) <= 1 {
        // Publishing it finds out.
        return None;
    }
    let mut seen: HashMap<(&str, &str), &Trigger<'_>> = HashMap::new();
    for event in events {
        let Some(key) = key_of(event, key) else { continue };
        for channel in &event.channels {
            let other = seen.insert((&**channel, key), event);
            let differs = other.is_some_and(|other| !is_same(channel, other, event));
            let conflicts = app.key_conflicts(channel.name(), &event.name, &event.data, event.socket_id, key);
            if differs || conflicts.await {
                return Some(channel);
            }
        }
    }
    None
}

/// As [`Keys`](crate::replay::keys::Keys) tells events apart: whether encrypted data is the same nobody can see.
fn is_same(channel: &str, one: &Trigger<'_>, other: &Trigger<'_>) -> bool {
    let has_same_data = one.data == other.data || channel.starts_with(ENCRYPTED_CHANNEL_PREFIX);
    one.name == other.name && has_same_data && one.socket_id == other.socket_id
}

/// Why a delivery was not made.
#[derive(Debug)]
enum Failure {
    Overloaded,
    /// On this channel.
    Conflict(Box<str>),
    Store(StoreError),
    Link(LinkError),
}

impl Failure {
    fn of(error: PublishError, channel: &str) -> Self {
        match error {
            PublishError::Overloaded => Self::Overloaded,
            PublishError::Conflict => Self::Conflict(channel.into()),
            PublishError::Unreachable => Self::Link(LinkError::Down),
        }
    }

    /// `kept` tells a publisher whether repeating the call delivers something twice.
    fn refusal(self, node: &Node, kept: usize, total: usize) -> Refusal {
        match self {
            Self::Overloaded => {
                node.metrics.mailbox_full.inc();
                let text = format!(
                    "The server is overloaded: {kept} of {total} deliveries were sent, try again in a second"
                );
                Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text).with(Hint::RetryAfter(1))
            }
            Self::Conflict(channel) => {
                let seconds = IDEMPOTENCY_WINDOW_MS / MS_PER_SECOND;
                let text = format!(
                    "The idempotency_key was used for another event on channel '{channel}' within the last \
                     {seconds} s: {}. A new event needs a new key, a repeated one the same name, data and socket_id",
                    Extent { kept, total }
                );
                Refusal::new(StatusCode::CONFLICT, text)
            }
            Self::Store(error) => store_error::refusal(&error, &Extent { kept, total }.to_string()),
            Self::Link(error) => link_error::refusal(&error, &Extent { kept, total }.to_string()),
        }
    }
}

/// How much of a request that failed was done.
#[derive(Clone, Copy, Debug)]
struct Extent {
    kept: usize,
    total: usize,
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self { kept: 0, .. } => f.write_str("nothing was published"),
            Self { kept, total } => write!(
                f,
                "{kept} of {total} deliveries were made, which the same idempotency_key keeps from being made again"
            ),
        }
    }
}

fn over_rate(retry_after_ms: u64) -> Refusal {
    let text = "The app publishes more events than its limits.triggers_per_second allows";
    let seconds = retry_after_ms.div_ceil(MS_PER_SECOND).max(1);
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, text).with(Hint::RetryAfter(seconds))
}
