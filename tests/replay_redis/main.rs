//! The log in Redis: what is left of it when Redis is restarted, drops something or is shared by nodes.
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
#[path = "../replay_store/support.rs"]
#[allow(dead_code, unused_imports, unused_macros, reason = "it serves the tests of all engines")]
mod support;

mod cluster;
mod cost;
mod dropped;
mod limits;
mod nodes;
mod restarts;
mod skips;

use fixture::RedisServer;
use link::Link;
use support::{T0, caps};
use tidewire::fanout::keys::{Keys, partition};
use tidewire::replay::redis::RedisStore;
use tidewire::replay::store::StreamName;

/// As of [`RedisServer::config`].
const PREFIX: &str = "tidewire";

fn open(link: &Link) -> RedisStore {
    RedisStore::open_on_own_clock(link.transport.clone(), PREFIX, &caps(), T0).expect("the store opens")
}

fn node(server: &RedisServer) -> (Link, RedisStore) {
    let link = Link::start(&server.config());
    let store = open(&link);
    (link, store)
}

/// The name of something in the stream's partition.
fn key(stream: &StreamName, name: &str) -> String {
    format!("{}{name}", Keys::new(PREFIX).tag(partition(&stream.app, &stream.channel)))
}

fn stream_key(stream: &StreamName) -> String {
    key(stream, &format!("s:{}:{}", stream.app, stream.channel))
}
