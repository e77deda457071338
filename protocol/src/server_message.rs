//! What the server says: the JSON text of every event it originates (2.3).
//!
//! `data` is a JSON string everywhere except in `pusher:error`: several SDKs ignore or crash on the other form
//! (2.1). Frames are built from scratch, nothing a client sent is copied but what is named here.

use std::fmt::Write as _;

use serde_json::value::RawValue;

use crate::json::push_string;
use crate::{DataToken, SocketId};

mod replay;

pub use replay::{
    ReplayAnswer, ReplayOutcome, positioned, replay_done, replay_gone, replay_reset, replay_resumed,
    replay_skip, with_replay,
};

/// First frame of every connection; nothing may precede it (1.3).
pub fn connection_established(socket_id: SocketId, activity_timeout_seconds: u32) -> String {
    let data = format!(r#"{{"socket_id":"{socket_id}","activity_timeout":{activity_timeout_seconds}}}"#);
    event("pusher:connection_established", None, &data)
}

pub fn pong() -> String {
    event("pusher:pong", None, "{}")
}

/// A JSON ping, only for peers that cannot answer control frames (1.4).
pub fn ping() -> String {
    event("pusher:ping", None, "{}")
}

/// The one frame whose `data` is an object. `code` is `None` on established connections unless the table in
/// [`crate::error`] says otherwise.
pub fn error(code: Option<u16>, message: &str) -> String {
    let mut frame = String::with_capacity(message.len() + 64);
    frame.push_str(r#"{"event":"pusher:error","data":{"code":"#);
    match code {
        Some(code) => push_number(&mut frame, code.into()),
        None => frame.push_str("null"),
    }
    frame.push_str(r#","message":"#);
    push_string(&mut frame, message);
    frame.push_str("}}");
    frame
}

/// Success on every channel but presence ones. `data` is exactly `{}`: Java and Swift would try to decrypt
/// anything else on encrypted channels.
pub fn subscription_succeeded(channel: &str) -> String {
    event("pusher_internal:subscription_succeeded", Some(channel), "{}")
}

/// Success on a presence channel with all of its members, the newcomer included (2.7).
pub fn presence_succeeded<'a>(
    channel: &str,
    members: impl Iterator<Item = (&'a str, Option<&'a RawValue>)> + Clone,
) -> String {
    let mut data = String::with_capacity(256);
    data.push_str(r#"{"presence":{"count":"#);
    push_number(&mut data, members.clone().count());
    data.push_str(r#","ids":["#);
    push_separated(&mut data, members.clone(), |data, (user_id, _)| push_string(data, user_id));
    data.push_str(r#"],"hash":{"#);
    push_separated(&mut data, members, |data, (user_id, user_info)| {
        push_string(data, user_id);
        data.push(':');
        data.push_str(user_info.map_or("null", RawValue::get));
    });
    data.push_str("}}}");
    event("pusher_internal:subscription_succeeded", Some(channel), &data)
}

pub fn member_added(channel: &str, user_id: &str, user_info: Option<&RawValue>) -> String {
    let mut data = String::with_capacity(128);
    data.push_str(r#"{"user_id":"#);
    push_string(&mut data, user_id);
    data.push_str(r#","user_info":"#);
    data.push_str(user_info.map_or("null", RawValue::get));
    data.push('}');
    event("pusher_internal:member_added", Some(channel), &data)
}

pub fn member_removed(channel: &str, user_id: &str) -> String {
    let mut data = String::with_capacity(64);
    data.push_str(r#"{"user_id":"#);
    push_string(&mut data, user_id);
    data.push('}');
    event("pusher_internal:member_removed", Some(channel), &data)
}

/// `subscribers` counts connections, not users (2.11).
pub fn subscription_count(channel: &str, subscribers: usize) -> String {
    let data = format!(r#"{{"subscription_count":{subscribers}}}"#);
    event("pusher_internal:subscription_count", Some(channel), &data)
}

pub fn cache_miss(channel: &str) -> String {
    event("pusher:cache_miss", Some(channel), "{}")
}

/// `user_data` goes back byte for byte as it was signed (2.12).
pub fn signin_success(user_data: &str) -> String {
    let mut data = String::with_capacity(user_data.len() + 32);
    data.push_str(r#"{"user_data":"#);
    push_string(&mut data, user_data);
    data.push('}');
    event("pusher:signin_success", None, &data)
}

/// One group per state: `true` is online (2.13).
pub fn watchlist_events(groups: &[(bool, Vec<&str>)]) -> String {
    let mut data = String::from(r#"{"events":["#);
    push_separated(&mut data, groups.iter(), |data, (online, user_ids)| {
        data.push_str(r#"{"name":""#);
        data.push_str(if *online { "online" } else { "offline" });
        data.push_str(r#"","user_ids":["#);
        push_separated(data, user_ids.iter(), |data, user_id| push_string(data, user_id));
        data.push_str("]}");
    });
    data.push_str("]}");
    event("pusher_internal:watchlist_events", None, &data)
}

/// Follows the error frame, for peers with `client=js` only (2.14).
pub fn subscription_error(channel: &str, kind: &str, error: &str, status: u16) -> String {
    let mut data = String::with_capacity(error.len() + 64);
    data.push_str(r#"{"type":"#);
    push_string(&mut data, kind);
    data.push_str(r#","error":"#);
    push_string(&mut data, error);
    data.push_str(r#","status":"#);
    push_number(&mut data, status.into());
    data.push('}');
    event("pusher:subscription_error", Some(channel), &data)
}

/// A published event or a client event. `user_id` belongs to client events on presence channels alone.
pub fn channel_event(event: &str, channel: &str, data: &DataToken<'_>, user_id: Option<&str>) -> String {
    let data = data.as_json();
    let mut frame = String::with_capacity(data.len() + event.len() + channel.len() + 64);
    open(&mut frame, event, Some(channel));
    frame.push_str(data);
    if let Some(user_id) = user_id {
        frame.push_str(r#","user_id":"#);
        push_string(&mut frame, user_id);
    }
    frame.push('}');
    frame
}

fn event(name: &str, channel: Option<&str>, data: &str) -> String {
    let mut frame = String::with_capacity(data.len() * 5 / 4 + 128);
    open(&mut frame, name, channel);
    push_string(&mut frame, data);
    frame.push('}');
    frame
}

/// Everything before the value of `data`.
fn open(frame: &mut String, name: &str, channel: Option<&str>) {
    frame.push_str(r#"{"event":"#);
    push_string(frame, name);
    if let Some(channel) = channel {
        frame.push_str(r#","channel":"#);
        push_string(frame, channel);
    }
    frame.push_str(r#","data":"#);
}

fn push_separated<T>(out: &mut String, items: impl Iterator<Item = T>, mut push: impl FnMut(&mut String, T)) {
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(',');
        }
        push(out, item);
    }
}

fn push_number(out: &mut String, number: usize) {
    write!(out, "{number}").expect("writing to a String never fails");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    #[test]
    fn s002_s003_s004_the_first_frame_carries_its_data_as_text() {
        let socket_id = SocketId::parse("402653.118734952").unwrap().unwrap();
        assert_eq!(
            connection_established(socket_id, 120),
            r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"402653.118734952\",\"activity_timeout\":120}"}"#
        );
    }

    #[test]
    fn an_error_is_the_one_frame_with_an_object() {
        assert_eq!(
            error(Some(4001), "App key \"x\" does not exist"),
            r#"{"event":"pusher:error","data":{"code":4001,"message":"App key \"x\" does not exist"}}"#
        );
        assert_eq!(error(None, "no"), r#"{"event":"pusher:error","data":{"code":null,"message":"no"}}"#);
    }

    #[test]
    fn s043_s102_frames_without_content_say_exactly_an_empty_object() {
        assert_eq!(
            subscription_succeeded("news"),
            r#"{"event":"pusher_internal:subscription_succeeded","channel":"news","data":"{}"}"#
        );
        assert_eq!(cache_miss("cache-x"), r#"{"event":"pusher:cache_miss","channel":"cache-x","data":"{}"}"#);
        assert_eq!(pong(), r#"{"event":"pusher:pong","data":"{}"}"#);
    }

    #[test]
    fn s069_s070_s077_presence_data_lists_every_member() {
        let ada = raw(r#"{"name":"Ada"}"#);
        let members = [("u-1", Some(&*ada)), ("u-2", None)];
        assert_eq!(
            presence_succeeded("presence-a", members.into_iter()),
            concat!(
                r#"{"event":"pusher_internal:subscription_succeeded","channel":"presence-a","data":""#,
                r#"{\"presence\":{\"count\":2,\"ids\":[\"u-1\",\"u-2\"],"#,
                r#"\"hash\":{\"u-1\":{\"name\":\"Ada\"},\"u-2\":null}}}"}"#
            )
        );
        assert!(presence_succeeded("presence-a", [].into_iter()).contains(r#"\"hash\":{}"#));
    }

    #[test]
    fn members_come_and_go_with_text_data() {
        assert_eq!(
            member_added("presence-a", "u-3", Some(&raw(r#"{"name":"Mo"}"#))),
            r#"{"event":"pusher_internal:member_added","channel":"presence-a","data":"{\"user_id\":\"u-3\",\"user_info\":{\"name\":\"Mo\"}}"}"#
        );
        assert_eq!(
            member_removed("presence-a", "u\"3"),
            r#"{"event":"pusher_internal:member_removed","channel":"presence-a","data":"{\"user_id\":\"u\\\"3\"}"}"#
        );
    }

    #[test]
    fn s116_user_data_returns_byte_for_byte() {
        assert_eq!(
            signin_success(r#"{"id":"u-1"}"#),
            r#"{"event":"pusher:signin_success","data":"{\"user_data\":\"{\\\"id\\\":\\\"u-1\\\"}\"}"}"#
        );
    }

    #[test]
    fn watchlist_states_are_grouped() {
        assert_eq!(
            watchlist_events(&[(true, vec!["u-2"]), (false, vec!["u-5", "u-9"])]),
            concat!(
                r#"{"event":"pusher_internal:watchlist_events","data":"{\"events\":["#,
                r#"{\"name\":\"online\",\"user_ids\":[\"u-2\"]},"#,
                r#"{\"name\":\"offline\",\"user_ids\":[\"u-5\",\"u-9\"]}]}"}"#
            )
        );
    }

    #[test]
    fn counts_and_subscription_errors_have_their_documented_shape() {
        assert_eq!(
            subscription_count("news", 41),
            r#"{"event":"pusher_internal:subscription_count","channel":"news","data":"{\"subscription_count\":41}"}"#
        );
        assert_eq!(
            subscription_error("private-a", "AuthError", "Invalid signature", 401),
            r#"{"event":"pusher:subscription_error","channel":"private-a","data":"{\"type\":\"AuthError\",\"error\":\"Invalid signature\",\"status\":401}"}"#
        );
    }

    #[test]
    fn s089_s130_s131_an_event_carries_its_data_token_verbatim() {
        let data = raw(r#""<\/b>\u0041""#);
        let data = DataToken::from_json_value(&data);
        assert_eq!(
            channel_event("App\\Events\\Paid", "news", &data, None),
            r#"{"event":"App\\Events\\Paid","channel":"news","data":"<\/b>\u0041"}"#
        );
        assert_eq!(
            channel_event("client-x", "presence-a", &DataToken::EMPTY_OBJECT, Some("u-1")),
            r#"{"event":"client-x","channel":"presence-a","data":"{}","user_id":"u-1"}"#
        );
    }
}
