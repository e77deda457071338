//! WebSocket frames as a server reads and writes them (RFC 6455, sections 5 to 8), without a socket.

use std::borrow::Cow;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

/// Longest payload of a control frame (RFC 6455, 5.5).
pub const MAX_CONTROL_PAYLOAD_BYTES: usize = 125;
/// What a close code leaves of it.
const MAX_CLOSE_REASON_BYTES: usize = MAX_CONTROL_PAYLOAD_BYTES - 2;
const FIN: u8 = 0x80;
const RESERVED_BITS: u8 = 0x70;
const MASKED: u8 = 0x80;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpCode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl OpCode {
    fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0x0 => Some(Self::Continuation),
            0x1 => Some(Self::Text),
            0x2 => Some(Self::Binary),
            0x8 => Some(Self::Close),
            0x9 => Some(Self::Ping),
            0xa => Some(Self::Pong),
            _ => None,
        }
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }

    pub fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// One frame of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub fin: bool,
    pub opcode: OpCode,
    /// Where the payload lies in the input, already unmasked.
    pub payload: Range<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Call again with more bytes. `needed` is the size of the whole frame, 0 while its header is incomplete.
    Incomplete { needed: usize },
    /// The first `consumed` bytes of the input are this frame.
    Frame { consumed: usize, frame: Frame },
}

/// Why a client's frames cannot be read. The connection ends with [`FrameError::close_code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("reserved bits are set")]
    ReservedBits,
    #[error("unknown opcode {0}")]
    UnknownOpCode(u8),
    #[error("frame is not masked")]
    NotMasked,
    #[error("control frame is fragmented")]
    FragmentedControl,
    #[error("control frame carries more than 125 bytes")]
    LongControl,
    #[error("length is not encoded in the fewest bytes")]
    WastefulLength,
    #[error("length exceeds 63 bits")]
    ImpossibleLength,
    #[error("message exceeds {max_bytes} bytes")]
    TooLarge { max_bytes: usize },
    #[error("continuation of nothing")]
    NothingToContinue,
    #[error("new message inside a fragmented one")]
    UnfinishedMessage,
    #[error("text is not UTF-8")]
    NotUtf8,
    #[error("close frame carries half a code")]
    HalfCloseCode,
    #[error("close code {0} must not be sent")]
    InvalidCloseCode(u16),
}

impl FrameError {
    pub fn close_code(self) -> u16 {
        match self {
            Self::NotUtf8 => 1007,
            Self::TooLarge { .. } => 1009,
            _ => 1002,
        }
    }
}

/// Reads the frame at the start of `input` and unmasks its payload in place.
///
/// Everything wrong with a header is reported as soon as the header shows it: no byte of an oversized payload
/// has to arrive. A frame is unmasked once, when it is complete and returned.
pub fn parse_frame(input: &mut [u8], max_payload: usize) -> Result<Parsed, FrameError> {
    const HEADER_INCOMPLETE: Parsed = Parsed::Incomplete { needed: 0 };

    let Some(&first) = input.first() else { return Ok(HEADER_INCOMPLETE) };
    let fin = first & FIN != 0;
    if first & RESERVED_BITS != 0 {
        return Err(FrameError::ReservedBits);
    }
    let opcode = OpCode::from_bits(first & 0x0f).ok_or(FrameError::UnknownOpCode(first & 0x0f))?;
    if opcode.is_control() && !fin {
        return Err(FrameError::FragmentedControl);
    }

    let Some(&second) = input.get(1) else { return Ok(HEADER_INCOMPLETE) };
    if second & MASKED == 0 {
        return Err(FrameError::NotMasked);
    }
    if opcode.is_control() && usize::from(second & !MASKED) > MAX_CONTROL_PAYLOAD_BYTES {
        return Err(FrameError::LongControl);
    }
    let Some((length, mask_at)) = payload_length(second & !MASKED, &input[2..])? else {
        return Ok(HEADER_INCOMPLETE);
    };
    let length = usize::try_from(length)
        .ok()
        .filter(|length| opcode.is_control() || *length <= max_payload)
        .ok_or(FrameError::TooLarge { max_bytes: max_payload })?;

    let payload_at = mask_at + 4;
    // A caller without a bound could ask for more than the address space.
    let end = payload_at.checked_add(length).ok_or(FrameError::TooLarge { max_bytes: max_payload })?;
    if input.len() < end {
        return Ok(Parsed::Incomplete { needed: end });
    }
    let (header, payload) = input[..end].split_at_mut(payload_at);
    let mask = [header[mask_at], header[mask_at + 1], header[mask_at + 2], header[mask_at + 3]];
    unmask(payload, mask);
    Ok(Parsed::Frame { consumed: end, frame: Frame { fin, opcode, payload: payload_at..end } })
}

