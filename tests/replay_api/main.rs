//! Replay over the REST API: idempotency keys, positions, history, purge.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a failing test panics")]

#[path = "../common/mod.rs"]
mod common;
mod stores;
mod support;

mod batches;
mod gone;
mod history;
mod idempotency;
mod live_only;
mod positions;
mod purge;
mod refusals;
mod rules;

pub(crate) use stores::*;
pub(crate) use support::*;
