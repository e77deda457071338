//! The engines of the replay log: what both promise, and what SQLite makes of damage, power cuts and full disks.
#![allow(clippy::panic, reason = "a failing test panics")]

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
