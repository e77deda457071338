//! Histories: what everybody did and saw, one JSON object a line.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// What a line tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// A publisher is done with a message: `ok` (stored at `epoch:serial`), `fail` (refused), `info` (nobody knows).
    #[default]
    Publish,
    /// An observer is subscribed: `live`, `recovered` or `gap`.
    SubOk,
    /// An observer got a message.
    Recv,
    /// Everything up to `serial` was replayed.
    Done,
    /// The message at `serial` is unreadable.
    Skip,
    /// A connected observer lost its place and goes on after `serial`.
    Resync,
    /// A subscription that asked for `on_gap: reject` was refused.
    Refused,
    /// An observer's connection ended.
    Close,
    /// The reference log, read at the end.
    Log,
    /// What was before `serial` was purged; written before it was asked for.
    Purge,
    /// What of a channel the reference log covers: from `oldest` to `serial`.
    Bounds,
    /// Memory of the server and size of its store.
    Sample,
    /// An observer asks to be a member of a presence channel, on `node`.
    Ask,
    /// Whom it is told to be there already.
    Members,
    MemberAdded,
    MemberRemoved,
    /// An observer unsubscribes.
    Leave,
    /// A fault of a node, or without one of Redis, from `t0` to `t`.
    Outage,
    /// Nothing happens any more.
    Quiet,
    /// The users of a channel, as the API of `node` tells them.
    Census,
}

/// One line. Texts are of our own making and need no escapes.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Record<'a> {
    /// Microseconds since the run began.
    pub t: u64,
    /// Of a publisher: when the first attempt began.
    #[serde(skip_serializing_if = "is_zero")]
    pub t0: u64,
    /// Who.
    pub p: &'a str,
    pub f: Act,
    #[serde(rename = "type", skip_serializing_if = "str::is_empty")]
    pub kind: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub ch: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub epoch: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<u64>,
    /// The message's own unique name, in its payload; also its idempotency key.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub mid: &'a str,
    /// The `id` of a received or stored message, where it isn't its `mid`.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev: Option<u64>,
    /// The position that an observer asked to go on from.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub from: &'a str,
    /// Messages that `recovered` announces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest: Option<u64>,
    /// Of an observer: its socket. Of a publisher: the socket that was left out.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub sid: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub not_from: &'a str,
    /// HTTP status of a publish, close code of a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<u8>,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub user: &'a str,
    /// With blanks in between.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub users: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    pub rss: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub disk: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A file of records, shared by those who write it.
pub struct History {
    file: Mutex<BufWriter<File>>,
    began: Instant,
}

impl History {
    pub fn create(path: &Path, began: Instant) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self { file: Mutex::new(BufWriter::with_capacity(1 << 18, file)), began })
    }

    /// Microseconds since the run began.
    pub fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    pub fn note(&self, record: &Record<'_>) {
        let mut lines = Vec::with_capacity(256);
        add_line(&mut lines, &Record { t: self.now(), ..*record });
        self.write(&lines);
    }

    /// Whole lines, as [`add_line`] makes them.
    pub fn write(&self, lines: &[u8]) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // A history that cannot be written fails the run where it is read: its last line is cut.
        let _ = file.write_all(lines);
    }

    pub fn flush(&self) -> Result<()> {
        Ok(self.file.lock().unwrap_or_else(PoisonError::into_inner).flush()?)
    }
}

pub fn add_line(lines: &mut Vec<u8>, record: &Record<'_>) {
    if serde_json::to_writer(&mut *lines, record).is_ok() {
        lines.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let record = Record { t: 7, p: "o1", f: Act::Recv, ch: "a", serial: Some(3), ..Record::default() };
        let mut line = Vec::new();
        add_line(&mut line, &record);
        assert_eq!(
            String::from_utf8_lossy(&line),
            "{\"t\":7,\"p\":\"o1\",\"f\":\"recv\",\"ch\":\"a\",\"serial\":3}\n"
        );
        let read: Record<'_> = serde_json::from_slice(&line).unwrap();
        assert_eq!((read.t, read.p, read.f, read.serial), (7, "o1", Act::Recv, Some(3)));
    }
}
