//! Subscribers that read a channel's log at their own pace, until they are back with those who are live.
//!
//! A connection reads one page at a time and only when its outbox is empty, so that however much it missed, no more
//! than a page waits in memory for it.

use std::sync::Arc;

use bytes::Bytes;
use tidewire_protocol::Position;
use tidewire_protocol::error::{CloseCode, LOG_NOT_READABLE};
use tidewire_protocol::replay::Reason;
use tidewire_protocol::server_message;

use super::deliver::join;
use super::mailbox::{ConnectionRef, Job};
use super::state::{Goodbye, State};
use crate::replay::Resolved;
use crate::replay::follower::{Follower, Gap, Plan};
use crate::replay::pages::Page;
use crate::replay::store::{StoreError, StreamName};
use crate::socket::Sent;

/// Failed reads of the log, a second apart, after which a client that catches up is closed.
const MAX_FAILED_READS: u32 = 10;

/// What the log answers to a connection.
#[derive(Debug)]
pub enum LogAnswer {
    /// What comes after the serial `after`.
    Page { channel: u64, after: u64, page: Result<Arc<Page>, StoreError> },
    /// Whether the subscription that holds the ticket can go on from where it asked.
    Resolved { ticket: u32, resolved: Result<Resolved, StoreError> },
    /// The same, of one that waits for the cluster and found its log to be another one.
    FoundAgain { ticket: u32, resolved: Result<Resolved, StoreError> },
}

/// What a step of the chase came to.
enum Step {
    /// Go on with the connection's next channel, or with the same.
    Next,
    /// The outbox has to empty first, or a page to come.
    Wait,
}

impl State {
    /// Keeps the subscriber's place in the log, and goes on from there.
    pub fn follow(&mut self, slot: u32, channel: u64, follower: Follower) {
        let is_chasing = follower.is_chasing();
        let Some((subscribers, _)) = self.delivery_parts(channel) else { return };
        subscribers.followers.get_or_insert_default().insert(slot, follower);
        if is_chasing {
            self.begin_chase(slot, channel);
            self.chase(slot);
        }
    }

    /// Takes a subscriber that reads too slowly out of the live ones: the log is its buffer. `cursor` counts for one
    /// whose place was not kept yet.
    pub fn demote(&mut self, slot: u32, channel: u64, cursor: Position) {
        let Some((subscribers, _)) = self.delivery_parts(channel) else { return };
        let followers = subscribers.followers.get_or_insert_default();
        followers.entry(slot).or_insert_with(|| Follower::live(false, cursor)).demote();
        self.node.metrics.replay.demotions.inc();
        self.begin_chase(slot, channel);
        // Its task goes on with the chase, also when nothing is left to write.
        self.at(slot).socket.wake();
    }

    fn begin_chase(&mut self, slot: u32, channel: u64) {
        let chasing = &mut self.at(slot).replaying().chasing;
        if !chasing.contains(&channel) {
            chasing.push_back(channel);
            self.node.metrics.replay.chasing.inc();
        }
    }

    /// The first of the connection's chases is over.
    fn end_chase(&mut self, slot: u32) {
        if self.at(slot).replaying().chasing.pop_front().is_some() {
            self.node.metrics.replay.chasing.dec();
        }
    }

    /// Goes on with what the connection has to catch up with, as long as it takes what it is sent.
    pub fn chase(&mut self, slot: u32) {
        loop {
            let connection = self.at(slot);
            let Some(replaying) = &connection.replaying else { return };
            if replaying.awaits_page || !connection.is_open() || !connection.socket.is_idle() {
                return;
            }
            let Some(channel) = replaying.chasing.front().copied() else { return };
            match self.chase_channel(slot, channel) {
                Step::Next => {}
                Step::Wait => return,
            }
        }
    }

    fn chase_channel(&mut self, slot: u32, id: u64) -> Step {
        let channel = self.channel(id).cloned();
        let cursor = self.follower(slot, id).filter(|follower| follower.is_chasing()).map(|f| f.cursor());
        let (Some(channel), Some(cursor)) = (channel, cursor) else {
            // Unsubscribed meanwhile.
            self.end_chase(slot);
            return Step::Next;
        };
        let Some(missed) = channel.catch_up(cursor) else { return self.ask_for_page(slot, id, cursor) };
        let socket_id = self.at(slot).socket_id;
        let plan = self
            .follower(slot, id)
            .map(|follower| follower.plan_ring(channel.name(), missed.iter(), socket_id));
        if !self.send_plan(slot, id, &plan.unwrap_or_default()) {
            return Step::Wait;
        }
        if let Some(follower) = self.follower(slot, id) {
            follower.go_live();
        }
        self.end_chase(slot);
        Step::Next
    }

    fn ask_for_page(&mut self, slot: u32, channel: u64, cursor: u64) -> Step {
        let connection = self.reference(slot);
        let mailboxes = Arc::clone(&self.node.mailboxes);
        let answer = move |page| {
            let answer = Box::new(LogAnswer::Page { channel, after: cursor, page });
            mailboxes[connection.worker as usize].push(Job::Log(connection, answer));
        };
        let stream = self.stream_of(slot, channel);
        let asked = match (self.node.replay.get(), stream) {
            (Some(replay), Some(stream)) => replay.page(stream, cursor, Box::new(answer)).is_ok(),
            _ => false,
        };
        if asked {
            self.at(slot).replaying().awaits_page = true;
        } else {
            self.read_failed(connection);
        }
        Step::Wait
    }

