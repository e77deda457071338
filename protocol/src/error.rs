//! Every code and every text with which the server says no to a client (1.2, 1.5, 2.4, 2.8, 2.14).
//!
//! Three kinds: a [`Rejection`] ends a connection before it is established, a [`CloseCode`] ends one at any
//! time, a [`Refusal`] answers one request and leaves the connection open.

use crate::replay::Reason;
use crate::{MemberError, MessageError, NameError, OverridesError, ReplayError, UserDataError};

/// What stock clients do after a close code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Connect again over TLS.
    OverTls,
    /// Give up; only the application can connect again.
    Never,
    /// Connect again after at least a second.
    AfterBackOff,
    /// Connect again without any delay. Never for a condition that persists: it makes a reconnect storm.
    AtOnce,
}

macro_rules! close_codes {
    ($($variant:ident = $number:literal, $retry:ident, $meaning:literal;)*) => {
        /// Why a connection is closed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum CloseCode {
            $(#[doc = $meaning] $variant = $number,)*
        }

        impl CloseCode {
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// A short text, fit for the reason of a close frame.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }

            /// What stock clients do next.
            pub fn retry(self) -> Retry {
                match self { $(Self::$variant => Retry::$retry,)* }
            }
        }
    };
}

// The 1xxx codes are those of RFC 6455; pusher-js takes them as a network failure. 4002 is unassigned. Codes
// from 4300 on never close: pusher-js would give up (1.5).
close_codes! {
    Normal = 1000, AfterBackOff, "normal closure";
    ProtocolError = 1002, AfterBackOff, "websocket protocol error";
    UnsupportedData = 1003, AfterBackOff, "binary messages are not supported";
    InvalidText = 1007, AfterBackOff, "text is not UTF-8";
    MessageTooLarge = 1009, AfterBackOff, "message too large";
    TlsRequired = 4000, OverTls, "application only accepts TLS connections";
    AppUnknown = 4001, Never, "application does not exist";
    AppDisabled = 4003, Never, "application disabled";
    OverConnectionQuota = 4004, Never, "application is over its connection quota";
    PathNotFound = 4005, Never, "path not found";
    InvalidVersion = 4006, Never, "invalid version string format";
    UnsupportedProtocol = 4007, Never, "unsupported protocol version";
    ProtocolMissing = 4008, Never, "no protocol version supplied";
    Unauthorized = 4009, Never, "connection is unauthorized";
    OverCapacity = 4100, AfterBackOff, "over capacity";
    ReconnectNow = 4200, AtOnce, "generic reconnect immediately";
    PongNotReceived = 4201, AtOnce, "pong reply not received in time";
    Inactive = 4202, AtOnce, "closed after inactivity";
}

impl CloseCode {
    pub fn number(self) -> u16 {
        self as u16
    }
}

/// A code of `pusher:error` that never closes the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum NoticeCode {
    ClientEventRate = 4301,
    WatchlistTruncated = 4302,
}

impl NoticeCode {
    pub fn number(self) -> u16 {
        self as u16
    }
}

