//! 9.2 Liveness and framing.

use serde_json::{Value, json};

use crate::common::websocket::{BINARY, CONTINUATION, PING, PONG, TEXT};
use crate::common::{Client, Event, Frame, TestServer, member};

const IDLE_SECONDS: u64 = 120;
const PONG_SECONDS: u64 = 30;

#[tokio::test]
async fn s028_every_spelling_of_a_ping_is_answered_by_one_pong() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    for ping in [
        r#"{"event":"pusher:ping","data":{}}"#,
        r#"{"event": "pusher:ping"}"#,
        r#"{"event":"pusher:ping","data":""}"#,
        r#"{"event":"pusher:ping","data":"{}"}"#,
        r#"{"event":"pusher:ping","data":null}"#,
    ] {
        client.send_text(ping).await;
        let pong = client.expect("pusher:pong").await;
        assert_eq!(pong.data.as_deref().unwrap_or("{}"), "{}", "{ping}");
        client.assert_silent().await;
    }
}

#[tokio::test]
async fn s029_an_unsolicited_pong_has_no_effect() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    client.send(json!({"event": "pusher:pong", "data": {}})).await;
    client.send(json!({"event": "pusher:pong"})).await;
    client.socket.send_frame(true, PONG, b"unsolicited").await;
    client.assert_silent().await;
}

#[tokio::test]
async fn s030_a_control_ping_is_answered_with_its_payload() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    for payload in [&b"abc"[..], &b""[..], &[0xff; 125][..]] {
        client.socket.send_frame(true, PING, payload).await;
        assert_eq!(client.next_frame().await, Frame::Pong(payload.to_vec()));
    }
}

#[tokio::test]
async fn s031_a_control_ping_each_second_is_not_limited() {
    let server = TestServer::start();
    let mut client = server.connect_with("protocol=5&client=pusher-dotnet-client&version=2.3.1").await;
    for second in 0..600u32 {
        server.advance(1);
        client.socket.send_frame(true, PING, &second.to_be_bytes()).await;
        assert_eq!(client.next_frame().await, Frame::Pong(second.to_be_bytes().to_vec()));
    }
    client.assert_silent().await;
}

#[tokio::test]
async fn s032_a_silent_client_is_probed_by_a_control_ping() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    client.answers_pings = false;
    server.advance(IDLE_SECONDS + 1);
    assert!(matches!(client.next_frame().await, Frame::Ping(_)));
}

#[tokio::test]
async fn s032_a_client_below_the_idle_limit_is_left_alone() {
    // One worker sweeps both connections in one go.
    let server = TestServer::with_config(|config| config.server.workers = 1);
    let mut older = server.connect().await;
    server.advance(10);
    let mut younger = server.connect().await;
    (older.answers_pings, younger.answers_pings) = (false, false);
    server.advance(IDLE_SECONDS - 9);
    assert!(matches!(older.next_frame().await, Frame::Ping(_)));
    younger.assert_silent().await;
}

#[tokio::test]
async fn s033_a_client_that_answers_control_pings_only_stays_for_ten_minutes() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    client.answers_pings = false;
    for _ in 0..5 {
        server.advance(IDLE_SECONDS + 1);
        let Frame::Ping(payload) = client.next_frame().await else { panic!("a control ping is due") };
        client.socket.send_frame(true, PONG, &payload).await;
        client.sync_by_control().await;
    }
    client.assert_silent().await;
}

#[tokio::test]
async fn s034_a_client_that_answers_nothing_is_closed_with_4201() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    let mut other = server.connect().await;
    client.answers_pings = false;
    server.advance(IDLE_SECONDS + 1);
    assert!(matches!(client.next_frame().await, Frame::Ping(_)));
    other.sync().await;
    server.advance(PONG_SECONDS + 1);
    client.expect_close(4201).await;
    other.assert_silent().await;
}

#[tokio::test]
async fn s034_a_pong_within_the_limit_keeps_the_client() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    client.answers_pings = false;
    server.advance(IDLE_SECONDS + 1);
    let Frame::Ping(payload) = client.next_frame().await else { panic!("a control ping is due") };
    server.advance(PONG_SECONDS - 5);
    client.socket.send_frame(true, PONG, &payload).await;
    client.sync_by_control().await;
    // Judged by the next sweep: another probe, not a close.
    server.advance(IDLE_SECONDS + 1);
    assert!(matches!(client.next_frame().await, Frame::Ping(_)));
}

