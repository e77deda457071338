//! Opening a store: what its files say, without a look at more than the newest message of each stream.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::directory;
use super::index::{Mark, Segment, Slices, Streams, Tracked};
use super::meta::{Closed, Meta, State};
use super::record;
use super::slice::{Link, Slice};
use super::stream_row::{self, StreamRow};
use super::trouble::{Outcome, Trouble};
use super::writer::{Current, Writer};
use crate::replay::store::{Durability, StoreError, StreamName};
use crate::replay::streams::StreamState;

/// So far the streams that are not known jump when some may have been lost: they go on behind any serial that a
/// client can have of them.
const BASE_STEP: u64 = 1 << 32;
/// A check of more would take seconds.
const MAX_CHECKED_BYTES: u64 = 128 * 1024 * 1024;

/// A store as its files say it is.
#[derive(Debug)]
pub struct Found {
    pub streams: Streams,
    pub slices: Slices,
    /// To all slices that take no more messages.
    pub older: Vec<Link>,
    pub set_aside: u64,
    pub writer: Writer,
}

/// Reads the store, and notes that it is in use.
pub fn open(directory: &Path, durability: Durability, now_ms: u64) -> Result<Found, StoreError> {
    let outcome = Boot::begin(directory, now_ms).and_then(|mut boot| {
        boot.read_slices()?;
        boot.finish(durability)
    });
    outcome.map_err(|trouble| match trouble {
        Trouble::Io(_) if directory::is_full(directory) => StoreError::Full,
        trouble => trouble.into(),
    })
}

struct Boot<'a> {
    directory: &'a Path,
    now_ms: u64,
    meta: Meta,
    /// `None` when the store is new, or `meta.db` was damaged.
    state: Option<State>,
    set_aside: u64,
    /// Slices that are damaged, and why.
    damaged: Vec<(Arc<Slice>, String)>,
    /// What streams had in older slices only may not be all of it: a slice with this number was lost. 0: none.
    lost: u32,
    /// Whether all is as it was when the store was closed.
    is_clean: bool,
    streams: HashMap<StreamName, Known>,
    slices: Slices,
    slice_count: u32,
    /// To the newest slice, if it can go on to take messages.
    newest: Option<Link>,
    older: Vec<Link>,
}

/// A stream of which newer slices were read.
struct Known {
    state: StreamState,
    /// Newest first.
    segments: Vec<Segment>,
    /// Start of the slice that has its next older row.
    previous_ms: u64,
}

impl<'a> Boot<'a> {
    fn begin(directory: &'a Path, now_ms: u64) -> Outcome<Self> {
        let mut set_aside = 0;
        let opened = Meta::open(directory).and_then(|meta| Ok((meta.load()?, meta)));
        let (state, meta) = match opened {
            Ok(opened) => opened,
            Err(Trouble::Damaged(reason) | Trouble::Unreadable(reason)) => {
                report(&directory::meta_path(directory), &reason, now_ms)?;
                set_aside += 1;
                (None, Meta::open(directory)?)
            }
            Err(trouble) => return Err(trouble),
        };
        Ok(Self {
            directory,
            now_ms,
            meta,
            is_clean: state.as_ref().is_some_and(|state| state.closed.is_some()),
            state,
            set_aside,
            damaged: Vec::new(),
            lost: 0,
            streams: HashMap::new(),
            slices: Slices::default(),
            slice_count: 0,
            newest: None,
            older: Vec::new(),
        })
    }

