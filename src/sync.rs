//! What threads share: locks that outlive a panic of another holder, counters that have a maximum.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`, also when an earlier holder panicked.
///
/// Every critical section of this crate leaves its data whole at each step that can panic, so the data
/// behind a poisoned lock is still usable, and one failed task must not take the whole channel down.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts one more unless there are `max` already; whether it did.
pub fn count_up(count: &AtomicUsize, max: usize) -> bool {
    count
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < max).then_some(count + 1))
        .is_ok()
}
