//! The server's clock, which tests can move forward.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

/// Monotonic and wall-clock time with a common offset; clones share it.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    started: Instant,
    /// Milliseconds that tests have added.
    offset_ms: AtomicU64,
    advanced: Notify,
}

impl Default for Clock {
    fn default() -> Self {
        Self(Arc::new(Inner {
            started: Instant::now(),
            offset_ms: AtomicU64::new(0),
            advanced: Notify::new(),
        }))
    }
}

impl Clock {
    /// Milliseconds since the clock was made; never goes back.
    pub fn now_ms(&self) -> u64 {
        let elapsed = u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        elapsed.saturating_add(self.0.offset_ms.load(Ordering::Relaxed))
    }

    /// Whole seconds since the clock was made.
    pub fn now_seconds(&self) -> u32 {
        u32::try_from(self.now_ms() / 1000).unwrap_or(u32::MAX)
    }

    /// Milliseconds since the Unix epoch.
    pub fn unix_millis(&self) -> i64 {
        let now = Self::wall_millis().saturating_add(self.0.offset_ms.load(Ordering::Relaxed));
        i64::try_from(now).unwrap_or(i64::MAX)
    }

    /// The same without what tests have added, to compare with another machine's clock.
    pub fn wall_millis() -> u64 {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)
    }

    /// Seconds since the Unix epoch, as request signatures count them.
    pub fn unix_seconds(&self) -> i64 {
        self.unix_millis() / 1000
    }

    /// Moves the clock forward and wakes everything that waits for a tick. For tests.
    pub fn advance(&self, by: Duration) {
        let by_ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.0.offset_ms.fetch_add(by_ms, Ordering::Relaxed);
        self.0.advanced.notify_waiters();
    }

    /// Returns after `period` or as soon as the clock was advanced.
    pub async fn tick(&self, period: Duration) {
        tokio::select! {
            () = tokio::time::sleep(period) => {}
            () = self.0.advanced.notified() => {}
        }
    }
}
