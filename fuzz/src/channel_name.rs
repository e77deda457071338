//! Channel names: the parser against the rules of section 2.6 written down a second time.

use tidewire_protocol::channel_name::USER_CHANNEL_PREFIX;
use tidewire_protocol::{Access, ChannelName};

const MAX_LENGTH: usize = 200;

pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match ChannelName::parse(text, MAX_LENGTH) {
        Ok(name) => {
            assert!(is_valid(text), "accepted {text:?}");
            assert_eq!(name.as_str(), text);
            assert_eq!(name.access(), access(text), "{text:?}");
            assert_eq!(name.is_presence(), text.starts_with("presence-"));
            assert_eq!(name.user_id(), text.strip_prefix(USER_CHANNEL_PREFIX));
            assert_eq!(name.is_cache(), is_cache(text), "{text:?}");
        }
        Err(error) => {
            assert!(!is_valid(text), "refused {text:?}: {error}");
            assert!(error.to_string().len() < 200);
        }
    }
    // The bound is the caller's.
    if let Ok(name) = ChannelName::parse(text, 3) {
        assert!(measured(name.as_str()).len() <= 3);
    }
}

fn is_valid(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-=@,.;".contains(c);
    let measured = measured(text);
    !measured.is_empty() && measured.chars().all(allowed) && measured.len() <= MAX_LENGTH
}

/// Of a user channel only the id counts.
fn measured(text: &str) -> &str {
    text.strip_prefix(USER_CHANNEL_PREFIX).unwrap_or(text)
}

fn access(text: &str) -> Access {
    if text.starts_with('#') {
        Access::User
    } else if text.starts_with("private-encrypted-") {
        Access::Encrypted
    } else if text.starts_with("private-") {
        Access::Private
    } else if text.starts_with("presence-") {
        Access::Presence
    } else {
        Access::Public
    }
}

fn is_cache(text: &str) -> bool {
    ["cache-", "private-cache-", "private-encrypted-cache-", "presence-cache-"]
        .iter()
        .any(|p| text.starts_with(p))
}
