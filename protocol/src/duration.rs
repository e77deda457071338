//! Durations as people write them: `90s`, `15m`, `2h`, `1d` or plain seconds.

/// Whole seconds; `None` for any other text, and for what milliseconds cannot count.
pub(crate) fn parse_seconds(text: &str) -> Option<u64> {
    let (number, unit_seconds) = match text.as_bytes().last()? {
        b's' => (&text[..text.len() - 1], 1),
        b'm' => (&text[..text.len() - 1], 60),
        b'h' => (&text[..text.len() - 1], 60 * 60),
        b'd' => (&text[..text.len() - 1], 24 * 60 * 60),
        _ => (text, 1),
    };
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    let seconds: u64 = number.parse().ok().filter(|_| is_number)?;
    seconds.checked_mul(unit_seconds).filter(|seconds| *seconds <= u64::MAX / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_multiplies() {
        for (text, seconds) in
            [("0", 0), ("300", 300), ("90s", 90), ("15m", 900), ("2h", 7200), ("1d", 86_400), ("007s", 7)]
        {
            assert_eq!(parse_seconds(text), Some(seconds), "{text}");
        }
    }

    #[test]
    fn other_texts_are_no_durations() {
        for text in ["", "m", "-1", "+1", "1.5h", "1 h", "1w", "1ms", "1H", "é", "1é", "0x1", "１m"] {
            assert_eq!(parse_seconds(text), None, "{text}");
        }
    }

    #[test]
    fn what_overflows_is_refused() {
        let longest = u64::MAX / 1000;
        assert_eq!(parse_seconds(&longest.to_string()), Some(longest));
        for text in [(longest + 1).to_string(), format!("{longest}m"), "18446744073709551616".to_owned()] {
            assert_eq!(parse_seconds(&text), None, "{text}");
        }
    }
}
