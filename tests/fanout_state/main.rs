//! The cluster's record in Redis: what every call leaves there, and what it tells the nodes.
#![allow(clippy::panic, reason = "a failing test panics")]

#[path = "../common/redis.rs"]
#[allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    reason = "the fixture serves other tests, too, and a failing one panics"
)]
mod fixture;

mod cost;
mod events;
mod leases;
mod members;
mod model;
mod racing;
mod reading;
mod schedules;
mod sharded;
mod subscriptions;
mod support;
