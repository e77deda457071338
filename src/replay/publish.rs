//! The way of a message through the log: written first, delivered in the order of the log, then acknowledged.

use std::sync::Arc;

use tidewire_protocol::channel_name::ChannelName;
use tidewire_protocol::position::Position;
use tidewire_protocol::{DataToken, SocketId, frame, server_message};

use super::event::StoredEvent;
use super::store::{Append, Appended, Content, Hints, Retention, StoreError, StreamName};
use super::{Busy, Replay};
use crate::config::{OnStoreError, ReplayRule};
use crate::hub::{Directory, Publish};

/// What became of a message for a stored channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// Kept and delivered, at this place.
    Stored(Position),
    /// It was kept and delivered before, under the same idempotency key.
    Repeat(Position),
    /// Its idempotency key belongs to another message: nothing was done.
    Conflict,
    /// Delivered, but not kept: the store could not take it, and is configured to go on without.
    Live,
}

/// Called once, when the message was delivered or was not.
pub type PublishDone = Box<dyn FnOnce(Result<Published, StoreError>) + Send>;

/// Limits of the app that bound the channel's cached event.
#[derive(Clone, Copy, Debug)]
pub struct Caching {
    pub max_events: usize,
    /// Milliseconds of the server's clock.
    pub now_ms: u64,
}

/// Where a message goes once it is kept.
struct Delivery {
    directory: Arc<Directory>,
    replay: Arc<Replay>,
    stream: StreamName,
    plain: bytes::Bytes,
    id: Option<Box<str>>,
    except: Option<SocketId>,
    size: u64,
    /// Of cache channels, which keep the data of their last event.
    data: Option<DataToken<'static>>,
    cache_ttl_ms: Option<u64>,
    caching: Caching,
}

/// Gives an event to the log, as [`append_of`] it.
pub fn publish(
    replay: &Arc<Replay>,
    directory: &Arc<Directory>,
    event: Publish<'_>,
    append: Append,
    caching: Caching,
    done: PublishDone,
) -> Result<(), Busy> {
    let channel = event.channel.as_str();
    let text = server_message::channel_event(event.event, channel, event.data, event.user_id);
    let Append { stream, content, .. } = &append;
    let delivery = Delivery {
        directory: Arc::clone(directory),
        replay: Arc::clone(replay),
        stream: stream.clone(),
        plain: frame::encode_text(&text),
        id: content.id.clone(),
        except: event.except,
        size: content.size(),
        data: event.channel.is_cache().then(|| event.data.clone().into_owned()),
        cache_ttl_ms: event.cache_ttl_ms,
        caching,
    };
    let bytes = delivery.plain.len() + usize::try_from(delivery.size).unwrap_or(usize::MAX);
    replay.append(append, bytes, Box::new(move |appended| done(delivery.appended(appended))))
}

/// An event as the store takes it. `id` is the publisher's idempotency key.
pub fn append_of(app_id: &str, event: &Publish<'_>, id: Option<&str>, rule: &ReplayRule) -> Append {
    let Retention { window_ms, max_messages, max_bytes, inactivity_ttl_ms } = rule.retention();
    Append {
        inactivity_ttl_ms,
        hints: Hints {
            max_messages,
            max_bytes,
            window_ms,
            cache_ttl_ms: event.cache_ttl_ms.filter(|_| event.channel.is_cache()),
        },
        stream: StreamName { app: app_id.into(), channel: event.channel.as_str().into() },
        content: Content {
            id: id.map(Box::from),
            event: event.event.into(),
            data: event.data.as_json().into(),
            user_id: event.user_id.map(Box::from),
            except: event.except.map(SocketId::to_bits),
        },
    }
}

impl Delivery {
    fn appended(self, appended: Result<Appended, StoreError>) -> Result<Published, StoreError> {
        match appended {
            // The store has sent it to all nodes, this one among them.
            Ok(Appended::Stored(stamp)) if self.replay.is_shared() => Ok(Published::Stored(stamp.position)),
            Ok(Appended::Stored(stamp)) => {
                let event =
                    StoredEvent::new(self.plain.clone(), stamp, self.id.clone(), self.except, self.size);
                let event = Arc::new(event);
                self.with_publish(|publish, caching| {
                    self.directory.publish_stored(publish, &event, caching.max_events, caching.now_ms);
                });
                Ok(Published::Stored(stamp.position))
            }
            Ok(Appended::Repeat(position)) => Ok(Published::Repeat(position)),
            Ok(Appended::Conflict) => Ok(Published::Conflict),
            Err(StoreError::Full | StoreError::Unavailable(_))
                if self.replay.on_store_error() == OnStoreError::LiveOnly && !self.replay.is_shared() =>
            {
                // First the generation ends, so that nobody takes a position from before for the whole story.
                self.replay.skip(&self.stream);
                let behind = self.replay.position(&self.stream);
                self.with_publish(|publish, caching| {
                    let Caching { max_events, now_ms } = caching;
                    self.directory.publish_skipped(publish, &self.plain, behind, max_events, now_ms);
                });
                Ok(Published::Live)
            }
            Err(error) => Err(error),
        }
    }

    fn with_publish(&self, run: impl FnOnce(Publish<'_>, Caching)) {
        // It was parsed before it was queued; a reload may have shortened the limit since.
        let Ok(channel) = ChannelName::parse(&self.stream.channel, usize::MAX) else { return };
        let publish = Publish {
            channel,
            // The frame has it already.
            event: "",
            data: self.data.as_ref().unwrap_or(&DataToken::EMPTY_OBJECT),
            user_id: None,
            except: self.except,
            cache_ttl_ms: self.cache_ttl_ms,
        };
        run(publish, self.caching);
    }
}