/// Why a connection is not established. Displays as the message of its `pusher:error`, which carries the same
/// number as the close frame: pusher-js dies on a first frame without a numeric code (1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection<'a> {
    #[error("Path not found, connect to /app/{{key}}")]
    PathNotFound,
    #[error("App key {key} does not exist on this server")]
    AppUnknown { key: &'a str },
    #[error("Application is disabled")]
    AppDisabled,
    #[error("Application only accepts TLS connections, reconnect using wss://")]
    TlsRequired,
    #[error("Unsupported protocol version '{version}', this server speaks 4 to 7")]
    UnsupportedProtocol { version: &'a str },
    #[error("No protocol version supplied")]
    ProtocolMissing,
    #[error("Origin '{origin}' is not allowed to connect to this application")]
    OriginNotAllowed { origin: &'a str },
    #[error("Application is over its connection quota ({max_connections})")]
    OverConnectionQuota { max_connections: usize },
    #[error("Server is over capacity")]
    OverCapacity,
    #[error("Server is restarting, reconnect immediately")]
    Draining,
}

impl Rejection<'_> {
    pub fn close_code(&self) -> CloseCode {
        match self {
            Self::PathNotFound => CloseCode::PathNotFound,
            Self::AppUnknown { .. } => CloseCode::AppUnknown,
            Self::AppDisabled => CloseCode::AppDisabled,
            Self::TlsRequired => CloseCode::TlsRequired,
            Self::UnsupportedProtocol { .. } => CloseCode::UnsupportedProtocol,
            Self::ProtocolMissing => CloseCode::ProtocolMissing,
            Self::OriginNotAllowed { .. } => CloseCode::Unauthorized,
            Self::OverConnectionQuota { .. } => CloseCode::OverConnectionQuota,
            Self::OverCapacity => CloseCode::OverCapacity,
            Self::Draining => CloseCode::ReconnectNow,
        }
    }
}

/// Message of the 4009 that follows an authorisation timeout (2.16).
pub const NOT_AUTHORIZED_IN_TIME: &str = "Connection not authorized within timeout";
/// Message of the 4100 that ends a connection which catches up, when the log cannot be read.
pub const LOG_NOT_READABLE: &str = "What was missed cannot be read at the moment, reconnect and try again";
/// Message of the 4009 that terminates a user's connections (4.8).
pub const TERMINATED_BY_APP: &str = "You got disconnected by the app.";

/// Why a request on an established connection is refused. Displays as the message of its `pusher:error`; where
/// the hosted service has been seen to refuse the same, in its words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal<'a> {
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Member(#[from] MemberError),
    #[error(transparent)]
    UserData(#[from] UserDataError),

    #[error("Existing subscription to channel {channel}")]
    AlreadySubscribed { channel: &'a str },
    #[error("No current subscription to channel {channel}, or subscription in progress")]
    NotSubscribed { channel: &'a str },
    #[error("Subscription limit of this connection reached ({max_subscriptions})")]
    TooManySubscriptions { max_subscriptions: usize },

    #[error("Auth info required to subscribe to {channel}")]
    AuthRequired { channel: &'a str },
    #[error("Auth value for subscription to {channel} is invalid: should be of format 'key:signature'")]
    AuthFormat { channel: &'a str },
    #[error("Invalid key in subscription auth data: '{key}'")]
    AuthKey { key: &'a str },
    /// Repeats the string to sign: the client knows all of it, and developers search for it.
    #[error("Invalid signature: Expected HMAC SHA256 hex digest of {string_to_sign}, but got {signature}")]
    Signature { string_to_sign: &'a str, signature: &'a str },

    #[error("channel_data or a signed-in user required to subscribe to {channel}")]
    MemberRequired { channel: &'a str },
    #[error("Member limit of presence channel {channel} reached ({max_members})")]
    TooManyMembers { channel: &'a str, max_members: usize },
    #[error("{channel} is reserved for the connections signed in as its user")]
    NotThatUser { channel: &'a str },

    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error("Invalid channel_data: {0}")]
    Overrides(#[from] OverridesError),
    #[error("replay.rewind.count of {count} exceeds the allowed maximum ({max_messages} messages)")]
    RewindCount { count: u64, max_messages: u64 },
    #[error("replay.rewind.seconds of {seconds} exceeds the window of {channel} ({window_seconds} seconds)")]
    RewindSeconds { channel: &'a str, seconds: u64, window_seconds: u64 },
    #[error("Messages of {channel} cannot be replayed from there: {}", reason.meaning())]
    ReplayGone { channel: &'a str, reason: Reason },
    #[error("Messages of {channel} cannot be replayed for the moment, subscribe again later")]
    ReplayUnavailable { channel: &'a str },

    #[error("Auth value for signin is invalid: should be of format 'key:signature'")]
    SignInFormat,
    #[error("Invalid key in signin auth data: '{key}'")]
    SignInKey { key: &'a str },
    #[error("Connection is already signed in as '{user_id}'")]
    SignedInAsOther { user_id: &'a str },
    #[error("Watchlist limited to {max_watchlist} users, the others are not watched")]
    WatchlistTruncated { max_watchlist: usize },

    #[error("To send client events, you must enable this feature in the Settings page of your dashboard.")]
    ClientEventsDisabled,
    #[error("Client event rejected - only supported on private and presence channels")]
    ClientEventChannel,
    #[error("Client event rejected - not supported on encrypted channels")]
    ClientEventEncrypted,
    #[error("Cannot broadcast client event (connection not subscribed to channel {channel})")]
    ClientEventNotSubscribed { channel: &'a str },
    #[error("Client event rejected - event name exceeds the allowed maximum ({max_length} characters)")]
    ClientEventName { max_length: usize },
    #[error("Client event rejected - data of {bytes} bytes exceeds the allowed maximum ({max_bytes} bytes)")]
    ClientEventTooLarge { bytes: usize, max_bytes: usize },
    #[error("Client event rejected - data is not valid Unicode text")]
    ClientEventText,
    #[error("Client event rejected - more than {per_second} events per second")]
    ClientEventRate { per_second: u32 },
}

impl Refusal<'_> {
    /// The `code` of the error frame. Null but for the notices: Pysher would disconnect (1.5).
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::ClientEventRate { .. } => Some(NoticeCode::ClientEventRate.number()),
            Self::WatchlistTruncated { .. } => Some(NoticeCode::WatchlistTruncated.number()),
            _ => None,
        }
    }

    /// `(type, status)` of the `pusher:subscription_error` that follows a refused subscription (2.14).
    pub fn subscription_error(&self) -> (&'static str, u16) {
        match self {
            Self::AuthRequired { .. }
            | Self::AuthFormat { .. }
            | Self::AuthKey { .. }
            | Self::Signature { .. }
            | Self::MemberRequired { .. }
            | Self::NotThatUser { .. } => ("AuthError", 401),
            Self::TooManyMembers { .. } | Self::TooManySubscriptions { .. } => ("LimitReached", 403),
            Self::Replay(_) | Self::Overrides(_) | Self::RewindCount { .. } | Self::RewindSeconds { .. } => {
                ("ReplayInvalid", 400)
            }
            Self::ReplayGone { .. } => ("ReplayGone", 410),
            Self::ReplayUnavailable { .. } => ("ReplayUnavailable", 503),
            _ => ("InvalidRequest", 400),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_of_a_code_decides_what_clients_do() {
        for code in CloseCode::ALL {
            let expected = match code.number() {
                4000 => Retry::OverTls,
                4001..=4099 => Retry::Never,
                4200..=4299 => Retry::AtOnce,
                _ => Retry::AfterBackOff,
            };
            assert_eq!(code.retry(), expected, "{code:?}");
        }
    }

    #[test]
    fn no_close_code_reaches_the_range_that_never_closes() {
        assert!(CloseCode::ALL.iter().all(|code| code.number() < 4300));
    }

    #[test]
    fn every_meaning_fits_a_close_frame() {
        assert!(CloseCode::ALL.iter().all(|code| code.meaning().len() <= 123));
    }

    #[test]
    fn s058_s059_s060_s092_observed_texts_are_kept() {
        for (refusal, text) in [
            (Refusal::AuthRequired { channel: "private-a" }, "Auth info required to subscribe to private-a"),
            (
                Refusal::AuthFormat { channel: "private-a" },
                "Auth value for subscription to private-a is invalid: should be of format 'key:signature'",
            ),
            (Refusal::AuthKey { key: "k" }, "Invalid key in subscription auth data: 'k'"),
            (
                Refusal::ClientEventNotSubscribed { channel: "private-a" },
                "Cannot broadcast client event (connection not subscribed to channel private-a)",
            ),
            (Refusal::AlreadySubscribed { channel: "news" }, "Existing subscription to channel news"),
        ] {
            assert_eq!(refusal.to_string(), text);
            assert_eq!(refusal.code(), None);
        }
    }

    #[test]
    fn what_cannot_be_replayed_is_told_with_its_type_and_why() {
        let gone = Refusal::ReplayGone { channel: "news", reason: Reason::Expired };
        let count = Refusal::RewindCount { count: 20_000, max_messages: 10_000 };
        let seconds = Refusal::RewindSeconds { channel: "news", seconds: 90_000, window_seconds: 86_400 };
        for (refusal, answer, text) in [
            (
                Refusal::from(ReplayError::Version),
                ("ReplayInvalid", 400),
                "replay.v must be 1, the only version this server speaks",
            ),
            (
                Refusal::from(OverridesError::History),
                ("ReplayInvalid", 400),
                "Invalid channel_data: replay.history must be true or false",
            ),
            (
                count,
                ("ReplayInvalid", 400),
                "replay.rewind.count of 20000 exceeds the allowed maximum (10000 messages)",
            ),
            (
                seconds,
                ("ReplayInvalid", 400),
                "replay.rewind.seconds of 90000 exceeds the window of news (86400 seconds)",
            ),
            (
                gone,
                ("ReplayGone", 410),
                "Messages of news cannot be replayed from there: they are not kept any more",
            ),
            (
                Refusal::ReplayUnavailable { channel: "news" },
                ("ReplayUnavailable", 503),
                "Messages of news cannot be replayed for the moment, subscribe again later",
            ),
        ] {
            assert_eq!(refusal.to_string(), text);
            assert_eq!(refusal.subscription_error(), answer);
            assert_eq!(refusal.code(), None);
        }
    }

    #[test]
    fn s095_s126_only_notices_carry_a_number() {
        assert_eq!(Refusal::ClientEventRate { per_second: 10 }.code(), Some(4301));
        assert_eq!(Refusal::WatchlistTruncated { max_watchlist: 100 }.code(), Some(4302));
    }

    #[test]
    fn s019_a_rejection_closes_with_its_number() {
        assert_eq!(Rejection::AppUnknown { key: "x" }.close_code().number(), 4001);
        assert_eq!(Rejection::Draining.close_code().number(), 4200);
        assert_eq!(
            Rejection::AppUnknown { key: "demo-x" }.to_string(),
            "App key demo-x does not exist on this server"
        );
    }
}
