//! Whether the store takes messages, and whether it may be used at all.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::store::StoreError;
use crate::telemetry::metrics::Metrics;

/// Shared by the threads of one [`Replay`](super::Replay).
#[derive(Debug)]
pub struct Health {
    /// Why nothing must be written any more.
    failure: OnceLock<String>,
    is_up: AtomicBool,
    metrics: Arc<Metrics>,
}

impl Health {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        metrics.replay.store_up.set(1);
        Self { failure: OnceLock::new(), is_up: AtomicBool::new(true), metrics }
    }

    pub fn failure(&self) -> Option<StoreError> {
        self.failure.get().map(|reason| StoreError::Failed(reason.clone()))
    }

    /// Notes how an append ended; logs when that is news.
    pub fn note_append<T>(&self, outcome: &Result<T, StoreError>) {
        self.note_error(outcome);
        let is_up = outcome.is_ok() && self.failure.get().is_none();
        if is_up && !self.is_up.swap(true, Ordering::Relaxed) {
            tracing::info!(target: "tidewire::replay", "the store takes messages again");
            self.metrics.replay.store_up.set(1);
        }
    }

    /// Notes how another call ended. That it went well does not say that the next append will.
    pub fn note_error<T>(&self, outcome: &Result<T, StoreError>) {
        match outcome {
            Ok(_) => {}
            Err(StoreError::Failed(reason)) => self.fail(reason),
            Err(error) => {
                if self.is_up.swap(false, Ordering::Relaxed) {
                    tracing::error!(target: "tidewire::replay", %error, "the store takes no messages");
                    self.metrics.replay.store_up.set(0);
                }
            }
        }
    }

    fn fail(&self, reason: &str) {
        if self.failure.set(reason.to_owned()).is_ok() {
            tracing::error!(target: "tidewire::replay", reason, "the store has failed");
            self.metrics.replay.store_up.set(0);
        }
    }

    /// Held by a thread for its whole life: one that panics takes the store with it, rather than leave those who
    /// wait for it waiting.
    pub fn watch(self: &Arc<Self>) -> Watch {
        Watch(Arc::clone(self))
    }
}

#[derive(Debug)]
pub struct Watch(Arc<Health>);

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let name = std::thread::current().name().unwrap_or_default().to_owned();
            self.0.fail(&format!("the thread {name} panicked"));
        }
    }
}
