//! What other threads ask of a worker: a bounded queue with one wake-up per batch.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tidewire_protocol::position::Position;
use tidewire_protocol::replay::Reason;
use tidewire_protocol::socket_id::SocketId;
use tokio::sync::Notify;

use crate::app::App;
use crate::replay::event::StoredEvent;
use crate::sync::lock;
use crate::worker::chase::LogAnswer;

/// A connection, as seen from other threads. `generation` tells a reused slot from the one that was meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionRef {
    pub worker: u32,
    pub slot: u32,
    pub generation: u32,
}

/// One encoded frame for all local subscribers of a channel.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub channel: u64,
    /// Position in the channel's order; a subscriber that joined at or after it does not get the frame.
    pub sequence: u64,
    /// A whole WebSocket frame.
    pub frame: Bytes,
    pub except: Option<SocketId>,
    pub audience: Audience,
    /// The message behind the frame, on stored channels.
    pub stored: Option<Arc<StoredEvent>>,
}

impl Delivery {
    /// For everyone but `except`; its channel gives it a sequence.
    pub fn new(channel: u64, frame: Bytes, except: Option<SocketId>) -> Self {
        Self { channel, sequence: 0, frame, except, audience: Audience::Everyone, stored: None }
    }
}

/// Which of a channel's subscribers a frame is meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    Everyone,
    /// pusher-websocket-java tries to decrypt `subscription_count` on encrypted channels and throws (2.10).
    ExceptJava,
}

#[derive(Debug)]
pub enum Job {
    Deliver(Delivery),
    /// One frame for one connection.
    Send(ConnectionRef, Bytes),
    /// `terminate_connections` hit this connection (4.8).
    Terminate(ConnectionRef),
    /// The log's answer to a connection that reads from it.
    Log(ConnectionRef, Box<LogAnswer>),
    /// The log of this channel is not the one that its subscribers know: they go on after `head`.
    LogBroke {
        channel: u64,
        head: Position,
        reason: Reason,
    },
    /// A connection with this ticket may try again to enter a channel, or to sign in.
    Enter(ConnectionRef, u32),
    /// The app is gone from the configuration, or was disabled: close all its connections.
    CloseApp(Arc<App>),
    /// Close every connection with 4200 over the drain window.
    Drain,
    Stop,
}

/// Bytes of frames above which publishers are told to come back later.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Bounded for what publishers send; the bookkeeping jobs of connections always fit.
#[derive(Debug)]
pub struct Mailbox {
    queue: Mutex<Queue>,
    filled: Notify,
    /// Jobs above which publishers are told to come back later.
    capacity: usize,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: Vec<Job>,
    /// Of the frames in `jobs`.
    bytes: usize,
    /// Publishers that have more to come: the worker is not woken until they are done.
    holds: u32,
}

impl Mailbox {
    pub fn new(capacity: usize) -> Self {
        Self { queue: Mutex::default(), filled: Notify::new(), capacity }
    }

    /// False when publishers should be refused until the worker has caught up.
    pub fn has_room(&self) -> bool {
        let queue = lock(&self.queue);
        queue.jobs.len() < self.capacity && queue.bytes < MAX_BYTES
    }

    pub fn push(&self, job: Job) {
        let wakes = {
            let mut queue = lock(&self.queue);
            if let Job::Deliver(delivery) = &job {
                queue.bytes += delivery.frame.len();
            }
            queue.jobs.push(job);
            queue.jobs.len() == 1 && queue.holds == 0
        };
        if wakes {
            self.filled.notify_one();
        }
    }

    /// Waits until there is something to take.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Swaps all waiting jobs into the empty `into`.
    pub fn take(&self, into: &mut Vec<Job>) {
        let mut queue = lock(&self.queue);
        queue.bytes = 0;
        std::mem::swap(&mut queue.jobs, into);
    }
}

/// While it lives, workers that sleep are not woken: what one request publishes then goes out as one write per
/// subscriber, and not as a first event and the rest. Held only within a synchronous turn, or until tasks that are ready
/// have had theirs.
#[derive(Debug)]
pub struct Hold(Arc<[Mailbox]>);

impl Hold {
    pub fn new(mailboxes: &Arc<[Mailbox]>) -> Self {
        mailboxes.iter().for_each(|mailbox| lock(&mailbox.queue).holds += 1);
        Self(Arc::clone(mailboxes))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        for mailbox in &*self.0 {
            let wakes = {
                let mut queue = lock(&mailbox.queue);
                queue.holds -= 1;
                // Also while others hold: with many workers somebody always does.
                !queue.jobs.is_empty()
            };
            if wakes {
                mailbox.filled.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_wake_up_serves_all_jobs_that_wait() {
        let mailbox = Mailbox::new(2);
        mailbox.push(Job::Drain);
        assert!(mailbox.has_room());
        mailbox.push(Job::Stop);
        assert!(!mailbox.has_room());
        mailbox.filled().await;
        let mut jobs = Vec::new();
        mailbox.take(&mut jobs);
        assert!(matches!(jobs[..], [Job::Drain, Job::Stop]));
        assert!(mailbox.has_room());
    }

    #[tokio::test]
    async fn a_hold_puts_the_wake_up_off_to_its_end() {
        let mailboxes: Arc<[Mailbox]> = [Mailbox::new(10)].into();
        let hold = Hold::new(&mailboxes);
        mailboxes[0].push(Job::Drain);
        mailboxes[0].push(Job::Stop);
        let early = tokio::time::timeout(std::time::Duration::ZERO, mailboxes[0].filled()).await;
        assert!(early.is_err());
        drop(hold);
        mailboxes[0].filled().await;
    }
}
