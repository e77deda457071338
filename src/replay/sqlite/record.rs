//! Rows of the two tables, as they are written and read.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params};
use tidewire_protocol::replay::Generation;

use super::index::{Mark, Segment};
use super::trouble::{Outcome, Trouble};
use crate::replay::store::{Content, Entry, Message, Stamp, StreamName};
use crate::replay::streams::StreamState;

const INSERT_MESSAGE: &str = "INSERT INTO messages
    (stream, serial, time_ms, total_bytes, checksum, key, event, user_id, except_socket, data)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
/// What [`read_message`] reads; a query begins with it.
pub const SELECT_MESSAGE: &str =
    "SELECT serial, time_ms, total_bytes, checksum, key, event, user_id, except_socket, data FROM messages";
const INSERT_STREAM: &str = "INSERT INTO streams
    (app, channel, previous, base, head, total_bytes, time_ms, floor, floor_bytes, generations)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
const UPDATE_STREAM: &str = "UPDATE streams SET floor = ?2, floor_bytes = ?3, generations = ?4 WHERE id = ?1";
const SELECT_STREAMS: &str = "SELECT app, channel, id, previous, base, head, total_bytes, time_ms, floor,
    floor_bytes, generations FROM streams WHERE id > ?1 ORDER BY id LIMIT ?2";
const SELECT_HEAD: &str = "SELECT serial, time_ms, total_bytes FROM messages
    WHERE stream = ?1 ORDER BY serial DESC LIMIT 1";
const SELECT_NEWEST: &str = "SELECT id, time_ms FROM messages ORDER BY id DESC LIMIT 1";
const SELECT_WITH_KEY: &str = "SELECT serial, time_ms, total_bytes, checksum, key, event, user_id, except_socket, data,
    (SELECT app FROM streams WHERE streams.id = stream), (SELECT channel FROM streams WHERE streams.id = stream)
    FROM messages WHERE key IS NOT NULL AND time_ms > ?1 ORDER BY time_ms, id";
const SELECT_NEXT: &str = "SELECT serial, time_ms, total_bytes FROM messages
    WHERE stream = ?1 AND serial >= ?2 ORDER BY serial LIMIT 1";

/// A row of `streams`.
#[derive(Debug)]
pub struct StreamRow {
    pub name: StreamName,
    /// As it was when the row was written, but for floor and generations.
    pub state: StreamState,
    /// Start of the slice of the row before; 0: none.
    pub previous_ms: u64,
    pub row: u32,
}

impl StreamRow {
    pub fn segment(&self, slice: u32) -> Segment {
        let StreamState { head, total_bytes, time_ms, .. } = self.state;
        Segment { first: head + 1, total_bytes, time_ms, slice, row: self.row }
    }
}

/// Writes a stream's row as it is before its next message. Returns its id.
pub fn insert_stream(
    connection: &Connection,
    name: &StreamName,
    before: &Segment,
    state: &StreamState,
    previous_ms: u64,
) -> Outcome<u32> {
    connection.prepare_cached(INSERT_STREAM)?.execute(params![
        &*name.app,
        &*name.channel,
        previous_ms.cast_signed(),
        state.base.cast_signed(),
        (before.first - 1).cast_signed(),
        before.total_bytes.cast_signed(),
        before.time_ms.cast_signed(),
        state.floor.cast_signed(),
        state.floor_bytes.cast_signed(),
        generations_text(state.generations()),
    ])?;
    u32::try_from(connection.last_insert_rowid()).map_err(|_| Trouble::Other("too many streams".to_owned()))
}

/// Writes what changes while a row is the newest of its stream.
pub fn update_stream(connection: &Connection, row: u32, state: &StreamState) -> Outcome<()> {
    connection.prepare_cached(UPDATE_STREAM)?.execute(params![
        row,
        state.floor.cast_signed(),
        state.floor_bytes.cast_signed(),
        generations_text(state.generations()),
    ])?;
    Ok(())
}

