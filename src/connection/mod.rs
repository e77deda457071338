//! One client's life: greeted, read, acted upon, closed.
//!
//! The worker that accepted a connection owns it; nothing here is shared between threads. What only some
//! connections need is boxed, so that an idle one stays small.

mod client_event;
mod deferred;
mod joining;
mod receive;
mod resume;
mod sign_in;
mod subscribe;
mod task;

use std::sync::Arc;

use tidewire_protocol::identity::UserData;
use tidewire_protocol::socket_id::SocketId;

use crate::app::App;
use crate::socket::{Input, Socket};
use crate::token_bucket::TokenBucket;

pub use self::joining::Joining;
pub use self::receive::receive;
pub use self::resume::Replaying;
pub use self::task::ConnectionTask;

/// Seconds that a closed connection may take to read its close frame and hang up.
pub const CLOSE_GRACE_SECONDS: u32 = 5;

/// In the order of use, and on cache lines of its own: a delivery to one of many thousand connections spends more
/// time on waiting for memory than on everything else but `send`.
#[repr(C, align(64))]
pub struct Connection {
    pub socket: Socket,
    pub socket_id: SocketId,
    /// Tells this connection from an earlier one in the same slot.
    pub generation: u32,
    pub client: Client,
    pub phase: Phase,
    /// Has signed in, or joined a channel that needs authorisation (2.16).
    pub is_authorized: bool,
    pub app: Arc<App>,
    /// When the server's unanswered control ping went out; seconds of the server's clock.
    pub pinged_at: Option<u32>,
    /// In the order of subscribing, but for holes that were filled from the end.
    pub subscriptions: Vec<Subscription>,
    pub client_events: TokenBucket,
    pub input: Option<Box<Input>>,
    /// Of a connection that has asked for replay, or reads too slowly.
    pub replaying: Option<Box<Replaying>>,
    pub user: Option<Box<UserData>>,
    /// In a cluster: what it waits for.
    pub joining: Option<Box<Joining>>,
}

/// What the handshake told about the client.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// 4 to 7.
    pub protocol: u8,
    pub library: Library,
}

/// Client libraries that need something of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// pusher-js: also told of refused subscriptions by `pusher:subscription_error` (2.14).
    Js,
    /// pusher-websocket-java: must not see extra frames on encrypted channels (2.10).
    Java,
    Other,
}

impl Library {
    /// From the `client` query parameter.
    pub fn from_name(name: &str) -> Self {
        match name {
            "js" => Self::Js,
            "java-client" => Self::Java,
            _ => Self::Other,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Open,
    /// Out of the hub; what is still in the outbox goes out, what comes in is dropped.
    Closing,
    /// The grace is over: the task ends at its next turn.
    Expired,
}

/// One channel this connection is subscribed to.
#[derive(Debug)]
pub struct Subscription {
    pub channel: u64,
    /// Where the worker's list of the channel's subscribers holds this one.
    pub index: u32,
    /// The member id on presence channels. Boxed twice to keep the common case at one word.
    #[allow(clippy::box_collection, clippy::redundant_allocation)]
    pub member: Option<Box<Box<str>>>,
}

impl Connection {
    /// Whether it is catching up with a channel.
    pub fn is_chasing(&self) -> bool {
        self.replaying.as_ref().is_some_and(|replaying| !replaying.chasing.is_empty())
    }

    pub fn replaying(&mut self) -> &mut Replaying {
        self.replaying.get_or_insert_default()
    }

    pub fn joining(&mut self) -> &mut Joining {
        self.joining.get_or_insert_default()
    }

    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_takes_three_cache_lines() {
        assert!(std::mem::size_of::<Connection>() <= 192, "{}", std::mem::size_of::<Connection>());
    }
}
