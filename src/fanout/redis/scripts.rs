//! The Lua scripts, each of which decides something once for the whole cluster.
//!
//! A script touches keys of one partition. It writes before it publishes, and `#!lua` has Redis refuse it as a whole
//! when memory is out, so that nothing is announced that did not happen.

use std::sync::LazyLock;

/// A script, and the name that Redis has for it.
#[derive(Debug)]
pub struct Script {
    name: &'static str,
    source: &'static str,
    sha1: String,
}

impl Script {
    pub fn new(name: &'static str, source: &'static str) -> Self {
        Self { name, source, sha1: redis::Script::new(source).get_hash().to_owned() }
    }

    /// For logs.
    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn source(&self) -> &'static str {
        self.source
    }

    /// In hexadecimal, for `EVALSHA`.
    pub fn sha1(&self) -> &str {
        &self.sha1
    }
}

pub(super) static SYNC: LazyLock<Script> =
    LazyLock::new(|| Script::new("sync", include_str!("scripts/sync.lua")));
pub(super) static SYNC_USER: LazyLock<Script> =
    LazyLock::new(|| Script::new("sync_user", include_str!("scripts/sync_user.lua")));
pub(super) static PUBLISH_CACHED: LazyLock<Script> = LazyLock::new(|| {
    let source =
        concat!("#!lua\n", include_str!("scripts/cache.lua"), include_str!("scripts/publish_cached.lua"));
    Script::new("publish_cached", source)
});
pub(super) static PUBLISH_ONCE: LazyLock<Script> = LazyLock::new(|| {
    let source =
        concat!("#!lua\n", include_str!("scripts/cache.lua"), include_str!("scripts/publish_once.lua"));
    Script::new("publish_once", source)
});
pub(super) static TERMINATE: LazyLock<Script> =
    LazyLock::new(|| Script::new("terminate", include_str!("scripts/terminate.lua")));
pub(super) static BEAT: LazyLock<Script> =
    LazyLock::new(|| Script::new("beat", include_str!("scripts/beat.lua")));
pub(super) static REAP: LazyLock<Script> =
    LazyLock::new(|| Script::new("reap", include_str!("scripts/reap.lua")));
pub(super) static CONNECTIONS: LazyLock<Script> =
    LazyLock::new(|| Script::new("connections", include_str!("scripts/connections.lua")));
