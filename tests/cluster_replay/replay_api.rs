//! Replay over the REST API. Not here: `refusals`, `live_only` and `rules`, whose log is a store of the test's own that
//! fails when it is told to; `tests/replay_redis` and `tests/cluster/outage.rs` break a real Redis.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};

use tidewire::config::Config;

use crate::common::TestServer;
use crate::common::nodes::Place;

#[path = "../replay_api/batches.rs"]
mod batches;
#[path = "../replay_api/gone.rs"]
mod gone;
#[path = "../replay_api/history.rs"]
mod history;
#[path = "../replay_api/idempotency.rs"]
mod idempotency;
#[path = "../replay_api/positions.rs"]
mod positions;
#[path = "../replay_api/purge.rs"]
mod purge;
#[path = "../replay_api/support.rs"]
mod support;

pub(crate) use support::*;

pub fn in_memory() -> TestServer {
    in_memory_with(|_| {})
}

pub fn in_memory_with(set: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::with_config(|config| {
        keep(&mut config.apps[0], vec![rule()]);
        set(config);
    })
}

/// Nodes that go on with what earlier ones stored for the same directory.
pub fn on_disk(directory: &Path) -> TestServer {
    static PLACES: LazyLock<Mutex<HashMap<PathBuf, Place>>> = LazyLock::new(Mutex::default);
    let place = PLACES.lock().unwrap().entry(directory.to_owned()).or_insert_with(Place::shared).clone();
    TestServer::at(place, |config| keep(&mut config.apps[0], vec![rule()]))
}

/// There is one.
pub async fn on_each_store(test: impl AsyncFn(&TestServer)) {
    test(&in_memory()).await;
}
