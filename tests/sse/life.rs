//! How long a stream lives, and how it ends.

use std::time::Duration;

use tidewire::config::{AppConfig, Config};

use super::access::Token;
use super::reader::{Stream, get};
use crate::common::{TestServer, demo_app, eventually};

async fn begun(server: &TestServer, query: &str) -> Stream {
    let mut stream = get(query).open(server).await;
    stream.begin().await;
    stream
}

async fn nobody_is_left(server: &TestServer) {
    eventually("no connection to be left", async || server.total(|node| node.node().connection_count()) == 0)
        .await;
}

#[tokio::test]
async fn a_client_that_is_gone_leaves_at_once() {
    let server = TestServer::start();
    let stream = begun(&server, "channels=news").await;
    assert_eq!(server.total(|node| node.node().connection_count()), 1);
    drop(stream);
    nobody_is_left(&server).await;
    assert_eq!(server.rest().read("/channels", &[]).await, serde_json::json!({"channels": {}}));
}

#[tokio::test]
async fn a_stream_takes_no_place_among_those_that_speak_http() {
    let server = TestServer::start();
    let http = || server.total(|node| node.node().metrics.http_connections.get());
    let mut streams = Vec::new();
    for _ in 0..10 {
        streams.push(begun(&server, "channels=news").await);
    }
    eventually("the streams to give up their places", async || http() == 0).await;
    assert_eq!(server.total(|node| node.node().connection_count()), 10);
    drop(streams);
    nobody_is_left(&server).await;
    assert_eq!(http(), 0, "a place is given back once");
}

#[tokio::test]
async fn a_quiet_stream_says_something_now_and_then() {
    let server = TestServer::start();
    let mut stream = begun(&server, "channels=news").await;
    for _ in 0..3 {
        server.advance(28);
        let block = stream.next_block().await.unwrap();
        assert_eq!(block.comment.as_deref(), Some("ka"), "{block:?}");
    }
    server.rest().publish("news", "e", "1").await;
    assert_eq!(stream.next_block().await.unwrap().comment, None);
}

#[tokio::test]
async fn the_shortest_keepalive_holds() {
    let server = TestServer::with(|app| app.limits.keepalive_interval = Duration::from_secs(60));
    let token = Token::fetch(&server).await;
    let user = token.user(r#"{"id":"u-1","replay":{"keepalive":5}}"#);
    let mut ours = begun(&server, &format!("channels=news&{user}")).await;
    let mut theirs = begun(&server, "channels=news").await;
    server.advance(6);
    assert!(ours.next_block().await.unwrap().comment.is_some());
    server.rest().publish("news", "e", "1").await;
    assert!(theirs.next_block().await.unwrap().comment.is_none());
}

#[tokio::test]
async fn a_stream_outlives_the_pings_that_find_dead_sockets() {
    let server = TestServer::with(|app| app.limits.max_sse_lifetime = Duration::ZERO);
    let mut stream = begun(&server, "channels=news").await;
    for minute in 0..30 {
        server.advance(60);
        let number = minute.to_string();
        server.rest().publish("news", "e", &number).await;
        stream.expect_event("e", "news", &number).await;
    }
}

#[tokio::test]
async fn a_stream_ends_when_it_has_lived_long_enough() {
    let server = TestServer::start();
    let mut stream = begun(&server, "channels=news").await;
    server.rest().publish("news", "e", "1").await;
    stream.expect_event("e", "news", "1").await;
    // No error comes before the end: the client just comes back.
    'life: for minute in 0.. {
        assert!(minute <= 2 * 60 * 12 / 10, "it does not end");
        server.advance(60);
        // Whoever has passed on two events has answered the ping before them, and the server has seen to the answer.
        for _ in 0..2 {
            server.rest().publish("news", "e", "2").await;
            loop {
                let Some(block) = stream.next_block().await else { break 'life };
                if block.comment.is_none() {
                    assert!(block.event.is_none(), "{block:?}");
                    break;
                }
            }
        }
    }
    nobody_is_left(&server).await;
}

#[tokio::test]
async fn a_drain_spreads_when_clients_come_back() {
    let server = TestServer::with_config(|config| config.server.drain_seconds = 1);
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(begun(&server, "channels=news").await);
    }
    let reading = async {
        let mut retries = std::collections::HashSet::new();
        for stream in &mut streams {
            let retry = stream.next().await.retry.expect("a drain tells when to come back");
            assert!((500..=1500).contains(&retry), "{retry}");
            retries.insert(retry);
            assert_eq!(stream.next_block().await, None);
        }
        assert!(retries.len() > 10, "{retries:?}");
    };
    tokio::join!(server.inner().drain(), reading);
    let mut refused = get("channels=news").send(&server).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert!(refused.body().await.contains("Server is restarting"));
    // An EventSource would never come back after a 503.
    let mut stream = get("channels=news").header("Accept", "text/event-stream").open(&server).await;
    assert!(stream.next().await.retry.is_some());
    assert_eq!(stream.next_block().await, None);
}

