//! The two kinds of byte stream below a WebSocket, each split into a reading and a writing side.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_rustls::server::TlsStream;

/// A stream whose handshake is over.
#[derive(Debug)]
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

#[derive(Debug)]
pub enum Reader {
    Plain(OwnedReadHalf),
    /// Both sides work on one TLS session; they belong to one thread and never overlap.
    Tls(Rc<RefCell<TlsStream<TcpStream>>>),
}

#[derive(Debug)]
pub(super) enum Writer {
    Plain(OwnedWriteHalf),
    Tls(Rc<RefCell<TlsStream<TcpStream>>>),
}

impl Stream {
    pub(super) fn into_split(self) -> (Reader, Writer) {
        match self {
            Self::Plain(stream) => {
                let (reader, writer) = stream.into_split();
                (Reader::Plain(reader), Writer::Plain(writer))
            }
            Self::Tls(stream) => {
                let shared = Rc::new(RefCell::new(*stream));
                (Reader::Tls(Rc::clone(&shared)), Writer::Tls(shared))
            }
        }
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(reader) => Pin::new(reader).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(&mut *stream.borrow_mut()).poll_read(cx, buffer),
        }
    }
}

impl Writer {
    /// Writes what is taken at once. `WouldBlock` when that is nothing.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(writer) => writer.try_write(bytes),
            Self::Tls(stream) => {
                // Nobody is to be woken: the caller queues what is left, and its task polls anew.
                let mut cx = Context::from_waker(Waker::noop());
                let mut stream = stream.borrow_mut();
                match Pin::new(&mut *stream).poll_write(&mut cx, bytes) {
                    Poll::Ready(written) => {
                        let _ = Pin::new(&mut *stream).poll_flush(&mut cx);
                        written
                    }
                    Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
                }
            }
        }
    }

    /// Encrypted bytes wait for the kernel, though everything was taken.
    pub fn wants_flush(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.borrow().get_ref().1.wants_write(),
        }
    }

    pub fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(writer) => Pin::new(writer).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(&mut *stream.borrow_mut()).poll_write_vectored(cx, slices),
        }
    }

    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(writer) => Pin::new(writer).poll_flush(cx),
            Self::Tls(stream) => Pin::new(&mut *stream.borrow_mut()).poll_flush(cx),
        }
    }

    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        match self {
            Self::Plain(writer) => Pin::new(writer).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(&mut *stream.borrow_mut()).poll_shutdown(cx),
        }
    }
}
