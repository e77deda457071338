//! Limits of replay that the customer's backend signs into one subscriber's identity.
//!
//! They can only narrow what the rules of the app allow, and only what this subscriber reads; nothing is stored for
//! longer or shorter on their account.

use serde_json::value::RawValue;

use crate::{duration, json};

/// Of one subscription: the member `replay` of signed `channel_data`, on every type of channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Member `window`: nothing older is replayed.
    pub window_seconds: Option<u64>,
    /// Only so many of the newest messages are replayed.
    pub max_messages: Option<u64>,
    /// Member `inactivity_ttl`: nothing is replayed of a channel that was silent for so long; 0 sets no such limit.
    pub inactivity_ttl_seconds: Option<u64>,
    /// Whether anything from before the subscription may be read.
    pub history: Option<bool>,
}

impl Overrides {
    /// Outside of presence channels `channel_data` may be any text: what has no such member overrides nothing. A
    /// member that cannot be read is an error, for without it the subscriber would see more than was meant.
    pub fn of_channel_data(channel_data: &str) -> Result<Self, OverridesError> {
        let Ok([Some(replay)]) = json::present_members(channel_data, ["replay"]) else {
            return Ok(Self::default());
        };
        let [window, max_messages, inactivity_ttl, history] =
            members(replay, ["window", "max_messages", "inactivity_ttl", "history"])?;
        Ok(Self {
            window_seconds: window.map(|raw| seconds(raw, "window", 0)).transpose()?,
            max_messages: max_messages.map(count).transpose()?,
            inactivity_ttl_seconds: inactivity_ttl
                .map(|raw| seconds(raw, "inactivity_ttl", 0))
                .transpose()?,
            history: history.map(flag).transpose()?,
        })
    }
}

/// Of a whole connection: the member `replay` of the `user_data` of a sign-in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionOverrides {
    /// Member `lifetime`, 1 or more: the connection is closed after it, with a code to reconnect at once.
    pub lifetime_seconds: Option<u64>,
    /// Member `keepalive`, 1 or more.
    pub keepalive_seconds: Option<u64>,
}

impl ConnectionOverrides {
    pub(super) fn parse(replay: &RawValue) -> Result<Self, OverridesError> {
        let [lifetime, keepalive] = members(replay, ["lifetime", "keepalive"])?;
        Ok(Self {
            lifetime_seconds: lifetime.map(|raw| seconds(raw, "lifetime", 1)).transpose()?,
            keepalive_seconds: keepalive.map(|raw| seconds(raw, "keepalive", 1)).transpose()?,
        })
    }
}

/// Unknown members are skipped: later versions may add some.
fn members<'a, const N: usize>(
    replay: &'a RawValue,
    names: [&str; N],
) -> Result<[Option<&'a RawValue>; N], OverridesError> {
    json::present_members(replay.get(), names).map_err(|_| OverridesError::NotAnObject)
}

/// A number of seconds, or a text such as `15m`.
fn seconds(raw: &RawValue, name: &'static str, at_least: u64) -> Result<u64, OverridesError> {
    let text = json::number(raw).map(Into::into).or_else(|| json::text(raw));
    let seconds = text.and_then(|text| duration::parse_seconds(&text));
    seconds.filter(|seconds| *seconds >= at_least).ok_or(OverridesError::Duration { name, at_least })
}

fn count(raw: &RawValue) -> Result<u64, OverridesError> {
    raw.get().parse().map_err(|_| OverridesError::MaxMessages)
}

fn flag(raw: &RawValue) -> Result<bool, OverridesError> {
    raw.get().parse().map_err(|_| OverridesError::History)
}

/// Why a signed `replay` member is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverridesError {
    #[error("replay must be an object")]
    NotAnObject,
    #[error("replay.{name} must be a number of seconds or a duration such as \"15m\", {at_least} or more")]
    Duration { name: &'static str, at_least: u64 },
    #[error("replay.max_messages must be a whole number, 0 or more")]
    MaxMessages,
    #[error("replay.history must be true or false")]
    History,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{UserData, UserDataError};

    fn overrides(replay: &str) -> Result<Overrides, OverridesError> {
        Overrides::of_channel_data(&format!(r#"{{"user_id":"u-1","replay":{replay}}}"#))
    }

    fn of_connection(replay: &str) -> Result<ConnectionOverrides, UserDataError> {
        UserData::parse(&format!(r#"{{"id":"u-1","replay":{replay}}}"#), 100).map(|user| user.replay)
    }

    #[test]
    fn every_override_is_read() {
        let all = r#"{"window":300,"max_messages":100,"inactivity_ttl":"15m","history":false,"later":{}}"#;
        let expected = Overrides {
            window_seconds: Some(300),
            max_messages: Some(100),
            inactivity_ttl_seconds: Some(900),
            history: Some(false),
        };
        assert_eq!(overrides(all), Ok(expected));
        let one = Overrides { window_seconds: Some(0), ..Overrides::default() };
        assert_eq!(overrides(r#"{"window":"0s","history":null}"#), Ok(one));
    }

    #[test]
    fn channel_data_without_the_member_overrides_nothing() {
        for text in
            ["", "x", "[]", "7", "null", "{}", r#"{"user_id":1}"#, r#"{"replay":null}"#, r#""replay""#]
        {
            assert_eq!(Overrides::of_channel_data(text), Ok(Overrides::default()), "{text}");
        }
        assert_eq!(overrides("{}"), Ok(Overrides::default()));
    }

    #[test]
    fn an_override_that_cannot_be_read_is_an_error() {
        for (replay, text) in [
            ("true", "replay must be an object"),
            ("[]", "replay must be an object"),
            (
                r#"{"window":"soon"}"#,
                "replay.window must be a number of seconds or a duration such as \"15m\", 0 or more",
            ),
            (
                r#"{"inactivity_ttl":[]}"#,
                "replay.inactivity_ttl must be a number of seconds or a duration such as \"15m\", 0 or more",
            ),
            (r#"{"max_messages":-1}"#, "replay.max_messages must be a whole number, 0 or more"),
            (r#"{"history":"no"}"#, "replay.history must be true or false"),
        ] {
            assert_eq!(overrides(replay).unwrap_err().to_string(), text, "{replay}");
        }
        for replay in [
            r#"{"window":-1}"#,
            r#"{"window":1.5}"#,
            r#"{"window":1e3}"#,
            r#"{"window":true}"#,
            r#"{"max_messages":"1"}"#,
        ] {
            assert!(overrides(replay).is_err(), "{replay}");
        }
    }

    #[test]
    fn a_sign_in_carries_those_of_its_connection() {
        let both = ConnectionOverrides { lifetime_seconds: Some(3600), keepalive_seconds: Some(20) };
        assert_eq!(of_connection(r#"{"lifetime":"1h","keepalive":20}"#), Ok(both));
        for replay in ["null", "{}"] {
            assert_eq!(of_connection(replay), Ok(ConnectionOverrides::default()));
        }
        assert_eq!(
            of_connection(r#"{"lifetime":0}"#).unwrap_err().to_string(),
            "Invalid user_data: replay.lifetime must be a number of seconds or a duration such as \"15m\", 1 or more"
        );
        assert!(of_connection("5").is_err());
    }
}
