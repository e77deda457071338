//! The byte stream of one WebSocket after its handshake: frames in, frames out, the close.
//!
//! Nothing here knows the Pusher protocol; `examples/echo.rs` serves a plain echo on it, for RFC 6455 suites.

mod input;
mod outbox;
mod stream;
mod upgrade;

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use self::input::Input;
use self::outbox::{MAX_SLICES, Outbox};
pub use self::stream::Stream;
pub use self::upgrade::{Upgrade, is_upgrade, upgrade};

/// One end of a WebSocket. Frames are written at once; only what the kernel does not take is kept.
///
/// In the order of use: a delivery reads the first two fields.
#[derive(Debug)]
#[repr(C)]
pub struct Socket {
    stream: Stream,
    outbox: Option<Box<Outbox>>,
    /// Of the task that [flushes](Self::poll_flush).
    waker: Option<Waker>,
}

/// What became of a frame that was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Written, or waiting in the outbox. A connection that broke is noticed by its reading side.
    Accepted,
    /// The outbox is full: the client reads too slowly. Only the first `accepted` frames are on their way.
    Overflow { accepted: usize },
}

impl Socket {
    /// On a stream whose handshake is over.
    pub fn new(stream: Stream) -> Self {
        Self { stream, outbox: None, waker: None }
    }

    /// Reads what has arrived; nothing at the end of the stream.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }

    /// Sends a whole frame; `max_bytes` bounds what may wait.
    pub fn send(&mut self, frame: &Bytes, max_bytes: usize) -> Sent {
        self.send_all(frame, std::iter::once(frame), max_bytes)
    }

    /// Sends several frames with one write. `joined` is all of `frames` in one piece.
    pub fn send_all<'a>(
        &mut self,
        joined: &Bytes,
        frames: impl Iterator<Item = &'a Bytes>,
        max_bytes: usize,
    ) -> Sent {
        if self.outbox.is_some() {
            return self.queue(frames, 0, max_bytes);
        }
        match self.stream.try_write(joined) {
            Ok(written) if written == joined.len() && !self.stream.wants_flush() => Sent::Accepted,
            Ok(written) => self.queue(frames, written, max_bytes),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.queue(frames, 0, max_bytes),
            Err(error) if is_hang_up(&error) => Sent::Accepted,
            // Out of memory, for example: what was not sent must not be skipped in silence.
            Err(_) => Sent::Overflow { accepted: 0 },
        }
    }

    /// Queues what is left of `frames` after `written` bytes of them.
    fn queue<'a>(
        &mut self,
        frames: impl Iterator<Item = &'a Bytes>,
        mut written: usize,
        max_bytes: usize,
    ) -> Sent {
        let outbox = match &mut self.outbox {
            Some(outbox) => outbox,
            none => {
                wake(self.waker.as_ref());
                none.insert(Box::default())
            }
        };
        let mut accepted = 0;
        for frame in frames {
            if written >= frame.len() {
                written -= frame.len();
                accepted += 1;
                continue;
            }
            let mut is_too_much = outbox.bytes() + frame.len() - written > max_bytes;
            if is_too_much && written == 0 {
                // The client may have read all of it since: only the task that flushes had no turn yet.
                flush_now(&mut self.stream, outbox, self.waker.as_ref());
                is_too_much = outbox.bytes() + frame.len() > max_bytes;
            }
            // What was begun has to be finished, or the close frame would end up inside it.
            if !is_too_much || written > 0 {
                outbox.push_rest(frame.clone(), written);
                accepted += 1;
            }
            if is_too_much {
                return Sent::Overflow { accepted };
            }
            written = 0;
        }
        Sent::Accepted
    }

    /// Sends the last frame: what waits and has not been begun is dropped for it.
    pub fn send_last(&mut self, frame: &Bytes) {
        if let Some(outbox) = &mut self.outbox {
            outbox.drop_unbegun();
        }
        self.send(frame, usize::MAX);
    }

    /// Nothing waits to be written.
    pub fn is_idle(&self) -> bool {
        self.outbox.is_none()
    }

    /// Gives the task of [`poll_flush`](Self::poll_flush) a turn.
    pub fn wake(&self) {
        wake(self.waker.as_ref());
    }

    /// Writes what waits. Its task is woken whenever something begins to wait.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        if let Some(outbox) = &mut self.outbox {
            ready!(poll_write_all(&mut self.stream, outbox, cx))?;
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.outbox = None;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what waits, then tells the peer that nothing more will come.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The peer is gone; the reading side sees it too, and ends the connection.
fn is_hang_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected)
}

/// Writes what the kernel takes right now. The task is woken because this poll took its place as the one to wake.
fn flush_now(stream: &mut Stream, outbox: &mut Outbox, task: Option<&Waker>) {
    let _ = poll_write_all(stream, outbox, &mut Context::from_waker(Waker::noop()));
    wake(task);
}

fn wake(task: Option<&Waker>) {
    if let Some(task) = task {
        task.wake_by_ref();
    }
}

fn poll_write_all(stream: &mut Stream, outbox: &mut Outbox, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    while !outbox.is_empty() {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let count = outbox.fill(&mut slices);
        let written = ready!(Pin::new(&mut *stream).poll_write_vectored(cx, &slices[..count]))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        outbox.advance(written);
    }
    Poll::Ready(Ok(()))
}
