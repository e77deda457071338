//! Event streams over real TCP, read as the HTML standard says that an `EventSource` reads them.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a failing test panics")]

#[path = "../common/mod.rs"]
mod common;

mod access;
mod life;
mod live;
mod reader;
mod replay;
