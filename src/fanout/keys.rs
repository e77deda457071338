//! Names of everything that the cluster keeps in Redis.
//!
//! Channels and users are spread over [`PARTITIONS`] by name. All names of a partition carry one hash tag, so that a
//! script of a partition touches one slot of a Redis Cluster.

use std::borrow::Cow;
use std::fmt::Write;

/// Fixed for ever: nodes of different versions have to agree on it.
pub const PARTITIONS: u8 = 64;

/// The names below one prefix.
#[derive(Clone, Debug)]
pub struct Keys {
    prefix: Box<str>,
}

/// Where the channel's keys are, and its topic.
pub fn partition(app: &str, channel: &str) -> u8 {
    spread(&[app, "\n", channel])
}

/// Where the keys of a user who signs in are, and the user's topic.
pub fn user_partition(app: &str, user_id: &str) -> u8 {
    spread(&[app, "\nu\n", user_id])
}

fn spread(parts: &[&str]) -> u8 {
    let mut hasher = crc32fast::Hasher::new();
    for part in parts {
        hasher.update(part.as_bytes());
    }
    (hasher.finalize() % u32::from(PARTITIONS)) as u8
}

/// The app's id as it stands in names and fields: any text is an id, but none of `:`, newline and braces may be in it
/// there. Plain ids stay as they are.
pub fn escaped(app: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if app.bytes().all(is_plain) {
        return Cow::Borrowed(app);
    }
    let mut text = String::with_capacity(app.len() + 8);
    for byte in app.bytes() {
        if is_plain(byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a `String` does not fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    Cow::Owned(text)
}

impl Keys {
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into() }
    }

    /// What all names of the partition begin with.
    pub fn tag(&self, partition: u8) -> String {
        format!("{{{}.{partition}}}", self.prefix)
    }

    /// HASH channel → subscriptions in the cluster, of occupied channels.
    pub fn totals(&self, partition: u8, app: &str) -> String {
        self.name(partition, 't', &[&escaped(app)])
    }

    /// HASH user id → `<holders>:<user_info>`; the version stands under the empty id.
    pub fn members(&self, app: &str, channel: &str) -> String {
        self.name(partition(app, channel), 'u', &[&escaped(app), channel])
    }

    /// HASH [`channel_field`] → `<subscriptions>`, followed by `#` if changes are announced.
    pub fn counts(&self, partition: u8, session: &str) -> String {
        self.name(partition, 'n', &[session])
    }

    /// HASH [`member_field`] → what the session last gave as `user_info`, or its hash.
    pub fn held(&self, partition: u8, session: &str) -> String {
        self.name(partition, 'h', &[session])
    }

    /// HASH user id → sessions on which the user is signed in.
    pub fn online(&self, partition: u8, app: &str) -> String {
        self.name(partition, 'o', &[&escaped(app)])
    }

    /// SET of [`user_field`]s.
    pub fn signed_in(&self, partition: u8, session: &str) -> String {
        self.name(partition, 'g', &[session])
    }

    /// Exists once the session's keys are being removed.
    pub fn fence(&self, partition: u8, session: &str) -> String {
        self.name(partition, 'x', &[session])
    }

    /// STRING: the cached event as [`cache_part`](super::message::cache_part) has it.
    pub fn cached(&self, app: &str, channel: &str) -> String {
        self.name(partition(app, channel), 'k', &[&escaped(app), channel])
    }

    /// ZSET channel → when its cached event expires.
    pub fn cached_channels(&self, partition: u8, app: &str) -> String {
        self.name(partition, 'q', &[&escaped(app)])
    }

    /// STRING: what was published with the idempotency key.
    pub fn idempotency(&self, app: &str, channel: &str, key: &str) -> String {
        self.name(partition(app, channel), 'i', &[&escaped(app), channel, key])
    }

    /// Where what is published on the channel goes.
    pub fn channel_topic(&self, app: &str, channel: &str) -> String {
        self.name(partition(app, channel), 'c', &[&escaped(app), channel])
    }

    /// Where the user's presence and orders to its connections go.
    pub fn user_topic(&self, app: &str, user_id: &str) -> String {
        self.name(user_partition(app, user_id), 'w', &[&escaped(app), user_id])
    }

    /// STRING: the number of the user's newest termination.
    pub fn terminated(&self, app: &str, user_id: &str) -> String {
        self.name(user_partition(app, user_id), 'z', &[&escaped(app), user_id])
    }

    /// STRING: what the nodes have to agree on.
    pub fn format(&self) -> String {
        self.shared("format")
    }

    /// ZSET session → end of its lease in milliseconds of Redis's clock.
    pub fn nodes(&self) -> String {
        self.shared("nodes")
    }

    /// SET of sessions whose keys are being removed.
    pub fn dead(&self) -> String {
        self.shared("dead")
    }

    /// HASH app → connections of the session's node.
    pub fn connections(&self, session: &str) -> String {
        self.shared(&format!("conns:{session}"))
    }

    /// What [`Self::connections`] begins with.
    pub fn connections_stem(&self) -> String {
        self.shared("conns:")
    }

    fn shared(&self, name: &str) -> String {
        format!("{{{}}}{name}", self.prefix)
    }

    fn name(&self, partition: u8, kind: char, parts: &[&str]) -> String {
        let length = parts.iter().map(|part| part.len() + 1).sum::<usize>();
        let mut name = String::with_capacity(self.prefix.len() + 6 + length);
        // Writing to a `String` does not fail.
        let _ = write!(name, "{{{}.{partition}}}{kind}", self.prefix);
        for part in parts {
            name.push(':');
            name.push_str(part);
        }
        name
    }
}

