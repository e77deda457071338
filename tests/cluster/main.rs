//! Several nodes on a real Redis: what makes them one server, and what becomes of it when one of them, or Redis, is lost.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a failing test panics")]

#[path = "../common/mod.rs"]
mod common;
mod process;

mod channels;
mod cut_off;
mod death;
mod isolation;
mod linger;
mod log;
mod outage;
mod presence;
mod reads;
mod replay;
mod slots;
mod start;
mod users;
mod waiting;
