//! The few RFC 6455 frames a client and a bare sender need.

use std::ops::Range;

use anyhow::{Result, bail};

pub const TEXT: u8 = 0x1;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xA;

/// The server has to unmask, whatever the key: one that is not zero makes it do the work.
const MASK: [u8; 4] = [0x1d, 0x2e, 0x3f, 0x40];

pub struct Frame {
    pub opcode: u8,
    pub payload: Range<usize>,
    /// Bytes of the frame, head included.
    pub length: usize,
}

/// The first complete frame of `input` as a server sends it, `None` while bytes are missing.
pub fn parse(input: &[u8]) -> Result<Option<Frame>> {
    let [first, second, rest @ ..] = input else { return Ok(None) };
    if first & 0xf0 != 0x80 {
        bail!("the server sent a fragment or reserved bits: {first:#x}");
    }
    if second & 0x80 != 0 {
        bail!("the server sent a masked frame");
    }
    let (head, length) = match (second & 0x7f, rest.len()) {
        (126, 0..2) | (127, 0..8) => return Ok(None),
        (126, _) => (4, usize::from(u16::from_be_bytes([rest[0], rest[1]]))),
        (127, _) => (10, rest[..8].iter().fold(0, |length, byte| length << 8 | usize::from(*byte))),
        (short, _) => (2, usize::from(short)),
    };
    let end = head + length;
    Ok((input.len() >= end).then_some(Frame { opcode: first & 0x0f, payload: head..end, length: end }))
}

/// A text frame as a server sends it.
pub fn server_text(text: &str) -> Vec<u8> {
    let mut frame = head(TEXT, text.len(), 0);
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// A frame as a client sends it: masked.
pub fn client(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = head(opcode, payload.len(), 0x80);
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn head(opcode: u8, length: usize, mask_bit: u8) -> Vec<u8> {
    let mut head = Vec::with_capacity(length + 14);
    head.push(0x80 | opcode);
    match length {
        0..=125 => head.push(mask_bit | length as u8),
        126..=0xffff => {
            head.push(mask_bit | 126);
            head.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            head.push(mask_bit | 127);
            head.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_found_once_all_of_it_is_there() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let text = "x".repeat(length);
            let bytes = server_text(&text);
            for cut in [0, 1, bytes.len() / 2, bytes.len() - 1] {
                assert!(parse(&bytes[..cut]).unwrap().is_none(), "{length} cut at {cut}");
            }
            let frame = parse(&[&bytes[..], b"more"].concat()).unwrap().unwrap();
            assert_eq!((frame.opcode, frame.payload.len(), frame.length), (TEXT, length, bytes.len()));
        }
    }

    #[test]
    fn what_a_client_sends_is_masked_and_a_server_may_not() {
        let bytes = client(TEXT, b"hello");
        assert_eq!(bytes[1], 0x80 | 5);
        assert_ne!(&bytes[6..], b"hello");
        assert!(parse(&bytes).is_err());
    }
}
