//! What the suite says to its sink and bare processes, as one JSON text per line on their stdin and stdout.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::roster::Roster;

/// Orders to a sink, each answered by one [`SinkReply`].
#[derive(Debug, Serialize, Deserialize)]
pub enum SinkCommand {
    Open(Open),
    /// Answer once this many events have arrived since the last `Verify`.
    Await {
        events: u64,
        timeout_ms: u64,
    },
    /// Answer once this many members are known, summed over all connections.
    AwaitMembers {
        members: u64,
        timeout_ms: u64,
    },
    /// Tell who the connections are, and who they believe to be in their channels.
    Rosters,
    /// Compare what each connection has received with what it should have, then count from zero again.
    Verify(Expected),
    /// Send client events from random connections until all of them have been delivered.
    Chatter(Chatter),
    /// Record publish → receive latency of every event from now on, or stop and tell.
    StartTiming,
    StopTiming,
    Close,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum SinkReply {
    Opened {
        seconds: f64,
    },
    Reached,
    /// The last event frame that came, to be sent again by the bare loop.
    Verified {
        last_event: Option<String>,
    },
    /// One of each channel.
    Rosters(Vec<Rosters>),
    Chattered,
    Timing,
    Latency(Latency),
    Closed,
    Failed(String),
}

/// Connections to open, `in_flight` of them at a time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Open {
    pub address: SocketAddr,
    pub count: usize,
    pub in_flight: usize,
    /// Number of the first connection, so that several sinks share one numbering.
    pub first: usize,
    pub dialect: Dialect,
    /// Sampled frames must carry rising sequence numbers: only true where one publisher sends one call at a time.
    pub ordered: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Dialect {
    /// Connect and count frames: the other side is the bare loop.
    Raw,
    /// Connect as a Pusher client. Connection `i` subscribes to `{prefix}{i % channels}`, asking for `replay` of it.
    Pusher {
        key: String,
        secret: String,
        path_prefix: String,
        prefix: String,
        channels: usize,
        replay: Option<serde_json::Value>,
    },
}

/// Of one presence channel.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Rosters {
    /// The sink's own connections.
    pub own: Roster,
    /// What each of them believes; they agree, or the sink says so. Nothing if it has none there.
    pub seen: Option<Roster>,
}

/// How many events each connection should have received.
#[derive(Debug, Serialize, Deserialize)]
pub enum Expected {
    Each(u64),
    /// Every connection of channel `i` this many.
    PerChannel(Vec<u64>),
    /// What the last `Chatter` sent them.
    Chatter,
    /// Over all connections.
    Total(u64),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Chatter {
    pub events: u64,
    /// Events under way at a time.
    pub window: u64,
    pub seed: u64,
    /// JSON value sent as `data`.
    pub data: String,
}

/// Microseconds from signing the trigger to reading the frame.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Latency {
    pub count: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

/// Orders to the bare loop, each answered by one [`BareReply`].
#[derive(Debug, Serialize, Deserialize)]
pub enum BareCommand {
    /// Accept this many connections and spread them over the sender threads.
    Accept {
        count: usize,
    },
    /// To every connection: `copies` frames, each in a `send()` of its own or all in one.
    Send {
        text: String,
        copies: usize,
        joined: bool,
    },
    /// `events` times: one frame to each member of a random room except the first `skip`.
    Scatter {
        text: String,
        events: u64,
        room: usize,
        skip: usize,
        seed: u64,
    },
    Close,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum BareReply {
    Listening {
        port: u16,
    },
    Accepted,
    /// CPU time of the send loops, in nanoseconds over all sender threads.
    Sent {
        cpu_ns: u64,
        frames: u64,
    },
    Closed,
    Failed(String),
}