    /// From the newest to the oldest: what is newer holds.
    fn read_slices(&mut self) -> Outcome<()> {
        let starts = directory::slices(self.directory)?;
        let closed = self.state.as_ref().and_then(|state| state.closed);
        let newest_ms = starts.last().copied().unwrap_or(0);
        self.slice_count =
            u32::try_from(starts.len()).map_err(|_| Trouble::Other("too many slices".to_owned()))?;
        // Slices that somebody took away.
        if closed.is_some_and(|closed| closed.slice_ms > newest_ms) {
            self.lost = u32::MAX;
        } else if closed.is_some_and(|closed| closed.slices > self.slice_count) {
            self.lost = self.slice_count;
        }
        let closed = closed.unwrap_or_default();
        self.is_clean &= closed.slice_ms == newest_ms && self.lost == 0;
        for (start_ms, number) in starts.into_iter().rev().zip((1..=self.slice_count).rev()) {
            let slice = Arc::new(Slice::new(self.directory, number, start_ms));
            let closed = (start_ms == newest_ms).then_some(closed);
            match self.read_slice(&slice, closed) {
                Ok(link) => {
                    slice.measure();
                    self.slices.insert(&slice);
                    if closed.is_some() {
                        self.newest = Some(link);
                    } else {
                        self.older.push(link);
                    }
                }
                // Nothing is written to any of them yet.
                Err(Trouble::Damaged(reason) | Trouble::Unreadable(reason)) => {
                    self.damaged.push((slice, reason));
                    self.set_aside += 1;
                    self.is_clean = false;
                    self.lost = self.lost.max(number);
                }
                Err(trouble) => return Err(trouble),
            }
        }
        Ok(())
    }

    /// Its connection stays open: to close it would move the write-ahead log, which may be long.
    fn read_slice(&mut self, slice: &Arc<Slice>, closed: Option<Closed>) -> Outcome<Link> {
        let link = slice.link_to_keep()?;
        let outcome = self.read_linked(&link, closed);
        if matches!(outcome, Err(Trouble::Damaged(_) | Trouble::Unreadable(_))) {
            slice.leave();
        }
        outcome.map(|()| link)
    }

    fn read_linked(&mut self, link: &Link, closed: Option<Closed>) -> Outcome<()> {
        if !link.is_initialised()? {
            if closed.is_none() || self.is_clean {
                return Err(Trouble::Damaged("there is nothing in it".to_owned()));
            }
            // The process ended between making the file and its tables.
            link.connection.execute_batch("PRAGMA journal_mode = WAL;")?;
            link.initialise()?;
        }
        let newest = record::newest(&link.connection)?;
        if let Some((_, time_ms)) = newest {
            link.slice.note_newest(time_ms);
        }
        if let Some(closed) = closed {
            if self.is_clean && closed.message != newest.map_or(0, |(message, _)| message) {
                // Another copy of it.
                self.is_clean = false;
                self.lost = u32::MAX;
            }
            if !self.is_clean && directory::size(link.slice.path()) <= MAX_CHECKED_BYTES {
                link.quick_check()?;
            }
        }
        // All of them before any counts: the slice may prove to be damaged at the last.
        for (row, newest) in self.read_streams(link)? {
            self.add(&link.slice, row, newest);
        }
        Ok(())
    }

    /// The slice's rows, and the newest message of each stream that no newer slice knows.
    fn read_streams(&self, link: &Link) -> Outcome<Vec<(StreamRow, Option<Mark>)>> {
        let rows = stream_row::list(&link.connection, 0, u32::MAX)?;
        rows.into_iter()
            .map(|row| {
                let is_known = self.streams.contains_key(&row.name);
                let newest = if is_known { None } else { record::head(&link.connection, &row)? };
                Ok((row, newest))
            })
            .collect()
    }

    fn add(&mut self, slice: &Slice, row: StreamRow, newest: Option<Mark>) {
        let segment = row.segment(slice.number);
        if let Some(known) = self.streams.get_mut(&row.name) {
            // Otherwise a slice between them is gone, and what is before it is of no use.
            if known.previous_ms == slice.start_ms {
                known.segments.push(segment);
                known.previous_ms = row.previous_ms;
            }
            return;
        }
        let StreamRow { name, mut state, previous_ms, .. } = row;
        if let Some(newest) = newest {
            state.head = state.head.max(newest.serial);
            state.total_bytes = state.total_bytes.max(newest.total_bytes);
            state.time_ms = state.time_ms.max(newest.time_ms);
        }
        // Serials that were left out have no message to tell, and those that were erased have none any more.
        state.head = state.head.max(state.floor.saturating_sub(1));
        state.total_bytes = state.total_bytes.max(state.floor_bytes);
        state.time_ms = state.time_ms.max(state.floor_ms);
        self.streams.insert(name, Known { state, segments: vec![segment], previous_ms });
    }

