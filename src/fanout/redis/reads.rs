//! What the cluster has, read from Redis: no node asks the others.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use redis::Value;
use serde_json::value::RawValue;

use super::scripts::CONNECTIONS;
use super::state::{State, read, unexpected};
use super::transport::{LinkError, SHARED};
use crate::fanout::keys::{PARTITIONS, escaped, partition, user_partition};
use crate::fanout::message::{cache_part, raw_json};

/// Fields that one step of a scan looks at, so that Redis does other things in between.
const SCAN_STEP: usize = 1_000;

/// Parts of a [`Snapshot`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Want {
    pub members: bool,
    pub count: bool,
    pub cached: bool,
}

/// A user as it is between two messages on its topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserSnapshot {
    /// Whether the user is signed in anywhere.
    pub is_online: bool,
    /// Number of the newest termination; 0 when none is remembered.
    pub terminated: u64,
}

/// A channel as it is between two messages on its topic.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Of the members; 0 when there are none. Whoever has them applies the change that is numbered one higher; after
    /// any other number it takes a new snapshot.
    pub version: u64,
    pub members: Members,
    /// Subscriptions in the cluster.
    pub count: u64,
    pub cached: Option<Cached>,
}

/// Ids with their `user_info`.
pub type Members = Vec<(Box<str>, Option<Box<RawValue>>)>;

/// A cached event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cached {
    pub frame: Bytes,
    /// The event's data as text.
    pub data: Bytes,
    /// What is left of its time.
    pub ttl_ms: u64,
}

/// A channel as the REST API tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelRead {
    /// Subscriptions; the channel is occupied if there are any.
    pub total: u64,
    /// Members.
    pub users: u64,
    pub cached: Option<Cached>,
}

impl State {
    /// What a node needs of a channel that it has begun to follow: ask once its topic is subscribed.
    pub async fn snapshot(&self, app: &str, channel: &str, want: Want) -> Result<Snapshot, LinkError> {
        let at = partition(app, channel);
        let mut pipeline = redis::pipe();
        if want.members {
            pipeline.hgetall(self.keys.members(app, channel));
        }
        if want.count {
            pipeline.hget(self.keys.totals(at, app), channel);
        }
        if want.cached {
            self.ask_for_cached(&mut pipeline, app, channel);
        }
        let mut snapshot = Snapshot::default();
        if pipeline.is_empty() {
            return Ok(snapshot);
        }
        let mut values = self.transport.query(at, pipeline).await?.into_iter();
        if want.members {
            (snapshot.version, snapshot.members) = parse_members(values.next())?;
        }
        if want.count {
            snapshot.count = next::<Option<u64>>(&mut values)?.unwrap_or(0);
        }
        if want.cached {
            snapshot.cached = parse_cached(&mut values)?;
        }
        Ok(snapshot)
    }

    /// A user, as whoever follows it has to know it.
    pub async fn user(&self, app: &str, user_id: &str) -> Result<UserSnapshot, LinkError> {
        let at = user_partition(app, user_id);
        let mut pipeline = redis::pipe();
        pipeline.hexists(self.keys.online(at, app), user_id).get(self.keys.terminated(app, user_id));
        let mut values = self.transport.query(at, pipeline).await?.into_iter();
        let is_online = next(&mut values)?;
        let terminated: Option<u64> = next(&mut values)?;
        Ok(UserSnapshot { is_online, terminated: terminated.unwrap_or(0) })
    }

    /// One channel; its cached event only if it is asked for.
    pub async fn channel(
        &self,
        app: &str,
        channel: &str,
        with_cached: bool,
    ) -> Result<ChannelRead, LinkError> {
        let at = partition(app, channel);
        let mut pipeline = redis::pipe();
        pipeline.hget(self.keys.totals(at, app), channel).hlen(self.keys.members(app, channel));
        if with_cached {
            self.ask_for_cached(&mut pipeline, app, channel);
        }
        let mut values = self.transport.query(at, pipeline).await?.into_iter();
        let total = next::<Option<u64>>(&mut values)?.unwrap_or(0);
        let users = next::<u64>(&mut values)?.saturating_sub(1);
        let cached = if with_cached { parse_cached(&mut values)? } else { None };
        Ok(ChannelRead { total, users, cached })
    }

    /// Occupied channels whose name begins with `prefix`, by name: subscriptions, and members if they are asked for.
    pub async fn channels(
        &self,
        app: &str,
        prefix: &str,
        with_users: bool,
    ) -> Result<Vec<(Box<str>, u64, u64)>, LinkError> {
        let parts = (0..PARTITIONS).map(|at| self.channels_of(at, app, prefix, with_users));
        let mut channels = Vec::new();
        for part in join_all(parts).await {
            channels.append(&mut part?);
        }
        channels.sort_unstable();
        Ok(channels)
    }

    /// Ids of the channel's members, sorted.
    pub async fn users(&self, app: &str, channel: &str) -> Result<Vec<String>, LinkError> {
        let mut pipeline = redis::pipe();
        pipeline.hkeys(self.keys.members(app, channel));
        let mut values = self.transport.query(partition(app, channel), pipeline).await?.into_iter();
        let mut users: Vec<String> = next(&mut values)?;
        users.retain(|id| !id.is_empty());
        users.sort_unstable();
        Ok(users)
    }

