//! What was missed comes before what is new.

use serde_json::{Value, json};
use tidewire::config::{AppReplay, ChannelPattern, ReplayRule, StoreKind};

use super::access::Token;
use super::reader::{Block, Get, Stream, get};
use crate::common::TestServer;

fn server() -> TestServer {
    server_with(|_| {})
}

/// Channels are stored, but for those that begin with `unstored`.
fn server_with(set: impl FnOnce(&mut ReplayRule)) -> TestServer {
    let mut rule = ReplayRule::default();
    set(&mut rule);
    let unstored =
        ReplayRule { pattern: ChannelPattern::new("unstored*"), stored: false, ..ReplayRule::default() };
    TestServer::with_config(|config| {
        config.replay.store = StoreKind::Memory;
        config.server.outbox_bytes = 65_536;
        config.apps[0].replay = AppReplay { rules: vec![unstored, rule], ..AppReplay::default() };
        config.apps[0].limits.max_replay_messages = 5_000;
    })
}

async fn publish(server: &TestServer, channel: &str, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        server.rest().publish(channel, "e", &number.to_string()).await;
    }
}

/// As an `EventSource` that comes back.
fn back(query: &str, last_event_id: &str) -> Get {
    get(query).header("Last-Event-ID", last_event_id)
}

/// The next blocks are these events, each with a cursor, and the last cursor is given back.
async fn expect_numbers(stream: &mut Stream, channel: &str, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        let block = event_block(stream).await;
        let frame = block.json();
        assert_eq!(
            (&frame["channel"], &frame["data"]),
            (&json!(channel), &json!(number.to_string())),
            "{block:?}"
        );
        assert!(block.id.is_some(), "{block:?}");
    }
}

/// The next block with data.
async fn event_block(stream: &mut Stream) -> Block {
    loop {
        let block = stream.next().await;
        if block.data.is_some() {
            return block;
        }
        assert!(block.id.is_some() || block.retry.is_some(), "{block:?}");
    }
}

fn serial(cursor: &str) -> u64 {
    cursor.rsplit_once(':').unwrap().1.parse().unwrap()
}

#[tokio::test]
async fn an_idle_stream_has_a_cursor_and_loses_nothing() {
    let server = server();
    let mut stream = get("channels=news").open(&server).await;
    assert_eq!(stream.header("tidewire-recovered"), None);
    let cursor = stream.begin().await.unwrap();
    assert_eq!(stream.header("tidewire-position"), Some(&*cursor));
    drop(stream);
    publish(&server, "news", 1..=3).await;
    let mut stream = back("channels=news", &cursor).open(&server).await;
    assert_eq!(stream.header("tidewire-recovered"), Some("true"));
    assert_eq!(stream.header("tidewire-position"), Some(&*cursor), "where it begins, not where it will be");
    assert_eq!(stream.begin().await.as_deref(), Some(&*cursor));
    expect_numbers(&mut stream, "news", 1..=3).await;
    publish(&server, "news", [4]).await;
    expect_numbers(&mut stream, "news", [4]).await;
    assert_eq!(serial(&stream.last_event_id), 4);
}

#[tokio::test]
async fn a_frame_carries_what_it_carries_on_a_socket() {
    let server = server();
    let mut stream = get("channels=news").open(&server).await;
    stream.begin().await;
    publish(&server, "news", [1, 2]).await;
    event_block(&mut stream).await;
    let block = event_block(&mut stream).await;
    let frame = r#"{"event":"e","channel":"news","data":"2","serial":2}"#;
    assert_eq!(block.data.as_deref(), Some(frame));
    assert_eq!(serial(&block.id.unwrap()), 2);
}

#[tokio::test]
async fn the_header_wins_over_a_cursor_in_the_query() {
    let server = server();
    let mut stream = get("channels=news").open(&server).await;
    let start = stream.begin().await.unwrap();
    publish(&server, "news", 1..=3).await;
    expect_numbers(&mut stream, "news", 1..=2).await;
    for name in ["last_event_id", "last_message_id"] {
        let query = format!("channels=news&{name}={start}");
        let mut first = get(&query).open(&server).await;
        expect_begins_with(&mut first, 1).await;
        let mut again = back(&query, &stream.last_event_id).open(&server).await;
        expect_begins_with(&mut again, 3).await;
    }
}

