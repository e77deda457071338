//! The task of one connection: it reads into the worker's shared buffer and flushes the outbox.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

use super::Phase;
use crate::socket::Reader;
use crate::worker::Worker;

/// Small on purpose: everything else of the connection is in the worker's slab.
pub struct ConnectionTask {
    pub worker: Rc<Worker>,
    pub slot: u32,
    pub generation: u32,
    pub reader: Reader,
}

impl Future for ConnectionTask {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { worker, slot, generation, reader } = &mut *self;
        loop {
            let mut buffer = worker.read_buffer();
            let mut read = ReadBuf::new(&mut buffer);
            match Pin::new(&mut *reader).poll_read(cx, &mut read) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) if read.filled().is_empty() => return Poll::Ready(()),
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) => worker.receive(*slot, *generation, read.filled_mut()),
            }
        }
        let mut state = worker.state();
        let Some(connection) = state.connection_mut(*slot, *generation) else { return Poll::Ready(()) };
        // A write error is seen by the next read.
        let _ = match connection.phase {
            Phase::Open => connection.socket.poll_flush(cx),
            Phase::Closing => connection.socket.poll_shutdown(cx),
            Phase::Expired => return Poll::Ready(()),
        };
        Poll::Pending
    }
}

impl Drop for ConnectionTask {
    fn drop(&mut self) {
        self.worker.remove(self.slot, self.generation);
    }
}
