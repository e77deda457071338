//! What the parsers of tidewire-protocol must hold for any input, one module for each fuzz target.
//!
//! A check panics when a promise is broken. libFuzzer drives the checks through `fuzz_targets/`; `fuzz/smoke` builds
//! and runs them for a short while, which is what CI does.

pub mod channel_name;
pub mod frame;
pub mod message;
pub mod position;
pub mod replay_request;
pub mod rest;
pub mod signature;

use serde_json::Value;

/// Every frame the server sends has to be JSON with `data` as text (or none), except `pusher:error`.
#[track_caller]
fn assert_server_frame(frame: &str) -> Value {
    let value: Value = serde_json::from_str(frame).unwrap_or_else(|error| panic!("{error} in {frame}"));
    assert!(value["event"].is_string(), "{frame}");
    match value.get("data") {
        None | Some(Value::String(_)) => {}
        Some(Value::Object(_)) if value["event"] == "pusher:error" => {}
        Some(_) => panic!("data is not text: {frame}"),
    }
    value
}
