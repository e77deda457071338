//! One page of a channel's log, from the store to JSON.
//!
//! A page lies between two *boundaries*. Boundary 7 is between the messages 7 and 8, and is the position `…:7`: a page
//! that goes forward from it begins with 8, one that goes backward with 7. So a position is the same place in both.

use serde::Serialize;
use serde_json::value::RawValue;
use tidewire_protocol::history::{Direction, HistoryCursor, HistoryQuery};
use tidewire_protocol::position::Position;
use tidewire_protocol::replay::{Bounds, Reason};

use super::gone::Gone;
use crate::replay::store::{Entry, Message, Range, Retention, Store, StoreError, StreamName};

/// Of the messages on a page, as they are stored.
const MAX_PAGE_BYTES: u64 = 4 * 1024 * 1024;
/// How often a page is read that is trimmed meanwhile.
const MAX_ATTEMPTS: u32 = 3;

/// Reads a page and writes it as JSON. Blocks, as the store does.
pub fn compose(
    store: &dyn Store,
    stream: &StreamName,
    query: &HistoryQuery,
    retention: &Retention,
    now_ms: u64,
) -> Result<Result<Vec<u8>, Gone>, StoreError> {
    let since = query.since_ms.map(|age_ms| store.first_since(stream, now_ms.saturating_sub(age_ms)));
    let since = since.transpose()?.unwrap_or(0);
    let mut bounds = store.bounds(stream, retention, now_ms)?;
    let mut attempt = 1;
    loop {
        let span = match Span::of(query, since, &bounds) {
            Ok(span) => span,
            Err(reason) => return Ok(Err(Gone::new(&stream.channel, reason, &bounds))),
        };
        let entries = store.read(stream, span.range(query.limit))?;
        if span.begins_with(&entries) || attempt == MAX_ATTEMPTS {
            return Ok(Ok(page(stream, &bounds, span, &entries)));
        }
        let later = store.bounds(stream, retention, now_ms)?;
        // What is missing was not trimmed but lost, with a damaged slice.
        if later.floor == bounds.floor {
            return Ok(Ok(page(stream, &bounds, span, &entries)));
        }
        bounds = later;
        attempt += 1;
    }
}

/// The messages that a request asks for: those between two boundaries, in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    direction: Direction,
    start: u64,
    end: u64,
    /// Where the request ends, whatever is there now.
    bound: Option<u64>,
}

impl Span {
    /// `since` is the serial of the first message that is young enough.
    fn of(query: &HistoryQuery, since: u64, bounds: &Bounds) -> Result<Self, Reason> {
        if let Some(cursor) = query.cursor {
            let start = known(cursor.position(), bounds)?;
            return Self::between(cursor.direction, start, cursor.bound, bounds);
        }
        let from = query.from.map(|from| known(from, bounds)).transpose()?;
        let to = query.to.map(|to| known(to, bounds)).transpose()?;
        let young = since.saturating_sub(1);
        match query.direction {
            Direction::Forward => {
                let start = from.unwrap_or(oldest(bounds)).max(young);
                Self::between(Direction::Forward, start, to, bounds)
            }
            Direction::Backward => {
                // Here positions name messages: `from` is the first one out, `to` the last one in.
                let start = from.map_or(bounds.head, |serial| serial.saturating_sub(1));
                let end = to.map(|serial| serial.saturating_sub(1).max(bounds.base));
                if end.is_some_and(|end| end < oldest(bounds)) {
                    return Err(Reason::Expired);
                }
                Self::between(Direction::Backward, start, end.max(Some(young)), bounds)
            }
        }
    }

    fn between(
        direction: Direction,
        start: u64,
        bound: Option<u64>,
        bounds: &Bounds,
    ) -> Result<Self, Reason> {
        let end = match direction {
            Direction::Forward if start < oldest(bounds) => return Err(Reason::Expired),
            Direction::Forward => bound.unwrap_or(u64::MAX).min(bounds.head).max(start),
            // Backward there is nothing to miss: it ends where the log does.
            Direction::Backward => bound.unwrap_or(0).max(oldest(bounds)).min(start),
        };
        Ok(Self { direction, start, end, bound })
    }

    fn range(self, limit: usize) -> Range {
        let (after, last) = match self.direction {
            Direction::Forward => (self.start, self.end),
            Direction::Backward => (self.end, self.start),
        };
        Range {
            after,
            before: last.saturating_add(1),
            direction: self.direction,
            max_messages: limit,
            max_bytes: MAX_PAGE_BYTES,
        }
    }

