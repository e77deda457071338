//! What is measured: one file for each question.

pub mod catch_up;
pub mod chat;
pub mod churn;
pub mod client_events;
pub mod cluster;
pub mod fan_out;
pub mod handshake;
pub mod latency;
pub mod memory;
pub mod stored;
pub mod stored_memory;
pub mod trigger;

/// Bytes of event data in every scenario; the frame around it is about 90 bytes longer.
pub const DATA_BYTES: usize = 128;
/// Keep-alive connections of a publisher where triggers follow each other closely.
pub const PUBLISHERS: usize = 8;
