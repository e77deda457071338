//! Bodies and attributes of the REST API (4.5 to 4.9), borrowed from the request.
//!
//! The texts of errors name the limit, the size, the channel and the event: publishers read them in their logs.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::value::RawValue;

use crate::http_auth::ApiQuery;
use crate::{DataToken, SocketId, ValidChannel, json};

pub use crate::history::{HistoryCursor, HistoryQuery};

/// Names that belong to the protocol; publishers may not use them (2.6).
const RESERVED_EVENT_PREFIXES: [&str; 2] = ["pusher:", "pusher_internal:"];
/// Characters of a wrong name that are repeated to the publisher.
const MAX_ECHOED_CHARACTERS: usize = 200;
/// Characters of an idempotency key.
pub const MAX_IDEMPOTENCY_KEY_LENGTH: usize = 128;

/// The limits of one app that a publish request is held to.
#[derive(Clone, Copy, Debug)]
pub struct TriggerLimits {
    pub max_channels: usize,
    pub max_channel_name_length: usize,
    /// In characters.
    pub max_event_name_length: usize,
    /// Of the decoded `data`, in UTF-8 bytes.
    pub max_event_bytes: usize,
    pub max_batch_events: usize,
}

/// Why a request is refused: an HTTP status and a text for the publisher, without a newline at its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct ApiError {
    pub status: u16,
    pub text: String,
}

impl ApiError {
    pub fn bad_request(text: impl Into<String>) -> Self {
        Self { status: 400, text: text.into() }
    }

    pub fn too_large(text: impl Into<String>) -> Self {
        Self { status: 413, text: text.into() }
    }
}

/// One event for one or more channels.
#[derive(Clone, Debug)]
pub struct Trigger<'a> {
    pub name: Cow<'a, str>,
    pub data: DataToken<'a>,
    /// Distinct, in the order they were sent; at least one.
    pub channels: Vec<ValidChannel<'a>>,
    /// The connection to leave out. An id that no connection carries is absent.
    pub socket_id: Option<SocketId>,
    pub info: Info,
    /// Makes the event once only, however often the request is repeated. Subscribers see it as the event's id.
    pub idempotency_key: Option<Cow<'a, str>>,
}

impl<'a> Trigger<'a> {
    /// Reads the body of `POST /apps/{id}/events`.
    pub fn parse(body: &'a [u8], limits: &TriggerLimits) -> Result<Self, ApiError> {
        let body = utf8_body(body)?;
        const NAMES: [&str; 7] =
            ["name", "data", "channels", "channel", "socket_id", "info", "idempotency_key"];
        let [name, data, channels, channel, socket_id, info, key] = members(body, NAMES)?;
        let name = event_name(name, limits)?;
        // PHP sends `channel` for a single one. `channels` wins where both are there.
        let channels = match channels {
            Some(channels) => channel_list(channels, &name, limits)?,
            None => vec![one_channel(channel, "channels", limits)?],
        };
        Self::assemble(name, data, channels, [socket_id, info, key], limits)
    }

    /// One item of a batch: as a trigger, with exactly one channel.
    fn parse_item(item: &'a RawValue, limits: &TriggerLimits) -> Result<Self, ApiError> {
        let [name, data, channel, socket_id, info, key] =
            members(item.get(), ["name", "data", "channel", "socket_id", "info", "idempotency_key"])?;
        let name = event_name(name, limits)?;
        let channels = vec![one_channel(channel, "channel", limits)?];
        Self::assemble(name, data, channels, [socket_id, info, key], limits)
    }

    /// What is read alike of triggers and of the items of a batch.
    fn assemble(
        name: Cow<'a, str>,
        data: Option<&'a RawValue>,
        channels: Vec<ValidChannel<'a>>,
        [socket_id, info, key]: [Option<&'a RawValue>; 3],
        limits: &TriggerLimits,
    ) -> Result<Self, ApiError> {
        let data = event_data(data, &name, &channels, limits)?;
        Ok(Self {
            name,
            data,
            channels,
            socket_id: excluded_socket(socket_id)?,
            info: optional_info(info)?,
            idempotency_key: idempotency_key(key)?,
        })
    }

    /// The publish call of 2012: the body is the data, the rest stands in the path and the query (4.9).
    pub fn legacy(
        channel: &'a str,
        query: &'a ApiQuery<'_>,
        body: &[u8],
        limits: &TriggerLimits,
    ) -> Result<Self, ApiError> {
        let body = utf8_body(body)?;
        let name = Cow::Borrowed(query.get("name").ok_or_else(|| missing("name"))?);
        check_event_name(&name, limits)?;
        let channels = vec![valid_channel(channel.into(), limits)?];
        check_data_size(body.len(), &name, &channels, limits)?;
        let socket_id = query.get("socket_id").filter(|text| !text.is_empty());
        Ok(Self {
            name,
            data: DataToken::from_text(body),
            channels,
            socket_id: socket_id.map(parse_socket).transpose()?.flatten(),
            info: Info::default(),
            idempotency_key: None,
        })
    }
}

/// Events to be published in order, all or none.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    /// Each with exactly one channel.
    pub events: Vec<Trigger<'a>>,
}

