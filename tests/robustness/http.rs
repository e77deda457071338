//! Broken and slow HTTP.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::rest::Response;
use crate::common::websocket::{Upgrade, frame};
use crate::common::{Frame, HttpConnection, TestServer};

/// Writes the bytes on a fresh connection; the answer, or none if the server hung up.
async fn answer(server: &TestServer, bytes: &[u8]) -> Option<Response> {
    let mut connection = HttpConnection::open(server.addr()).await;
    // The server may hang up before it has read everything.
    let _ = connection.write(bytes).await;
    connection.try_response().await
}

/// The server refuses with a 4xx or hangs up, and goes on.
async fn refuses(server: &TestServer, what: &str, bytes: &[u8]) {
    if let Some(answer) = answer(server, bytes).await {
        assert!((400..500).contains(&answer.status), "{what}: {answer:?}");
    }
    server.assert_serves_others().await;
}

#[tokio::test]
async fn garbage_is_refused() {
    let server = TestServer::start();
    for (what, bytes) in [
        ("no HTTP", &b"HELLO\r\n\r\n"[..]),
        ("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03random\r\n\r\n"),
        ("zeros", &[0; 64]),
        ("a WebSocket frame", &frame(true, 1, b"x")),
        ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("no version", b"GET /app/tw-demo-key\r\n\r\n"),
        ("a bad header", b"GET / HTTP/1.1\r\nHost\r\n\r\n"),
        ("a bad length", b"POST /apps/42/events HTTP/1.1\r\nHost: t\r\nContent-Length: -1\r\n\r\n"),
        (
            "two lengths",
            b"POST /apps/42/events HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        ),
        ("a bad path", b"GET /\xff\xfe HTTP/1.1\r\nHost: t\r\n\r\n"),
    ] {
        refuses(&server, what, bytes).await;
    }
}

#[tokio::test]
async fn huge_heads_are_refused() {
    let server = TestServer::start();
    let huge_header =
        format!("GET /app/tw-demo-key HTTP/1.1\r\nHost: t\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    refuses(&server, "a header of a mebibyte", huge_header.as_bytes()).await;
    let many = format!("GET /app/tw-demo-key HTTP/1.1\r\nHost: t\r\n{}\r\n", "X: y\r\n".repeat(10_000));
    refuses(&server, "ten thousand headers", many.as_bytes()).await;
    let path = format!("GET /app/{} HTTP/1.1\r\nHost: t\r\n\r\n", "k".repeat(1 << 20));
    refuses(&server, "a path of a mebibyte", path.as_bytes()).await;
}

#[tokio::test]
async fn a_body_above_the_limit_is_answered_413() {
    let server = TestServer::with_config(|config| config.server.max_request_body_bytes = 10_000);
    let big = json!({"name": "e", "data": "x".repeat(20_000), "channels": ["a"]}).to_string();
    let answer = server.rest().post("/apps/42/events", big).send().await;
    assert_eq!(answer.status, 413, "{}", answer.body);

    let endless =
        "POST /apps/42/events?auth_key=tw-demo-key HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut connection = HttpConnection::open(server.addr()).await;
    connection.write(endless.as_bytes()).await.unwrap();
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    for _ in 0..100 {
        if connection.write(chunk.as_bytes()).await.is_err() {
            break;
        }
    }
    if let Some(answer) = connection.try_response().await {
        assert!(matches!(answer.status, 401 | 413), "{answer:?}");
    }
    server.assert_serves_others().await;
}

#[tokio::test]
async fn a_promised_giant_body_is_refused_by_its_length() {
    let server = TestServer::start();
    let head = "POST /apps/42/events HTTP/1.1\r\nHost: t\r\nContent-Length: 1099511627776\r\n\r\n";
    refuses(&server, "a terabyte", head.as_bytes()).await;
}

#[tokio::test]
async fn a_chunked_body_is_accepted() {
    let server = TestServer::start();
    let body = json!({"name": "e", "data": "d", "channels": ["a"]}).to_string();
    let request = server.rest().post("/apps/42/events", body.clone());
    let chunked = format!("5\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n", &body[..5], body.len() - 5, &body[5..]);
    let request = request.wire_body(chunked.as_bytes()).chunked();
    let answer = request.send().await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[tokio::test]
async fn a_request_head_that_never_ends_is_given_up() {
    let server = TestServer::with_config(|config| {
        config.server.header_timeout_seconds = 1;
        config.server.handshake_timeout_seconds = 1;
    });
    for beginning in [
        &b""[..],
        b"G",
        b"GET /app/tw-demo-key HTTP/1.1\r\nHost: t\r\n",
        b"POST /apps/42/events HTTP/1.1\r\n",
    ] {
        let started = Instant::now();
        let answer = answer(&server, beginning).await;
        assert!(answer.is_none_or(|answer| answer.status == 408), "no success without a request");
        assert!(started.elapsed() < Duration::from_secs(4));
    }
    server.assert_serves_others().await;
}

#[tokio::test]
async fn a_drip_fed_head_does_not_reset_the_time_out() {
    let server = TestServer::with_config(|config| {
        config.server.header_timeout_seconds = 1;
        config.server.handshake_timeout_seconds = 1;
    });
    let mut connection = HttpConnection::open(server.addr()).await;
    connection.write(b"GET /app/tw-demo-key HTTP/1.1\r\n").await.unwrap();
    let started = Instant::now();
    while connection.write(b"X-Slow: 1\r\n").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(started.elapsed() < Duration::from_secs(4), "still fed after {:?}", started.elapsed());
    }
    server.assert_serves_others().await;
}

#[tokio::test]
async fn too_many_handshakes_at_once_are_told_to_come_back() {
    let server = TestServer::with_config(|config| {
        config.server.workers = 1;
        // A handshake is over too soon for a test to hold one open: allow none.
        config.server.max_handshakes = 0;
    });
    let busy = answer(&server, &Upgrade::get("/app/tw-demo-key?protocol=7").bytes()).await.unwrap();
    assert_eq!(busy.status, 503);
    assert!(busy.header("retry-after").is_some_and(|value| value.parse::<u64>().is_ok()), "{busy:?}");
    assert_eq!(server.rest().get("/apps/42/channels").send().await.status, 200, "publishers are served");
}

#[tokio::test]
async fn incomplete_upgrades_are_refused_over_http() {
    let server = TestServer::start();
    for (what, head) in [
        ("no key", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"),
        (
            "old version",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        ),
        (
            "another protocol",
            "Connection: Upgrade\r\nUpgrade: h2c\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        ),
        (
            "no connection header",
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        ),
    ] {
        let request = format!("GET /app/tw-demo-key?protocol=7 HTTP/1.1\r\nHost: t\r\n{head}\r\n");
        refuses(&server, what, request.as_bytes()).await;
    }
    let post = String::from_utf8(Upgrade::get("/app/tw-demo-key?protocol=7").bytes())
        .unwrap()
        .replace("GET", "POST");
    refuses(&server, "a POST", post.as_bytes()).await;
}

#[tokio::test]
async fn header_names_and_values_of_an_upgrade_may_vary_in_case() {
    let server = TestServer::start();
    let request = "GET /app/tw-demo-key?protocol=7 HTTP/1.1\r\nhost: t\r\nCONNECTION: keep-alive, upgrade\r\n\
        UPGRADE: WebSocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let stream = tokio::net::TcpStream::connect(server.addr()).await.unwrap();
    let mut socket = Upgrade::raw(request.into()).send_over(stream).await.upgraded();
    assert!(matches!(socket.next_frame().await, Frame::Text(_)));
}

#[tokio::test]
async fn an_http_1_0_request_is_answered() {
    let server = TestServer::start();
    let answer = answer(&server, b"GET /up HTTP/1.0\r\n\r\n").await.unwrap();
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_publisher_that_waits_for_100_continue_is_told_to_go_on() {
    let server = TestServer::start();
    let body = json!({"name": "e", "data": "d", "channels": ["a"]}).to_string();
    let request = server.rest().post("/apps/42/events", body.clone()).header("Expect", "100-continue");
    let mut connection = HttpConnection::open(server.addr()).await;
    let bytes = request.bytes();
    let (head, _) = bytes.split_at(bytes.len() - body.len());
    connection.write(head).await.unwrap();
    assert_eq!(connection.response().await.status, 100);
    connection.write(body.as_bytes()).await.unwrap();
    assert_eq!(connection.response().await.status, 200);
}

#[tokio::test]
async fn a_peer_that_leaves_in_the_middle_of_anything_leaves_no_trace() {
    let server = TestServer::start();
    let upgrade = Upgrade::get("/app/tw-demo-key?protocol=7").bytes();
    let publish = server.rest().post("/apps/42/events", "{}").bytes();
    for bytes in [upgrade, publish] {
        for cut in (0..bytes.len()).step_by(7) {
            let mut connection = HttpConnection::open(server.addr()).await;
            connection.write(&bytes[..cut]).await.unwrap();
        }
    }
    server.assert_serves_others().await;
    crate::common::eventually("no connection to be left", async || {
        server.inner().node().connection_count() == 0
    })
    .await;
}
