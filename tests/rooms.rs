//! Who may import what: each outside crate has one home, and async stops at the border.
#![allow(clippy::panic, reason = "a failing test panics")]

use std::fs;
use std::path::{Path, PathBuf};

/// A path that is used in code, and the files (or directories, with a slash) of src that may use it.
const HOMES: [(&str, &[&str]); 21] = [
    // Only the handshake; frames are our own (tidewire-protocol).
    ("fastwebsockets::", &["socket/upgrade.rs", "cli/listen.rs"]),
    ("hyper::upgrade", &["socket/upgrade.rs", "cli/listen.rs"]),
    ("hyper::", &["http/", "handshake.rs", "socket/upgrade.rs", "worker/accept.rs", "cli/", "sse/"]),
    ("hyper_util::", &["http/", "socket/upgrade.rs", "worker/accept.rs", "cli/"]),
    ("http_body_util::", &["http/", "socket/upgrade.rs", "cli/", "sse/"]),
    ("prometheus_client::", &["telemetry/"]),
    ("tracing_subscriber::", &["telemetry/logs.rs", "config/text.rs"]),
    ("dashmap::", &["hub/", "fanout/inbound.rs"]),
    ("slab::", &["worker/"]),
    ("socket2::", &["server.rs"]),
    ("rustix::", &["node.rs", "cli/descriptors.rs", "socket/stream.rs"]),
    // Certificates in one file; the stream behind the handshake in another.
    ("rustls::", &["tls.rs"]),
    ("tokio_rustls::", &["tls.rs", "socket/"]),
    ("clap::", &["cli/", "main.rs"]),
    ("clap_complete::", &["cli/"]),
    ("schemars::", &["config/"]),
    ("ipnet::", &["config/"]),
    ("serde_path_to_error::", &["config/"]),
    // Errors that are shown to a person.
    (
        "anyhow::",
        &[
            "server.rs",
            "tls.rs",
            "node.rs",
            "replay/mod.rs",
            "replay/handle.rs",
            "fanout/cluster.rs",
            "cli/",
            "main.rs",
        ],
    ),
    // Names of files: wherever these stores are implemented.
    ("redis::", &["fanout/redis/", "replay/redis/"]),
    ("rusqlite::", &["replay/sqlite.rs", "replay/sqlite/"]),
];

/// Synchronous rooms: no lock of theirs can be held across an await.
const WITHOUT_ASYNC: [&str; 4] = ["hub/", "app.rs", "socket/outbox.rs", "token_bucket.rs"];

/// A file that grows past this is split along the data flow.
const MAX_LINES: usize = 500;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below a directory: its path from there, and its text.
fn sources(directory: &str) -> Vec<(String, String)> {
    let base = root().join(directory);
    let mut pending: Vec<PathBuf> = vec![base.clone()];
    let mut files = Vec::new();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(
                fs::read_dir(&path).expect("a directory lists").map(|entry| entry.expect("it lists").path()),
            );
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(&base).expect("it lies below").to_string_lossy().replace('\\', "/");
            files.push((name, fs::read_to_string(&path).expect("a source is UTF-8")));
        }
    }
    assert!(!files.is_empty(), "no sources in {directory}");
    files
}

/// The lines that are code, numbered; comments may name anything.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    numbered.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Whether the path stands in the line by itself, not as the end of a longer name.
fn uses(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_' || letter == ':')
    })
}

fn is_in(file: &str, rooms: &[&str]) -> bool {
    rooms.iter().any(|room| match room.strip_suffix('/') {
        Some(_) => file.starts_with(room),
        None => file == *room || file.ends_with(&format!("/{room}")),
    })
}

fn assert_none(strays: &[String]) {
    assert!(strays.is_empty(), "\n{}", strays.join("\n"));
}

#[test]
fn each_outside_crate_has_one_home() {
    let mut strays = Vec::new();
    for (file, text) in sources("src") {
        for (path, homes) in HOMES {
            if is_in(&file, homes) {
                continue;
            }
            let lines = code(&text).filter(|(_, line)| uses(line, path));
            strays.extend(
                lines.map(|(number, _)| format!("src/{file}:{number}: `{path}` belongs to {homes:?}")),
            );
        }
    }
    assert_none(&strays);
}