async fn expect_begins_with(stream: &mut Stream, number: u64) {
    stream.begin().await;
    expect_numbers(stream, "news", [number]).await;
}

#[tokio::test]
async fn several_channels_come_back_together() {
    let server = server();
    let query = "channels=a,b,unstored,quiet";
    let mut stream = get(query).open(&server).await;
    let cursor = stream.begin().await.unwrap();
    assert!(cursor.starts_with("m1."), "{cursor}");
    assert_eq!(stream.header("tidewire-position"), None);
    publish(&server, "a", 1..=3).await;
    publish(&server, "b", 1..=2).await;
    publish(&server, "unstored", [1]).await;
    for _ in 0..6 {
        let block = event_block(&mut stream).await;
        assert_eq!(block.id.is_some(), block.json()["channel"] != "unstored", "{block:?}");
    }
    let cursor = stream.last_event_id.clone();
    drop(stream);

    publish(&server, "b", 3..=4).await;
    publish(&server, "quiet", [1]).await;
    publish(&server, "unstored", [2]).await;
    let mut stream = back(query, &cursor).open(&server).await;
    assert_eq!(stream.header("tidewire-recovered"), Some("true"));
    let mut seen = Vec::new();
    for _ in 0..3 {
        let frame = event_block(&mut stream).await.json();
        seen.push(format!("{} {}", frame["channel"].as_str().unwrap(), frame["data"].as_str().unwrap()));
    }
    seen.sort();
    assert_eq!(seen, ["b 3", "b 4", "quiet 1"]);
    publish(&server, "a", [4]).await;
    expect_numbers(&mut stream, "a", [4]).await;

    // One of them alone is told from the same cursor.
    let mut alone = back("channels=b", &cursor).open(&server).await;
    let position = alone.begin().await.unwrap();
    assert_eq!(serial(&position), 2);
    expect_numbers(&mut alone, "b", 3..=4).await;
    // A channel that the cursor does not know begins live.
    let mut more = back("channels=b,new", &cursor).open(&server).await;
    publish(&server, "new", [1]).await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(event_block(&mut more).await.json()["channel"].as_str().unwrap().to_owned());
    }
    seen.sort();
    assert_eq!(seen, ["b", "b", "new"]);
}

/// Five messages of which three are left, and a cursor from before them.
async fn trimmed(server: &TestServer) -> String {
    let mut stream = get("channels=news").open(server).await;
    let cursor = stream.begin().await.unwrap();
    publish(server, "news", 1..=5).await;
    cursor
}

#[tokio::test]
async fn what_is_gone_is_told_by_status_410() {
    let server = server_with(|rule| rule.max_messages = 3);
    let cursor = trimmed(&server).await;
    let (epoch, _) = cursor.split_once(':').unwrap();
    let body = back("channels=news", &cursor).refused(&server, 410).await;
    let expected = json!({"error": "position_gone", "status": 410, "channel": "news",
        "reason": "expired", "oldest": 3, "newest": 5, "epoch": epoch});
    assert_eq!(body, expected);
    // Exactly what is left may be asked for.
    let mut stream = back("channels=news", &format!("{epoch}:2")).open(&server).await;
    stream.begin().await;
    expect_numbers(&mut stream, "news", 3..=5).await;

    let reason = |body: Value| body["reason"].as_str().unwrap().to_owned();
    let body = back("channels=news", &format!("{epoch}:9")).refused(&server, 410).await;
    assert_eq!(reason(body), "rolled_back");
    let body = back("channels=news", "zzz.1:4").refused(&server, 410).await;
    assert_eq!(reason(body), "stream_reset");
    let body = back("channels=unstored", &cursor).refused(&server, 410).await;
    assert_eq!(
        body,
        json!({"error": "position_gone", "status": 410, "channel": "unstored", "reason": "disabled"})
    );
}

