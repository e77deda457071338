//! Where an event stream is in the logs of its channels, as the one string that an `EventSource` remembers.
//!
//! A stream of one channel has the position itself: `k3Jd9Q.2:1842`. One of several has a vector of them, `m1.` and
//! base64url over, for each channel: the hash of its name (4 bytes), the nonce of its epoch (0 where it is that of the
//! entry before: a store has one for all), the generation and the serial, all as varints. The epochs are whole, so a
//! cursor is resolved exactly as that of a socket is.

use data_encoding::BASE64URL_NOPAD;
use tidewire_protocol::position::{Epoch, Position};

/// Channels of one stream.
pub const MAX_CHANNELS: usize = 10;

const VECTOR: &str = "m1.";
/// A vector of the most channels is shorter.
const MAX_TEXT_BYTES: usize = 512;

/// A cursor that a client brought along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cursor {
    One(Position),
    /// By the hash of the channel's name.
    Many(Vec<(u32, Position)>),
}

/// A text that no cursor of a stream is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "Not a cursor of this stream: it must be an id that the stream sent, or the position of its one channel"
)]
pub struct InvalidCursor;

impl Cursor {
    pub fn parse(text: &str) -> Result<Self, InvalidCursor> {
        match text.strip_prefix(VECTOR) {
            Some(vector) => decode(vector).map(Self::Many),
            None => text.parse().ok().map(Self::One),
        }
        .ok_or(InvalidCursor)
    }

    /// The position in one of `count` channels. A channel that a vector does not know has none: the stream had no
    /// position there, or not this channel.
    pub fn position_in(&self, channel: &str, count: usize) -> Result<Option<Position>, InvalidCursor> {
        match self {
            Self::One(position) if count == 1 => Ok(Some(*position)),
            Self::One(_) => Err(InvalidCursor),
            Self::Many(entries) => {
                let hash = hash(channel);
                Ok(entries.iter().find(|(of, _)| *of == hash).map(|(_, position)| *position))
            }
        }
    }
}

/// Where a stream is in one of its channels.
#[derive(Clone, Debug)]
pub struct Place {
    pub channel: Box<str>,
    /// `None` while the channel has no position: it is not stored, or nothing of a rewind has come yet.
    pub position: Option<Position>,
}

/// The cursor of a stream that is there. `None` when it has no position at all.
pub fn encode(places: &[Place]) -> Option<String> {
    if let [place] = places {
        return place.position.map(|position| position.to_string());
    }
    let mut bytes = Vec::with_capacity(places.len() * 16);
    let mut nonce = 0;
    for place in places {
        let Some(Position { epoch, serial }) = place.position else { continue };
        bytes.extend_from_slice(&hash(&place.channel).to_be_bytes());
        push_varint(&mut bytes, if epoch.nonce == nonce { 0 } else { epoch.nonce });
        push_varint(&mut bytes, epoch.generation.into());
        push_varint(&mut bytes, serial);
        nonce = epoch.nonce;
    }
    (!bytes.is_empty()).then(|| format!("{VECTOR}{}", BASE64URL_NOPAD.encode(&bytes)))
}

fn decode(text: &str) -> Option<Vec<(u32, Position)>> {
    if text.is_empty() || text.len() > MAX_TEXT_BYTES {
        return None;
    }
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
    let mut rest = &*bytes;
    let mut entries = Vec::new();
    let mut nonce = 0;
    while !rest.is_empty() {
        let (hash, after) = rest.split_first_chunk()?;
        rest = after;
        nonce = match take_varint(&mut rest)? {
            0 => nonce,
            other => other,
        };
        let generation = take_varint(&mut rest)?.try_into().ok()?;
        let position = Position { epoch: Epoch { nonce, generation }, serial: take_varint(&mut rest)? };
        entries.push((u32::from_be_bytes(*hash), position));
    }
    (entries.len() <= MAX_CHANNELS).then_some(entries)
}

