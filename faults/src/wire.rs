//! What a server says on a socket, as far as replay is concerned.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// One frame of the server.
#[derive(Debug, Deserialize)]
pub struct Frame<'a> {
    #[serde(borrow)]
    pub event: Cow<'a, str>,
    #[serde(default)]
    pub channel: Option<&'a str>,
    #[serde(borrow, default)]
    pub data: Option<&'a RawValue>,
    #[serde(default)]
    pub serial: Option<u64>,
    #[serde(default)]
    pub epoch: Option<&'a str>,
    #[serde(default)]
    pub prev: Option<u64>,
    #[serde(default)]
    pub id: Option<&'a str>,
    #[serde(default)]
    pub replayed: bool,
    #[serde(default)]
    pub reason: Option<&'a str>,
    #[serde(borrow, default)]
    pub replay: Option<Answer<'a>>,
}

/// The member `replay` of `subscription_succeeded`.
#[derive(Debug, Deserialize)]
pub struct Answer<'a> {
    #[serde(default)]
    pub epoch: &'a str,
    #[serde(default)]
    pub serial: Option<u64>,
    #[serde(default)]
    pub recovered: Option<bool>,
    #[serde(default)]
    pub count: Option<u64>,
    #[serde(default)]
    pub reason: &'a str,
    #[serde(default)]
    pub oldest: Option<u64>,
}

/// The data of `pusher:subscription_error`.
#[derive(Debug, Default, Deserialize)]
pub struct Refusal {
    #[serde(default, rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub status: u16,
    #[serde(default)]
    pub reason: String,
    #[serde(default)]
    pub oldest: Option<u64>,
}

#[derive(Deserialize)]
struct Established<'a> {
    #[serde(borrow)]
    socket_id: Cow<'a, str>,
}

impl Frame<'_> {
    pub fn parse(text: &[u8]) -> serde_json::Result<Frame<'_>> {
        serde_json::from_slice(text)
    }

    /// The unique name at the start of our payloads, which are a JSON string without escapes.
    pub fn mid(&self) -> Option<&str> {
        mid(self.data?.get().strip_prefix('"')?)
    }

    pub fn socket_id(&self) -> Option<String> {
        let text: String = serde_json::from_str(self.data?.get()).ok()?;
        let established: Established<'_> = serde_json::from_str(&text).ok()?;
        Some(established.socket_id.into_owned())
    }

    /// Errors carry an object; where a server sends it as text, that is read too.
    pub fn refusal(&self) -> Refusal {
        let raw = self.data.map_or("{}", RawValue::get);
        let text = serde_json::from_str::<String>(raw).unwrap_or_else(|_| raw.to_owned());
        serde_json::from_str(&text).unwrap_or_default()
    }
}

/// A payload of our publishers: the unique name, a blank, padding.
pub fn payload(mid: &str, bytes: usize) -> String {
    format!("{mid} {}", "x".repeat(bytes.saturating_sub(mid.len() + 1)))
}

/// In the names of client events, which have no key.
pub const CLIENT_MARK: char = '~';

pub fn is_of_client(mid: &str) -> bool {
    mid.contains(CLIENT_MARK)
}

pub fn mid(payload: &str) -> Option<&str> {
    payload.split_once(' ').map(|(mid, _)| mid).filter(|mid| !mid.contains('\\'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read() {
        let text = br#"{"event":"e","channel":"c","data":"p1-7 xxx","serial":9,"epoch":"a.2","id":"p1-7","replayed":true}"#;
        let frame = Frame::parse(text).unwrap();
        assert_eq!((frame.mid(), frame.serial, frame.epoch), (Some("p1-7"), Some(9), Some("a.2")));
        assert!(frame.replayed && frame.prev.is_none());

        let text = br#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"12.34\",\"activity_timeout\":120}"}"#;
        assert_eq!(Frame::parse(text).unwrap().socket_id().unwrap(), "12.34");

        let text = br#"{"event":"pusher_internal:subscription_succeeded","channel":"c","data":"{}","replay":{"v":1,"epoch":"a.2","serial":9,"recovered":false,"reason":"expired","oldest":4}}"#;
        let answer = Frame::parse(text).unwrap().replay.unwrap();
        assert_eq!((answer.recovered, answer.reason, answer.oldest), (Some(false), "expired", Some(4)));

        let text = br#"{"event":"pusher:subscription_error","channel":"c","data":{"type":"ReplayGone","status":410,"reason":"expired","oldest":4}}"#;
        let refusal = Frame::parse(text).unwrap().refusal();
        assert_eq!((refusal.kind.as_str(), refusal.status, refusal.oldest), ("ReplayGone", 410, Some(4)));
    }

    #[test]
    fn a_payload_tells_its_name() {
        assert_eq!(mid(&payload("p1-7", 40)), Some("p1-7"));
        assert_eq!(payload("p1-7", 40).len(), 40);
    }
}
