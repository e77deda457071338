//! The metrics of replay: what the store does, and what becomes of clients that come back.

use std::fmt;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tidewire_protocol::replay::Reason;

use super::metrics::add;

/// Handles of one server. A handle that is a field costs an atomic addition, no look-up.
pub struct ReplayMetrics {
    /// Messages stored.
    pub stored: Counter,
    /// Messages that were there already, by their idempotency key.
    pub repeats: Counter,
    /// Messages refused because their idempotency key belongs to another content.
    pub conflicts: Counter,
    /// Messages that the store could not take.
    pub failed: Counter,
    /// Time that one batch took to be written.
    pub append_seconds: Histogram,
    /// Messages in one batch.
    pub batch_messages: Histogram,
    /// Channels with messages.
    pub streams: Gauge,
    /// On disk or in memory.
    pub store_bytes: Gauge,
    /// 1 while the store takes messages.
    pub store_up: LateGauge,
    /// Damaged slices that were set aside.
    pub slices_set_aside: Counter,
    /// Pages given to those who catch up.
    pub pages: Counter,
    /// …of them without reading the store.
    pub page_cache_hits: Counter,
    /// Subscribers that are reading the log to catch up.
    pub chasing: Gauge,
    /// Live subscribers that read too slowly and went back to the log.
    pub demotions: Counter,
    /// Messages that could not be read when a page was, and are skipped.
    pub skipped: Counter,
    resumes: Resumes,
}

/// A gauge without a series until it is set: 0 would say that something is wrong.
pub struct LateGauge(Family<[(&'static str, &'static str); 0], Gauge>);

impl LateGauge {
    pub(super) fn new(family: Family<[(&'static str, &'static str); 0], Gauge>) -> Self {
        Self(family)
    }

    pub fn set(&self, value: i64) {
        self.0.get_or_create(&[]).set(value);
    }

    pub fn get(&self) -> i64 {
        self.0.get_or_create(&[]).get()
    }
}

/// One counter for each end of an attempt to resume.
struct Resumes {
    recovered: Counter,
    expired: Counter,
    rolled_back: Counter,
    stream_reset: Counter,
    too_many: Counter,
    disabled: Counter,
}

impl ReplayMetrics {
    pub(super) fn register(r: &mut Registry) -> Self {
        let appends: Family<OutcomeLabels, Counter> =
            add(r, "tidewire_replay_appends", "Messages given to the store, by what became of them");
        let append = |outcome| appends.get_or_create_owned(&OutcomeLabels { outcome });
        Self {
            stored: append("stored"),
            repeats: append("repeat"),
            conflicts: append("conflict"),
            failed: append("failed"),
            append_seconds: histogram(
                r,
                "tidewire_replay_append_seconds",
                "Time the store took to write one batch",
                APPEND_BUCKETS_SECONDS,
            ),
            batch_messages: histogram(
                r,
                "tidewire_replay_batch_messages",
                "Messages written in one batch",
                BATCH_BUCKETS_MESSAGES,
            ),
            streams: add(r, "tidewire_replay_streams", "Channels that have stored messages"),
            store_bytes: add(r, "tidewire_replay_store_bytes", "Size of the store on disk or in memory"),
            store_up: LateGauge(add(
                r,
                "tidewire_replay_store_up",
                "1 while the store takes messages, otherwise 0; absent while there is none",
            )),
            slices_set_aside: add(
                r,
                "tidewire_replay_slices_set_aside",
                "Files of the store that were damaged and set aside",
            ),
            pages: add(r, "tidewire_replay_pages", "Pages of messages given to clients that catch up"),
            page_cache_hits: add(
                r,
                "tidewire_replay_page_cache_hits",
                "Pages that were in memory or already on their way to another client",
            ),
            chasing: add(r, "tidewire_replay_chasing", "Subscribers that are catching up from the store"),
            demotions: add(
                r,
                "tidewire_replay_demotions",
                "Subscribers that read too slowly and went on from the store",
            ),
            skipped: add(r, "tidewire_replay_skipped", "Messages that could not be read when a page was"),
            resumes: Resumes::register(r),
        }
    }

    /// Counts one subscriber that asked to resume or to rewind.
    pub fn count_resume(&self, outcome: Result<(), Reason>) {
        let resumes = &self.resumes;
        let counter = match outcome {
            Ok(()) => &resumes.recovered,
            Err(Reason::Expired) => &resumes.expired,
            Err(Reason::RolledBack) => &resumes.rolled_back,
            Err(Reason::StreamReset) => &resumes.stream_reset,
            Err(Reason::TooMany) => &resumes.too_many,
            Err(Reason::Disabled) => &resumes.disabled,
        };
        counter.inc();
    }
}

impl Resumes {
    fn register(r: &mut Registry) -> Self {
        let resumes: Family<OutcomeLabels, Counter> = add(
            r,
            "tidewire_replay_resumes",
            "Subscriptions that asked for earlier messages, or for positions of a channel that has none, by the answer",
        );
        let resume = |outcome: Result<(), Reason>| {
            let outcome = outcome.map_or_else(Reason::as_str, |()| "recovered");
            resumes.get_or_create_owned(&OutcomeLabels { outcome })
        };
        Self {
            recovered: resume(Ok(())),
            expired: resume(Err(Reason::Expired)),
            rolled_back: resume(Err(Reason::RolledBack)),
            stream_reset: resume(Err(Reason::StreamReset)),
            too_many: resume(Err(Reason::TooMany)),
            disabled: resume(Err(Reason::Disabled)),
        }
    }
}

/// Upper bounds in seconds: from a batch in the page cache to a disk that is in trouble.
const APPEND_BUCKETS_SECONDS: [f64; 13] =
    [50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 0.1, 0.5, 1.0, 10.0];
/// Upper bounds in messages.
const BATCH_BUCKETS_MESSAGES: [f64; 8] = [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16_384.0];

fn histogram(r: &mut Registry, name: &str, help: &str, buckets: impl IntoIterator<Item = f64>) -> Histogram {
    let histogram = Histogram::new(buckets);
    r.register(name, help, histogram.clone());
    histogram
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

impl fmt::Debug for ReplayMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayMetrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::metrics::Metrics;
    use super::*;

    #[test]
    fn every_outcome_has_a_series_from_the_start() {
        let metrics = Metrics::new();
        metrics.replay.stored.inc_by(3);
        metrics.replay.count_resume(Err(Reason::TooMany));
        metrics.replay.append_seconds.observe(70e-6);
        let page = metrics.encode();
        for line in [
            "tidewire_replay_appends_total{outcome=\"stored\"} 3",
            "tidewire_replay_appends_total{outcome=\"repeat\"} 0",
            "tidewire_replay_resumes_total{outcome=\"recovered\"} 0",
            "tidewire_replay_resumes_total{outcome=\"too_many\"} 1",
            "tidewire_replay_append_seconds_bucket{le=\"0.0001\"} 1",
            "tidewire_replay_chasing 0",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is missing in\n{page}");
        }
        assert!(!page.contains("\ntidewire_replay_store_up"), "{page}");
        metrics.replay.store_up.set(0);
        let page = metrics.encode();
        assert!(page.contains("\ntidewire_replay_store_up{} 0\n"), "{page}");
    }
}