impl<'a> Batch<'a> {
    /// Reads the body of `POST /apps/{id}/batch_events`.
    pub fn parse(body: &'a [u8], limits: &TriggerLimits) -> Result<Self, ApiError> {
        let [batch] = members(utf8_body(body)?, ["batch"])?;
        let batch = batch.ok_or_else(|| missing("batch"))?;
        let (items, count) = json::elements(batch, limits.max_batch_events)
            .map_err(|_| ApiError::bad_request("Invalid parameter: batch must be an array of events"))?;
        if count == 0 {
            return Err(ApiError::bad_request("Invalid parameter: batch must hold at least one event"));
        }
        if count > limits.max_batch_events {
            return Err(ApiError::bad_request(format!(
                "Batch of {count} events exceeds the allowed maximum ({})",
                limits.max_batch_events
            )));
        }
        let parse = |(index, item)| {
            Trigger::parse_item(item, limits).map_err(|ApiError { status, text }| ApiError {
                status,
                text: format!("Invalid event at index {index} of the batch: {text}"),
            })
        };
        Ok(Self { events: items.into_iter().enumerate().map(parse).collect::<Result<_, _>>()? })
    }
}

/// The attributes of channels that a request asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Info {
    pub user_count: bool,
    pub subscription_count: bool,
    pub cache: bool,
    pub position: bool,
}

impl Info {
    /// Reads a comma list. Which attribute a channel can have is the caller's to decide (4.5, 4.7).
    pub fn parse(list: &str) -> Result<Self, ApiError> {
        let mut info = Self::default();
        for attribute in list.split(',').map(str::trim).filter(|attribute| !attribute.is_empty()) {
            match attribute {
                "user_count" => info.user_count = true,
                "subscription_count" => info.subscription_count = true,
                "cache" => info.cache = true,
                "position" => info.position = true,
                unknown => {
                    return Err(ApiError::bad_request(format!(
                        "info should be a comma separated list of attributes (user_count, subscription_count, cache, position); \
                         '{}' is none of them",
                        shortened(unknown)
                    )));
                }
            }
        }
        Ok(info)
    }

    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

fn utf8_body(body: &[u8]) -> Result<&str, ApiError> {
    std::str::from_utf8(body).map_err(|_| ApiError::bad_request("Invalid body: not UTF-8"))
}

/// The members of these names; `null` counts as absent.
fn members<'a, const N: usize>(
    object: &'a str,
    names: [&str; N],
) -> Result<[Option<&'a RawValue>; N], ApiError> {
    json::present_members(object, names).map_err(|error| {
        ApiError::bad_request(match error.is_data() {
            true => "Invalid body: not a JSON object".to_owned(),
            false => format!("Invalid body: not JSON ({error})"),
        })
    })
}

fn missing(parameter: &str) -> ApiError {
    ApiError::bad_request(format!("Missing parameter: {parameter}"))
}

fn text<'a>(raw: &'a RawValue, parameter: &str) -> Result<Cow<'a, str>, ApiError> {
    json::text(raw)
        .ok_or_else(|| ApiError::bad_request(format!("Invalid parameter: {parameter} must be a string")))
}

fn event_name<'a>(raw: Option<&'a RawValue>, limits: &TriggerLimits) -> Result<Cow<'a, str>, ApiError> {
    let name = text(raw.ok_or_else(|| missing("name"))?, "name")?;
    check_event_name(&name, limits)?;
    Ok(name)
}

fn check_event_name(name: &str, limits: &TriggerLimits) -> Result<(), ApiError> {
    if name.is_empty() {
        return Err(ApiError::bad_request("Invalid event name: it must not be empty"));
    }
    let length = name.chars().count();
    if length > limits.max_event_name_length {
        return Err(ApiError::bad_request(format!(
            "Invalid event name '{}': {length} characters exceed the allowed maximum ({})",
            shortened(name),
            limits.max_event_name_length
        )));
    }
    if RESERVED_EVENT_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return Err(ApiError::bad_request(format!(
            "Invalid event name '{name}': pusher: and pusher_internal: are reserved prefixes"
        )));
    }
    Ok(())
}

