//! WebSocket frames: however the bytes of a client arrive, the same messages come out of them.

use tidewire_protocol::frame::{
    Assembler, Frame, FrameError, MAX_CONTROL_PAYLOAD_BYTES, Message, OpCode, Parsed, encode_close,
    encode_ping, encode_pong, encode_text, parse_frame, text_of,
};

/// Small, so that the fuzzer finds its way over it.
const MAX_MESSAGE_BYTES: usize = 300;

/// What a connection saw, with nothing borrowed.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
    Failed(FrameError),
}

pub fn check(input: &[u8]) {
    let Some((&chunk, stream)) = input.split_first() else { return };
    let at_once = read(stream, stream.len().max(1));
    let in_pieces = read(stream, usize::from(chunk).max(1));
    assert_eq!(at_once, in_pieces, "the size of the reads shows in the messages");
    round_trip(stream);
}

/// Reads a stream as a connection does: `chunk` bytes arrive at a time, frames are taken off the front.
fn read(stream: &[u8], chunk: usize) -> Vec<Seen> {
    let (mut buffer, mut assembler, mut seen) = (Vec::new(), Assembler::default(), Vec::new());
    for bytes in stream.chunks(chunk) {
        buffer.extend_from_slice(bytes);
        loop {
            let before = buffer.clone();
            match parse_frame(&mut buffer, MAX_MESSAGE_BYTES) {
                Ok(Parsed::Incomplete { needed }) => {
                    assert_eq!(buffer, before, "an incomplete frame is left as it is");
                    assert!(needed == 0 || needed > buffer.len());
                    assert!(needed <= MAX_MESSAGE_BYTES + 14, "{needed} bytes asked for");
                    break;
                }
                Ok(Parsed::Frame { consumed, frame }) => {
                    check_frame(&frame, consumed, buffer.len());
                    match assembler.push(&frame, &buffer[frame.payload.clone()], MAX_MESSAGE_BYTES) {
                        Ok(message) => seen.extend(message.map(own)),
                        Err(error) => return fail(seen, error),
                    }
                    assert!(frame.opcode.is_control() || frame.fin == assembler.is_idle());
                    buffer.drain(..consumed);
                }
                Err(error) => return fail(seen, error),
            }
        }
    }
    seen
}

fn check_frame(frame: &Frame, consumed: usize, available: usize) {
    assert!(0 < consumed && consumed <= available);
    assert!(frame.payload.start <= frame.payload.end && frame.payload.end == consumed);
    if frame.opcode.is_control() {
        assert!(frame.fin && frame.payload.len() <= MAX_CONTROL_PAYLOAD_BYTES);
    } else {
        assert!(frame.payload.len() <= MAX_MESSAGE_BYTES);
    }
}

fn own(message: Message<'_>) -> Seen {
    match message {
        Message::Text(text) => {
            assert!(text.len() <= MAX_MESSAGE_BYTES);
            Seen::Text(text.into_owned())
        }
        Message::Binary(bytes) => {
            assert!(bytes.len() <= MAX_MESSAGE_BYTES);
            Seen::Binary(bytes.into_owned())
        }
        Message::Ping(payload) => Seen::Ping(payload.to_vec()),
        Message::Pong(payload) => Seen::Pong(payload.to_vec()),
        Message::Close(reason) => {
            assert!(
                reason.is_none_or(
                    |(code, _)| (1000..5000).contains(&code) && ![1005, 1006, 1015].contains(&code)
                )
            );
            Seen::Close(reason.map(|(code, text)| (code, text.to_owned())))
        }
    }
}

fn fail(mut seen: Vec<Seen>, error: FrameError) -> Vec<Seen> {
    assert!([1002, 1007, 1009].contains(&error.close_code()));
    seen.push(Seen::Failed(error));
    seen
}

/// What the server writes is a well-formed frame: masked, it reads back as it was meant.
fn round_trip(payload: &[u8]) {
    let text = String::from_utf8_lossy(payload);
    let control = &payload[..payload.len().min(MAX_CONTROL_PAYLOAD_BYTES)];
    assert_eq!(read_back(&encode_text(&text), OpCode::Text), text.as_bytes());
    assert_eq!(text_of(&encode_text(&text)), text);
    assert_eq!(read_back(&encode_ping(control), OpCode::Ping), control);
    assert_eq!(read_back(&encode_pong(control), OpCode::Pong), control);
    let close = read_back(&encode_close(4200, &text), OpCode::Close);
    let (code, reason) = close.split_at(2);
    assert_eq!(code, 4200u16.to_be_bytes());
    assert!(text.as_bytes().starts_with(reason), "a long reason is cut, not changed");
    assert!(std::str::from_utf8(reason).is_ok(), "a long reason is cut between characters");
}

/// Turns a frame of the server into one of a client (mask bit, mask) and parses it.
fn read_back(encoded: &[u8], opcode: OpCode) -> Vec<u8> {
    let mut server_frame = encoded.to_vec();
    assert_eq!(parse_frame(&mut server_frame, usize::MAX), Err(FrameError::NotMasked));
    let header = match encoded[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let mask = [0x11, 0x22, 0x33, 0x44];
    let mut client_frame = encoded[..header].to_vec();
    client_frame[1] |= 0x80;
    client_frame.extend(mask);
    client_frame.extend(encoded[header..].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    match parse_frame(&mut client_frame, usize::MAX) {
        Ok(Parsed::Frame { consumed, frame }) => {
            assert_eq!((consumed, frame.fin, frame.opcode), (client_frame.len(), true, opcode));
            client_frame[frame.payload].to_vec()
        }
        other => panic!("{other:?} of {encoded:?}"),
    }
}
