//! The mailbox becomes writes: all that waits for a channel goes out as one write per subscriber.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tidewire_protocol::Position;
use tidewire_protocol::error::{CloseCode, TERMINATED_BY_APP};

use super::mailbox::{Audience, ConnectionRef, Delivery, Job};
use super::state::{ById, CHASE_HEADROOM_BYTES, Goodbye, State};
use super::{Worker, drain};
use crate::connection::{Connection, Library};
use crate::replay::event::StoredEvent;
use crate::replay::follower::Follower;
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
                    Job::Log(connection, answer) => self.state().log_answered(connection, *answer),
                    Job::LogBroke { channel, head, reason } => self.state().log_broke(channel, head, reason),
                    Job::Enter(connection, ticket) => self.enter(connection, ticket),
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

    fn enter(&self, connection: ConnectionRef, ticket: u32) {
        let mut state = self.state();
        if state.connection_mut(connection.slot, connection.generation).is_some_and(|c| c.is_open()) {
            state.enter(connection.slot, ticket);
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
    /// The same with serials, once a subscriber needs it.
    joined_live: OnceCell<Bytes>,
    /// Some frame is not for every subscriber.
    is_selective: bool,
    /// The first message, when all are consecutive messages of the channel's log.
    run: Option<&'a StoredEvent>,
}

/// How far a batch went for one subscriber.
enum Written {
    All,
    /// From this delivery on, nothing was taken.
    Until(usize),
}

impl<'a> Batch<'a> {
    fn new(deliveries: &'a [Delivery]) -> Self {
        let is_for_everyone =
            |delivery: &Delivery| delivery.except.is_none() && delivery.audience == Audience::Everyone;
        Self {
            deliveries,
            joined: join(deliveries.iter().map(|delivery| &delivery.frame)),
            joined_live: OnceCell::new(),
            is_selective: !deliveries.iter().all(is_for_everyone),
            run: first_of_run(deliveries),
        }
    }

    fn frames(&self) -> impl Iterator<Item = &'a Bytes> + Clone + use<'a> {
        self.deliveries.iter().map(|delivery| &delivery.frame)
    }

    fn stored(&self) -> impl Iterator<Item = &'a Arc<StoredEvent>> + Clone + use<'a> {
        self.deliveries.iter().filter_map(|delivery| delivery.stored.as_ref())
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
        let mut tally = Tally { max_bytes, frames: 0, bytes: 0 };
        for subscriber in subscribers.list[start..end].iter_mut().rev() {
            let connection = &mut connections[subscriber.slot as usize];
            let followers = subscribers.followers.as_mut();
            let written = match followers.and_then(|followers| followers.get_mut(&subscriber.slot)) {
                None => self.write(connection, subscriber.after, &mut tally),
                Some(follower) => self.write_to_follower(connection, subscriber.after, follower, &mut tally),
            };
            subscriber.after = subscriber.after.max(last_sequence);
            if let Written::Until(index) = written {
                slow.push((subscriber.slot, index));
            }
        }
        subscribers.app.metrics.messages_sent.inc_by(tally.frames as u64);
        subscribers.app.metrics.sent_bytes.inc_by(tally.bytes as u64);
        for (slot, index) in slow {
            self.slow_down(state, slot, &self.deliveries[index..]);
        }
        start
    }

    /// Writes to a subscriber without a place in a log.
    fn write(&self, connection: &mut Connection, after: u64, tally: &mut Tally) -> Written {
        let is_all_for_it = after < self.deliveries[0].sequence
            && (!self.is_selective || self.deliveries.iter().all(|delivery| delivery.is_for(connection)));
        if is_all_for_it {
            return tally.send_all(connection, &self.joined, self.frames());
        }
        for (index, delivery) in self.deliveries.iter().enumerate() {
            if delivery.sequence > after
                && delivery.is_for(connection)
                && tally.send(connection, &delivery.frame) != Sent::Accepted
            {
                return Written::Until(index);
            }
        }
        Written::All
    }

    fn write_to_follower(
        &self,
        connection: &mut Connection,
        after: u64,
        follower: &mut Follower,
        tally: &mut Tally,
    ) -> Written {
        if !self.is_selective && self.run.is_some_and(|first| follower.expects(first)) {
            return self.write_run(connection, follower, tally);
        }
        for (index, delivery) in self.deliveries.iter().enumerate() {
            let sent = match &delivery.stored {
                Some(event) => {
                    let plan = follower.plan_live(std::iter::once(event), connection.socket_id);
                    let sent =
                        plan.frames.first().map_or(Sent::Accepted, |frame| tally.send(connection, frame));
                    if sent == Sent::Accepted {
                        follower.accept(&plan, plan.frames.len());
                    }
                    sent
                }
                None if delivery.sequence > after && delivery.is_for(connection) => {
                    tally.send_beside_log(connection, &delivery.frame)
                }
                None => Sent::Accepted,
            };
            if sent != Sent::Accepted {
                return Written::Until(index);
            }
        }
        Written::All
    }

    /// The very next messages of the log, for a follower that is where they begin.
    fn write_run(&self, connection: &mut Connection, follower: &mut Follower, tally: &mut Tally) -> Written {
        let written = if follower.is_positioned {
            let frames = self.stored().map(|event| event.live());
            let joined = self.joined_live.get_or_init(|| join(frames.clone()));
            tally.send_all(connection, joined, frames)
        } else {
            tally.send_all(connection, &self.joined, self.frames())
        };
        let count = match written {
            Written::All => self.deliveries.len(),
            Written::Until(index) => index,
        };
        if let Some(last) = self.stored().take(count).last() {
            follower.accept_up_to(last.stamp.position);
        }
        written
    }

    /// A subscriber whose outbox is full reads on from the log, if everything it was not sent is there; else it is
    /// closed.
    fn slow_down(&self, state: &mut State, slot: u32, missed: &[Delivery]) {
        let connection = state.at(slot);
        let mut missed = missed.iter().filter(|delivery| delivery.is_for(connection));
        let first = missed.next().and_then(|delivery| delivery.stored.as_ref());
        match first {
            Some(first) if missed.all(|delivery| delivery.stored.is_some()) => {
                let before = Position { serial: first.serial() - 1, ..first.stamp.position };
                state.demote(slot, self.deliveries[0].channel, before);
            }
            _ => state.overflow(slot),
        }
    }
}

/// Counts what is sent, within the bound of each outbox.
struct Tally {
    max_bytes: usize,
    frames: usize,
    bytes: usize,
}

impl Tally {
    fn send(&mut self, connection: &mut Connection, frame: &Bytes) -> Sent {
        self.frames += 1;
        self.bytes += frame.len();
        connection.socket.send(frame, self.max_bytes)
    }

    /// What no log has must fit in beside what one had too much of.
    fn send_beside_log(&mut self, connection: &mut Connection, frame: &Bytes) -> Sent {
        let headroom = if connection.is_chasing() { CHASE_HEADROOM_BYTES } else { 0 };
        self.frames += 1;
        self.bytes += frame.len();
        connection.socket.send(frame, self.max_bytes + headroom)
    }

    fn send_all<'f>(
        &mut self,
        connection: &mut Connection,
        joined: &Bytes,
        frames: impl Iterator<Item = &'f Bytes> + Clone,
    ) -> Written {
        self.frames += frames.clone().count();
        self.bytes += joined.len();
        match connection.socket.send_all(joined, frames, self.max_bytes) {
            Sent::Accepted => Written::All,
            Sent::Overflow { accepted } => Written::Until(accepted),
        }
    }
}

