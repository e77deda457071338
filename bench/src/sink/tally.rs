//! What a sink has counted.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use hdrhistogram::Histogram;

use crate::control::Latency;
use crate::{clock, payload};

/// One frame in so many is read in full; the others are only counted.
const SAMPLE_EVERY: u64 = 512;
/// Latencies are microseconds up to a minute, to three digits.
const LONGEST_MICROSECONDS: u64 = 60_000_000;

#[derive(Default)]
pub struct Tally {
    /// Events over all connections since the last verification.
    pub events: u64,
    /// Members of presence channels that are known, over all connections.
    pub members: u64,
    /// Whether sampled frames of a connection must carry rising sequence numbers.
    ordered: bool,
    /// The last event frame that was sampled.
    pub last_event: Option<String>,
    latency: Option<Histogram<u32>>,
}

impl Tally {
    pub fn new(ordered: bool) -> Self {
        Tally { ordered, ..Tally::default() }
    }

    /// Counts one text frame that is not the protocol's own.
    pub fn event(&mut self, frame: &[u8], last_sequence: &mut u64) -> Result<()> {
        self.events += 1;
        if self.latency.is_none() && self.events % SAMPLE_EVERY != 1 {
            return Ok(());
        }
        let (_, stamp) = payload::read(frame)?;
        if self.ordered && stamp.sequence <= *last_sequence {
            bail!("event {} arrived after {}", stamp.sequence, last_sequence);
        }
        *last_sequence = stamp.sequence;
        if let Some(latency) = &mut self.latency {
            ensure!(stamp.at > Duration::ZERO, "an event without a time stamp while latency is measured");
            latency.saturating_record(clock::monotonic().saturating_sub(stamp.at).as_micros() as u64);
        } else {
            self.last_event = Some(String::from_utf8_lossy(frame).into_owned());
        }
        Ok(())
    }

    /// A connection that knew of so many members knows of more, or fewer.
    pub fn learn(&mut self, before: u64, after: u64) {
        self.members = self.members.wrapping_add(after).wrapping_sub(before);
    }

    pub fn start_timing(&mut self) -> Result<()> {
        self.latency = Some(Histogram::new_with_max(LONGEST_MICROSECONDS, 3)?);
        Ok(())
    }

    pub fn stop_timing(&mut self) -> Latency {
        let Some(latency) = self.latency.take() else { return Latency::default() };
        let at = |quantile| latency.value_at_quantile(quantile);
        Latency {
            count: latency.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: latency.max(),
        }
    }
}
