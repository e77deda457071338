//! One connection to one server: commands go out on it, answers and messages come in, in one order.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use redis::aio::{AsyncPushSender, MultiplexedConnection, SendError};
use redis::{Pipeline, PushInfo, PushKind, RedisError, Value};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::server_info::ServerInfo;
use super::topology;
use super::transport::{Answer, LinkError, Shared};
use crate::config::RedisAddress;
use crate::sync::lock;

/// How often a connection is looked at.
const TICK: Duration = Duration::from_millis(250);
/// Ticks without a sign of life after which the server is asked for one.
const IDLE_TICKS: u32 = 4;
/// What it may take to give one: a half-open connection is found so.
const PONG_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection whose server may be used.
pub struct Connection {
    multiplexed: MultiplexedConnection,
    health: Arc<Health>,
    pub address: RedisAddress,
    pub server: ServerInfo,
}

/// What the task that reads the socket tells those who use the connection.
pub struct Health {
    /// The reason why it is over, once it is.
    over: watch::Sender<Option<&'static str>>,
    /// Something came since the last look.
    was_heard: AtomicBool,
    /// Requests whose answers have not come.
    outstanding: AtomicUsize,
    /// Answers may have gone to the wrong requests.
    is_confused: AtomicBool,
    /// Sharded topics whose end was asked for.
    leaving: Mutex<HashMap<Box<[u8]>, usize>>,
}

impl Connection {
    pub fn new(
        multiplexed: MultiplexedConnection,
        health: Arc<Health>,
        address: RedisAddress,
        server: ServerInfo,
    ) -> Self {
        Self { multiplexed, health, address, server }
    }

    /// Sends the commands in one piece, on the first poll, and waits for their answers. An error of one command is among
    /// the values.
    pub async fn exchange(&self, pipeline: &Pipeline) -> Answer {
        let health = &*self.health;
        let mut multiplexed = self.multiplexed.clone();
        let mut over = health.over.subscribe();
        // Of a request that is given up the answer may still come: it stays outstanding.
        health.outstanding.fetch_add(1, Ordering::Relaxed);
        let answer = tokio::select! {
            biased;
            answer = send(&mut multiplexed, pipeline) => answer.map_err(|error| link_error(&error)),
            _ = over.wait_for(Option::is_some) => Err(LinkError::Unknown),
        };
        if health.is_confused.load(Ordering::Relaxed) {
            return Err(LinkError::Unknown);
        }
        match &answer {
            Ok(_) | Err(LinkError::Refused(_)) => {
                health.outstanding.fetch_sub(1, Ordering::Relaxed);
                health.was_heard.store(true, Ordering::Relaxed);
            }
            Err(_) => health.end("it does not answer"),
        }
        answer
    }

    /// Waits until the connection is over, and says why; meanwhile it finds out whether the server is still there.
    pub async fn over(&self) -> &'static str {
        let mut over = self.health.over.subscribe();
        tokio::select! {
            reason = over.wait_for(Option::is_some) => reason.ok().and_then(|reason| *reason).unwrap_or("closed"),
            reason = self.silent() => reason,
        }
    }

    /// Waits until the server is asked for a sign of life and gives none.
    async fn silent(&self) -> &'static str {
        let mut ping = Pipeline::new();
        ping.cmd("PING");
        let mut idle_ticks = 0;
        loop {
            sleep(TICK).await;
            if self.health.was_heard.swap(false, Ordering::Relaxed) {
                idle_ticks = 0;
                continue;
            }
            idle_ticks += 1;
            if idle_ticks < IDLE_TICKS {
                continue;
            }
            idle_ticks = 0;
            match timeout(PONG_TIMEOUT, self.exchange(&ping)).await {
                Err(_) => return "it does not answer",
                Ok(Err(_)) => return "it broke",
                // It loads its data or has lost its master: nothing can be done there.
                Ok(Ok(values)) if matches!(values.first(), Some(Value::ServerError(_))) => {
                    return "it is not ready";
                }
                Ok(Ok(_)) => {}
            }
        }
    }

    /// Whether the server still is a master, as far as it says.
    pub async fn is_master(&self) -> bool {
        let mut question = Pipeline::new();
        question.cmd("INFO").arg("replication");
        match self.exchange(&question).await.as_deref() {
            Ok([info]) => topology::text(info).is_none_or(|info| ServerInfo::parse(&info).is_master),
            _ => true,
        }
    }

    /// Whoever waits for an answer gets `Unknown`, and no message comes any more.
    pub fn close(&self, reason: &'static str) {
        self.health.end(reason);
    }

    /// The ends of sharded topics that are asked for next.
    pub fn expect_leaving(&self, topics: &[Box<[u8]>]) {
        let mut leaving = lock(&self.health.leaving);
        for topic in topics {
            *leaving.entry(topic.clone()).or_default() += 1;
        }
    }

    /// The server has refused to end these.
    pub fn expect_staying<'a>(&self, topics: impl Iterator<Item = &'a [u8]>) {
        for topic in topics {
            self.health.has_left(topic);
        }
    }
}

