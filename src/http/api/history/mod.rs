//! What is kept of a channel: its history in pages, where its log stands, and its end.

mod gone;
mod page;
mod state;

use std::sync::Arc;

use hyper::StatusCode;
use serde::Serialize;
use tidewire_protocol::history::{HistoryQuery, position_parameter};
use tidewire_protocol::position::Position;
use tidewire_protocol::replay::Reason;
use tokio::sync::oneshot;

use self::gone::Gone;
use self::state::State;
use super::read::channel_name;
use super::store_error;
use super::verify::{Verified, bad_request};
use crate::fanout::cluster::Cluster;
use crate::http::respond::{self, Refusal, Reply};
use crate::hub::Directory;
use crate::replay::Replay;
use crate::replay::store::{Retention, Store, StoreError, StreamName};

/// A page of what is kept.
pub async fn read(request: Verified<'_>, channel: &str) -> Result<Reply, Refusal> {
    let query = HistoryQuery::parse(request.query).map_err(bad_request)?;
    let Some(log) = Log::of(request, channel)? else { return Ok(disabled(channel)) };
    let page = log.read(move |log| page::compose(log.store, log.stream, &query, log.retention, log.now_ms));
    Ok(match page.await? {
        Ok(page) => respond::json_text(page),
        Err(gone) => respond::json_with(StatusCode::GONE, &gone),
    })
}

/// Where the log stands.
pub async fn state(request: Verified<'_>, channel: &str) -> Result<Reply, Refusal> {
    let Some(log) = Log::of(request, channel)? else { return Ok(disabled(channel)) };
    let state = log.read(|log| State::read(log.store, log.stream, log.retention, log.now_ms)).await?;
    Ok(respond::json(&state))
}

/// Forgets what is before a position, or everything that was published before this call. Answers the state.
pub async fn purge(request: Verified<'_>, channel: &str) -> Result<Reply, Refusal> {
    let before = position_parameter(request.query, "before").map_err(bad_request)?;
    let Some(log) = Log::of(request, channel)? else { return Ok(disabled(channel)) };
    let before = match before {
        Some(before) => match log.read(move |log| log.serial_of(before)).await? {
            Ok(serial) => serial,
            Err(gone) => return Ok(respond::json_with(StatusCode::GONE, &gone)),
        },
        None => log.head().await? + 1,
    };
    log.purge(before).await?;
    let state = log.read(|log| State::read(log.store, log.stream, log.retention, log.now_ms)).await?;
    Ok(respond::json(&state))
}

/// One channel's log, for whom its rule lets read it.
struct Log {
    replay: Arc<Replay>,
    stream: Arc<StreamName>,
    retention: Retention,
    /// Where its newest messages are kept for those who come back, too.
    channels: Arc<Directory>,
    /// The other nodes, which keep them as well.
    cluster: Option<Arc<Cluster>>,
    /// Milliseconds of the server's clock.
    now_ms: u64,
}

impl Log {
    /// `None` when no rule keeps the channel's messages.
    fn of(request: Verified<'_>, channel: &str) -> Result<Option<Self>, Refusal> {
        let channel = channel_name(&request, channel)?.as_str();
        let Some(rule) = request.settings.replay.rule(channel) else { return Ok(None) };
        let replay = request.app.replay.get().ok_or_else(|| {
            let error = StoreError::Unavailable("it is not open".to_owned());
            store_error::refusal(&error, "nothing was read")
        })?;
        Ok(Some(Self {
            replay: Arc::clone(replay),
            stream: Arc::new(StreamName { app: request.app.id.clone(), channel: channel.into() }),
            retention: rule.retention(),
            channels: Arc::clone(&request.app.channels),
            cluster: request.app.cluster.clone(),
            now_ms: request.app.now_ms(),
        }))
    }

    /// Answers a question on a thread that may wait for the disk.
    async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(Reading<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let (sender, answer) = oneshot::channel();
        let (stream, retention) = (Arc::clone(&self.stream), self.retention);
        let job = move |store: &dyn Store, now_ms| {
            let reading = Reading { store, stream: &stream, retention: &retention, now_ms };
            // Whoever asked may have hung up.
            let _ = sender.send(question(reading));
        };
        self.replay.read(Box::new(job)).map_err(|_| store_error::busy())?;
        answered(answer.await, "nothing was read")
    }

    async fn head(&self) -> Result<u64, Refusal> {
        let head = self.replay.head(Arc::clone(&self.stream)).await;
        Ok(head.map_err(|error| store_error::refusal(&error, "nothing was purged"))?.serial)
    }

    async fn purge(&self, before: u64) -> Result<(), Refusal> {
        let (sender, answer) = oneshot::channel();
        let cluster = self.cluster.clone();
        let (channels, stream, now_ms) = (Arc::clone(&self.channels), Arc::clone(&self.stream), self.now_ms);
        // Whoever asked may hang up: what is in memory goes all the same, and before anything later is delivered.
        let done = move |outcome: Result<(), StoreError>| {
            if outcome.is_ok() {
                channels.forget_before(&stream.channel, before, now_ms);
                if let Some(cluster) = cluster {
                    cluster.tell_purged(&stream.app, &stream.channel, before);
                }
            }
            let _ = sender.send(outcome);
        };
        self.replay
            .purge(Arc::clone(&self.stream), before, Box::new(done))
            .map_err(|_| store_error::busy())?;
        answered(answer.await, "nothing was purged")
    }
}

/// The store for the time of one question.
struct Reading<'s> {
    store: &'s dyn Store,
    stream: &'s StreamName,
    retention: &'s Retention,
    now_ms: u64,
}

impl Reading<'_> {
    /// The serial of a position of this log. That it was trimmed is no reason to refuse a purge.
    fn serial_of(&self, position: Position) -> Result<Result<u64, Gone>, StoreError> {
        let bounds = self.store.bounds(self.stream, self.retention, self.now_ms)?;
        Ok(match bounds.resolve(position, u64::MAX) {
            Ok(()) | Err(Reason::Expired) => Ok(position.serial),
            Err(reason) => Err(Gone::new(&self.stream.channel, reason, &bounds)),
        })
    }
}

fn answered<T>(
    answer: Result<Result<T, StoreError>, oneshot::error::RecvError>,
    extent: &str,
) -> Result<T, Refusal> {
    let stops = |_| Err(StoreError::Unavailable("the server stops".to_owned()));
    answer.unwrap_or_else(stops).map_err(|error| store_error::refusal(&error, extent))
}

#[derive(Serialize)]
struct Disabled<'a> {
    error: &'static str,
    channel: &'a str,
    message: &'static str,
}

fn disabled(channel: &str) -> Reply {
    let message = "No rule of the app keeps this channel's messages: add one to replay.rules of the app";
    let body = Disabled { error: "replay_disabled", channel, message };
    respond::json_with(StatusCode::NOT_FOUND, &body)
}
