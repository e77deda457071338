//! Sessions: a node's claim to what it has in Redis, good while its lease is renewed.
//!
//! When a lease is over, any node moves the session to the dead, keeps it from writing (the *fence*) and removes what it
//! holds. A node that finds its session dead begins a new one.

use std::fmt;

use redis::Value;

use super::reads::join_all;
use super::scripts::{BEAT, REAP};
use super::state::{State, read};
use super::transport::{LinkError, SHARED};
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

/// Unless it lives, the node has to begin a new session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionHealth {
    Alive,
    /// The others took the node for dead.
    Dead,
    /// Redis does not know it: it has lost what it had, or the others have removed all that the session held.
    Forgotten,
}

/// What a node learns when it renews its lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    pub health: SessionHealth,
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
    /// Renews the lease for `lease_ms` from now, and those of the session's predecessors, and says how many connections
    /// each app has on the node. `is_new` registers the session; may be repeated.
    pub async fn beat(
        &self,
        session: &Session,
        is_new: bool,
        lease_ms: u64,
        predecessors: &[Session],
        connections: &[(&str, u64)],
    ) -> Result<Beat, LinkError> {
        let mut keys = vec![self.keys.nodes(), self.keys.dead(), self.keys.connections(&session.0)];
        keys.extend(predecessors.iter().map(|one| self.keys.connections(&one.0)));
        let mut args = vec![session.0.to_string(), lease_ms.to_string(), u8::from(is_new).to_string()];
        args.push(predecessors.len().to_string());
        args.extend(predecessors.iter().map(|one| one.0.to_string()));
        for (app, count) in connections.iter().filter(|(_, count)| *count > 0) {
            args.push(escaped(app).into_owned());
            args.push(count.to_string());
        }
        let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
        let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
        let answer = self.transport.script_urgent(SHARED, &BEAT, &keys, &args).await?;
        let (health, expired, unfinished): (i8, Vec<String>, Vec<String>) = read(answer)?;
        let health = match health {
            1 => SessionHealth::Alive,
            0 => SessionHealth::Dead,
            _ => SessionHealth::Forgotten,
        };
        let sessions = |names: Vec<String>| names.into_iter().map(|name| Session(name.into())).collect();
        Ok(Beat { health, expired: sessions(expired), unfinished: sessions(unfinished) })
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
        self.transport.query(SHARED, pipeline).await?.into_iter().try_for_each(read)
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
            let answer: Value = self.transport.script_urgent(partition, &REAP, &keys, &args).await?;
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
