//! The log of a stored channel, as the nodes that follow it have it and as they read it.

use std::sync::Arc;

use serde_json::json;
use tidewire::config::{AppReplay, ReplayRule, StoreKind};
use tidewire::replay::Replay;
use tidewire::replay::store::{Stamp, StreamName};
use tidewire_protocol::position::Position;
use tidewire_protocol::replay::Reason;

use crate::common::Nodes;
use crate::common::nodes::Place;

fn storing(count: usize) -> Arc<Nodes> {
    Nodes::with_config(count, Place::shared(), |config| {
        config.replay.store = StoreKind::Redis;
        let rule = ReplayRule { client_events: true, ..ReplayRule::default() };
        config.apps[0].replay = AppReplay { rules: vec![rule], ..AppReplay::default() };
    })
}

fn replay(nodes: &Nodes, node: usize) -> Arc<Replay> {
    nodes.node(node).node().replay.get().expect("it keeps messages").clone()
}

fn stream(channel: &str) -> Arc<StreamName> {
    Arc::new(StreamName { app: "42".into(), channel: channel.into() })
}

#[tokio::test]
async fn a_message_that_came_live_is_the_one_that_is_in_the_log() {
    let nodes = storing(2);
    let (mut here, mut there) = (nodes.connect(0).await, nodes.connect(1).await);
    here.join("presence-a", "7").await;
    there.join("presence-a", "8").await;
    here.expect("pusher_internal:member_added").await;
    let event = json!({
        "name": "e\u{0}\"é", "data": r#"{"a":"é"}"#, "channels": ["presence-a"],
        "socket_id": there.socket_id, "idempotency_key": "ord-77",
    });
    assert_eq!(nodes.rest(1).trigger(event).await.status, 200);
    there.trigger("client-typing", "presence-a", json!({"a": 1})).await;
    here.expect_event("e\u{0}\"é", "presence-a", r#"{"a":"é"}"#).await;
    here.expect("client-typing").await;

    let app = nodes.node(0).apps().by_id("42").unwrap();
    let channel = app.channels.get("presence-a").unwrap();
    let live = channel.catch_up(0).expect("its ring has both");
    let head = channel.log_head().expect("it is stored");
    // The other node asks the log.
    let first = Position { serial: 0, ..head };
    let retention = ReplayRule::default().retention();
    let read = replay(&nodes, 1).missed(stream("presence-a"), Some(first), retention).await.unwrap();
    assert_eq!((read.head, read.broken), (head, None));
    assert_eq!((live.len(), read.events.len()), (2, 2));
    for (live, read) in live.iter().zip(&read.events) {
        // Totals are known to the log only. The first message began the generation; whoever knew it is not told.
        let expected = Stamp { total_bytes: 0, begins_generation: false, ..read.stamp };
        assert_eq!(live.stamp, expected);
        assert_eq!(live.plain(), read.plain());
        assert_eq!((live.except, live.size()), (read.except, read.size()));
        assert_eq!(live.positioned(0, true), read.positioned(0, true));
    }
    assert!(live[0].except.is_some());
    assert_eq!(replay(&nodes, 0).head(stream("presence-a")).await, Ok(head));
    // The node that only followed so far goes on where the other left off.
    nodes.rest(0).publish("presence-a", "e", "3").await;
    here.expect_event("e", "presence-a", "3").await;
    assert_eq!(channel.log_head(), Some(Position { serial: 3, ..head }));
    let sizes: u64 = channel.catch_up(0).unwrap().iter().map(|event| event.size()).sum();
    let read = replay(&nodes, 1).missed(stream("presence-a"), Some(first), retention).await.unwrap();
    assert_eq!(read.events.last().map(|event| event.stamp.total_bytes), Some(sizes));
}

#[tokio::test]
async fn what_a_node_has_missed_is_read_exactly() {
    const MESSAGES: u64 = 310;
    let nodes = storing(2);
    for first in (1..=MESSAGES).step_by(10) {
        let event = |serial: u64| json!({"name": "e", "data": serial.to_string(), "channel": "news"});
        let batch: Vec<_> = (first..first + 10).map(event).collect();
        assert_eq!(nodes.rest(0).batch(json!(batch)).await.status, 200);
    }
    let replay = replay(&nodes, 1);
    let head = replay.head(stream("news")).await.unwrap();
    assert_eq!(head.serial, MESSAGES);
    let missed = async |known: Option<u64>| {
        let known = known.map(|serial| Position { serial, ..head });
        let missed = replay.missed(stream("news"), known, ReplayRule::default().retention()).await.unwrap();
        assert_eq!(missed.head, head);
        let serials: Vec<u64> = missed.events.iter().map(|event| event.serial()).collect();
        (serials, missed.broken)
    };
    for known in [0, 5, 99, 100, 101, MESSAGES - 1, MESSAGES] {
        assert_eq!(missed(Some(known)).await, ((known + 1..=MESSAGES).collect(), None));
    }
    assert_eq!(missed(None).await, (Vec::new(), None));
    assert_eq!(missed(Some(MESSAGES + 1)).await, (Vec::new(), Some(Reason::RolledBack)));
}