#[tokio::test]
async fn stopping_the_server_ends_every_stream() {
    let server = TestServer::start();
    let mut stream = begun(&server, "channels=news").await;
    drop(server);
    assert!(stream.is_cut_off().await);
}

#[tokio::test]
async fn an_app_that_is_disabled_or_removed_ends_its_streams_with_the_reason() {
    for (apps, code) in [(vec![AppConfig { enabled: false, ..demo_app() }], 4003), (vec![], 4001)] {
        let server = TestServer::start();
        let mut stream = begun(&server, "channels=news").await;
        server.inner().reload(Config::for_tests(apps)).unwrap();
        stream.expect_end(code).await;
        nobody_is_left(&server).await;
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_the_others_are_served() {
    let server = TestServer::with_config(|config| {
        config.server.outbox_bytes = 64 * 1024;
        config.apps[0].limits.max_event_bytes = 100_000;
    });
    let mut quick = begun(&server, "channels=news").await;
    let mut slow = begun(&server, "channels=news").await;
    let data = "x".repeat(50_000);
    let mut published = 0;
    while server.total(|node| node.node().connection_count()) > 1 {
        server.rest().publish("news", "e", &data).await;
        quick.expect_event("e", "news", &data).await;
        published += 1;
        assert!(published < 1000, "nobody was closed");
    }
    server.rest().publish("news", "e", "last").await;
    quick.expect_event("e", "news", "last").await;
    // Once it reads, it hears why.
    let mut received = 0;
    let end = loop {
        let block = slow.next().await;
        if block.event.is_some() {
            break block;
        }
        received += 1;
    };
    assert_eq!(end.json()["code"], 4100);
    assert!(received < published);
    assert_eq!(slow.next_block().await, None);
}

#[tokio::test]
async fn a_thousand_streams_come_and_go_without_a_trace() {
    let server = TestServer::start();
    for _ in 0..5 {
        let mut streams = Vec::new();
        for _ in 0..200 {
            streams.push(begun(&server, "channels=news,sport").await);
        }
        server.rest().publish("news", "e", "1").await;
        for stream in &mut streams {
            stream.expect_event("e", "news", "1").await;
        }
    }
    nobody_is_left(&server).await;
    assert_eq!(server.total(|node| node.node().handshakes()), 0);
    assert_eq!(server.rest().read("/channels", &[]).await, serde_json::json!({"channels": {}}));
    server.assert_serves_others().await;
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_anything_leaves_no_trace() {
    let server = TestServer::start();
    let bytes = get("channels=news").bytes();
    for cut in (0..=bytes.len()).step_by(5) {
        let mut connection = crate::common::HttpConnection::open(server.addr()).await;
        connection.write(&bytes[..cut]).await.unwrap();
    }
    server.assert_serves_others().await;
    nobody_is_left(&server).await;
}
