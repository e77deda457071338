//! Servers with each engine that one server has for itself.

use std::path::Path;

use tidewire::config::{Config, StoreKind};

use super::{keep, rule};
use crate::common::TestServer;

pub fn in_memory() -> TestServer {
    in_memory_with(|_| {})
}

pub fn in_memory_with(set: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::with_config(|config| {
        config.replay.store = StoreKind::Memory;
        keep(&mut config.apps[0], vec![rule()]);
        set(config);
    })
}

pub fn on_disk(directory: &Path) -> TestServer {
    TestServer::with_config(|config| {
        config.replay.store = StoreKind::Sqlite;
        config.replay.dir = directory.to_owned();
        keep(&mut config.apps[0], vec![rule()]);
    })
}

/// Runs a test with each engine.
pub async fn on_each_store(test: impl AsyncFn(&TestServer)) {
    test(&in_memory()).await;
    let directory = tempfile::tempdir().unwrap();
    test(&on_disk(directory.path())).await;
}
