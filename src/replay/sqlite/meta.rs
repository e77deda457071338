//! `meta.db`: what must be safe before anything else is, and is not part of any slice.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use super::directory;
use super::trouble::{Outcome, Trouble};

/// Of `meta.db` and of the slices.
pub const FORMAT: i64 = 1;

// PERSIST: a write reuses the space of the one before, so that it succeeds on a full disk.
const SETTINGS: &str = "PRAGMA journal_mode = PERSIST; PRAGMA synchronous = FULL;";
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    -- Tells this store's positions from those of others.
    nonce INTEGER NOT NULL,
    -- Grows whenever the end of the log may have been lost.
    generation INTEGER NOT NULL,
    -- The largest head of any stream that was forgotten.
    base INTEGER NOT NULL,
    -- 1 while streams were skipped that no slice says so of.
    skipping INTEGER NOT NULL,
    -- While closed: the newest slice, and its newest message. NULL while in use.
    closed_slice INTEGER,
    closed_message INTEGER,
    closed_slices INTEGER,
    -- CRC-32 of the other columns.
    checksum INTEGER NOT NULL
) STRICT;
";

/// The one row of `meta.db`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub nonce: u64,
    pub generation: u32,
    pub base: u64,
    pub is_skipping: bool,
    pub closed: Option<Closed>,
}

/// Where the log ended when the store was closed; zeros when it was empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    pub slice_ms: u64,
    pub message: i64,
    /// How many there were.
    pub slices: u32,
}

impl State {
    fn checksum(&self) -> u32 {
        let Self { nonce, generation, base, is_skipping, closed } = *self;
        let Closed { slice_ms, message, slices } = closed.unwrap_or_default();
        let numbers = [
            nonce,
            u64::from(generation),
            base,
            u64::from(is_skipping),
            u64::from(closed.is_some()),
            slice_ms,
            message.cast_unsigned(),
            u64::from(slices),
        ];
        let mut hasher = crc32fast::Hasher::new();
        numbers.iter().for_each(|number| hasher.update(&number.to_le_bytes()));
        hasher.finalize()
    }
}

#[derive(Debug)]
pub struct Meta(Connection);

impl Meta {
    pub fn open(directory: &Path) -> Outcome<Self> {
        let connection = Connection::open(directory::meta_path(directory))?;
        connection.execute_batch(SETTINGS)?;
        let format: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        match format {
            0 => connection.execute_batch(&format!("{SCHEMA} PRAGMA user_version = {FORMAT};"))?,
            FORMAT => {}
            newer => {
                return Err(Trouble::Other(format!(
                    "{} has format {newer}, but this version knows {FORMAT}: it was made by another version",
                    directory.display()
                )));
            }
        }
        Ok(Self(connection))
    }

    /// `None` when the store is new.
    pub fn load(&self) -> Outcome<Option<State>> {
        let sql = "SELECT nonce, generation, base, skipping, closed_slice, closed_message, closed_slices,
            checksum FROM meta";
        let state = self.0.query_row(sql, [], |row| {
            let closed = match (row.get::<_, Option<i64>>(4)?, row.get(5)?, row.get(6)?) {
                (Some(slice_ms), Some(message), Some(slices)) => {
                    Some(Closed { slice_ms: slice_ms.cast_unsigned(), message, slices })
                }
                _ => None,
            };
            let state = State {
                nonce: row.get::<_, i64>(0)?.cast_unsigned(),
                generation: row.get(1)?,
                base: row.get::<_, i64>(2)?.cast_unsigned(),
                is_skipping: row.get(3)?,
                closed,
            };
            Ok((state, row.get::<_, u32>(7)?))
        });
        match state.optional()? {
            Some((state, checksum)) if checksum == state.checksum() => Ok(Some(state)),
            Some(_) => Err(Trouble::Damaged("its checksum is wrong".to_owned())),
            None => Ok(None),
        }
    }

    /// Safe when it returns.
    pub fn save(&self, state: &State) -> Outcome<()> {
        let sql = "INSERT OR REPLACE INTO meta
            (id, nonce, generation, base, skipping, closed_slice, closed_message, closed_slices, checksum)
            VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let State { nonce, generation, base, is_skipping, closed } = state;
        let closed_slice = closed.map(|closed| closed.slice_ms.cast_signed());
        let closed_message = closed.map(|closed| closed.message);
        self.0.execute(
            sql,
            params![
                nonce.cast_signed(),
                generation,
                base.cast_signed(),
                is_skipping,
                closed_slice,
                closed_message,
                closed.map(|closed| closed.slices),
                state.checksum()
            ],
        )?;
        Ok(())
    }
}