#[tokio::test]
async fn an_event_source_hears_of_it_in_the_stream() {
    let server = server_with(|rule| rule.max_messages = 3);
    let cursor = trimmed(&server).await;
    let (epoch, _) = cursor.split_once(':').unwrap();
    let mut stream = back("channels=news&on_gap=event", &cursor).open(&server).await;
    assert_eq!(stream.header("tidewire-recovered"), Some("false"));
    assert!(stream.next().await.retry.is_some());
    let gone = stream.next().await;
    assert_eq!(gone.event.as_deref(), Some("tidewire:gone"));
    let expected = json!({"channel": "news", "reason": "expired", "oldest": 3, "newest": 5, "epoch": epoch});
    assert_eq!(gone.json(), expected);
    assert_eq!(gone.id, None, "a client that is cut off here hears of it again");
    let cursor = stream.next().await;
    assert_eq!(cursor, Block { id: Some(format!("{epoch}:5")), ..Block::default() });
    publish(&server, "news", [6]).await;
    expect_numbers(&mut stream, "news", [6]).await;
}

#[tokio::test]
async fn a_first_visit_may_go_back() {
    let server = server();
    publish(&server, "news", 1..=5).await;
    let mut stream = get("channels=news&rewind=2").open(&server).await;
    assert_eq!(stream.header("tidewire-recovered"), Some("true"));
    assert_eq!(serial(&stream.begin().await.unwrap()), 3);
    expect_numbers(&mut stream, "news", 4..=5).await;
    let mut again = back("channels=news&rewind=2", &stream.last_event_id).open(&server).await;
    again.begin().await;
    publish(&server, "news", [6]).await;
    expect_numbers(&mut again, "news", [6]).await;
    for rewind in ["earliest", "60s"] {
        let mut stream = get(&format!("channels=news&rewind={rewind}")).open(&server).await;
        stream.begin().await;
        expect_numbers(&mut stream, "news", 1..=6).await;
    }
    let body = get("channels=news&rewind=5001").refused(&server, 400).await;
    assert!(body["error"].as_str().unwrap().contains("5001"), "{body}");
    get("channels=unstored&rewind=2").refused(&server, 410).await;
}

#[tokio::test]
async fn a_stream_that_is_cut_again_and_again_misses_nothing() {
    let server = server_with(|rule| rule.max_messages = 10_000);
    let mut stream = get("channels=news,sport").open(&server).await;
    let mut cursor = stream.begin().await.unwrap();
    drop(stream);
    publish(&server, "news", 1..=600).await;
    publish(&server, "sport", 1..=600).await;
    let mut next = std::collections::HashMap::from([("news".to_owned(), 1u64), ("sport".to_owned(), 1)]);
    let mut cuts = 0;
    while next.values().any(|next| *next <= 600) {
        let mut stream = back("channels=news,sport", &cursor).open(&server).await;
        assert_eq!(stream.header("tidewire-recovered"), Some("true"));
        for _ in 0..97.min(next.values().map(|next| 601 - next).sum::<u64>()) {
            let frame = event_block(&mut stream).await.json();
            let expected = next.get_mut(frame["channel"].as_str().unwrap()).unwrap();
            assert_eq!(frame["data"], json!(expected.to_string()), "in order, each once");
            *expected += 1;
        }
        cursor = stream.last_event_id.clone();
        cuts += 1;
    }
    assert!(cuts >= 12, "{cuts}");
}

