//! What a client asks of the log in `pusher:subscribe`, and whether its position is still good.

use serde_json::value::RawValue;

use crate::position::{Epoch, InvalidPosition, Position};
use crate::{InvalidSocketId, SocketId, json};

/// The member `replay` of `pusher:subscribe`'s data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayRequest {
    pub start: Start,
    pub on_gap: OnGap,
    /// The client's earlier socket id: what excluded it is not replayed either.
    pub not_from: Option<SocketId>,
}

/// Where in the log a subscriber begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With what is published from now on.
    Live,
    /// With what follows a position.
    After(Position),
    Rewind(Rewind),
}

/// How far back a client goes that has no position yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewind {
    /// The last so many messages.
    Count(u64),
    /// What was published in the last so many seconds.
    Seconds(u64),
    /// All that is kept.
    Earliest,
}

/// What becomes of a subscription whose messages are not all there any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnGap {
    /// It goes on live, and is told.
    #[default]
    Continue,
    /// It is refused with `ReplayGone`.
    Reject,
}

/// Why messages cannot be replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// They were trimmed, or are outside the subscriber's own window.
    Expired,
    /// The client holds messages that the log has lost.
    RolledBack,
    /// The log was made anew since.
    StreamReset,
    /// More than are replayed at once.
    TooMany,
    /// The channel is not stored, or not for this subscriber.
    Disabled,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::RolledBack => "rolled_back",
            Self::StreamReset => "stream_reset",
            Self::TooMany => "too_many",
            Self::Disabled => "disabled",
        }
    }

    /// For the texts of errors, after what cannot be replayed.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Expired => "they are not kept any more",
            Self::RolledBack => "the server has lost messages that the client holds",
            Self::StreamReset => "the log was made anew since",
            Self::TooMany => "they are more than are replayed at once",
            Self::Disabled => "the channel keeps none for this subscriber",
        }
    }
}

/// Why a `replay` member is refused. The subscription is, too: it must not be live in silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    #[error("replay must be an object such as {{\"v\":1}}")]
    NotAnObject,
    #[error("replay.v must be 1, the only version this server speaks")]
    Version,
    #[error("replay.from is {0}")]
    From(#[from] InvalidPosition),
    #[error("replay.rewind must be {{\"count\":n}}, {{\"seconds\":n}} or \"earliest\", with n of 1 or more")]
    Rewind,
    #[error("replay.from and replay.rewind exclude each other")]
    Both,
    #[error("replay.on_gap must be \"continue\" or \"reject\"")]
    OnGap,
    #[error("replay.not_from must be a socket id")]
    NotFrom,
}

impl ReplayRequest {
    /// Live, but with positions.
    pub const LIVE: Self = Self { start: Start::Live, on_gap: OnGap::Continue, not_from: None };

    /// Reads the member. Unknown members are skipped: later versions may add some.
    pub fn parse(raw: &RawValue) -> Result<Self, ReplayError> {
        let [version, from, rewind, on_gap, not_from] =
            json::present_members(raw.get(), ["v", "from", "rewind", "on_gap", "not_from"])
                .map_err(|_| ReplayError::NotAnObject)?;
        if version.is_some_and(|version| version.get() != "1") {
            return Err(ReplayError::Version);
        }
        let start = match (from, rewind) {
            (None, None) => Start::Live,
            (Some(from), None) => {
                Start::After(json::text(from).ok_or(InvalidPosition).and_then(|text| text.parse())?)
            }
            (None, Some(rewind)) => Start::Rewind(Rewind::parse(rewind).ok_or(ReplayError::Rewind)?),
            (Some(_), Some(_)) => return Err(ReplayError::Both),
        };
        let on_gap = match on_gap.map(|raw| json::text(raw).unwrap_or_default()).as_deref() {
            None | Some("continue") => OnGap::Continue,
            Some("reject") => OnGap::Reject,
            Some(_) => return Err(ReplayError::OnGap),
        };
        let not_from = match not_from {
            None => None,
            Some(raw) => json::text(raw)
                .ok_or(InvalidSocketId)
                .and_then(|text| SocketId::parse(&text))
                .map_err(|InvalidSocketId| ReplayError::NotFrom)?,
        };
        Ok(Self { start, on_gap, not_from })
    }
}

impl Rewind {
    fn parse(raw: &RawValue) -> Option<Self> {
        if json::text(raw).is_some_and(|text| text == "earliest") {
            return Some(Self::Earliest);
        }
        let number = |raw: &RawValue| raw.get().parse().ok().filter(|n: &u64| *n > 0);
        match json::present_members(raw.get(), ["count", "seconds"]).ok()? {
            [Some(count), None] => number(count).map(Self::Count),
            [None, Some(seconds)] => number(seconds).map(Self::Seconds),
            _ => None,
        }
    }
}

/// Since when a log has a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation {
    pub number: u32,
    /// Serial of its first message.
    pub start: u64,
}

/// What of a log can be replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub nonce: u64,
    /// Serial before the first message the log ever had: whoever is there holds nothing of it.
    pub base: u64,
    /// Those that are remembered, in ascending order; at least one.
    pub generations: Vec<Generation>,
    /// Serial of the oldest message that may be replayed; `head + 1` when there is none.
    pub floor: u64,
    /// Serial of the newest message; 0 before the first.
    pub head: u64,
}

impl Bounds {
    /// The epoch of the newest message.
    pub fn epoch(&self) -> Epoch {
        Epoch { nonce: self.nonce, generation: self.generations.last().map_or(0, |last| last.number) }
    }

    pub fn position(&self) -> Position {
        Position { epoch: self.epoch(), serial: self.head }
    }

    /// Whether everything after `cursor` can be replayed, and nothing the client has was lost. Total, whatever a
    /// client makes up.
    pub fn resolve(&self, cursor: Position, max_replay: u64) -> Result<(), Reason> {
        if cursor.epoch.nonce != self.nonce {
            return Err(Reason::StreamReset);
        }
        if cursor.serial != self.base {
            // A generation of which nothing is left is not among them; what its clients had of earlier ones may be.
            let later = self.generations.partition_point(|one| one.number <= cursor.epoch.generation);
            if later == 0 {
                return Err(Reason::StreamReset);
            }
            let end = self.generations.get(later).map_or(self.head, |next| next.start.saturating_sub(1));
            if cursor.serial > end {
                return Err(Reason::RolledBack);
            }
        }
        if cursor.serial.saturating_add(1) < self.floor {
            return Err(Reason::Expired);
        }
        if self.head.saturating_sub(cursor.serial) > max_replay {
            return Err(Reason::TooMany);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