    /// Whether the first entry is the one that it should be.
    fn begins_with(self, entries: &[Entry]) -> bool {
        let expected = match self.direction {
            Direction::Forward => self.start + 1,
            Direction::Backward => self.start,
        };
        self.start == self.end || entries.first().is_some_and(|entry| entry.serial() == expected)
    }

    /// The boundary that a page with these entries reaches.
    fn reach(self, entries: &[Entry]) -> u64 {
        match (self.direction, entries.last()) {
            (_, None) => self.end,
            (Direction::Forward, Some(last)) => last.serial(),
            (Direction::Backward, Some(last)) => last.serial() - 1,
        }
    }
}

/// The boundary before the oldest message that is kept.
fn oldest(bounds: &Bounds) -> u64 {
    bounds.floor.saturating_sub(1)
}

/// The serial of a position of this log; others have no place in it.
fn known(position: Position, bounds: &Bounds) -> Result<u64, Reason> {
    match bounds.resolve(position, u64::MAX) {
        // Whether it is too old depends on the direction.
        Ok(()) | Err(Reason::Expired) => Ok(position.serial),
        Err(reason) => Err(reason),
    }
}

#[derive(Serialize)]
struct Page<'a> {
    channel: &'a str,
    epoch: String,
    oldest: u64,
    newest: u64,
    items: Vec<Item<'a>>,
    /// Serials of messages that cannot be read any more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreadable: Vec<u64>,
    /// Cursor of the page that follows in the same direction.
    next: Option<String>,
    /// Cursor of what is before this page, in the other direction.
    prev: Option<String>,
    /// Nothing follows in the direction.
    complete: bool,
}

#[derive(Serialize)]
struct Item<'a> {
    serial: u64,
    /// The idempotency key.
    id: Option<&'a str>,
    event: &'a str,
    /// The same JSON string that subscribers get.
    data: &'a RawValue,
    /// Milliseconds since the Unix epoch.
    ts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
}

impl<'a> Item<'a> {
    fn of(message: &'a Message) -> Option<Self> {
        let Message { stamp, content } = message;
        Some(Self {
            serial: stamp.position.serial,
            id: content.id.as_deref(),
            event: &content.event,
            data: serde_json::from_str(&content.data).ok()?,
            ts: stamp.time_ms,
            user_id: content.user_id.as_deref(),
        })
    }
}

