//! The id of one connection, as clients and publishers write it (1.3).

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

/// Two 32-bit numbers other than zero, written `{high}.{low}` in decimal.
///
/// It is the nonce of channel signatures, so both halves come from a CSPRNG.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(u64);

impl SocketId {
    pub fn new(high: NonZeroU32, low: NonZeroU32) -> Self {
        Self(u64::from(high.get()) << 32 | u64::from(low.get()))
    }

    /// `None` when a half is zero: draw again.
    pub fn from_bits(bits: u64) -> Option<Self> {
        let [high, low] = [bits >> 32, bits & u64::from(u32::MAX)];
        (high != 0 && low != 0).then_some(Self(bits))
    }

    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// Reads an id that anybody may have made up.
    ///
    /// `Ok(None)` is a well-formed id that no connection of Tidewire ever carries, such as one of another
    /// server: publishers may exclude it, nobody is excluded by it.
    pub fn parse(text: &str) -> Result<Option<Self>, InvalidSocketId> {
        let (high, low) = text.split_once('.').ok_or(InvalidSocketId)?;
        if !is_digits(high) || !is_digits(low) {
            return Err(InvalidSocketId);
        }
        Ok(own_half(high).zip(own_half(low)).map(|(high, low)| Self::new(high, low)))
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A half as `Display` writes it. Leading zeros would give one connection several ids.
fn own_half(digits: &str) -> Option<NonZeroU32> {
    if digits.starts_with('0') { None } else { digits.parse().ok() }
}

impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 >> 32, self.0 & u64::from(u32::MAX))
    }
}

impl fmt::Debug for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Accepts only ids that a connection of Tidewire can carry.
impl FromStr for SocketId {
    type Err = InvalidSocketId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)?.ok_or(InvalidSocketId)
    }
}

/// A text that does not match `^\d+\.\d+$`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Invalid socket_id: it must be two numbers with a dot between them")]
pub struct InvalidSocketId;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_was_written() {
        for text in ["1.1", "1234.5678", "4294967295.4294967295"] {
            assert_eq!(SocketId::parse(text).unwrap().unwrap().to_string(), text);
        }
    }

    #[test]
    fn ids_of_other_servers_are_well_formed_but_nobodys() {
        for text in ["0.0", "0.1", "1.0", "01.1", "1.01", "4294967296.1", "131160.99999999999999999999"] {
            assert_eq!(SocketId::parse(text), Ok(None), "{text}");
            assert!(text.parse::<SocketId>().is_err());
        }
    }

    #[test]
    fn s160_anything_else_is_refused() {
        for text in ["", "abc", "1", "1.", ".1", "1.2.3", "-1.2", "+1.2", "1.2\n", " 1.2", "१.२", "1:2"] {
            assert_eq!(SocketId::parse(text), Err(InvalidSocketId), "{text}");
        }
    }

    #[test]
    fn a_half_of_zero_is_drawn_again() {
        assert_eq!(SocketId::from_bits(7), None);
        assert_eq!(SocketId::from_bits(7 << 32), None);
        assert_eq!(SocketId::from_bits(7 << 32 | 8).unwrap().to_string(), "7.8");
    }
}
