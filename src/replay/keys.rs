//! Idempotency keys: what was published with one in the last two minutes.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;

use data_encoding::HEXLOWER;
use md5::{Digest, Md5};
use tidewire_protocol::channel_name::ENCRYPTED_CHANNEL_PREFIX;
use tidewire_protocol::position::{Epoch, Position};

use super::store::{Append, Content, StreamName};

/// For so long a message with the same key is a repetition.
pub const IDEMPOTENCY_WINDOW_MS: u64 = 120_000;
/// About 100 bytes each. When there are more, the oldest are forgotten before their time.
pub const MAX_KEYS: usize = 1 << 20;

/// A message with a key, as [`Keys`] tells it from others.
#[derive(Clone, Copy, Debug)]
pub struct Keyed<'a> {
    pub app: &'a str,
    pub channel: &'a str,
    /// The key. It is the publisher's, so other channels may have the same.
    pub id: &'a str,
    pub event: &'a str,
    pub data: &'a str,
    pub user_id: Option<&'a str>,
    pub except: Option<u64>,
}

impl<'a> Keyed<'a> {
    /// `None` when the message has no key.
    pub fn new(stream: &'a StreamName, content: &'a Content) -> Option<Self> {
        Some(Self {
            app: &stream.app,
            channel: &stream.channel,
            id: content.id.as_deref()?,
            event: &content.event,
            data: &content.data,
            user_id: content.user_id.as_deref(),
            except: content.except,
        })
    }
}

impl Keyed<'_> {
    /// Stands for the message's content on every node of a cluster, as [`Fingerprint`] does in this process.
    pub fn digest(&self) -> String {
        let except = self.except.map(u64::to_be_bytes);
        let parts: [&[u8]; 4] = [
            self.event.as_bytes(),
            self.told_apart_data().as_bytes(),
            self.user_id.unwrap_or_default().as_bytes(),
            except.as_ref().map_or(&[], |bits| bits),
        ];
        let mut digest = Md5::new();
        for part in parts {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        HEXLOWER.encode(&digest.finalize())
    }

    /// SDKs encrypt with a new nonce each time: the same event never has the same data.
    fn told_apart_data(&self) -> &str {
        if self.channel.starts_with(ENCRYPTED_CHANNEL_PREFIX) { "" } else { self.data }
    }
}

/// Hashes that stand for a [`Keyed`] within one [`Keys`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Of app, channel and key, wide enough to stand for them.
    key: u128,
    content: u64,
}

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    New,
    /// The same message was there. Its position, if it was stored.
    Repeat(Option<Position>),
    /// The key belongs to another message.
    Conflict,
}

/// The keys of all streams; only hashes of them.
#[derive(Debug)]
pub struct Keys {
    /// Drawn at random: no publisher can make two keys alike.
    hashers: [RandomState; 2],
    seen: HashMap<u128, Seen>,
    /// Keys of `seen` and when they expire, oldest first.
    order: VecDeque<(u128, u64)>,
    max: usize,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    content: u64,
    expires_ms: u64,
    /// 0 when the message was not stored.
    serial: u64,
    epoch: Epoch,
}

impl Default for Keys {
    fn default() -> Self {
        Self::new(MAX_KEYS)
    }
}

impl Keys {
    pub fn new(max: usize) -> Self {
        Self {
            hashers: [RandomState::new(), RandomState::new()],
            seen: HashMap::new(),
            order: VecDeque::new(),
            max: max.max(1),
        }
    }

    pub fn fingerprint(&self, message: &Keyed<'_>) -> Fingerprint {
        let Keyed { app, channel, id, event, user_id, except, .. } = message;
        let [high, low] = &self.hashers;
        let key = (app, channel, id);
        let data = message.told_apart_data();
        Fingerprint {
            key: u128::from(high.hash_one(key)) << 64 | u128::from(low.hash_one(key)),
            content: high.hash_one((event, data, user_id, except)),
        }
    }

    pub fn look_up(&mut self, message: Fingerprint, now_ms: u64) -> Known {
        self.expire(now_ms);
        // Where the clock was set back, what expires later is in front of it.
        match self.seen.get(&message.key).filter(|seen| seen.expires_ms > now_ms) {
            None => Known::New,
            Some(seen) if seen.content != message.content => Known::Conflict,
            Some(Seen { serial: 0, .. }) => Known::Repeat(None),
            Some(&Seen { serial, epoch, .. }) => Known::Repeat(Some(Position { epoch, serial })),
        }
    }

    /// Whether the message's key is known to belong to another one.
    pub fn conflicts(&mut self, Append { stream, content, .. }: &Append, now_ms: u64) -> bool {
        let print = Keyed::new(stream, content).map(|keyed| self.fingerprint(&keyed));
        print.is_some_and(|print| self.look_up(print, now_ms) == Known::Conflict)
    }

    /// Notes a message that is [`Known::New`], published at `time_ms`.
    pub fn insert(&mut self, message: Fingerprint, position: Option<Position>, time_ms: u64) {
        let none = Position { epoch: Epoch { nonce: 0, generation: 0 }, serial: 0 };
        let Position { epoch, serial } = position.unwrap_or(none);
        if self.order.len() >= self.max {
            self.forget_oldest();
        }
        let expires_ms = time_ms.saturating_add(IDEMPOTENCY_WINDOW_MS);
        self.seen.insert(message.key, Seen { content: message.content, expires_ms, serial, epoch });
        self.order.push_back((message.key, expires_ms));
    }

