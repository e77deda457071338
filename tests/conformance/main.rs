//! The conformance checklist of the protocol specification (section 9), one test or more a statement.
//!
//! A test that proves statement N carries `sNNN_` in its name; `tools/conformance` reads the names.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a failing test panics")]

#[path = "../common/mod.rs"]
mod common;

mod cache_encrypted_counts;
mod client_events;
mod delivery;
mod extensions;
mod liveness;
mod opening;
mod presence;
mod rest_auth;
mod rest_publish;
mod rest_reads;
mod signin;
mod subscribe;
