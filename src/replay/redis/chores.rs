//! What is due once in a while: the clock, what is too old, and what is too much.
//!
//! The nodes take turns: one goes through all streams, and writes down for the others what it found. Nothing is dropped
//! message by message when the store is too large; the window of everything narrows, so that the oldest go first.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use redis::{Value, from_redis_value};

use super::entry::text;
use super::names::parts_of_field;
use super::scripts::TIDY;
use super::{RedisStore, join_all, store_error, unexpected};
use crate::fanout::keys::{PARTITIONS, escaped};
use crate::fanout::redis::transport::{Partition, SHARED};
use crate::replay::store::{Caps, StoreError};
use crate::sync::lock;

/// Streams that are looked at in one call.
const STREAMS: usize = 1024;
const SCAN_STEP: usize = 128;
/// How long a node has its turn without a sign of life.
const TURN_MS: u64 = 30_000;
/// Between the end of one round and the beginning of the next.
const REST_MS: u64 = 60_000;
/// The same, while there is too much.
const SHORT_REST_MS: u64 = 5_000;
/// Calls between two looks at what others found.
const LOOK_CALLS: u64 = 10;
/// What a message takes beside its texts: its place in the stream, names of fields, numbers.
const MESSAGE_OVERHEAD: u64 = 200;
/// Of Redis, after the time in which nodes would have forgotten a stream themselves.
const EXPIRE_AFTER_MS: u64 = 3_600_000;
/// The whole store among the scopes of limits; others are apps.
const WHOLE: &str = "";

/// What is kept at most.
#[derive(Clone, Debug)]
pub struct Limits {
    pub window_ms: u64,
    /// By scope.
    max_bytes: HashMap<Box<str>, u64>,
}

/// A way through all streams.
#[derive(Debug, Default)]
pub struct Round {
    /// Tells this node's turn from those of others.
    name: String,
    is_under_way: bool,
    partition: Partition,
    cursor: u64,
    calls: u64,
    streams: u64,
    bytes: u64,
    scopes: HashMap<Box<str>, Found>,
    /// By scope, where it is narrower than the longest.
    windows: HashMap<Box<str>, u64>,
    dropped: u64,
    /// What had been dropped when the store was opened.
    dropped_before: Option<u64>,
}

/// What a round finds of one scope.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    bytes: u64,
    /// Of the oldest message, in milliseconds.
    age_ms: u64,
}

impl Limits {
    pub fn new(caps: &Caps) -> Self {
        let apps = caps.app_max_bytes.iter().filter(|(_, max)| *max > 0);
        let apps = apps.map(|(app, max)| (escaped(app).into(), *max));
        let max_bytes = apps.chain([(WHOLE.into(), caps.max_bytes)]).collect();
        Self { window_ms: caps.longest_window_ms, max_bytes }
    }

    /// Idle streams go after two windows.
    fn idle_ms(&self) -> u64 {
        self.window_ms.saturating_mul(2)
    }

    pub fn expire_ms(&self) -> u64 {
        // Redis adds it to the time of day.
        self.idle_ms().saturating_add(EXPIRE_AFTER_MS).min(i64::MAX as u64 / 4)
    }
}

impl RedisStore {
    pub(super) async fn do_chores(&self, now_ms: u64) -> Result<(), StoreError> {
        self.set_clock().await?;
        let now_ms = self.store_ms(now_ms);
        self.apply_skips().await?;
        let mut round = std::mem::take(&mut *lock(&self.round));
        let outcome = self.go_on(&mut round, now_ms).await;
        *lock(&self.round) = round;
        outcome
    }

    async fn go_on(&self, round: &mut Round, now_ms: u64) -> Result<(), StoreError> {
        if round.name.is_empty() {
            round.name = format!("{:016x}", rand::random::<u64>());
        }
        round.calls += 1;
        if !self.has_turn(round).await? {
            round.is_under_way = false;
            if round.calls.is_multiple_of(LOOK_CALLS) {
                self.look(round).await?;
            }
            return Ok(());
        }
        if !round.is_under_way {
            self.look(round).await?;
            round.start();
        }
        let mut streams = 0;
        while streams < STREAMS {
            streams += self.scan(round, now_ms).await?;
            if round.cursor == 0 {
                round.partition += 1;
                if round.partition == PARTITIONS {
                    return self.end(round).await;
                }
            }
        }
        Ok(())
    }

