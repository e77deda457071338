//! What is due now and then: a new slice, and the end of old ones.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::log::Log;
use super::slice::Slice;
use super::stream_row;
use super::trouble::{Outcome, Trouble};
use super::writer::Writer;
use crate::replay::store::{StoreError, StreamName};
use crate::sync::lock;

/// Streams that are looked at while appends wait.
const STREAMS_AT_ONCE: u32 = 256;
/// Windows after its last message at which a stream is forgotten.
const WINDOWS_KNOWN: u64 = 2;

impl Log {
    pub fn maintain(&self, now_ms: u64) -> Result<(), StoreError> {
        self.note_time(now_ms);
        self.check()?;
        let begun = self.begin_what_is_due(now_ms).map_err(|trouble| self.refuse(trouble));
        if !matches!(begun, Ok(()) | Err(StoreError::Full)) {
            return begun;
        }
        // Also on a full disk: it makes room.
        self.drop_expired(now_ms)?;
        self.drop_surplus(now_ms)?;
        self.chores.resume();
        begun
    }

    fn begin_what_is_due(&self, now_ms: u64) -> Outcome<()> {
        let mut writer = lock(&self.writer);
        if writer.is_closed {
            return Ok(());
        }
        let had_one = writer.current.is_some();
        self.seal_if_full(&mut writer, now_ms)?;
        if had_one {
            // Now rather than with the next message.
            self.current(&mut writer, now_ms)?;
        }
        self.save_unsaved(&mut writer, now_ms)
    }

    /// Drops slices whose newest message is older than any window.
    fn drop_expired(&self, now_ms: u64) -> Result<(), StoreError> {
        let window_ms = self.limits().window_ms;
        while let Some(oldest) = self.slices.oldest() {
            let is_expired = oldest.newest_ms().saturating_add(window_ms) < now_ms;
            if !is_expired || !self.drop_oldest(&oldest, now_ms)? {
                break;
            }
        }
        Ok(())
    }

    /// Drops slices until the store is within its limit.
    fn drop_surplus(&self, now_ms: u64) -> Result<(), StoreError> {
        let max_bytes = self.limits().max_bytes;
        let mut bytes: u64 = self.slices.all().iter().map(|slice| slice.measure()).sum();
        while bytes > max_bytes
            && let Some(oldest) = self.slices.oldest()
        {
            let its_bytes = oldest.bytes();
            if !self.drop_oldest(&oldest, now_ms)? {
                break;
            }
            bytes = bytes.saturating_sub(its_bytes);
            self.tallies.dropped_early.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                target: "tidewire::replay", slice = oldest.start_ms, max_bytes,
                "the store is at its limit: a slice was dropped before its time"
            );
        }
        Ok(())
    }

    /// Deletes a slice, unless it is the one that is written to. Streams that nothing else is known of are written
    /// down in that one first, or forgotten.
    fn drop_oldest(&self, slice: &Arc<Slice>, now_ms: u64) -> Result<bool, StoreError> {
        let (is_closed, is_current) = {
            let writer = lock(&self.writer);
            (writer.is_closed, writer.writes_to(slice))
        };
        if is_closed || is_current {
            return Ok(false);
        }
        self.carry_all(slice, now_ms).map_err(|trouble| self.refuse(trouble))?;
        if self.slices.remove(slice).is_some() {
            slice.drop_files();
            self.pool.close_dead();
        }
        Ok(true)
    }

    fn carry_all(&self, slice: &Arc<Slice>, now_ms: u64) -> Outcome<()> {
        let mut row = 0;
        loop {
            let rows = self.pool.lease(slice).and_then(|link| stream_row::list(&link, row, STREAMS_AT_ONCE));
            let rows = match rows {
                Ok(rows) => rows,
                Err(trouble) => return self.set_aside_if_lost(&mut lock(&self.writer), slice, trouble),
            };
            let Some(last) = rows.last() else { break };
            row = last.row;
            let names = rows.into_iter().map(|row| row.name).collect();
            self.carry(&mut lock(&self.writer), slice, names, now_ms)?;
        }
        // The slice must not go before what is carried over is safe.
        self.sync()
    }

    /// Writes down where those streams stand whose newest row is in the slice.
    fn carry(
        &self,
        writer: &mut Writer,
        slice: &Slice,
        mut names: Vec<StreamName>,
        now_ms: u64,
    ) -> Outcome<()> {
        let known_ms = self.limits().window_ms.saturating_mul(WINDOWS_KNOWN);
        let mut base = self.base();
        let mut forgotten = Vec::new();
        names.retain(|name| {
            let last = self.streams.look(name, |tracked| {
                let is_last = tracked.segments.last().is_some_and(|last| last.slice == slice.number);
                let is_old = tracked.state.time_ms.saturating_add(known_ms) < now_ms;
                (is_last, is_old, tracked.state.head)
            });
            match last {
                Some((true, true, head)) => {
                    base = base.max(head);
                    forgotten.push(name.clone());
                    false
                }
                Some((true, false, _)) => true,
                _ => false,
            }
        });
        // First, so that nobody sees a stream that is neither known nor below the base.
        writer.save_meta(|meta| meta.base = base)?;
        self.base.store(base, Ordering::Release);
        forgotten.iter().for_each(|name| self.streams.remove(name));
        if names.is_empty() {
            return Ok(());
        }
        match self.save_all(writer, &names, now_ms) {
            Ok(()) => {
                // So long it has to stay for them to be forgotten when it goes.
                if let Some(current) = &writer.current {
                    current.slice().note_newest(now_ms);
                }
                Ok(())
            }
            // The slice has to go to make room. They are written down once there is some.
            Err(Trouble::Full) => {
                self.note_unsaved(writer, names);
                Ok(())
            }
            Err(Trouble::Damaged(reason)) => {
                self.note_unsaved(writer, names);
                if let Some(current) = writer.current.as_ref().map(|current| Arc::clone(current.slice())) {
                    self.set_aside(writer, &current, &reason);
                }
                Ok(())
            }
            Err(trouble) => Err(trouble),
        }
    }
}
