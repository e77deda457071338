//! 9.5 Client events.

use serde_json::{Value, json};

use crate::common::websocket::{TEXT, frame};
use crate::common::{Client, TestServer};

/// Two connections that hold a channel; presence ones as `u-1` and `u-2`.
async fn pair(server: &TestServer, channel: &str) -> (Client, Client) {
    let (mut sender, mut receiver) = (server.connect().await, server.connect().await);
    if channel.starts_with("presence-") {
        sender.join(channel, "u-1").await;
        receiver.join(channel, "u-2").await;
    } else {
        sender.subscribe(channel).await;
        receiver.subscribe(channel).await;
    }
    for client in [&mut receiver, &mut sender] {
        client.pending_events().await;
    }
    (sender, receiver)
}

#[tokio::test]
async fn s087_a_client_event_reaches_the_others_and_not_the_sender() {
    let server = TestServer::start();
    for channel in ["private-a", "private-cache-a"] {
        let (mut sender, mut receiver) = pair(&server, channel).await;
        sender.trigger("client-x", channel, json!({"a": 1})).await;
        let event = receiver.next_event().await;
        assert_eq!(event.frame, json!({"event": "client-x", "channel": channel, "data": "{\"a\":1}"}));
        sender.assert_silent().await;
        receiver.assert_silent().await;
    }
}