/// All frames in one piece.
pub fn join<'f>(mut frames: impl Iterator<Item = &'f Bytes> + Clone) -> Bytes {
    let all = frames.clone();
    match (frames.next(), frames.next()) {
        (Some(only), None) => only.clone(),
        _ => {
            let mut joined = BytesMut::with_capacity(all.clone().map(Bytes::len).sum());
            all.for_each(|frame| joined.extend_from_slice(frame));
            joined.freeze()
        }
    }
}

/// The first of deliveries that all are messages of the log, one after the other.
fn first_of_run(deliveries: &[Delivery]) -> Option<&StoredEvent> {
    let first = deliveries.first()?.stored.as_ref()?;
    let serials = deliveries.iter().map(|delivery| delivery.stored.as_ref().map(|event| event.serial()));
    serials.zip(first.serial()..).all(|(serial, expected)| serial == Some(expected)).then_some(first)
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
        let delivery =
            |channel, sequence| Delivery { sequence, ..Delivery::new(channel, Bytes::new(), None) };
        let mut deliveries =
            vec![delivery(9, 1), delivery(2, 1), delivery(9, 2), delivery(5, 1), delivery(2, 2)];
        group_by_channel(&mut deliveries);
        let order: Vec<_> = deliveries.iter().map(|d| (d.channel, d.sequence)).collect();
        assert_eq!(order, [(9, 1), (9, 2), (2, 1), (2, 2), (5, 1)]);
    }
}
