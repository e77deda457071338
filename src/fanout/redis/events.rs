//! Publishing that has something to decide: cached events, and idempotency keys.
//!
//! Other events need no script: [`Transport::publish`](super::transport::Transport::publish) sends them.

use redis::Value;

use super::scripts::{PUBLISH_CACHED, PUBLISH_ONCE};
use super::state::{State, read, unexpected};
use super::transport::LinkError;
use crate::fanout::keys::{PARTITIONS, partition};
use crate::fanout::message::{CachePart, Event, cache_offset, encode_event};
use crate::replay::keys::IDEMPOTENCY_WINDOW_MS;

/// What became of an event with an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Once {
    Published,
    /// It was published before.
    Repeat,
    /// The key belongs to another event.
    Conflict,
}

/// An event's texts as the scripts take them.
struct Args {
    topic: String,
    message: bytes::Bytes,
    /// Where in the message the cached value begins, its time in milliseconds, and the most entries.
    cache: Option<[String; 3]>,
}

impl State {
    /// Publishes an event of a cache channel, and keeps it for later subscribers. False when the app has
    /// `max_cached` events already (in about: each partition may have 64 of them, or four times its share) and this one is
    /// not kept.
    pub async fn publish_cached(
        &self,
        app: &str,
        channel: &str,
        event: &Event,
        max_cached: usize,
    ) -> Result<bool, LinkError> {
        let Args { topic, message, cache } = self.args_of(app, channel, event, max_cached);
        let at = partition(app, channel);
        let Some([offset, ttl_ms, most]) = cache else {
            let mut pipeline = redis::pipe();
            pipeline.cmd(self.transport.publish_command()).arg(topic).arg(&message[..]);
            self.transport.query(at, pipeline).await?.into_iter().try_for_each(read::<()>)?;
            return Ok(false);
        };
        let keys = [self.keys.cached(app, channel), self.keys.cached_channels(at, app)];
        let keys = keys.each_ref().map(|key| key.as_bytes());
        let args: [&[u8]; 7] = [
            self.transport.publish_command().as_bytes(),
            topic.as_bytes(),
            &message,
            offset.as_bytes(),
            ttl_ms.as_bytes(),
            channel.as_bytes(),
            most.as_bytes(),
        ];
        read(self.transport.script(at, &PUBLISH_CACHED, &keys, &args).await?)
    }

    /// Publishes an event unless `key` is known. `fingerprint` tells the event from others with the same key.
    pub async fn publish_once(
        &self,
        app: &str,
        channel: &str,
        key: &str,
        fingerprint: &str,
        event: &Event,
        max_cached: usize,
    ) -> Result<Once, LinkError> {
        let Args { topic, message, cache } = self.args_of(app, channel, event, max_cached);
        let at = partition(app, channel);
        let mut keys = vec![self.keys.idempotency(app, channel, key)];
        let window_ms = IDEMPOTENCY_WINDOW_MS.to_string();
        let mut args: Vec<&[u8]> = vec![
            self.transport.publish_command().as_bytes(),
            topic.as_bytes(),
            &message,
            fingerprint.as_bytes(),
            window_ms.as_bytes(),
        ];
        if let Some([offset, ttl_ms, most]) = &cache {
            keys.extend([self.keys.cached(app, channel), self.keys.cached_channels(at, app)]);
            args.extend([offset, ttl_ms, channel, most].map(str::as_bytes));
        }
        let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
        match self.transport.script(at, &PUBLISH_ONCE, &keys, &args).await? {
            Value::Int(0 | 1) => Ok(Once::Published),
            Value::Int(-1) => Ok(Once::Conflict),
            Value::Int(-2) => Ok(Once::Repeat),
            _ => Err(unexpected()),
        }
    }

    /// Whether `key` is known to belong to another event.
    pub async fn key_conflicts(
        &self,
        app: &str,
        channel: &str,
        key: &str,
        fingerprint: &str,
    ) -> Result<bool, LinkError> {
        let mut pipeline = redis::pipe();
        pipeline.get(self.keys.idempotency(app, channel, key));
        let mut values = self.transport.query(partition(app, channel), pipeline).await?;
        let known: Option<String> = read(values.pop().ok_or_else(unexpected)?)?;
        Ok(known.is_some_and(|known| known != fingerprint))
    }

    fn args_of(&self, app: &str, channel: &str, event: &Event, max_cached: usize) -> Args {
        let kept = event.cache.as_ref().filter(|cache| cache.ttl_ms > 0);
        let cache = cache_offset(event).zip(kept).map(|(offset, CachePart { ttl_ms, .. })| {
            // Channels are not spread evenly.
            let most = (max_cached / usize::from(PARTITIONS) * 4).max(max_cached.min(64));
            [offset.to_string(), ttl_ms.to_string(), most.to_string()]
        });
        Args { topic: self.keys.channel_topic(app, channel), message: encode_event(event), cache }
    }
}
