//! Events that clients send to each other (2.8).

use std::sync::Arc;

use serde_json::value::RawValue;
use tidewire_protocol::DataToken;
use tidewire_protocol::channel_name::{Access, ChannelName};
use tidewire_protocol::error::Refusal;
use tidewire_protocol::{frame, server_message};

use crate::app::{App, PublishError, Settings};
use crate::hub::{Overloaded, Publish};
use crate::replay::publish::PublishDone;
use crate::worker::mailbox::ConnectionRef;
use crate::worker::state::State;

const NOT_PASSED_ON: &str =
    "Client event rejected - the other nodes cannot be reached, try again in a second";

/// Passes the event on to the channel's other subscribers, or says why not.
pub fn relay(state: &mut State, slot: u32, event: &str, channel: &str, data: Option<&RawValue>) {
    let app = Arc::clone(&state.at(slot).app);
    let settings = app.settings();
    let data = data.map_or(DataToken::EMPTY_OBJECT, DataToken::from_json_value);
    let name = match check(&settings, event, channel, &data) {
        Ok(name) => name,
        Err(refusal) => return state.refuse(slot, &refusal),
    };
    let position = app.channels.get(channel).and_then(|found| state.subscription_position(slot, found.id));
    let Some(position) = position else {
        return state.refuse(slot, &Refusal::ClientEventNotSubscribed { channel });
    };
    let now_ms = state.node.clock.now_ms();
    let connection = state.at(slot);
    let per_second = settings.limits.client_events_per_second;
    connection.client_events.set_rate(per_second, now_ms);
    if !connection.client_events.try_take(1, now_ms) {
        return state.refuse(slot, &Refusal::ClientEventRate { per_second });
    }
    let sender = state.reference(slot);
    let connection = state.at(slot);
    let publish = Publish {
        channel: name,
        event,
        data: &data,
        user_id: connection.subscriptions[position].member.as_deref().map(|id| &**id),
        except: Some(connection.socket_id),
        cache_ttl_ms: None,
    };
    let result = app.relay(publish, || tell_failure(&app, sender));
    app.metrics.client_events.inc();
    match result {
        Ok(()) => {}
        Err(PublishError::Unreachable) => state.send_error(slot, None, NOT_PASSED_ON),
        Err(_) => {
            state.node.metrics.mailbox_full.inc();
            state.send_error(slot, None, &Overloaded.to_string());
        }
    }
}

/// Tells the sender when its event could not be stored, and so was not delivered.
fn tell_failure(app: &App, sender: ConnectionRef) -> PublishDone {
    let channels = Arc::clone(&app.channels);
    Box::new(move |published| {
        if let Err(error) = published {
            let text =
                format!("Client event rejected - it could not be passed on ({error}), try again in a second");
            channels.send_to(sender, frame::encode_text(&server_message::error(None, &text)));
        }
    })
}

/// The checks that need no look at the channel.
fn check<'a>(
    settings: &Settings,
    event: &str,
    channel: &'a str,
    data: &DataToken<'_>,
) -> Result<ChannelName<'a>, Refusal<'a>> {
    let limits = &settings.limits;
    if !settings.client_events {
        return Err(Refusal::ClientEventsDisabled);
    }
    let name = ChannelName::parse(channel, limits.max_channel_name_length)?;
    match name.access() {
        Access::Private | Access::Presence => {}
        Access::Encrypted => return Err(Refusal::ClientEventEncrypted),
        Access::Public | Access::User => return Err(Refusal::ClientEventChannel),
    }
    if event.chars().count() > limits.max_event_name_length {
        return Err(Refusal::ClientEventName { max_length: limits.max_event_name_length });
    }
    let bytes = data.decoded_len();
    if bytes > limits.max_event_bytes {
        return Err(Refusal::ClientEventTooLarge { bytes, max_bytes: limits.max_event_bytes });
    }
    if !data.is_valid_text() {
        return Err(Refusal::ClientEventText);
    }
    Ok(name)
}
