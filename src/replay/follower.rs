//! How far one subscriber of a stored channel is, and what it is sent next: the live/chasing hand-off.
//!
//! A follower is *live*, and gets what is delivered to the channel, or it is *chasing*: it reads the log at its own
//! pace, and goes live once the [ring](super::ring::Ring) reaches back to it. Either way it gets ascending serials,
//! each once: everything up to `handled` is done with, whoever offers it again.

use std::sync::Arc;

use bytes::Bytes;
use tidewire_protocol::{Position, SocketId, frame, server_message};

use super::event::StoredEvent;
use super::pages::PageEntry;

/// Of one subscriber that asked for positions, or that read too slowly.
#[derive(Debug)]
pub struct Follower {
    /// It asked for positions, and is told of gaps. Others get stock frames.
    pub is_positioned: bool,
    /// The client's earlier connection: what was not for that is not replayed either.
    not_from: Option<SocketId>,
    /// Every message up to here was sent, or is not for this subscriber.
    handled: u64,
    /// What the client was told last.
    told: Told,
    mode: Mode,
}

/// The newest position that a client knows of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    serial: u64,
    generation: u32,
}

impl From<Position> for Told {
    fn from(position: Position) -> Self {
        Self { serial: position.serial, generation: position.epoch.generation }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Live,
    Chasing {
        /// `replay_done` is due when everything up to here was sent.
        done_at: Option<u64>,
    },
}

/// Frames for a follower, with what will have been handled once they are accepted.
#[derive(Debug, Default)]
pub struct Plan {
    pub frames: Vec<Bytes>,
    /// What the client knows with each frame; its serial is handled then.
    tells: Vec<Told>,
    /// What is handled with all of them: the last messages may not be for this subscriber.
    handled: u64,
    told: Told,
    /// Which frame is the `replay_done`.
    done: Option<usize>,
}

/// The next message is not in the log any more.
#[derive(Debug, PartialEq, Eq)]
pub struct Gap;

impl Follower {
    /// Has everything up to `head`.
    pub fn live(is_positioned: bool, head: Position) -> Self {
        Self { is_positioned, not_from: None, handled: head.serial, told: head.into(), mode: Mode::Live }
    }

    /// Is behind at serial `cursor`, and is to be told once it has what was there at `target`.
    pub fn resuming(cursor: u64, target: Position, not_from: Option<SocketId>) -> Self {
        Self {
            is_positioned: true,
            not_from,
            handled: cursor,
            told: Told { serial: cursor, generation: target.epoch.generation },
            mode: Mode::Chasing { done_at: Some(target.serial) },
        }
    }

    pub fn is_chasing(&self) -> bool {
        self.mode != Mode::Live
    }

    /// Everything up to here is done with.
    pub fn cursor(&self) -> u64 {
        self.handled
    }

    /// Falls behind: the rest comes from the log.
    pub fn demote(&mut self) {
        if self.mode == Mode::Live {
            self.mode = Mode::Chasing { done_at: None };
        }
    }

    /// Goes on with what is delivered.
    pub fn go_live(&mut self) {
        self.mode = Mode::Live;
    }

    /// Has lost its place: goes on live after `head`.
    pub fn reset(&mut self, head: Position) {
        self.handled = head.serial;
        self.told = head.into();
        self.mode = Mode::Live;
    }

    /// Whether the message is the very next one, and goes to this follower as to any other.
    pub fn expects(&self, event: &StoredEvent) -> bool {
        self.mode == Mode::Live
            && self.handled + 1 == event.serial()
            && (!self.is_positioned || self.told.goes_on_with(event))
    }

    /// What a live follower gets of the messages that are delivered to its channel.
    pub fn plan_live<'e>(
        &self,
        events: impl Iterator<Item = &'e Arc<StoredEvent>>,
        socket_id: SocketId,
    ) -> Plan {
        let mut plan = Plan::after(self);
        if self.mode == Mode::Live {
            events
                .filter(|event| event.serial() > self.handled)
                .for_each(|event| self.add(&mut plan, event, socket_id));
        }
        plan
    }

