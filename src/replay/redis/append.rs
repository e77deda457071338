//! Appending: the messages of one stream in one call, the calls of a batch all at once.

use std::collections::HashMap;

use redis::Value;
use tidewire_protocol::position::{Epoch, Position};

use super::entry::{fields, publishers_part, text};
use super::names::{field, partition_of};
use super::scripts::APPEND;
use super::state::{Guess, Head, Log};
use super::{RedisStore, unexpected};
use crate::fanout::redis::transport::Partition;
use crate::replay::keys::Keyed;
use crate::replay::store::{Append, Appended, Stamp, StoreError, StreamName};

/// Messages of one call: Redis does nothing else meanwhile.
const MAX_MESSAGES: usize = 64;
/// Serials between two times that a stream is tidied up, at most; as `ROUND` of `stream.lua`.
const ROUND: u64 = 64;
/// No limit that `MAXLEN` could reach.
const UNLIMITED: u64 = i64::MAX as u64;

/// Messages of one stream, by their places in the batch.
struct Group<'a> {
    stream: &'a StreamName,
    places: Vec<usize>,
}

/// What is asked of Redis, and what the answer goes by.
struct Call {
    partition: Partition,
    keys: Vec<Vec<u8>>,
    args: Vec<Vec<u8>>,
    guess: Guess,
    /// Where the only message goes if nothing has changed.
    expected: Option<Head>,
    tidies: bool,
}