fn push_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// FNV-1a. Two channels with the same hash cannot be in one stream: see
/// [`StreamRequest`](super::request::StreamRequest).
pub fn hash(channel: &str) -> u32 {
    channel.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(text: &str) -> Position {
        text.parse().unwrap()
    }

    fn place(channel: &str, at: Option<&str>) -> Place {
        Place { channel: channel.into(), position: at.map(position) }
    }

    #[test]
    fn a_stream_of_one_channel_has_its_position() {
        assert_eq!(encode(&[place("a", Some("k3Jd9Q.2:1842"))]).as_deref(), Some("k3Jd9Q.2:1842"));
        assert_eq!(encode(&[place("a", None)]), None);
        let cursor = Cursor::parse("k3Jd9Q.2:1842").unwrap();
        assert_eq!(cursor.position_in("a", 1), Ok(Some(position("k3Jd9Q.2:1842"))));
        assert_eq!(cursor.position_in("a", 2), Err(InvalidCursor));
    }

    #[test]
    fn a_vector_tells_every_channel_its_own_position() {
        let far = format!("{}:{}", Epoch { nonce: u64::MAX, generation: u32::MAX }, u64::MAX);
        let places = [
            place("a", Some("k3Jd9Q.2:1842")),
            place("private-b", None),
            place("c", Some("k3Jd9Q.1:0")),
            place("d", Some(&far)),
            place("e", Some("k3Jd9Q.0:128")),
        ];
        let text = encode(&places).unwrap();
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)), "{text}");
        let cursor = Cursor::parse(&text).unwrap();
        for place in &places {
            assert_eq!(cursor.position_in(&place.channel, places.len()), Ok(place.position));
        }
        assert_eq!(cursor.position_in("another", 5), Ok(None));
        assert_eq!(encode(&[place("a", None), place("b", None)]), None);
    }

    #[test]
    fn the_longest_vector_is_read_again() {
        let far = format!("{}:{}", Epoch { nonce: u64::MAX, generation: u32::MAX }, u64::MAX);
        let near = format!("{}:{}", Epoch { nonce: u64::MAX - 1, generation: u32::MAX }, u64::MAX);
        let places: Vec<Place> = (0..MAX_CHANNELS)
            .map(|number| place(&format!("c-{number}"), Some(if number % 2 == 0 { &far } else { &near })))
            .collect();
        let text = encode(&places).unwrap();
        let Ok(Cursor::Many(entries)) = Cursor::parse(&text) else { panic!("{text}") };
        assert_eq!(entries.len(), MAX_CHANNELS);
    }

    #[test]
    fn every_other_text_is_refused() {
        let good = encode(&[place("a", Some("k.2:1842")), place("b", Some("k.2:1"))]).unwrap();
        for cut in 0..good.len() {
            if let Ok(Cursor::Many(entries)) = Cursor::parse(&good[..cut]) {
                assert!(entries.len() < 2, "{cut}");
            }
        }
        for text in ["", "m1.", "m1", "m1.!", "m1.AAAA", "m2.AAAA", "1842", "k.2:", "m1.é", &"A".repeat(600)]
        {
            assert_eq!(Cursor::parse(text), Err(InvalidCursor), "{text}");
        }
        let many: Vec<u8> = (0..=MAX_CHANNELS).flat_map(|number| [0, 0, 0, number as u8, 1, 1, 1]).collect();
        let text = format!("m1.{}", BASE64URL_NOPAD.encode(&many));
        assert_eq!(Cursor::parse(&text), Err(InvalidCursor));
        let overlong = [vec![0, 0, 0, 0, 1], vec![0xff; 9], vec![0x02, 1]].concat();
        let text = format!("m1.{}", BASE64URL_NOPAD.encode(&overlong));
        assert_eq!(Cursor::parse(&text), Err(InvalidCursor));
    }
}
