//! Settings of replay: where messages are kept, and which channels keep how many.

use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{AppConfig, units};
use crate::replay::store::{Caps, Retention};

/// Where and how messages are kept. Which ones is said by the apps.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReplayConfig {
    /// What keeps the messages: files in `dir`; the server's memory, which is gone with the process; or the Redis of
    /// `redis.url`, where every node finds them. Default: `redis` with `redis.url`, `sqlite` without.
    pub store: StoreKind,
    /// Directory of the `sqlite` store; made when the first app uses replay. One server at a time can use it.
    #[schemars(extend("format" = "directory"))]
    pub dir: PathBuf,
    /// When a message is safe in the `sqlite` store. `always`: against a power cut, before its publisher is answered. `interval`: against
    /// `kill -9` at once, against a power cut within 100 ms. `none`: as `interval`, but only the kernel decides when.
    #[serde(with = "DurabilityWords")]
    #[schemars(with = "DurabilityWords")]
    pub durability: Durability,
    /// Size of the whole store; over it, the oldest messages of all channels go first.
    #[serde(with = "units::size")]
    #[schemars(schema_with = "units::size_schema", extend("minimum" = 16_777_216))]
    pub max_bytes: u64,
    /// When a message cannot be stored: `reject` answers its publisher 503 and nobody gets it; `live_only` delivers it to
    /// those who are connected, and tells whoever was away that something is missing. With the `redis` store always `reject`.
    pub on_store_error: OnStoreError,
}

/// How the file writes a [`Durability`].
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(remote = "Durability", rename_all = "lowercase")]
enum DurabilityWords {
    Always,
    Interval,
    None,
}

/// What keeps the messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// Files in `dir`.
    #[default]
    Sqlite,
    /// The server's memory: nothing outlives the process.
    Memory,
    /// The Redis of `redis.url`, where every node finds them.
    Redis,
}

/// When a commit is safe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Against a power cut, before the publisher hears of it.
    Always,
    /// Against `kill -9` at once, against a power cut within 100 ms.
    #[default]
    Interval,
    /// Against `kill -9` at once; when the kernel writes back otherwise.
    None,
}

/// What becomes of a message that cannot be stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnStoreError {
    /// Its publisher is answered 503, and nobody gets it.
    #[default]
    Reject,
    /// It is delivered to those who are connected, and whoever was away is told that something is missing.
    LiveOnly,
}

/// Which channels of an app keep their messages. In the file also `true` (all of them, at the defaults of a rule) or
/// `false` (none).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("type" = ["object", "boolean"]))]
pub struct AppReplay {
    /// The first rule that matches a channel holds for it; a channel that none matches keeps nothing.
    pub rules: Vec<ReplayRule>,
    /// Size of all the app's messages; over it, its oldest go first. 0 = only `replay.max_bytes` counts.
    #[serde(with = "units::size")]
    #[schemars(schema_with = "units::size_schema")]
    pub max_bytes: u64,
}

/// What the channels of a pattern keep. A message is replayed while it is within all of the limits.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["match"]))]
pub struct ReplayRule {
    /// A channel's name, in which `*` stands for any characters: `private-chat-*`.
    #[serde(rename = "match")]
    pub pattern: ChannelPattern,
    /// `false` exempts the channels from the rules below it.
    pub stored: bool,
    /// Age up to which a message can be replayed.
    #[serde(with = "units::time")]
    #[schemars(schema_with = "units::time_schema", extend("minimum" = 1, "maximum" = MAX_WINDOW_SECONDS))]
    pub window: Duration,
    /// Newest messages of a channel that can be replayed.
    #[schemars(range(min = 1))]
    pub max_messages: u64,
    /// Size of a channel's newest messages that can be replayed; the last one always can.
    #[serde(with = "units::size")]
    #[schemars(schema_with = "units::size_schema", extend("minimum" = 1024))]
    pub max_bytes: u64,
    /// Nothing of a channel is replayed when its last message is older than this; 0 = off.
    #[serde(with = "units::time")]
    #[schemars(schema_with = "units::time_schema", extend("maximum" = MAX_WINDOW_SECONDS))]
    pub inactivity_ttl: Duration,
    /// Store client events (`client-…`), too.
    pub client_events: bool,
    /// Shortens `limits.keepalive_interval` for event streams with a channel of this rule.
    #[serde(with = "units::optional_time")]
    #[schemars(schema_with = "units::optional_time_schema", extend("minimum" = 1, "maximum" = 3600))]
    pub keepalive_interval: Option<Duration>,
    /// Shortens `limits.max_connection_lifetime` and `limits.max_sse_lifetime` for connections that subscribe to a channel
    /// of this rule; 0 = does not.
    #[serde(with = "units::optional_time")]
    #[schemars(schema_with = "units::optional_time_schema", extend("maximum" = MAX_WINDOW_SECONDS))]
    pub max_connection_lifetime: Option<Duration>,
}

