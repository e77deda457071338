//! The mailbox becomes writes: all that waits for a channel goes out as one write per subscriber.

use std::collections::HashMap;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use tidewire_protocol::error::{CloseCode, TERMINATED_BY_APP};

use super::mailbox::{Audience, ConnectionRef, Delivery, Job};
use super::state::{ById, Goodbye, State};
use super::{Worker, drain};
use crate::connection::{Connection, Library};
use crate::socket::Sent;

/// Writes after which a large fan-out lets the worker read again.
const WRITES_PER_TURN: usize = 512;

/// Frames that are joined to one piece at the most.
const MAX_JOINED: usize = 128;

impl Worker {
    /// Works through the mailbox until it is told to stop.
    pub(super) async fn deliver_mail(self: &Rc<Self>) {
        let mut jobs = Vec::new();
        let mut deliveries = Vec::new();
        loop {
            self.mailbox().filled().await;
            self.mailbox().take(&mut jobs);
            for job in jobs.drain(..) {
                // Everything but a delivery keeps its place between the deliveries before and after it.
                if let Job::Deliver(delivery) = job {
                    deliveries.push(delivery);
                    continue;
                }
                self.deliver(&mut deliveries).await;
                match job {
                    Job::Deliver(_) => {}
                    Job::Send(connection, frame) => self.send(connection, &frame),
                    Job::Terminate(connection) => self.terminate(connection),
                    Job::CloseApp(app) => self.close_app(&app),
                    Job::Drain => drop(tokio::task::spawn_local(drain::drain(Rc::clone(self)))),
                    Job::Stop => return,
                }
            }
            self.deliver(&mut deliveries).await;
        }
    }

    /// Writes and forgets the deliveries, channel by channel; each channel's stay in their order.
    async fn deliver(&self, deliveries: &mut Vec<Delivery>) {
        group_by_channel(deliveries);
        let channels = deliveries.chunk_by(|one, next| one.channel == next.channel);
        for batch in channels.flat_map(|channel| channel.chunks(MAX_JOINED)).map(Batch::new) {
            let mut next = usize::MAX;
            while next > 0 {
                next = batch.write_some(&mut self.state(), next);
                if next > 0 {
                    tokio::task::yield_now().await;
                }
            }
        }
        deliveries.clear();
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

/// Brings the deliveries of each channel together. Channels stay in the order in which each came first, so that
/// somebody in two channels gets two events as they were published.
fn group_by_channel(deliveries: &mut [Delivery]) {
    let [_, _, ..] = deliveries else { return };
    let mut ranks: HashMap<u64, usize, ById> = HashMap::default();
    for delivery in deliveries.iter() {
        let next = ranks.len();
        ranks.entry(delivery.channel).or_insert(next);
    }
    if ranks.len() > 1 {
        deliveries.sort_by_key(|delivery| ranks.get(&delivery.channel).copied());
    }
}

/// What waits for one channel, in its order.
struct Batch<'a> {
    deliveries: &'a [Delivery],
    /// All frames in one piece.
    joined: Bytes,
    /// Some frame is not for every subscriber.
    is_selective: bool,
}

impl<'a> Batch<'a> {
    fn new(deliveries: &'a [Delivery]) -> Self {
        let joined = match deliveries {
            [delivery] => delivery.frame.clone(),
            _ => {
                let frames = deliveries.iter().map(|delivery| &delivery.frame);
                let mut joined = BytesMut::with_capacity(frames.clone().map(Bytes::len).sum());
                frames.for_each(|frame| joined.extend_from_slice(frame));
                joined.freeze()
            }
        };
        let is_for_everyone =
            |delivery: &Delivery| delivery.except.is_none() && delivery.audience == Audience::Everyone;
        Self { deliveries, joined, is_selective: !deliveries.iter().all(is_for_everyone) }
    }

    fn frames(&self) -> impl Iterator<Item = &'a Bytes> + Clone + use<'a> {
        self.deliveries.iter().map(|delivery| &delivery.frame)
    }

    /// Writes to the subscribers below index `end`, from the back, and returns where to go on (0: done).
    ///
    /// Between two calls subscribers come, go and take each other's place. Going backwards, a subscriber can
    /// only move to where it would be met a second time; its `after` then says that it has the frames.
    fn write_some(&self, state: &mut State, end: usize) -> usize {
        let max_bytes = state.node.config.outbox_bytes;
        let [first, ..] = self.deliveries else { return 0 };
        let last_sequence = self.deliveries.last().map_or(first.sequence, |last| last.sequence);
        let Some((subscribers, connections)) = state.delivery_parts(first.channel) else { return 0 };
        let end = end.min(subscribers.list.len());
        let start = end.saturating_sub(WRITES_PER_TURN);
        let mut slow = Vec::new();
        let (mut sent_frames, mut sent_bytes) = (0, 0);
        for subscriber in subscribers.list[start..end].iter_mut().rev() {
            let connection = &mut connections[subscriber.slot as usize];
            let sent = if subscriber.after < first.sequence && self.is_all_for(connection) {
                sent_frames += self.deliveries.len();
                sent_bytes += self.joined.len();
                connection.socket.send_all(&self.joined, self.frames(), max_bytes)
            } else {
                let mut sent = Sent::Accepted;
                let after = subscriber.after;
                for delivery in self.deliveries {
                    if delivery.sequence <= after || !delivery.is_for(connection) {
                        continue;
                    }
                    sent_frames += 1;
                    sent_bytes += delivery.frame.len();
                    sent = connection.socket.send(&delivery.frame, max_bytes);
                    if sent == Sent::Overflow {
                        break;
                    }
                }
                sent
            };
            subscriber.after = subscriber.after.max(last_sequence);
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

    fn is_all_for(&self, connection: &Connection) -> bool {
        !self.is_selective || self.deliveries.iter().all(|delivery| delivery.is_for(connection))
    }
}

impl Delivery {
    fn is_for(&self, connection: &Connection) -> bool {
        self.except != Some(connection.socket_id)
            && (self.audience == Audience::Everyone || connection.client.library != Library::Java)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_stay_in_the_order_in_which_each_came_first() {
        let delivery = |channel, sequence| Delivery {
            channel,
            sequence,
            frame: Bytes::new(),
            except: None,
            audience: Audience::Everyone,
        };
        let mut deliveries =
            vec![delivery(9, 1), delivery(2, 1), delivery(9, 2), delivery(5, 1), delivery(2, 2)];
        group_by_channel(&mut deliveries);
        let order: Vec<_> = deliveries.iter().map(|d| (d.channel, d.sequence)).collect();
        assert_eq!(order, [(9, 1), (9, 2), (2, 1), (2, 2), (5, 1)]);
    }
}