impl RedisStore {
    /// Stores messages, those of one stream in their order, and publishes them. Tells of each what became of it.
    /// An error leaves open whether the message was stored, unless it is [`StoreError::Full`].
    pub async fn append_all(&self, batch: &[Append], now_ms: u64) -> Vec<Result<Appended, StoreError>> {
        let now_ms = self.store_ms(now_ms);
        let groups = groups_of(batch);
        let runs = groups.iter().map(|group| self.append_group(batch, group, now_ms));
        let mut outcomes: Vec<Option<Result<Appended, StoreError>>> = batch.iter().map(|_| None).collect();
        for (group, answers) in groups.iter().zip(super::join_all(runs).await) {
            for (place, answer) in group.places.iter().zip(answers) {
                outcomes[*place] = Some(answer);
            }
        }
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| Err(unexpected()))).collect()
    }

    async fn append_group(
        &self,
        batch: &[Append],
        group: &Group<'_>,
        now_ms: u64,
    ) -> Vec<Result<Appended, StoreError>> {
        let mut answers = Vec::with_capacity(group.places.len());
        // One rule makes all of a channel's messages, but for a reload.
        let is_alike = |one: &usize, other: &usize| {
            let limits = |place: usize| (batch[place].inactivity_ttl_ms, batch[place].hints);
            limits(*one) == limits(*other)
        };
        let alike = group.places.chunk_by(is_alike);
        for places in alike.flat_map(|places| places.chunks(MAX_MESSAGES)) {
            let appends: Vec<&Append> = places.iter().map(|place| &batch[*place]).collect();
            match self.append_some(group.stream, &appends, now_ms).await {
                Ok(appended) => answers.extend(appended.into_iter().map(Ok)),
                // What comes later must not be stored in its place.
                Err(error) => {
                    answers.resize(group.places.len(), Err(error));
                    return answers;
                }
            }
        }
        answers
    }

    async fn append_some(
        &self,
        stream: &StreamName,
        appends: &[&Append],
        now_ms: u64,
    ) -> Result<Vec<Appended>, StoreError> {
        self.check_open()?;
        self.apply_skip(stream).await?;
        let call = self.call(stream, appends, now_ms)?;
        let keys: Vec<&[u8]> = call.keys.iter().map(Vec::as_slice).collect();
        let args: Vec<&[u8]> = call.args.iter().map(Vec::as_slice).collect();
        let value = self.run(call.partition, &APPEND, &keys, &args).await?;
        let appended = self.appended(stream, appends, call, value, now_ms)?;
        self.note_keys(appends, &appended, now_ms);
        Ok(appended)
    }

    fn call(&self, stream: &StreamName, appends: &[&Append], now_ms: u64) -> Result<Call, StoreError> {
        let partition = partition_of(stream);
        let guess = self.state.guess(stream);
        let limits = self.limits();
        let expected = expected(&guess, appends, now_ms);
        let is_due = now_ms.saturating_sub(guess.tidied_ms) > limits.window_ms / 4;
        let tidies = is_due || expected.is_some_and(|head| head.serial.is_multiple_of(ROUND));
        let hints = appends.last().map(|last| last.hints).unwrap_or_default();
        let ttl_ms = appends.last().map_or(0, |last| last.inactivity_ttl_ms);
        let window_ms =
            if hints.window_ms == 0 { limits.window_ms } else { limits.window_ms.min(hints.window_ms) };
        let mut keys: Vec<Vec<u8>> = self.names.of(stream).into_iter().map(String::into_bytes).collect();
        let mut args: Vec<Vec<u8>> = [
            guess.log.text(),
            now_ms.to_string(),
            guess.newest.to_string(),
            rand::random::<u64>().to_string(),
            field(stream),
            ttl_ms.to_string(),
            window_ms.to_string(),
            hints.max_bytes.to_string(),
            limits.expire_ms().to_string(),
            u8::from(tidies).to_string(),
            self.transport.publish_command().to_owned(),
            self.names.keys.channel_topic(&stream.app, &stream.channel),
            expected.map_or_else(String::new, |_| "1".to_owned()),
        ]
        .into_iter()
        .map(String::into_bytes)
        .collect();
        for append in appends {
            let keyed = Keyed::new(stream, &append.content);
            if let Some(keyed) = &keyed {
                let key = self.names.keys.idempotency(&stream.app, &stream.channel, keyed.id);
                keys.push(key.into_bytes());
            }
            let print = keyed.map_or_else(String::new, |keyed| keyed.digest());
            push_message(&mut args, append, print, expected, guess.head)?;
        }
        Ok(Call { partition, keys, args, guess, expected, tidies })
    }

    fn appended(
        &self,
        stream: &StreamName,
        appends: &[&Append],
        call: Call,
        value: Value,
        now_ms: u64,
    ) -> Result<Vec<Appended>, StoreError> {
        let tidied_ms = call.tidies.then_some(now_ms);
        let log = &call.guess.log;
        match value {
            Value::Int(1) => {
                let head = call.expected.ok_or_else(unexpected)?;
                self.state.note_head(stream, head, log.generation, tidied_ms);
                Ok(vec![stored(log, head, false)])
            }
            Value::Array(values) => {
                let mut values = values.into_iter().map(|value| text(value).ok_or_else(unexpected));
                let log = self.note_log(call.partition, values.next())?;
                let mut appended = Vec::with_capacity(appends.len());
                for (append, answer) in appends.iter().zip(values) {
                    let answer = parse(&answer?, &log, append.content.size()).ok_or_else(unexpected)?;
                    if let Appended::Stored(stamp) = &answer {
                        self.state.note_head(stream, Head::of(stamp), log.generation, tidied_ms);
                    }
                    appended.push(answer);
                }
                if appended.len() == appends.len() { Ok(appended) } else { Err(unexpected()) }
            }
            other => {
                let answer = text(other).and_then(|text| parse(&text, log, 0)).ok_or_else(unexpected)?;
                Ok(vec![answer])
            }
        }
    }
}

impl Head {
    pub fn of(stamp: &Stamp) -> Self {
        let Stamp { position, time_ms, total_bytes, .. } = *stamp;
        let generation = position.epoch.generation;
        Self { generation, serial: position.serial, time_ms, total_bytes, has_begun: true }
    }
}