/// A year.
pub const MAX_WINDOW_SECONDS: u64 = 365 * 24 * 60 * 60;

/// A channel's name with `*` for any characters, none included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelPattern {
    text: Box<str>,
    /// What stands between the `*`.
    parts: Box<[Box<str>]>,
}

impl ReplayConfig {
    /// How much the store keeps for these apps.
    pub fn caps<'a>(&self, apps: impl IntoIterator<Item = &'a AppConfig>) -> Caps {
        let mut caps = Caps { longest_window_ms: 0, max_bytes: self.max_bytes, app_max_bytes: Vec::new() };
        for app in apps {
            let windows = app.replay.stored().map(|rule| rule.retention().window_ms);
            caps.longest_window_ms = windows.fold(caps.longest_window_ms, u64::max);
            if app.replay.max_bytes > 0 {
                caps.app_max_bytes.push((Box::from(&*app.id), app.replay.max_bytes));
            }
        }
        caps
    }
}

impl AppReplay {
    /// Every channel, at the defaults of a rule.
    pub fn everything() -> Self {
        Self { rules: vec![ReplayRule::default()], ..Self::default() }
    }

    /// Whether any channel keeps its messages.
    pub fn is_on(&self) -> bool {
        self.stored().next().is_some()
    }

    /// The rule of a channel that keeps its messages.
    pub fn rule(&self, channel: &str) -> Option<&ReplayRule> {
        self.rules.iter().find(|rule| rule.pattern.matches(channel)).filter(|rule| rule.stored)
    }

    fn stored(&self) -> impl Iterator<Item = &ReplayRule> {
        self.rules.iter().filter(|rule| rule.stored)
    }
}

impl ReplayRule {
    pub fn retention(&self) -> Retention {
        Retention {
            window_ms: self.window.as_secs().saturating_mul(1000),
            max_messages: self.max_messages,
            max_bytes: self.max_bytes,
            inactivity_ttl_ms: self.inactivity_ttl.as_secs().saturating_mul(1000),
        }
    }
}

impl ChannelPattern {
    pub fn new(text: &str) -> Self {
        Self { text: text.into(), parts: text.split('*').map(Box::from).collect() }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn matches(&self, channel: &str) -> bool {
        let [first, middle @ .., last] = &*self.parts else {
            return *self.text == *channel;
        };
        let Some(rest) = channel.strip_prefix(&**first).and_then(|rest| rest.strip_suffix(&**last)) else {
            return false;
        };
        // Each part at its first place leaves the most for those after it.
        let after = |rest: &'_ str, part: &str| rest.find(part).map(|at| at + part.len());
        let mut rest = rest;
        middle.iter().all(|part| match after(rest, part) {
            Some(end) => {
                rest = &rest[end..];
                true
            }
            None => false,
        })
    }

    /// Whether it matches all that `other` does, as far as that is easily seen.
    pub fn covers(&self, other: &Self) -> bool {
        // A `*` is matched as a character here: whatever it stands for, this pattern's own `*` takes it as well.
        self.matches(&other.text)
    }
}

/// The grammar of a pattern: what a channel's name may consist of, and `*`.
pub fn check_pattern(text: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-=@,.;#*".contains(c);
    match text {
        "" => Err(r#"is empty; "*" matches every channel"#.to_owned()),
        _ if text.chars().all(allowed) => Ok(()),
        _ => Err(format!(
            r#"expected a channel's name in which * stands for anything, such as "private-chat-*", got {text:?}"#
        )),
    }
}

/// `true`, `false`, or the rules.
pub fn app_replay<'de, D: Deserializer<'de>>(deserializer: D) -> Result<AppReplay, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        Switch(bool),
        Rules(AppReplay),
    }
    Ok(match Given::deserialize(deserializer)? {
        Given::Switch(true) => AppReplay::everything(),
        Given::Switch(false) => AppReplay::default(),
        Given::Rules(replay) => replay,
    })
}

