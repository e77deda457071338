//! The `data` of an event: a JSON string token that is passed on without being decoded.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::json;

/// A JSON string token with its quotes.
///
/// Publishers send event data as a JSON string and subscribers receive it as one, so the token is spliced into
/// the outgoing frame byte for byte: its cost does not depend on what is inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataToken<'a>(Cow<'a, str>);

impl DataToken<'static> {
    /// The token of `{}`, for events that say nothing.
    pub const EMPTY_OBJECT: Self = Self(Cow::Borrowed(r#""{}""#));

    /// The token of a plain text.
    pub fn from_text(text: &str) -> Self {
        let mut token = String::with_capacity(text.len() + 2);
        json::push_string(&mut token, text);
        Self(Cow::Owned(token))
    }
}

impl<'a> DataToken<'a> {
    /// A token that comes back from the log, where [`as_json`](Self::as_json) went. It is not read again; what
    /// cannot be one is quoted, or the frame around it would be no JSON.
    pub fn from_stored(token: &'a str) -> Self {
        let is_quoted = token.len() >= 2 && token.starts_with('"') && token.ends_with('"');
        if is_quoted { Self(Cow::Borrowed(token)) } else { DataToken::from_text(token) }
    }

    /// `None` when the value is no JSON string.
    pub fn from_string_token(raw: &'a RawValue) -> Option<Self> {
        json::is_string(raw).then(|| Self(Cow::Borrowed(raw.get())))
    }

    /// A JSON string as it stands, any other value as the string that holds its JSON text (2.8).
    pub fn from_json_value(raw: &'a RawValue) -> Self {
        Self::from_string_token(raw).unwrap_or_else(|| DataToken::from_text(raw.get()))
    }

    pub fn as_json(&self) -> &str {
        &self.0
    }

    pub fn into_owned(self) -> DataToken<'static> {
        DataToken(Cow::Owned(self.0.into_owned()))
    }

    /// Length of the text in UTF-8 bytes: what the event limit counts (2.6).
    pub fn decoded_len(&self) -> usize {
        measure(self.inner()).0
    }

    /// False when the token holds half of a surrogate pair, which no UTF-8 text can hold.
    pub fn is_valid_text(&self) -> bool {
        measure(self.inner()).1
    }

    /// The text of the token; `None` when it is not [valid](Self::is_valid_text).
    pub fn decode(&self) -> Option<Cow<'_, str>> {
        json::string_token_text(&self.0)
    }

    /// What stands between the quotes.
    fn inner(&self) -> &str {
        &self.0[1..self.0.len() - 1]
    }
}

/// Decoded length of the inside of a string token, with whether its surrogates are paired. A lone one counts
/// three bytes.
fn measure(inner: &str) -> (usize, bool) {
    let bytes = inner.as_bytes();
    let Some(first_escape) = bytes.iter().position(|byte| *byte == b'\\') else {
        return (bytes.len(), true);
    };
    let (mut length, mut at, mut paired) = (first_escape, first_escape, true);
    while at < bytes.len() {
        if bytes[at] != b'\\' {
            length += 1;
            at += 1;
            continue;
        }
        let Some(unit) = utf16_escape(bytes, at) else {
            length += 1;
            at += 2;
            continue;
        };
        at += 6;
        length += match unit {
            0..0x80 => 1,
            0x80..0x800 => 2,
            0xd800..0xdc00 if matches!(utf16_escape(bytes, at), Some(0xdc00..0xe000)) => {
                at += 6;
                4
            }
            0xd800..0xe000 => {
                paired = false;
                3
            }
            _ => 3,
        };
    }
    (length, paired)
}

/// The code unit of a `\uXXXX` at this place.
fn utf16_escape(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |unit: u16, digit| {
        let value = char::from(*digit).to_digit(16)?;
        Some(unit << 4 | u16::try_from(value).ok()?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).unwrap()
    }

    fn token(json: &str) -> DataToken<'_> {
        DataToken::from_json_value(raw(json))
    }

    #[test]
    fn a_string_token_is_kept_byte_for_byte() {
        for json in [r#""""#, r#""hello""#, r#""<\/a>""#, r#""{\"id\":7}""#, "\"\u{2028}é\"", r#""\u0000""#]
        {
            assert_eq!(token(json).as_json(), json);
            assert!(matches!(token(json).0, Cow::Borrowed(_)));
        }
    }

    #[test]
    fn s156_other_values_become_the_text_of_their_json() {
        assert_eq!(token(r#"{"a": [1, "x"]}"#).as_json(), r#""{\"a\": [1, \"x\"]}""#);
        assert_eq!(token("12").as_json(), r#""12""#);
        assert_eq!(token("null").as_json(), r#""null""#);
        assert!(DataToken::from_string_token(raw("12")).is_none());
    }

    #[test]
    fn a_stored_token_is_the_one_that_went_into_the_log() {
        for json in [r#""""#, r#""<\/a>\u0041""#] {
            let stored = token(json).as_json().to_owned();
            assert_eq!(DataToken::from_stored(&stored), token(json));
        }
        // Nothing writes these; the frame around them is JSON all the same.
        for (stored, json) in [("", r#""""#), ("\"", r#""\"""#), ("{}", r#""{}""#), ("\"x", r#""\"x""#)] {
            assert_eq!(DataToken::from_stored(stored).as_json(), json);
        }
    }

    #[test]
    fn escapes_count_as_what_they_stand_for() {
        for (json, length) in [
            (r#""""#, 0),
            (r#""abc""#, 3),
            (r#""\n\"\\\/""#, 4),
            (r#""a\u0041\u00e9\u20ac\ud83d\ude00b""#, 1 + 1 + 2 + 3 + 4 + 1),
            ("\"é\\n\"", 3),
            (r#""\\u0041""#, 6),
        ] {
            assert_eq!(token(json).decoded_len(), length, "{json}");
            assert_eq!(token(json).decode().unwrap().len(), length, "{json}");
            assert!(token(json).is_valid_text());
        }
    }

    #[test]
    fn half_a_surrogate_pair_is_no_text() {
        for json in [r#""\ud83d""#, r#""\ude00\ud83d""#, r#""\ud83dx""#, r#""\ud83d\n""#, r#""\ud83d\u0041""#]
        {
            assert!(!token(json).is_valid_text(), "{json}");
            assert_eq!(token(json).decode(), None);
        }
    }
}
