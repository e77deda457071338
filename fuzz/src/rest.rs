//! Bodies of the REST API: what is let through holds every limit, what is refused is told why.

use std::collections::HashSet;

use tidewire_protocol::channel_name::USER_CHANNEL_PREFIX;
use tidewire_protocol::http_api::MAX_IDEMPOTENCY_KEY_LENGTH;
use tidewire_protocol::{ApiError, ApiQuery, Batch, Info, Trigger, TriggerLimits};

use crate::message::check_data;

/// Small, so that the fuzzer finds its way over each of them.
const LIMITS: TriggerLimits = TriggerLimits {
    max_channels: 3,
    max_channel_name_length: 30,
    max_event_name_length: 20,
    max_event_bytes: 60,
    max_batch_events: 3,
};

pub fn check(input: &[u8]) {
    match Trigger::parse(input, &LIMITS) {
        Ok(trigger) => check_trigger(&trigger),
        Err(error) => check_error(&error),
    }
    match Batch::parse(input, &LIMITS) {
        Ok(batch) => {
            assert!(!batch.events.is_empty() && batch.events.len() <= LIMITS.max_batch_events);
            for event in &batch.events {
                assert_eq!(event.channels.len(), 1);
                check_trigger(event);
            }
        }
        Err(error) => check_error(&error),
    }
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (channel, query) = text.split_once('?').unwrap_or((text, ""));
    match Trigger::legacy(channel, &ApiQuery::parse(query), query.as_bytes(), &LIMITS) {
        Ok(trigger) => check_trigger(&trigger),
        Err(error) => check_error(&error),
    }
    if let Err(error) = Info::parse(text) {
        check_error(&error);
    }
}

fn check_trigger(trigger: &Trigger<'_>) {
    let name_length = trigger.name.chars().count();
    assert!((1..=LIMITS.max_event_name_length).contains(&name_length));
    assert!(!trigger.name.starts_with("pusher:") && !trigger.name.starts_with("pusher_internal:"));
    assert!((1..=LIMITS.max_channels).contains(&trigger.channels.len()));
    let distinct: HashSet<&str> = trigger.channels.iter().map(AsRef::as_ref).collect();
    assert_eq!(distinct.len(), trigger.channels.len());
    // Of a user channel only the id counts.
    let measured = |name: &str| name.strip_prefix(USER_CHANNEL_PREFIX).unwrap_or(name).len();
    assert!(distinct.iter().all(|name| measured(name) <= LIMITS.max_channel_name_length));
    let key_length = trigger.idempotency_key.as_ref().map(|key| key.chars().count());
    assert!(key_length.is_none_or(|length| (1..=MAX_IDEMPOTENCY_KEY_LENGTH).contains(&length)));
    assert!(trigger.data.is_valid_text());
    assert!(trigger.data.decoded_len() <= LIMITS.max_event_bytes);
    for channel in &trigger.channels {
        check_data(&trigger.name, channel.as_ref(), &trigger.data);
    }
}

fn check_error(error: &ApiError) {
    assert!([400, 413].contains(&error.status), "{error:?}");
    assert!(!error.text.is_empty() && !error.text.ends_with('\n'));
    assert!(error.text.len() < 4096, "an error does not repeat the request");
}
