//! What the load generator shares with other programs that speak to a server as a stranger would.

pub mod api;
pub mod frame;
pub mod procfs;
pub mod random;
