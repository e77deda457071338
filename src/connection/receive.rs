//! From bytes to requests: what a client says is handed to what acts on it.

use std::ops::ControlFlow;

use tidewire_protocol::error::{CloseCode, Refusal};
use tidewire_protocol::frame::{self, Message};
use tidewire_protocol::message::ClientMessage;
use tidewire_protocol::server_message;

use super::{client_event, joining, sign_in, subscribe};
use crate::worker::state::{Goodbye, State};

/// Takes `bytes` that arrived for the open connection in `slot`, and acts on every message they complete.
pub fn receive(state: &mut State, slot: u32, bytes: &mut [u8]) {
    state.last_seen[slot as usize] = state.node.clock.now_seconds();
    let connection = state.at(slot);
    connection.pinged_at = None;
    connection.app.metrics.received_bytes.inc_by(bytes.len() as u64);

    let max_bytes = connection.app.settings().limits.max_message_bytes;

    let mut input = connection.input.take().map(|input| *input).unwrap_or_default();
    let result = input.feed(bytes, max_bytes, |message| {
        act(state, slot, &message);
        if state.at(slot).is_open() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    if let Err(error) = result {
        let reason = error.to_string();
        return state.close(slot, Goodbye::quiet(error.close_code(), &reason));
    }
    let connection = state.at(slot);
    if connection.is_open() && !input.is_idle() {
        connection.input = Some(Box::new(input));
    }
}

fn act(state: &mut State, slot: u32, message: &Message<'_>) {
    match message {
        Message::Text(text) => act_on_text(state, slot, text),
        Message::Binary(_) => {
            let code = CloseCode::UnsupportedData;
            state.close(slot, Goodbye::quiet(code.number(), code.meaning()));
        }
        Message::Ping(payload) => state.send(slot, &frame::encode_pong(payload)),
        Message::Pong(_) => {}
        Message::Close(close) => {
            let code = close.map_or(CloseCode::Normal.number(), |(code, _)| code);
            state.close(slot, Goodbye::quiet(code, ""));
        }
    }
}

fn act_on_text(state: &mut State, slot: u32, text: &str) {
    state.at(slot).app.metrics.messages_received.inc();
    match ClientMessage::parse(text) {
        Ok(message) if joining::defer(state, slot, &message, text) => {}
        Ok(message) => act_on(state, slot, message),
        Err(error) => state.refuse(slot, &Refusal::Message(error)),
    }
}

pub fn act_on(state: &mut State, slot: u32, message: ClientMessage<'_>) {
    match message {
        ClientMessage::Ping => state.send_text(slot, &server_message::pong()),
        ClientMessage::Pong => {}
        ClientMessage::Subscribe(request) => subscribe::subscribe(state, slot, &request),
        ClientMessage::Unsubscribe { channel } => subscribe::unsubscribe(state, slot, &channel),
        ClientMessage::SignIn { auth, user_data } => sign_in::sign_in(state, slot, &auth, &user_data),
        ClientMessage::ClientEvent { event, channel, data } => {
            client_event::relay(state, slot, &event, &channel, data);
        }
    }
}
