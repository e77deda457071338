//! Names of channels: which ones exist, and what a prefix asks of a subscriber (2.4, 2.6).

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

/// Prefix of the channel that belongs to one signed-in user; the only name with a `#` (2.6).
pub const USER_CHANNEL_PREFIX: &str = "#server-to-user-";
/// Prefix of a channel whose data only its clients can read (2.10).
pub const ENCRYPTED_CHANNEL_PREFIX: &str = "private-encrypted-";

/// Who may subscribe to a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Anybody.
    Public,
    /// Holders of a channel signature.
    Private,
    /// As private; the payload is opaque to the server.
    Encrypted,
    /// Holders of a channel signature with a member identity.
    Presence,
    /// `#server-to-user-{id}`: connections signed in as that user.
    User,
}

impl Access {
    /// The access of `name` with whether it is a cache channel. Prefixes are case-sensitive and include the
    /// dash: `private-cachex` is an ordinary private channel.
    fn of(name: &str) -> (Self, bool) {
        if name.starts_with(USER_CHANNEL_PREFIX) {
            return (Self::User, false);
        }
        let (access, rest) = if let Some(rest) = name.strip_prefix(ENCRYPTED_CHANNEL_PREFIX) {
            (Self::Encrypted, rest)
        } else if let Some(rest) = name.strip_prefix("private-") {
            (Self::Private, rest)
        } else if let Some(rest) = name.strip_prefix("presence-") {
            (Self::Presence, rest)
        } else {
            (Self::Public, name)
        };
        (access, rest.starts_with("cache-"))
    }
}

/// A channel name that is known to be valid.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChannelName<'a> {
    name: &'a str,
    access: Access,
    cache: bool,
}

impl<'a> ChannelName<'a> {
    /// Accepts `[A-Za-z0-9_\-=@,.;]+` up to `max_length` characters with the prefix included, and
    /// `#server-to-user-{id}`. There the id alone is measured, as the server SDKs do.
    pub fn parse(name: &'a str, max_length: usize) -> Result<Self, NameError> {
        let measured = name.strip_prefix(USER_CHANNEL_PREFIX).unwrap_or(name);
        check_characters(measured)?;
        // Only ASCII is left: bytes are characters.
        if measured.len() > max_length {
            return Err(NameError::TooLong { length: measured.len(), max_length });
        }
        let (access, cache) = Access::of(name);
        Ok(Self { name, access, cache })
    }

    pub fn as_str(self) -> &'a str {
        self.name
    }

    pub fn access(self) -> Access {
        self.access
    }

    /// True when the last published event is kept for later subscribers (2.9).
    pub fn is_cache(self) -> bool {
        self.cache
    }

    pub fn is_presence(self) -> bool {
        self.access == Access::Presence
    }

    /// True when a subscription needs a channel signature.
    pub fn needs_auth(self) -> bool {
        matches!(self.access, Access::Private | Access::Encrypted | Access::Presence)
    }

    /// True when clients may send events to the channel. Encrypted channels are refused although their
    /// prefix is private: every client refuses to send there, too (2.8).
    pub fn allows_client_events(self) -> bool {
        matches!(self.access, Access::Private | Access::Presence)
    }

    /// The id in `#server-to-user-{id}`.
    pub fn user_id(self) -> Option<&'a str> {
        match self.access {
            Access::User => self.name.strip_prefix(USER_CHANNEL_PREFIX),
            _ => None,
        }
    }
}

impl fmt::Display for ChannelName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Debug for ChannelName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.name, f)
    }
}

/// A valid channel name that may own its text, as parsed from a request body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidChannel<'a> {
    name: Cow<'a, str>,
    access: Access,
    cache: bool,
}

impl<'a> ValidChannel<'a> {
    pub fn parse(name: Cow<'a, str>, max_length: usize) -> Result<Self, NameError> {
        let ChannelName { access, cache, .. } = ChannelName::parse(&name, max_length)?;
        Ok(Self { name, access, cache })
    }

    pub fn name(&self) -> ChannelName<'_> {
        ChannelName { name: &self.name, access: self.access, cache: self.cache }
    }
}

impl Deref for ValidChannel<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.name
    }
}

impl AsRef<str> for ValidChannel<'_> {
    fn as_ref(&self) -> &str {
        &self.name
    }
}

