//! Frames that wait for a client that reads slower than it is written to.
//!
//! It exists only while something waits. The bound is the caller's: see [`Outbox::bytes`].

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// Frames handed to the kernel in one call.
pub const MAX_SLICES: usize = 32;

#[derive(Debug, Default)]
pub struct Outbox {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// The first frame has been written in part.
    front_is_begun: bool,
}

impl Outbox {
    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Adds a frame, of which `written` bytes went out already when it is the first.
    pub fn push_rest(&mut self, mut frame: Bytes, written: usize) {
        debug_assert!(written == 0 || self.is_empty());
        self.front_is_begun |= written > 0;
        frame.advance(written);
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }

    /// The waiting bytes, as many frames as fit into `slices`; returns how many were set.
    pub fn fill<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut count = 0;
        for (slice, frame) in slices.iter_mut().zip(&self.frames) {
            *slice = IoSlice::new(frame);
            count += 1;
        }
        count
    }

    /// Removes `written` bytes from the front.
    pub fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(front) = self.frames.front_mut() {
            if written < front.len() {
                front.advance(written);
                self.front_is_begun |= written > 0;
                return;
            }
            written -= front.len();
            self.frames.pop_front();
            self.front_is_begun = false;
        }
    }

    /// Drops every frame that has not been begun, so that a close frame can follow at once.
    pub fn drop_unbegun(&mut self) {
        self.frames.truncate(usize::from(self.front_is_begun));
        self.bytes = self.frames.iter().map(Bytes::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(outbox: &Outbox) -> Vec<u8> {
        outbox.frames.iter().flatten().copied().collect()
    }

    #[test]
    fn a_partly_written_frame_is_finished_before_a_close() {
        let mut outbox = Outbox::default();
        outbox.push_rest(Bytes::from_static(b"abcd"), 1);
        outbox.push_rest(Bytes::from_static(b"efgh"), 0);
        outbox.drop_unbegun();
        outbox.push_rest(Bytes::from_static(b"!"), 0);
        assert_eq!(waiting(&outbox), b"bcd!");
        assert_eq!(outbox.bytes(), 4);
    }

    #[test]
    fn a_frame_that_was_not_begun_goes_with_the_rest() {
        let mut outbox = Outbox::default();
        outbox.push_rest(Bytes::from_static(b"abcd"), 0);
        outbox.drop_unbegun();
        assert!(outbox.is_empty());
        assert_eq!(outbox.bytes(), 0);
    }

    #[test]
    fn writes_may_end_anywhere() {
        let mut outbox = Outbox::default();
        outbox.push_rest(Bytes::from_static(b"ab"), 0);
        outbox.push_rest(Bytes::from_static(b"cd"), 0);
        outbox.push_rest(Bytes::from_static(b"ef"), 0);
        outbox.advance(3);
        assert_eq!(waiting(&outbox), b"def");
        outbox.drop_unbegun();
        assert_eq!(waiting(&outbox), b"d");
        outbox.advance(1);
        assert!(outbox.is_empty());
    }
}
