//! The conformance checklist again, through two nodes: clients connect to the one and the other in turn, and what is
//! published and read goes to the second.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a failing test panics")]

#[path = "../common/mod.rs"]
mod harness;
mod two_nodes;

mod common {
    pub use crate::harness::*;
    pub use crate::two_nodes::TestServer;
}

#[path = "../conformance/cache_encrypted_counts.rs"]
mod cache_encrypted_counts;
#[path = "../conformance/client_events.rs"]
mod client_events;
#[path = "../conformance/delivery.rs"]
mod delivery;
#[path = "../conformance/extensions.rs"]
mod extensions;
#[path = "../conformance/liveness.rs"]
mod liveness;
#[path = "../conformance/opening.rs"]
mod opening;
#[path = "../conformance/presence.rs"]
mod presence;
#[path = "../conformance/rest_auth.rs"]
mod rest_auth;
#[path = "../conformance/rest_publish.rs"]
mod rest_publish;
#[path = "../conformance/rest_reads.rs"]
mod rest_reads;
#[path = "../conformance/signin.rs"]
mod signin;
#[path = "../conformance/subscribe.rs"]
mod subscribe;
