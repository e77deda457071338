//! 9.13 Extensions, and requests of the shape Laravel sends.

use serde_json::{Value, json};

use crate::common::TestServer;
use crate::liveness::grand_tour;

#[tokio::test]
async fn s217_a_stock_connection_sees_no_field_of_ours() {
    let server = TestServer::with(|app| app.subscription_count = true);
    for query in
        ["protocol=7&client=js&version=8.6.0&flash=false", "protocol=5&client=java-client", "protocol=7"]
    {
        for event in grand_tour(&server, query).await {
            let members = event.frame.as_object().unwrap();
            let mut allowed = vec!["event", "data"];
            match event.event.as_str() {
                "pusher:error"
                | "pusher:signin_success"
                | "pusher_internal:watchlist_events"
                | "pusher:pong" => {}
                _ => allowed.push("channel"),
            }
            if event.event.starts_with("client-") && event.channel.as_deref() == Some("presence-p") {
                allowed.push("user_id");
            }
            for name in members.keys() {
                assert!(allowed.contains(&name.as_str()), "`{name}` in {}", event.frame);
            }
            if event.event == "pusher_internal:subscription_succeeded"
                && event.channel.as_deref() != Some("presence-p")
            {
                assert_eq!(event.data(), "{}");
            }
            assert!(!event.frame.to_string().contains("tw_"), "{}", event.frame);
            assert!(!event.event.contains("tidewire"), "{}", event.frame);
        }
    }
}

#[tokio::test]
async fn s217_the_greeting_has_two_fields() {
    let server = TestServer::start();
    let mut socket = server.upgrade("/app/tw-demo-key?protocol=7&client=js").await.upgraded();
    let crate::common::Frame::Text(text) = socket.next_frame().await else { panic!("text") };
    let frame: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(frame.as_object().unwrap().keys().collect::<Vec<_>>(), ["data", "event"]);
    let data: Value = serde_json::from_str(frame["data"].as_str().unwrap()).unwrap();
    assert_eq!(data.as_object().unwrap().keys().collect::<Vec<_>>(), ["activity_timeout", "socket_id"]);
}

#[tokio::test]
async fn s219_unknown_keys_of_a_subscribe_are_ignored() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    client
        .send_subscribe(json!({"channel": "news", "auth": "", "delta": true, "filter": {"a": [1, null]},
            "tags": ["x"], "nested": {"channel": "other"}}))
        .await;
    assert_eq!(client.succeeded("news").await.data(), "{}");
    let auth = client.auth("private-a", None);
    client
        .send_subscribe(json!({"channel": "private-a", "auth": auth, "shared_secret": "x", "extra": 7}))
        .await;
    client.succeeded("private-a").await;
    client.assert_silent().await;
}

#[tokio::test]
async fn s220_a_broadcast_to_250_channels_is_three_posts() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    let channels: Vec<String> = (0..250).map(|number| format!("private-order.{number}")).collect();
    for channel in &channels {
        client.subscribe(channel).await;
    }
    let payload = json!({"order": {"id": 7, "total": "12.50"}}).to_string();
    let mut sizes = Vec::new();
    for chunk in channels.chunks(100) {
        sizes.push(chunk.len());
        let body = json!({"name": r"App\Events\OrderPaid", "data": payload, "channels": chunk});
        let answer = server.rest().trigger(body).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
    }
    assert_eq!(sizes, [100, 100, 50]);
    let mut seen = Vec::new();
    for _ in &channels {
        let event = client.expect(r"App\Events\OrderPaid").await;
        assert_eq!(event.data(), payload);
        seen.push(event.channel.unwrap_or_default());
    }
    seen.sort();
    let mut expected = channels.clone();
    expected.sort();
    assert_eq!(seen, expected);
    client.assert_silent().await;
}

#[tokio::test]
async fn s221_a_broadcast_to_one_channel_names_it_singly() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    client.subscribe("private-order.7").await;
    let body = r#"{"name":"App\\Events\\OrderPaid","data":"{\"id\":7}","channel":"private-order.7"}"#;
    let request = server.rest().post("/apps/42/events", body);
    let request = request
        .header("Content-Type", "application/json")
        .header("X-Pusher-Library", "pusher-http-php 7.2.6");
    let answer = request.send().await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
    client.expect_event(r"App\Events\OrderPaid", "private-order.7", r#"{"id":7}"#).await;
}

#[tokio::test]
async fn s222_to_others_leaves_the_sender_out() {
    let server = TestServer::start();
    let (mut sender, mut other) = (server.connect().await, server.connect().await);
    for client in [&mut sender, &mut other] {
        client.subscribe("private-chat.1").await;
    }
    // Laravel moves the `X-Socket-ID` of the browser's request into the body of its own.
    let body = json!({"name": r"App\Events\MessageSent", "data": "{\"text\":\"hi\"}",
        "channel": "private-chat.1", "socket_id": sender.socket_id});
    let request = server.rest().post("/apps/42/events", body.to_string());
    assert_eq!(request.header("X-Socket-ID", &sender.socket_id).send().await.status, 200);
    other.expect_event(r"App\Events\MessageSent", "private-chat.1", "{\"text\":\"hi\"}").await;
    sender.assert_silent().await;
}
