//! One observer's view of one channel, followed message by message.

use tidewire_protocol::position::{Epoch, Position};

use super::channel::Mid;

/// What was followed without a break: everything after `start` up to `end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub epoch: Epoch,
    pub start: u64,
    pub end: u64,
    /// Serials in between that did not come.
    pub missing: Vec<u64>,
    /// What the observer had when it was told `recovered`, as (serial, message).
    pub trusted: Vec<(u64, Mid)>,
    /// Nothing was resynced after it.
    pub is_last: bool,
}

/// A replay that is under way.
#[derive(Clone, Debug)]
pub struct Pending {
    /// `None` for a rewind, whose start the first message tells.
    pub after: Option<u64>,
    pub until: u64,
    pub epoch: Epoch,
    pub count: Option<u64>,
    pub came: u64,
    /// When the connection was lost before.
    pub lost_at: u64,
}

#[derive(Debug, Default)]
pub struct Watch {
    pub position: Option<Position>,
    pub is_open: bool,
    pub socket_id: String,
    pub not_from: String,
    pub pending: Option<Pending>,
    pub last: Option<(u64, Mid)>,
    /// When the subscription was answered.
    pub opened_at: u64,
    pub closed_at: u64,
    /// Every socket this observer ever had.
    pub sockets: Vec<Box<str>>,
    pub segments: Vec<Segment>,
    start: u64,
    seen: Vec<u64>,
    skipped: Vec<u64>,
    trusted: Vec<(u64, Mid)>,
}

impl Watch {
    /// A new segment begins after `position`.
    pub fn restart(&mut self, position: Position) {
        self.end_segment(false);
        self.position = Some(position);
        self.start = position.serial;
        self.seen.clear();
        self.skipped.clear();
        self.trusted.clear();
        self.last = None;
    }

    pub fn end_segment(&mut self, is_last: bool) {
        let Some(Position { epoch, serial: end }) = self.position else { return };
        let missing = (self.start + 1..=end).filter(|serial| !self.has(*serial)).collect();
        let trusted = std::mem::take(&mut self.trusted);
        self.segments.push(Segment { epoch, start: self.start, end, missing, trusted, is_last });
    }

    pub fn opens(&mut self, now: u64, socket_id: &str, not_from: &str) {
        self.is_open = true;
        self.opened_at = now;
        socket_id.clone_into(&mut self.socket_id);
        not_from.clone_into(&mut self.not_from);
        // One whose connection ended before any answer is told of only by the next.
        for socket in [socket_id, not_from] {
            if !socket.is_empty() && !self.sockets.iter().any(|known| &**known == socket) {
                self.sockets.push(socket.into());
            }
        }
    }

    /// What comes after `position` is to come once more.
    pub fn goes_back(&mut self, position: Position) {
        self.position = Some(position);
        self.last = self.last.filter(|(serial, _)| *serial == position.serial);
        self.skipped.retain(|serial| *serial <= position.serial);
        let kept = position.serial - self.start + 1;
        self.seen.truncate(kept.div_ceil(64) as usize);
        if let (Some(word), 1..) = (self.seen.get_mut((kept / 64) as usize), kept % 64) {
            *word &= (1 << (kept % 64)) - 1;
        }
    }

    pub fn closes(&mut self, now: u64) {
        if self.is_open {
            self.closed_at = now;
        }
        self.is_open = false;
        self.pending = None;
    }

    /// The log is trusted to go on where this observer is.
    pub fn trusts(&mut self) {
        self.trusted.extend(self.last);
    }

    /// Whether it came, or was told to be unreadable.
    pub fn has(&self, serial: u64) -> bool {
        let Some(offset) = serial.checked_sub(self.start) else { return false };
        let word = self.seen.get((offset / 64) as usize).copied().unwrap_or(0);
        word & (1 << (offset % 64)) != 0 || self.skipped.contains(&serial)
    }

    pub fn start(&self) -> u64 {
        self.start
    }

    pub fn takes(&mut self, serial: u64, mid: Mid) {
        let Some(offset) = serial.checked_sub(self.start) else { return };
        let word = (offset / 64) as usize;
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        self.seen[word] |= 1 << (offset % 64);
        self.last = Some((serial, mid));
    }

    pub fn skips(&mut self, serial: u64) {
        self.skipped.push(serial);
    }
}
