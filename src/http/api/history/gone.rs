//! The messages after a position are not all there: the body of a 410.

use serde::Serialize;
use tidewire_protocol::replay::{Bounds, Reason};

/// Where the reader may go on instead, and why it has to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gone {
    error: &'static str,
    channel: Box<str>,
    reason: &'static str,
    /// Serial of the oldest message that is kept; `newest + 1` when none is.
    oldest: u64,
    newest: u64,
    epoch: String,
    /// For the person who reads the log.
    message: &'static str,
}

impl Gone {
    pub fn new(channel: &str, reason: Reason, bounds: &Bounds) -> Self {
        Self {
            error: "position_gone",
            channel: channel.into(),
            reason: reason.as_str(),
            oldest: bounds.floor,
            newest: bounds.head,
            epoch: bounds.epoch().to_string(),
            message: message(reason),
        }
    }
}

fn message(reason: Reason) -> &'static str {
    match reason {
        Reason::Expired => {
            "Messages after this position were trimmed: load the state anew, or read without from and cursor what is kept"
        }
        Reason::RolledBack => {
            "This position is beyond what the log holds, which lost its end in a crash: load the state anew"
        }
        Reason::StreamReset => {
            "This position is of another log than the channel has now: load the state anew"
        }
        Reason::TooMany => "More messages follow this position than are replayed at once: read them in pages",
        Reason::Disabled => "The channel's messages are not kept",
    }
}
