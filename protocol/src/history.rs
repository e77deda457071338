//! What `GET …/channels/{channel}/history` asks for, and the cursors that lead from page to page.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;

use crate::duration;
use crate::http_api::{ApiError, shortened};
use crate::http_auth::ApiQuery;
use crate::position::{Epoch, InvalidPosition, Position};

/// Messages of a page that asks for no other number.
pub const DEFAULT_HISTORY_LIMIT: usize = 100;
/// Most messages of a page.
pub const MAX_HISTORY_LIMIT: usize = 1000;

/// Which message comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// The newest.
    #[default]
    Backward,
    /// The oldest.
    Forward,
}

impl Direction {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Backward => "backward",
            Self::Forward => "forward",
        }
    }

    fn reads_from_to(self, from: u64, to: u64) -> bool {
        match self {
            Self::Backward => from >= to,
            Self::Forward => from <= to,
        }
    }
}

/// One page of a channel's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryQuery {
    /// That of the cursor where there is one.
    pub direction: Direction,
    /// 1 to [`MAX_HISTORY_LIMIT`].
    pub limit: usize,
    /// Where to begin, in the direction.
    pub from: Option<Position>,
    /// Where to end, in the direction.
    pub to: Option<Position>,
    /// Nothing older than so many milliseconds.
    pub since_ms: Option<u64>,
    /// Where another page ended. It excludes `from`, `to` and `since`, which it knows.
    pub cursor: Option<HistoryCursor>,
}

impl Default for HistoryQuery {
    fn default() -> Self {
        Self {
            direction: Direction::default(),
            limit: DEFAULT_HISTORY_LIMIT,
            from: None,
            to: None,
            since_ms: None,
            cursor: None,
        }
    }
}

impl HistoryQuery {
    /// Reads the parameters; an empty one counts as absent.
    pub fn parse(query: &ApiQuery<'_>) -> Result<Self, ApiError> {
        let direction = filled(query, "direction").map(direction).transpose()?;
        let parsed = Self {
            direction: direction.unwrap_or_default(),
            limit: filled(query, "limit").map_or(Ok(DEFAULT_HISTORY_LIMIT), limit)?,
            from: position_parameter(query, "from")?,
            to: position_parameter(query, "to")?,
            since_ms: filled(query, "since").map(since_ms).transpose()?,
            cursor: filled(query, "cursor").map(cursor).transpose()?,
        };
        match parsed.cursor {
            Some(cursor) => parsed.follow(cursor, direction),
            None => parsed.in_order(),
        }
    }

    /// A cursor says all but the limit. The direction may be repeated, as loops over pages do.
    fn follow(self, cursor: HistoryCursor, direction: Option<Direction>) -> Result<Self, ApiError> {
        let given =
            [("from", self.from.is_some()), ("to", self.to.is_some()), ("since", self.since_ms.is_some())];
        if let Some((name, _)) = given.into_iter().find(|(_, is_given)| *is_given) {
            return Err(ApiError::bad_request(format!(
                "Invalid parameter: {name} beside cursor: a cursor keeps the bounds of its first page"
            )));
        }
        if direction.is_some_and(|direction| direction != cursor.direction) {
            return Err(ApiError::bad_request(format!(
                "Invalid parameter: direction must be {}, that of the cursor, or be left out",
                cursor.direction.as_str()
            )));
        }
        Ok(Self { direction: cursor.direction, ..self })
    }

    fn in_order(self) -> Result<Self, ApiError> {
        // Positions of different logs have no order: one of them is gone, and the log knows which.
        let pair = self.from.zip(self.to).filter(|(from, to)| from.epoch.nonce == to.epoch.nonce);
        if pair.is_none_or(|(from, to)| self.direction.reads_from_to(from.serial, to.serial)) {
            return Ok(self);
        }
        Err(ApiError::bad_request(match self.direction {
            Direction::Backward => "Invalid parameter: to must be before from when direction is backward",
            Direction::Forward => "Invalid parameter: to must be after from when direction is forward",
        }))
    }
}

/// The position in a parameter, such as `before` of a purge; an empty one counts as absent.
pub fn position_parameter(query: &ApiQuery<'_>, name: &str) -> Result<Option<Position>, ApiError> {
    let Some(text) = filled(query, name) else { return Ok(None) };
    text.parse().map(Some).map_err(|error: InvalidPosition| {
        ApiError::bad_request(format!("Invalid parameter: {name} '{}' is {error}", shortened(text)))
    })
}

