//! The one place that speaks to Redis.

mod connect;
mod connection;
mod driver;
pub mod events;
pub mod lease;
mod link;
mod masters;
mod origin;
mod publisher;
pub mod reads;
mod rehearsal;
pub mod scripts;
mod server_info;
pub mod state;
mod topology;
pub mod transport;