    /// Forgets what was inserted last and was not published after all.
    pub fn withdraw(&mut self, message: Fingerprint) {
        self.seen.remove(&message.key);
        if let Some(at) = self.order.iter().rposition(|(key, _)| *key == message.key) {
            self.order.remove(at);
        }
    }

    pub fn len(&self) -> usize {
        self.seen.len()
    }

    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    fn expire(&mut self, now_ms: u64) {
        while self.order.front().is_some_and(|(_, expires_ms)| *expires_ms <= now_ms) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((key, expires_ms)) = self.order.pop_front()
            // Otherwise it expired before its turn, and was noted anew.
            && self.seen.get(&key).is_some_and(|seen| seen.expires_ms == expires_ms)
        {
            self.seen.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyed<'a>(id: &'a str, data: &'a str) -> Keyed<'a> {
        Keyed { app: "42", channel: "orders", id, event: "paid", data, user_id: None, except: None }
    }

    fn position(serial: u64) -> Position {
        Position { epoch: Epoch { nonce: 7, generation: 2 }, serial }
    }

    #[test]
    fn a_key_is_known_for_two_minutes() {
        let mut keys = Keys::default();
        let message = keys.fingerprint(&keyed("a", "1"));
        assert_eq!(keys.look_up(message, 1_000), Known::New);
        keys.insert(message, Some(position(5)), 1_000);
        let last_ms = 1_000 + IDEMPOTENCY_WINDOW_MS - 1;
        assert_eq!(keys.look_up(message, last_ms), Known::Repeat(Some(position(5))));
        assert_eq!(keys.look_up(keys.fingerprint(&keyed("a", "2")), last_ms), Known::Conflict);
        assert_eq!(keys.look_up(message, last_ms + 1), Known::New);
        assert!(keys.is_empty());
    }

    #[test]
    fn every_part_of_a_message_counts() {
        let mut keys = Keys::default();
        let message = keyed("a", "1");
        keys.insert(keys.fingerprint(&message), None, 0);
        let known = |keys: &mut Keys, other: Keyed<'_>| keys.look_up(keys.fingerprint(&other), 1);
        assert_eq!(known(&mut keys, message), Known::Repeat(None));
        assert_eq!(known(&mut keys, Keyed { event: "due", ..message }), Known::Conflict);
        assert_eq!(known(&mut keys, Keyed { user_id: Some(""), ..message }), Known::Conflict);
        assert_eq!(known(&mut keys, Keyed { except: Some(0), ..message }), Known::Conflict);
        assert_eq!(known(&mut keys, Keyed { app: "4", channel: "2orders", ..message }), Known::New);
        assert_eq!(known(&mut keys, Keyed { channel: "order", id: "sa", ..message }), Known::New);
    }

    #[test]
    fn what_was_withdrawn_is_new() {
        let mut keys = Keys::default();
        let (one, two) = (keys.fingerprint(&keyed("1", "")), keys.fingerprint(&keyed("2", "")));
        keys.insert(one, None, 0);
        keys.insert(two, None, 0);
        keys.withdraw(one);
        assert_eq!(keys.look_up(one, 1), Known::New);
        assert_eq!(keys.look_up(two, 1), Known::Repeat(None));
        keys.insert(one, None, 50);
        assert_eq!(keys.look_up(one, IDEMPOTENCY_WINDOW_MS + 49), Known::Repeat(None));
    }

    #[test]
    fn a_key_expires_in_time_though_the_clock_was_set_back() {
        let mut keys = Keys::default();
        let (late, early) = (keys.fingerprint(&keyed("late", "")), keys.fingerprint(&keyed("early", "")));
        const BACK_MS: u64 = 10 * IDEMPOTENCY_WINDOW_MS;
        keys.insert(late, None, BACK_MS);
        keys.insert(early, None, 0);
        assert_eq!(keys.look_up(early, IDEMPOTENCY_WINDOW_MS - 1), Known::Repeat(None));
        assert_eq!(keys.look_up(early, IDEMPOTENCY_WINDOW_MS), Known::New);
        // Noted again, it lives as long as any; its first note does not take it away.
        keys.insert(early, Some(position(5)), BACK_MS + 1);
        assert_eq!(keys.look_up(late, BACK_MS + IDEMPOTENCY_WINDOW_MS), Known::New);
        let last_ms = BACK_MS + IDEMPOTENCY_WINDOW_MS;
        assert_eq!(keys.look_up(early, last_ms), Known::Repeat(Some(position(5))));
        assert_eq!(keys.look_up(early, last_ms + 1), Known::New);
        assert!(keys.is_empty());
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let mut keys = Keys::new(2);
        let prints = ["1", "2", "3"].map(|id| keys.fingerprint(&keyed(id, "")));
        for print in prints {
            keys.insert(print, None, 0);
        }
        assert_eq!(keys.len(), 2);
        assert_eq!(
            prints.map(|print| keys.look_up(print, 1)),
            [Known::New, Known::Repeat(None), Known::Repeat(None)]
        );
    }
}