/// The task that reads the socket lives as long as a clone of the connection: it must not be heard after this one.
impl Drop for Connection {
    fn drop(&mut self) {
        self.health.end("closed");
    }
}

async fn send(
    multiplexed: &mut MultiplexedConnection,
    pipeline: &Pipeline,
) -> redis::RedisResult<Vec<Value>> {
    let commands = pipeline.len();
    if !pipeline.is_transaction() {
        return multiplexed.send_packed_commands(pipeline, 0, commands).await;
    }
    // MULTI and the commands are only acknowledged; the answers are those of EXEC.
    let mut answers = multiplexed.send_packed_commands(pipeline, commands + 1, 1).await?;
    match answers.pop() {
        Some(Value::Array(answers)) => Ok(answers),
        other => Ok(other.into_iter().collect()),
    }
}

fn link_error(error: &RedisError) -> LinkError {
    if error.is_timeout() {
        LinkError::Timeout
    } else if error.is_io_error() || error.is_unrecoverable_error() {
        LinkError::Unknown
    } else {
        LinkError::Refused(error.to_string().into())
    }
}

impl Health {
    fn end(&self, reason: &'static str) {
        self.over.send_if_modified(|over| {
            let is_first = over.is_none();
            over.get_or_insert(reason);
            is_first
        });
    }

    /// Whether the end of this topic was asked for.
    fn has_left(&self, topic: &[u8]) -> bool {
        let mut leaving = lock(&self.leaving);
        let Some(awaited) = leaving.get_mut(topic) else { return false };
        *awaited -= 1;
        if *awaited == 0 {
            leaving.remove(topic);
        }
        true
    }

    fn is_over(&self) -> bool {
        self.over.borrow().is_some()
    }
}

impl Default for Health {
    fn default() -> Self {
        Self {
            over: watch::Sender::new(None),
            was_heard: AtomicBool::new(true),
            outstanding: AtomicUsize::new(0),
            is_confused: AtomicBool::new(false),
            leaving: Mutex::default(),
        }
    }
}

/// Takes what comes without being asked for. Called inline by the task that reads the socket, on the fan-out's thread.
pub struct Pushes {
    pub shared: Arc<Shared>,
    pub health: Arc<Health>,
}

impl AsyncPushSender for Pushes {
    fn send(&self, push: PushInfo) -> Result<(), SendError> {
        match push.kind {
            PushKind::Message | PushKind::SMessage => self.message(push.data),
            PushKind::Disconnection => self.health.end("it broke"),
            PushKind::SUnsubscribe => self.left(push.data),
            _ => {}
        }
        Ok(())
    }
}

impl Pushes {
    fn message(&self, data: Vec<Value>) {
        let mut data = data.into_iter();
        let (Some(Value::BulkString(topic)), Some(Value::BulkString(payload))) = (data.next(), data.next())
        else {
            return;
        };
        self.health.was_heard.store(true, Ordering::Relaxed);
        let metrics = &self.shared.metrics.fanout;
        metrics.messages_received.inc();
        metrics.bytes_received.inc_by((topic.len() + payload.len()) as u64);
        if let Some(listener) = self.shared.listener.get()
            && !self.health.is_over()
        {
            listener.message(&topic, Bytes::from(payload));
        }
    }

    /// A sharded topic has ended: because we asked, or because its slot has moved. In the second case nobody waits for the
    /// news, but the client takes it for the answer to the oldest request, and from there on every request would get
    /// the answer to the one before. Such a connection is given up before anybody sees a wrong answer.
    fn left(&self, data: Vec<Value>) {
        let Some(Value::BulkString(topic)) = data.into_iter().next() else { return };
        if self.health.has_left(&topic) {
            return;
        }
        self.shared.topology_changed.notify_one();
        if self.health.outstanding.load(Ordering::Relaxed) > 0 {
            self.health.is_confused.store(true, Ordering::Relaxed);
            self.health.end("a slot has moved");
        } else if let Some(listener) = self.shared.listener.get()
            && !self.health.is_over()
        {
            listener.unsubscribed(&topic);
        }
    }
}