#[test]
fn the_hub_and_the_outbox_are_synchronous() {
    let mut strays = Vec::new();
    for (file, text) in sources("src") {
        if is_in(&file, &WITHOUT_ASYNC) {
            let lines = code(&text).filter(|(_, line)| line.contains(".await") || uses(line, "async "));
            strays
                .extend(lines.map(|(number, _)| format!("src/{file}:{number}: async in a synchronous room")));
        }
    }
    assert_none(&strays);
}

#[test]
fn the_hub_knows_no_socket_and_no_http() {
    let mut strays = Vec::new();
    for (file, text) in sources("src") {
        if is_in(&file, &["hub/"]) {
            for path in
                ["tokio::", "std::net", "crate::socket", "crate::connection", "crate::http", "crate::server"]
            {
                let lines = code(&text).filter(|(_, line)| uses(line, path));
                strays.extend(lines.map(|(number, _)| format!("src/{file}:{number}: `{path}` in the hub")));
            }
        }
    }
    assert_none(&strays);
}

#[test]
fn the_protocol_is_pure() {
    let mut strays = Vec::new();
    for (file, text) in sources("protocol/src") {
        for path in [
            "async ",
            "tokio::",
            "futures",
            "std::net",
            "std::fs",
            "std::thread",
            "std::env",
            "std::time",
            "Instant",
            "SystemTime",
            "rand::",
            "hyper::",
            "println!",
            "eprintln!",
            "tracing::",
        ] {
            let lines = code(&text).filter(|(_, line)| uses(line, path));
            strays.extend(
                lines.map(|(number, _)| format!("protocol/src/{file}:{number}: `{path}` is not pure")),
            );
        }
        let awaits = code(&text).filter(|(_, line)| line.contains(".await"));
        strays.extend(awaits.map(|(number, _)| format!("protocol/src/{file}:{number}: an await")));
    }
    assert_none(&strays);
}

#[test]
fn the_protocol_depends_on_no_runtime() {
    let manifest = fs::read_to_string(root().join("protocol/Cargo.toml")).expect("the manifest is there");
    let dependencies = manifest.split("[dependencies]").nth(1).expect("it has dependencies");
    let dependencies = dependencies.split("\n[").next().unwrap_or_default();
    for line in dependencies.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
        let is_async =
            ["tokio", "futures", "async", "mio", "hyper", "smol", "socket2", "fastwebsockets", "rand"]
                .iter()
                .any(|prefix| name.starts_with(prefix));
        assert!(!is_async, "protocol/Cargo.toml depends on `{name}`");
    }
}

#[test]
fn every_file_says_first_what_it_is() {
    let mut strays = Vec::new();
    for directory in ["src", "protocol/src", "tests", "bench/src"] {
        for (file, text) in sources(directory) {
            if !text.starts_with("//! ") {
                strays.push(format!("{directory}/{file}:1: no `//!` sentence"));
            }
        }
    }
    assert_none(&strays);
}

#[test]
fn no_file_grows_without_end() {
    let mut strays = Vec::new();
    for directory in ["src", "protocol/src"] {
        for (file, text) in sources(directory) {
            let lines = text.lines().count();
            if lines > MAX_LINES {
                strays.push(format!("{directory}/{file}: {lines} lines, split it"));
            }
        }
    }
    assert_none(&strays);
}

#[test]
fn names_that_end_alike_are_told_apart() {
    assert!(uses("use redis::Client;", "redis::"));
    assert!(!uses("use fakeredis::Client;", "redis::"));
    assert!(!uses("crate::fanout::redis::Fanout", "redis::"), "a module of ours");
    assert!(is_in("fanout/redis.rs", &["redis.rs"]) && !is_in("fanout/xredis.rs", &["redis.rs"]));
    assert!(is_in("cli/listen.rs", &["cli/"]) && !is_in("client.rs", &["cli/"]));
}
