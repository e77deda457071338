//! WebSocket bytes that no well-behaved client sends.

use crate::common::websocket::{BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame, frame_head};
use crate::common::{Client, Frame, TestServer, Upgrade, eventually};

const PROTOCOL_ERROR: u16 = 1002;
const INVALID_TEXT: u16 = 1007;
const TOO_LARGE: u16 = 1009;

const PING_TEXT: &str = r#"{"event":"pusher:ping"}"#;

/// Sends the bytes on a fresh connection, which must be closed with this code.
async fn closes(server: &TestServer, what: &str, bytes: &[u8], code: u16) {
    let mut client = server.connect().await;
    client.socket.send_bytes(bytes).await;
    match client.next_frame().await {
        Frame::Close(seen, reason) => assert_eq!(seen, Some(code), "{what}: {reason}"),
        other => panic!("{what}: expected close {code}, got {other:?}"),
    }
    server.assert_serves_others().await;
}

/// The same frame with the first byte replaced.
fn with_first_byte(mut bytes: Vec<u8>, first: u8) -> Vec<u8> {
    bytes[0] = first;
    bytes
}

#[tokio::test]
async fn an_unmasked_frame_is_a_protocol_error() {
    let server = TestServer::start();
    for opcode in [TEXT, BINARY, PING, PONG, CLOSE] {
        let mut bytes = frame_head(true, opcode, 2, false);
        bytes.extend_from_slice(&1000u16.to_be_bytes());
        closes(&server, "unmasked", &bytes, PROTOCOL_ERROR).await;
    }
}

#[tokio::test]
async fn reserved_bits_are_a_protocol_error() {
    let server = TestServer::start();
    for reserved in [0x40, 0x20, 0x10, 0x70] {
        for opcode in [TEXT, PING] {
            let bytes = with_first_byte(frame(true, opcode, b"x"), 0x80 | reserved | opcode);
            closes(&server, "reserved bit", &bytes, PROTOCOL_ERROR).await;
        }
    }
}

#[tokio::test]
async fn reserved_opcodes_are_a_protocol_error() {
    let server = TestServer::start();
    for opcode in [3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        closes(&server, "reserved opcode", &frame(true, opcode, b""), PROTOCOL_ERROR).await;
    }
}

#[tokio::test]
async fn control_frames_are_short_and_whole() {
    let server = TestServer::start();
    for opcode in [PING, PONG, CLOSE] {
        closes(&server, "fragmented control", &frame(false, opcode, b"x"), PROTOCOL_ERROR).await;
        closes(&server, "long control", &frame(true, opcode, &[b'x'; 126]), PROTOCOL_ERROR).await;
    }
}

#[tokio::test]
async fn fragments_come_in_order() {
    let server = TestServer::start();
    closes(&server, "continuation of nothing", &frame(true, CONTINUATION, b"x"), PROTOCOL_ERROR).await;
    let two_starts = [frame(false, TEXT, b"one"), frame(true, TEXT, b"two")].concat();
    closes(&server, "a message inside a message", &two_starts, PROTOCOL_ERROR).await;
    let after_end = [frame(true, TEXT, PING_TEXT.as_bytes()), frame(true, CONTINUATION, b"x")].concat();
    let mut client = server.connect().await;
    client.socket.send_bytes(&after_end).await;
    client.expect("pusher:pong").await;
    client.expect_close(PROTOCOL_ERROR).await;
}

#[tokio::test]
async fn lengths_are_written_minimally() {
    let server = TestServer::start();
    let mut short_as_16 = vec![0x81, 0x80 | 126, 0, 1, 0, 0, 0, 0, b'x'];
    closes(&server, "1 byte in the 16-bit form", &short_as_16, PROTOCOL_ERROR).await;
    short_as_16[3] = 125;
    short_as_16.extend_from_slice(&[b'x'; 124]);
    closes(&server, "125 bytes in the 16-bit form", &short_as_16, PROTOCOL_ERROR).await;
    let mut as_64 = vec![0x81, 0x80 | 127];
    as_64.extend_from_slice(&200u64.to_be_bytes());
    as_64.extend_from_slice(&[0; 4]);
    as_64.extend_from_slice(&[b'x'; 200]);
    closes(&server, "200 bytes in the 64-bit form", &as_64, PROTOCOL_ERROR).await;
}