    /// Asks again with the next tick; in the end the client is better off with another try of its own.
    fn read_failed(&mut self, reference: ConnectionRef) {
        let replaying = self.at(reference.slot).replaying();
        replaying.failed_reads += 1;
        if replaying.failed_reads < MAX_FAILED_READS {
            self.stalled.push(reference);
        } else {
            self.close(reference.slot, Goodbye::explained(CloseCode::OverCapacity, LOG_NOT_READABLE));
        }
    }

    fn stream_of(&mut self, slot: u32, channel: u64) -> Option<Arc<StreamName>> {
        let app = self.at(slot).app.id.clone();
        let channel = self.channel(channel)?.name().into();
        Some(Arc::new(StreamName { app, channel }))
    }

    /// Takes the answer for a connection that may be gone by now.
    pub fn log_answered(&mut self, reference: ConnectionRef, answer: LogAnswer) {
        let slot = reference.slot;
        let connection = self.connection_mut(slot, reference.generation);
        if !connection.is_some_and(|connection| connection.is_open()) {
            return;
        }
        match answer {
            LogAnswer::Page { channel, after, page } => {
                let replaying = self.at(slot).replaying();
                replaying.awaits_page = false;
                match page {
                    Ok(page) => {
                        replaying.failed_reads = 0;
                        self.take_page(slot, channel, after, &page);
                    }
                    Err(_) => return self.read_failed(reference),
                }
                if self.at(slot).is_open() {
                    self.chase(slot);
                }
            }
            LogAnswer::Resolved { ticket, resolved } => self.resolved(slot, ticket, resolved),
            LogAnswer::FoundAgain { ticket, resolved } => self.found_again(slot, ticket, resolved),
        }
    }

    fn take_page(&mut self, slot: u32, id: u64, cursor: u64, page: &Page) {
        let socket_id = self.at(slot).socket_id;
        let Some(channel) = self.channel(id).cloned() else { return };
        // It may have unsubscribed or gone back meanwhile.
        let is_meant = |follower: &&mut Follower| follower.is_chasing() && follower.cursor() == cursor;
        let Some(follower) = self.follower(slot, id).filter(is_meant) else { return };
        match follower.plan_page(channel.name(), page.after(cursor), socket_id) {
            Ok(plan) => {
                self.send_plan(slot, id, &plan);
            }
            // What was delivered meanwhile is enough.
            Err(Gap) if channel.catch_up(cursor).is_some() => {}
            Err(Gap) => self.reset(slot, id, Reason::Expired),
        }
    }

    /// Sends what was planned. False when the rest has to wait.
    fn send_plan(&mut self, slot: u32, channel: u64, plan: &Plan) -> bool {
        let accepted = self.send_frames(slot, &plan.frames);
        self.follower(slot, channel).is_none_or(|follower| follower.accept(plan, accepted))
    }

    /// Sends frames with one write; returns how many were taken.
    fn send_frames(&mut self, slot: u32, frames: &[Bytes]) -> usize {
        if frames.is_empty() {
            return 0;
        }
        let max_bytes = self.node.config.outbox_bytes;
        let joined = join(frames.iter());
        let connection = self.at(slot);
        let accepted = match connection.socket.send_all(&joined, frames.iter(), max_bytes) {
            Sent::Accepted => frames.len(),
            Sent::Overflow { accepted } => accepted,
        };
        let bytes: usize = frames[..accepted].iter().map(Bytes::len).sum();
        connection.app.metrics.messages_sent.inc_by(accepted as u64);
        connection.app.metrics.sent_bytes.inc_by(bytes as u64);
        accepted
    }

    /// All subscribers of a channel have lost their place; those that never asked for one do not notice.
    pub fn log_broke(&mut self, channel: u64, head: Position, reason: Reason) {
        let Some((subscribers, _)) = self.delivery_parts(channel) else { return };
        let Some(followers) = &subscribers.followers else { return };
        let (lost, name) =
            (followers.keys().copied().collect::<Vec<u32>>(), subscribers.channel.name().to_owned());
        for slot in lost {
            let Some(follower) = self.follower(slot, channel) else { continue };
            follower.reset(head);
            if follower.is_positioned {
                self.send_text(slot, &server_message::replay_reset(&name, head.epoch, head.serial, reason));
            }
        }
    }

    /// The subscriber has lost its place: it goes on live, and knows. One that never asked cannot be told, and is
    /// closed as a slow client of any other channel.
    fn reset(&mut self, slot: u32, id: u64, reason: Reason) {
        let Some(channel) = self.channel(id).cloned() else { return };
        let Some(head) = channel.log_head() else { return };
        let Some(follower) = self.follower(slot, id) else { return };
        if !follower.is_positioned {
            return self.overflow(slot);
        }
        follower.reset(head);
        self.send_text(slot, &server_message::replay_reset(channel.name(), head.epoch, head.serial, reason));
    }

    /// Asks again for the pages that could not be had. Called with every tick.
    pub fn retry_stalled(&mut self) {
        for reference in std::mem::take(&mut self.stalled) {
            if self.connection_mut(reference.slot, reference.generation).is_some_and(|c| c.is_open()) {
                self.chase(reference.slot);
            }
        }
    }
}