    /// Connections of the app, on nodes that live.
    pub async fn connections(&self, app: &str) -> Result<u64, LinkError> {
        let keys = [self.keys.nodes()];
        let keys = keys.each_ref().map(|key| key.as_bytes());
        let (stem, app) = (self.keys.connections_stem(), escaped(app));
        read(self.transport.script(SHARED, &CONNECTIONS, &keys, &[stem.as_bytes(), app.as_bytes()]).await?)
    }

    async fn channels_of(
        &self,
        partition: u8,
        app: &str,
        prefix: &str,
        with_users: bool,
    ) -> Result<Vec<(Box<str>, u64, u64)>, LinkError> {
        let key = self.keys.totals(partition, app);
        let pattern = pattern_of(prefix);
        // A scan may show a channel twice.
        let mut found: BTreeMap<Box<str>, u64> = BTreeMap::new();
        let mut cursor = 0_u64;
        loop {
            let mut pipeline = redis::pipe();
            pipeline.cmd("HSCAN").arg(&key).arg(cursor);
            if !prefix.is_empty() {
                pipeline.arg("MATCH").arg(&pattern);
            }
            pipeline.arg("COUNT").arg(SCAN_STEP);
            let mut values = self.transport.query(partition, pipeline).await?.into_iter();
            let (next_cursor, channels): (u64, Vec<(String, u64)>) = next(&mut values)?;
            found.extend(channels.into_iter().map(|(name, total)| (name.into(), total)));
            if next_cursor == 0 {
                break;
            }
            cursor = next_cursor;
        }
        let users = if with_users {
            let names: Vec<&str> = found.keys().map(|name| &**name).collect();
            self.user_counts(partition, app, &names).await?
        } else {
            vec![0; found.len()]
        };
        let channels = found.into_iter().zip(users);
        Ok(channels.map(|((name, total), users)| (name, total, users)).collect())
    }

    async fn user_counts(&self, partition: u8, app: &str, channels: &[&str]) -> Result<Vec<u64>, LinkError> {
        let mut counts = Vec::with_capacity(channels.len());
        for channels in channels.chunks(SCAN_STEP) {
            let mut pipeline = redis::pipe();
            for channel in channels {
                pipeline.hlen(self.keys.members(app, channel));
            }
            for length in self.transport.query(partition, pipeline).await? {
                counts.push(read::<u64>(length)?.saturating_sub(1));
            }
        }
        Ok(counts)
    }

    fn ask_for_cached(&self, pipeline: &mut redis::Pipeline, app: &str, channel: &str) {
        let key = self.keys.cached(app, channel);
        pipeline.get(&key).pttl(&key);
    }
}

fn next<T: redis::FromRedisValue>(values: &mut impl Iterator<Item = Value>) -> Result<T, LinkError> {
    values.next().ok_or_else(unexpected).and_then(read)
}

/// The answer to `HGETALL`: each user's `<holders>:<user_info>`, and the version.
fn parse_members(answer: Option<Value>) -> Result<(u64, Members), LinkError> {
    let entries: Vec<(String, Vec<u8>)> = next(&mut answer.into_iter())?;
    let mut version = 0;
    let mut members = Vec::with_capacity(entries.len().saturating_sub(1));
    for (id, value) in entries {
        if id.is_empty() {
            version =
                std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok()).ok_or_else(unexpected)?;
            continue;
        }
        let colon = value.iter().position(|byte| *byte == b':').ok_or_else(unexpected)?;
        let info = match &value[colon + 1..] {
            [] => None,
            json => Some(raw_json(json).map_err(|_| unexpected())?),
        };
        members.push((id.into(), info));
    }
    Ok((version, members))
}

/// The answers to `GET` and `PTTL`.
fn parse_cached(values: &mut impl Iterator<Item = Value>) -> Result<Option<Cached>, LinkError> {
    let value: Option<Vec<u8>> = next(values)?;
    // Negative once it has expired.
    let ttl_ms: i64 = next(values)?;
    let (Some(value), Ok(ttl_ms)) = (value, u64::try_from(ttl_ms)) else { return Ok(None) };
    let (data, frame) = cache_part(Bytes::from(value)).map_err(|_| unexpected())?;
    Ok(Some(Cached { frame, data, ttl_ms }))
}

/// A glob for names that begin with the prefix, which may be any text.
fn pattern_of(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len() + 1);
    for character in prefix.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\' | '^') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('*');
    pattern
}

/// Polls all of them together, so that what they ask of one server goes out at once.
pub(super) async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<Pin<Box<F>>> = futures.map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    poll_fn(|context| {
        let mut is_ready = true;
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    Poll::Ready(ready) => *output = Some(ready),
                    Poll::Pending => is_ready = false,
                }
            }
        }
        if is_ready { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    outputs.into_iter().flatten().collect()
}