#[tokio::test]
async fn a_promised_giant_is_refused_by_its_head() {
    let server = TestServer::start();
    for length in [70_000u64, 1 << 31, 1 << 40, (1 << 63) - 1] {
        for opcode in [TEXT, BINARY] {
            let mut bytes = frame_head(true, opcode, length, true);
            bytes.extend_from_slice(&[0; 4]);
            closes(&server, "giant", &bytes, TOO_LARGE).await;
        }
    }
    let mut negative = frame_head(true, TEXT, u64::MAX, true);
    negative.extend_from_slice(&[0; 4]);
    let mut client = server.connect().await;
    client.socket.send_bytes(&negative).await;
    let code = client.socket.closed_with().await;
    assert!(matches!(code, Some(PROTOCOL_ERROR | TOO_LARGE)), "{code:?}");
}

#[tokio::test]
async fn an_oversize_message_is_refused_while_it_is_still_being_sent() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    // The peer keeps writing after the refusal; the close frame must reach it all the same.
    let _ = client.socket.try_send_bytes(&frame(true, TEXT, &vec![b'x'; 4 << 20])).await;
    client.expect_close(TOO_LARGE).await;

    let mut client = server.connect().await;
    client.socket.send_frame(false, TEXT, &[b'x'; 60_000]).await;
    for _ in 0..50 {
        if client.socket.try_send_bytes(&frame(false, CONTINUATION, &[b'x'; 60_000])).await.is_err() {
            break;
        }
    }
    client.expect_close(TOO_LARGE).await;
    server.assert_serves_others().await;
}

#[tokio::test]
async fn endless_empty_fragments_are_bounded_or_harmless() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    client.socket.send_frame(false, TEXT, PING_TEXT.as_bytes()).await;
    let empty = frame(false, CONTINUATION, b"");
    for _ in 0..100 {
        client.socket.send_bytes(&empty.repeat(100)).await;
    }
    client.socket.send_frame(true, CONTINUATION, b"").await;
    client.expect("pusher:pong").await;
    client.assert_silent().await;
}

#[tokio::test]
async fn text_must_be_utf_8() {
    let server = TestServer::start();
    for text in
        [&b"\xff"[..], b"\xc3", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xc0\x80", b"{\"event\":\"\xfe\"}"]
    {
        closes(&server, "invalid UTF-8", &frame(true, TEXT, text), INVALID_TEXT).await;
    }
    let cut = [frame(false, TEXT, b"\xe2\x82"), frame(true, CONTINUATION, b"")].concat();
    closes(&server, "a sequence cut off", &cut, INVALID_TEXT).await;
}

#[tokio::test]
async fn a_character_may_be_split_between_fragments() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    let message = r#"{"event":"pusher:ping","data":"€😀"}"#.as_bytes();
    let split = message.len() - 5;
    client.socket.send_frame(false, TEXT, &message[..split]).await;
    client.socket.send_frame(true, CONTINUATION, &message[split..]).await;
    client.expect("pusher:pong").await;
}

#[tokio::test]
async fn malformed_close_frames_are_a_protocol_error() {
    let server = TestServer::start();
    closes(&server, "one byte", &frame(true, CLOSE, b"x"), PROTOCOL_ERROR).await;
    for code in [0u16, 1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
        closes(&server, "close code", &frame(true, CLOSE, &code.to_be_bytes()), PROTOCOL_ERROR).await;
    }
    closes(&server, "reason", &frame(true, CLOSE, b"\x03\xe8\xff\xfe"), INVALID_TEXT).await;
}

#[tokio::test]
async fn a_close_is_answered_with_a_close_and_the_end() {
    let server = TestServer::start();
    for payload in
        [&b""[..], &b"\x03\xe8"[..], &b"\x03\xe9going away"[..], &b"\x0f\xa0"[..], &b"\x0b\xb8"[..]]
    {
        let mut client = server.connect().await;
        client.socket.send_frame(true, CLOSE, payload).await;
        let Frame::Close(code, _) = client.next_frame().await else { panic!("a close answers a close") };
        let sent = payload.first_chunk::<2>().map(|code| u16::from_be_bytes(*code));
        assert!(code == sent || code == Some(1000) || code.is_none(), "{sent:?} answered by {code:?}");
        assert_eq!(client.next_frame().await, Frame::Eof);
    }
    eventually("no connection to be left", async || server.inner().node().connection_count() == 0).await;
}

#[tokio::test]
async fn nothing_after_a_close_is_acted_on() {
    let server = TestServer::start();
    let mut watcher = server.connect().await;
    watcher.subscribe("private-a").await;
    let mut client = server.connect().await;
    client.subscribe("private-a").await;
    let event = r#"{"event":"client-x","channel":"private-a","data":1}"#;
    let bytes = [frame(true, CLOSE, b"\x03\xe8"), frame(true, TEXT, event.as_bytes())].concat();
    client.socket.send_bytes(&bytes).await;
    client.socket.closed_with().await;
    watcher.assert_silent().await;
}

