//! Reading: where a stream stands, what may be replayed of it, and its messages.

use redis::Value;
use tidewire_protocol::position::{Epoch, Position};
use tidewire_protocol::replay::{Bounds, Generation};

use super::append::parse_id;
use super::entry::{decode, text};
use super::names::{field, partition_of};
use super::scripts::{BOUNDS, PURGE, READ};
use super::state::{Head, Log};
use super::{RedisStore, unexpected};
use crate::fanout::redis::scripts::Script;
use crate::replay::store::{Direction, Entry, Message, Range, Retention, Stamp, StoreError, StreamName};
use crate::replay::streams::unknown_bounds;

/// A stream as Redis has it.
struct Standing {
    head: Head,
    base: u64,
    floor: u64,
    by_time: u64,
    by_bytes: u64,
    /// None when nothing is left of the stream.
    generations: Vec<Generation>,
}

impl RedisStore {
    /// Also of what other nodes have written.
    pub(super) async fn head_of(&self, stream: &StreamName) -> Result<u64, StoreError> {
        let (log, standing) = self.ask(stream, None, None).await?;
        Ok(standing.map_or(log.base, |standing| standing.head.serial))
    }

    pub(super) async fn bounds_of(
        &self,
        stream: &StreamName,
        retention: &Retention,
        now_ms: u64,
    ) -> Result<Bounds, StoreError> {
        let now_ms = self.store_ms(now_ms);
        let since_ms = now_ms.saturating_sub(retention.window_ms);
        let max_bytes = (retention.max_bytes < u64::MAX).then_some(retention.max_bytes);
        let (log, standing) = self.ask(stream, Some(since_ms), max_bytes).await?;
        let Some(standing) = standing else { return Ok(unknown_bounds(log.epoch(), log.base)) };
        let Standing { head, base, floor, by_time, by_bytes, generations } = standing;
        let age_ms = now_ms.saturating_sub(head.time_ms);
        let ttl_ms = retention.inactivity_ttl_ms;
        let floor = if age_ms > retention.window_ms || (ttl_ms > 0 && age_ms > ttl_ms) {
            head.serial + 1
        } else {
            let by_count = (head.serial + 1).saturating_sub(retention.max_messages);
            floor.max(by_count).max(by_time).max(by_bytes).min(head.serial + 1)
        };
        let generations = if generations.is_empty() {
            vec![Generation { number: log.generation, start: head.serial + 1 }]
        } else {
            generations
        };
        Ok(Bounds { nonce: log.nonce, base, generations, floor, head: head.serial })
    }

    pub(super) async fn first_since_of(&self, stream: &StreamName, since_ms: u64) -> Result<u64, StoreError> {
        let (log, standing) = self.ask(stream, Some(since_ms), None).await?;
        Ok(standing.map_or(log.base + 1, |standing| standing.by_time.max(standing.floor)))
    }

    async fn ask(
        &self,
        stream: &StreamName,
        since_ms: Option<u64>,
        max_bytes: Option<u64>,
    ) -> Result<(Log, Option<Standing>), StoreError> {
        let number = |number: Option<u64>| number.map_or_else(String::new, |number| number.to_string());
        let mut values = self.of_stream(&BOUNDS, stream, &[number(since_ms), number(max_bytes)]).await?;
        let log = self
            .note_log(partition_of(stream), values.next().map(|value| text(value).ok_or_else(unexpected)))?;
        let words: Option<Vec<String>> = values.map(text).collect();
        let words = words.ok_or_else(unexpected)?;
        if words.is_empty() {
            return Ok((log, None));
        }
        let standing = Standing::parse(&words, log.generation).ok_or_else(unexpected)?;
        self.state.note_head(stream, standing.head, log.generation, None);
        Ok((log, Some(standing)))
    }

    pub(super) async fn read_range(
        &self,
        stream: &StreamName,
        range: Range,
    ) -> Result<Vec<Entry>, StoreError> {
        let direction = match range.direction {
            Direction::Forward => "f",
            Direction::Backward => "b",
        };
        let args = [
            range.after.to_string(),
            range.before.to_string(),
            direction.to_owned(),
            range.max_messages.to_string(),
            range.max_bytes.to_string(),
        ];
        let mut values = self.of_stream(&READ, stream, &args).await?;
        let log = self
            .note_log(partition_of(stream), values.next().map(|value| text(value).ok_or_else(unexpected)))?;
        let generations = values.next().and_then(text).and_then(|text| generations_of(&text));
        let (Some(generations), Some(Value::Array(entries))) = (generations, values.next()) else {
            return Err(unexpected());
        };
        entries.into_iter().map(|entry| entry_of(entry, &log, &generations).ok_or_else(unexpected)).collect()
    }

    pub(super) async fn purge_before(&self, stream: &StreamName, before: u64) -> Result<(), StoreError> {
        self.check_open()?;
        let mut values = self.of_stream(&PURGE, stream, &[before.to_string()]).await?;
        let log = values.next().map(|value| text(value).ok_or_else(unexpected));
        self.note_log(partition_of(stream), log).map(drop)
    }

    /// Runs a script on a stream; its answer is a list.
    pub(super) async fn of_stream(
        &self,
        script: &Script,
        stream: &StreamName,
        further: &[String],
    ) -> Result<std::vec::IntoIter<Value>, StoreError> {
        let partition = partition_of(stream);
        let keys = self.names.of(stream);
        let mut args = self.common_args(partition);
        args.push(field(stream));
        args.extend_from_slice(further);
        let keys: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
        let args: Vec<&[u8]> = args.iter().map(String::as_bytes).collect();
        match self.run(partition, script, &keys, &args).await? {
            Value::Array(values) => Ok(values.into_iter()),
            _ => Err(unexpected()),
        }
    }
}

impl Standing {
    fn parse(words: &[String], generation: u32) -> Option<Self> {
        let [head, time, bytes, base, floor, by_time, by_bytes, generations] = words else { return None };
        let generations = generations_of(generations)?;
        let number = |word: &String| word.parse().ok();
        let generation = generations.last().map_or(generation, |last| last.number);
        let serial = number(head)?;
        let head = Head {
            generation,
            serial,
            time_ms: number(time)?,
            total_bytes: number(bytes)?,
            has_begun: generations.last().is_some_and(|last| last.start <= serial),
        };
        Some(Self {
            head,
            base: number(base)?,
            floor: number(floor)?,
            by_time: number(by_time)?,
            by_bytes: number(by_bytes)?,
            generations,
        })
    }
}

/// As in `<number>:<first serial> ..`.
fn generations_of(text: &str) -> Option<Vec<Generation>> {
    let parse = |word: &str| {
        let (number, start) = word.split_once(':')?;
        Some(Generation { number: number.parse().ok()?, start: start.parse().ok()? })
    };
    text.split(' ').filter(|word| !word.is_empty()).map(parse).collect()
}

fn entry_of(entry: Value, log: &Log, generations: &[Generation]) -> Option<Entry> {
    let Value::Array(parts) = entry else { return None };
    let mut parts = parts.into_iter();
    let (generation, serial) = parse_id(&text(parts.next()?)?)?;
    let Some(Value::Array(fields)) = parts.next() else { return None };
    let Some((time_ms, before, content)) = decode(fields) else {
        return Some(Entry::Unreadable { serial });
    };
    let stamp = Stamp {
        position: Position { epoch: Epoch { nonce: log.nonce, generation }, serial },
        time_ms,
        total_bytes: before.saturating_add(content.size()),
        begins_generation: generations.iter().any(|one| one.start == serial),
    };
    Some(Entry::Message(Message { stamp, content }))
}
