//! A Pusher client that hides nothing: each frame is sent and read on its own.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::rest::Rest;
use super::sign::Credentials;
use super::websocket::{Frame, PING, PONG, WebSocket};

/// One event from the server, its `data` still a string.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub event: String,
    pub channel: Option<String>,
    /// The string, exactly as decoded from the frame; `pusher:error` keeps its object in `frame`.
    pub data: Option<String>,
    pub user_id: Option<String>,
    pub frame: Value,
}

impl Event {
    /// Reads a frame and checks the envelope of specification 2.1, which holds for every frame.
    pub fn parse(text: &str) -> Self {
        let frame: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let members = frame.as_object().unwrap_or_else(|| panic!("a frame is an object: {text}"));
        let event = members.get("event").and_then(Value::as_str);
        let event = event.unwrap_or_else(|| panic!("a frame names its event: {text}")).to_owned();
        let string = |name: &str| match members.get(name) {
            None => None,
            Some(Value::String(value)) => Some(value.clone()),
            Some(_) if name == "data" && event == "pusher:error" => None,
            Some(other) => panic!("`{name}` of a frame is a string, not {other}"),
        };
        if event == "pusher:error" {
            assert!(members["data"].is_object(), "`data` of pusher:error is an object: {text}");
        }
        let (channel, data, user_id) = (string("channel"), string("data"), string("user_id"));
        Self { event, channel, data, user_id, frame }
    }

    /// `data` decoded once more.
    pub fn json(&self) -> Value {
        let data = self.data.as_deref().unwrap_or_else(|| panic!("an event with data, not {self:?}"));
        serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}"))
    }

    pub fn is(&self, event: &str, channel: &str) -> bool {
        self.event == event && self.channel.as_deref() == Some(channel)
    }

    pub fn data(&self) -> &str {
        self.data.as_deref().unwrap_or_else(|| panic!("an event with data, not {self:?}"))
    }
}

/// An established connection.
pub struct Client {
    pub socket: WebSocket,
    pub socket_id: String,
    pub activity_timeout: u64,
    pub credentials: Credentials,
    /// False: WebSocket pings stay unanswered.
    pub answers_pings: bool,
    rest: Rest,
    read_ahead: VecDeque<Event>,
}

impl Client {
    /// Takes over an upgraded socket whose first frame must greet.
    pub async fn greeted(mut socket: WebSocket, rest: Rest) -> Self {
        let Frame::Text(text) = socket.next_frame().await else { panic!("the first frame is text") };
        let greeting = Event::parse(&text);
        assert_eq!(greeting.event, "pusher:connection_established", "{text}");
        let facts = greeting.json();
        let socket_id =
            facts["socket_id"].as_str().unwrap_or_else(|| panic!("no socket id: {text}")).to_owned();
        let activity_timeout =
            facts["activity_timeout"].as_u64().unwrap_or_else(|| panic!("no timeout: {text}"));
        Self {
            socket,
            socket_id,
            activity_timeout,
            credentials: rest.credentials.clone(),
            answers_pings: true,
            rest,
            read_ahead: VecDeque::new(),
        }
    }

    // Sending

    pub async fn send(&mut self, message: Value) {
        self.send_text(&message.to_string()).await;
    }

    pub async fn send_text(&mut self, text: &str) {
        self.socket.send_text(text).await;
    }

    /// `pusher:subscribe` with exactly this `data`.
    pub async fn send_subscribe(&mut self, data: Value) {
        self.send(json!({"event": "pusher:subscribe", "data": data})).await;
    }

    /// Signs in the usual way and subscribes; does not read the answer.
    pub async fn request(&mut self, channel: &str, channel_data: Option<&str>) {
        let mut data = json!({ "channel": channel });
        if channel.starts_with("private-") || channel.starts_with("presence-") {
            data["auth"] = self.auth(channel, channel_data).into();
        }
        if let Some(channel_data) = channel_data {
            data["channel_data"] = channel_data.into();
        }
        self.send_subscribe(data).await;
    }

    pub fn auth(&self, channel: &str, channel_data: Option<&str>) -> String {
        self.credentials.channel_auth(&self.socket_id, channel, channel_data)
    }

    /// Subscribes, signed where the name asks for it, and returns the success frame.
    pub async fn subscribe(&mut self, channel: &str) -> Event {
        self.request(channel, None).await;
        self.succeeded(channel).await
    }

    /// Joins a presence channel as this user with `user_info` `{"name": user_id}`.
    pub async fn join(&mut self, channel: &str, user_id: &str) -> Event {
        let channel_data = member(user_id);
        self.join_with(channel, &channel_data).await
    }

    pub async fn join_with(&mut self, channel: &str, channel_data: &str) -> Event {
        self.request(channel, Some(channel_data)).await;
        self.succeeded(channel).await
    }

    pub async fn succeeded(&mut self, channel: &str) -> Event {
        let event = self.next_event().await;
        assert!(event.is("pusher_internal:subscription_succeeded", channel), "not a success: {event:?}");
        event
    }

    /// Unsubscribes and waits until the server has done it; there is no acknowledgement.
    pub async fn unsubscribe(&mut self, channel: &str) {
        self.send(json!({"event": "pusher:unsubscribe", "data": {"channel": channel}})).await;
        self.sync().await;
    }

    pub async fn send_signin(&mut self, user_data: &str) {
        let auth = self.credentials.user_auth(&self.socket_id, user_data);
        self.send(json!({"event": "pusher:signin", "data": {"auth": auth, "user_data": user_data}})).await;
    }

    pub async fn sign_in(&mut self, user_data: &str) -> Event {
        self.send_signin(user_data).await;
        let success = self.expect("pusher:signin_success").await;
        // Watchers on other nodes hear of it a moment later.
        self.rest.settle().await;
        success
    }