#[tokio::test]
async fn a_slow_reader_gets_everything_at_its_own_pace() {
    const MESSAGES: u64 = 800;
    let server = server_with(|rule| {
        rule.max_messages = 100_000;
        rule.max_bytes = 1 << 30;
    });
    let mut slow = get("channels=news").open(&server).await;
    slow.begin().await;
    let padding = "x".repeat(9_000);
    // 7 MB: more than the buffers on the way hold.
    for number in 1..=MESSAGES {
        server.rest().publish("news", "e", &format!("{number:04}{padding}")).await;
    }
    assert_eq!(server.total(|node| node.node().connection_count()), 1, "it fell behind, and was not closed");
    for number in 1..=MESSAGES {
        let block = event_block(&mut slow).await;
        assert_eq!(block.json()["data"].as_str().unwrap()[..4], format!("{number:04}"));
        assert_eq!(serial(&block.id.unwrap()), number);
    }
    publish(&server, "news", [7]).await;
    expect_numbers(&mut slow, "news", [7]).await;
}

#[tokio::test]
async fn a_slow_reader_whose_messages_are_gone_hears_of_it() {
    const MESSAGES: u64 = 800;
    let server = server_with(|rule| rule.max_bytes = 1 << 30);
    let mut slow = get("channels=news").open(&server).await;
    slow.begin().await;
    let padding = "x".repeat(9_000);
    for number in 1..=MESSAGES {
        server.rest().publish("news", "e", &format!("{number:04}{padding}")).await;
    }
    let purged = server.rest().delete("/apps/42/channels/news/history").send().await;
    assert_eq!(purged.status, 200, "{}", purged.body);
    let mut heard = 0;
    let gone = loop {
        let block = event_block(&mut slow).await;
        if block.event.is_some() {
            break block;
        }
        heard += 1;
    };
    assert_eq!(gone.event.as_deref(), Some("tidewire:gone"));
    assert_eq!((&gone.json()["reason"], &gone.json()["newest"]), (&json!("expired"), &json!(MESSAGES)));
    assert_eq!(serial(&gone.id.unwrap()), MESSAGES);
    assert!(heard < MESSAGES);
    publish(&server, "news", [7]).await;
    expect_numbers(&mut slow, "news", [7]).await;
}

#[tokio::test]
async fn a_private_stream_comes_back_with_the_same_url() {
    let server = server();
    let token = Token::fetch(&server).await;
    let query = format!("channels=private-a&{}", token.query(&["private-a"]));
    let mut stream = get(&query).open(&server).await;
    let cursor = stream.begin().await.unwrap();
    drop(stream);
    publish(&server, "private-a", [1]).await;
    server.rest().publish_except(&["private-a"], "e", "mine", &token.socket_id).await;
    publish(&server, "private-a", [3]).await;
    let mut stream = back(&query, &cursor).open(&server).await;
    stream.begin().await;
    expect_numbers(&mut stream, "private-a", [1, 3]).await;
    assert_eq!(serial(&stream.last_event_id), 3);
}

#[tokio::test]
async fn a_backend_may_keep_the_past_from_a_stream() {
    let server = server();
    publish(&server, "private-a", 1..=3).await;
    let token = Token::fetch(&server).await;
    let denied = token.signed("private-a", r#"{"replay":{"history":false}}"#);
    let body = get(&format!("channels=private-a&rewind=1&{denied}")).refused(&server, 410).await;
    assert_eq!(body["reason"], "disabled");
    let narrowed = token.signed("private-a", r#"{"replay":{"max_messages":1}}"#);
    let mut stream = get(&format!("channels=private-a&rewind=1&{narrowed}")).open(&server).await;
    stream.begin().await;
    expect_numbers(&mut stream, "private-a", [3]).await;
}

#[tokio::test]
async fn a_rule_sets_how_often_something_is_said_and_how_long_a_stream_lasts() {
    let server = server_with(|rule| {
        rule.keepalive_interval = Some(std::time::Duration::from_secs(3));
        rule.max_connection_lifetime = Some(std::time::Duration::from_secs(60));
    });
    let mut stream = get("channels=news").open(&server).await;
    stream.begin().await;
    server.advance(4);
    assert!(stream.next_block().await.unwrap().comment.is_some());
    server.advance(70);
    while let Some(block) = stream.next_block().await {
        assert!(block.comment.is_some(), "{block:?}");
    }
}
