//! Where in a channel's log a client is: `epoch:serial`, as in `k3Jd9Q.2:1842`.

use std::fmt;
use std::str::FromStr;

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Which log the serials count in: a nonce drawn when the log was made, and a generation that grows whenever the
/// store may have lost the end of it. Written `{nonce in base 62}.{generation}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch {
    pub nonce: u64,
    pub generation: u32,
}

/// A client has every message of the log up to and with `serial`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    pub epoch: Epoch,
    pub serial: u64,
}

/// A text that no position is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a position: expected epoch:serial, such as k3Jd9Q.2:1842")]
pub struct InvalidPosition;

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; 11];
        let mut start = digits.len();
        let mut rest = self.nonce;
        while rest > 0 || start == digits.len() {
            start -= 1;
            digits[start] = DIGITS[(rest % 62) as usize];
            rest /= 62;
        }
        let nonce = std::str::from_utf8(&digits[start..]).unwrap_or_default();
        write!(f, "{nonce}.{}", self.generation)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.serial)
    }
}

impl FromStr for Epoch {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let (nonce, generation) = text.split_once('.').ok_or(InvalidPosition)?;
        Ok(Self { nonce: parse_nonce(nonce)?, generation: parse_decimal(generation)? })
    }
}

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let (epoch, serial) = text.split_once(':').ok_or(InvalidPosition)?;
        Ok(Self { epoch: epoch.parse()?, serial: parse_decimal(serial)? })
    }
}

fn parse_nonce(text: &str) -> Result<u64, InvalidPosition> {
    if text.is_empty() || (text.len() > 1 && text.starts_with('0')) {
        return Err(InvalidPosition);
    }
    text.bytes().try_fold(0u64, |nonce, byte| {
        let digit = DIGITS.binary_search(&byte).map_err(|_| InvalidPosition)?;
        nonce.checked_mul(62).and_then(|nonce| nonce.checked_add(digit as u64)).ok_or(InvalidPosition)
    })
}

/// Only as `Display` writes it: two texts of one position would compare as different.
fn parse_decimal<N: FromStr>(text: &str) -> Result<N, InvalidPosition> {
    let is_canonical =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_canonical).ok_or(InvalidPosition)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_is_written() {
        for nonce in [0, 1, 61, 62, 3844, u64::from(u32::MAX), u64::MAX] {
            for (generation, serial) in [(0, 0), (2, 1842), (u32::MAX, u64::MAX)] {
                let position = Position { epoch: Epoch { nonce, generation }, serial };
                assert_eq!(position.to_string().parse(), Ok(position));
            }
        }
        assert_eq!(Position { epoch: Epoch { nonce: 62, generation: 2 }, serial: 7 }.to_string(), "10.2:7");
    }

    #[test]
    fn other_texts_are_no_positions() {
        for text in [
            "",
            ":",
            "a",
            "a:1",
            "a.1",
            ".1:1",
            "a.:1",
            "a.1:",
            "a.1:x",
            "a.1:-1",
            "a.1:+1",
            "a.01:1",
            "a.1:01",
            "0a.1:1",
            "a.1:1:1",
            "a b.1:1",
            "a.1:18446744073709551616",
            "a.4294967296:1",
            "zzzzzzzzzzzz.1:1",
            "é.1:1",
        ] {
            assert_eq!(text.parse::<Position>(), Err(InvalidPosition), "{text}");
        }
    }
}
