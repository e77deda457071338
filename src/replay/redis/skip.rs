//! Messages that were delivered without being stored: the stream's generation ends, once Redis can be reached.

use std::collections::HashSet;

use super::entry::text;
use super::names::partition_of;
use super::scripts::SKIP;
use super::state::Head;
use super::{RedisStore, join_all, unexpected};
use crate::replay::store::{StoreError, StreamName};
use crate::sync::lock;

/// Streams that may wait for it.
const MAX_SKIPS: usize = 65_536;

impl RedisStore {
    /// At once if it can be. Otherwise positions stay as they are until Redis is back; there they expire then.
    pub(super) async fn skip_one(&self, stream: &StreamName) {
        {
            let mut skips = lock(&self.skips);
            if skips.contains(stream) {
                return;
            }
            if skips.len() >= MAX_SKIPS {
                tracing::error!(
                    target: "tidewire::replay",
                    app = &*stream.app, channel = &*stream.channel,
                    "too many channels have had messages that are not in the log: a gap of this one will not be told"
                );
                return;
            }
            skips.insert(stream.clone());
        }
        // What fails waits for the next time.
        let _ = self.apply_skip(stream).await;
    }

    /// Tells Redis of the stream's gap, if it has one.
    pub(super) async fn apply_skip(&self, stream: &StreamName) -> Result<(), StoreError> {
        if !lock(&self.skips).contains(stream) {
            return Ok(());
        }
        let expire_ms = self.limits().expire_ms().to_string();
        let mut values = self.of_stream(&SKIP, stream, &[expire_ms]).await?;
        let log = self
            .note_log(partition_of(stream), values.next().map(|value| text(value).ok_or_else(unexpected)))?;
        let numbers: Option<Vec<u64>> = values.map(|value| text(value)?.parse().ok()).collect();
        let Some([serial, time_ms, total_bytes]) = numbers.as_deref() else { return Err(unexpected()) };
        let head = Head {
            generation: log.generation,
            serial: *serial,
            time_ms: *time_ms,
            total_bytes: *total_bytes,
            has_begun: false,
        };
        self.state.note_head(stream, head, log.generation, None);
        lock(&self.skips).remove(stream);
        Ok(())
    }

    pub(super) async fn apply_skips(&self) -> Result<(), StoreError> {
        let skips: HashSet<StreamName> = lock(&self.skips).clone();
        let applied = join_all(skips.iter().map(|stream| self.apply_skip(stream))).await;
        applied.into_iter().collect()
    }
}
