//! The way to one server: what waits for it is sent in few pieces, and every answer goes to whoever asked.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use redis::{Cmd, Pipeline, ServerErrorKind, Value};
use tokio::task::{coop, spawn_local};

use super::connection::Connection;
use super::publisher::{Item, Message, SUNSUBSCRIBE, Work};
use super::topology::Places;
use super::transport::{Answer, LinkError, Shared};

/// Messages and scripts that go out in one piece; their answers are given when the last of them is there.
const BATCH_ITEMS: usize = 512;
const BATCH_BYTES: usize = 1024 * 1024;
/// Such pieces on their way at once. What comes meanwhile makes the next one larger.
const BATCHES_IN_FLIGHT: usize = 8;

/// What a server has refused for a reason that may pass, and what it is if it does not.
pub type Refused = (Item, LinkError);

/// One server, connected or not.
pub struct Link {
    shared: Arc<Shared>,
    pub places: Cell<Places>,
    connection: RefCell<Option<Rc<Connection>>>,
    /// What is not sent yet.
    staged: RefCell<Staged>,
    /// What waits longer is not sent any more.
    response_timeout: Duration,
    batches_in_flight: Cell<usize>,
    /// Takes what is to be tried again.
    retry: Box<dyn Fn(Vec<Refused>)>,
}

impl Link {
    pub fn new(
        shared: Arc<Shared>,
        places: Places,
        response_timeout: Duration,
        retry: Box<dyn Fn(Vec<Refused>)>,
    ) -> Self {
        Self {
            shared,
            places: Cell::new(places),
            connection: RefCell::default(),
            staged: RefCell::default(),
            response_timeout,
            batches_in_flight: Cell::new(0),
            retry,
        }
    }

    pub fn connection(&self) -> Option<Rc<Connection>> {
        self.connection.borrow().clone()
    }

    pub fn is_up(&self) -> bool {
        self.connection.borrow().is_some()
    }

    pub fn connect(&self, connection: Rc<Connection>) {
        *self.connection.borrow_mut() = Some(connection);
    }

    /// What is on its way ends as `Unknown`; what is not sent is given back.
    pub fn disconnect(&self, reason: &'static str) -> impl Iterator<Item = Item> + use<> {
        if let Some(connection) = self.connection.take() {
            connection.close(reason);
        }
        let Staged { urgent, rest } = self.staged.take();
        urgent.into_iter().chain(rest)
    }

    /// Puts an item in its place in the order; it goes out with the next [`Self::flush`].
    pub fn stage(&self, item: Item) {
        self.staged.borrow_mut().push_back(item);
    }

    /// Sends what waits, as far as there is room on the way.
    pub fn flush(self: &Rc<Self>) {
        let Some(connection) = self.connection() else { return };
        while let Some(piece) = self.next_piece(&connection) {
            piece.announce(&connection);
            let link = Rc::clone(self);
            let connection = Rc::clone(&connection);
            start(async move {
                let answer = connection.exchange(&piece.pipeline).await;
                link.answered(piece, answer, &connection);
            });
        }
    }

    /// What goes out together: either messages and scripts, or one call that brought its own pipeline.
    fn next_piece(&self, connection: &Connection) -> Option<Piece> {
        let mut staged = self.staged.borrow_mut();
        let mut piece = Piece::default();
        while let Some(item) = staged.pop_front() {
            if item.age() > self.response_timeout && !item.was_refused() {
                self.shared.queue.release(1, item.bytes());
                self.fail(item, LinkError::Overloaded);
                continue;
            }
            let is_alone = item.is_alone();
            let is_full = match is_alone {
                true => !piece.items.is_empty(),
                false => {
                    piece.items.len() >= BATCH_ITEMS
                        || piece.bytes >= BATCH_BYTES
                        || self.batches_in_flight.get() >= BATCHES_IN_FLIGHT
                }
            };
            if is_full {
                staged.push_front(item);
                break;
            }
            piece.push(item, &self.shared, &connection.server.identity);
            if is_alone {
                return Some(piece);
            }
        }
        if piece.items.is_empty() {
            return None;
        }
        self.batches_in_flight.set(self.batches_in_flight.get() + 1);
        piece.is_batch = true;
        Some(piece)
    }

