//! Rows of `streams`: where a stream stood before its messages of a slice.

use rusqlite::{Connection, Row, params};
use tidewire_protocol::replay::Generation;

use super::index::Segment;
use super::trouble::{Outcome, Trouble};
use crate::replay::store::StreamName;
use crate::replay::streams::StreamState;

const INSERT: &str = "INSERT INTO streams
    (app, channel, previous, base, head, total_bytes, time_ms, floor, floor_bytes, floor_ms, generations, checksum)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
const UPDATE: &str = "UPDATE streams SET floor = ?2, floor_bytes = ?3, floor_ms = ?4, generations = ?5,
    checksum = ?6 WHERE id = ?1";
const SELECT: &str =
    "SELECT app, channel, id, previous, base, head, total_bytes, time_ms, floor, floor_bytes,
    floor_ms, generations, checksum FROM streams WHERE id > ?1 ORDER BY id LIMIT ?2";

/// A row as it is read.
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

    fn read(row: &Row<'_>) -> Outcome<Self> {
        let number = |index: usize| row.get::<_, i64>(index).map(i64::cast_unsigned);
        let name = StreamName { app: row.get(0)?, channel: row.get(1)? };
        let generations: String = row.get(11)?;
        let parsed = parse_generations(&generations).unwrap_or_default();
        let mut state = StreamState::new(number(4)?, number(7)?).with_generations(parsed);
        state.head = number(5)?;
        state.total_bytes = number(6)?;
        state.floor = number(8)?;
        state.floor_bytes = number(9)?;
        state.floor_ms = number(10)?;
        let before = (state.head, state.total_bytes, state.time_ms);
        if row.get::<_, u32>(12)? != checksum(&name, before, &state) {
            return Err(Trouble::Damaged("the checksum of a stream is wrong".to_owned()));
        }
        Ok(Self { name, state, previous_ms: number(3)?, row: row.get(2)? })
    }
}

/// Writes a stream's row as it is before its next message. Returns its id.
pub fn insert(
    connection: &Connection,
    name: &StreamName,
    before: &Segment,
    state: &StreamState,
    previous_ms: u64,
) -> Outcome<u32> {
    connection.prepare_cached(INSERT)?.execute(params![
        &*name.app,
        &*name.channel,
        previous_ms.cast_signed(),
        state.base.cast_signed(),
        (before.first - 1).cast_signed(),
        before.total_bytes.cast_signed(),
        before.time_ms.cast_signed(),
        state.floor.cast_signed(),
        state.floor_bytes.cast_signed(),
        state.floor_ms.cast_signed(),
        generations_text(state.generations()),
        checksum_before(name, before, state),
    ])?;
    u32::try_from(connection.last_insert_rowid()).map_err(|_| Trouble::Other("too many streams".to_owned()))
}

/// Writes what changes while a row is the newest of its stream.
pub fn update(connection: &Connection, name: &StreamName, row: &Segment, state: &StreamState) -> Outcome<()> {
    connection.prepare_cached(UPDATE)?.execute(params![
        row.row,
        state.floor.cast_signed(),
        state.floor_bytes.cast_signed(),
        state.floor_ms.cast_signed(),
        generations_text(state.generations()),
        checksum_before(name, row, state),
    ])?;
    Ok(())
}

/// At most `limit` rows, those that follow the row `after`.
pub fn list(connection: &Connection, after: u32, limit: u32) -> Outcome<Vec<StreamRow>> {
    let mut statement = connection.prepare_cached(SELECT)?;
    let mut rows = statement.query([after, limit])?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        list.push(StreamRow::read(row)?);
    }
    Ok(list)
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

fn checksum_before(name: &StreamName, before: &Segment, state: &StreamState) -> u32 {
    checksum(name, (before.first - 1, before.total_bytes, before.time_ms), state)
}

fn checksum(name: &StreamName, (head, total_bytes, time_ms): (u64, u64, u64), state: &StreamState) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for text in [&name.app, &name.channel] {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    let StreamState { base, floor, floor_bytes, floor_ms, .. } = *state;
    for number in [base, head, total_bytes, time_ms, floor, floor_bytes, floor_ms] {
        hasher.update(&number.to_le_bytes());
    }
    for Generation { number, start } in state.generations() {
        hasher.update(&number.to_le_bytes());
        hasher.update(&start.to_le_bytes());
    }
    hasher.finalize()
}