fn one_channel<'a>(
    raw: Option<&'a RawValue>,
    parameter: &str,
    limits: &TriggerLimits,
) -> Result<ValidChannel<'a>, ApiError> {
    let name = text(raw.ok_or_else(|| missing(parameter))?, "channel")?;
    valid_channel(name, limits)
}

fn valid_channel<'a>(name: Cow<'a, str>, limits: &TriggerLimits) -> Result<ValidChannel<'a>, ApiError> {
    let shown = shortened(&name).into_owned();
    ValidChannel::parse(name, limits.max_channel_name_length)
        .map_err(|error| ApiError::bad_request(format!("{error} (channel '{shown}')")))
}

/// Counts channels as they were sent and keeps each once.
fn channel_list<'a>(
    raw: &'a RawValue,
    event: &str,
    limits: &TriggerLimits,
) -> Result<Vec<ValidChannel<'a>>, ApiError> {
    const NOT_A_LIST: &str = "Invalid parameter: channels must be an array of channel names";
    let (elements, count) =
        json::elements(raw, limits.max_channels).map_err(|_| ApiError::bad_request(NOT_A_LIST))?;
    if count == 0 {
        return Err(ApiError::bad_request("Invalid parameter: channels must hold at least one channel"));
    }
    if count > limits.max_channels {
        return Err(ApiError::bad_request(format!(
            "Event '{event}' for {count} channels exceeds the allowed maximum ({})",
            limits.max_channels
        )));
    }
    let mut seen = HashSet::with_capacity(elements.len());
    let mut channels = Vec::with_capacity(elements.len());
    for element in elements {
        let name = json::text(element).ok_or_else(|| ApiError::bad_request(NOT_A_LIST))?;
        if seen.insert(name.clone()) {
            channels.push(valid_channel(name, limits)?);
        }
    }
    Ok(channels)
}

/// A string is passed on as it stands, any other value as its JSON text (4.5).
fn event_data<'a>(
    raw: Option<&'a RawValue>,
    event: &str,
    channels: &[ValidChannel<'_>],
    limits: &TriggerLimits,
) -> Result<DataToken<'a>, ApiError> {
    let data = DataToken::from_json_value(raw.ok_or_else(|| missing("data"))?);
    check_data_size(data.decoded_len(), event, channels, limits)?;
    if data.is_valid_text() {
        Ok(data)
    } else {
        Err(ApiError::bad_request(format!(
            "Invalid data of event '{event}': half of a surrogate pair is no text"
        )))
    }
}

fn check_data_size(
    bytes: usize,
    event: &str,
    channels: &[ValidChannel<'_>],
    limits: &TriggerLimits,
) -> Result<(), ApiError> {
    if bytes <= limits.max_event_bytes {
        return Ok(());
    }
    let first_channel = channels.first().map_or("", |channel| &**channel);
    let others = match channels.len() {
        0 | 1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    Err(ApiError::too_large(format!(
        "The data content of this event exceeds the allowed maximum ({} bytes): \
         event '{event}' on channel '{first_channel}'{others} carries {bytes} bytes",
        limits.max_event_bytes
    )))
}

fn excluded_socket(raw: Option<&RawValue>) -> Result<Option<SocketId>, ApiError> {
    match raw {
        Some(raw) => parse_socket(&text(raw, "socket_id")?),
        None => Ok(None),
    }
}

fn parse_socket(text: &str) -> Result<Option<SocketId>, ApiError> {
    SocketId::parse(text).map_err(|error| ApiError::bad_request(error.to_string()))
}

fn idempotency_key<'a>(raw: Option<&'a RawValue>) -> Result<Option<Cow<'a, str>>, ApiError> {
    let Some(raw) = raw else { return Ok(None) };
    let key = text(raw, "idempotency_key")?;
    check_idempotency_key(&key)?;
    Ok(Some(key))
}

/// Holds a key to its length, also one that comes in a header.
pub fn check_idempotency_key(key: &str) -> Result<(), ApiError> {
    let length = key.chars().count();
    if (1..=MAX_IDEMPOTENCY_KEY_LENGTH).contains(&length) {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "Invalid idempotency_key: {length} characters where 1 to {MAX_IDEMPOTENCY_KEY_LENGTH} are expected"
    )))
}

fn optional_info(raw: Option<&RawValue>) -> Result<Info, ApiError> {
    raw.map_or(Ok(Info::default()), |raw| Info::parse(&text(raw, "info")?))
}

pub(crate) fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(MAX_ECHOED_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests;
