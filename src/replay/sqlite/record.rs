//! Rows of `messages`.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params};

use super::index::Mark;
use super::stream_row::StreamRow;
use super::trouble::{Outcome, Trouble};
use crate::replay::store::{Content, Entry, Message, Stamp, StreamName};
use crate::replay::streams::StreamState;

const INSERT_MESSAGE: &str = "INSERT INTO messages
    (stream, serial, time_ms, total_bytes, checksum, key, event, user_id, except_socket, data)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
/// What [`read_message`] reads; a query begins with it.
pub const SELECT_MESSAGE: &str =
    "SELECT serial, time_ms, total_bytes, checksum, key, event, user_id, except_socket, data FROM messages";
/// Answered by the index alone, which may be damaged apart from the table.
const SELECT_HEAD: &str = "SELECT id, serial FROM messages WHERE stream = ?1 ORDER BY serial DESC LIMIT 1";
const SELECT_NEWEST: &str = "SELECT id, time_ms FROM messages ORDER BY id DESC LIMIT 1";
const SELECT_WITH_KEY: &str = "SELECT serial, time_ms, total_bytes, checksum, key, event, user_id, except_socket, data,
    (SELECT app FROM streams WHERE streams.id = stream), (SELECT channel FROM streams WHERE streams.id = stream)
    FROM messages WHERE key IS NOT NULL AND time_ms > ?1 ORDER BY time_ms, id";
const SELECT_NEXT: &str = "SELECT serial, time_ms, total_bytes FROM messages
    WHERE stream = ?1 AND serial >= ?2 ORDER BY serial LIMIT 1";

/// The newest message of a stream's row. What is not readable of it is 0.
pub fn head(
    connection: &Connection,
    StreamRow { name, state, row, .. }: &StreamRow,
) -> Outcome<Option<Mark>> {
    let mut statement = connection.prepare_cached(SELECT_HEAD)?;
    let mut rows = statement.query([row])?;
    let Some(found) = rows.next()? else { return Ok(None) };
    let (id, serial): (i64, i64) = (found.get(0)?, found.get(1)?);
    let sql = format!("{SELECT_MESSAGE} WHERE id = ?1 AND +stream = ?2 AND +serial = ?3");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![id, row, serial])?;
    let message = rows.next()?.ok_or_else(|| Trouble::Damaged("the index is wrong".to_owned()))?;
    Ok(Some(match read_message(message, name, state, 0)? {
        Entry::Message(Message { stamp, .. }) => {
            Mark { serial: stamp.position.serial, time_ms: stamp.time_ms, total_bytes: stamp.total_bytes }
        }
        Entry::Unreadable { serial } => Mark { serial, time_ms: 0, total_bytes: 0 },
    }))
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
