//! The connections a scenario has open, held by a sink process.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};

use crate::api::App;
use crate::child::Child;
use crate::control::{
    BareCommand, BareReply, Chatter, Dialect, Expected, Latency, Open, Rosters, SinkCommand, SinkReply,
};

/// Connections that are in their handshake at a time.
pub const IN_FLIGHT: usize = 64;
/// Members of a room in the chat and client-event scenarios.
pub const ROOM: usize = 10;
const TIMEOUT_MILLISECONDS: u64 = 60_000;

/// A sink process and what it has open.
pub struct Field {
    sink: Child<SinkCommand, SinkReply>,
}

/// Channel names: `{prefix}0`, `{prefix}1`, …
#[derive(Clone, Copy)]
pub struct Channels<'a> {
    pub prefix: &'a str,
    pub count: usize,
}

impl Channels<'_> {
    pub fn name(&self, index: usize) -> String {
        format!("{}{index}", self.prefix)
    }

    pub fn dialect(&self, app: &App) -> Dialect {
        self.replaying(app, None)
    }

    /// With what goes into `replay` of `pusher:subscribe`.
    pub fn replaying(&self, app: &App, replay: Option<serde_json::Value>) -> Dialect {
        Dialect::Pusher {
            key: app.key.clone(),
            secret: app.secret.clone(),
            path_prefix: app.path_prefix.clone(),
            prefix: self.prefix.to_owned(),
            channels: self.count,
            replay,
        }
    }
}

impl Field {
    pub fn new() -> Result<Self> {
        Ok(Field { sink: Child::spawn("sink", &[])? })
    }

    /// Opens connections and waits until all are subscribed; the seconds it took.
    pub fn open(&mut self, address: SocketAddr, count: usize, dialect: Dialect) -> Result<f64> {
        self.open_as(Open { address, count, in_flight: IN_FLIGHT, first: 0, dialect, ordered: false })
    }

    pub fn open_as(&mut self, open: Open) -> Result<f64> {
        self.begin_open(open)?;
        self.opened()
    }

    /// Without waiting, so that several sinks can open theirs at a time.
    pub fn begin_open(&mut self, open: Open) -> Result<()> {
        self.sink.tell(&SinkCommand::Open(open))
    }

    /// Waits until all are subscribed.
    pub fn opened(&mut self) -> Result<f64> {
        match self.sink.answer()? {
            SinkReply::Opened { seconds } => Ok(seconds),
            other => unexpected(other),
        }
    }

    /// Waits until this many events have arrived since the last verification.
    pub fn wait(&mut self, events: u64) -> Result<()> {
        match self.sink.ask(&SinkCommand::Await { events, timeout_ms: TIMEOUT_MILLISECONDS })? {
            SinkReply::Reached => Ok(()),
            other => unexpected(other),
        }
    }

    /// Waits until the member lists of all connections are this long together.
    pub fn wait_for_members(&mut self, members: u64) -> Result<()> {
        match self.sink.ask(&SinkCommand::AwaitMembers { members, timeout_ms: TIMEOUT_MILLISECONDS })? {
            SinkReply::Reached => Ok(()),
            other => unexpected(other),
        }
    }

    pub fn rosters(&mut self) -> Result<Vec<Rosters>> {
        match self.sink.ask(&SinkCommand::Rosters)? {
            SinkReply::Rosters(rosters) => Ok(rosters),
            other => unexpected(other),
        }
    }

    /// Fails unless every connection got exactly what it should; one of the frames, if any was sampled.
    pub fn verify(&mut self, expected: Expected) -> Result<Option<String>> {
        match self.sink.ask(&SinkCommand::Verify(expected))? {
            SinkReply::Verified { last_event } => Ok(last_event),
            other => unexpected(other),
        }
    }

    pub fn chatter(&mut self, chatter: Chatter) -> Result<()> {
        match self.sink.ask(&SinkCommand::Chatter(chatter))? {
            SinkReply::Chattered => Ok(()),
            other => unexpected(other),
        }
    }

    pub fn start_timing(&mut self) -> Result<()> {
        match self.sink.ask(&SinkCommand::StartTiming)? {
            SinkReply::Timing => Ok(()),
            other => unexpected(other),
        }
    }

    pub fn stop_timing(&mut self) -> Result<Latency> {
        match self.sink.ask(&SinkCommand::StopTiming)? {
            SinkReply::Latency(latency) => Ok(latency),
            other => unexpected(other),
        }
    }

    pub fn close(&mut self) -> Result<()> {
        match self.sink.ask(&SinkCommand::Close)? {
            SinkReply::Closed => Ok(()),
            other => unexpected(other),
        }
    }
}

fn unexpected<T>(reply: SinkReply) -> Result<T> {
    match reply {
        SinkReply::Failed(text) => bail!("the receiver: {text}"),
        other => bail!("the receiver answered {other:?}"),
    }
}

/// What a bare loop spent.
pub struct Sent {
    pub microseconds: f64,
    pub frames: u64,
}

/// A raw sink and the bare process that sends to it.
pub struct BareField {
    field: Field,
    bare: Child<BareCommand, BareReply>,
}

impl BareField {
    pub fn open(threads: usize, count: usize) -> Result<Self> {
        let mut bare = Child::<BareCommand, BareReply>::spawn("bare", &[format!("--threads={threads}")])?;
        let BareReply::Listening { port } = bare.answer()? else { bail!("the bare process does not listen") };
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut field = Field::new()?;
        bare.tell(&BareCommand::Accept { count })?;
        field.open(address, count, Dialect::Raw).context("opening the bare connections")?;
        let BareReply::Accepted = bare.answer()? else { bail!("the bare process did not accept") };
        Ok(BareField { field, bare })
    }

    /// Sends to every connection and waits until all of it has been received; CPU microseconds.
    pub fn send(&mut self, order: &BareCommand, frames_before: u64) -> Result<Sent> {
        match self.bare.ask(order)? {
            BareReply::Sent { cpu_ns, frames } => {
                self.field.wait(frames_before + frames)?;
                Ok(Sent { microseconds: cpu_ns as f64 / 1000.0, frames })
            }
            BareReply::Failed(text) => bail!("the bare loop: {text}"),
            other => bail!("the bare loop answered {other:?}"),
        }
    }

    /// CPU microseconds a frame of sending to random rooms, one `send()` each.
    pub fn scatter(&mut self, text: String, events: u64, skip: usize, seed: u64) -> Result<f64> {
        let order = BareCommand::Scatter { text, events, room: ROOM, skip, seed };
        let sent = self.send(&order, 0)?;
        self.verify(Expected::Total(events * (ROOM - skip) as u64))?;
        Ok(sent.microseconds / sent.frames as f64)
    }

    pub fn verify(&mut self, expected: Expected) -> Result<()> {
        self.field.verify(expected).map(drop)
    }
}
