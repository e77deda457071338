//! Times and sizes as people write them: `"24h"`, `"4GiB"`.

use std::time::Duration;

use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serializer};

/// What a number with a unit measures. A bare number is in the base unit: seconds, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    Time,
    Size,
}

/// Unit and factor, the largest last.
type Units = [(&'static str, u64); 4];

const TIMES: Units = [("s", 1), ("m", 60), ("h", 60 * 60), ("d", 24 * 60 * 60)];
const SIZES: Units = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

impl Quantity {
    /// The quantity that a schema's `format` names.
    pub fn of_format(format: &str) -> Option<Self> {
        [Self::Time, Self::Size].into_iter().find(|quantity| quantity.format() == format)
    }

    fn format(self) -> &'static str {
        match self {
            Self::Time => "time-span",
            Self::Size => "byte-size",
        }
    }

    fn units(self) -> Units {
        match self {
            Self::Time => TIMES,
            Self::Size => SIZES,
        }
    }

    /// The number in the base unit.
    pub fn parse(self, text: &str) -> Option<u64> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let factor = match unit {
            "" => 1,
            unit => self.units().iter().find(|(name, _)| *name == unit)?.1,
        };
        number.parse::<u64>().ok()?.checked_mul(factor)
    }

    /// In the largest unit that is exact; a day stays `24h`.
    pub fn render(self, number: u64) -> String {
        if number == 0 {
            return "0".to_owned();
        }
        let fits = |(unit, factor): &(&str, u64)| {
            number.is_multiple_of(*factor) && (*unit != "d" || number >= 2 * factor)
        };
        let units = self.units();
        let (unit, factor) = units.iter().rev().copied().find(fits).unwrap_or(units[0]);
        format!("{}{unit}", number / factor)
    }

    /// What is said to somebody who wrote something else.
    pub fn wanted(self, low: u64, high: u64) -> String {
        let example = match self {
            Self::Time => r#"a time such as "90s", "15m", "24h" or "7d", or a number of seconds"#,
            Self::Size => r#"a size such as "512KiB", "1MiB" or "4GiB", or a number of bytes"#,
        };
        match (low, high) {
            (0, u64::MAX) => example.to_owned(),
            (low, u64::MAX) => format!("{example}, of at least {}", self.render(low)),
            (0, high) => format!("{example}, of at most {}", self.render(high)),
            (low, high) => format!("{example}, from {} to {}", self.render(low), self.render(high)),
        }
    }

    fn schema(self) -> Schema {
        let units = self.units().map(|(unit, _)| unit).join("|");
        json_schema!({
            "type": ["string", "integer"],
            "format": self.format(),
            "pattern": format!("^[0-9]+({units})?$"),
        })
    }

    fn read<'de, D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        self.number(Given::deserialize(deserializer)?)
    }

    fn number<E: serde::de::Error>(self, given: Given) -> Result<u64, E> {
        match given {
            Given::Number(number) => Ok(number),
            Given::Text(text) => self
                .parse(&text)
                .ok_or_else(|| E::custom(format!("expected {}, got {text:?}", self.wanted(0, u64::MAX)))),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Given {
    Number(u64),
    Text(String),
}

/// For `#[serde(with = "…")]` on a number of bytes.
pub mod size {
    use super::{Deserializer, Quantity, Serializer};

    pub fn serialize<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Quantity::Size.render(*bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        Quantity::Size.read(deserializer)
    }
}

/// For `#[serde(with = "…")]` on a [`Duration`](std::time::Duration) of whole seconds.
pub mod time {
    use super::{Deserializer, Duration, Quantity, Serializer};

    pub fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Quantity::Time.render(time.as_secs()))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Quantity::Time.read(deserializer).map(Duration::from_secs)
    }
}

/// For `#[serde(with = "…")]` on a time that need not be set.
pub mod optional_time {
    use super::{Deserialize, Deserializer, Duration, Given, Quantity, Serializer, time};

    pub fn serialize<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => time::serialize(time, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        let given = Option::<Given>::deserialize(deserializer)?;
        given.map(|given| Quantity::Time.number(given).map(Duration::from_secs)).transpose()
    }
}

pub fn time_schema(_: &mut SchemaGenerator) -> Schema {
    Quantity::Time.schema()
}

pub fn optional_time_schema(_: &mut SchemaGenerator) -> Schema {
    let mut schema = Quantity::Time.schema();
    schema.insert("type".to_owned(), serde_json::json!(["string", "integer", "null"]));
    schema
}

pub fn size_schema(_: &mut SchemaGenerator) -> Schema {
    Quantity::Size.schema()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_may_have_a_unit() {
        for (text, seconds) in
            [("0", 0), ("90", 90), ("90s", 90), ("15m", 900), ("24h", 86_400), ("7d", 604_800)]
        {
            assert_eq!(Quantity::Time.parse(text), Some(seconds), "{text}");
        }
        for (text, bytes) in
            [("512", 512), ("512B", 512), ("512KiB", 524_288), ("1MiB", 1_048_576), ("4GiB", 4_294_967_296)]
        {
            assert_eq!(Quantity::Size.parse(text), Some(bytes), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "h", "1.5h", "-1h", "1h30m", "24H", "1w", "7 d", "1 hour", "99999999999999999999s"] {
            assert_eq!(Quantity::Time.parse(text), None, "{text}");
        }
        // Of "4GB" and "4G" nobody can say which of two sizes is meant.
        for text in ["", "4GB", "4G", "1.5GiB", "-1", "0x10", "99999999999GiB"] {
            assert_eq!(Quantity::Size.parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for (seconds, text) in [(0, "0"), (25, "25s"), (90, "90s"), (900, "15m"), (7200, "2h")] {
            assert_eq!(Quantity::Time.render(seconds), text);
        }
        assert_eq!([86_400, 172_800, 604_801].map(|s| Quantity::Time.render(s)), ["24h", "2d", "604801s"]);
        for bytes in [0, 1, 1023, 1024, 1025, 1 << 20, 3 << 30, u64::MAX] {
            assert_eq!(Quantity::Size.parse(&Quantity::Size.render(bytes)), Some(bytes));
        }
    }
}
