//! Reading a stream across its slices.

use std::sync::Arc;

use rusqlite::{Connection, params};

use super::index::{Mark, Part, View};
use super::pool::Pool;
use super::record::{self, SELECT_MESSAGE};
use super::slice::Slice;
use super::trouble::{Outcome, Trouble};
use crate::replay::store::{Direction, Entry, Range, Retention, StreamName};

/// What was found out about a slice when it was read.
#[derive(Debug)]
pub struct Hurt {
    pub slice: Arc<Slice>,
    pub trouble: Trouble,
}

/// One look at a stream.
#[derive(Debug)]
pub struct Reading<'a> {
    pub pool: &'a Pool,
    pub name: &'a StreamName,
    pub view: &'a View,
    pub nonce: u64,
}

impl Reading<'_> {
    /// The floor under `retention`, and when messages before `oldest_slice` do not count.
    pub fn floor(&self, retention: &Retention, oldest_slice: u32, now_ms: u64) -> Result<u64, Hurt> {
        let View { state, parts } = self.view;
        let first = self.view.first();
        let counted = parts.iter().find(|part| part.segment.slice >= oldest_slice);
        let counted = counted.map_or(state.head + 1, |part| part.segment.first);
        let mut floor = state.floor_of(retention, now_ms).max(first).max(counted);
        if floor > state.head {
            return Ok(state.head + 1);
        }
        let since_ms = now_ms.saturating_sub(retention.window_ms);
        floor = self.search(floor, |mark| mark.time_ms >= since_ms)?;
        let beyond = state.beyond_bytes(retention.max_bytes);
        if beyond <= self.view.bytes_before_first() || floor > state.head {
            return Ok(floor);
        }
        // From the message before: when that is beyond already, the floor stays.
        let last_beyond = self.search(first.max(floor - 1), |mark| mark.total_bytes >= beyond)?;
        Ok(floor.max((last_beyond + 1).min(state.head)))
    }

    /// Serial of the first message not older than `since_ms`.
    pub fn first_since(&self, since_ms: u64) -> Result<u64, Hurt> {
        self.search(self.view.first(), |mark| mark.time_ms >= since_ms)
    }

    /// The total up to and with a message.
    pub fn total_at(&self, serial: u64) -> Result<u64, Hurt> {
        let View { state, parts } = self.view;
        if serial >= state.head {
            return Ok(state.total_bytes);
        }
        let index = parts.partition_point(|part| part.segment.first <= serial);
        let Some(part) = index.checked_sub(1).map(|index| &parts[index]) else {
            return Ok(self.view.bytes_before_first());
        };
        let mark = self.in_part(part, |connection| record::next(connection, part.segment.row, serial))?;
        Ok(mark.map_or(state.total_bytes, |mark| mark.total_bytes))
    }

    /// The first serial from `from` on whose message `is_wanted`, as all that come after it; `head + 1` if none.
    fn search(&self, from: u64, is_wanted: impl Fn(&Mark) -> bool) -> Result<u64, Hurt> {
        let has_it = |index: &usize| {
            let last = self.view.last_of(*index);
            last.serial >= from.max(self.view.parts[*index].segment.first) && is_wanted(&last)
        };
        match (0..self.view.parts.len()).find(has_it) {
            Some(index) => {
                let part = &self.view.parts[index];
                let last = self.view.last_of(index).serial;
                self.in_part(part, |connection| search_part(connection, part, from, last, is_wanted))
            }
            None => Ok(self.view.state.head + 1),
        }
    }

    /// Entries of a range, in its direction.
    pub fn page(&self, range: &Range) -> Result<Vec<Entry>, Hurt> {
        let mut page = Page { entries: Vec::new(), bytes: 0, is_full: false, range };
        let indexes = 0..self.view.parts.len();
        match range.direction {
            Direction::Forward => indexes.into_iter().try_for_each(|index| self.fill(&mut page, index))?,
            Direction::Backward => indexes.rev().try_for_each(|index| self.fill(&mut page, index))?,
        }
        Ok(page.entries)
    }

    fn fill(&self, page: &mut Page<'_>, index: usize) -> Result<(), Hurt> {
        let part = &self.view.parts[index];
        let first = part.segment.first.max(self.view.first()).max(page.range.after.saturating_add(1));
        let last = self.view.last_of(index).serial.min(page.range.before.saturating_sub(1));
        if first > last || page.is_full() {
            return Ok(());
        }
        self.in_part(part, |connection| self.fill_from(page, connection, part.segment.row, first, last))
    }

    fn fill_from(
        &self,
        page: &mut Page<'_>,
        connection: &Connection,
        row: u32,
        first: u64,
        last: u64,
    ) -> Outcome<()> {
        let order = if page.range.direction == Direction::Forward { "ASC" } else { "DESC" };
        let mut statement = connection.prepare_cached(&format!(
            "{SELECT_MESSAGE} WHERE stream = ?1 AND serial BETWEEN ?2 AND ?3 ORDER BY serial {order} LIMIT ?4"
        ))?;
        let limit = i64::try_from(page.range.max_messages - page.entries.len()).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![row, first.cast_signed(), last.cast_signed(), limit])?;
        while let Some(row) = rows.next()? {
            page.push(record::read_message(row, self.name, &self.view.state, self.nonce)?);
            if page.is_full() {
                break;
            }
        }
        Ok(())
    }

    fn in_part<T>(&self, part: &Part, read: impl FnOnce(&Connection) -> Outcome<T>) -> Result<T, Hurt> {
        let outcome = self.pool.lease(&part.slice).and_then(|connection| read(&connection));
        outcome.map_err(|trouble| Hurt { slice: Arc::clone(&part.slice), trouble })
    }
}

/// By halves: a part has each serial between its first and its last, unless it is damaged.
fn search_part(
    connection: &Connection,
    part: &Part,
    from: u64,
    last: u64,
    is_wanted: impl Fn(&Mark) -> bool,
) -> Outcome<u64> {
    let row = part.segment.row;
    let mut low = from.max(part.segment.first);
    let mut high = last;
    // Most often nothing is beyond a limit.
    let mut middle = low;
    while low < high {
        match record::next(connection, row, middle)? {
            Some(mark) if mark.serial <= high && !is_wanted(&mark) => low = mark.serial + 1,
            _ => high = middle,
        }
        middle = low.midpoint(high);
    }
    Ok(low)
}

struct Page<'a> {
    entries: Vec<Entry>,
    bytes: u64,
    is_full: bool,
    range: &'a Range,
}

impl Page<'_> {
    fn is_full(&self) -> bool {
        self.is_full || self.entries.len() >= self.range.max_messages
    }

    fn push(&mut self, entry: Entry) {
        if let Entry::Message(message) = &entry {
            self.bytes += message.content.size();
        }
        if self.bytes > self.range.max_bytes && !self.entries.is_empty() {
            self.is_full = true;
        } else {
            self.entries.push(entry);
        }
    }
}