    /// Whether this node goes through the streams now.
    async fn has_turn(&self, round: &Round) -> Result<bool, StoreError> {
        let key = self.names.turn();
        let mut pipeline = redis::pipe();
        pipeline.cmd("SET").arg(&key).arg(&round.name).arg("NX").arg("PX").arg(TURN_MS);
        pipeline.get(&key);
        let mut values = self.transport.query(SHARED, pipeline).await.map_err(store_error)?;
        let holder = values.pop().and_then(text).unwrap_or_default();
        if holder != round.name {
            return Ok(false);
        }
        let mut pipeline = redis::pipe();
        pipeline.cmd("PEXPIRE").arg(&key).arg(TURN_MS);
        self.transport.query(SHARED, pipeline).await.map_err(store_error)?;
        Ok(true)
    }

    /// Goes through some streams of the partition; tells how many.
    async fn scan(&self, round: &mut Round, now_ms: u64) -> Result<usize, StoreError> {
        let partition = round.partition;
        let mut pipeline = redis::pipe();
        let key = self.names.streams(partition);
        pipeline.cmd("HSCAN").arg(key).arg(round.cursor).arg("COUNT").arg(SCAN_STEP);
        let mut values = self.transport.query(partition, pipeline).await.map_err(store_error)?;
        let page: (u64, Vec<(String, Vec<u8>)>) =
            values.pop().and_then(|value| from_redis_value(value).ok()).ok_or_else(unexpected)?;
        round.cursor = page.0;
        let fields: Vec<String> = page.1.into_iter().map(|(field, _)| field).collect();
        let limits = self.limits();
        let tidied =
            join_all(fields.iter().map(|field| self.tidy(partition, field, round, &limits, now_ms))).await;
        for (field, left) in fields.iter().zip(tidied) {
            let [bytes, messages, first_ms] = left?;
            let age_ms = if messages == 0 { 0 } else { now_ms.saturating_sub(first_ms) };
            round.count(field, bytes + messages * MESSAGE_OVERHEAD, age_ms);
        }
        Ok(fields.len())
    }

    /// Bytes and messages that are left, and the time of the first.
    async fn tidy(
        &self,
        partition: Partition,
        field: &str,
        round: &Round,
        limits: &Limits,
        now_ms: u64,
    ) -> Result<[u64; 3], StoreError> {
        let Some((app, channel)) = parts_of_field(field) else { return Ok([0; 3]) };
        let keys = [
            self.names.log(partition),
            self.names.streams(partition),
            self.names.stream_escaped(partition, app, channel),
        ];
        let mut args = self.common_args(partition);
        args.push(field.to_owned());
        args.push(round.window(app, limits).to_string());
        args.push(now_ms.saturating_sub(limits.idle_ms()).to_string());
        args.push(limits.expire_ms().to_string());
        let keys: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
        let args: Vec<&[u8]> = args.iter().map(String::as_bytes).collect();
        let Value::Array(values) = self.run(partition, &TIDY, &keys, &args).await? else {
            return Err(unexpected());
        };
        let mut values = values.into_iter();
        self.note_log(partition, values.next().map(|value| text(value).ok_or_else(unexpected)))?;
        let numbers: Option<Vec<u64>> = values.map(|value| text(value)?.parse().ok()).collect();
        numbers.and_then(|numbers| numbers.try_into().ok()).ok_or_else(unexpected)
    }

    /// Writes down what was found, and leaves the next turn to anybody.
    async fn end(&self, round: &mut Round) -> Result<(), StoreError> {
        let limits = self.limits();
        let has_narrowed = round.adjust(&limits);
        round.is_under_way = false;
        let mut pipeline = redis::pipe();
        let sizes = self.names.sizes();
        pipeline.cmd("DEL").arg(&sizes);
        pipeline.cmd("HSET").arg(&sizes).arg("streams").arg(round.streams).arg("bytes").arg(round.bytes);
        pipeline.arg("dropped").arg(round.dropped);
        for (scope, window_ms) in &round.windows {
            pipeline.arg(format!("w:{scope}")).arg(*window_ms);
        }
        let rest_ms = if has_narrowed { SHORT_REST_MS } else { REST_MS };
        pipeline.cmd("SET").arg(self.names.turn()).arg("rest").arg("PX").arg(rest_ms);
        self.transport.query(SHARED, pipeline).await.map_err(store_error)?;
        self.tell(round);
        Ok(())
    }

