//! The event data the bench publishes: a sequence number, a time stamp and padding, always the same length.

use std::borrow::Cow;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;

/// Event name of everything the bench sends.
pub const EVENT: &str = "bench";
pub const CLIENT_EVENT: &str = "client-bench";

/// Fixed widths, so that every frame of a run has the same length as the one the bare loop repeats.
pub fn data(sequence: u64, at: Duration, bytes: usize) -> String {
    let mut data = format!(r#"{{"seq":"{sequence:012}","at":"{:018}","pad":""#, at.as_nanos());
    let padding = bytes.saturating_sub(data.len() + 2);
    data.extend(std::iter::repeat_n('x', padding));
    data.push_str("\"}");
    data
}

/// What an event frame carried.
#[derive(Debug, PartialEq, Eq)]
pub struct Stamp {
    pub sequence: u64,
    /// Monotonic time; zero where latency is not measured.
    pub at: Duration,
}

/// Reads a frame's text in full: too slow for every frame, so the sink does it to a sample.
pub fn read(frame: &[u8]) -> Result<(String, Stamp)> {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        event: Cow<'a, str>,
        #[serde(borrow)]
        channel: Cow<'a, str>,
        data: Data,
    }
    // soketi and others relay the object of a client event as it is.
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Data {
        Text(String),
        Object(Body),
    }
    #[derive(Deserialize)]
    struct Body {
        seq: String,
        at: String,
    }
    let unreadable = || format!("an event nobody published: {}", String::from_utf8_lossy(frame));
    let envelope: Envelope<'_> = serde_json::from_slice(frame).with_context(unreadable)?;
    anyhow::ensure!(envelope.event == EVENT || envelope.event == CLIENT_EVENT, unreadable());
    let body = match envelope.data {
        Data::Text(text) => serde_json::from_str(&text).with_context(unreadable)?,
        Data::Object(body) => body,
    };
    let stamp = Stamp { sequence: body.seq.parse()?, at: Duration::from_nanos(body.at.parse()?) };
    Ok((envelope.channel.into_owned(), stamp))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_has_the_length_asked_for_and_is_read_back() {
        let (early, late) =
            (data(1, Duration::ZERO, 128), data(999_999, Duration::from_secs(1_000_000), 128));
        assert_eq!((early.len(), late.len()), (128, 128));
        let quoted = serde_json::to_string(&late).unwrap();
        let frame = format!(r#"{{"event":"bench","channel":"a","data":{quoted}}}"#);
        let (channel, stamp) = read(frame.as_bytes()).unwrap();
        assert_eq!(channel, "a");
        assert_eq!(stamp, Stamp { sequence: 999_999, at: Duration::from_secs(1_000_000) });
        let relayed = format!(r#"{{"event":"client-bench","channel":"a","data":{early}}}"#);
        assert_eq!(read(relayed.as_bytes()).unwrap().1.sequence, 1);
    }

    #[test]
    fn an_event_of_somebody_else_is_refused() {
        assert!(read(br#"{"event":"other","channel":"a","data":"{}"}"#).is_err());
    }
}
