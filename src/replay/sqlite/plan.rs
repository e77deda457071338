//! What a batch comes to, before any of it is written.

use std::collections::HashMap;

use rusqlite::Connection;
use tidewire_protocol::position::Epoch;

use super::index::{Segment, Tracked};
use super::log::Log;
use super::record;
use super::stream_row;
use super::trouble::Outcome;
use crate::replay::keys::{Fingerprint, Keyed, Known};
use crate::replay::store::{Append, Appended, Content, Stamp, StreamName};
use crate::replay::streams::StreamState;
use crate::sync::lock;

/// A batch as it will be stored.
#[derive(Debug, Default)]
pub struct Plan<'a> {
    pub drafts: Vec<Draft<'a>>,
    messages: Vec<Planned<'a>>,
    /// Of each message of the batch.
    pub appended: Vec<Appended>,
    /// Keys that were noted already, so that the batch is checked against itself, too.
    prints: Vec<Fingerprint>,
    pub bytes: u64,
}

/// A message that is new.
#[derive(Debug)]
struct Planned<'a> {
    /// Index of its stream's draft.
    draft: usize,
    content: &'a Content,
    stamp: Stamp,
}

/// A stream as it will be.
#[derive(Debug)]
pub struct Draft<'a> {
    pub name: &'a StreamName,
    pub state: StreamState,
    epoch: Epoch,
    /// As it is: its segments, and what its row says.
    tracked: Tracked,
    /// Where a row of the present slice begins, if the stream has none yet.
    before: Segment,
    has_row: bool,
}

impl<'a> Plan<'a> {
    /// Notes the keys of what is new. They are withdrawn when the plan fails.
    pub fn new(log: &Log, batch: &'a [Append], slice: u32, now_ms: u64) -> Self {
        let mut plan = Self::default();
        let mut drafts: HashMap<&StreamName, usize> = HashMap::new();
        let mut keys = lock(&log.keys);
        for Append { stream, content, inactivity_ttl_ms, .. } in batch {
            let print = Keyed::new(stream, content).map(|keyed| keys.fingerprint(&keyed));
            match print.map(|print| keys.look_up(print, now_ms)) {
                Some(Known::Conflict) => {
                    plan.appended.push(Appended::Conflict);
                    continue;
                }
                Some(Known::Repeat(Some(position))) => {
                    plan.appended.push(Appended::Repeat(position));
                    continue;
                }
                Some(Known::New | Known::Repeat(None)) | None => {}
            }
            let draft = *drafts.entry(stream).or_insert_with(|| {
                plan.drafts.push(Draft::new(log, stream, slice, now_ms));
                plan.drafts.len() - 1
            });
            let epoch = plan.drafts[draft].epoch;
            let stamp = plan.drafts[draft].state.append(content.size(), now_ms, epoch, *inactivity_ttl_ms);
            plan.bytes += content.size();
            plan.messages.push(Planned { draft, content, stamp });
            plan.appended.push(Appended::Stored(stamp));
            if let Some(print) = print {
                keys.insert(print, Some(stamp.position), now_ms);
                plan.prints.push(print);
            }
        }
        plan
    }

    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub fn write(&mut self, log: &Log, connection: &Connection) -> Outcome<()> {
        for draft in &mut self.drafts {
            draft.write(log, connection)?;
        }
        for Planned { draft, content, stamp } in &self.messages {
            let Draft { name, before, .. } = &self.drafts[*draft];
            record::insert_message(connection, before.row, name, stamp, content)?;
        }
        Ok(())
    }

    /// After it was committed. Returns what became of each message.
    pub fn apply(self, log: &Log) -> Vec<Appended> {
        // All are in the present one.
        let slice = self.drafts.first().and_then(|draft| log.slices.get(draft.before.slice));
        for Planned { draft, content, stamp } in &self.messages {
            if let Some(slice) = &slice {
                slice.note_newest(stamp.time_ms);
                slice.add_app_bytes(&self.drafts[*draft].name.app, content.size());
            }
        }
        for draft in self.drafts {
            draft.apply(log);
        }
        self.appended
    }

    pub fn withdraw(&self, log: &Log) {
        let mut keys = lock(&log.keys);
        for print in self.prints.iter().rev() {
            keys.withdraw(*print);
        }
    }
}

impl<'a> Draft<'a> {
    pub fn new(log: &Log, name: &'a StreamName, slice: u32, now_ms: u64) -> Self {
        let tracked = log.streams.get(name).unwrap_or_else(|| Tracked {
            state: StreamState::new(log.base(), now_ms),
            segments: Box::default(),
        });
        let StreamState { head, total_bytes, time_ms, .. } = tracked.state;
        let row = tracked.segments.last().filter(|segment| segment.slice == slice);
        Self {
            name,
            state: tracked.state.clone(),
            epoch: log.epoch(name),
            before: row.copied().unwrap_or(Segment { first: head + 1, total_bytes, time_ms, slice, row: 0 }),
            has_row: row.is_some(),
            tracked,
        }
    }

    /// Writes the stream's row as far as the present slice does not have it.
    fn write(&mut self, log: &Log, connection: &Connection) -> Outcome<()> {
        if self.has_row {
            let was = &self.tracked.state;
            if self.state.floor != was.floor || self.state.generations() != was.generations() {
                self.update(connection)?;
            }
            return Ok(());
        }
        let previous = self.tracked.segments.last().and_then(|segment| log.slices.get(segment.slice));
        let previous_ms = previous.map_or(0, |slice| slice.start_ms);
        self.before.row = stream_row::insert(connection, self.name, &self.before, &self.state, previous_ms)?;
        Ok(())
    }

    fn update(&self, connection: &Connection) -> Outcome<()> {
        stream_row::update(connection, self.name, &self.before, &self.state)
    }

    /// Writes the stream's row, whatever memory says of it.
    pub fn save(&mut self, log: &Log, connection: &Connection) -> Outcome<()> {
        if self.has_row { self.update(connection) } else { self.write(log, connection) }
    }

    /// After it was committed.
    pub fn apply(self, log: &Log) {
        let mut segments = self.tracked.segments;
        if !self.has_row {
            let oldest = log.slices.oldest().map_or(0, |slice| slice.number);
            let live = segments.iter().filter(|segment| segment.slice >= oldest).copied();
            segments = live.chain([self.before]).collect();
        }
        log.streams.put(self.name, Tracked { state: self.state, segments });
    }
}
