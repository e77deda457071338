//! Who a client believes to be in its presence channel.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// How many, and the sum of their hashes: whoever knows the same members has the same, in whatever order they came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roster {
    pub members: u64,
    pub digest: u64,
}

/// Beginning of the frames of both kinds.
pub const CHANGE: &[u8] = br#"{"event":"pusher_internal:member_"#;
const ADDED: &[u8] = b"added\"";
const REMOVED: &[u8] = b"removed\"";
/// In the event's data, a JSON text within a JSON text.
const USER_ID: &[u8] = br#"\"user_id\":\""#;

impl Roster {
    pub fn add(&mut self, user_id: &[u8]) {
        self.members = self.members.wrapping_add(1);
        self.digest = self.digest.wrapping_add(hash(user_id));
    }

    fn remove(&mut self, user_id: &[u8]) {
        self.members = self.members.wrapping_sub(1);
        self.digest = self.digest.wrapping_sub(hash(user_id));
    }

    /// Of all who are in one of the two.
    pub fn and(self, other: Self) -> Self {
        let (members, digest) = (self.members + other.members, self.digest.wrapping_add(other.digest));
        Roster { members, digest }
    }

    /// Takes a frame that begins with [`CHANGE`]. Millions of them come: it is searched, not parsed. User ids of the
    /// bench are socket ids, which nothing in has to be escaped.
    pub fn change(&mut self, frame: &[u8]) -> Result<()> {
        let unreadable = || format!("a change of members: {}", String::from_utf8_lossy(frame));
        let kind = frame.get(CHANGE.len()..).unwrap_or_default();
        let at = frame.windows(USER_ID.len()).position(|part| part == USER_ID).with_context(unreadable)?;
        let rest = &frame[at + USER_ID.len()..];
        let end = rest.iter().position(|byte| *byte == b'\\').with_context(unreadable)?;
        match &rest[..end] {
            user_id if kind.starts_with(ADDED) => self.add(user_id),
            user_id if kind.starts_with(REMOVED) => self.remove(user_id),
            _ => bail!(unreadable()),
        }
        Ok(())
    }

    /// Of the data of `subscription_succeeded`.
    pub fn list(data: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Data<'a> {
            #[serde(borrow)]
            presence: Presence<'a>,
        }
        #[derive(Deserialize)]
        struct Presence<'a> {
            count: u64,
            #[serde(borrow)]
            ids: Vec<&'a str>,
        }
        let Data { presence } = serde_json::from_str(data).context("a list of members")?;
        let mut roster = Roster::default();
        presence.ids.iter().for_each(|user_id| roster.add(user_id.as_bytes()));
        anyhow::ensure!(
            roster.members == presence.count,
            "a list of {} members counts {}",
            roster.members,
            presence.count
        );
        Ok(roster)
    }
}

/// FNV-1a, stirred once more: sums of hashes have to differ where the texts differ little.
fn hash(text: &[u8]) -> u64 {
    let fnv = text.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (fnv ^ (fnv >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: &str, user_id: &str) -> Vec<u8> {
        format!(
            r#"{{"event":"pusher_internal:member_{kind}","channel":"presence-a","data":"{{\"user_id\":\"{user_id}\",\"user_info\":null}}"}}"#
        )
        .into_bytes()
    }

    #[test]
    fn a_list_and_its_changes_come_to_the_same_in_any_order() {
        let mut first =
            Roster::list(r#"{"presence":{"count":2,"ids":["1.2","3.4"],"hash":{"1.2":null,"3.4":null}}}"#)
                .unwrap();
        first.change(&frame("added", "5.6")).unwrap();
        first.change(&frame("removed", "1.2")).unwrap();
        let mut second = Roster::default();
        second.add(b"5.6");
        second.add(b"3.4");
        assert_eq!(first, second);
        second.change(&frame("removed", "3.4")).unwrap();
        second.change(&frame("added", "3.5")).unwrap();
        assert_eq!(first.members, second.members);
        assert_ne!(first, second);
    }

    #[test]
    fn what_is_not_a_change_is_refused() {
        let mut roster = Roster::default();
        assert!(roster.change(&frame("promoted", "1.2")).is_err());
        assert!(roster.change(br#"{"event":"pusher_internal:member_added"}"#).is_err());
        assert!(Roster::list(r#"{"presence":{"count":3,"ids":["1.2"],"hash":{}}}"#).is_err());
        assert_eq!(roster, Roster::default());
    }
}
