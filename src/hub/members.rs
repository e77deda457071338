//! The members of one presence channel: users, not connections (2.7).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::value::RawValue;
use tidewire_protocol::identity::Member;

/// Users by id, so that lists come out in one order everywhere.
#[derive(Debug, Default)]
pub struct Members(BTreeMap<Arc<str>, Present>);

#[derive(Debug)]
struct Present {
    connections: u32,
    /// As the user's newest subscription gave it.
    info: Option<Box<RawValue>>,
}

/// The channel holds as many users as the app allows.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

impl Members {
    /// Adds a connection of `member`'s user; `Ok(true)` when it is the user's first.
    pub fn join(&mut self, member: &Member, max_members: usize) -> Result<bool, Full> {
        if let Some(present) = self.0.get_mut(&*member.user_id) {
            present.connections += 1;
            present.info.clone_from(&member.user_info);
            return Ok(false);
        }
        if self.0.len() >= max_members {
            return Err(Full);
        }
        let present = Present { connections: 1, info: member.user_info.clone() };
        self.0.insert(Arc::from(&*member.user_id), present);
        Ok(true)
    }

    /// Adds a connection of this node, whatever the limit: the cluster keeps it. True when the others do not know it.
    pub fn join_here(&mut self, member: &Member) -> bool {
        if let Some(present) = self.0.get_mut(&*member.user_id) {
            present.connections += 1;
            let text = |info: &Option<Box<RawValue>>| info.as_deref().map(|info| info.get().to_owned());
            let differs = text(&present.info) != text(&member.user_info);
            present.info.clone_from(&member.user_info);
            return differs;
        }
        let present = Present { connections: 1, info: member.user_info.clone() };
        self.0.insert(Arc::from(&*member.user_id), present);
        true
    }

    /// The `user_info` of a user who is there.
    pub fn get(&self, user_id: &str) -> Option<Option<&RawValue>> {
        self.0.get(user_id).map(|present| present.info.as_deref())
    }

    /// Removes a connection of the user; true when it was the last.
    pub fn leave(&mut self, user_id: &str) -> bool {
        let Some(present) = self.0.get_mut(user_id) else { return false };
        present.connections -= 1;
        if present.connections > 0 {
            return false;
        }
        self.0.remove(user_id);
        true
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn user_ids(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(|id| &**id)
    }

    /// Ids with their `user_info`.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&RawValue>)> + Clone {
        self.0.iter().map(|(id, present)| (&**id, present.info.as_deref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, info: &str) -> Member {
        Member { user_id: id.into(), user_info: serde_json::from_str(info).ok() }
    }

    #[test]
    fn s082_the_limit_counts_users_and_not_connections() {
        let mut members = Members::default();
        assert_eq!(members.join(&member("a", "1"), 1), Ok(true));
        assert_eq!(members.join(&member("a", "2"), 1), Ok(false));
        assert_eq!(members.join(&member("b", "3"), 1), Err(Full));
        assert_eq!(members.iter().next().and_then(|(_, info)| info).map(RawValue::get), Some("2"));
        assert!(!members.leave("a"));
        assert!(members.leave("a"));
        assert!(!members.leave("a"));
        assert_eq!(members.len(), 0);
    }
}
