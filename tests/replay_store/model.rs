//! Random schedules against a model that keeps everything in plain lists.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;
use tempfile::TempDir;
use tidewire::replay::keys::IDEMPOTENCY_WINDOW_MS;
use tidewire::replay::memory::MemoryStore;
use tidewire::replay::sqlite::SqliteStore;
use tidewire::replay::store::{
    Append, Appended, Caps, Content, Direction, Hints, Message, Range, Retention, Stamp, Store, StreamName,
};
use tidewire_protocol::position::{Epoch, Position};
use tidewire_protocol::replay::{Bounds, Generation};

use super::support::{ALL, MINUTE, SECOND, T0, caps, directory, location, messages, redis, serials, stream};

const STREAMS: usize = 3;
const WINDOW_MS: u64 = 60 * MINUTE;
/// A stream is forgotten after two windows, which the model knows nothing of.
const MAX_MS: u64 = 115 * MINUTE;

#[derive(Clone, Debug)]
enum Op {
    Append(Vec<Draft>),
    Advance(u64),
    Maintain,
    Purge { stream: usize, at: Index },
    Skip { stream: usize },
    Reopen { cleanly: bool },
    Read { stream: usize, after: Index, before: Index, backward: bool, max_messages: usize, max_bytes: u64 },
    Bounds { stream: usize, retention: Retention },
    FirstSince { stream: usize, ago_ms: u64 },
}

#[derive(Clone, Debug)]
struct Draft {
    stream: usize,
    key: Option<u8>,
    length: usize,
    inactivity_ttl_ms: u64,
}

fn draft() -> impl Strategy<Value = Draft> {
    let ttl_ms = prop_oneof![4 => Just(0), 1 => 1..10 * MINUTE];
    (0..STREAMS, proptest::option::weighted(0.3, 0..4u8), 0..600usize, ttl_ms)
        .prop_map(|(stream, key, length, inactivity_ttl_ms)| Draft { stream, key, length, inactivity_ttl_ms })
}

