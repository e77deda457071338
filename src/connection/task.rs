//! The task of one connection: it reads into the worker's shared buffer and flushes the outbox.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::ReadBuf;

use super::{Phase, receive};
use crate::worker::Worker;

/// Small on purpose: everything of the connection is in the worker's slab.
pub struct ConnectionTask {
    pub worker: Rc<Worker>,
    pub slot: u32,
    pub generation: u32,
}

impl Future for ConnectionTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.worker.state();
        let mut buffer = self.worker.read_buffer();
        loop {
            let Some(connection) = state.connection_mut(self.slot, self.generation) else {
                return Poll::Ready(());
            };
            let mut read = ReadBuf::new(&mut buffer);
            match connection.socket.poll_read(cx, &mut read) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) if read.filled().is_empty() => return Poll::Ready(()),
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) if connection.is_open() => {
                    receive(&mut state, self.slot, read.filled_mut());
                }
                Poll::Ready(Ok(())) => {}
            }
        }
        let Some(connection) = state.connection_mut(self.slot, self.generation) else {
            return Poll::Ready(());
        };
        // A write error is seen by the next read.
        match connection.phase {
            Phase::Open => {
                let flushed = connection.socket.poll_flush(cx);
                if flushed.is_ready() && connection.replaying.is_some() {
                    state.chase(self.slot);
                }
            }
            Phase::Closing => drop(connection.socket.poll_shutdown(cx)),
            Phase::Expired => return Poll::Ready(()),
        }
        Poll::Pending
    }
}

impl Drop for ConnectionTask {
    fn drop(&mut self) {
        self.worker.remove(self.slot, self.generation);
    }
}
