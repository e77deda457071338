//! One receiving connection, from connecting to counting.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use mio::net::TcpStream;
use serde::Deserialize;
use socket2::{Domain, Socket, Type};

use super::tally::Tally;
use crate::control::Dialect;
use crate::roster::{self, Roster};
use crate::{api, frame};

/// The key of RFC 6455's example and the answer that goes with it.
const WEBSOCKET_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const WEBSOCKET_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const PONG: &[u8] = br#"{"event":"pusher:pong","data":{}}"#;

/// Loopback addresses the connections are spread over: each has its own 28,000 ports.
const SOURCE_ADDRESSES: usize = 8;

pub struct Connection {
    pub stream: TcpStream,
    pub stage: Stage,
    pub channel: usize,
    /// Events since the last verification.
    pub events: u64,
    last_sequence: u64,
    /// Itself, as a member of a presence channel.
    pub own: Roster,
    /// Who is in the presence channel, as far as it was told.
    pub roster: Roster,
    /// The beginning of a frame whose rest has not come yet; nearly always empty.
    partial: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Connecting,
    Upgrading,
    Greeting,
    Subscribing,
    Ready,
    /// A close frame was sent: whatever still comes is nobody's business.
    Closing,
    Closed,
}

impl Connection {
    /// Starts to connect; `number` chooses the source address and the channel.
    pub fn open(address: SocketAddr, number: usize, dialect: &Dialect) -> Result<Self> {
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM, None).context("one more socket")?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if address.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) {
            let last = 2 + (number % SOURCE_ADDRESSES) as u8;
            socket
                .bind(&SocketAddr::from(([127, 0, 0, last], 0)).into())
                .context("binding a source address")?;
        }
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                return Err(error).context("connecting");
            }
            _ => {}
        }
        let channel = match dialect {
            Dialect::Raw => 0,
            Dialect::Pusher { channels, .. } => number % channels,
        };
        let stream = TcpStream::from_std(socket.into());
        Ok(Connection {
            stream,
            stage: Stage::Connecting,
            channel,
            events: 0,
            last_sequence: 0,
            own: Roster::default(),
            roster: Roster::default(),
            partial: Vec::new(),
        })
    }

    /// The socket reports something: connect on, or read until nothing is left.
    pub fn ready(&mut self, dialect: &Dialect, buffer: &mut [u8], tally: &mut Tally) -> Result<()> {
        if self.stage == Stage::Connecting && !self.connected(dialect)? {
            return Ok(());
        }
        while self.stage != Stage::Closed {
            let held = self.partial.len();
            buffer[..held].copy_from_slice(&self.partial);
            let count = match self.stream.read(&mut buffer[held..]) {
                Ok(0) if self.stage == Stage::Closing => {
                    self.stage = Stage::Closed;
                    return Ok(());
                }
                Ok(0) => bail!("the server closed a connection that was {:?}", self.stage),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) if self.stage == Stage::Closing => {
                    self.stage = Stage::Closed;
                    return Ok(());
                }
                Err(error) => return Err(error).context("reading"),
            };
            self.partial.clear();
            let full = held + count == buffer.len();
            let used = self.take(&buffer[..held + count], dialect, tally)?;
            self.partial.extend_from_slice(&buffer[used..held + count]);
            // A short read has emptied the socket: asking again would only be told so, or of its end.
            if !full && self.stage != Stage::Closing {
                return Ok(());
            }
        }
        Ok(())
    }

    fn connected(&mut self, dialect: &Dialect) -> Result<bool> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error).context("connecting");
        }
        if self.stream.peer_addr().is_err() {
            return Ok(false);
        }
        let Dialect::Pusher { key, path_prefix, .. } = dialect else {
            self.stage = Stage::Ready;
            return Ok(true);
        };
        let request = format!(
            "GET {path_prefix}/app/{key}?protocol=7&client=tidewire-bench&version=1.0 HTTP/1.1\r\nHost: bench\r\n\
             Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: {WEBSOCKET_KEY}\r\n\r\n"
        );
        self.stage = Stage::Upgrading;
        self.write(request.as_bytes())?;
        Ok(true)
    }

    /// Everything the sink writes is small and far apart: a socket that cannot take it is a finding.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let count = self.stream.write(bytes).context("writing")?;
        ensure!(count == bytes.len(), "the server does not read: {count} of {} bytes written", bytes.len());
        Ok(())
    }

    pub fn send_close(&mut self) -> Result<()> {
        self.stage = Stage::Closing;
        self.write(&frame::client(frame::CLOSE, &1000u16.to_be_bytes()))
    }

    /// Takes all complete frames and tells how many bytes they were.
    fn take(&mut self, input: &[u8], dialect: &Dialect, tally: &mut Tally) -> Result<usize> {
        let mut used = 0;
        if self.stage == Stage::Upgrading {
            let Some(end) = input.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(0) };
            let head = String::from_utf8_lossy(&input[..end]);
            ensure!(head.starts_with("HTTP/1.1 101"), "no upgrade: {head}");
            ensure!(head.contains(WEBSOCKET_ACCEPT), "a wrong Sec-WebSocket-Accept: {head}");
            self.stage = Stage::Greeting;
            used = end + 4;
        }
        while let Some(frame) = frame::parse(&input[used..])? {
            let payload = &input[used..][frame.payload];
            match frame.opcode {
                _ if self.stage == Stage::Closing => {}
                frame::TEXT => self.text(payload, dialect, tally)?,
                frame::PING => self.write(&frame::client(frame::PONG, payload))?,
                frame::PONG => {}
                frame::CLOSE => {
                    let (code, reason) = payload.split_at(payload.len().min(2));
                    let code = code.iter().fold(0u16, |code, byte| code << 8 | u16::from(*byte));
                    bail!("the server closed with {code} {}", String::from_utf8_lossy(reason));
                }
                other => bail!("the server sent a frame of type {other}"),
            }
            used += frame.length;
        }
        Ok(used)
    }

    fn text(&mut self, text: &[u8], dialect: &Dialect, tally: &mut Tally) -> Result<()> {
        if self.stage == Stage::Ready && !text.starts_with(b"{\"event\":\"pusher") {
            self.events += 1;
            return tally.event(text, &mut self.last_sequence);
        }
        if self.stage == Stage::Ready && text.starts_with(roster::CHANGE) {
            let before = self.roster.members;
            self.roster.change(text)?;
            tally.learn(before, self.roster.members);
            return Ok(());
        }
        #[derive(Deserialize)]
        struct Protocol {
            event: String,
            #[serde(default)]
            data: serde_json::Value,
        }
        let unreadable = || String::from_utf8_lossy(text).into_owned();
        let frame: Protocol = serde_json::from_slice(text).with_context(unreadable)?;
        match (self.stage, frame.event.as_str()) {
            (_, "pusher:error" | "pusher:subscription_error") => bail!("the server says {}", unreadable()),
            (Stage::Greeting, "pusher:connection_established") => {
                self.stage = Stage::Subscribing;
                let subscribe = self.subscribe(&frame.data, dialect)?;
                self.write(&frame::client(frame::TEXT, subscribe.as_bytes()))?;
            }
            (Stage::Subscribing, "pusher_internal:subscription_succeeded") => {
                if self.own != Roster::default() {
                    self.roster = Roster::list(frame.data.as_str().unwrap_or_default())?;
                    tally.learn(0, self.roster.members);
                }
                self.stage = Stage::Ready;
            }
            (Stage::Greeting, other) => bail!("{other} before connection_established"),
            // After two silent minutes.
            (_, "pusher:ping") => self.write(&frame::client(frame::TEXT, PONG))?,
            // Members, counts: part of the protocol, not what is counted.
            _ => {}
        }
        Ok(())
    }

    fn subscribe(&mut self, established: &serde_json::Value, dialect: &Dialect) -> Result<String> {
        #[derive(Deserialize)]
        struct Established {
            socket_id: String,
        }
        let Dialect::Pusher { key, secret, prefix, replay, .. } = dialect else {
            bail!("raw connections do not subscribe")
        };
        let text = established.as_str().context("connection_established without data")?;
        let Established { socket_id } = serde_json::from_str(text)?;
        let channel = format!("{prefix}{}", self.channel);
        let mut data = serde_json::json!({ "channel": channel });
        if prefix.starts_with("private-") {
            let signature = api::sign(secret, &format!("{socket_id}:{channel}"));
            data["auth"] = format!("{key}:{signature}").into();
        } else if prefix.starts_with("presence-") {
            self.own.add(socket_id.as_bytes());
            let member = serde_json::json!({ "user_id": socket_id }).to_string();
            let signature = api::sign(secret, &format!("{socket_id}:{channel}:{member}"));
            data["auth"] = format!("{key}:{signature}").into();
            data["channel_data"] = member.into();
        }
        if let Some(replay) = replay {
            data["replay"] = replay.clone();
        }
        Ok(serde_json::json!({ "event": "pusher:subscribe", "data": data }).to_string())
    }
}
