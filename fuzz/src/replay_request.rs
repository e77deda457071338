//! What clients and backends ask of the log: read alike wherever it stands, and answered with JSON.

use serde_json::value::RawValue;
use tidewire_protocol::position::Epoch;
use tidewire_protocol::replay::{Reason, ReplayError, ReplayRequest, Rewind, Start};
use tidewire_protocol::server_message::{self, ReplayAnswer, ReplayOutcome};
use tidewire_protocol::{ClientMessage, Overrides, Position, UserData};

use crate::assert_server_frame;

pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(raw) = serde_json::from_str::<&RawValue>(text) else { return };
    let request = ReplayRequest::parse(raw);
    assert_eq!(in_subscribe(raw), (raw.get() != "null").then_some(request));
    match request {
        Ok(request) => check_request(&request),
        Err(error) => check_refusal(error),
    }
    check_overrides(raw);
}

/// The request as it is read out of a whole message, with its data as an object and as a text.
fn in_subscribe(raw: &RawValue) -> Option<Result<ReplayRequest, ReplayError>> {
    let data = format!(r#"{{"channel":"news","replay":{raw}}}"#);
    let quoted = serde_json::Value::from(&*data);
    let [object, quoted] = [data, quoted.to_string()].map(|data| {
        let text = format!(r#"{{"event":"pusher:subscribe","data":{data}}}"#);
        match ClientMessage::parse(&text) {
            Ok(ClientMessage::Subscribe(subscribe)) => subscribe.replay,
            other => panic!("{other:?} of {text}"),
        }
    });
    assert_eq!(object, quoted);
    object
}

fn check_request(request: &ReplayRequest) {
    let (position, outcome) = match request.start {
        Start::Live => (None, ReplayOutcome::Live),
        Start::After(position) => (Some(position), ReplayOutcome::Recovered { count: position.serial }),
        Start::Rewind(rewind) => {
            assert!(!matches!(rewind, Rewind::Count(0) | Rewind::Seconds(0)), "a rewind goes back");
            let epoch = Epoch { nonce: 0, generation: 0 };
            let gap = ReplayOutcome::Gap { reason: Reason::TooMany, oldest: Some(1) };
            (Some(Position { epoch, serial: 1 }), gap)
        }
    };
    let frame =
        assert_server_frame(&server_message::replay_resumed("news", &ReplayAnswer { position, outcome }));
    assert_eq!(frame["replay"]["serial"].as_u64(), position.map(|position| position.serial));
    assert_eq!(
        frame["replay"]["epoch"].as_str(),
        position.map(|position| position.epoch.to_string()).as_deref()
    );
}

fn check_refusal(error: ReplayError) {
    let text = error.to_string();
    assert!(text.starts_with("replay") && text.len() < 200, "{text}");
    assert_server_frame(&server_message::subscription_error("news", "ReplayInvalid", &text, 400));
}

/// What cannot be read must not count as absent: the subscriber would see more than was meant.
fn check_overrides(raw: &RawValue) {
    let is_null = raw.get() == "null";
    let is_object = raw.get().starts_with('{');
    match Overrides::of_channel_data(&format!(r#"{{"replay":{raw}}}"#)) {
        Ok(overrides) => assert!(is_object || (is_null && overrides == Overrides::default())),
        Err(error) => assert!(!is_null && error.to_string().starts_with("replay")),
    }
    match UserData::parse(&format!(r#"{{"id":"u","replay":{raw}}}"#), 0) {
        Ok(user) => {
            assert!(is_object || is_null);
            assert!(user.replay.lifetime_seconds != Some(0) && user.replay.keepalive_seconds != Some(0));
        }
        Err(error) => assert!(!is_null && error.to_string().starts_with("Invalid user_data: replay")),
    }
}