    fn finish(mut self, durability: Durability) -> Outcome<Found> {
        let mut saved = self.next_state();
        // Another nonce tells every client.
        let is_same = self.state.as_ref().is_some_and(|state| state.nonce == saved.nonce);
        let lost = if is_same { self.lost } else { 0 };
        let mut unsaved = HashSet::new();
        for (name, known) in &mut self.streams {
            if known.segments.first().is_some_and(|newest| newest.slice < lost) {
                known.state.lose_end(saved.generation);
                unsaved.insert(name.clone());
            }
        }
        if lost > 0 {
            saved.base = saved.base.saturating_add(BASE_STEP);
        }
        saved.is_skipping = !unsaved.is_empty();
        self.meta.save(&saved)?;
        // Not before: without the files nothing tells that something was lost.
        for (slice, reason) in &self.damaged {
            if let Err(trouble) = report(slice.path(), reason, self.now_ms) {
                tracing::error!(
                    target: "tidewire::replay", reason, path = %slice.path().display(), ?trouble,
                    "a damaged slice is not used any more, but cannot be renamed"
                );
            }
        }
        let streams = Streams::default();
        for (name, known) in self.streams {
            let Known { state, mut segments, .. } = known;
            segments.reverse();
            count_app_bytes(&self.slices, &name, &state, &segments);
            streams.put(&name, Tracked { state, segments: segments.into_boxed_slice() });
        }
        let current = self.newest.map(|link| resume(&link, durability)).transpose()?;
        Ok(Found {
            streams,
            slices: self.slices,
            older: self.older,
            set_aside: self.set_aside,
            writer: Writer {
                meta: self.meta,
                saved,
                current,
                next_number: self.slice_count + 1,
                unsaved,
                is_closed: false,
            },
        })
    }

    /// What `meta.db` is to say while the store is in use.
    fn next_state(&self) -> State {
        let last_of = |known: &Known| known.state.generations().last().map_or(0, |last| last.number);
        let newest = self.streams.values().map(last_of).max().unwrap_or(0);
        let made_anew =
            State { nonce: rand::random(), generation: newest, base: 0, is_skipping: false, closed: None };
        let Some(state) = self.state.clone() else {
            return State { generation: newest + 1, ..made_anew };
        };
        // Two for streams that lost their end.
        let steps = u32::from(!self.is_clean) + u32::from(self.lost > 0);
        let generation = state.generation.max(newest) + steps;
        // Nobody knows any more which streams were skipped: no position is good.
        let nonce = if state.is_skipping { made_anew.nonce } else { state.nonce };
        State { nonce, generation, base: state.base, ..made_anew }
    }
}

/// Goes on with a slice that has taken messages before.
fn resume(Link { slice, .. }: &Link, durability: Durability) -> Outcome<Current> {
    let link = slice.link_to_write(durability, false)?;
    let has_rows = !stream_row::list(&link.connection, 0, 1)?.is_empty();
    Current::new(link, has_rows.then_some(slice.start_ms))
}

fn count_app_bytes(slices: &Slices, name: &StreamName, state: &StreamState, segments: &[Segment]) {
    let ends = segments.iter().skip(1).map(|next| next.total_bytes).chain([state.total_bytes]);
    for (segment, end) in segments.iter().zip(ends) {
        if let Some(slice) = slices.get(segment.slice) {
            slice.add_app_bytes(&name.app, end.saturating_sub(segment.total_bytes));
        }
    }
}

fn report(path: &Path, reason: &str, now_ms: u64) -> Outcome<()> {
    let aside = directory::set_aside(path, now_ms)?;
    tracing::error!(
        target: "tidewire::replay", reason, path = %aside.display(),
        "a damaged file was set aside; its messages are not replayed"
    );
    Ok(())
}
