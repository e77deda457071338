//! Hostile and broken peers: each gets its answer, and the server still serves the others.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a failing test panics")]

#[path = "../common/mod.rs"]
mod common;

mod frames;
mod http;
mod limits;
mod reload;
mod tls;
