//! The thread that looks after the store: what is due once a second, and the metrics.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::health::Health;
use super::pages::Pages;
use super::store::{Stats, Store};
use super::unix_ms;
use crate::clock::Clock;
use crate::telemetry::metrics::Metrics;

const PERIOD: Duration = Duration::from_secs(1);

/// What the thread works with.
#[derive(Debug)]
pub struct Maintenance {
    pub store: Arc<dyn Store>,
    pub pages: Arc<Pages>,
    pub health: Arc<Health>,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    pub stop: Arc<Notify>,
}

impl Maintenance {
    /// Returns when it is told to stop. `runtime` has only the thread's timer.
    pub fn run(&self, runtime: &tokio::runtime::Runtime) {
        let _watch = self.health.watch();
        let mut seen = Stats::default();
        loop {
            seen = self.tell(&seen);
            let stops = runtime.block_on(async {
                tokio::select! {
                    () = self.clock.tick(PERIOD) => false,
                    () = self.stop.notified() => true,
                }
            });
            if stops {
                return;
            }
            if self.health.failure().is_none() {
                self.health.note_error(&self.store.maintain(unix_ms(&self.clock)));
            }
        }
    }

    /// Tells the metrics, and the log what somebody should know.
    fn tell(&self, seen: &Stats) -> Stats {
        let stats = self.store.stats();
        let metrics = &self.metrics.replay;
        metrics.streams.set(gauge(stats.streams));
        metrics.store_bytes.set(gauge(stats.bytes));
        let set_aside = stats.slices_set_aside.saturating_sub(seen.slices_set_aside);
        let dropped_early = stats.slices_dropped_early.saturating_sub(seen.slices_dropped_early);
        metrics.slices_set_aside.inc_by(set_aside);
        if dropped_early > 0 {
            tracing::warn!(
                target: "tidewire::replay",
                slices = dropped_early,
                "the store reached its max_bytes: the oldest messages went before their time"
            );
        }
        if set_aside + dropped_early > 0 {
            self.pages.forget_all();
        }
        stats
    }
}

fn gauge(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
