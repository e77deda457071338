//! What nodes tell each other on topics.
//!
//! The first byte is the kind. A node counts and ignores kinds that it does not know, so that newer ones can have more.
//! Changes of members, counts and users are written by the scripts (`redis/scripts/`), as ASCII that Lua can put
//! together; events are written here.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::value::RawValue;

const EVENT: u8 = b'E';
const ADDED: u8 = b'+';
const CHANGED: u8 = b'i';
const REMOVED: u8 = b'-';
const COUNT: u8 = b'#';
const ONLINE: u8 = b'o';
const OFFLINE: u8 = b'f';
const TERMINATE: u8 = b'T';
const STORED: u8 = b'S';
const PURGED: u8 = b'P';

const HAS_EXCEPT: u8 = 1;
const HAS_CACHE: u8 = 2;
const HAS_ID: u8 = 4;

#[derive(Clone, Debug)]
pub enum Message {
    /// For the subscribers of a channel.
    Event(Event),
    /// A user's first session subscribed to the presence channel.
    Added(Delta),
    /// A member's `user_info` is another one now.
    Changed(Delta),
    /// A user's last session left the presence channel.
    Removed(Delta),
    /// Subscriptions of the channel in the cluster.
    Count(u64),
    /// The user signed in on a first session.
    Online,
    /// The user's last session signed out.
    Offline,
    /// The user's connections are to be closed. Later orders have larger numbers.
    Terminate(u64),
    /// For the subscribers of a channel that is stored; it is in the log.
    Stored(Stored),
    /// What is before this serial was purged from the channel's log.
    Purged(u64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// [`SocketId::to_bits`](tidewire_protocol::SocketId::to_bits) of the connection that does not get it.
    pub except: Option<u64>,
    /// On cache channels.
    pub cache: Option<CachePart>,
    /// A whole WebSocket frame.
    pub frame: Bytes,
}

/// What a cache channel keeps beside the frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachePart {
    pub ttl_ms: u64,
    /// The event's data as text, for `info=cache`.
    pub data: Bytes,
}

/// One change of a channel's members.
#[derive(Clone, Debug)]
pub struct Delta {
    /// Of the members after the change: one more than before it.
    pub version: u64,
    pub user_id: String,
    /// Always `None` of a member that was removed.
    pub info: Option<Box<RawValue>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub generation: u32,
    pub serial: u64,
    /// When the store took it in, of its clock.
    pub time_ms: u64,
    /// What it counts in the store: [`Content::size`](crate::replay::store::Content::size).
    pub size: u32,
    /// The publisher's idempotency key.
    pub id: Option<String>,
    pub event: Event,
}

/// Not a message, or one of a kind that only newer nodes know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed message on a topic")]
pub struct Malformed;

/// That what is before `serial` was purged.
pub fn encode_purged(serial: u64) -> Bytes {
    format!("{}{serial}", char::from(PURGED)).into()
}

/// A channel's event as it is published.
pub fn encode_event(event: &Event) -> Bytes {
    let mut bytes = BytesMut::with_capacity(1 + encoded_length(event, None));
    bytes.put_u8(EVENT);
    put_event(&mut bytes, event, None);
    bytes.freeze()
}

/// The publisher's part of [`Stored`], which the store's script puts its position before. `None` when the id is longer
/// than 65,535 bytes.
pub fn encode_stored_part(size: u32, id: Option<&str>, event: &Event) -> Option<Bytes> {
    let id = id.map(|id| u16::try_from(id.len()).map(|length| (length, id))).transpose().ok()?;
    let mut bytes = BytesMut::with_capacity(4 + encoded_length(event, id));
    bytes.put_u32(size);
    put_event(&mut bytes, event, id);
    Some(bytes.freeze())
}

/// Where the value of a cached event begins in an encoded event: `<u32 BE data length><data><frame>` is its tail.
/// `None` when it is not to be cached.
pub fn cache_offset(event: &Event) -> Option<usize> {
    event.cache.as_ref()?;
    Some(2 + event.except.map_or(0, |_| 8) + 8)
}

/// Takes a cached event's value apart: its data and its frame.
pub fn cache_part(value: Bytes) -> Result<(Bytes, Bytes), Malformed> {
    let mut reader = Reader(value);
    let data = reader.sized()?;
    Ok((data, reader.0))
}

fn encoded_length(event: &Event, id: Option<(u16, &str)>) -> usize {
    let cache = event.cache.as_ref().map_or(0, |cache| 12 + cache.data.len());
    1 + event.except.map_or(0, |_| 8) + id.map_or(0, |(_, id)| 2 + id.len()) + cache + event.frame.len()
}

