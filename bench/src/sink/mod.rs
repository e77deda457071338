//! The receiver: a process that holds thousands of connections, counts what they get and checks it.
//!
//! It is one thread with one epoll and one read buffer, so that it takes as little as possible from the processor
//! the server needs too, and a process of its own so that nothing of it is counted as the server's.

mod connection;
mod tally;
mod task;

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mio::{Events, Interest, Poll, Token, Waker};

use crate::child::print_line;
use crate::control::{Dialect, Expected, Open, Rosters, SinkCommand, SinkReply};
use connection::{Connection, Stage};
use tally::Tally;
use task::{Chatting, Task};

/// Open files of a process are limited to 20,000 on many machines.
pub const MAX_CONNECTIONS: usize = 19_000;
/// Larger than anything one socket holds in the benchmarks: a short read says that it is empty.
const BUFFER_BYTES: usize = 1 << 20;
const ORDERS: Token = Token(usize::MAX);
/// How long frames that should not exist get to arrive before the count is compared.
const GRACE: Duration = Duration::from_millis(50);
const OPEN_DEADLINE: Duration = Duration::from_secs(120);
const CHATTER_DEADLINE: Duration = Duration::from_secs(120);
const CLOSE_DEADLINE: Duration = Duration::from_secs(10);

pub struct Sink {
    poll: Poll,
    orders: Receiver<SinkCommand>,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
    tally: Tally,
    task: Task,
    open: Option<Open>,
    /// What `Chatter` should have delivered to each connection.
    chattered: Vec<u64>,
}

/// The life of the sink process: until its stdin ends, or something is wrong with what it received.
pub fn run() -> Result<()> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), ORDERS)?);
    let (sender, orders) = channel();
    // The waker outlives the thread: one that is dropped takes its last call with it.
    let wake_up = Arc::clone(&waker);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let Ok(order) = serde_json::from_str(&line) else { break };
            if sender.send(order).is_err() {
                break;
            }
            // The main thread owns the poll: it cannot be gone while this one runs.
            let _ = wake_up.wake();
        }
        drop(sender);
        let _ = wake_up.wake();
    });
    let mut sink = Sink {
        poll,
        orders,
        connections: Vec::new(),
        buffer: vec![0; BUFFER_BYTES],
        tally: Tally::default(),
        task: Task::Idle,
        open: None,
        chattered: Vec::new(),
    };
    let served = sink.serve();
    drop(waker);
    if let Err(error) = served {
        print_line(&SinkReply::Failed(format!("{error:#}")))?;
        // The suite reports what failed; a trace here would only be seen twice.
        std::io::stderr().flush()?;
        std::process::exit(1);
    }
    Ok(())
}