fn retention() -> impl Strategy<Value = Retention> {
    let ttl_ms = prop_oneof![2 => Just(0), 1 => 1..20 * MINUTE];
    let count = prop_oneof![1 => Just(u64::MAX), 3 => 0..40u64];
    let bytes = prop_oneof![1 => Just(u64::MAX), 3 => 0..10_000u64];
    (0..=WINDOW_MS, count, bytes, ttl_ms).prop_map(
        |(window_ms, max_messages, max_bytes, inactivity_ttl_ms)| Retention {
            window_ms,
            max_messages,
            max_bytes,
            inactivity_ttl_ms,
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let index = any::<Index>;
    prop_oneof![
        8 => proptest::collection::vec(draft(), 1..6).prop_map(Op::Append),
        4 => (0..6 * MINUTE).prop_map(Op::Advance),
        2 => Just(Op::Maintain),
        1 => (0..STREAMS, index()).prop_map(|(stream, at)| Op::Purge { stream, at }),
        1 => (0..STREAMS).prop_map(|stream| Op::Skip { stream }),
        2 => any::<bool>().prop_map(|cleanly| Op::Reopen { cleanly }),
        4 => (0..STREAMS, index(), index(), any::<bool>(), 0..20usize, 0..5_000u64).prop_map(
            |(stream, after, before, backward, max_messages, max_bytes)| Op::Read {
                stream, after, before, backward, max_messages, max_bytes,
            }
        ),
        4 => (0..STREAMS, retention()).prop_map(|(stream, retention)| Op::Bounds { stream, retention }),
        2 => (0..STREAMS, 0..WINDOW_MS).prop_map(|(stream, ago_ms)| Op::FirstSince { stream, ago_ms }),
    ]
}

#[derive(Debug, Default)]
struct Line {
    is_known: bool,
    messages: Vec<Message>,
    head: u64,
    floor: u64,
    total_bytes: u64,
    time_ms: u64,
    generations: Vec<Generation>,
}

impl Line {
    /// Serial of the first kept message that `is_kept` is true of, as of all that come after it.
    fn first(&self, is_kept: impl Fn(&Message) -> bool) -> u64 {
        let mut kept = self.messages.iter().filter(|message| message.stamp.position.serial >= self.floor);
        kept.find(|message| is_kept(message)).map_or(self.head + 1, |message| message.stamp.position.serial)
    }

    fn floor_under(&self, retention: &Retention, now_ms: u64) -> u64 {
        let Retention { window_ms, max_messages, max_bytes, inactivity_ttl_ms } = *retention;
        let is_idle = inactivity_ttl_ms > 0 && now_ms - self.time_ms > inactivity_ttl_ms;
        let is_kept = |message: &Message| {
            let Stamp { position, time_ms, total_bytes, .. } = message.stamp;
            let newer_bytes = self.total_bytes - total_bytes + message.content.size();
            !is_idle
                && now_ms - time_ms <= window_ms
                && self.head - position.serial < max_messages
                && (newer_bytes <= max_bytes || (position.serial == self.head))
        };
        self.first(is_kept).max(self.floor)
    }
}

#[derive(Debug)]
struct Model {
    lines: [Line; STREAMS],
    generation: u32,
    /// Of a key: its message, its position and when it expires.
    keys: BTreeMap<(usize, u8), (Content, Position, u64)>,
    /// Keys of messages that were erased, or not, before a restart.
    unsure: Vec<(usize, u8)>,
    now_ms: u64,
}

/// All in one partition of the Redis store: generations begin in all of them.
fn name(index: usize) -> StreamName {
    stream(["channel-0", "channel-23", "channel-136"][index])
}

struct Run<S> {
    store: Option<S>,
    reopen: Box<dyn Fn(u64) -> S>,
    model: Model,
    nonces: Vec<u64>,
}

impl<S: Store> Run<S> {
    fn new(reopen: Box<dyn Fn(u64) -> S>) -> Self {
        let store = reopen(T0);
        let positions: Vec<Position> = (0..STREAMS).map(|index| store.position(&name(index))).collect();
        let model = Model {
            lines: Default::default(),
            generation: positions[0].epoch.generation,
            keys: BTreeMap::new(),
            unsure: Vec::new(),
            now_ms: T0,
        };
        let nonces = positions.iter().map(|position| position.epoch.nonce).collect();
        Self { store: Some(store), reopen, model, nonces }
    }

    fn store(&self) -> &S {
        self.store.as_ref().expect("it is open")
    }

    fn act(&mut self, op: &Op, reopens: bool) {
        let now_ms = self.model.now_ms;
        match op {
            Op::Append(drafts) => self.append(drafts),
            Op::Advance(ms) => self.model.now_ms = (now_ms + ms).min(T0 + MAX_MS),
            Op::Maintain => self.store().maintain(now_ms).expect("maintained"),
            Op::Purge { stream, at } => {
                let line = &mut self.model.lines[*stream];
                let before = at.index(line.head as usize + 3) as u64;
                if line.is_known {
                    line.floor = line.floor.max(before.min(line.head + 1));
                }
                self.store().purge(&name(*stream), before, now_ms).expect("purged");
            }
            Op::Skip { stream } => self.skip(*stream),
            Op::Reopen { cleanly } if reopens => self.reopen(*cleanly),
            Op::Reopen { .. } => {}
            Op::Read { stream, after, before, backward, max_messages, max_bytes } => {
                let head = self.model.lines[*stream].head as usize;
                let range = Range {
                    after: after.index(head + 2) as u64,
                    before: before.index(head + 3) as u64,
                    direction: if *backward { Direction::Backward } else { Direction::Forward },
                    max_messages: *max_messages,
                    max_bytes: *max_bytes,
                };
                self.check_page(*stream, range);
            }
            Op::Bounds { stream, retention } => self.check_bounds(*stream, retention),
            Op::FirstSince { stream, ago_ms } => {
                let line = &self.model.lines[*stream];
                let since_ms = now_ms - ago_ms;
                let expected =
                    if line.is_known { line.first(|message| message.stamp.time_ms >= since_ms) } else { 1 };
                let first = self.store().first_since(&name(*stream), since_ms).expect("found");
                assert_eq!(first, expected);
            }
        }
    }

    fn append(&mut self, drafts: &[Draft]) {
        let unsure = &self.model.unsure;
        let is_sure = |draft: &&Draft| draft.key.is_none_or(|key| !unsure.contains(&(draft.stream, key)));
        let drafts: Vec<&Draft> = drafts.iter().filter(is_sure).collect();
        let batch: Vec<Append> = drafts
            .iter()
            .map(|draft| {
                let content = Content {
                    id: draft.key.map(|key| key.to_string().into()),
                    event: "event".into(),
                    // Messages with a key are often the same.
                    data: "d".repeat(draft.key.map_or(draft.length, |_| draft.length / 200)).into(),
                    user_id: None,
                    except: None,
                };
                Append {
                    stream: name(draft.stream),
                    content,
                    inactivity_ttl_ms: draft.inactivity_ttl_ms,
                    hints: Hints::default(),
                }
            })
            .collect();
        let appended = self.store().append(&batch, self.model.now_ms).expect("stored");
        for ((draft, append), appended) in drafts.into_iter().zip(&batch).zip(appended) {
            assert_eq!(appended, self.expected(draft, append));
        }
    }

    fn expected(&mut self, draft: &Draft, append: &Append) -> Appended {
        let now_ms = self.model.now_ms;
        let key = draft.key.map(|key| (draft.stream, key));
        match key.and_then(|key| self.model.keys.get(&key)) {
            Some((content, position, expires_ms)) if *expires_ms > now_ms => {
                let is_same = *content == append.content;
                return if is_same { Appended::Repeat(*position) } else { Appended::Conflict };
            }
            _ => {}
        }
        let generation = self.model.generation;
        let line = &mut self.model.lines[draft.stream];
        if !line.is_known {
            *line = Line { is_known: true, floor: 1, time_ms: now_ms, ..Line::default() };
        }
        let ttl_ms = draft.inactivity_ttl_ms;
        if ttl_ms > 0 && now_ms - line.time_ms > ttl_ms {
            line.floor = line.head + 1;
        }
        if line.generations.last().is_none_or(|last| last.number < generation) {
            line.generations.push(Generation { number: generation, start: line.head + 1 });
        }
        line.head += 1;
        line.total_bytes += append.content.size();
        line.time_ms = now_ms;
        let last = line.generations.last().expect("one was begun");
        let epoch = Epoch { nonce: self.nonces[draft.stream], generation: last.number };
        let stamp = Stamp {
            position: Position { epoch, serial: line.head },
            time_ms: now_ms,
            total_bytes: line.total_bytes,
            begins_generation: last.start == line.head,
        };
        line.messages.push(Message { stamp, content: append.content.clone() });
        if let Some(key) = key {
            let expires_ms = now_ms + IDEMPOTENCY_WINDOW_MS;
            self.model.keys.insert(key, (append.content.clone(), stamp.position, expires_ms));
        }
        Appended::Stored(stamp)
    }

    fn skip(&mut self, stream: usize) {
        self.store().skip(&name(stream));
        let line = &mut self.model.lines[stream];
        if !line.is_known {
            *line = Line { is_known: true, floor: 1, time_ms: self.model.now_ms, ..Line::default() };
        }
        let has_messages =
            |last: &Generation| last.number >= self.model.generation && last.start <= line.head;
        if line.generations.last().is_some_and(has_messages) {
            self.model.generation += 1;
        }
        let number = self.model.generation;
        line.head += 1;
        line.floor = line.head + 1;
        match line.generations.last_mut() {
            Some(last) if last.start == line.head => last.start += 1,
            _ => {}
        }
        if line.generations.last().is_none_or(|last| last.number < number) {
            line.generations.push(Generation { number, start: line.head + 1 });
        }
    }

    fn reopen(&mut self, cleanly: bool) {
        let store = self.store.take().expect("it is open");
        if cleanly {
            store.close().expect("closed");
        } else {
            // What was skipped is saved by then.
            store.maintain(self.model.now_ms).expect("maintained");
            self.model.generation += 1;
        }
        drop(store);
        self.store = Some((self.reopen)(self.model.now_ms));
        for (key, (_, position, expires_ms)) in &self.model.keys {
            let is_purged = position.serial < self.model.lines[key.0].floor;
            if is_purged && *expires_ms > self.model.now_ms {
                self.model.unsure.push(*key);
            }
        }
    }

    fn check_bounds(&self, stream: usize, retention: &Retention) {
        let now_ms = self.model.now_ms;
        let line = &self.model.lines[stream];
        let nonce = self.nonces[stream];
        let expected = if line.is_known {
            let floor = line.floor_under(retention, now_ms);
            Bounds { nonce, base: 0, generations: line.generations.clone(), floor, head: line.head }
        } else {
            let generation = Generation { number: self.model.generation, start: 1 };
            Bounds { nonce, base: 0, generations: vec![generation], floor: 1, head: 0 }
        };
        let bounds = self.store().bounds(&name(stream), retention, now_ms).expect("bounds");
        assert_eq!(bounds, expected, "under {retention:?}");
        assert_eq!(self.store().position(&name(stream)), bounds.position());
    }

    /// All that is within the window is there, and nothing else than what was stored.
    fn there(&self, stream: usize) -> Vec<Message> {
        let line = &self.model.lines[stream];
        let there = messages(self.store(), &name(stream));
        let stored: Vec<&Message> =
            line.messages.iter().filter(|message| message.stamp.position.serial >= line.floor).collect();
        let trimmed = stored.len().checked_sub(there.len()).expect("no more than were stored");
        assert!(there.iter().eq(stored[trimmed..].iter().copied()));
        let oldest = stored[..trimmed].iter().map(|message| self.model.now_ms - message.stamp.time_ms).min();
        assert!(oldest.is_none_or(|age_ms| age_ms > WINDOW_MS), "trimmed before its time");
        there
    }

    fn check_page(&self, stream: usize, range: Range) {
        let there = self.there(stream);
        let mut in_range: Vec<&Message> = there
            .iter()
            .filter(|message| {
                let serial = message.stamp.position.serial;
                serial > range.after && serial < range.before
            })
            .collect();
        if range.direction == Direction::Backward {
            in_range.reverse();
        }
        let mut bytes = 0;
        let mut expected = Vec::new();
        for message in in_range.into_iter().take(range.max_messages) {
            bytes += message.content.size();
            if bytes > range.max_bytes && !expected.is_empty() {
                break;
            }
            expected.push(message.stamp.position.serial);
        }
        assert_eq!(serials(self.store(), &name(stream), range), expected);
    }

    fn finish(&self) {
        for stream in 0..STREAMS {
            self.there(stream);
            let retention = Retention {
                window_ms: WINDOW_MS,
                max_messages: u64::MAX,
                max_bytes: u64::MAX,
                inactivity_ttl_ms: 0,
            };
            self.check_bounds(stream, &retention);
            let all = self.there(stream).len();
            assert_eq!(serials(self.store(), &name(stream), ALL).len(), all);
        }
    }
}

fn model_caps() -> Caps {
    Caps { longest_window_ms: WINDOW_MS, ..caps() }
}

fn open_in(directory: &TempDir, now_ms: u64) -> SqliteStore {
    SqliteStore::open(&location(directory.path()), &model_caps(), now_ms).expect("it opens")
}

/// `PROPTEST_CASES` asks for more.
fn config(cases: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(cases);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(48))]

    #[test]
    fn sqlite_does_as_the_model(ops in proptest::collection::vec(op(), 1..60)) {
        let directory = directory();
        let mut run = Run::new(Box::new(move |now_ms| open_in(&directory, now_ms)));
        ops.iter().for_each(|op| run.act(op, true));
        run.finish();
    }
}

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn memory_does_as_the_model(ops in proptest::collection::vec(op(), 1..120)) {
        let mut run = Run::new(Box::new(|_| MemoryStore::new(&model_caps())));
        ops.iter().for_each(|op| run.act(op, false));
        run.finish();
    }
}

proptest! {
    #![proptest_config(config(32))]

    #[test]
    fn redis_does_as_the_model(ops in proptest::collection::vec(op(), 1..120)) {
        let mut run = Run::new(Box::new(|_| redis(&model_caps())));
        ops.iter().for_each(|op| run.act(op, false));
        run.finish();
    }
}

// Long enough for slices to be trimmed by age.
const _: () = assert!(MAX_MS > WINDOW_MS + 10 * SECOND && MAX_MS < 2 * WINDOW_MS);
