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

/// Tests of what is one node's own. Their clients are all on the first node, and only publishing and reading go to the
/// second.
const ON_ONE_NODE: &[(&str, &str)] = &[
    (
        "s017_a_full_app_refuses_with_4004_and_serves_again_once_a_place_is_free",
        "each node has its own places",
    ),
    ("s017_refused_and_lost_connections_leak_no_place", "each node has its own places"),
    (
        "s019_every_refusal_has_an_object_with_a_number_equal_to_the_close_code",
        "each node has its own places",
    ),
    ("s026_a_draining_server_closes_with_4200_and_refuses_with_4200", "the other node does not drain"),
    ("s027_a_full_node_refuses_with_4100", "the limit is the node's"),
    ("s032_a_client_below_the_idle_limit_is_left_alone", "one worker has to sweep both clients"),
    ("s035_every_inbound_frame_is_a_sign_of_life", "one worker has to sweep both clients"),
];
