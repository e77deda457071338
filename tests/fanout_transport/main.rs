//! The way to Redis against real servers: order, bounds, outages, fail-over.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a failing test panics")]

#[path = "../common/redis.rs"]
#[allow(dead_code, reason = "each test binary uses its part of the fixture")]
mod fixture;

mod calls;
mod cluster;
mod connecting;
mod messages;
mod node;
mod outages;
mod sentinel;
mod slots;
mod tls;
mod versions;