impl Sink {
    fn serve(&mut self) -> Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            match self.poll.poll(&mut events, self.task.patience()) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                if event.token() != ORDERS {
                    self.ready(event.token().0)?;
                }
            }
            self.advance()?;
            while matches!(self.task, Task::Idle) {
                match self.orders.try_recv() {
                    Ok(order) => self.begin(order)?,
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
                self.advance()?;
            }
        }
    }

    fn ready(&mut self, index: usize) -> Result<()> {
        let (Some(connection), Some(open)) = (self.connections.get_mut(index), &self.open) else {
            return Ok(());
        };
        let before = connection.stage;
        connection
            .ready(&open.dialect, &mut self.buffer, &mut self.tally)
            .with_context(|| format!("connection {index}"))?;
        let after = connection.stage;
        if before != after {
            match (&mut self.task, after) {
                (Task::Opening { ready, .. }, Stage::Ready) => *ready += 1,
                (Task::Closing { left, .. }, Stage::Closed) => *left -= 1,
                _ => {}
            }
        }
        Ok(())
    }

    fn begin(&mut self, order: SinkCommand) -> Result<()> {
        let now = Instant::now();
        self.task = match order {
            SinkCommand::Open(open) => {
                self.tally = Tally::new(open.ordered);
                self.open = Some(open);
                Task::Opening { ready: 0, since: now, deadline: now + OPEN_DEADLINE }
            }
            SinkCommand::Await { events, timeout_ms } => {
                Task::Awaiting { events, deadline: now + Duration::from_millis(timeout_ms) }
            }
            SinkCommand::AwaitMembers { members, timeout_ms } => {
                Task::AwaitingMembers { members, deadline: now + Duration::from_millis(timeout_ms) }
            }
            SinkCommand::Rosters => return print_line(&SinkReply::Rosters(self.rosters()?)),
            SinkCommand::Verify(expected) => Task::Verifying { expected, at: now + GRACE },
            SinkCommand::Chatter(chatter) => {
                let prefix = match self.open.as_ref().map(|open| &open.dialect) {
                    Some(Dialect::Pusher { prefix, .. }) => prefix.clone(),
                    _ => anyhow::bail!("client events need subscribed connections"),
                };
                self.chattered = vec![0; self.connections.len()];
                let chatting = Chatting::new(chatter, &prefix, &self.connections, self.tally.events);
                Task::Chatting { chatting, deadline: now + CHATTER_DEADLINE }
            }
            SinkCommand::StartTiming => {
                self.tally.start_timing()?;
                return print_line(&SinkReply::Timing);
            }
            SinkCommand::StopTiming => return print_line(&SinkReply::Latency(self.tally.stop_timing())),
            SinkCommand::Close => self.begin_close()?,
        };
        Ok(())
    }

    /// Every other connection says goodbye as browsers do, the rest just go, as phones do.
    fn begin_close(&mut self) -> Result<Task> {
        let polite = matches!(self.open.as_ref().map(|open| &open.dialect), Some(Dialect::Pusher { .. }));
        let mut left = 0;
        for (index, connection) in self.connections.iter_mut().enumerate() {
            if polite && index % 2 == 0 {
                connection.send_close()?;
                left += 1;
            } else {
                connection.stage = Stage::Closed;
                connection.stream.shutdown(std::net::Shutdown::Both).context("closing")?;
            }
        }
        Ok(Task::Closing { left, deadline: Instant::now() + CLOSE_DEADLINE })
    }

    fn open_more(&mut self, ready: usize) -> Result<()> {
        let Some(open) = &self.open else { return Ok(()) };
        while self.connections.len() < open.count && self.connections.len() - ready < open.in_flight {
            let index = self.connections.len();
            let mut connection = Connection::open(open.address, open.first + index, &open.dialect)?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut connection.stream, Token(index), interest)?;
            self.connections.push(connection);
        }
        Ok(())
    }

    /// By channel.
    fn rosters(&self) -> Result<Vec<Rosters>> {
        let channels = self.connections.iter().map(|connection| connection.channel + 1).max().unwrap_or(0);
        let mut rosters = vec![Rosters::default(); channels];
        for (index, connection) in self.connections.iter().enumerate() {
            let channel = &mut rosters[connection.channel];
            channel.own = channel.own.and(connection.own);
            let seen = *channel.seen.get_or_insert(connection.roster);
            anyhow::ensure!(
                seen == connection.roster,
                "connection {index} has {:?}, others of its channel {seen:?}",
                connection.roster
            );
        }
        Ok(rosters)
    }

    fn verify(&mut self, expected: &Expected) -> Result<()> {
        let mut wrong = Vec::new();
        for (index, connection) in self.connections.iter_mut().enumerate() {
            let events = std::mem::take(&mut connection.events);
            let should = match expected {
                Expected::Each(events) => *events,
                Expected::PerChannel(events) => events[connection.channel],
                Expected::Chatter => self.chattered[index],
                Expected::Total(_) => continue,
            };
            if events != should {
                wrong.push(format!("connection {index} got {events} of {should} events"));
            }
        }
        let events = std::mem::take(&mut self.tally.events);
        if let Expected::Total(should) = expected
            && events != *should
        {
            wrong.push(format!("{events} of {should} events arrived"));
        }
        anyhow::ensure!(
            wrong.is_empty(),
            "{} wrong: {}",
            wrong.len(),
            wrong[..wrong.len().min(3)].join(", ")
        );
        print_line(&SinkReply::Verified { last_event: self.tally.last_event.take() })
    }
}
