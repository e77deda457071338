//! What the server says of the log: positions beside `data`, the answer to `replay`, and events of its own.
//!
//! All of it stands where stock clients do not look: in members that they drop, and in `pusher_internal:` events
//! that they do not know.

use std::fmt::{Display, Write as _};

use crate::json::push_string;
use crate::position::{Epoch, Position};
use crate::replay::Reason;

use super::event;

/// What a subscriber who asked for replay is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayAnswer {
    /// Where the channel stands: everything up to there is replayed, everything after it comes live. `None` on a
    /// channel that is not stored.
    pub position: Option<Position>,
    pub outcome: ReplayOutcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayOutcome {
    /// It asked for nothing that was before.
    Live,
    /// So many messages are to come, then [`replay_done`].
    Recovered { count: u64 },
    /// It goes on live without them. `oldest` is the serial of the first message that is still there.
    Gap { reason: Reason, oldest: Option<u64> },
}

/// Adds to a channel event what a subscriber with positions gets: its serial, the epoch where it begins a
/// generation, the serial this subscriber had before where it is not the one before, and the publisher's id.
///
/// `plain_json` is as [`channel_event`](super::channel_event) made it.
pub fn positioned(
    plain_json: &str,
    serial: u64,
    epoch: Option<Epoch>,
    prev: Option<u64>,
    id: Option<&str>,
    is_replayed: bool,
) -> String {
    let mut frame = reopened(plain_json, 96 + id.map_or(0, str::len));
    push_member(&mut frame, "serial", serial);
    if let Some(epoch) = epoch {
        push_quoted(&mut frame, "epoch", epoch);
    }
    if let Some(prev) = prev {
        push_member(&mut frame, "prev", prev);
    }
    if let Some(id) = id {
        frame.push_str(r#","id":"#);
        push_string(&mut frame, id);
    }
    if is_replayed {
        push_member(&mut frame, "replayed", true);
    }
    frame.push('}');
    frame
}

/// Adds the answer to a `subscription_succeeded`, beside its `data`, which belongs to the application.
pub fn with_replay(succeeded_json: &str, answer: &ReplayAnswer) -> String {
    let mut frame = reopened(succeeded_json, 128);
    frame.push_str(r#","replay":{"v":1"#);
    if let Some(position) = answer.position {
        push_quoted(&mut frame, "epoch", position.epoch);
        push_member(&mut frame, "serial", position.serial);
    }
    match answer.outcome {
        ReplayOutcome::Live => {}
        ReplayOutcome::Recovered { count } => {
            push_member(&mut frame, "recovered", true);
            push_member(&mut frame, "count", count);
        }
        ReplayOutcome::Gap { reason, oldest } => {
            push_member(&mut frame, "recovered", false);
            push_gap(&mut frame, reason, oldest);
        }
    }
    frame.push_str("}}");
    frame
}

/// Answers a `pusher:subscribe` with `replay` on a channel that is subscribed already.
pub fn replay_resumed(channel: &str, answer: &ReplayAnswer) -> String {
    with_replay(&event("pusher_internal:replay_resumed", Some(channel), "{}"), answer)
}

/// Everything up to `serial` was sent, that of the answer.
pub fn replay_done(channel: &str, serial: u64) -> String {
    with_serial("pusher_internal:replay_done", channel, serial)
}

/// The subscriber has lost its place and goes on after `serial`: what it has may not be what the log has.
pub fn replay_reset(channel: &str, epoch: Epoch, serial: u64, reason: Reason) -> String {
    let mut frame = reopened(&event("pusher_internal:replay_reset", Some(channel), "{}"), 96);
    push_quoted(&mut frame, "epoch", epoch);
    push_member(&mut frame, "serial", serial);
    push_quoted(&mut frame, "reason", reason.as_str());
    frame.push('}');
    frame
}

/// The message with this serial cannot be read any more; the next one follows. `prev` as in [`positioned`].
pub fn replay_skip(channel: &str, serial: u64, prev: Option<u64>) -> String {
    let skip = with_serial("pusher_internal:replay_skip", channel, serial);
    let Some(prev) = prev else { return skip };
    let mut frame = reopened(&skip, 32);
    push_member(&mut frame, "prev", prev);
    frame.push('}');
    frame
}

/// Refuses a subscription with `"on_gap":"reject"`. `oldest` is the serial of the first message that is there.
pub fn replay_gone(channel: &str, error: &str, reason: Reason, oldest: Option<u64>) -> String {
    let mut data = String::with_capacity(error.len() + 96);
    data.push_str(r#"{"type":"ReplayGone","error":"#);
    push_string(&mut data, error);
    push_member(&mut data, "status", 410);
    push_gap(&mut data, reason, oldest);
    data.push('}');
    event("pusher:subscription_error", Some(channel), &data)
}

fn with_serial(name: &str, channel: &str, serial: u64) -> String {
    let mut frame = reopened(&event(name, Some(channel), "{}"), 32);
    push_member(&mut frame, "serial", serial);
    frame.push('}');
    frame
}

fn push_gap(out: &mut String, reason: Reason, oldest: Option<u64>) {
    push_quoted(out, "reason", reason.as_str());
    if let Some(oldest) = oldest {
        push_member(out, "oldest", oldest);
    }
}

/// An object without its last brace, with room for `additional` bytes. It has a member already.
fn reopened(object: &str, additional: usize) -> String {
    let members = object.strip_suffix('}').unwrap_or(object);
    let mut frame = String::with_capacity(members.len() + additional);
    frame.push_str(members);
    frame
}

/// `value` is written as it displays.
fn push_member(out: &mut String, name: &str, value: impl Display) {
    write!(out, r#","{name}":{value}"#).expect("writing to a String never fails");
}

/// `value` displays without a character that JSON escapes.
fn push_quoted(out: &mut String, name: &str, value: impl Display) {
    write!(out, r#","{name}":"{value}""#).expect("writing to a String never fails");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server_message::{channel_event, presence_succeeded, subscription_succeeded};
    use crate::{DataToken, frame};

    const EPOCH: Epoch = Epoch { nonce: 62, generation: 2 };

    fn position(serial: u64) -> Option<Position> {
        Some(Position { epoch: EPOCH, serial })
    }

    fn answer(position: Option<Position>, outcome: ReplayOutcome) -> String {
        let frame = with_replay(&subscription_succeeded("news"), &ReplayAnswer { position, outcome });
        let stock =
            r#"{"event":"pusher_internal:subscription_succeeded","channel":"news","data":"{}","replay":"#;
        frame.strip_prefix(stock).unwrap().strip_suffix('}').unwrap().to_owned()
    }

    #[test]
    fn an_event_with_its_place_is_the_plain_one_and_more() {
        let plain = channel_event("order.paid", "news", &DataToken::EMPTY_OBJECT, Some("u-1"));
        let stock = plain.strip_suffix('}').unwrap();
        let live = positioned(&plain, 1860, None, None, None, false);
        assert_eq!(live, format!(r#"{stock},"serial":1860}}"#));
        let all = positioned(&plain, 1860, Some(EPOCH), Some(1857), Some("ord-\"7\""), true);
        let added = r#","serial":1860,"epoch":"10.2","prev":1857,"id":"ord-\"7\"","replayed":true}"#;
        assert_eq!(all, format!("{stock}{added}"));
        assert_eq!(
            positioned(frame::text_of(&frame::encode_text(&plain)), 1860, None, None, None, false),
            live
        );
    }

    #[test]
    fn the_answer_stands_beside_the_data() {
        for (position, outcome, expected) in [
            (position(1859), ReplayOutcome::Live, r#"{"v":1,"epoch":"10.2","serial":1859}"#),
            (
                position(1859),
                ReplayOutcome::Recovered { count: 17 },
                r#"{"v":1,"epoch":"10.2","serial":1859,"recovered":true,"count":17}"#,
            ),
            (
                position(1859),
                ReplayOutcome::Gap { reason: Reason::Expired, oldest: Some(1203) },
                r#"{"v":1,"epoch":"10.2","serial":1859,"recovered":false,"reason":"expired","oldest":1203}"#,
            ),
            (
                None,
                ReplayOutcome::Gap { reason: Reason::Disabled, oldest: None },
                r#"{"v":1,"recovered":false,"reason":"disabled"}"#,
            ),
        ] {
            assert_eq!(answer(position, outcome), expected);
        }
    }

    #[test]
    fn the_answer_leaves_presence_data_alone() {
        let plain = presence_succeeded("presence-a", [("u-1", None)].into_iter());
        let frame = with_replay(&plain, &ReplayAnswer { position: None, outcome: ReplayOutcome::Live });
        assert_eq!(frame, format!(r#"{},"replay":{{"v":1}}}}"#, plain.strip_suffix('}').unwrap()));
    }

    #[test]
    fn events_of_replay_carry_an_empty_object_and_their_place() {
        let resumed = ReplayAnswer { position: position(9), outcome: ReplayOutcome::Recovered { count: 2 } };
        for (frame, expected) in [
            (
                replay_resumed("news", &resumed),
                r#"{"event":"pusher_internal:replay_resumed","channel":"news","data":"{}","replay":{"v":1,"epoch":"10.2","serial":9,"recovered":true,"count":2}}"#,
            ),
            (
                replay_done("news", 9),
                r#"{"event":"pusher_internal:replay_done","channel":"news","data":"{}","serial":9}"#,
            ),
            (
                replay_reset("news", EPOCH, 9, Reason::RolledBack),
                r#"{"event":"pusher_internal:replay_reset","channel":"news","data":"{}","epoch":"10.2","serial":9,"reason":"rolled_back"}"#,
            ),
            (
                replay_skip("news", 9, None),
                r#"{"event":"pusher_internal:replay_skip","channel":"news","data":"{}","serial":9}"#,
            ),
            (
                replay_skip("news", 9, Some(6)),
                r#"{"event":"pusher_internal:replay_skip","channel":"news","data":"{}","serial":9,"prev":6}"#,
            ),
        ] {
            assert_eq!(frame, expected);
        }
    }

    #[test]
    fn what_is_gone_is_a_subscription_error_with_a_reason() {
        assert_eq!(
            replay_gone("news", "gone", Reason::Expired, Some(1203)),
            r#"{"event":"pusher:subscription_error","channel":"news","data":"{\"type\":\"ReplayGone\",\"error\":\"gone\",\"status\":410,\"reason\":\"expired\",\"oldest\":1203}"}"#
        );
        assert!(replay_gone("news", "", Reason::Disabled, None).contains(r#"\"reason\":\"disabled\"}"}"#));
    }
}