/// At most `limit` rows of `streams`, those that follow the row `after`.
pub fn streams(connection: &Connection, after: u32, limit: u32) -> Outcome<Vec<StreamRow>> {
    let mut statement = connection.prepare_cached(SELECT_STREAMS)?;
    let mut rows = statement.query([after, limit])?;
    let mut streams = Vec::new();
    while let Some(row) = rows.next()? {
        streams.push(read_stream(row)?);
    }
    Ok(streams)
}

fn read_stream(row: &Row<'_>) -> Outcome<StreamRow> {
    let number = |index: usize| row.get::<_, i64>(index).map(i64::cast_unsigned);
    let text = |index: usize| row.get::<_, Box<str>>(index);
    let generations: String = row.get(10)?;
    let generations = parse_generations(&generations)
        .ok_or_else(|| Trouble::Damaged(format!("a stream's generations are {generations}")))?;
    let mut state = StreamState::new(number(4)?, number(7)?).with_generations(generations);
    state.head = number(5)?;
    state.total_bytes = number(6)?;
    state.floor = number(8)?;
    state.floor_bytes = number(9)?;
    Ok(StreamRow {
        name: StreamName { app: text(0)?, channel: text(1)? },
        state,
        previous_ms: number(3)?,
        row: row.get(2)?,
    })
}

/// As JSON, for whoever looks at the file.
fn generations_text(generations: &[Generation]) -> String {
    let pairs: Vec<String> =
        generations.iter().map(|one| format!("[{},{}]", one.number, one.start)).collect();
    format!("[{}]", pairs.join(","))
}

fn parse_generations(text: &str) -> Option<Vec<Generation>> {
    let pairs: Vec<(u32, u64)> = serde_json::from_str(text).ok()?;
    Some(pairs.into_iter().map(|(number, start)| Generation { number, start }).collect())
}

/// The newest message of a stream's row.
pub fn head(connection: &Connection, row: u32) -> Outcome<Option<Mark>> {
    let mut statement = connection.prepare_cached(SELECT_HEAD)?;
    let mut rows = statement.query([row])?;
    Ok(rows.next()?.map(read_mark).transpose()?)
}

/// Id and time of the message that came last.
pub fn newest(connection: &Connection) -> Outcome<Option<(i64, u64)>> {
    let mut statement = connection.prepare_cached(SELECT_NEWEST)?;
    let mut rows = statement.query([])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some((row.get(0)?, row.get::<_, i64>(1).unwrap_or(0).cast_unsigned())))
}

/// The first message that is there from a serial on.
pub fn next(connection: &Connection, row: u32, serial: u64) -> Outcome<Option<Mark>> {
    let mut statement = connection.prepare_cached(SELECT_NEXT)?;
    let mut rows = statement.query(params![row, serial.cast_signed()])?;
    Ok(rows.next()?.map(read_mark).transpose()?)
}

/// The serial stands in the index; of a message that is unreadable the rest may be anything.
fn read_mark(row: &Row<'_>) -> rusqlite::Result<Mark> {
    let number = |index: usize| row.get::<_, i64>(index).map(i64::cast_unsigned);
    Ok(Mark { serial: number(0)?, time_ms: number(1).unwrap_or(0), total_bytes: number(2).unwrap_or(0) })
}

