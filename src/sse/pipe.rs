//! The client's end of the pipe to a connection in the worker's slab: frames of the server in, a pong out.
//!
//! The server writes to it exactly as to a socket, so all it does for slow, silent and closing clients holds for
//! event streams. A mask of zeros is a mask: what the client says needs no copy to be masked.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use crate::socket::Stream;

/// What may be in the pipe; more waits in the connection's outbox, as it does for a socket.
const PIPE_BYTES: usize = 16 * 1024;

const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
const MASKED: u8 = 0x80;
const NO_MASK: [u8; 4] = [0; 4];

#[derive(Debug)]
pub struct Pipe {
    stream: Stream,
    /// Bytes of a frame that is not complete; empty most of the time.
    partial: Vec<u8>,
}

/// What the server said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said<'a> {
    Text(&'a str),
    /// Nothing follows.
    Close {
        code: u16,
        reason: &'a str,
    },
}

/// How reading went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There may be more.
    Read,
    /// The connection is gone.
    Ended,
}

impl Pipe {
    /// Both ends: the worker's and the client's.
    pub fn new() -> (Stream, Self) {
        let (server, client) = tokio::io::duplex(PIPE_BYTES);
        (Stream::Pipe(server), Self { stream: Stream::Pipe(client), partial: Vec::new() })
    }

    /// Reads what has arrived through `buffer`, and hands on each frame that is complete. Pings are answered.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        mut on_said: impl FnMut(Said<'_>),
    ) -> Poll<Progress> {
        let mut read = ReadBuf::new(buffer);
        let Self { stream, partial } = self;
        match ready!(Pin::new(&mut *stream).poll_read(cx, &mut read)) {
            Ok(()) if !read.filled().is_empty() => {}
            // Never an error: both ends are in this process.
            Ok(()) | Err(_) => return Poll::Ready(Progress::Ended),
        }
        let mut on_frame = |first: u8, payload: &[u8]| match first {
            TEXT => on_said(Said::Text(std::str::from_utf8(payload).unwrap_or_default())),
            CLOSE => on_said(close_of(payload)),
            PING => send(stream, PONG, payload),
            _ => {}
        };
        if partial.is_empty() {
            let consumed = cut(read.filled(), &mut on_frame);
            partial.extend_from_slice(&read.filled()[consumed..]);
        } else {
            partial.extend_from_slice(read.filled());
            let consumed = cut(partial, &mut on_frame);
            partial.drain(..consumed);
        }
        if partial.is_empty() {
            // A stream that is quiet again holds no memory for what it once received.
            *partial = Vec::new();
        }
        Poll::Ready(Progress::Read)
    }
}

/// A client's text frame.
pub fn text_frame(text: &str) -> Vec<u8> {
    client_frame(TEXT, text.as_bytes())
}

/// Control frames are few and small: there is always room. Nobody is left to hear it when the write fails.
fn send(stream: &mut Stream, first: u8, payload: &[u8]) {
    let frame = client_frame(first, payload);
    let written = stream.try_write(&frame);
    debug_assert!(!written.is_ok_and(|count| count < frame.len()));
}

fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 14);
    frame.push(first);
    match payload.len() {
        short @ 0..126 => frame.push(MASKED | short as u8),
        medium @ 126..=0xffff => {
            frame.push(MASKED | 126);
            frame.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            frame.push(MASKED | 127);
            frame.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&NO_MASK);
    frame.extend_from_slice(payload);
    frame
}

/// Hands on each complete frame and returns how many bytes they took. The server's frames are whole and unmasked.
fn cut(bytes: &[u8], on_frame: &mut impl FnMut(u8, &[u8])) -> usize {
    let mut position = 0;
    while let Some((payload_at, end)) = frame_bounds(&bytes[position..]) {
        let frame = &bytes[position..position + end];
        on_frame(frame[0], &frame[payload_at..]);
        position += end;
    }
    position
}

/// Where the payload of the first frame begins and ends, once all of it is there.
fn frame_bounds(bytes: &[u8]) -> Option<(usize, usize)> {
    let (payload_at, length) = match *bytes.get(1)? {
        126 => (4, u64::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
        127 => (10, u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?)),
        short => (2, u64::from(short)),
    };
    let end = usize::try_from(length).ok()?.checked_add(payload_at)?;
    (bytes.len() >= end).then_some((payload_at, end))
}