#[tokio::test]
async fn a_close_is_explained_by_a_frame_to_protocols_before_6_only() {
    let server = TestServer::start();
    let mut old = server.connect_with("protocol=5&client=java-client").await;
    let mut new = server.connect_with("protocol=6&client=Pysher").await;
    (old.answers_pings, new.answers_pings) = (false, false);
    server.advance(IDLE_SECONDS + 1);
    for client in [&mut old, &mut new] {
        assert!(matches!(client.next_frame().await, Frame::Ping(_)));
    }
    server.advance(PONG_SECONDS + 1);
    old.expect_error(Some(4201)).await;
    old.expect_close(4201).await;
    new.expect_close(4201).await;
}

#[tokio::test]
async fn s035_outbound_frames_are_no_sign_of_life() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    client.answers_pings = false;
    client.subscribe("news").await;
    for second in 0..4 {
        server.advance(29);
        server.rest().publish("news", "tick", &second.to_string()).await;
        client.expect_event("tick", "news", &second.to_string()).await;
    }
    server.advance(5);
    assert!(matches!(client.next_frame().await, Frame::Ping(_)));
}

#[tokio::test]
async fn s035_every_inbound_frame_is_a_sign_of_life() {
    // One worker sweeps both connections in one go.
    let server = TestServer::with_config(|config| config.server.workers = 1);
    let signs: [(bool, u8, &[u8]); 5] = [
        (true, TEXT, br#"{"event":"pusher:pong"}"#),
        (true, TEXT, b"not json"),
        (true, PING, b"x"),
        (true, PONG, b""),
        (false, TEXT, b"{"),
    ];
    for (fin, opcode, payload) in signs {
        let mut silent = server.connect().await;
        let mut lively = server.connect().await;
        (silent.answers_pings, lively.answers_pings) = (false, false);
        server.advance(IDLE_SECONDS - 5);
        lively.socket.send_frame(fin, opcode, payload).await;
        // The sign is read before a later connection is greeted by the same thread.
        server.connect().await.sync().await;
        server.advance(10);
        assert!(matches!(silent.next_frame().await, Frame::Ping(_)));
        if !fin {
            lively.socket.send_frame(true, CONTINUATION, br#""event":"pusher:pong"}"#).await;
        }
        lively.socket.send_frame(true, PING, b"end").await;
        loop {
            match lively.next_frame().await {
                Frame::Ping(_) => panic!("probed after a sign of life: {opcode:#x} {payload:?}"),
                Frame::Pong(payload) if payload == b"end" => break,
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn s036_malformed_text_is_answered_by_an_error_and_the_connection_stays() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    for text in [
        "not json",
        r#"{"data":{}}"#,
        "[]",
        r#""x""#,
        "5",
        "null",
        "true",
        "{}",
        "",
        "{",
        r#"{"event":5}"#,
        r#"{"event":null}"#,
        r#"{"event":{}}"#,
        r#"{"event":""}"#,
        r#"{"event":"pusher:subscribe"}"#,
        r#"{"event":"pusher:subscribe","data":null}"#,
        r#"{"event":"pusher:subscribe","data":[]}"#,
        r#"{"event":"pusher:subscribe","data":"not json"}"#,
        r#"{"event":"pusher:unsubscribe","data":7}"#,
        r#"{"event":"pusher:signin","data":"x"}"#,
        r#"{"event":"pusher:ping"}{"event":"pusher:ping"}"#,
    ] {
        client.send_text(text).await;
        client.expect_refusal().await;
    }
    client.send_text(&"[".repeat(60_000)).await;
    client.expect_refusal().await;
    client.assert_silent().await;
}

#[tokio::test]
async fn s037_a_binary_frame_closes_with_1003() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    client.socket.send_frame(true, BINARY, br#"{"event":"pusher:ping"}"#).await;
    client.expect_close(1003).await;
    server.assert_serves_others().await;
}

#[tokio::test]
async fn s038_a_message_above_the_limit_closes_with_1009() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    client.send_text(&sized_ping(65_536)).await;
    client.expect("pusher:pong").await;
    client.send_text(&sized_ping(65_537)).await;
    client.expect_close(1009).await;
}

#[tokio::test]
async fn s038_the_limit_counts_the_whole_of_a_fragmented_message() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    let message = sized_ping(65_537);
    let (first, rest) = message.as_bytes().split_at(40_000);
    client.socket.send_frame(false, TEXT, first).await;
    client.socket.send_frame(true, CONTINUATION, rest).await;
    client.expect_close(1009).await;
}

#[tokio::test]
async fn s038_the_limit_is_the_apps() {
    let server = TestServer::with(|app| app.limits.max_message_bytes = 1000);
    let mut client = server.connect().await;
    client.send_text(&sized_ping(1000)).await;
    client.expect("pusher:pong").await;
    client.send_text(&sized_ping(1001)).await;
    client.expect_close(1009).await;
}

/// A ping of exactly this many bytes.
fn sized_ping(bytes: usize) -> String {
    let frame = r#"{"event":"pusher:ping","data":""}"#;
    frame.replace(r#""""#, &format!("\"{}\"", "x".repeat(bytes - frame.len())))
}

#[tokio::test]
async fn s039_fragments_are_put_together() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    let message = r#"{"event":"pusher:subscribe","data":{"channel":"news","note":"ä😀"}}"#.as_bytes();
    for cuts in [vec![10], vec![0, 1, 2, 3, message.len()], (1..message.len()).collect()] {
        let mut from = 0;
        for (index, &to) in cuts.iter().enumerate() {
            let opcode = if index == 0 { TEXT } else { CONTINUATION };
            client.socket.send_frame(false, opcode, &message[from..to]).await;
            from = to;
        }
        client.socket.send_frame(true, CONTINUATION, &message[from..]).await;
        client.succeeded("news").await;
        client.unsubscribe("news").await;
    }
}

#[tokio::test]
async fn s039_control_frames_may_stand_between_fragments() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    client.socket.send_frame(false, TEXT, br#"{"event":"pusher:"#).await;
    client.socket.send_frame(true, PING, b"between").await;
    assert_eq!(client.next_frame().await, Frame::Pong(b"between".to_vec()));
    client.socket.send_frame(true, CONTINUATION, br#"ping"}"#).await;
    client.expect("pusher:pong").await;
}

#[tokio::test]
async fn s040_an_unknown_event_is_refused_by_name() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    client.send(json!({"event": "pusher:frobnicate", "data": {}})).await;
    let message = client.expect_refusal().await;
    assert!(message.contains("pusher:frobnicate"), "{message}");
}

#[tokio::test]
async fn s041_unknown_members_of_a_frame_are_ignored() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    client
        .send(json!({"event": "pusher:subscribe", "userId": null, "id": 7, "nested": {"a": [1, {}]},
            "data": {"channel": "news"}}))
        .await;
    client.succeeded("news").await;
    client.send(json!({"event": "pusher:ping", "userId": null, "channel": null, "data": {}})).await;
    client.expect("pusher:pong").await;
}

/// One frame of every kind the server has, for each protocol version.
#[tokio::test]
async fn s042_every_frame_but_the_error_carries_its_data_as_a_string() {
    let server = TestServer::with(|app| app.subscription_count = true);
    for query in ["protocol=5&client=java-client", "protocol=6&client=Pysher", "protocol=7&client=js"] {
        let frames = grand_tour(&server, query).await;
        for kind in [
            "pusher:pong",
            "pusher:error",
            "pusher_internal:subscription_succeeded",
            "pusher_internal:member_added",
            "pusher_internal:member_removed",
            "pusher_internal:subscription_count",
            "pusher:cache_miss",
            "pusher:signin_success",
            "pusher_internal:watchlist_events",
            "published",
            "client-typing",
        ] {
            assert!(frames.iter().any(|event| event.event == kind), "{query}: no {kind} on the tour");
        }
        for event in frames {
            let is_string = event.frame.get("data").is_none_or(Value::is_string);
            assert_eq!(is_string, event.event != "pusher:error", "{query}: {}", event.frame);
        }
    }
}

/// Makes the server say everything it can say on an open connection.
pub async fn grand_tour(server: &TestServer, query: &str) -> Vec<Event> {
    let mut friend = server.connect().await;
    friend.sign_in(r#"{"id":"friend"}"#).await;
    let mut client = server.connect_with(query).await;
    let mut seen = Vec::new();
    client.send_signin(r#"{"id":"tourist","watchlist":["friend","nobody"]}"#).await;
    for channel in ["news", "cache-empty", "private-a", "private-encrypted-b", "#server-to-user-tourist"] {
        client.request(channel, None).await;
    }
    client.request("presence-p", Some(&member("tourist"))).await;
    client.send(json!({"event": "pusher:nonsense"})).await;
    client.send(json!({"event": "pusher:ping"})).await;
    seen.extend(client.pending_events().await);

    friend.join("presence-p", "friend").await;
    friend.trigger("client-typing", "presence-p", json!({"by": "friend"})).await;
    friend.unsubscribe("presence-p").await;
    for channel in ["news", "private-a", "private-encrypted-b", "presence-p", "#server-to-user-tourist"] {
        server.rest().publish(channel, "published", r#"{"a":1}"#).await;
    }
    friend.close().await;
    seen.extend(until(&mut client, "pusher_internal:watchlist_events", "offline").await);
    seen
}

/// Reads up to the event with this name whose data contains the text.
async fn until(client: &mut Client, name: &str, text: &str) -> Vec<Event> {
    let mut seen = Vec::new();
    loop {
        let event = client.next_event().await;
        let found = event.event == name && event.data.as_deref().is_some_and(|data| data.contains(text));
        seen.push(event);
        if found {
            return seen;
        }
    }
}
