//! What a frame of the connection means for an event stream.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use tidewire_protocol::position::{Epoch, Position};

/// A frame that was read.
#[derive(Debug, PartialEq)]
pub enum Told<'a> {
    /// Of the connection itself: nothing for the client.
    Hidden,
    SignedIn,
    /// Why a request was refused; the refusal of a subscription follows.
    Error(Cow<'a, str>),
    /// A channel was joined.
    Joined {
        channel: Cow<'a, str>,
        /// The frame lists the members of a presence channel.
        has_members: bool,
        answer: Answer,
    },
    /// A channel was not joined.
    Refused {
        channel: Cow<'a, str>,
        kind: Box<str>,
        status: u16,
    },
    /// Everything that was there when the channel was joined was sent.
    Done {
        channel: Cow<'a, str>,
        serial: u64,
    },
    /// A message of the channel's log cannot be sent.
    Skipped {
        channel: Cow<'a, str>,
        serial: u64,
    },
    /// The channel goes on from here; the client may have what its log has not, or the other way round.
    Reset {
        channel: Cow<'a, str>,
        position: Option<Position>,
        reason: Box<str>,
    },
    Event {
        channel: Option<Cow<'a, str>>,
        serial: Option<u64>,
        epoch: Option<Epoch>,
    },
}

/// What a subscription was answered about its channel's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Where the channel stands; `None` when it is not stored.
    pub position: Option<Position>,
    /// So many messages come before those that are published from now on; `None` when nothing was asked for, or it
    /// is not there.
    pub recovered: Option<u64>,
    /// Why what was asked for is not there.
    pub reason: Option<Box<str>>,
    /// Serial of the oldest message that is.
    pub oldest: Option<u64>,
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    channel: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    serial: Option<u64>,
    #[serde(borrow)]
    epoch: Option<Cow<'a, str>>,
    #[serde(borrow)]
    reason: Option<Cow<'a, str>>,
    replay: Option<Replay>,
}

/// The member `replay` of an answer.
#[derive(Deserialize)]
struct Replay {
    epoch: Option<String>,
    serial: Option<u64>,
    recovered: Option<bool>,
    count: Option<u64>,
    reason: Option<Box<str>>,
    oldest: Option<u64>,
}

#[derive(Deserialize)]
struct ErrorData {
    code: Option<u16>,
    message: Option<String>,
}

#[derive(Deserialize)]
struct RefusalData {
    #[serde(rename = "type")]
    kind: Box<str>,
    status: u16,
}

/// Reads a frame. The server made it itself; one that cannot be read is passed on as it is.
pub fn read(text: &str) -> Told<'_> {
    let unreadable = Told::Event { channel: None, serial: None, epoch: None };
    let Ok(frame) = serde_json::from_str::<Frame<'_>>(text) else { return unreadable };
    let Frame { event, channel, data, serial, epoch, reason, replay } = frame;
    let epoch = epoch.and_then(|epoch| epoch.parse().ok());
    match (&*event, channel) {
        ("pusher:connection_established" | "pusher:pong", _) => Told::Hidden,
        ("pusher:signin_success", _) => Told::SignedIn,
        ("pusher:error", _) => error(data),
        ("pusher_internal:subscription_succeeded", Some(channel)) => Told::Joined {
            channel,
            has_members: data.is_some_and(|data| data.get() != "\"{}\""),
            answer: replay.map(Replay::into_answer).unwrap_or_default(),
        },
        ("pusher:subscription_error", Some(channel)) => match data.and_then(quoted::<RefusalData>) {
            Some(RefusalData { kind, status }) => Told::Refused { channel, kind, status },
            None => unreadable,
        },
        ("pusher_internal:replay_done", Some(channel)) => {
            serial.map_or(unreadable, |serial| Told::Done { channel, serial })
        }
        ("pusher_internal:replay_skip", Some(channel)) => {
            serial.map_or(unreadable, |serial| Told::Skipped { channel, serial })
        }
        ("pusher_internal:replay_reset", Some(channel)) => Told::Reset {
            channel,
            position: epoch.zip(serial).map(|(epoch, serial)| Position { epoch, serial }),
            reason: reason.unwrap_or_default().into(),
        },
        (_, channel) => Told::Event { channel, serial, epoch },
    }
}

fn error(data: Option<&RawValue>) -> Told<'static> {
    match data.and_then(|data| serde_json::from_str(data.get()).ok()) {
        Some(ErrorData { code: None, message }) => Told::Error(message.unwrap_or_default().into()),
        // A notice, for example that a watch-list is too long.
        Some(ErrorData { code: Some(4300..), .. }) => {
            Told::Event { channel: None, serial: None, epoch: None }
        }
        // The close that follows says the same.
        _ => Told::Hidden,
    }
}

