//! Tidewire: a self-hosted realtime server, wire-compatible with Pusher Channels.
//!
//! Start with [`server::Server`]; ARCHITECTURE.md draws the map.

pub mod app;
pub mod banner;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connection;
pub mod fanout;
pub mod http;
pub mod hub;
pub mod node;
pub mod replay;
pub mod server;
pub mod socket;
mod sse;
pub mod telemetry;
pub mod token_bucket;
pub mod worker;

mod handshake;
mod sync;
pub mod tls;

pub use server::Server;
