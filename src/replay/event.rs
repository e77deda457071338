//! A stored message as subscribers get it, encoded once in each form that somebody needs.

use std::sync::OnceLock;

use bytes::Bytes;
use tidewire_protocol::position::Epoch;
use tidewire_protocol::{DataToken, SocketId, frame, server_message};

use super::store::{Message, Stamp};

/// Shared by the ring of its channel, the mailboxes and the pages of those who catch up.
#[derive(Debug)]
pub struct StoredEvent {
    pub stamp: Stamp,
    /// The connection that does not get it.
    pub except: Option<SocketId>,
    id: Option<Box<str>>,
    /// What it adds to [`Stamp::total_bytes`].
    size: u64,
    /// A whole WebSocket frame, as connections get it that did not ask for positions.
    plain: Bytes,
    live: OnceLock<Bytes>,
    replayed: OnceLock<Bytes>,
}

impl StoredEvent {
    /// `plain` is the message's frame; `size` is what its content counts in the store.
    pub fn new(
        plain: Bytes,
        stamp: Stamp,
        id: Option<Box<str>>,
        except: Option<SocketId>,
        size: u64,
    ) -> Self {
        Self { stamp, except, id, size, plain, live: OnceLock::new(), replayed: OnceLock::new() }
    }

    /// From the log, with the frame that was sent when it was new.
    pub fn from_message(channel: &str, message: Message) -> Self {
        let Message { stamp, content } = message;
        let data = DataToken::from_stored(&content.data);
        let text = server_message::channel_event(&content.event, channel, &data, content.user_id.as_deref());
        let except = content.except.and_then(SocketId::from_bits);
        let size = content.size();
        Self::new(frame::encode_text(&text), stamp, content.id, except, size)
    }

    pub fn serial(&self) -> u64 {
        self.stamp.position.serial
    }

    /// Bytes it counts in the store.
    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn plain(&self) -> &Bytes {
        &self.plain
    }

    /// With its serial, for a subscriber that has the message before it.
    pub fn live(&self) -> &Bytes {
        self.live.get_or_init(|| self.encode(self.begun_epoch(), None, false))
    }

    /// With its serial, for a subscriber that catches up and has the message before it.
    pub fn replayed(&self) -> &Bytes {
        self.replayed.get_or_init(|| self.encode(self.begun_epoch(), None, true))
    }

    /// For a subscriber that knows of nothing after `last`, because those in between were not for it: not even of
    /// the generation that one of them began.
    pub fn positioned(&self, last: u64, is_replayed: bool) -> Bytes {
        let prev = (last + 1 != self.serial()).then_some(last);
        self.encode(Some(self.stamp.position.epoch), prev, is_replayed)
    }

    fn begun_epoch(&self) -> Option<Epoch> {
        self.stamp.begins_generation.then_some(self.stamp.position.epoch)
    }

    fn encode(&self, epoch: Option<Epoch>, prev: Option<u64>, is_replayed: bool) -> Bytes {
        let text = server_message::positioned(
            frame::text_of(&self.plain),
            self.serial(),
            epoch,
            prev,
            self.id.as_deref(),
            is_replayed,
        );
        frame::encode_text(&text)
    }
}