/// The payload length and where the mask starts, counted from the start of the frame; `None` while bytes of
/// the length are missing.
fn payload_length(short: u8, rest: &[u8]) -> Result<Option<(u64, usize)>, FrameError> {
    let (length, shortest, mask_at) = match short {
        126 => match rest.first_chunk() {
            Some(bytes) => (u64::from(u16::from_be_bytes(*bytes)), 126, 4),
            None => return Ok(None),
        },
        127 => match rest.first_chunk() {
            Some(bytes) => (u64::from_be_bytes(*bytes), 1 << 16, 10),
            None => return Ok(None),
        },
        short => (u64::from(short), 0, 2),
    };
    if length < shortest {
        return Err(FrameError::WastefulLength);
    }
    if length >> 63 != 0 {
        return Err(FrameError::ImpossibleLength);
    }
    Ok(Some((length, mask_at)))
}

/// Eight bytes at a time; the compiler makes vectors of it.
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide_mask = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, tail) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide_mask).to_ne_bytes();
    }
    for (byte, mask) in tail.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// A message of a client: text and binary ones are whole, however many frames they came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    Text(Cow<'a, str>),
    Binary(Cow<'a, [u8]>),
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    Close(Option<(u16, &'a str)>),
}

/// Joins fragments to messages. Costs one pointer while no fragmented message is under way.
#[derive(Debug, Default)]
pub struct Assembler {
    unfinished: Option<Box<Unfinished>>,
}

#[derive(Debug)]
struct Unfinished {
    is_text: bool,
    bytes: Vec<u8>,
    /// How much of a text is known to be UTF-8.
    checked: usize,
}

impl Assembler {
    /// Takes the next frame and its payload; `None` when the message goes on.
    ///
    /// `max_message_bytes` bounds the joined message. After an error the connection is to be closed.
    pub fn push<'a>(
        &mut self,
        frame: &Frame,
        payload: &'a [u8],
        max_message_bytes: usize,
    ) -> Result<Option<Message<'a>>, FrameError> {
        match frame.opcode {
            OpCode::Ping => Ok(Some(Message::Ping(payload))),
            OpCode::Pong => Ok(Some(Message::Pong(payload))),
            OpCode::Close => parse_close(payload).map(|close| Some(Message::Close(close))),
            OpCode::Continuation => self.go_on(frame.fin, payload, max_message_bytes),
            OpCode::Text | OpCode::Binary => {
                self.start(frame.fin, frame.opcode == OpCode::Text, payload, max_message_bytes)
            }
        }
    }

    /// True while no fragmented message is under way.
    pub fn is_idle(&self) -> bool {
        self.unfinished.is_none()
    }

    fn start<'a>(
        &mut self,
        fin: bool,
        is_text: bool,
        payload: &'a [u8],
        max_message_bytes: usize,
    ) -> Result<Option<Message<'a>>, FrameError> {
        if !self.is_idle() {
            return Err(FrameError::UnfinishedMessage);
        }
        if payload.len() > max_message_bytes {
            return Err(FrameError::TooLarge { max_bytes: max_message_bytes });
        }
        if !fin {
            let mut message = Unfinished { is_text, bytes: Vec::new(), checked: 0 };
            message.append(payload, max_message_bytes)?;
            self.unfinished = Some(Box::new(message));
            return Ok(None);
        }
        Ok(Some(if is_text {
            Message::Text(Cow::Borrowed(utf8(payload)?))
        } else {
            Message::Binary(Cow::Borrowed(payload))
        }))
    }

    fn go_on<'a>(
        &mut self,
        fin: bool,
        payload: &[u8],
        max_message_bytes: usize,
    ) -> Result<Option<Message<'a>>, FrameError> {
        let message = self.unfinished.as_mut().ok_or(FrameError::NothingToContinue)?;
        message.append(payload, max_message_bytes)?;
        if !fin {
            return Ok(None);
        }
        self.unfinished.take().map(|message| message.finish()).transpose()
    }
}

