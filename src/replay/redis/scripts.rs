//! The Lua scripts. Each touches keys of one partition, and begins with the partition's log: see `scripts/log.lua`.

use std::sync::LazyLock;

use crate::fanout::redis::scripts::Script;

/// A script whose last argument is the server's identity, which the transport adds. `flags` follow `#!lua`.
macro_rules! script {
    ($name:literal, $flags:literal, [$($part:literal),+]) => {
        LazyLock::new(|| {
            Script::new(
                $name,
                concat!(
                    "#!lua",
                    $flags,
                    "\n",
                    $(include_str!(concat!("scripts/", $part, ".lua")),)+
                ),
            )
        })
    };
}

/// Refused as a whole when memory is out: nothing is published that was not stored.
pub static APPEND: LazyLock<Script> = script!("append", "", ["quick", "log", "stream", "append"]);
pub static BOUNDS: LazyLock<Script> =
    script!("bounds", " flags=allow-oom", ["identity", "log", "stream", "bounds"]);
pub static READ: LazyLock<Script> =
    script!("read", " flags=allow-oom", ["identity", "log", "stream", "read"]);
pub static PURGE: LazyLock<Script> =
    script!("purge", " flags=allow-oom", ["identity", "log", "stream", "purge"]);
pub static SKIP: LazyLock<Script> =
    script!("skip", " flags=allow-oom", ["identity", "log", "stream", "skip"]);
pub static TIDY: LazyLock<Script> =
    script!("tidy", " flags=allow-oom", ["identity", "log", "stream", "tidy"]);
pub static OPEN: LazyLock<Script> = script!("open", " flags=allow-oom", ["identity", "log", "open"]);
