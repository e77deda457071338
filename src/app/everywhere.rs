//! What an app has on all nodes: asked of the hub where the node is alone, and of the cluster otherwise.

use std::sync::Arc;

use bytes::Bytes;
use tidewire_protocol::DataToken;
use tidewire_protocol::channel_name::{ChannelName, USER_CHANNEL_PREFIX};
use tidewire_protocol::position::Position;
use tidewire_protocol::socket_id::SocketId;

use super::App;
use crate::fanout::cluster::LinkError;
use crate::hub::Publish;
use crate::hub::channel::{CacheEntry, CachedInfo, ChannelInfo};
use crate::replay::event::StoredEvent;
use crate::replay::keys::Known;
use crate::replay::publish;
use crate::replay::store::{StoreError, StreamName};
use crate::sync::lock;

impl App {
    /// What all nodes have of the channel.
    pub async fn channel_info(&self, name: ChannelName<'_>) -> Result<ChannelInfo, LinkError> {
        match &self.cluster {
            Some(cluster) => {
                let mut found = cluster.channel(&self.id, name.as_str()).await?;
                if name.is_cache() && found.cached.is_none() {
                    found.cached = self.cached_in_log(name.as_str()).await?.map(|(_, entry)| CachedInfo {
                        data: entry.data.into(),
                        ttl_seconds: entry.expires_ms.saturating_sub(self.now_ms()).div_ceil(1000),
                    });
                }
                Ok(found)
            }
            None => Ok(self.channels.info(name.as_str(), self.clock.now_ms())),
        }
    }

    /// The cached event of a stored channel of a cluster: nobody keeps it beside the log.
    pub async fn cached_in_log(&self, channel: &str) -> Result<Option<(Bytes, CacheEntry)>, LinkError> {
        let ttl_ms = {
            let settings = self.settings();
            settings.replay.rule(channel).map(|_| settings.limits.cache_ttl_seconds.saturating_mul(1000))
        };
        let (Some(ttl_ms), Some(replay)) = (ttl_ms, self.replay.get()) else { return Ok(None) };
        let stream = StreamName { app: self.id.clone(), channel: channel.into() };
        let newest = replay.newest(Arc::new(stream)).await.map_err(|_| LinkError::Unknown)?;
        Ok(newest.and_then(|message| {
            let age_ms = replay.now_ms().saturating_sub(message.stamp.time_ms);
            let left_ms = ttl_ms.checked_sub(age_ms).filter(|left| *left > 0)?;
            let data = DataToken::from_stored(&message.content.data).decode().unwrap_or_default().into();
            let entry = CacheEntry { data, expires_ms: self.now_ms().saturating_add(left_ms) };
            Some((StoredEvent::from_message(channel, message).plain().clone(), entry))
        }))
    }

    /// Occupied channels whose name begins with `prefix`.
    pub async fn occupied_channels(&self, prefix: &str) -> Result<Vec<(Box<str>, ChannelInfo)>, LinkError> {
        match &self.cluster {
            Some(cluster) => {
                let mut channels = cluster.channels(&self.id, prefix).await?;
                channels.retain(|(name, _)| !name.starts_with(USER_CHANNEL_PREFIX));
                Ok(channels)
            }
            None => Ok(self.channels.occupied(prefix, self.clock.now_ms())),
        }
    }

    pub async fn presence_user_ids(&self, name: ChannelName<'_>) -> Result<Vec<Box<str>>, LinkError> {
        match &self.cluster {
            Some(cluster) => cluster.user_ids(&self.id, name.as_str()).await,
            None => {
                let channel = self.channels.get(name.as_str());
                Ok(channel.map(|channel| channel.user_ids()).unwrap_or_default())
            }
        }
    }

    /// Connections on all nodes.
    pub async fn all_connections(&self) -> Result<usize, LinkError> {
        match &self.cluster {
            Some(cluster) => cluster.connections(&self.id).await,
            None => Ok(self.connection_count()),
        }
    }

    /// Closes every connection that signed in as the user (4.8).
    pub async fn terminate_user(&self, user_id: &str) -> Result<(), LinkError> {
        match &self.cluster {
            Some(cluster) => cluster.terminate(&self.id, user_id).await,
            None => {
                let closed = self.users.terminate(user_id);
                tracing::debug!(target: "tidewire::app", app_id = &*self.id, closed, "terminated a user");
                Ok(())
            }
        }
    }

    /// Where the channel's log stands; `None` when the channel is not stored.
    pub async fn position(&self, channel: ChannelName<'_>) -> Result<Option<Position>, StoreError> {
        let is_stored = self.settings().replay.rule(channel.as_str()).is_some();
        let Some(replay) = self.replay.get().filter(|_| is_stored) else { return Ok(None) };
        let stream = StreamName { app: self.id.clone(), channel: channel.as_str().into() };
        replay.head(Arc::new(stream)).await.map(Some)
    }

    /// Whether `key` is known to belong to another event of the channel.
    pub async fn key_conflicts(
        &self,
        channel: ChannelName<'_>,
        event: &str,
        data: &DataToken<'_>,
        except: Option<SocketId>,
        key: &str,
    ) -> bool {
        let event = Publish { channel, event, data, user_id: None, except, cache_ttl_ms: None };
        if let Some(rule) = self.settings().replay.rule(channel.as_str()) {
            let append = publish::append_of(&self.id, &event, Some(key), rule);
            return self.replay.get().is_some_and(|replay| replay.conflicts(&append));
        }
        if let Some(cluster) = &self.cluster {
            let digest = self.keyed(&event, key).digest();
            // What cannot be found out now is when the event is published.
            return cluster.key_conflicts(&self.id, channel.as_str(), key, &digest).await.unwrap_or(false);
        }
        let mut keys = lock(&self.keys);
        let message = keys.fingerprint(&self.keyed(&event, key));
        keys.look_up(message, self.clock.now_ms()) == Known::Conflict
    }
}
