//! Reading: channels, one channel, its users, counts (4.7).

use std::ops::Deref;

use hyper::StatusCode;
use serde::{Serialize, Serializer};
use tidewire_protocol::ChannelName;
use tidewire_protocol::http_api::Info;
use tidewire_protocol::position::Position;

use super::verify::{Verified, bad_request};
use super::{link_error, store_error};
use crate::config::AppConfig;
use crate::http::respond::{self, Refusal, Reply};
use crate::hub::channel::{CachedInfo, ChannelInfo};

const NOTHING_READ: &str = "nothing was read";

/// Every occupied channel, with the attributes that were asked for.
pub async fn channels(request: &Verified<'_>) -> Result<Reply, Refusal> {
    let info = info(request)?;
    let prefix = request.query.get("filter_by_prefix").unwrap_or("");
    if info.user_count && !prefix.starts_with("presence-") {
        return Err(refuse(
            "user_count may only be requested for presence channels: \
             please supply filter_by_prefix beginning with presence-",
        ));
    }
    if info.cache {
        return Err(refuse(
            "info should be a comma separated list of attributes (user_count, subscription_count); cache is only told of a single channel",
        ));
    }
    if info.position {
        return Err(refuse(
            "info should be a comma separated list of attributes (user_count, subscription_count); position is only told of a single channel",
        ));
    }
    let mut occupied = request.app.occupied_channels(prefix).await.map_err(link_error::unreadable)?;
    occupied.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    let max_length = request.settings.limits.max_channel_name_length;
    let channels = occupied.into_iter().map(|(name, found)| {
        let attributes = match ChannelName::parse(&name, max_length) {
            Ok(parsed) => attributes(parsed, info, &found, &request.settings),
            // Subscribed to before a reload shortened the limit.
            Err(_) => Attributes::default(),
        };
        (name, attributes)
    });
    Ok(respond::json(&ChannelsReply { channels: ByName(channels.collect()) }))
}

/// One channel; one that nobody ever used is not occupied, not missing.
pub async fn channel(request: &Verified<'_>, name: &str) -> Result<Reply, Refusal> {
    let name = channel_name(request, name)?;
    let info = info(request)?;
    if info.user_count && !name.is_presence() {
        return Err(refuse("Cannot retrieve the user count unless the channel is a presence channel"));
    }
    if info.subscription_count && name.is_presence() {
        return Err(refuse(
            "Cannot retrieve the subscription count of a presence channel: it has a user_count",
        ));
    }
    if info.subscription_count && !request.settings.subscription_count {
        return Err(refuse(
            "Cannot retrieve the subscription count unless subscription_count is enabled for the app",
        ));
    }
    if info.cache && !name.is_cache() {
        return Err(refuse("Cannot retrieve the cache unless the channel is a cache channel"));
    }
    let found = request.app.channel_info(name).await.map_err(link_error::unreadable)?;
    let position = match info.position {
        true => {
            request.app.position(name).await.map_err(|error| store_error::refusal(&error, NOTHING_READ))?
        }
        false => None,
    };
    Ok(respond::json(&ChannelReply {
        occupied: found.occupied,
        attributes: attributes(name, info, &found, &request.settings).at(position),
        cache: info.cache.then(|| found.cached.as_ref().map(CacheReply::from)),
    }))
}

/// The distinct users of a presence channel; none of an unoccupied one.
pub async fn channel_users(request: &Verified<'_>, name: &str) -> Result<Reply, Refusal> {
    let name = channel_name(request, name)?;
    if !name.is_presence() {
        return Err(refuse("Users can only be retrieved for presence channels"));
    }
    let ids = request.app.presence_user_ids(name).await.map_err(link_error::unreadable)?;
    let users = ids.iter().map(|id| UserReply { id }).collect();
    Ok(respond::json(&UsersReply { users }))
}