/// Shows the messages that came after `since_ms` with a key, oldest first.
pub fn each_with_key(
    connection: &Connection,
    since_ms: u64,
    mut see: impl FnMut(StreamName, &Row<'_>) -> Outcome<()>,
) -> Outcome<()> {
    let mut statement = connection.prepare(SELECT_WITH_KEY)?;
    let mut rows = statement.query([since_ms.cast_signed()])?;
    while let Some(row) = rows.next()? {
        // One whose stream is unreadable is of no use to it.
        if let (Ok(app), Ok(channel)) = (row.get(9), row.get(10)) {
            see(StreamName { app, channel }, row)?;
        }
    }
    Ok(())
}

pub fn insert_message(
    connection: &Connection,
    row: u32,
    name: &StreamName,
    stamp: &Stamp,
    content: &Content,
) -> Outcome<()> {
    let serial = stamp.position.serial;
    let except = content.except.map(u64::cast_signed);
    let fields = Fields {
        key: content.id.as_deref().map(str::as_bytes),
        event: content.event.as_bytes(),
        user_id: content.user_id.as_deref().map(str::as_bytes),
        except,
        data: content.data.as_bytes(),
    };
    connection.prepare_cached(INSERT_MESSAGE)?.execute(params![
        row,
        serial.cast_signed(),
        stamp.time_ms.cast_signed(),
        stamp.total_bytes.cast_signed(),
        fields.checksum(name, serial, stamp.time_ms, stamp.total_bytes),
        content.id.as_deref(),
        &*content.event,
        content.user_id.as_deref(),
        except,
        &*content.data,
    ])?;
    Ok(())
}

/// Reads a row of [`SELECT_MESSAGE`].
pub fn read_message(row: &Row<'_>, name: &StreamName, state: &StreamState, nonce: u64) -> Outcome<Entry> {
    let Mark { serial, time_ms, total_bytes } = read_mark(row)?;
    let message = Fields::read(row).and_then(|fields| {
        let checksum = fields.checksum(name, serial, time_ms, total_bytes);
        if row.get::<_, u32>(3) != Ok(checksum) {
            return None;
        }
        let stamp = state.stamp(nonce, serial, time_ms, total_bytes);
        Some(Message { stamp, content: fields.content()? })
    });
    Ok(message.map_or(Entry::Unreadable { serial }, Entry::Message))
}

/// What a message says, as it stands in the file.
struct Fields<'a> {
    key: Option<&'a [u8]>,
    event: &'a [u8],
    user_id: Option<&'a [u8]>,
    except: Option<i64>,
    data: &'a [u8],
}

impl<'a> Fields<'a> {
    /// `None` when a column has another type than it was written with.
    fn read(row: &'a Row<'_>) -> Option<Self> {
        let optional = |index: usize| match row.get_ref(index).ok()? {
            ValueRef::Null => Some(None),
            ValueRef::Text(text) => Some(Some(text)),
            _ => None,
        };
        let except = match row.get_ref(7).ok()? {
            ValueRef::Null => None,
            ValueRef::Integer(socket) => Some(socket),
            _ => return None,
        };
        Some(Self {
            key: optional(4)?,
            event: optional(5)??,
            user_id: optional(6)?,
            except,
            data: optional(8)??,
        })
    }

    fn checksum(&self, name: &StreamName, serial: u64, time_ms: u64, total_bytes: u64) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        let mut text = |text: Option<&[u8]>| {
            // No text is so long: this tells none from an empty one.
            let length = text.map_or(u64::MAX, |text| text.len() as u64);
            hasher.update(&length.to_le_bytes());
            hasher.update(text.unwrap_or_default());
        };
        text(Some(name.app.as_bytes()));
        text(Some(name.channel.as_bytes()));
        text(self.key);
        text(Some(self.event));
        text(self.user_id);
        text(self.except.map(i64::to_le_bytes).as_ref().map(|bytes| &bytes[..]));
        text(Some(self.data));
        for number in [serial, time_ms, total_bytes] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.finalize()
    }

    fn content(&self) -> Option<Content> {
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(Box::from);
        let optional = |bytes: Option<&[u8]>| match bytes {
            Some(bytes) => text(bytes).map(Some),
            None => Some(None),
        };
        Some(Content {
            id: optional(self.key)?,
            event: text(self.event)?,
            data: text(self.data)?,
            user_id: optional(self.user_id)?,
            except: self.except.map(i64::cast_unsigned),
        })
    }
}