fn groups_of(batch: &[Append]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut places: HashMap<&StreamName, usize> = HashMap::new();
    for (place, append) in batch.iter().enumerate() {
        let group = *places.entry(&append.stream).or_insert_with(|| {
            groups.push(Group { stream: &append.stream, places: Vec::new() });
            groups.len() - 1
        });
        groups[group].places.push(place);
    }
    groups
}

/// Where the message goes if it is the only one and the stream is as this node knows it. Nobody has to look then.
fn expected(guess: &Guess, appends: &[&Append], now_ms: u64) -> Option<Head> {
    let [append] = appends else { return None };
    let head = guess.head.filter(|head| head.has_begun && head.generation == guess.log.generation)?;
    let ttl_ms = append.inactivity_ttl_ms;
    let is_inactive = ttl_ms > 0 && now_ms.saturating_sub(head.time_ms) > ttl_ms;
    (!is_inactive).then(|| Head {
        generation: head.generation,
        serial: head.serial + 1,
        time_ms: head.time_ms.max(now_ms),
        total_bytes: head.total_bytes.saturating_add(append.content.size()),
        has_begun: true,
    })
}

/// What the script takes of one message. Without `expected` it fills in id, time and bytes itself.
fn push_message(
    args: &mut Vec<Vec<u8>>,
    append: &Append,
    print: String,
    expected: Option<Head>,
    last: Option<Head>,
) -> Result<(), StoreError> {
    let part = publishers_part(append)
        .ok_or_else(|| StoreError::Unavailable("its idempotency key is too long".to_owned()))?;
    let fields = fields(&append.content);
    let most = match append.hints.max_messages {
        0 => UNLIMITED,
        most => most.min(UNLIMITED),
    };
    let (id, time, before) = match (expected, last) {
        (Some(head), Some(last)) => (
            format!("{}-{}", head.generation, head.serial),
            head.time_ms.to_string(),
            last.total_bytes.to_string(),
        ),
        _ => Default::default(),
    };
    const FIXED: usize = 9;
    args.push((FIXED + fields.len()).to_string().into());
    args.push(append.content.size().to_string().into());
    args.push(print.into());
    args.push([format!("S{id}:{time}:").as_bytes(), &part].concat());
    let fixed: [&str; FIXED] =
        ["NOMKSTREAM", "MAXLEN", "~", &most.to_string(), &id, "t", &time, "b", &before];
    args.extend(fixed.map(|arg| arg.as_bytes().to_vec()));
    args.extend(fields);
    Ok(())
}

fn stored(log: &Log, head: Head, begins_generation: bool) -> Appended {
    let epoch = Epoch { nonce: log.nonce, generation: head.generation };
    let position = Position { epoch, serial: head.serial };
    let Head { time_ms, total_bytes, .. } = head;
    Appended::Stored(Stamp { position, time_ms, total_bytes, begins_generation })
}

/// The answer for one message: `!`, `=<id>` or `<id> <time> <bytes before> <begins generation>`.
fn parse(answer: &str, log: &Log, size: u64) -> Option<Appended> {
    if answer == "!" {
        return Some(Appended::Conflict);
    }
    if let Some(id) = answer.strip_prefix('=') {
        let (generation, serial) = parse_id(id)?;
        return Some(Appended::Repeat(Position { epoch: Epoch { nonce: log.nonce, generation }, serial }));
    }
    let mut words = answer.split(' ');
    let (generation, serial) = parse_id(words.next()?)?;
    let time_ms = words.next()?.parse().ok()?;
    let before: u64 = words.next()?.parse().ok()?;
    let begins_generation = words.next()? == "1";
    let total_bytes = before.saturating_add(size);
    let head = Head { generation, serial, time_ms, total_bytes, has_begun: true };
    Some(stored(log, head, begins_generation))
}

pub fn parse_id(id: &str) -> Option<(u32, u64)> {
    let (generation, serial) = id.split_once('-')?;
    Some((generation.parse().ok()?, serial.parse().ok()?))
}
