//! Replay over sockets. Not here: `generations`, which copies the files of a store; `tests/replay_redis/restarts.rs` has
//! what it proves for the log in Redis.

#[path = "../replay/asking.rs"]
mod asking;
#[path = "../replay/overrides.rs"]
mod overrides;
#[path = "../replay/refused.rs"]
mod refused;
#[path = "../replay/resuming.rs"]
mod resuming;
#[path = "../replay/slow.rs"]
mod slow;
#[path = "../replay/stock.rs"]
mod stock;
#[path = "../replay/support.rs"]
mod support;

pub(crate) use support::*;