/// A channel in what a session holds.
pub fn channel_field(app: &str, channel: &str) -> String {
    format!("{}\n{channel}", escaped(app))
}

/// A member of a channel in what a session holds. The id is last: it may contain anything.
pub fn member_field(app: &str, channel: &str, user_id: &str) -> String {
    format!("{}\n{channel}\n{user_id}", escaped(app))
}

/// A signed-in user in what a session holds.
pub fn user_field(app: &str, user_id: &str) -> String {
    format!("{}\n{user_id}", escaped(app))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_channel_share_its_partition() {
        let keys = Keys::new("tidewire");
        let tag = keys.tag(partition("42", "orders"));
        let names = [
            keys.members("42", "orders"),
            keys.cached("42", "orders"),
            keys.idempotency("42", "orders", "k:1"),
            keys.channel_topic("42", "orders"),
        ];
        let rests = names.map(|name| name.strip_prefix(&tag).expect("the tag").to_owned());
        assert_eq!(rests, ["u:42:orders", "k:42:orders", "i:42:orders:k:1", "c:42:orders"]);
        assert_eq!(keys.nodes(), "{tidewire}nodes");
    }

    #[test]
    fn the_partition_of_a_name_never_changes() {
        assert_eq!(partition("42", "orders"), 51);
        assert_eq!(user_partition("42", "orders"), 30);
    }

    #[test]
    fn channels_spread_over_all_partitions() {
        let mut counts = [0; PARTITIONS as usize];
        for i in 0..6_400 {
            counts[usize::from(partition("42", &format!("presence-room-{i}")))] += 1;
        }
        assert!(counts.iter().all(|count| (50..200).contains(count)), "{counts:?}");
    }

    #[test]
    fn no_two_apps_share_a_name() {
        let keys = Keys::new("t");
        assert_eq!(escaped("a:b\n}%"), "a%3Ab%0A%7D%25");
        assert_ne!(keys.user_topic("a", "b:c"), keys.user_topic("a:b", "c"));
        assert_eq!(channel_field("a\nb", "c"), "a%0Ab\nc");
        assert_ne!(keys.totals(0, "a%3A"), keys.totals(0, "a:"));
    }
}
