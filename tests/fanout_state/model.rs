//! The cluster's record in plain maps: what Redis is to have, and what the topics are to tell.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use tidewire::fanout::keys::{channel_field, member_field, partition, user_field, user_partition};
use tidewire::fanout::message::Message;
use tidewire::fanout::redis::lease::Session;

use crate::support::APP;

pub const SESSIONS: usize = 3;
pub const CHANNELS: [&str; 4] = ["presence-a", "presence-b", "presence-cache-c", "orders"];
pub const USERS: [&str; 6] = ["ann", "bob", "c\nd", ":", "\u{e9}", "42"];
const INFOS: [&str; 4] = ["", "1", r#"{"a":"b"}"#, r#""a text that is longer than forty characters""#];

/// What one session was last told to have.
#[derive(Clone, Debug, Default)]
pub struct Held {
    pub counts: BTreeMap<&'static str, (u32, bool)>,
    pub members: BTreeMap<(&'static str, &'static str), &'static str>,
    pub signed_in: BTreeSet<&'static str>,
}

#[derive(Debug, Default)]
pub struct Model {
    pub sessions: [Held; SESSIONS],
    /// Of each channel: the users with their `user_info`.
    pub members: BTreeMap<&'static str, BTreeMap<&'static str, &'static str>>,
}

#[derive(Clone, Debug)]
pub struct Change {
    pub channel: &'static str,
    pub count: u32,
    pub announce: bool,
    pub max_members: usize,
    pub removed: Vec<&'static str>,
    pub added: Vec<(&'static str, &'static str)>,
}

impl Change {
    pub fn draw(random: &mut StdRng) -> Self {
        let mut users = USERS.to_vec();
        let mut some = |most: usize| {
            let count = random.random_range(0..=most).min(users.len());
            (0..count).map(|_| users.remove(random.random_range(0..users.len()))).collect::<Vec<_>>()
        };
        let (removed, added) = (some(3), some(3));
        let channel = *CHANNELS.choose(random).expect("a channel");
        let has_members = channel.starts_with("presence-");
        let with_info = |id| (id, *INFOS.choose(random).expect("an info"));
        let added: Vec<_> = added.into_iter().map(with_info).collect();
        Self {
            channel,
            count: random.random_range(0..4),
            announce: random.random(),
            max_members: *[3, 100].choose(random).expect("a limit"),
            added: if has_members { added } else { Vec::new() },
            removed: if has_members { removed } else { Vec::new() },
        }
    }
}

impl Model {
    pub fn total(&self, channel: &str) -> u64 {
        self.sessions
            .iter()
            .filter_map(|held| held.counts.get(channel))
            .map(|(count, _)| u64::from(*count))
            .sum()
    }

    fn holders(&self, channel: &'static str, id: &'static str) -> usize {
        self.sessions.iter().filter(|held| held.members.contains_key(&(channel, id))).count()
    }

    /// Applies the change; returns what is told, and the refused.
    pub fn apply(&mut self, session: usize, change: &Change) -> (Vec<String>, Vec<&'static str>) {
        let Change { channel, count, announce, max_members, removed, added } = change;
        let (mut told, mut refused) = (Vec::new(), Vec::new());
        for id in removed {
            self.remove(session, channel, id, &mut told);
        }
        for (id, info) in added {
            let members = self.members.entry(channel).or_default();
            let is_full = members.len() >= *max_members;
            match members.get_mut(id) {
                None if is_full => {
                    refused.push(*id);
                    continue;
                }
                None => {
                    members.insert(id, info);
                    told.push(format!("+{id}{info}"));
                }
                Some(known) => {
                    let is_repeated = self.sessions[session].members.get(&(*channel, *id)) == Some(info);
                    if !is_repeated && *known != *info {
                        *known = info;
                        told.push(format!("i{id}{info}"));
                    }
                }
            }
            self.sessions[session].members.insert((channel, id), info);
        }
        let before = self.total(channel);
        self.sessions[session].counts.remove(channel);
        if *count > 0 {
            self.sessions[session].counts.insert(channel, (*count, *announce));
        }
        let after = self.total(channel);
        if *announce && after > 0 && after != before {
            told.push(format!("#{after}"));
        }
        (told, refused)
    }

    fn remove(&mut self, session: usize, channel: &'static str, id: &'static str, told: &mut Vec<String>) {
        let was_held = self.sessions[session].members.remove(&(channel, id)).is_some();
        if was_held && self.holders(channel, id) == 0 {
            self.members.entry(channel).or_default().remove(id);
            told.push(format!("-{id}"));
        }
    }

    /// The session is dead; returns what is told, sorted.
    pub fn reap(&mut self, session: usize) -> Vec<String> {
        let mut told = Vec::new();
        let held = self.sessions[session].clone();
        for (channel, id) in held.members.keys() {
            self.remove(session, channel, id, &mut told);
        }
        self.sessions[session].counts.clear();
        for (channel, (_, announce)) in &held.counts {
            let total = self.total(channel);
            if *announce && total > 0 {
                told.push(format!("#{total}"));
            }
        }
        for id in &held.signed_in {
            self.sessions[session].signed_in.remove(id);
            if !self.is_online(id) {
                told.push("Offline".to_owned());
            }
        }
        told.sort();
        told
    }

    pub fn is_online(&self, id: &str) -> bool {
        self.sessions.iter().any(|held| held.signed_in.contains(id))
    }

    /// Everything that is to be in Redis but versions, under names without their partition.
    pub fn dump(&self, sessions: &[Session]) -> BTreeMap<String, BTreeMap<String, String>> {
        let mut dump: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        let mut put = |partition: u8, key: String, field: String, value: String| {
            dump.entry(format!("{{tidewire.{partition}}}{key}")).or_default().insert(field, value);
        };
        for (held, session) in self.sessions.iter().zip(sessions) {
            for (channel, (count, announce)) in &held.counts {
                let value = format!("{count}{}", if *announce { "#" } else { "" });
                put(partition(APP, channel), format!("n:{session}"), channel_field(APP, channel), value);
            }
            for ((channel, id), info) in &held.members {
                let hash = || redis::Script::new(info).get_hash().to_owned();
                let mark = if info.len() <= 40 { (*info).to_owned() } else { hash() };
                put(partition(APP, channel), format!("h:{session}"), member_field(APP, channel, id), mark);
            }
            for id in &held.signed_in {
                put(user_partition(APP, id), format!("g:{session}"), user_field(APP, id), String::new());
                let sessions = self.sessions.iter().filter(|held| held.signed_in.contains(id)).count();
                put(user_partition(APP, id), format!("o:{APP}"), (*id).to_owned(), sessions.to_string());
            }
        }
        for channel in CHANNELS {
            if self.total(channel) > 0 {
                let total = self.total(channel).to_string();
                put(partition(APP, channel), format!("t:{APP}"), channel.to_owned(), total);
            }
            for (id, info) in self.members.get(channel).into_iter().flatten() {
                let value = format!("{}:{info}", self.holders(channel, id));
                put(partition(APP, channel), format!("u:{APP}:{channel}"), (*id).to_owned(), value);
            }
        }
        dump
    }
}

/// A node's copy of a channel's members, made of the changes alone.
#[derive(Debug, Default)]
pub struct Replica {
    pub version: u64,
    pub members: BTreeMap<String, String>,
}

impl Replica {
    pub fn apply(&mut self, message: &Message) {
        let (Message::Added(delta) | Message::Changed(delta) | Message::Removed(delta)) = message else {
            return;
        };
        let is_next = delta.version == self.version + 1;
        assert!(
            is_next || self.members.is_empty() && delta.version > self.version,
            "{delta:?} after {self:?}"
        );
        self.version = delta.version;
        let info = delta.info.as_ref().map_or("", |info| info.get()).to_owned();
        let before = match message {
            Message::Removed(_) => self.members.remove(&delta.user_id),
            _ => self.members.insert(delta.user_id.clone(), info),
        };
        assert_eq!(before.is_none(), matches!(message, Message::Added(_)), "{delta:?}");
    }
}
