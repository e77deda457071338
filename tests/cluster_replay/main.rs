//! The suites of replay and of event streams again, through two nodes with the log in Redis: clients connect to the one and
//! the other in turn, and what is published and read goes to the second.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a failing test panics")]

#[path = "../common/mod.rs"]
mod harness;
#[path = "../cluster_conformance/two_nodes.rs"]
mod two_nodes;

mod common {
    pub use crate::harness::*;
    pub use crate::two_nodes::TestServer;
}

mod replay;
mod replay_api;
mod sse;

/// Tests of what is one node's own. Their clients are all on the first node, and only publishing and reading go to the
/// second.
const ON_ONE_NODE: &[(&str, &str)] = &[
    ("every_reason_to_refuse_a_socket_has_its_status", "each node has its own places"),
    ("what_will_pass_is_told_by_503_or_to_an_event_source_in_a_stream", "the limit is the node's"),
    ("a_drain_spreads_when_clients_come_back", "the other node does not drain"),
];
