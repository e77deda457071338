//! Replay over real sockets: what a client that was away gets, and what everybody else does not notice.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a failing test panics")]

#[path = "../common/mod.rs"]
mod common;
mod support;

mod asking;
mod generations;
mod overrides;
mod refused;
mod resuming;
mod slow;
mod stock;

pub(crate) use support::*;
