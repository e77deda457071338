//! The engines of the replay log: what both promise, and what SQLite makes of damage, power cuts and full disks.
#![allow(clippy::panic, reason = "a failing test panics")]

#[path = "../common/redis.rs"]
#[allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    reason = "the fixture serves other tests, too, and a failing one panics"
)]
mod fixture;
#[path = "../common/redis_link.rs"]
#[allow(dead_code, reason = "it serves other tests, too")]
mod link;

mod crash;
mod damage;
mod full_disk;
mod keys;
mod lost_slices;
mod measure;
mod model;
mod power_cut;
mod retention;
mod semantics;
mod slices;
mod support;