    /// Reads what the last round found.
    async fn look(&self, round: &mut Round) -> Result<(), StoreError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("HGETALL").arg(self.names.sizes());
        let mut values = self.transport.query(SHARED, pipeline).await.map_err(store_error)?;
        let fields: HashMap<String, String> =
            values.pop().and_then(|value| from_redis_value(value).ok()).ok_or_else(unexpected)?;
        let number = |name: &str| fields.get(name).and_then(|text| text.parse().ok()).unwrap_or(0);
        (round.streams, round.bytes, round.dropped) = (number("streams"), number("bytes"), number("dropped"));
        round.windows = fields
            .iter()
            .filter_map(|(name, text)| Some((name.strip_prefix("w:")?.into(), text.parse().ok()?)))
            .collect();
        self.tell(round);
        Ok(())
    }

    fn tell(&self, round: &mut Round) {
        let before = *round.dropped_before.get_or_insert(round.dropped);
        let mut stats = lock(&self.stats);
        (stats.streams, stats.bytes) = (round.streams, round.bytes);
        stats.slices_dropped_early = round.dropped.saturating_sub(before);
    }

    /// What an earlier round found, for the metrics of a node that has just come.
    pub(super) async fn read_sizes(&self) -> Result<(), StoreError> {
        let mut round = std::mem::take(&mut *lock(&self.round));
        let outcome = self.look(&mut round).await;
        *lock(&self.round) = round;
        outcome
    }

    /// Asks Redis for the time. An answer that was long on its way says less, and moves the clock less.
    pub(super) async fn set_clock(&self) -> Result<(), StoreError> {
        let Some(wall) = self.clock.wall else { return Ok(()) };
        let mut pipeline = redis::pipe();
        pipeline.cmd("TIME");
        let asked = wall();
        let mut values = self.transport.query(SHARED, pipeline).await.map_err(store_error)?;
        let answered = wall();
        let (seconds, micros): (i64, i64) =
            values.pop().and_then(|value| from_redis_value(value).ok()).ok_or_else(unexpected)?;
        let ahead_of =
            |ms: u64| (seconds * 1000 + micros / 1000).saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX));
        let ahead_ms = self.clock.ahead_ms.load(Ordering::Relaxed);
        let ahead_ms = ahead_ms.max(ahead_of(answered)).min(ahead_of(asked));
        self.clock.ahead_ms.store(ahead_ms, Ordering::Relaxed);
        Ok(())
    }
}

impl Round {
    fn start(&mut self) {
        self.is_under_way = true;
        (self.partition, self.cursor, self.streams, self.bytes) = (0, 0, 0, 0);
        self.scopes.clear();
    }

    fn count(&mut self, field: &str, bytes: u64, age_ms: u64) {
        self.streams += 1;
        self.bytes += bytes;
        let app = parts_of_field(field).map_or(WHOLE, |(app, _)| app);
        for scope in [WHOLE, app] {
            let found = self.scopes.entry(scope.into()).or_default();
            found.bytes += bytes;
            found.age_ms = found.age_ms.max(age_ms);
        }
    }

    /// What the app's messages are kept for.
    fn window(&self, app: &str, limits: &Limits) -> u64 {
        let windows = [WHOLE, app].into_iter().filter_map(|scope| self.windows.get(scope));
        windows.copied().fold(limits.window_ms, u64::min)
    }

    /// Narrows the windows of what is too large, and widens those of what is not any more.
    fn adjust(&mut self, limits: &Limits) -> bool {
        let mut has_narrowed = false;
        self.windows.retain(|scope, _| limits.max_bytes.contains_key(scope));
        for (scope, max_bytes) in &limits.max_bytes {
            let Found { bytes, age_ms } = self.scopes.get(scope).copied().unwrap_or_default();
            let window_ms = self.windows.get(scope).copied().unwrap_or(limits.window_ms);
            let share = |of: u64, part: u64, whole: u64| {
                u64::try_from(u128::from(of) * u128::from(part) / u128::from(whole.max(1))).unwrap_or(of)
            };
            if bytes > *max_bytes {
                // A little more than it takes if messages came evenly.
                let narrower = share(share(window_ms.min(age_ms), *max_bytes, bytes), 19, 20);
                self.windows.insert(scope.clone(), narrower);
                self.dropped += 1;
                has_narrowed = true;
            } else if window_ms < limits.window_ms && bytes < share(*max_bytes, 4, 5) {
                match share(window_ms.max(1000), 5, 4) {
                    wider if wider < limits.window_ms => drop(self.windows.insert(scope.clone(), wider)),
                    _ => drop(self.windows.remove(scope)),
                }
            }
        }
        has_narrowed
    }
}
