//! What waits for Redis: a bounded queue with one wake-up per batch.

use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::scripts::Script;
use super::transport::{Answer, LinkError, Place, PublishDone};
use crate::sync::lock;

/// Messages and calls that may wait for their answers, those on their way included.
pub const MAX_ITEMS: usize = 65_536;
/// Bytes of them.
pub const MAX_BYTES: usize = 64 * 1024 * 1024;
/// Beyond that there is room for what keeps the nodes in step: a node that publishes too much is not dead.
const URGENT_ITEMS: usize = MAX_ITEMS / 4;
const URGENT_BYTES: usize = MAX_BYTES / 4;

pub const SUNSUBSCRIBE: &str = "SUNSUBSCRIBE";

/// One thing to be done by the server of a place.
pub enum Item {
    Message(Message),
    Call(Box<Call>),
}

/// A message for a topic.
pub struct Message {
    pub place: Place,
    pub topic: Bytes,
    pub payload: Bytes,
    pub done: Option<PublishDone>,
    pub queued: Instant,
    /// Set when a server has refused it for a reason that may pass: until then it is tried again.
    pub deadline: Option<Instant>,
}

/// Commands whose answers somebody waits for.
pub struct Call {
    pub place: Place,
    pub work: Work,
    pub answer: oneshot::Sender<Answer>,
    /// It keeps the nodes in step, and goes before events.
    pub is_urgent: bool,
    queued: Instant,
    /// As of a [`Message`].
    pub deadline: Option<Instant>,
    bytes: usize,
}

/// What a call does.
pub enum Work {
    Pipeline(redis::Pipeline),
    /// `EVALSHA`, and the text for a server that does not know the script.
    Script {
        command: redis::Cmd,
        source: &'static str,
        /// The identity of the server that gets it is added as the last argument.
        names_server: bool,
    },
    /// Subscribes or unsubscribes: one command each, so that every command has exactly one answer.
    Topics {
        command: &'static str,
        topics: Box<[Box<[u8]>]>,
    },
}

/// Filled by any thread, emptied by the fan-out's.
#[derive(Default)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Default)]
struct Waiting {
    items: Vec<Item>,
    /// Of the items here and of those that were taken and are not finished.
    count: usize,
    bytes: usize,
    is_closed: bool,
}

impl Queue {
    /// Whoever waits for an item that is refused hears nothing of it.
    pub fn push(&self, item: Item) -> Result<(), LinkError> {
        let bytes = item.bytes();
        let refused = {
            let (items, bytes_left) = match item.is_urgent() {
                true => (MAX_ITEMS + URGENT_ITEMS, MAX_BYTES + URGENT_BYTES),
                false => (MAX_ITEMS, MAX_BYTES),
            };
            let mut waiting = lock(&self.waiting);
            if waiting.is_closed {
                LinkError::Down
            } else if waiting.count >= items || waiting.bytes >= bytes_left {
                LinkError::Overloaded
            } else {
                waiting.count += 1;
                waiting.bytes += bytes;
                waiting.items.push(item);
                let is_first = waiting.items.len() == 1;
                drop(waiting);
                if is_first {
                    self.filled.notify_one();
                }
                return Ok(());
            }
        };
        item.forget();
        Err(refused)
    }

    /// Waits until there is something to take.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Swaps what waits with `items`, which is empty and lends its room.
    pub fn take(&self, items: &mut Vec<Item>) {
        std::mem::swap(items, &mut lock(&self.waiting).items);
    }

    /// These items are finished and make room for others.
    pub fn release(&self, count: usize, bytes: usize) {
        let mut waiting = lock(&self.waiting);
        waiting.count = waiting.count.saturating_sub(count);
        waiting.bytes = waiting.bytes.saturating_sub(bytes);
    }

    /// Items that were released are not finished after all.
    pub fn retain(&self, count: usize, bytes: usize) {
        let mut waiting = lock(&self.waiting);
        waiting.count += count;
        waiting.bytes += bytes;
    }

    /// Nobody will take anything again.
    pub fn close(&self) -> Vec<Item> {
        let mut waiting = lock(&self.waiting);
        waiting.is_closed = true;
        std::mem::take(&mut waiting.items)
    }
}

