//! The few JSON tools that serde's derive does not offer: borrowed members, tolerant of duplicates.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The named members of one JSON object, as raw JSON and in the order of `names`.
///
/// Unknown members are skipped and the last of several duplicates wins: peers add and repeat members, and
/// serde's derive would refuse the whole message for that. Nothing is allocated.
pub(crate) fn members<'a, const N: usize>(
    json: &'a str,
    names: [&str; N],
) -> Result<[Option<&'a RawValue>; N], serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let found = deserializer.deserialize_map(MembersVisitor(&names))?;
    deserializer.end()?;
    Ok(found)
}

/// As [`members`], with a JSON `null` counted as absent.
pub(crate) fn present_members<'a, const N: usize>(
    json: &'a str,
    names: [&str; N],
) -> Result<[Option<&'a RawValue>; N], serde_json::Error> {
    members(json, names).map(|found| found.map(|member| member.filter(|raw| raw.get() != "null")))
}

/// The text of a JSON string; `None` for every other JSON value and for lone surrogates.
pub(crate) fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    string_token_text(raw.get())
}

/// The text behind a JSON string token, borrowed where it holds no escape.
///
/// `token` comes out of serde_json, so it is known to be well-formed JSON.
pub(crate) fn string_token_text(token: &str) -> Option<Cow<'_, str>> {
    let inner = token.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(token).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

pub(crate) fn is_string(raw: &RawValue) -> bool {
    raw.get().starts_with('"')
}

pub(crate) fn is_object(raw: &RawValue) -> bool {
    raw.get().starts_with('{')
}

/// The text of a JSON number, as it was written.
pub(crate) fn number(raw: &RawValue) -> Option<&str> {
    raw.get().starts_with(|first: char| first == '-' || first.is_ascii_digit()).then(|| raw.get())
}

/// The elements of a JSON array: at most `keep` of them as raw JSON, with the number there are.
pub(crate) fn elements(raw: &RawValue, keep: usize) -> Result<(Vec<&RawValue>, usize), serde_json::Error> {
    serde_json::Deserializer::from_str(raw.get()).deserialize_seq(ElementsVisitor { keep })
}

/// Appends `text` as a JSON string token.
pub(crate) fn push_string(out: &mut String, text: &str) {
    out.push('"');
    let mut clean_from = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= b' ' && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(&text[clean_from..at]);
        clean_from = at + 1;
        push_escape(out, byte);
    }
    out.push_str(&text[clean_from..]);
    out.push('"');
}

fn push_escape(out: &mut String, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' => out.push_str("\\\""),
        b'\\' => out.push_str("\\\\"),
        b'\n' => out.push_str("\\n"),
        b'\r' => out.push_str("\\r"),
        b'\t' => out.push_str("\\t"),
        0x08 => out.push_str("\\b"),
        0x0c => out.push_str("\\f"),
        control => {
            out.push_str("\\u00");
            out.push(HEX[usize::from(control >> 4)].into());
            out.push(HEX[usize::from(control & 0xf)].into());
        }
    }
}

struct MembersVisitor<'n, const N: usize>(&'n [&'n str; N]);

impl<'de, const N: usize> Visitor<'de> for MembersVisitor<'_, N> {
    type Value = [Option<&'de RawValue>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(position) = map.next_key_seed(PositionOf(self.0))? {
            match position {
                Some(index) => found[index] = Some(map.next_value()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

/// Reads a key as its position among the wanted names.
struct PositionOf<'n>(&'n [&'n str]);

impl<'de> DeserializeSeed<'de> for PositionOf<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for PositionOf<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|name| *name == key))
    }
}

struct ElementsVisitor {
    keep: usize,
}

impl<'de> Visitor<'de> for ElementsVisitor {
    type Value = (Vec<&'de RawValue>, usize);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut kept = Vec::new();
        while kept.len() < self.keep {
            let Some(element) = seq.next_element()? else { break };
            kept.push(element);
        }
        let mut count = kept.len();
        // A finished array may be asked again: serde_json answers `None` once more.
        while seq.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok((kept, count))
    }
}
