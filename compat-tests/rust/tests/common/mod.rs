//! Addresses from the environment, and a subscriber that shows every frame.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hyper::client::HttpConnector;
use pusher::{Pusher, PusherBuilder};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

const PATIENCE: Duration = Duration::from_secs(10);

/// A variable of compat-tests/run, or what it would be.
pub fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

pub fn key() -> String {
    setting("TIDEWIRE_APP_KEY", "tw-demo-key")
}

/// `127.0.0.1:6001`: the SDK wants host and port without a scheme.
pub fn authority() -> String {
    setting("TIDEWIRE_HTTP", "http://127.0.0.1:6001")
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .to_owned()
}

pub fn sdk() -> Pusher<HttpConnector> {
    sdk_with_secret(&setting("TIDEWIRE_APP_SECRET", "tw-demo-secret"))
}

pub fn sdk_with_secret(secret: &str) -> Pusher<HttpConnector> {
    PusherBuilder::new(&setting("TIDEWIRE_APP_ID", "42"), &key(), secret).host(&authority()).finalize()
}

/// A name nobody else uses.
pub fn name(stem: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    format!("{stem}-rust-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

pub struct Subscriber {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub socket_id: String,
}

impl Subscriber {
    pub async fn connect() -> Subscriber {
        let ws = setting("TIDEWIRE_WS", "ws://127.0.0.1:6001");
        let url = format!("{}/app/{}?protocol=7", ws.trim_end_matches('/'), key());
        let (socket, _) = connect_async(url).await.unwrap();
        let mut subscriber = Subscriber { socket, socket_id: String::new() };
        let established = subscriber.expect("pusher:connection_established").await;
        let data: Value = serde_json::from_str(established["data"].as_str().unwrap()).unwrap();
        subscriber.socket_id = data["socket_id"].as_str().unwrap().to_owned();
        subscriber
    }

    /// A connection on a public channel.
    pub async fn on(channel: &str) -> Subscriber {
        let mut subscriber = Subscriber::connect().await;
        subscriber.subscribe(json!({ "channel": channel })).await;
        subscriber
    }

    /// A connection that is a member of a presence channel, with a token made by the SDK.
    pub async fn member(channel: &str, user_id: &str) -> Subscriber {
        let mut subscriber = Subscriber::connect().await;
        let member = pusher::Member { user_id, user_info: None };
        let token = sdk().authenticate_presence_channel(channel, &subscriber.socket_id, &member).unwrap();
        subscriber.subscribe(with_channel(&token, channel)).await;
        subscriber
    }

    /// Sends `pusher:subscribe` and returns what came with the success.
    pub async fn subscribe(&mut self, data: Value) -> Value {
        let frame = json!({ "event": "pusher:subscribe", "data": data });
        self.socket.send(Message::text(frame.to_string())).await.unwrap();
        let success = self.expect("pusher_internal:subscription_succeeded").await;
        serde_json::from_str(success["data"].as_str().unwrap()).unwrap()
    }

    /// The next frame, which must be this event.
    pub async fn expect(&mut self, event: &str) -> Value {
        let message = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("no frame came");
        let frame: Value = serde_json::from_str(message.unwrap().unwrap().to_text().unwrap()).unwrap();
        assert_eq!(frame["event"], event, "{frame}");
        frame
    }
}

/// The SDK's token as the `data` of a subscription.
pub fn with_channel(token: &str, channel: &str) -> Value {
    let members: HashMap<String, String> = serde_json::from_str(token).unwrap();
    let mut data = json!(members);
    data["channel"] = json!(channel);
    data
}