    fn answered(self: Rc<Self>, mut piece: Piece, answer: Answer, connection: &Rc<Connection>) {
        if piece.is_batch {
            self.batches_in_flight.set(self.batches_in_flight.get() - 1);
        }
        self.shared.queue.release(piece.items.len(), piece.bytes);
        let mut again = Again::default();
        match answer {
            Ok(values) if piece.is_batch => {
                let commands = piece.pipeline.cmd_iter();
                for ((item, command), value) in piece.items.drain(..).zip(commands).zip(values) {
                    self.settle(item, command, value, connection, &mut again);
                }
            }
            answer => {
                for item in piece.items.drain(..) {
                    self.settle_alone(item, &piece.pipeline, answer.clone(), connection, &mut again);
                }
            }
        }
        self.take_back(again);
        self.flush();
    }

    /// The answer to a message or a script.
    fn settle(
        &self,
        mut item: Item,
        command: &Cmd,
        value: Value,
        connection: &Connection,
        again: &mut Again,
    ) {
        let Value::ServerError(error) = &value else {
            if let Item::Message(message) = &item {
                let metrics = &self.shared.metrics.fanout;
                metrics.messages_sent.inc();
                metrics.bytes_sent.inc_by(message.bytes() as u64);
            }
            return item.finish(Ok(vec![value]));
        };
        if let Item::Call(call) = &mut item
            && let Work::Script { command: kept, source, names_server } = &mut call.work
        {
            // Another server may get it the next time.
            *kept = if *names_server { without_last(command) } else { command.clone() };
            if error.kind() == Some(ServerErrorKind::NoScript) {
                *kept = with_source(kept, source);
                return again.unknown_scripts.push(item);
            }
        }
        if self.may_pass(error, connection) {
            again.refused.push((item, LinkError::refused(error)));
        } else {
            self.fail(item, LinkError::refused(error));
        }
    }

    /// The answers to a call with a pipeline of its own. It is tried again if nothing of it was done.
    fn settle_alone(
        &self,
        mut item: Item,
        pipeline: &Pipeline,
        answer: Answer,
        connection: &Connection,
        again: &mut Again,
    ) {
        let values = match answer {
            Ok(values) => values,
            Err(error) => return self.fail(item, error),
        };
        let errors = || {
            values.iter().filter_map(|value| match value {
                Value::ServerError(error) => Some(error),
                _ => None,
            })
        };
        let Some(first) = errors().next() else { return item.finish(Ok(values)) };
        let passes = errors().filter(|error| self.may_pass(error, connection)).count();
        let error = LinkError::refused(first);
        let Item::Call(call) = &mut item else { return };
        match &mut call.work {
            // Tried again, it might end the next subscription. Where the slot is not any more, this one has ended.
            Work::Topics { command: SUNSUBSCRIBE, topics } => {
                let refused = topics.iter().zip(&values);
                let refused = refused.filter(|(_, value)| matches!(value, Value::ServerError(_)));
                connection.expect_staying(refused.map(|(topic, _)| &**topic));
                self.fail(item, error);
            }
            // Subscribing twice does no harm.
            Work::Topics { .. } if passes > 0 => again.refused.push((item, error)),
            Work::Topics { .. } => self.fail(item, error),
            Work::Pipeline(kept) if passes == values.len() => {
                *kept = pipeline.clone();
                again.refused.push((item, error));
            }
            _ => item.finish(Ok(values)),
        }
    }

    fn fail(&self, item: Item, error: LinkError) {
        self.shared.metrics.fanout.count_error(error.kind());
        item.finish(Err(error));
    }

    /// Whether the server did nothing and another one, or this one later, will. `ASK` is not followed: while a slot is
    /// on its way, the other server refuses as well where one of several keys is missing, and with most scripts one is.
    fn may_pass(&self, error: &redis::ServerError, connection: &Connection) -> bool {
        use ServerErrorKind::{Ask, BusyLoading, ClusterDown, MasterDown, Moved, ReadOnly, TryAgain};
        match error.kind() {
            Some(Moved | Ask | TryAgain | ClusterDown) => self.shared.topology_changed.notify_one(),
            Some(ReadOnly | BusyLoading | MasterDown) => {
                self.shared.topology_changed.notify_one();
                connection.close("it is not a master any more");
            }
            _ => return false,
        }
        true
    }