fn put_event(bytes: &mut BytesMut, event: &Event, id: Option<(u16, &str)>) {
    let Event { except, cache, frame } = event;
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    let flags = flag(except.is_some(), HAS_EXCEPT) | flag(cache.is_some(), HAS_CACHE);
    bytes.put_u8(flags | flag(id.is_some(), HAS_ID));
    if let Some(except) = except {
        bytes.put_u64(*except);
    }
    if let Some((length, id)) = id {
        bytes.put_u16(length);
        bytes.put_slice(id.as_bytes());
    }
    if let Some(CachePart { ttl_ms, data }) = cache {
        bytes.put_u64(*ttl_ms);
        // Requests are bounded far below 4 GiB.
        bytes.put_u32(u32::try_from(data.len()).unwrap_or(u32::MAX));
        bytes.put_slice(data);
    }
    bytes.put_slice(frame);
}

impl Message {
    /// The frame and the cached data are slices of `bytes`.
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader(bytes);
        let message = match reader.byte()? {
            EVENT => Self::Event(reader.event()?.1),
            ADDED => Self::Added(reader.delta()?),
            CHANGED => Self::Changed(reader.delta()?),
            REMOVED => Self::Removed(reader.delta()?),
            COUNT => Self::Count(reader.number_to_end()?),
            ONLINE => Self::Online,
            OFFLINE => Self::Offline,
            TERMINATE => Self::Terminate(reader.number_to_end()?),
            STORED => Self::Stored(reader.stored()?),
            PURGED => Self::Purged(reader.number_to_end()?),
            _ => return Err(Malformed),
        };
        Ok(message)
    }
}

/// What is left to decode.
struct Reader(Bytes);

impl Reader {
    fn take(&mut self, length: usize) -> Result<Bytes, Malformed> {
        if length > self.0.len() {
            return Err(Malformed);
        }
        Ok(self.0.split_to(length))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.as_ref().try_into().map_err(|_| Malformed)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    fn sized(&mut self) -> Result<Bytes, Malformed> {
        let length = u32::from_be_bytes(self.array()?);
        self.take(usize::try_from(length).map_err(|_| Malformed)?)
    }

    /// Decimal digits up to `end`, which is taken as well.
    fn number(&mut self, end: u8) -> Result<u64, Malformed> {
        // The longest number has 20 digits.
        let at = self.0.iter().take(21).position(|byte| *byte == end).ok_or(Malformed)?;
        let number = parse_number(&self.take(at)?)?;
        self.take(1)?;
        Ok(number)
    }

    fn number_to_end(&mut self) -> Result<u64, Malformed> {
        parse_number(&std::mem::take(&mut self.0))
    }

    fn delta(&mut self) -> Result<Delta, Malformed> {
        let version = self.number(b':')?;
        let length = usize::try_from(self.number(b':')?).map_err(|_| Malformed)?;
        let user_id = text(&self.take(length)?)?;
        let info = std::mem::take(&mut self.0);
        let info = if info.is_empty() { None } else { Some(raw_json(&info)?) };
        Ok(Delta { version, user_id, info })
    }

    fn event(&mut self) -> Result<(Option<String>, Event), Malformed> {
        let flags = self.byte()?;
        if flags & !(HAS_EXCEPT | HAS_CACHE | HAS_ID) != 0 {
            return Err(Malformed);
        }
        let except = if flags & HAS_EXCEPT == 0 { None } else { Some(u64::from_be_bytes(self.array()?)) };
        let id = if flags & HAS_ID == 0 {
            None
        } else {
            let length = u16::from_be_bytes(self.array()?);
            Some(text(&self.take(usize::from(length))?)?)
        };
        let cache = if flags & HAS_CACHE == 0 {
            None
        } else {
            let ttl_ms = u64::from_be_bytes(self.array()?);
            Some(CachePart { ttl_ms, data: self.sized()? })
        };
        Ok((id, Event { except, cache, frame: std::mem::take(&mut self.0) }))
    }

    fn stored(&mut self) -> Result<Stored, Malformed> {
        let generation = u32::try_from(self.number(b'-')?).map_err(|_| Malformed)?;
        let serial = self.number(b':')?;
        let time_ms = self.number(b':')?;
        let size = u32::from_be_bytes(self.array()?);
        let (id, event) = self.event()?;
        Ok(Stored { generation, serial, time_ms, size, id, event })
    }
}

fn parse_number(digits: &[u8]) -> Result<u64, Malformed> {
    // `parse` would also take a sign.
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(Malformed);
    }
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or(Malformed)
}

fn text(bytes: &[u8]) -> Result<String, Malformed> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Malformed)
}

/// `user_info` as the scripts pass it on.
pub fn raw_json(bytes: &[u8]) -> Result<Box<RawValue>, Malformed> {
    text(bytes).and_then(|text| RawValue::from_string(text).map_err(|_| Malformed))
}

#[cfg(test)]
mod tests;