impl Call {
    pub fn pipeline(place: Place, pipeline: redis::Pipeline, answer: oneshot::Sender<Answer>) -> Self {
        let bytes = pipeline.cmd_iter().map(command_bytes).sum();
        Self::new(place, Work::Pipeline(pipeline), answer, bytes)
    }

    fn new(place: Place, work: Work, answer: oneshot::Sender<Answer>, bytes: usize) -> Self {
        Self { place, work, answer, is_urgent: false, queued: Instant::now(), deadline: None, bytes }
    }

    pub fn script(
        place: Place,
        script: &Script,
        keys: &[&[u8]],
        args: &[&[u8]],
        answer: oneshot::Sender<Answer>,
    ) -> Self {
        let bytes: usize = keys.iter().chain(args).map(|arg| arg.len()).sum();
        let mut command = redis::Cmd::with_capacity(3 + keys.len() + args.len(), bytes + 64);
        command.arg("EVALSHA").arg(script.sha1()).arg(keys.len());
        for arg in keys.iter().chain(args) {
            command.arg(*arg);
        }
        let work = Work::Script { command, source: script.source(), names_server: false };
        Self::new(place, work, answer, bytes)
    }

    pub fn urgent(self) -> Self {
        Self { is_urgent: true, ..self }
    }

    /// With the identity of the server that gets it as the last argument.
    pub fn naming_server(mut self) -> Self {
        if let Work::Script { names_server, .. } = &mut self.work {
            *names_server = true;
        }
        self
    }

    pub fn topics(
        place: Place,
        command: &'static str,
        topics: &[Box<[u8]>],
        answer: oneshot::Sender<Answer>,
    ) -> Self {
        let bytes = topics.iter().map(|topic| topic.len()).sum();
        Self::new(place, Work::Topics { command, topics: topics.into() }, answer, bytes).urgent()
    }
}

impl Message {
    pub fn bytes(&self) -> usize {
        self.topic.len() + self.payload.len()
    }
}

/// Whoever waits hears of the end, however it comes.
impl Drop for Message {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            done(Err(LinkError::Unknown));
        }
    }
}

impl Item {
    pub fn place(&self) -> Place {
        match self {
            Self::Message(message) => message.place,
            Self::Call(call) => call.place,
        }
    }

    /// What it counts against [`MAX_BYTES`].
    pub fn bytes(&self) -> usize {
        match self {
            Self::Message(message) => message.bytes(),
            Self::Call(call) => call.bytes,
        }
    }

    pub fn is_urgent(&self) -> bool {
        matches!(self, Self::Call(call) if call.is_urgent)
    }

    /// How long it has been waiting.
    pub fn age(&self) -> Duration {
        match self {
            Self::Message(message) => message.queued.elapsed(),
            Self::Call(call) => call.queued.elapsed(),
        }
    }

    /// It is over: whoever waits is told.
    pub fn finish(self, answer: Answer) {
        match self {
            Self::Message(mut message) => {
                if let Some(done) = message.done.take() {
                    done(answer.map(drop));
                }
            }
            Self::Call(call) => drop(call.answer.send(answer)),
        }
    }

    /// Whether a server has refused it for a reason that may pass.
    pub fn was_refused(&self) -> bool {
        match self {
            Self::Message(message) => message.deadline.is_some(),
            Self::Call(call) => call.deadline.is_some(),
        }
    }

    /// Whoever waits hears nothing.
    pub fn forget(self) {
        if let Self::Message(mut message) = self {
            message.done = None;
        }
    }

    /// Until when it may be tried again, once a server has refused it for a reason that may pass.
    pub fn deadline(&mut self, response_timeout: Duration) -> Instant {
        let deadline = match self {
            Self::Message(message) => &mut message.deadline,
            Self::Call(call) => &mut call.deadline,
        };
        *deadline.get_or_insert_with(|| Instant::now() + response_timeout)
    }
}

fn command_bytes(command: &redis::Cmd) -> usize {
    command.args_iter().map(|arg| if let redis::Arg::Simple(bytes) = arg { bytes.len() } else { 20 }).sum()
}