    pub async fn trigger(&mut self, event: &str, channel: &str, data: Value) {
        self.send(json!({"event": event, "channel": channel, "data": data})).await;
    }

    // Reading

    /// The next frame that is not a WebSocket ping this client answers by itself.
    pub async fn next_frame(&mut self) -> Frame {
        loop {
            match self.socket.next_frame().await {
                Frame::Ping(payload) if self.answers_pings => {
                    self.socket.send_frame(true, PONG, &payload).await;
                }
                frame => return frame,
            }
        }
    }

    pub async fn next_event(&mut self) -> Event {
        if let Some(event) = self.read_ahead.pop_front() {
            return event;
        }
        self.next_event_from_wire().await
    }

    /// Makes these the next events again.
    pub fn put_back(&mut self, events: Vec<Event>) {
        for event in events.into_iter().rev() {
            self.read_ahead.push_front(event);
        }
    }

    async fn next_event_from_wire(&mut self) -> Event {
        match self.next_frame().await {
            Frame::Text(text) => Event::parse(&text),
            other => panic!("expected an event, got {other:?}"),
        }
    }

    pub async fn expect(&mut self, name: &str) -> Event {
        let event = self.next_event().await;
        assert_eq!(event.event, name, "{:?}", event.frame);
        event
    }

    /// The next frame must be this event of this channel with this data.
    pub async fn expect_event(&mut self, event: &str, channel: &str, data: &str) -> Event {
        let got = self.next_event().await;
        let seen = (got.event.as_str(), got.channel.as_deref(), got.data.as_deref());
        assert_eq!(seen, (event, Some(channel), Some(data)));
        got
    }

    /// "ERR(null)" or "ERR(n)" of the checklist; the message.
    pub async fn expect_error(&mut self, code: Option<u16>) -> String {
        let event = self.next_event().await;
        assert_eq!(event.event, "pusher:error", "expected an error: {}", event.frame);
        error_message(&event, code)
    }

    /// A refused request: ERR(null), nothing else, and the connection still answers.
    pub async fn expect_refusal(&mut self) -> String {
        let message = self.expect_error(None).await;
        self.sync().await;
        assert_eq!(self.read_ahead, [], "a refusal is one frame");
        message
    }

    /// The close frame with this code must be next; its reason.
    pub async fn expect_close(&mut self, code: u16) -> String {
        assert_eq!(self.read_ahead, [], "unread events before the close");
        match self.next_frame().await {
            Frame::Close(seen, reason) => {
                assert_eq!(seen, Some(code), "close reason {reason:?}");
                reason
            }
            other => panic!("expected close {code}, got {other:?}"),
        }
    }

    /// Waits until the server has handled everything this client sent so far.
    pub async fn sync(&mut self) {
        self.send_text(r#"{"event":"pusher:ping","data":{}}"#).await;
        loop {
            let event = self.next_event_from_wire().await;
            if event.event == "pusher:pong" {
                return;
            }
            self.read_ahead.push_back(event);
        }
    }

    /// The same with control frames only.
    pub async fn sync_by_control(&mut self) {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let token = SERIAL.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        self.socket.send_frame(true, PING, &token).await;
        loop {
            match self.next_frame().await {
                Frame::Pong(payload) if payload == token => return,
                Frame::Text(text) => self.read_ahead.push_back(Event::parse(&text)),
                other => panic!("expected a pong, got {other:?}"),
            }
        }
    }

    /// Every event that is on its way to this client.
    ///
    /// No sleeping: an event published on a channel of its own takes the same road as all others,
    /// so what was published before has arrived before it.
    pub async fn pending_events(&mut self) -> Vec<Event> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let marker = format!("marker-{}", SERIAL.fetch_add(1, Ordering::Relaxed));
        self.sync().await;
        self.send_subscribe(json!({ "channel": marker })).await;
        let mut pending: Vec<Event> = self.read_ahead.drain(..).collect();
        loop {
            let event = self.next_event().await;
            if event.is("pusher_internal:subscription_succeeded", &marker) {
                self.rest.settle().await;
                self.rest.publish(&marker, "marker", "").await;
            } else if event.is("marker", &marker) {
                break;
            } else if event.channel.as_ref() != Some(&marker) {
                pending.push(event);
            }
        }
        self.unsubscribe(&marker).await;
        pending.extend(self.read_ahead.drain(..).filter(|event| event.channel.as_ref() != Some(&marker)));
        pending
    }

    /// Nothing at all is on its way to this client.
    pub async fn assert_silent(&mut self) {
        let pending = self.pending_events().await;
        assert_eq!(pending, [], "expected silence");
    }

    // Leaving

    /// Closes like a browser and waits for the server's half.
    pub async fn close(mut self) {
        self.socket.send_frame(true, super::websocket::CLOSE, &1000u16.to_be_bytes()).await;
        while self.socket.next_frame().await != Frame::Eof {}
    }

    pub fn reset(self) {
        self.socket.reset();
    }
}

/// `channel_data` of a member with `user_info` `{"name": user_id}`.
pub fn member(user_id: &str) -> String {
    format!(r#"{{"user_id":"{user_id}","user_info":{{"name":"{user_id}"}}}}"#)
}

/// Checks the shape of a `pusher:error` and its code; the message.
pub fn error_message(event: &Event, code: Option<u16>) -> String {
    let data = &event.frame["data"];
    assert!(data.get("code").is_some(), "`code` is present: {}", event.frame);
    assert_eq!(data["code"], json!(code), "{}", event.frame);
    let message = data["message"].as_str();
    message.unwrap_or_else(|| panic!("an error has a message: {}", event.frame)).to_owned()
}
