//! Bytes become messages: frames are cut and fragments joined.

use std::ops::ControlFlow;

use tidewire_protocol::frame::{self, Assembler, FrameError, Message, Parsed};

/// What has arrived of a message that is not complete. Empty most of the time, and then worth nothing: whoever
/// keeps one for each connection boxes it, or drops it while it [is idle](Self::is_idle).
#[derive(Debug, Default)]
pub struct Input {
    /// Bytes of an incomplete frame: at most one frame's worth.
    bytes: Vec<u8>,
    /// Earlier fragments of a message.
    assembler: Assembler,
}

impl Input {
    /// Nothing is incomplete.
    pub fn is_idle(&self) -> bool {
        self.bytes.is_empty() && self.assembler.is_idle()
    }

    /// Takes bytes as they arrived and hands on each message they complete, until `on_message` breaks off.
    ///
    /// After an error, or when it was broken off, the connection is to be closed and the input dropped.
    pub fn feed(
        &mut self,
        bytes: &mut [u8],
        max_message_bytes: usize,
        on_message: impl FnMut(Message<'_>) -> ControlFlow<()>,
    ) -> Result<(), FrameError> {
        if self.bytes.is_empty() {
            // The common case: nothing waits, so nothing is copied but an incomplete rest.
            let consumed = read_frames(bytes, &mut self.assembler, max_message_bytes, on_message)?;
            self.bytes.extend_from_slice(&bytes[consumed..]);
        } else {
            self.bytes.extend_from_slice(bytes);
            let consumed = read_frames(&mut self.bytes, &mut self.assembler, max_message_bytes, on_message)?;
            self.bytes.drain(..consumed);
        }
        Ok(())
    }
}

/// Returns how many bytes the complete frames took.
fn read_frames(
    bytes: &mut [u8],
    assembler: &mut Assembler,
    max_message_bytes: usize,
    mut on_message: impl FnMut(Message<'_>) -> ControlFlow<()>,
) -> Result<usize, FrameError> {
    let mut position = 0;
    while position < bytes.len() {
        let rest = &mut bytes[position..];
        let Parsed::Frame { consumed, frame } = frame::parse_frame(rest, max_message_bytes)? else { break };
        let payload = &rest[frame.payload.clone()];
        if let Some(message) = assembler.push(&frame, payload, max_message_bytes)?
            && on_message(message).is_break()
        {
            return Ok(bytes.len());
        }
        position += consumed;
    }
    Ok(position)
}
