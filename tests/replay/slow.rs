//! A subscriber that reads slowly gets everything, at its own pace.

use serde_json::json;
use tidewire::config::{AppReplay, StoreKind};

use super::{Replaying, position};
use crate::common::{Client, TestServer, nodes};

const MESSAGES: u64 = 1500;
const BYTES: usize = 8_000;

fn server() -> TestServer {
    TestServer::with_config(|config| {
        config.replay.store = StoreKind::Memory;
        config.server.outbox_bytes = 65_536;
        config.apps[0].replay = AppReplay::everything();
        let rule = &mut config.apps[0].replay.rules[0];
        rule.max_messages = 100_000;
        rule.max_bytes = 1 << 30;
    })
}

async fn publish_much(server: &TestServer, channel: &str, from: u64, to: u64) {
    let rest = server.rest();
    for number in from..=to {
        rest.publish(channel, "e", &format!("{number:08}{}", "x".repeat(BYTES))).await;
    }
}

async fn expect_much(client: &mut Client, channel: &str, from: u64, to: u64, has_serials: bool) {
    for number in from..=to {
        let event = client.next_event().await;
        assert!(event.is("e", channel), "{event:?}");
        assert_eq!(event.data()[..8], format!("{number:08}"), "in order, each once");
        assert_eq!(event.frame["serial"].as_u64(), has_serials.then_some(number));
    }
}

#[tokio::test]
async fn one_that_does_not_read_is_not_closed_but_reads_on_from_the_log() {
    let server = server();
    let mut slow = server.connect().await;
    let mut stock = server.connect().await;
    let mut quick = server.connect().await;
    slow.subscribe_replaying("news", json!({"v": 1})).await;
    stock.subscribe("news").await;
    quick.subscribe("news").await;
    // 12 MB: more than kernel buffers and outboxes hold.
    tokio::join!(
        publish_much(&server, "news", 1, MESSAGES),
        expect_much(&mut quick, "news", 1, MESSAGES, false)
    );
    assert!(metric(&server, "tidewire_replay_demotions_total") >= 2, "both have fallen behind");
    expect_much(&mut slow, "news", 1, MESSAGES, true).await;
    expect_much(&mut stock, "news", 1, MESSAGES, false).await;
    publish_much(&server, "news", MESSAGES + 1, MESSAGES + 3).await;
    expect_much(&mut slow, "news", MESSAGES + 1, MESSAGES + 3, true).await;
    expect_much(&mut stock, "news", MESSAGES + 1, MESSAGES + 3, false).await;
    assert_eq!(metric(&server, "tidewire_replay_chasing"), 0, "everybody is live again");
}

#[tokio::test]
async fn one_whose_messages_are_gone_meanwhile_is_told_or_closed() {
    let server = server();
    let mut slow = server.connect().await;
    let mut stock = server.connect().await;
    let start = position(&slow.subscribe_replaying("news", json!({"v": 1})).await);
    stock.subscribe("news").await;
    publish_much(&server, "news", 1, MESSAGES).await;
    purge(&server, MESSAGES).await;

    let mut heard = 0;
    let reset = loop {
        let event = slow.next_event().await;
        match event.event.as_str() {
            "e" => heard += 1,
            _ => break event,
        }
    };
    assert_eq!(reset.event, "pusher_internal:replay_reset", "{reset:?}");
    assert_eq!((&reset.frame["reason"], &reset.frame["serial"]), (&json!("expired"), &json!(MESSAGES)));
    assert!(heard < MESSAGES);
    assert!(start.starts_with(reset.frame["epoch"].as_str().unwrap()));
    publish_much(&server, "news", MESSAGES + 1, MESSAGES + 1).await;
    expect_much(&mut slow, "news", MESSAGES + 1, MESSAGES + 1, true).await;
    // It has no way to know, so it is closed and comes back.
    assert_eq!(stock.socket.closed_with().await, Some(4100));
}

/// Forgets what is before this serial.
async fn purge(server: &TestServer, before: u64) {
    let replay = server.inner().node().replay.get().unwrap();
    let stream = tidewire::replay::store::StreamName { app: "42".into(), channel: "news".into() };
    let (sender, receiver) = tokio::sync::oneshot::channel();
    replay
        .purge(std::sync::Arc::new(stream), before, Box::new(move |purged| drop(sender.send(purged))))
        .unwrap();
    receiver.await.unwrap().unwrap();
}

fn metric(server: &TestServer, name: &str) -> u64 {
    server.total(|node| nodes::metric(node, name).unwrap_or_else(|| panic!("no {name}")))
}