fn page(stream: &StreamName, bounds: &Bounds, span: Span, entries: &[Entry]) -> Vec<u8> {
    let mut items = Vec::with_capacity(entries.len());
    let mut unreadable = Vec::new();
    for entry in entries {
        let item = match entry {
            Entry::Message(message) => Item::of(message),
            Entry::Unreadable { .. } => None,
        };
        match item {
            Some(item) => items.push(item),
            None => unreadable.push(entry.serial()),
        }
    }
    let epoch = bounds.epoch();
    let reach = span.reach(entries);
    let complete = reach == span.end;
    let cursor = |direction, serial, bound| HistoryCursor { direction, serial, bound, epoch }.to_string();
    let prev = match span.direction {
        Direction::Forward if span.start >= bounds.floor => {
            Some(cursor(Direction::Backward, span.start, None))
        }
        Direction::Backward if span.start < bounds.head => {
            Some(cursor(Direction::Forward, span.start.max(oldest(bounds)), None))
        }
        _ => None,
    };
    let page = Page {
        channel: &stream.channel,
        epoch: epoch.to_string(),
        oldest: bounds.floor,
        newest: bounds.head,
        items,
        unreadable,
        next: (!complete).then(|| cursor(span.direction, reach, span.bound)),
        prev,
        complete,
    };
    serde_json::to_vec(&page).expect("a struct with string keys always serialises")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidewire_protocol::position::Epoch;
    use tidewire_protocol::replay::Generation;

    const NONCE: u64 = 7;

    /// A log with the messages 11 to 20, of which 15 began generation 2.
    fn bounds() -> Bounds {
        let generations = vec![Generation { number: 1, start: 1 }, Generation { number: 2, start: 15 }];
        Bounds { nonce: NONCE, base: 0, generations, floor: 11, head: 20 }
    }

    fn at(generation: u32, serial: u64) -> Option<Position> {
        Some(Position { epoch: Epoch { nonce: NONCE, generation }, serial })
    }

    fn forward() -> HistoryQuery {
        HistoryQuery { direction: Direction::Forward, ..HistoryQuery::default() }
    }

    /// Start and end of what is asked for.
    fn span(query: HistoryQuery, since: u64) -> Result<(u64, u64), Reason> {
        Span::of(&query, since, &bounds()).map(|span| (span.start, span.end))
    }

    #[test]
    fn a_span_lies_within_the_log() {
        let backward = HistoryQuery::default;
        assert_eq!(span(forward(), 0), Ok((10, 20)));
        assert_eq!(span(backward(), 0), Ok((20, 10)));
        assert_eq!(span(HistoryQuery { from: at(2, 12), ..forward() }, 0), Ok((12, 20)));
        assert_eq!(span(HistoryQuery { from: at(2, 12), to: at(2, 16), ..forward() }, 0), Ok((12, 16)));
        assert_eq!(span(HistoryQuery { from: at(2, 16), ..backward() }, 0), Ok((15, 10)));
        assert_eq!(span(HistoryQuery { from: at(2, 16), to: at(2, 12), ..backward() }, 0), Ok((15, 11)));
        assert_eq!(span(HistoryQuery { from: at(2, 20), ..forward() }, 0), Ok((20, 20)));
        assert_eq!(span(HistoryQuery { from: at(2, 3), ..backward() }, 0), Ok((2, 2)));
    }

    #[test]
    fn since_narrows_and_never_widens() {
        assert_eq!(span(forward(), 18), Ok((17, 20)));
        assert_eq!(span(forward(), 3), Ok((10, 20)));
        assert_eq!(span(forward(), 21), Ok((20, 20)));
        assert_eq!(span(HistoryQuery::default(), 18), Ok((20, 17)));
        assert_eq!(span(HistoryQuery::default(), 21), Ok((20, 20)));
        assert_eq!(span(HistoryQuery { from: at(2, 19), ..forward() }, 18), Ok((19, 20)));
    }

    #[test]
    fn trimmed_messages_are_a_gap_forward_and_an_end_backward() {
        assert_eq!(span(HistoryQuery { from: at(1, 9), ..forward() }, 0), Err(Reason::Expired));
        assert_eq!(span(HistoryQuery { from: at(1, 10), ..forward() }, 0), Ok((10, 20)));
        assert_eq!(span(HistoryQuery { to: at(1, 9), ..HistoryQuery::default() }, 0), Err(Reason::Expired));
        assert_eq!(span(HistoryQuery { to: at(1, 11), ..HistoryQuery::default() }, 0), Ok((20, 10)));
    }

    #[test]
    fn a_position_has_to_be_of_this_log() {
        let reset = Position { epoch: Epoch { nonce: 8, generation: 2 }, serial: 16 };
        for (from, reason) in [
            (Some(reset), Reason::StreamReset),
            (at(0, 12), Reason::StreamReset),
            (at(2, 21), Reason::RolledBack),
            (at(1, 15), Reason::RolledBack),
            (at(2, u64::MAX), Reason::RolledBack),
        ] {
            assert_eq!(span(HistoryQuery { from, ..forward() }, 0), Err(reason));
            assert_eq!(span(HistoryQuery { from, ..HistoryQuery::default() }, 0), Err(reason));
            assert_eq!(span(HistoryQuery { to: from, ..HistoryQuery::default() }, 0), Err(reason));
        }
    }

    #[test]
    fn a_cursor_takes_up_where_its_page_ended() {
        let cursor = |direction, serial, bound| {
            let epoch = Epoch { nonce: NONCE, generation: 2 };
            let cursor = Some(HistoryCursor { direction, serial, bound, epoch });
            span(HistoryQuery { cursor, ..HistoryQuery::default() }, 0)
        };
        assert_eq!(cursor(Direction::Forward, 15, None), Ok((15, 20)));
        assert_eq!(cursor(Direction::Forward, 15, Some(18)), Ok((15, 18)));
        assert_eq!(cursor(Direction::Forward, 15, Some(40)), Ok((15, 20)));
        assert_eq!(cursor(Direction::Forward, 9, None), Err(Reason::Expired));
        assert_eq!(cursor(Direction::Backward, 15, None), Ok((15, 10)));
        assert_eq!(cursor(Direction::Backward, 15, Some(12)), Ok((15, 12)));
        assert_eq!(cursor(Direction::Backward, 8, Some(3)), Ok((8, 8)));
        assert_eq!(cursor(Direction::Backward, 21, None), Err(Reason::RolledBack));
    }
}