/// Why a text is not a channel name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("Invalid channel name: it must not be empty")]
    Empty,
    #[error("Invalid channel name: {length} characters exceed the allowed maximum ({max_length})")]
    TooLong { length: usize, max_length: usize },
    #[error("Invalid channel name: '{0}' is not allowed, only letters, digits and _-=@,.; are")]
    Character(char),
    #[error("Invalid channel name: '#' is reserved, only #server-to-user-{{id}} exists")]
    Reserved,
}

/// The alphabet of channel names and of user ids (2.6).
pub(crate) fn check_characters(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.starts_with('#') {
        return Err(NameError::Reserved);
    }
    match text.chars().find(|character| !is_name_character(*character)) {
        Some(character) => Err(NameError::Character(character)),
        None => Ok(()),
    }
}

fn is_name_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '=' | '@' | ',' | '.' | ';')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str) -> Result<ChannelName<'_>, NameError> {
        ChannelName::parse(name, 200)
    }

    fn kind(name: &str) -> (Access, bool) {
        let name = parse(name).unwrap();
        (name.access(), name.is_cache())
    }

    #[test]
    fn the_prefix_decides_access_and_cache() {
        for (name, expected) in [
            ("news", (Access::Public, false)),
            ("cache-news", (Access::Public, true)),
            ("private-a", (Access::Private, false)),
            ("private-cache-a", (Access::Private, true)),
            ("private-encrypted-a", (Access::Encrypted, false)),
            ("private-encrypted-cache-a", (Access::Encrypted, true)),
            ("presence-a", (Access::Presence, false)),
            ("presence-cache-a", (Access::Presence, true)),
            ("presence-encrypted-a", (Access::Presence, false)),
            ("#server-to-user-u-1", (Access::User, false)),
            ("#server-to-user-cache-1", (Access::User, false)),
            ("private-", (Access::Private, false)),
            ("private", (Access::Public, false)),
        ] {
            assert_eq!(kind(name), expected, "{name}");
        }
    }

    #[test]
    fn s109_cache_needs_its_whole_prefix() {
        for name in ["cachex", "private-cachex", "presence-cache", "Cache-a", "my-cache-a"] {
            assert!(!parse(name).unwrap().is_cache(), "{name}");
        }
    }

    #[test]
    fn s056_prefixes_are_case_sensitive() {
        for name in ["Private-x", "PRIVATE-x", "Presence-x"] {
            assert_eq!(kind(name).0, Access::Public, "{name}");
        }
    }

    #[test]
    fn s052_s053_names_are_made_of_their_alphabet() {
        assert!(parse("A-z_0=9@x,y.z;q").is_ok());
        for name in ["a b", "ä", "a/b", "a:b", "a+b", "a#b", "a\n", "a\0"] {
            assert!(matches!(parse(name), Err(NameError::Character(_))), "{name}");
        }
        assert_eq!(parse(""), Err(NameError::Empty));
    }

    #[test]
    fn s054_a_name_of_200_characters_is_the_longest() {
        let longest = "x".repeat(200);
        assert!(parse(&longest).is_ok());
        assert_eq!(parse(&format!("{longest}x")), Err(NameError::TooLong { length: 201, max_length: 200 }));
    }

    #[test]
    fn s055_a_hash_names_nothing_but_a_user_channel() {
        for name in ["#", "#news", "#server-to-user", "#Server-to-user-1"] {
            assert_eq!(parse(name), Err(NameError::Reserved), "{name}");
        }
        assert_eq!(parse("#server-to-user-"), Err(NameError::Empty));
        assert_eq!(parse("#server-to-user-u-1").unwrap().user_id(), Some("u-1"));
        assert_eq!(parse("server-to-user-u-1").unwrap().user_id(), None);
    }

    #[test]
    fn the_id_of_a_user_channel_is_measured_alone() {
        assert!(parse(&format!("#server-to-user-{}", "x".repeat(200))).is_ok());
        assert!(parse(&format!("#server-to-user-{}", "x".repeat(201))).is_err());
    }

    #[test]
    fn only_private_and_presence_channels_take_client_events() {
        assert!(parse("private-a").unwrap().allows_client_events());
        assert!(parse("presence-a").unwrap().allows_client_events());
        for name in ["news", "cache-a", "private-encrypted-a", "#server-to-user-1"] {
            assert!(!parse(name).unwrap().allows_client_events(), "{name}");
        }
    }
}
