//! How long a node goes on following what nobody on it is in any more.

use std::sync::Arc;

use crate::common::{Client, Nodes, eventually};

const MARKER: &str = "marker";

/// What the nodes are subscribed to: topics without their partition, and without the marker's.
fn topics(nodes: &Nodes) -> Vec<String> {
    let pattern = format!("*{}*", nodes.place.prefix());
    let topics = nodes.ask(|redis| redis::cmd("PUBSUB").arg("CHANNELS").arg(&pattern).query(redis));
    let topics: Vec<String> = topics.unwrap();
    let mut names: Vec<String> =
        topics.iter().map(|topic| topic.split_once('}').unwrap().1.to_owned()).collect();
    names.retain(|name| name != "c:42:marker");
    names.sort();
    names
}

fn knows(nodes: &Nodes, channel: &str) -> bool {
    nodes.node(0).apps().by_id("42").unwrap().channels.get(channel).is_some()
}

/// Until the node knows that Redis knows: its answers come in order.
async fn leave(nodes: &Arc<Nodes>, client: &mut Client, channel: &str) {
    client.unsubscribe(channel).await;
    nodes.rest(1).settle().await;
    client.subscribe(MARKER).await;
    client.unsubscribe(MARKER).await;
}

#[tokio::test]
async fn a_topic_is_left_thirty_seconds_after_its_last_subscriber() {
    let nodes = Nodes::start(2);
    let (mut client, mut user) = (nodes.connect(0).await, nodes.connect(0).await);
    user.sign_in(r#"{"id":"7"}"#).await;
    for channel in ["news", "late"] {
        client.subscribe(channel).await;
    }
    client.join("presence-late", "7").await;
    assert_eq!(topics(&nodes), ["c:42:late", "c:42:news", "c:42:presence-late", "w:42:7"]);
    user.close().await;
    eventually("nobody to be signed in", async || nodes.in_redis("42").online.is_empty()).await;
    leave(&nodes, &mut client, "news").await;
    nodes.advance(25);
    leave(&nodes, &mut client, "late").await;
    leave(&nodes, &mut client, "presence-late").await;
    nodes.advance(6);
    // The node looks at all of them at once, and these two have 24 seconds left.
    eventually("two to be left", async || topics(&nodes) == ["c:42:late", "c:42:presence-late"]).await;
    assert!(!knows(&nodes, "news") && knows(&nodes, "late"));
    // Who comes back begins the time anew.
    nodes.advance(20);
    client.subscribe("late").await;
    leave(&nodes, &mut client, "late").await;
    nodes.advance(6);
    eventually("one to be left", async || topics(&nodes) == ["c:42:late"]).await;
    nodes.advance(25);
    eventually("the last to be left", async || topics(&nodes).is_empty()).await;
    assert!(!knows(&nodes, "late") && !knows(&nodes, "presence-late"));
}

/// Whatever the node is just doing with the topic: following it still, leaving it, or having left it.
#[tokio::test]
async fn who_comes_back_when_the_time_is_over_misses_nothing() {
    const CHANNELS: usize = 40;
    let nodes = Nodes::start(2);
    let names: Vec<String> = (0..CHANNELS).map(|number| format!("c-{number}")).collect();
    let mut client = nodes.connect(0).await;
    for name in &names {
        client.subscribe(name).await;
    }
    let mut round = 0;
    // Until the end of the time has come in the middle of a round.
    eventually("the race to be hit", async || {
        round += 1;
        for name in &names {
            client.unsubscribe(name).await;
        }
        nodes.rest(1).settle().await;
        nodes.advance(31);
        let mut found = 0;
        for name in &names {
            found += usize::from(topics(&nodes).contains(&format!("c:42:{name}")));
            client.subscribe(name).await;
            expect_published(&nodes, &mut client, name, &format!("{round} at once")).await;
        }
        // Nobody loses afterwards what he came back to.
        for name in &names {
            expect_published(&nodes, &mut client, name, &format!("{round} later")).await;
        }
        assert_eq!(topics(&nodes).len(), CHANNELS);
        (1..CHANNELS).contains(&found)
    })
    .await;
    client.assert_silent().await;
}

async fn expect_published(nodes: &Arc<Nodes>, client: &mut Client, channel: &str, data: &str) {
    nodes.rest(1).publish(channel, "e", data).await;
    client.expect_event("e", channel, data).await;
}