#[tokio::test]
async fn s088_data_arrives_as_one_json_string() {
    let server = TestServer::start();
    let (mut sender, mut receiver) = pair(&server, "private-a").await;
    for (sent, delivered) in [
        (r#"{"a":1}"#, r#"{"a":1}"#),
        (r#""plain""#, "plain"),
        (r#""{\"a\":1}""#, r#"{"a":1}"#),
        (r#""12""#, "12"),
        (r#""""#, ""),
        ("12", "12"),
        ("1.50", "1.50"),
        ("12345678901234567890123", "12345678901234567890123"),
        ("true", "true"),
        ("null", "null"),
        ("[]", "[]"),
        (r#"["ä","\u00e4","😀","\ud83d\ude00"]"#, r#"["ä","\u00e4","😀","\ud83d\ude00"]"#),
        (r#""\u00e4\u0000\n</script>""#, "ä\0\n</script>"),
    ] {
        sender.send_text(&format!(r#"{{"event":"client-x","channel":"private-a","data":{sent}}}"#)).await;
        let event = receiver.next_event().await;
        assert_eq!(event.data(), delivered, "sent {sent}");
        // Stay below the rate limit.
        server.advance(1);
    }
}

#[tokio::test]
async fn s089_the_sender_is_named_on_presence_channels_only() {
    let server = TestServer::start();
    let (mut sender, mut receiver) = pair(&server, "presence-a").await;
    sender.trigger("client-x", "presence-a", json!({})).await;
    let expected = json!({"event": "client-x", "channel": "presence-a", "data": "{}", "user_id": "u-1"});
    assert_eq!(receiver.next_event().await.frame, expected);

    let (mut sender, mut receiver) = pair(&server, "private-a").await;
    sender.sign_in(r#"{"id":"u-1"}"#).await;
    sender.trigger("client-x", "private-a", json!({})).await;
    assert_eq!(receiver.next_event().await.user_id, None);
}

#[tokio::test]
async fn s089_a_numeric_user_id_is_named_as_text() {
    let server = TestServer::start();
    let (mut sender, mut receiver) = (server.connect().await, server.connect().await);
    receiver.join("presence-a", "u-2").await;
    sender.join_with("presence-a", r#"{"user_id":7}"#).await;
    receiver.expect("pusher_internal:member_added").await;
    sender.trigger("client-x", "presence-a", json!(1)).await;
    assert_eq!(receiver.next_event().await.user_id.as_deref(), Some("7"));
}

#[tokio::test]
async fn s090_forged_members_are_not_forwarded() {
    let server = TestServer::start();
    for channel in ["private-a", "presence-a"] {
        let (mut sender, mut receiver) = pair(&server, channel).await;
        sender
            .send(json!({"event": "client-x", "channel": channel, "data": "d", "user_id": "admin",
                "socket_id": "1.1", "tw_pos": "9-9", "extra": {"a": 1}}))
            .await;
        let mut expected = json!({"event": "client-x", "channel": channel, "data": "d"});
        if channel == "presence-a" {
            expected["user_id"] = "u-1".into();
        }
        assert_eq!(receiver.next_event().await.frame, expected);
    }
}

#[tokio::test]
async fn s091_public_channels_take_no_client_events() {
    let server = TestServer::start();
    for channel in ["news", "cache-news"] {
        let (mut sender, mut receiver) = pair(&server, channel).await;
        sender.trigger("client-x", channel, json!({})).await;
        sender.expect_refusal().await;
        receiver.assert_silent().await;
    }
}

#[tokio::test]
async fn s091_the_users_own_channel_takes_no_client_events() {
    let server = TestServer::start();
    let (mut sender, mut receiver) = (server.connect().await, server.connect().await);
    for client in [&mut sender, &mut receiver] {
        client.sign_in(r#"{"id":"u-1"}"#).await;
        client.subscribe("#server-to-user-u-1").await;
    }
    sender.trigger("client-x", "#server-to-user-u-1", json!({})).await;
    sender.expect_refusal().await;
    receiver.assert_silent().await;
}

#[tokio::test]
async fn s092_a_sender_outside_the_channel_is_refused() {
    let server = TestServer::start();
    for channel in ["private-a", "presence-a"] {
        let (mut member, mut receiver) = pair(&server, channel).await;
        let mut outsider = server.connect().await;
        outsider.trigger("client-x", channel, json!({})).await;
        let message = outsider.expect_refusal().await;
        assert!(message.contains("Cannot broadcast client event") && message.contains(channel), "{message}");
        member.unsubscribe(channel).await;
        if channel == "presence-a" {
            receiver.expect("pusher_internal:member_removed").await;
        }
        member.trigger("client-x", channel, json!({})).await;
        member.expect_refusal().await;
        receiver.assert_silent().await;
    }
}

#[tokio::test]
async fn s093_encrypted_channels_take_no_client_events() {
    let server = TestServer::start();
    for channel in ["private-encrypted-a", "private-encrypted-cache-a"] {
        let (mut sender, mut receiver) = pair(&server, channel).await;
        sender.trigger("client-x", channel, json!({})).await;
        sender.expect_refusal().await;
        receiver.assert_silent().await;
    }
}

#[tokio::test]
async fn s094_an_app_may_have_client_events_off() {
    let server = TestServer::with(|app| app.client_events = false);
    for channel in ["private-a", "presence-a"] {
        let (mut sender, mut receiver) = pair(&server, channel).await;
        sender.trigger("client-x", channel, json!({})).await;
        let message = sender.expect_refusal().await;
        assert!(message.contains("client events"), "{message}");
        receiver.assert_silent().await;
    }
}

#[tokio::test]
async fn s095_the_eleventh_client_event_of_a_second_is_refused_with_4301() {
    let server = TestServer::start();
    let (mut sender, mut receiver) = pair(&server, "private-a").await;
    let message = r#"{"event":"client-x","channel":"private-a","data":"d"}"#;
    for _ in 0..3 {
        // One write: the limiter sees them within one moment.
        sender.socket.send_bytes(&frame(true, TEXT, message.as_bytes()).repeat(12)).await;
        sender.expect_error(Some(4301)).await;
        sender.expect_error(Some(4301)).await;
        sender.assert_silent().await;
        for _ in 0..10 {
            receiver.expect_event("client-x", "private-a", "d").await;
        }
        receiver.assert_silent().await;
        server.advance(1);
    }
    sender.send_text(message).await;
    receiver.expect_event("client-x", "private-a", "d").await;
}

#[tokio::test]
async fn s095_the_limit_is_of_each_connection_and_configurable() {
    let server = TestServer::with(|app| app.limits.client_events_per_second = 1);
    let (mut first, mut second) = pair(&server, "private-a").await;
    first.trigger("client-x", "private-a", json!("1")).await;
    first.trigger("client-x", "private-a", json!("2")).await;
    first.expect_error(Some(4301)).await;
    second.expect_event("client-x", "private-a", "1").await;
    second.trigger("client-x", "private-a", json!("3")).await;
    first.expect_event("client-x", "private-a", "3").await;
    second.assert_silent().await;
}

#[tokio::test]
async fn s096_event_names_have_at_most_200_characters() {
    let server = TestServer::start();
    let (mut sender, mut receiver) = pair(&server, "private-a").await;
    let longest = format!("client-{}", "n".repeat(193));
    sender.trigger(&longest, "private-a", json!("d")).await;
    receiver.expect_event(&longest, "private-a", "d").await;
    sender.trigger(&format!("{longest}n"), "private-a", json!("d")).await;
    sender.expect_refusal().await;
    receiver.assert_silent().await;
}

#[tokio::test]
async fn s096_data_has_at_most_10240_bytes() {
    let server = TestServer::start();
    let (mut sender, mut receiver) = pair(&server, "private-a").await;
    // The limit counts the bytes of the delivered string: escapes once, UTF-8.
    let object = |bytes: usize| json!({"n": "x".repeat(bytes - 8)});
    for (fits, too_long) in [
        (json!("x".repeat(10_240)), json!("x".repeat(10_241))),
        (json!("\"".repeat(10_240)), json!("\"".repeat(10_241))),
        (json!("ä".repeat(5_120)), json!(format!("{}x", "ä".repeat(5_120)))),
        (object(10_240), object(10_241)),
    ] {
        sender.trigger("client-x", "private-a", fits.clone()).await;
        let expected = fits.as_str().map_or_else(|| fits.to_string(), str::to_owned);
        receiver.expect_event("client-x", "private-a", &expected).await;
        sender.trigger("client-x", "private-a", too_long).await;
        sender.expect_refusal().await;
        receiver.assert_silent().await;
        server.advance(1);
    }
}

#[tokio::test]
async fn s097_a_client_event_without_a_channel_is_refused() {
    let server = TestServer::start();
    let (mut sender, mut receiver) = pair(&server, "private-a").await;
    for message in [
        json!({"event": "client-x", "data": {}}),
        json!({"event": "client-x", "data": {}, "channel": null}),
        json!({"event": "client-x", "data": {}, "channel": 5}),
        json!({"event": "client-x", "data": {"channel": "private-a"}}),
        json!({"event": "client-x", "data": {}, "channel": ["private-a"]}),
    ] {
        sender.send(message).await;
        sender.expect_refusal().await;
    }
    receiver.assert_silent().await;
}

#[tokio::test]
async fn s098_a_client_event_without_data_is_delivered_with_an_empty_object() {
    let server = TestServer::start();
    let (mut sender, mut receiver) = pair(&server, "private-a").await;
    sender.send(json!({"event": "client-typing", "channel": "private-a"})).await;
    receiver.expect_event("client-typing", "private-a", "{}").await;
    sender.send(json!({"event": "client-typing", "channel": "private-a", "data": null})).await;
    receiver.expect_event("client-typing", "private-a", "null").await;
}

#[tokio::test]
async fn s099_events_without_the_prefix_are_refused() {
    let server = TestServer::start();
    let (mut sender, mut receiver) = pair(&server, "presence-a").await;
    for name in [
        "message",
        "Client-x",
        "client",
        "client_x",
        " client-x",
        "pusher_internal:member_added",
        "pusher_internal:subscription_succeeded",
        "pusher:connection_established",
        "pusher:error",
        "pusher:signin_success",
    ] {
        let data = json!({"user_id": "forged", "user_info": {}}).to_string();
        sender.trigger(name, "presence-a", Value::String(data)).await;
        let message = sender.expect_refusal().await;
        assert!(message.contains(name), "{message}");
    }
    receiver.assert_silent().await;
}

#[tokio::test]
async fn s100_other_connections_of_the_same_user_get_the_event() {
    let server = TestServer::start();
    let (mut sender, mut same_user) = (server.connect().await, server.connect().await);
    sender.join("presence-a", "u-1").await;
    same_user.join("presence-a", "u-1").await;
    sender.trigger("client-x", "presence-a", json!("d")).await;
    let event = same_user.expect_event("client-x", "presence-a", "d").await;
    assert_eq!(event.user_id.as_deref(), Some("u-1"));
    sender.assert_silent().await;
}

#[tokio::test]
async fn s101_a_client_event_never_enters_the_cache() {
    let server = TestServer::start();
    let (mut sender, mut receiver) = pair(&server, "presence-cache-x").await;
    sender.trigger("client-x", "presence-cache-x", json!("d")).await;
    receiver.expect_event("client-x", "presence-cache-x", "d").await;
    let mut late = server.connect().await;
    late.join("presence-cache-x", "u-3").await;
    late.expect("pusher:cache_miss").await;

    server.rest().publish("presence-cache-x", "kept", "1").await;
    receiver.expect("pusher_internal:member_added").await;
    receiver.expect_event("kept", "presence-cache-x", "1").await;
    sender.trigger("client-x", "presence-cache-x", json!("d")).await;
    receiver.expect_event("client-x", "presence-cache-x", "d").await;
    let mut later = server.connect().await;
    later.join("presence-cache-x", "u-4").await;
    later.expect_event("kept", "presence-cache-x", "1").await;
}
