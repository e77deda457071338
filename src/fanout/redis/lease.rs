//! Sessions: a node's claim to what it has in Redis, good while its lease is renewed.
//!
//! When a lease is over, any node moves the session to the dead, keeps it from writing (the *fence*) and removes what it
//! holds. A node that finds its session dead begins a new one.

use std::fmt;

use redis::Value;

use super::reads::join_all;
use super::scripts::{BEAT, REAP};
use super::state::{State, read};
use super::transport::LinkError;
use crate::fanout::keys::{PARTITIONS, escaped};

/// Entries that one script removes.
const ENTRIES_PER_SCRIPT: &str = "100";
/// How long a fence stays: longer than anything that a dead node had sent can still be on its way.
const FENCE_SECONDS: &str = "3600";

/// 16 hexadecimal digits, drawn anew whenever a node begins to write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Session(pub Box<str>);

impl Session {
    pub fn draw() -> Self {
        Self(format!("{:016x}", rand::random::<u64>()).into())
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a node learns when it renews its lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Otherwise the node has to begin a new session.
    pub is_alive: bool,
    /// Sessions that were found dead just now, and by nobody else: the caller is to reap them.
    pub expired: Vec<Session>,
    /// Sessions that were dead before. Who sees one again and again is to reap it: whoever found it may be dead, too.
    pub unfinished: Vec<Session>,
}

/// What the end of a session changed, as far as this caller did it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reaped {
    /// Members that left their channel.
    pub members: u64,
    /// Channels that were vacated.
    pub channels: u64,
    /// Users that went offline.
    pub users: u64,
}

impl State {
    /// Renews the lease for `lease_ms` from now, and says how many connections each app has on the node. `is_new`
    /// registers the session; may be repeated.
    pub async fn beat(
        &self,
        session: &Session,
        is_new: bool,
        lease_ms: u64,
        connections: &[(&str, u64)],
    ) -> Result<Beat, LinkError> {
        let keys = [self.keys.nodes(), self.keys.dead(), self.keys.connections(&session.0)];
        let mut args = vec![session.0.to_string(), lease_ms.to_string(), u8::from(is_new).to_string()];
        for (app, count) in connections.iter().filter(|(_, count)| *count > 0) {
            args.push(escaped(app).into_owned());
            args.push(count.to_string());
        }
        let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
        let keys = keys.each_ref().map(|key| key.as_bytes());
        let answer = self.transport.script_shared(&BEAT, &keys, &args).await?;
        let (is_alive, expired, unfinished): (bool, Vec<String>, Vec<String>) = read(answer)?;
        let sessions = |names: Vec<String>| names.into_iter().map(|name| Session(name.into())).collect();
        Ok(Beat { is_alive, expired: sessions(expired), unfinished: sessions(unfinished) })
    }

    /// Removes all that a dead session holds, and then its name. Several nodes may do it at once, and it may be done
    /// again if it failed.
    pub async fn reap(&self, session: &Session) -> Result<Reaped, LinkError> {
        let reaped = join_all((0..PARTITIONS).map(|partition| self.reap_partition(partition, session))).await;
        let mut total = Reaped::default();
        for reaped in reaped {
            total.add(reaped?);
        }
        let mut forget = redis::pipe();
        forget.del(self.keys.connections(&session.0)).srem(self.keys.dead(), &*session.0);
        self.commands_shared(forget).await?;
        Ok(total)
    }

    /// Ends a session that lives: the node stops, or begins a new one.
    pub async fn retire(&self, session: &Session) -> Result<Reaped, LinkError> {
        let mut bury = redis::pipe();
        bury.sadd(self.keys.dead(), &*session.0).zrem(self.keys.nodes(), &*session.0);
        self.commands_shared(bury).await?;
        self.reap(session).await
    }

    async fn commands_shared(&self, pipeline: redis::Pipeline) -> Result<(), LinkError> {
        self.transport.query_shared(pipeline).await?.into_iter().try_for_each(read)
    }

    async fn reap_partition(&self, partition: u8, session: &Session) -> Result<Reaped, LinkError> {
        let keys = [
            self.keys.fence(partition, &session.0),
            self.keys.counts(partition, &session.0),
            self.keys.held(partition, &session.0),
            self.keys.signed_in(partition, &session.0),
        ];
        let keys = keys.each_ref().map(|key| key.as_bytes());
        let tag = self.keys.tag(partition);
        let args = [self.transport.publish_command(), &tag, ENTRIES_PER_SCRIPT, FENCE_SECONDS];
        let args = args.map(str::as_bytes);
        let mut total = Reaped::default();
        loop {
            let answer: Value = self.transport.script(partition, &REAP, &keys, &args).await?;
            let (is_done, members, channels, users) = read(answer)?;
            total.add(Reaped { members, channels, users });
            if is_done {
                return Ok(total);
            }
        }
    }
}

impl Reaped {
    fn add(&mut self, other: Self) {
        self.members += other.members;
        self.channels += other.channels;
        self.users += other.users;
    }
}
