//! The calls that write: append, purge, skip.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::index::Tracked;
use super::log::Log;
use super::plan::{Draft, Plan};
use super::read::{Hurt, Reading};
use super::trouble::{Outcome, Trouble};
use super::writer::Writer;
use crate::replay::store::{Append, Appended, StoreError, StreamName};
use crate::replay::streams::StreamState;
use crate::sync::lock;

/// Streams that are saved while appends wait.
const SAVED_AT_ONCE: usize = 256;
/// About what a stream's row takes.
const ROW_BYTES: u64 = 200;

impl Log {
    pub fn append(&self, batch: &[Append], now_ms: u64) -> Result<Vec<Appended>, StoreError> {
        self.note_time(now_ms);
        self.check()?;
        let mut writer = lock(&self.writer);
        writer.check()?;
        // What was skipped is before what comes now. If there is no room for it, there is none for the batch.
        drop(self.save_unsaved(&mut writer, now_ms));
        self.check()?;
        self.unless_damaged(&mut writer, |writer| self.try_append(writer, batch, now_ms))
    }

    fn try_append(&self, writer: &mut Writer, batch: &[Append], now_ms: u64) -> Outcome<Vec<Appended>> {
        let slice = self.current(writer, now_ms)?.slice().number;
        let mut plan = Plan::new(self, batch, slice, now_ms);
        if plan.is_empty() {
            return Ok(plan.appended);
        }
        match self.commit(writer, now_ms, plan.bytes, |connection| plan.write(self, connection)) {
            Ok(()) => Ok(plan.apply(self)),
            Err(trouble) => {
                plan.withdraw(self);
                Err(trouble)
            }
        }
    }

    /// Writes once more when the present slice proves to be damaged, into a new one.
    fn unless_damaged<T>(
        &self,
        writer: &mut Writer,
        mut write: impl FnMut(&mut Writer) -> Outcome<T>,
    ) -> Result<T, StoreError> {
        let mut outcome = write(writer);
        if let Err(Trouble::Damaged(reason)) = &outcome {
            if let Some(slice) = writer.current.as_ref().map(|current| Arc::clone(current.slice())) {
                self.set_aside(writer, &slice, reason);
            }
            outcome = write(writer);
        }
        outcome.map_err(|trouble| self.refuse(trouble))
    }

    /// Raises a stream's floor, and has erased what is below it.
    pub fn purge(&self, name: &StreamName, before: u64, now_ms: u64) -> Result<(), StoreError> {
        self.note_time(now_ms);
        self.check()?;
        let bytes = self.read(name, |reading| bytes_before(reading, before))?;
        let Some(bytes) = bytes else { return Ok(()) };
        let mut writer = lock(&self.writer);
        writer.check()?;
        self.unless_damaged(&mut writer, |writer| {
            let slice = self.current(writer, now_ms)?.slice().number;
            let mut draft = Draft::new(self, name, slice, now_ms);
            let floor = before.min(draft.state.head + 1);
            if floor > draft.state.floor {
                draft.state.raise_floor(floor, bytes);
                self.save(writer, vec![draft], now_ms)?;
            }
            Ok(())
        })?;
        drop(writer);
        self.sync().map_err(|trouble| self.refuse(trouble))?;
        if let Some(tracked) = self.streams.get(name) {
            self.erase_below_floor(tracked);
        }
        Ok(())
    }

    /// Has messages erased that may still be in a stream's slices, though they are below its floor.
    pub fn erase_below_floor(&self, tracked: Tracked) {
        let view = self.slices.view(tracked);
        for part in view.parts.iter().filter(|part| part.segment.first < view.state.floor) {
            self.chores.erase(part.slice.number, part.segment.row, view.state.floor);
        }
    }

    /// Ends a stream's generation, and leaves a serial out.
    pub fn skip(&self, name: &StreamName) {
        let mut writer = lock(&self.writer);
        if writer.is_closed {
            return;
        }
        let now_ms = self.last_time_ms();
        let mut tracked = self.streams.get(name).unwrap_or_else(|| Tracked {
            state: StreamState::new(self.base(), now_ms),
            segments: Box::default(),
        });
        let mut next = self.generation.load(Ordering::Acquire);
        if tracked.state.has_messages_of(next) {
            next += 1;
            self.generation.store(next, Ordering::Release);
        }
        tracked.state.skip(next);
        self.streams.put(name, tracked);
        writer.unsaved.insert(name.clone());
        let noted = writer.save_meta(|meta| {
            meta.generation = next;
            meta.is_skipping = true;
        });
        if let Err(trouble) = noted {
            tracing::error!(target: "tidewire::replay", ?trouble, "cannot note that a message was not stored");
        }
    }

    /// Writes the streams down of which no slice says yet what they are.
    pub fn save_unsaved(&self, writer: &mut Writer, now_ms: u64) -> Outcome<()> {
        if writer.unsaved.is_empty() && !writer.saved.is_skipping {
            return Ok(());
        }
        let names: Vec<StreamName> = mem::take(&mut writer.unsaved).into_iter().collect();
        for (index, chunk) in names.chunks(SAVED_AT_ONCE).enumerate() {
            if let Err(trouble) = self.save_all(writer, chunk, now_ms) {
                writer.unsaved.extend(names[index * SAVED_AT_ONCE..].iter().cloned());
                return Err(trouble);
            }
        }
        // Otherwise a power cut could undo it, and nothing would say so.
        self.sync()?;
        writer.save_meta(|meta| meta.is_skipping = false)
    }

    /// Notes streams of which no slice will say what they are. If the process ends before it is saved, no position
    /// is good any more.
    pub fn note_unsaved(&self, writer: &mut Writer, names: Vec<StreamName>) {
        writer.unsaved.extend(names);
        if let Err(trouble) = writer.save_meta(|meta| meta.is_skipping = true) {
            tracing::error!(target: "tidewire::replay", ?trouble, "cannot note that streams are not saved");
        }
    }

    /// Writes rows of streams into the present slice.
    pub fn save_all(&self, writer: &mut Writer, names: &[StreamName], now_ms: u64) -> Outcome<()> {
        let slice = self.current(writer, now_ms)?.slice().number;
        let known = names.iter().filter(|name| self.streams.look(name, |_| ()).is_some());
        let drafts = known.map(|name| Draft::new(self, name, slice, now_ms)).collect();
        self.save(writer, drafts, now_ms)
    }

    fn save(&self, writer: &mut Writer, mut drafts: Vec<Draft<'_>>, now_ms: u64) -> Outcome<()> {
        let bytes = drafts.len() as u64 * ROW_BYTES;
        self.commit(writer, now_ms, bytes, |connection| {
            drafts.iter_mut().try_for_each(|draft| draft.save(self, connection))
        })?;
        for draft in drafts {
            draft.apply(self);
        }
        Ok(())
    }
}

/// The total before a serial that is, or becomes, the floor.
fn bytes_before(reading: &Reading<'_>, before: u64) -> Result<u64, Hurt> {
    if before > reading.view.state.head {
        return Ok(reading.view.state.total_bytes);
    }
    reading.total_at(before.saturating_sub(1))
}