/// What a channel was asked before 2012 (4.9).
pub async fn legacy_stats(request: &Verified<'_>, name: &str) -> Result<Reply, Refusal> {
    let name = channel_name(request, name)?;
    let found = request.app.channel_info(name).await.map_err(link_error::unreadable)?;
    // Nodes tell each other how many there are where that is enabled.
    let is_counted =
        request.app.cluster.is_none() || (request.settings.subscription_count && !name.is_presence());
    Ok(respond::json(&StatsReply {
        occupied: found.occupied,
        user_count: (found.occupied && name.is_presence()).then_some(found.user_count),
        connection_count: (found.occupied && is_counted).then_some(found.subscription_count),
    }))
}

/// How many connections the app has, as Reverb tells it.
pub async fn connections(request: &Verified<'_>) -> Result<Reply, Refusal> {
    let connections = request.app.all_connections().await.map_err(link_error::unreadable)?;
    Ok(respond::json(&ConnectionsReply { connections }))
}

/// Counts of a channel; what was not asked for, or does not apply, is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Attributes {
    #[serde(skip_serializing_if = "Option::is_none")]
    user_count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription_count: Option<usize>,
    /// In the channel's log.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_text")]
    position: Option<Position>,
}

impl Attributes {
    pub fn at(self, position: Option<Position>) -> Self {
        Self { position, ..self }
    }
}

fn as_text<S: Serializer>(position: &Option<Position>, serializer: S) -> Result<S::Ok, S::Error> {
    match position {
        Some(position) => serializer.collect_str(position),
        None => serializer.serialize_none(),
    }
}

pub fn attributes(name: ChannelName<'_>, info: Info, found: &ChannelInfo, app: &AppConfig) -> Attributes {
    let has_user_count = name.is_presence();
    let has_subscription_count = !name.is_presence() && app.subscription_count;
    Attributes {
        user_count: (info.user_count && has_user_count).then_some(found.user_count),
        subscription_count: (info.subscription_count && has_subscription_count)
            .then_some(found.subscription_count),
        position: None,
    }
}

/// Channels as a JSON object, also when there are none: PHP calls a function of the object.
pub struct ByName<N>(pub Vec<(N, Attributes)>);

impl<N: Deref<Target = str>> Serialize for ByName<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, attributes)| (&**name, attributes)))
    }
}

#[derive(Serialize)]
struct ChannelsReply {
    channels: ByName<Box<str>>,
}

#[derive(Serialize)]
struct ChannelReply<'a> {
    occupied: bool,
    #[serde(flatten)]
    attributes: Attributes,
    /// The inner `None` is `null`: an empty cache that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<Option<CacheReply<'a>>>,
}

#[derive(Serialize)]
struct CacheReply<'a> {
    data: &'a str,
    /// Seconds left.
    ttl: u64,
}

impl<'a> From<&'a CachedInfo> for CacheReply<'a> {
    fn from(cached: &'a CachedInfo) -> Self {
        Self { data: &cached.data, ttl: cached.ttl_seconds }
    }
}

#[derive(Serialize)]
struct UsersReply<'a> {
    users: Vec<UserReply<'a>>,
}

#[derive(Serialize)]
struct UserReply<'a> {
    id: &'a str,
}

#[derive(Serialize)]
struct StatsReply {
    occupied: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection_count: Option<usize>,
}

#[derive(Serialize)]
struct ConnectionsReply {
    connections: usize,
}

fn info(request: &Verified<'_>) -> Result<Info, Refusal> {
    request.query.get("info").map_or(Ok(Info::default()), Info::parse).map_err(bad_request)
}

pub fn channel_name<'n>(request: &Verified<'_>, name: &'n str) -> Result<ChannelName<'n>, Refusal> {
    let max_length = request.settings.limits.max_channel_name_length;
    ChannelName::parse(name, max_length).map_err(|error| refuse(error.to_string()))
}

fn refuse(text: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, text)
}