impl Unfinished {
    fn append(&mut self, payload: &[u8], max_message_bytes: usize) -> Result<(), FrameError> {
        if payload.len() > max_message_bytes.saturating_sub(self.bytes.len()) {
            return Err(FrameError::TooLarge { max_bytes: max_message_bytes });
        }
        self.bytes.extend_from_slice(payload);
        if self.is_text {
            self.check_text()?;
        }
        Ok(())
    }

    /// Fails on the first fragment that cannot become UTF-8; a character may still be cut at the end.
    fn check_text(&mut self) -> Result<(), FrameError> {
        match std::str::from_utf8(&self.bytes[self.checked..]) {
            Ok(text) => self.checked += text.len(),
            Err(error) if error.error_len().is_none() => self.checked += error.valid_up_to(),
            Err(_) => return Err(FrameError::NotUtf8),
        }
        Ok(())
    }

    fn finish(self) -> Result<Message<'static>, FrameError> {
        if !self.is_text {
            return Ok(Message::Binary(Cow::Owned(self.bytes)));
        }
        let text = String::from_utf8(self.bytes).map_err(|_| FrameError::NotUtf8)?;
        Ok(Message::Text(Cow::Owned(text)))
    }
}

fn parse_close(payload: &[u8]) -> Result<Option<(u16, &str)>, FrameError> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(None) } else { Err(FrameError::HalfCloseCode) };
    };
    let code = u16::from_be_bytes(*code);
    // The codes that an endpoint may send (RFC 6455, 7.4), as the Autobahn suite reads it.
    if !matches!(code, 1000..=1003 | 1007..=1011 | 3000..=4999) {
        return Err(FrameError::InvalidCloseCode(code));
    }
    Ok(Some((code, utf8(reason)?)))
}

fn utf8(bytes: &[u8]) -> Result<&str, FrameError> {
    std::str::from_utf8(bytes).map_err(|_| FrameError::NotUtf8)
}

pub fn encode_text(payload: &str) -> Bytes {
    encode(OpCode::Text, payload.as_bytes())
}

/// The text of a frame as [`encode_text`] made it; empty for bytes that it never makes.
pub fn text_of(frame: &[u8]) -> &str {
    let header = match frame.get(1) {
        Some(127) => 10,
        Some(126) => 4,
        _ => 2,
    };
    frame.get(header..).and_then(|payload| std::str::from_utf8(payload).ok()).unwrap_or_default()
}

pub fn encode_binary(payload: &[u8]) -> Bytes {
    encode(OpCode::Binary, payload)
}

/// The reason is cut to the 123 bytes that fit.
pub fn encode_close(code: u16, reason: &str) -> Bytes {
    let reason = &reason[..reason.floor_char_boundary(MAX_CLOSE_REASON_BYTES)];
    let mut payload = Vec::with_capacity(MAX_CONTROL_PAYLOAD_BYTES);
    payload.extend_from_slice(&code.to_be_bytes());
    payload.extend_from_slice(reason.as_bytes());
    encode(OpCode::Close, &payload)
}

/// The payload is cut to the 125 bytes that fit.
pub fn encode_ping(payload: &[u8]) -> Bytes {
    encode_control(OpCode::Ping, payload)
}

/// The payload is cut to the 125 bytes that fit; that of a client's ping always does.
pub fn encode_pong(payload: &[u8]) -> Bytes {
    encode_control(OpCode::Pong, payload)
}

fn encode_control(opcode: OpCode, payload: &[u8]) -> Bytes {
    encode(opcode, &payload[..payload.len().min(MAX_CONTROL_PAYLOAD_BYTES)])
}

/// A whole, unmasked frame.
fn encode(opcode: OpCode, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(payload.len() + 10);
    frame.put_u8(FIN | opcode.bits());
    if let Ok(short @ 0..126) = u8::try_from(payload.len()) {
        frame.put_u8(short);
    } else if let Ok(medium) = u16::try_from(payload.len()) {
        frame.put_u8(126);
        frame.put_u16(medium);
    } else {
        frame.put_u8(127);
        frame.put_u64(payload.len() as u64);
    }
    frame.put_slice(payload);
    frame.freeze()
}

#[cfg(test)]
mod tests;