/// `data` of all events but errors is a text.
fn quoted<T: for<'de> Deserialize<'de>>(data: &RawValue) -> Option<T> {
    let text: Cow<'_, str> = serde_json::from_str(data.get()).ok()?;
    serde_json::from_str(&text).ok()
}

impl Replay {
    fn into_answer(self) -> Answer {
        let epoch = self.epoch.and_then(|epoch| epoch.parse().ok());
        Answer {
            position: epoch.zip(self.serial).map(|(epoch, serial)| Position { epoch, serial }),
            recovered: self.recovered.filter(|recovered| *recovered).and(self.count),
            reason: self.reason,
            oldest: self.oldest,
        }
    }
}

#[cfg(test)]
mod tests {
    use tidewire_protocol::replay::Reason;
    use tidewire_protocol::server_message::{self, ReplayAnswer, ReplayOutcome};
    use tidewire_protocol::{DataToken, SocketId};

    use super::*;

    fn position(text: &str) -> Position {
        text.parse().unwrap()
    }

    fn joined(outcome: ReplayOutcome) -> Answer {
        let answer = ReplayAnswer { position: Some(position("k.2:1859")), outcome };
        let text = server_message::with_replay(&server_message::subscription_succeeded("a"), &answer);
        match read(&text) {
            Told::Joined { channel, has_members: false, answer } if channel == "a" => answer,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_answer_tells_where_the_channel_stands_and_what_comes() {
        let stands = Answer { position: Some(position("k.2:1859")), ..Answer::default() };
        assert_eq!(joined(ReplayOutcome::Live), stands);
        let recovered = Answer { recovered: Some(17), ..stands.clone() };
        assert_eq!(joined(ReplayOutcome::Recovered { count: 17 }), recovered);
        let gap = Answer { reason: Some("expired".into()), oldest: Some(1203), ..stands };
        assert_eq!(joined(ReplayOutcome::Gap { reason: Reason::Expired, oldest: Some(1203) }), gap);
    }

    #[test]
    fn a_stock_answer_has_no_position_and_a_presence_one_has_members() {
        let text = server_message::subscription_succeeded("a");
        let plain = Told::Joined { channel: "a".into(), has_members: false, answer: Answer::default() };
        assert_eq!(read(&text), plain);
        let text = server_message::presence_succeeded("presence-a", [("u-1", None)].into_iter());
        assert!(matches!(read(&text), Told::Joined { has_members: true, .. }));
    }

    #[test]
    fn an_event_tells_its_place() {
        let plain = server_message::channel_event("e", "a", &DataToken::EMPTY_OBJECT, None);
        let event = |serial, epoch| Told::Event { channel: Some("a".into()), serial, epoch };
        assert_eq!(read(&plain), event(None, None));
        let epoch = position("k.3:0").epoch;
        let text = server_message::positioned(&plain, 7, Some(epoch), Some(5), Some("id"), true);
        assert_eq!(read(&text), event(Some(7), Some(epoch)));
    }

    #[test]
    fn what_the_log_says_moves_the_position() {
        let done = Told::Done { channel: "a".into(), serial: 9 };
        assert_eq!(read(&server_message::replay_done("a", 9)), done);
        let skipped = Told::Skipped { channel: "a".into(), serial: 9 };
        assert_eq!(read(&server_message::replay_skip("a", 9, None)), skipped);
        let at = position("k.3:9");
        let text = server_message::replay_reset("a", at.epoch, at.serial, Reason::RolledBack);
        let reset = Told::Reset {
            channel: "a".into(),
            position: Some(at),
            reason: Reason::RolledBack.as_str().into(),
        };
        assert_eq!(read(&text), reset);
    }

    #[test]
    fn refusals_errors_and_notices_are_told_apart() {
        let text = server_message::subscription_error("private-a", "AuthError", "Invalid signature", 401);
        let refused = Told::Refused { channel: "private-a".into(), kind: "AuthError".into(), status: 401 };
        assert_eq!(read(&text), refused);
        let text = server_message::replay_gone("a", "gone", Reason::Expired, Some(3));
        assert!(matches!(read(&text), Told::Refused { status: 410, .. }));
        assert_eq!(read(&server_message::error(None, "no")), Told::Error("no".into()));
        assert_eq!(read(&server_message::error(Some(4009), "bye")), Told::Hidden);
        assert!(matches!(read(&server_message::error(Some(4302), "list")), Told::Event { .. }));
    }

    #[test]
    fn what_concerns_the_connection_alone_is_hidden() {
        let socket_id: SocketId = "1.2".parse().unwrap();
        assert_eq!(read(&server_message::connection_established(socket_id, 120)), Told::Hidden);
        assert_eq!(read(&server_message::pong()), Told::Hidden);
        assert_eq!(read(&server_message::signin_success("{}")), Told::SignedIn);
        assert!(matches!(read("no JSON"), Told::Event { channel: None, .. }));
    }
}
