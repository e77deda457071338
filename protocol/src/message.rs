//! What clients say: one JSON text in, one request out (2.2).

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::json;
use crate::replay::{ReplayError, ReplayRequest};

/// Prefix of the events that clients may send to each other (2.8).
pub const CLIENT_EVENT_PREFIX: &str = "client-";

/// Characters of an unknown event name that are repeated to the sender.
const MAX_ECHOED_CHARACTERS: usize = 200;

/// A request of a client, borrowed from its text wherever it holds no escapes.
#[derive(Clone, Debug)]
pub enum ClientMessage<'a> {
    Ping,
    Pong,
    Subscribe(Subscribe<'a>),
    Unsubscribe {
        channel: Cow<'a, str>,
    },
    SignIn {
        auth: Cow<'a, str>,
        user_data: Cow<'a, str>,
    },
    /// An event whose name starts with `client-`. Absent `data` is `None`; an explicit `null` is data.
    ClientEvent {
        event: Cow<'a, str>,
        channel: Cow<'a, str>,
        data: Option<&'a RawValue>,
    },
}

/// The `data` of `pusher:subscribe`. Empty, null and non-string members count as absent: pusher-js sends
/// `"auth":""` for public channels, .NET a null `channel_data` (2.2, 3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    pub channel: Cow<'a, str>,
    pub auth: Option<Cow<'a, str>>,
    pub channel_data: Option<Cow<'a, str>>,
    /// What it asks of the log. A member that cannot be read is kept as an error: it is told apart from a
    /// subscription that asks for nothing, and told in the name of its channel.
    pub replay: Option<Result<ReplayRequest, ReplayError>>,
}

impl<'a> Subscribe<'a> {
    fn parse(object: &'a str) -> Result<Self, MessageError> {
        let [channel, auth, channel_data, replay] =
            json::present_members(object, ["channel", "auth", "channel_data", "replay"])
                .map_err(|_| missing_argument("channel"))?;
        let filled = |raw: Option<&'a RawValue>| raw.and_then(json::text).filter(|text| !text.is_empty());
        Ok(Self {
            channel: channel.and_then(json::text).ok_or(missing_argument("channel"))?,
            auth: filled(auth),
            channel_data: filled(channel_data),
            replay: replay.map(ReplayRequest::parse),
        })
    }

    /// The same, for a subscription that has to wait.
    pub fn into_owned(self) -> Subscribe<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        Subscribe {
            channel: owned(self.channel),
            auth: self.auth.map(owned),
            channel_data: self.channel_data.map(owned),
            replay: self.replay,
        }
    }
}

impl<'a> ClientMessage<'a> {
    /// Total: every text is a message or an error to answer with `pusher:error`, code null.
    pub fn parse(text: &'a str) -> Result<Self, MessageError> {
        let [event, channel, data] =
            json::members(text, ["event", "channel", "data"]).map_err(|error| match error.is_data() {
                true => MessageError::NotAnObject,
                false => MessageError::NotJson,
            })?;
        let event = event.and_then(json::text).ok_or(MessageError::Missing("event"))?;
        match &*event {
            "pusher:ping" => Ok(Self::Ping),
            "pusher:pong" => Ok(Self::Pong),
            "pusher:subscribe" => Arguments::of(data).subscribe().map(Self::Subscribe),
            "pusher:unsubscribe" => {
                Arguments::of(data).require("channel").map(|channel| Self::Unsubscribe { channel })
            }
            "pusher:signin" => Arguments::of(data).sign_in(),
            name if name.starts_with(CLIENT_EVENT_PREFIX) => {
                let channel = channel.and_then(json::text).ok_or(MessageError::InvalidClientEvent)?;
                Ok(Self::ClientEvent { event, channel, data })
            }
            name => Err(MessageError::Unsupported(name.chars().take(MAX_ECHOED_CHARACTERS).collect())),
        }
    }
}

/// The `data` of a `pusher:` event: an object, or a JSON string that holds one.
enum Arguments<'a> {
    Object(&'a str),
    Quoted(String),
    Absent,
}

impl<'a> Arguments<'a> {
    fn of(data: Option<&'a RawValue>) -> Self {
        match data {
            Some(raw) if json::is_object(raw) => Self::Object(raw.get()),
            Some(raw) => json::text(raw).map_or(Self::Absent, |text| Self::Quoted(text.into_owned())),
            None => Self::Absent,
        }
    }

    /// The string members of these names; a member that is no string is absent.
    fn texts<const N: usize>(&self, names: [&str; N]) -> [Option<Cow<'a, str>>; N] {
        match self {
            Self::Object(object) => match json::members(object, names) {
                Ok(found) => found.map(|raw| raw.and_then(json::text)),
                Err(_) => [const { None }; N],
            },
            Self::Quoted(object) => match json::members(object, names) {
                Ok(found) => {
                    found.map(|raw| raw.and_then(json::text).map(|text| Cow::Owned(text.into_owned())))
                }
                Err(_) => [const { None }; N],
            },
            Self::Absent => [const { None }; N],
        }
    }

