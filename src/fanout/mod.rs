//! Between nodes: what is published on one reaches the subscribers of all, and what all of them have is known on each.

pub mod cluster;
pub mod inbound;
pub mod keys;
pub mod message;
pub mod redis;
mod registry;
pub mod step;