fn close_of(payload: &[u8]) -> Said<'_> {
    match payload.split_first_chunk() {
        Some((code, reason)) => Said::Close {
            code: u16::from_be_bytes(*code),
            reason: std::str::from_utf8(reason).unwrap_or_default(),
        },
        None => Said::Close { code: 1000, reason: "" },
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tidewire_protocol::frame::{self, Assembler, Message, Parsed};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    async fn said(pipe: &mut Pipe, buffer_bytes: usize) -> (Vec<String>, Progress) {
        let mut texts = Vec::new();
        let mut buffer = vec![0; buffer_bytes];
        let progress = poll_fn(|cx| {
            pipe.poll_read(cx, &mut buffer, |said| {
                texts.push(match said {
                    Said::Text(text) => text.to_owned(),
                    Said::Close { code, reason } => format!("{code} {reason}"),
                });
            })
        });
        let progress = progress.await;
        (texts, progress)
    }

    fn server(stream: Stream) -> DuplexStream {
        match stream {
            Stream::Pipe(stream) => stream,
            _ => panic!("a pipe"),
        }
    }

    #[tokio::test]
    async fn frames_are_cut_however_they_arrive() {
        for length in [0, 5, 125, 126, 300] {
            let text = "x".repeat(length);
            let bytes = [
                &frame::encode_text("one")[..],
                &frame::encode_text(&text),
                &frame::encode_close(4200, "bye"),
            ]
            .concat();
            for buffer_bytes in [1, 2, 7, 4096] {
                let (stream, mut pipe) = Pipe::new();
                let mut server = server(stream);
                server.write_all(&bytes).await.unwrap();
                drop(server);
                let mut texts = Vec::new();
                loop {
                    let (more, progress) = said(&mut pipe, buffer_bytes).await;
                    texts.extend(more);
                    if progress == Progress::Ended {
                        break;
                    }
                }
                assert_eq!(texts, ["one", &text, "4200 bye"]);
                assert_eq!(pipe.partial.capacity(), 0);
            }
        }
    }

    #[tokio::test]
    async fn a_frame_larger_than_pipe_and_buffer_is_put_together() {
        let text = "é".repeat(50_000);
        let frame = frame::encode_text(&text);
        let (stream, mut pipe) = Pipe::new();
        let mut server = server(stream);
        let writing = async { server.write_all(&frame).await.unwrap() };
        let reading = async {
            loop {
                let (texts, _) = said(&mut pipe, 4096).await;
                if let [whole] = &*texts {
                    break whole.clone();
                }
            }
        };
        assert_eq!(tokio::join!(writing, reading).1, text);
    }

    #[tokio::test]
    async fn a_ping_is_answered_as_a_client_answers() {
        let (stream, mut pipe) = Pipe::new();
        let mut server = server(stream);
        server.write_all(&frame::encode_ping(b"abc")).await.unwrap();
        assert_eq!(said(&mut pipe, 64).await.0, [""; 0]);
        let mut bytes = vec![0; 64];
        let count = server.read(&mut bytes).await.unwrap();
        let mut rest = &mut bytes[..count];
        let mut messages = Vec::new();
        while !rest.is_empty() {
            let Ok(Parsed::Frame { consumed, frame }) = frame::parse_frame(rest, 125) else {
                panic!("whole frames")
            };
            let payload = rest[frame.payload.clone()].to_vec();
            match Assembler::default().push(&frame, &payload, 125).unwrap() {
                Some(Message::Pong(payload)) => {
                    messages.push(format!("pong {}", String::from_utf8_lossy(payload)))
                }
                other => panic!("{other:?}"),
            }
            rest = &mut rest[consumed..];
        }
        assert_eq!(messages, ["pong abc"]);
    }

    #[test]
    fn a_client_frame_is_read_by_the_server_whatever_its_length() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let text = "x".repeat(length);
            let mut frame = text_frame(&text);
            let Ok(Parsed::Frame { consumed, frame: parsed }) = frame::parse_frame(&mut frame, 1 << 20)
            else {
                panic!("{length}")
            };
            assert_eq!(consumed, frame.len());
            assert_eq!(&frame[parsed.payload], text.as_bytes());
        }
    }
}