    fn require(&self, name: &'static str) -> Result<Cow<'a, str>, MessageError> {
        let [value] = self.texts([name]);
        value.ok_or(missing_argument(name))
    }

    fn subscribe(&self) -> Result<Subscribe<'a>, MessageError> {
        match self {
            Self::Object(object) => Subscribe::parse(object),
            Self::Quoted(object) => Subscribe::parse(object).map(Subscribe::into_owned),
            Self::Absent => Err(missing_argument("channel")),
        }
    }

    fn sign_in(&self) -> Result<ClientMessage<'a>, MessageError> {
        let [auth, user_data] =
            self.texts(["auth", "user_data"]).map(|text| text.filter(|text| !text.is_empty()));
        Ok(ClientMessage::SignIn {
            user_data: user_data.ok_or(missing_argument("user_data"))?,
            auth: auth.ok_or(missing_argument("auth"))?,
        })
    }
}

/// The name under which clients know a member of `data`.
fn missing_argument(name: &'static str) -> MessageError {
    MessageError::Missing(match name {
        "channel" => "data.channel",
        "user_data" => "data.user_data",
        "auth" => "data.auth",
        other => other,
    })
}

/// Why a text is no request. Displays as the message of the `pusher:error` that answers it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    #[error("Invalid message: not JSON")]
    NotJson,
    #[error("Invalid message: not a JSON object")]
    NotAnObject,
    #[error("Missing parameter: {0}")]
    Missing(&'static str),
    #[error("Unsupported event received on socket: {0}")]
    Unsupported(Box<str>),
    #[error("Invalid client event (must contain channel and data)")]
    InvalidClientEvent,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::Start;

    fn error(text: &str) -> String {
        ClientMessage::parse(text).unwrap_err().to_string()
    }

    fn subscribe(text: &str) -> Subscribe<'_> {
        match ClientMessage::parse(text) {
            Ok(ClientMessage::Subscribe(subscribe)) => subscribe,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn s028_a_ping_is_read_with_any_data() {
        for text in [
            r#"{"event":"pusher:ping","data":{}}"#,
            r#"{"event": "pusher:ping"}"#,
            r#"{"event":"pusher:ping","data":""}"#,
            r#"{"event":"pusher:ping","data":null}"#,
            r#" {"event":"pusher\u003aping"} "#,
        ] {
            assert!(matches!(ClientMessage::parse(text), Ok(ClientMessage::Ping)), "{text}");
        }
    }

    #[test]
    fn s036_text_that_is_no_event_is_an_error() {
        for text in
            ["", "not json", "{", r#"{"event":"pusher:ping"} x"#, r#"{"event":"pusher:ping",}"#, "\u{0}"]
        {
            assert_eq!(error(text), "Invalid message: not JSON", "{text}");
        }
        for text in ["[]", r#""x""#, "5", "null", "true", "-1e9"] {
            assert_eq!(error(text), "Invalid message: not a JSON object", "{text}");
        }
        for text in [r#"{"data":{}}"#, "{}", r#"{"event":5}"#, r#"{"event":null}"#, r#"{"event":"\ud800"}"#] {
            assert_eq!(error(text), "Missing parameter: event", "{text}");
        }
    }

    #[test]
    fn s040_s099_other_events_are_unsupported_and_named() {
        for name in ["pusher:frobnicate", "pusher_internal:member_added", "message", "", "Client-x"] {
            let text = format!(r#"{{"event":"{name}","channel":"private-a","data":{{}}}}"#);
            assert_eq!(error(&text), format!("Unsupported event received on socket: {name}"));
        }
    }

    #[test]
    fn a_long_unknown_name_is_not_repeated_in_full() {
        let text = format!(r#"{{"event":"{}"}}"#, "é".repeat(10_000));
        assert!(error(&text).len() < 500);
    }

    #[test]
    fn s041_s219_unknown_and_repeated_members_do_not_matter() {
        let text = r#"{"userId":null,"event":"x","event":"pusher:subscribe","tw":[{}],
            "data":{"a":1,"channel":"x","channel":"news","tw_since":{"b":2}}}"#;
        assert_eq!(subscribe(text).channel, "news");
    }

    #[test]
    fn s044_s065_empty_and_null_credentials_are_absent() {
        for data in [
            r#"{"channel":"news"}"#,
            r#"{"auth":"","channel":"news"}"#,
            r#"{"auth":null,"channel_data":null,"channel":"news"}"#,
            r#"{"auth":5,"channel_data":{},"channel":"news"}"#,
        ] {
            let text = format!(r#"{{"event":"pusher:subscribe","data":{data}}}"#);
            let expected = Subscribe { channel: "news".into(), auth: None, channel_data: None, replay: None };
            assert_eq!(subscribe(&text), expected, "{data}");
        }
    }

    #[test]
    fn s045_data_may_be_an_object_in_a_string() {
        let text = r#"{"event":"pusher:subscribe",
            "data":"{\"channel\":\"presence-a\",\"auth\":\"k:s\",\"channel_data\":\"{\\\"user_id\\\":\\\"u-1\\\"}\"}"}"#;
        assert_eq!(subscribe(text).channel, "presence-a");
        assert_eq!(subscribe(text).auth.as_deref(), Some("k:s"));
        assert_eq!(subscribe(text).channel_data.as_deref(), Some(r#"{"user_id":"u-1"}"#));
    }

    #[test]
    fn channel_data_keeps_its_exact_text() {
        let text = r#"{"event":"pusher:subscribe","data":{"channel":"presence-a","channel_data":"{ \"user_id\" :1 }"}}"#;
        assert_eq!(subscribe(text).channel_data.as_deref(), Some(r#"{ "user_id" :1 }"#));
    }

    #[test]
    fn a_subscription_asks_for_replay_in_a_member_of_its_own() {
        let asked = |replay: &str| {
            let data = format!(r#"{{"channel":"news"{replay}}}"#);
            let plain = format!(r#"{{"event":"pusher:subscribe","data":{data}}}"#);
            let quoted = serde_json::json!({ "event": "pusher:subscribe", "data": data }).to_string();
            assert_eq!(subscribe(&quoted), subscribe(&plain));
            subscribe(&plain).replay
        };
        assert_eq!(asked(""), None);
        assert_eq!(asked(r#","replay":null"#), None);
        assert_eq!(asked(r#","replay":{"v":1}"#), Some(Ok(ReplayRequest::LIVE)));
        let start = Start::After("k3Jd9Q.2:1842".parse().unwrap());
        let resumed = ReplayRequest { start, ..ReplayRequest::LIVE };
        assert_eq!(asked(r#","replay":{"v":1,"from":"k3Jd9Q.2:1842"}"#), Some(Ok(resumed)));
        assert_eq!(asked(r#","replay":true"#), Some(Err(ReplayError::NotAnObject)));
        assert_eq!(asked(r#","replay":{"v":2}"#), Some(Err(ReplayError::Version)));
    }

    #[test]
    fn s046_a_subscription_needs_the_name_of_a_channel() {
        for data in [
            "{}",
            r#"{"channel":5}"#,
            r#"{"channel":null}"#,
            r#"{"channel":{}}"#,
            "[]",
            "7",
            r#""x""#,
            "null",
        ] {
            for event in ["pusher:subscribe", "pusher:unsubscribe"] {
                let text = format!(r#"{{"event":"{event}","data":{data}}}"#);
                assert_eq!(error(&text), "Missing parameter: data.channel", "{text}");
            }
        }
        assert_eq!(error(r#"{"event":"pusher:subscribe"}"#), "Missing parameter: data.channel");
    }

    #[test]
    fn s119_a_sign_in_needs_both_of_its_parts() {
        assert_eq!(
            error(r#"{"event":"pusher:signin","data":{"auth":"k:s"}}"#),
            "Missing parameter: data.user_data"
        );
        assert_eq!(
            error(r#"{"event":"pusher:signin","data":{"user_data":"{}"}}"#),
            "Missing parameter: data.auth"
        );
        assert_eq!(error(r#"{"event":"pusher:signin","data":{}}"#), "Missing parameter: data.user_data");
    }

    #[test]
    fn client_events_carry_their_data_raw() {
        for (member, expected) in [
            (r#","data":{ "x": 1 }"#, Some(r#"{ "x": 1 }"#)),
            (r#","data":"plain""#, Some(r#""plain""#)),
            (r#","data":null"#, Some("null")),
            ("", None),
        ] {
            let text = format!(r#"{{"event":"client-x","channel":"private-a"{member}}}"#);
            let Ok(ClientMessage::ClientEvent { event, channel, data }) = ClientMessage::parse(&text) else {
                panic!("{text}");
            };
            assert_eq!((&*event, &*channel), ("client-x", "private-a"));
            assert_eq!(data.map(RawValue::get), expected);
        }
    }

    #[test]
    fn s097_a_client_event_needs_a_channel() {
        for text in [r#"{"event":"client-x","data":1}"#, r#"{"event":"client-x","channel":5,"data":1}"#] {
            assert_eq!(error(text), "Invalid client event (must contain channel and data)");
        }
    }
}