#[tokio::test]
async fn a_peer_that_ignores_a_close_does_not_stay() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    client.socket.send_frame(true, BINARY, b"x").await;
    client.expect_close(1003).await;
    // No answer, no FIN from here; the server's end must come by itself.
    eventually("the connection to be gone", async || server.inner().node().connection_count() == 0).await;
    drop(client);
}

#[tokio::test]
async fn frames_may_arrive_byte_by_byte() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    let subscribe = frame(true, TEXT, br#"{"event":"pusher:subscribe","data":{"channel":"news"}}"#);
    let long =
        frame(true, TEXT, format!(r#"{{"event":"pusher:ping","data":"{}"}}"#, "x".repeat(300)).as_bytes());
    for byte in subscribe.iter().chain(&frame(true, PING, b"slow")) {
        client.socket.send_bytes(&[*byte]).await;
        tokio::task::yield_now().await;
    }
    client.succeeded("news").await;
    assert_eq!(client.next_frame().await, Frame::Pong(b"slow".to_vec()));
    for byte in &long {
        client.socket.send_bytes(&[*byte]).await;
    }
    client.expect("pusher:pong").await;
    server.rest().publish("news", "e", "1").await;
    client.expect_event("e", "news", "1").await;
}

#[tokio::test]
async fn a_packet_may_hold_many_frames_and_a_piece() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    let ping = frame(true, TEXT, PING_TEXT.as_bytes());
    let all = ping.repeat(1000);
    let (first, rest) = all.split_at(all.len() - 7);
    client.socket.send_bytes(first).await;
    for _ in 0..999 {
        client.expect("pusher:pong").await;
    }
    client.socket.send_bytes(rest).await;
    client.expect("pusher:pong").await;
    client.assert_silent().await;
}

#[tokio::test]
async fn frames_sent_together_with_the_upgrade_are_read() {
    let server = TestServer::start();
    let stream = tokio::net::TcpStream::connect(server.addr()).await.unwrap();
    let mut bytes = Upgrade::get("/app/tw-demo-key?protocol=7").bytes();
    bytes.extend(frame(true, TEXT, br#"{"event":"pusher:subscribe","data":{"channel":"eager"}}"#));
    let socket = Upgrade::raw(bytes).send_over(stream).await.upgraded();
    let mut client = Client::greeted(socket, server.rest()).await;
    client.succeeded("eager").await;
    server.rest().publish("eager", "e", "1").await;
    client.expect_event("e", "eager", "1").await;
}

#[tokio::test]
async fn random_bytes_never_hurt_the_others() {
    let server = TestServer::start();
    let mut random = Random(0x5eed);
    for _ in 0..300 {
        let mut client = server.connect().await;
        let length = random.below(600);
        let bytes: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
        let _ = client.socket.try_send_bytes(&bytes).await;
        client.reset();
    }
    server.assert_serves_others().await;
    eventually("no connection to be left", async || server.inner().node().connection_count() == 0).await;
}

#[tokio::test]
async fn valid_frames_of_mangled_messages_never_hurt_the_others() {
    let server = TestServer::start();
    let mut random = Random(0xcafe);
    let seeds = [
        r#"{"event":"pusher:subscribe","data":{"channel":"presence-a","auth":"tw-demo-key:00","channel_data":"{\"user_id\":\"u\"}"}}"#,
        r#"{"event":"pusher:signin","data":{"auth":"tw-demo-key:00","user_data":"{\"id\":\"u\",\"watchlist\":[\"a\"]}"}}"#,
        r#"{"event":"client-x","channel":"private-a","data":{"a":[1,2,{"b":null}]}}"#,
        r#"{"event":"pusher:unsubscribe","data":"{\"channel\":\"a\"}"}"#,
    ];
    for round in 0..200 {
        let mut client = server.connect().await;
        let mut text = seeds[round % seeds.len()].as_bytes().to_vec();
        for _ in 0..=random.below(4) {
            let at = random.below(text.len());
            match random.below(3) {
                0 => text[at] = random.below(128) as u8,
                1 => drop(text.remove(at)),
                _ => text.insert(at, b"{}[]\",:\\0n"[random.below(10)]),
            }
        }
        client.socket.send_frame(true, TEXT, &text).await;
        client.socket.send_text(PING_TEXT).await;
        loop {
            // Whatever the message became: an error, a success, a close. Then the ping's answer.
            match client.next_frame().await {
                Frame::Text(answer) if answer.contains("pusher:pong") => break,
                Frame::Text(_) => {}
                other => panic!("{other:?} after {}", String::from_utf8_lossy(&text)),
            }
        }
        client.reset();
    }
    server.assert_serves_others().await;
}

/// A fixed sequence: the same bytes on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}