impl Default for ReplayConfig {
    fn default() -> Self {
        Self {
            store: StoreKind::default(),
            dir: PathBuf::from("./data/replay"),
            durability: Durability::default(),
            max_bytes: 4 << 30,
            on_store_error: OnStoreError::default(),
        }
    }
}

impl Default for ReplayRule {
    fn default() -> Self {
        Self {
            pattern: ChannelPattern::new("*"),
            stored: true,
            window: Duration::from_secs(24 * 60 * 60),
            max_messages: 1000,
            max_bytes: 1 << 20,
            inactivity_ttl: Duration::ZERO,
            client_events: false,
            keepalive_interval: None,
            max_connection_lifetime: None,
        }
    }
}

impl Serialize for ChannelPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for ChannelPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        check_pattern(&text).map_err(serde::de::Error::custom)?;
        Ok(Self::new(&text))
    }
}

impl JsonSchema for ChannelPattern {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ChannelPattern".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "channel-pattern", "pattern": "^[A-Za-z0-9_=@,.;#*-]+$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, channel) in [
            ("*", "anything"),
            ("orders", "orders"),
            ("private-chat-*", "private-chat-7"),
            ("private-chat-*", "private-chat-"),
            ("*-feed", "private-user-feed"),
            ("private-*-feed", "private-user.7-feed"),
            ("a*b*c", "a-b-b-c"),
            ("a**b", "ab"),
            ("*ab*ab", "ab-ab"),
        ] {
            assert!(ChannelPattern::new(pattern).matches(channel), "{pattern} {channel}");
        }
        for (pattern, channel) in [
            ("orders", "orders-7"),
            ("orders", "my-orders"),
            ("private-chat-*", "presence-chat-7"),
            ("ab*ba", "aba"),
            ("a*b*c", "a-c-b"),
            ("*ab*ab", "a-ab"),
            ("", "orders"),
        ] {
            assert!(!ChannelPattern::new(pattern).matches(channel), "{pattern} {channel}");
        }
    }

    #[test]
    fn the_first_rule_that_matches_holds() {
        let rule = |pattern: &str, stored, max_messages| ReplayRule {
            pattern: ChannelPattern::new(pattern),
            stored,
            max_messages,
            ..ReplayRule::default()
        };
        let replay = AppReplay {
            rules: vec![
                rule("private-typing-*", false, 1),
                rule("private-*", true, 2),
                rule("private-chat-*", true, 3),
            ],
            ..AppReplay::default()
        };
        assert_eq!(replay.rule("private-typing-7"), None);
        assert_eq!(replay.rule("private-chat-7").map(|rule| rule.max_messages), Some(2));
        assert_eq!(replay.rule("orders"), None);
        assert_eq!(AppReplay::default().rule("orders"), None);
        assert_eq!(AppReplay::everything().rule("orders"), Some(&ReplayRule::default()));
    }

    #[test]
    fn the_store_keeps_what_the_longest_window_asks_for() {
        let app = |id: &str, hours: u64, max_bytes| {
            let window = Duration::from_secs(hours * 3600);
            let rules = vec![ReplayRule { window, ..ReplayRule::default() }];
            AppConfig { replay: AppReplay { rules, max_bytes }, ..AppConfig::new(id, "k", "s") }
        };
        let caps = ReplayConfig::default().caps(&[app("1", 2, 0), app("2", 1, 5_000_000)]);
        assert_eq!(caps.longest_window_ms, 2 * 3600 * 1000);
        assert_eq!(caps.max_bytes, 4 << 30);
        assert_eq!(caps.app_max_bytes, [(Box::from("2"), 5_000_000)]);
    }
}