    fn take_back(&self, again: Again) {
        for item in again.unknown_scripts.into_iter().rev() {
            if !self.is_up() {
                self.fail(item, LinkError::Down);
                continue;
            }
            self.shared.queue.retain(1, item.bytes());
            self.staged.borrow_mut().push_front(item);
        }
        if !again.refused.is_empty() {
            for (item, _) in &again.refused {
                self.shared.queue.retain(1, item.bytes());
            }
            (self.retry)(again.refused);
        }
    }
}

/// What is not sent yet, in two orders.
#[derive(Default)]
struct Staged {
    /// What keeps the nodes in step.
    urgent: VecDeque<Item>,
    rest: VecDeque<Item>,
}

impl Staged {
    fn of(&mut self, item: &Item) -> &mut VecDeque<Item> {
        if item.is_urgent() { &mut self.urgent } else { &mut self.rest }
    }

    fn push_back(&mut self, item: Item) {
        self.of(&item).push_back(item);
    }

    fn push_front(&mut self, item: Item) {
        self.of(&item).push_front(item);
    }

    fn pop_front(&mut self) -> Option<Item> {
        self.urgent.pop_front().or_else(|| self.rest.pop_front())
    }
}

/// Commands that are sent together, and who waits for their answers.
#[derive(Default)]
struct Piece {
    items: Vec<Item>,
    pipeline: Pipeline,
    bytes: usize,
    /// One command for each item.
    is_batch: bool,
}

/// What an answer leaves to be done.
#[derive(Default)]
struct Again {
    unknown_scripts: Vec<Item>,
    refused: Vec<Refused>,
}

impl Piece {
    fn push(&mut self, mut item: Item, shared: &Shared, server: &str) {
        self.bytes += item.bytes();
        match &mut item {
            Item::Message(message) => {
                let name = if shared.has_sharded_topics { "SPUBLISH" } else { "PUBLISH" };
                self.pipeline.add_command(publish(name, message));
            }
            Item::Call(call) => match &mut call.work {
                Work::Script { command, names_server, .. } => {
                    if *names_server {
                        command.arg(server);
                    }
                    self.pipeline.add_command(std::mem::take(command));
                }
                Work::Pipeline(pipeline) => self.pipeline = std::mem::take(pipeline),
                Work::Topics { command, topics } => {
                    for topic in topics.iter() {
                        self.pipeline.cmd(command).arg(&**topic);
                    }
                }
            },
        }
        self.items.push(item);
    }

    /// Says what the connection will hear without an error.
    fn announce(&self, connection: &Connection) {
        if let [Item::Call(call)] = &*self.items
            && let Work::Topics { command: SUNSUBSCRIBE, topics } = &call.work
        {
            connection.expect_leaving(topics);
        }
    }
}

impl Item {
    /// Whether its answers are not one value.
    fn is_alone(&self) -> bool {
        matches!(self, Self::Call(call) if !matches!(call.work, Work::Script { .. }))
    }
}

fn publish(name: &str, message: &Message) -> Cmd {
    let mut command = Cmd::with_capacity(3, name.len() + message.bytes());
    command.arg(name).arg(&message.topic[..]).arg(&message.payload[..]);
    command
}

/// The same call without its last argument.
fn without_last(command: &Cmd) -> Cmd {
    let mut without = Cmd::new();
    for arg in command.args_iter().take(command.args_iter().count() - 1) {
        if let redis::Arg::Simple(bytes) = arg {
            without.arg(bytes);
        }
    }
    without
}

/// The same call with the script's text instead of its hash, which also makes it known.
fn with_source(command: &Cmd, source: &str) -> Cmd {
    let mut with_source = Cmd::new();
    with_source.arg("EVAL").arg(source);
    for arg in command.args_iter().skip(2) {
        if let redis::Arg::Simple(bytes) = arg {
            with_source.arg(bytes);
        }
    }
    with_source
}

/// Polls once at once, so that what is sent goes out in the order of the calls; the rest is left to a task.
fn start(future: impl Future<Output = ()> + 'static) {
    // The budget of the task that sends must not hold back one piece and let the next one pass.
    let mut future: Pin<Box<dyn Future<Output = ()>>> = Box::pin(coop::unconstrained(future));
    if future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
        spawn_local(future);
    }
}
