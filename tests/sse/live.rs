//! What is published arrives, as on a socket.

use serde_json::json;

use super::access::Token;
use super::reader::{Block, get};
use crate::common::{TestServer, eventually, member};

#[tokio::test]
async fn an_event_arrives_as_the_frame_of_a_socket() {
    let server = TestServer::start();
    let mut stream = get("channels=news").open(&server).await;
    assert_eq!(stream.begin().await, None, "nothing to come back to on a channel that is not stored");
    server.rest().publish("news", "headline", "{\"text\":\"é 😀 </script>\\n\"}").await;
    let block = stream.next().await;
    let frame = r#"{"event":"headline","channel":"news","data":"{\"text\":\"é 😀 </script>\\n\"}"}"#;
    assert_eq!(block, Block { data: Some(frame.to_owned()), ..Block::default() });
}

#[tokio::test]
async fn the_answer_is_one_that_nobody_keeps_or_holds_back() {
    let server = TestServer::start();
    let stream = get("channels=news").open(&server).await;
    for (name, value) in [
        ("cache-control", "no-store, no-transform"),
        ("x-accel-buffering", "no"),
        ("vary", "Origin"),
        ("transfer-encoding", "chunked"),
        ("connection", "close"),
    ] {
        assert_eq!(stream.header(name), Some(value), "{name}");
    }
    for name in ["tidewire-recovered", "tidewire-position", "access-control-allow-origin", "content-length"] {
        assert_eq!(stream.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn a_stream_carries_several_channels_in_their_order() {
    let server = TestServer::start();
    let mut stream = get("channels=a,b&channel=c,d").open(&server).await;
    for number in 0..20 {
        for channel in ["a", "b", "c,d"] {
            server.rest().publish(channel, "e", &number.to_string()).await;
        }
    }
    stream.begin().await;
    let mut seen = std::collections::HashMap::new();
    for _ in 0..60 {
        let event = stream.next_event().await;
        let next: &mut u32 = seen.entry(event.channel.clone().unwrap()).or_default();
        assert_eq!(event.data(), next.to_string(), "{:?}", event.channel);
        *next += 1;
    }
    assert_eq!(seen.len(), 3);
}

#[tokio::test]
async fn private_and_presence_channels_need_what_a_socket_needs() {
    let server = TestServer::start();
    let token = Token::fetch(&server).await;
    let query = format!("{}&{}", token.query(&["private-b"]), token.member("presence-c", "u-1"));
    let mut stream = get(&format!("channels=private-b,presence-c&{query}")).open(&server).await;
    stream.begin().await;
    let members = stream.next_event().await;
    assert!(members.is("pusher_internal:subscription_succeeded", "presence-c"), "{members:?}");
    assert_eq!(members.json()["presence"]["ids"], json!(["u-1"]));

    let mut client = server.connect().await;
    client.join("presence-c", "u-2").await;
    let added = stream.next_event().await;
    assert!(added.is("pusher_internal:member_added", "presence-c"), "{added:?}");
    server.rest().publish("private-b", "e", "1").await;
    stream.expect_event("e", "private-b", "1").await;
    client.subscribe("private-b").await;
    client.trigger("client-x", "private-b", json!({"a": 1})).await;
    stream.expect_event("client-x", "private-b", r#"{"a":1}"#).await;

    drop(stream);
    let removed = client.next_event().await;
    assert!(removed.is("pusher_internal:member_removed", "presence-c"), "{removed:?}");
    assert_eq!(removed.json()["user_id"], "u-1");
}

#[tokio::test]
async fn a_publisher_leaves_out_the_socket_id_of_a_token() {
    let server = TestServer::start();
    let token = Token::fetch(&server).await;
    let mut stream = get(&format!("channels=news&token={}", token.token)).open(&server).await;
    stream.begin().await;
    server.rest().publish_except(&["news"], "e", "not for it", &token.socket_id).await;
    server.rest().publish("news", "e", "for all").await;
    stream.expect_event("e", "news", "for all").await;
}

#[tokio::test]
async fn two_streams_may_share_a_token() {
    let server = TestServer::start();
    let token = Token::fetch(&server).await;
    let query = format!("channels=private-a&{}", token.query(&["private-a"]));
    let mut streams = [get(&query).open(&server).await, get(&query).open(&server).await];
    server.rest().publish("private-a", "e", "1").await;
    for stream in &mut streams {
        stream.begin().await;
        stream.expect_event("e", "private-a", "1").await;
    }
    let [first, mut second] = streams;
    drop(first);
    eventually("the first to be gone", async || server.total(|node| node.node().connection_count()) == 1)
        .await;
    server.rest().publish("private-a", "e", "2").await;
    second.expect_event("e", "private-a", "2").await;
}

#[tokio::test]
async fn a_signed_in_stream_hears_what_is_for_its_user_until_it_is_terminated() {
    let server = TestServer::start();
    let token = Token::fetch(&server).await;
    let query = format!("channel=%23server-to-user-u-1&{}", token.user(r#"{"id":"u-1"}"#));
    let mut stream = get(&query).open(&server).await;
    stream.begin().await;
    server.rest().publish("#server-to-user-u-1", "notice", "1").await;
    stream.expect_event("notice", "#server-to-user-u-1", "1").await;
    let answer = server.rest().post("/apps/42/users/u-1/terminate_connections", "{}").send().await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(stream.expect_end(4009).await, "You got disconnected by the app.");
}

#[tokio::test]
async fn a_large_event_and_a_long_member_list_arrive_whole() {
    let server = TestServer::with(|app| {
        app.limits.max_event_bytes = 1 << 20;
    });
    let mut others = Vec::new();
    for number in 0..60 {
        let mut client = server.connect().await;
        let info = "é".repeat(400);
        let data = format!(r#"{{"user_id":"u-{number}","user_info":"{info}"}}"#);
        client.join_with("presence-a", &data).await;
        others.push(client);
    }
    let token = Token::fetch(&server).await;
    let query = format!("channels=presence-a&{}", token.member("presence-a", "u-me"));
    let mut stream = get(&query).open(&server).await;
    stream.begin().await;
    let members = stream.next_event().await;
    assert_eq!(members.json()["presence"]["count"], 61);
    let data = "x".repeat(1 << 20);
    server.rest().publish("presence-a", "large", &data).await;
    stream.expect_event("large", "presence-a", &data).await;
}

#[tokio::test]
async fn streams_and_sockets_count_alike() {
    let server = TestServer::with(|app| app.subscription_count = true);
    let mut stream = get("channels=news").open(&server).await;
    stream.begin().await;
    let _client = {
        let mut client = server.connect().await;
        client.subscribe("news").await;
        client
    };
    let info = server.rest().read("/channels/news", &[("info", "subscription_count")]).await;
    assert_eq!(info["subscription_count"], 2);
    assert_eq!(server.total(|node| node.apps().by_id("42").unwrap().connection_count()), 2);
    let _ = member("u-1");
}