fn filled<'q>(query: &'q ApiQuery<'_>, name: &str) -> Option<&'q str> {
    query.get(name).filter(|value| !value.is_empty())
}

fn direction(text: &str) -> Result<Direction, ApiError> {
    match text {
        "backward" => Ok(Direction::Backward),
        "forward" => Ok(Direction::Forward),
        other => Err(ApiError::bad_request(format!(
            "Invalid parameter: direction '{}' must be backward or forward",
            shortened(other)
        ))),
    }
}

fn limit(text: &str) -> Result<usize, ApiError> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let limit = text.parse().ok().filter(|limit| is_number && (1..=MAX_HISTORY_LIMIT).contains(limit));
    limit.ok_or_else(|| {
        ApiError::bad_request(format!(
            "Invalid parameter: limit '{}' must be a number from 1 to {MAX_HISTORY_LIMIT}",
            shortened(text)
        ))
    })
}

fn since_ms(text: &str) -> Result<u64, ApiError> {
    match duration::parse_seconds(text) {
        Some(seconds @ 1..) => Ok(seconds * 1000),
        _ => Err(ApiError::bad_request(format!(
            "Invalid parameter: since '{}' must be a duration such as 90s, 15m, 2h or 1d, or a number of seconds",
            shortened(text)
        ))),
    }
}

fn cursor(text: &str) -> Result<HistoryCursor, ApiError> {
    text.parse().map_err(|error: InvalidCursor| {
        ApiError::bad_request(format!("Invalid parameter: cursor '{}' is {error}", shortened(text)))
    })
}

/// Where a page ended, for the next one. Written in base64url, and opaque to whoever passes it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryCursor {
    pub direction: Direction,
    /// Where to begin.
    pub serial: u64,
    /// Where to end; `None` is the end of the log.
    pub bound: Option<u64>,
    /// In which `serial` stood when the page was read.
    pub epoch: Epoch,
}

impl HistoryCursor {
    /// First byte: what follows is read as this version writes it.
    const VERSION: u8 = 1;
    const FORWARD: u8 = 1;
    const BOUNDED: u8 = 2;
    /// Version, flags, serial, bound, nonce and generation.
    const BYTES: usize = 2 + 8 + 8 + 8 + 4;

    pub fn position(self) -> Position {
        Position { epoch: self.epoch, serial: self.serial }
    }

    fn to_bytes(self) -> [u8; Self::BYTES] {
        let forward = if self.direction == Direction::Forward { Self::FORWARD } else { 0 };
        let bounded = if self.bound.is_some() { Self::BOUNDED } else { 0 };
        let mut bytes = [0; Self::BYTES];
        bytes[..2].copy_from_slice(&[Self::VERSION, forward | bounded]);
        bytes[2..10].copy_from_slice(&self.serial.to_be_bytes());
        bytes[10..18].copy_from_slice(&self.bound.unwrap_or_default().to_be_bytes());
        bytes[18..26].copy_from_slice(&self.epoch.nonce.to_be_bytes());
        bytes[26..].copy_from_slice(&self.epoch.generation.to_be_bytes());
        bytes
    }

    /// Only what `to_bytes` writes: one cursor has one text.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&[Self::VERSION, flags], rest) = bytes.split_first_chunk()? else { return None };
        let (serial, rest) = rest.split_first_chunk()?;
        let (bound, rest) = rest.split_first_chunk()?;
        let (nonce, generation) = rest.split_first_chunk()?;
        let direction = match flags & Self::FORWARD {
            0 => Direction::Backward,
            _ => Direction::Forward,
        };
        let bound = match (flags & Self::BOUNDED, u64::from_be_bytes(*bound)) {
            (0, 0) => None,
            (0, _) => return None,
            (_, bound) => Some(bound),
        };
        let generation = u32::from_be_bytes(generation.try_into().ok()?);
        let epoch = Epoch { nonce: u64::from_be_bytes(*nonce), generation };
        let is_known = flags & !(Self::FORWARD | Self::BOUNDED) == 0;
        is_known.then_some(Self { direction, serial: u64::from_be_bytes(*serial), bound, epoch })
    }
}

impl fmt::Display for HistoryCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64URL_NOPAD.encode(&self.to_bytes()))
    }
}

impl FromStr for HistoryCursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| InvalidCursor)?;
        Self::from_bytes(&bytes).ok_or(InvalidCursor)
    }
}

/// A text that no cursor is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor: expected next or prev of another page, as it was sent")]
pub struct InvalidCursor;

#[cfg(test)]
mod tests;
