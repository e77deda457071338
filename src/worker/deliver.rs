//! The mailbox becomes writes: all that waits for a channel goes out as one write per subscriber.

use std::collections::HashMap;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use tidewire_protocol::error::{CloseCode, TERMINATED_BY_APP};
use tidewire_protocol::socket_id::SocketId;

use super::mailbox::{Audience, ConnectionRef, Delivery, Job};
use super::state::{Goodbye, State};
use super::{Worker, drain};
use crate::connection::{Connection, Library};
use crate::socket::Sent;

/// Writes after which a large fan-out lets the worker read again.
const WRITES_PER_TURN: usize = 512;

impl Worker {
    /// Works through the mailbox until it is told to stop.
    pub(super) async fn deliver_mail(self: &Rc<Self>) {
        let mut jobs = Vec::new();
        loop {
            self.mailbox().filled().await;
            self.mailbox().take(&mut jobs);
            let mut deliveries = Vec::new();
            for job in jobs.drain(..) {
                // Everything but a delivery keeps its place between the deliveries before and after it.
                if let Job::Deliver(delivery) = job {
                    deliveries.push(delivery);
                    continue;
                }
                self.deliver(std::mem::take(&mut deliveries)).await;
                match job {
                    Job::Deliver(_) => {}
                    Job::Send(connection, frame) => self.send(connection, &frame),
                    Job::Terminate(connection) => self.terminate(connection),
                    Job::CloseApp(app) => self.close_app(&app),
                    Job::Drain => drop(tokio::task::spawn_local(drain::drain(Rc::clone(self)))),
                    Job::Stop => return,
                }
            }
            self.deliver(deliveries).await;
        }
    }

    /// Channel by channel, in the order in which each channel came first.
    async fn deliver(&self, deliveries: Vec<Delivery>) {
        for batch in group_by_channel(deliveries) {
            let mut next = usize::MAX;
            while next > 0 {
                next = batch.write_some(&mut self.state(), next);
                if next > 0 {
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    fn send(&self, connection: ConnectionRef, frame: &Bytes) {
        let mut state = self.state();
        if state.connection_mut(connection.slot, connection.generation).is_some() {
            state.send(connection.slot, frame);
        }
    }

    fn terminate(&self, connection: ConnectionRef) {
        let mut state = self.state();
        if state.connection_mut(connection.slot, connection.generation).is_some() {
            state.close(connection.slot, Goodbye::explained(CloseCode::Unauthorized, TERMINATED_BY_APP));
        }
    }
}

/// Frames of one channel, in its order.
struct Batch {
    channel: u64,
    deliveries: Vec<Delivery>,
    frames: Vec<Bytes>,
    /// All frames in one piece.
    joined: Bytes,
    /// Whom some frame is not meant for.
    excepted: Vec<SocketId>,
    /// Some frame is not for every library.
    is_selective: bool,
}

fn group_by_channel(deliveries: Vec<Delivery>) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    let mut position = HashMap::new();
    for delivery in deliveries {
        let next = batches.len();
        let index = *position.entry(delivery.channel).or_insert(next);
        if index == next {
            batches.push(Batch::new(delivery.channel));
        }
        batches[index].deliveries.push(delivery);
    }
    for batch in &mut batches {
        batch.seal();
    }
    batches
}

impl Batch {
    fn new(channel: u64) -> Self {
        Self {
            channel,
            deliveries: Vec::with_capacity(1),
            frames: Vec::new(),
            joined: Bytes::new(),
            excepted: Vec::new(),
            is_selective: false,
        }
    }

    fn seal(&mut self) {
        self.frames = self.deliveries.iter().map(|delivery| delivery.frame.clone()).collect();
        self.joined = match &self.frames[..] {
            [frame] => frame.clone(),
            frames => {
                let mut joined = BytesMut::with_capacity(frames.iter().map(Bytes::len).sum());
                frames.iter().for_each(|frame| joined.extend_from_slice(frame));
                joined.freeze()
            }
        };
        self.excepted = self.deliveries.iter().filter_map(|delivery| delivery.except).collect();
        self.is_selective = self.deliveries.iter().any(|delivery| delivery.audience != Audience::Everyone);
    }

    /// Writes to the subscribers below index `end`, from the back, and returns where to go on (0: done).
    ///
    /// Between two calls subscribers come, go and take each other's place. Going backwards, a subscriber can
    /// only move to where it would be met a second time; its `after` then says that it has the frames.
    fn write_some(&self, state: &mut State, end: usize) -> usize {
        let max_bytes = state.node.config.outbox_bytes;
        let Some((subscribers, connections)) = state.delivery_parts(self.channel) else { return 0 };
        let (Some(first), Some(last)) = (self.deliveries.first(), self.deliveries.last()) else { return 0 };
        let end = end.min(subscribers.list.len());
        let start = end.saturating_sub(WRITES_PER_TURN);
        let mut slow = Vec::new();
        let (mut sent_frames, mut sent_bytes) = (0, 0);
        for subscriber in subscribers.list[start..end].iter_mut().rev() {
            let connection = &mut connections[subscriber.slot as usize];
            let sent = if subscriber.after < first.sequence && self.is_for_all_of(connection) {
                sent_frames += self.frames.len();
                sent_bytes += self.joined.len();
                connection.socket.send_all(&self.joined, &self.frames, max_bytes)
            } else {
                let mut sent = Sent::Accepted;
                for frame in self.frames_for(connection, subscriber.after) {
                    sent_frames += 1;
                    sent_bytes += frame.len();
                    sent = connection.socket.send(frame, max_bytes);
                    if sent == Sent::Overflow {
                        break;
                    }
                }
                sent
            };
            subscriber.after = subscriber.after.max(last.sequence);
            if sent == Sent::Overflow {
                slow.push(subscriber.slot);
            }
        }
        subscribers.app.metrics.messages_sent.inc_by(sent_frames as u64);
        subscribers.app.metrics.sent_bytes.inc_by(sent_bytes as u64);
        for slot in slow {
            state.overflow(slot);
        }
        start
    }

    fn is_for_all_of(&self, connection: &Connection) -> bool {
        !self.excepted.contains(&connection.socket_id)
            && !(self.is_selective && connection.client.library == Library::Java)
    }

    fn frames_for<'a>(
        &'a self,
        connection: &Connection,
        after: u64,
    ) -> impl Iterator<Item = &'a Bytes> + use<'a> {
        let (socket_id, library) = (connection.socket_id, connection.client.library);
        let is_meant = move |delivery: &&Delivery| {
            delivery.sequence > after
                && delivery.except != Some(socket_id)
                && (delivery.audience == Audience::Everyone || library != Library::Java)
        };
        self.deliveries.iter().filter(is_meant).map(|delivery| &delivery.frame)
    }
}
