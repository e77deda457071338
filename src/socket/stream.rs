//! The three kinds of byte stream below a WebSocket.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use rustix::net::SendFlags;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::coop;
use tokio_rustls::server::TlsStream;

/// A stream whose handshake is over.
#[derive(Debug)]
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// The client is in this process: it speaks for somebody who cannot speak WebSocket.
    Pipe(DuplexStream),
}

impl Stream {
    /// Lets the peer leave what it is sent unread for as long as it likes; the listener's sockets have a limit.
    pub fn lift_write_timeout(&self) {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
            // Whoever reads the other end sees to that.
            Self::Pipe(_) => return,
        };
        // A socket that is broken already is noticed soon enough.
        #[cfg(target_os = "linux")]
        let _ = rustix::net::sockopt::set_tcp_user_timeout(stream, 0);
    }

    /// Writes what is taken at once. `WouldBlock` when that is nothing.
    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            // Not `TcpStream::try_write`: that reads the readiness tokio keeps for each socket, one more cache miss a
            // delivery. A later `poll_write_vectored` finds out for itself that it has to wait.
            Self::Plain(stream) => {
                Ok(rustix::net::send(stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
            }
            Self::Tls(stream) => {
                let written = write_now(stream, bytes);
                let _ = poll_now(|cx| Pin::new(&mut *stream).poll_flush(cx));
                written
            }
            Self::Pipe(stream) => write_now(stream, bytes),
        }
    }

    /// Encrypted bytes wait for the kernel, though everything was taken.
    pub(super) fn wants_flush(&self) -> bool {
        match self {
            Self::Plain(_) | Self::Pipe(_) => false,
            Self::Tls(stream) => stream.get_ref().1.wants_write(),
        }
    }
}

fn write_now(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<usize> {
    match poll_now(|cx| Pin::new(&mut *stream).poll_write(cx, bytes)) {
        Poll::Ready(written) => written,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// Polls once. Nobody is to be woken: the caller queues what is left, and its task polls anew.
///
/// Not within tokio's budget of the task: that of a delivery would be spent after 128 streams, and all others
/// would look as if they had no room.
fn poll_now<T>(poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    pin!(coop::unconstrained(poll_fn(poll))).poll(&mut Context::from_waker(Waker::noop()))
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Pipe(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Pipe(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Pipe(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Pipe(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Pipe(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