    /// What a chasing follower gets of the messages after its cursor, out of the ring.
    pub fn plan_ring<'e>(
        &self,
        channel: &str,
        events: impl Iterator<Item = &'e Arc<StoredEvent>>,
        socket_id: SocketId,
    ) -> Plan {
        let mut plan = Plan::after(self);
        self.add_done(&mut plan, channel);
        for event in events {
            self.add(&mut plan, event, socket_id);
            self.add_done(&mut plan, channel);
        }
        plan
    }

    /// What a chasing follower gets of a page of the log, up to the first message that is missing there.
    pub fn plan_page(&self, channel: &str, page: &[PageEntry], socket_id: SocketId) -> Result<Plan, Gap> {
        let mut plan = Plan::after(self);
        self.add_done(&mut plan, channel);
        for entry in page.iter().filter(|entry| entry.serial() > self.handled) {
            if entry.serial() != plan.handled + 1 {
                break;
            }
            match entry {
                PageEntry::Event(event) => self.add(&mut plan, event, socket_id),
                PageEntry::Unreadable { serial } => self.add_skip(&mut plan, channel, *serial),
            }
            self.add_done(&mut plan, channel);
        }
        if plan.handled == self.handled { Err(Gap) } else { Ok(plan) }
    }

    fn add(&self, plan: &mut Plan, event: &StoredEvent, socket_id: SocketId) {
        let serial = event.serial();
        plan.handled = serial;
        if event.except.is_some_and(|except| except == socket_id || Some(except) == self.not_from) {
            return;
        }
        let is_replayed = self.done_at().is_some_and(|done_at| serial <= done_at);
        let frame = match (self.is_positioned, plan.told.goes_on_with(event)) {
            (false, _) => event.plain().clone(),
            (true, true) if is_replayed => event.replayed().clone(),
            (true, true) => event.live().clone(),
            (true, false) => event.positioned(plan.told.serial, is_replayed),
        };
        let generation = event.stamp.position.epoch.generation.max(plan.told.generation);
        plan.push(frame, Told { serial, generation });
    }

    fn add_skip(&self, plan: &mut Plan, channel: &str, serial: u64) {
        plan.handled = serial;
        if self.is_positioned {
            let prev = (plan.told.serial + 1 != serial).then_some(plan.told.serial);
            let skip = server_message::replay_skip(channel, serial, prev);
            plan.push(frame::encode_text(&skip), Told { serial, ..plan.told });
        }
    }

    /// Tells that everything is there that was asked for, as soon as it is.
    fn add_done(&self, plan: &mut Plan, channel: &str) {
        if let Some(done_at) = self.done_at()
            && plan.handled >= done_at
            && plan.done.is_none()
        {
            plan.done = Some(plan.frames.len());
            let done = server_message::replay_done(channel, done_at);
            plan.push(frame::encode_text(&done), Told { serial: plan.handled, ..plan.told });
        }
    }

    fn done_at(&self) -> Option<u64> {
        match self.mode {
            Mode::Chasing { done_at } => done_at,
            Mode::Live => None,
        }
    }

    /// Notes that the first `accepted` frames of the plan are on their way. False when some are not.
    pub fn accept(&mut self, plan: &Plan, accepted: usize) -> bool {
        let is_whole = accepted >= plan.frames.len();
        if let Some(told) = accepted.checked_sub(1).and_then(|last| plan.tells.get(last)) {
            self.told = *told;
            self.handled = told.serial;
        }
        if is_whole {
            self.handled = plan.handled;
        }
        if plan.done.is_some_and(|done| done < accepted) {
            self.mode = Mode::Chasing { done_at: None };
        }
        is_whole
    }

    /// As [`accept`](Self::accept), for messages that it [expected](Self::expects), up to this one.
    pub fn accept_up_to(&mut self, position: Position) {
        self.handled = position.serial;
        self.told = position.into();
    }
}

impl Told {
    /// Whether the message needs to say nothing of what was before it.
    fn goes_on_with(self, event: &StoredEvent) -> bool {
        let position = event.stamp.position;
        let knows_epoch = position.epoch.generation <= self.generation || event.stamp.begins_generation;
        self.serial + 1 == position.serial && knows_epoch
    }
}

impl Plan {
    fn after(follower: &Follower) -> Self {
        Self { handled: follower.handled, told: follower.told, ..Self::default() }
    }

    fn push(&mut self, frame: Bytes, told: Told) {
        self.frames.push(frame);
        self.tells.push(told);
        self.told = told;
    }
}
