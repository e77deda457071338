//! Channels: events, counts, occupancy and the cache, across nodes.

use std::sync::Arc;

use serde_json::{Value, json};
use tidewire::config::Config;

use crate::common::nodes::Place;
use crate::common::{Client, Nodes, Rest, demo_app, eventually};

const COUNT: &str = "pusher_internal:subscription_count";
const OCCUPIED: &str = r#"tidewire_channel_transitions_total{transition="occupied"}"#;
const VACATED: &str = r#"tidewire_channel_transitions_total{transition="vacated"}"#;

async fn subscribed(nodes: &Arc<Nodes>, node: usize, channel: &str) -> Client {
    let mut client = nodes.connect(node).await;
    client.subscribe(channel).await;
    client
}

fn counted(count: u64) -> String {
    format!(r#"{{"subscription_count":{count}}}"#)
}

#[tokio::test]
async fn an_event_published_anywhere_reaches_subscribers_everywhere_once() {
    let nodes = Nodes::start(3);
    let mut clients = Vec::new();
    for node in 0..3 {
        clients.push(subscribed(&nodes, node, "news").await);
    }
    for node in 0..3 {
        nodes.rest(node).publish("news", "e", &node.to_string()).await;
        for client in &mut clients {
            client.expect_event("e", "news", &node.to_string()).await;
        }
    }
    for client in &mut clients {
        client.assert_silent().await;
    }
}

#[tokio::test]
async fn three_nodes_show_concurrent_publishers_in_one_order() {
    const EVENTS: usize = 100;
    let nodes = Nodes::start(3);
    let mut clients = Vec::new();
    for index in 0..6 {
        clients.push(subscribed(&nodes, index % 3, "private-log").await);
    }
    let publishers: Vec<_> = (0..3)
        .map(|node| {
            let rest: Rest = nodes.rest(node);
            tokio::spawn(async move {
                for serial in 0..EVENTS {
                    rest.publish("private-log", &format!("from-{node}"), &serial.to_string()).await;
                }
            })
        })
        .collect();
    // A fourth publisher is a client, which does not see its own.
    let mut sender = subscribed(&nodes, 1, "private-log").await;
    for serial in 0..8 {
        sender.trigger("client-e", "private-log", json!(serial.to_string())).await;
    }
    for publisher in publishers {
        publisher.await.unwrap();
    }
    let mut orders = Vec::new();
    for client in &mut clients {
        let seen = client.pending_events().await;
        let order: Vec<_> = seen.into_iter().map(|event| (event.event, event.data.unwrap())).collect();
        assert_eq!(order.len(), 3 * EVENTS + 8);
        orders.push(order);
    }
    for name in ["from-0", "from-1", "from-2", "client-e"] {
        let of_one = orders[0].iter().filter(|(event, _)| event == name);
        let serials: Vec<usize> = of_one.map(|(_, data)| data.parse().unwrap()).collect();
        assert_eq!(serials, (0..serials.len()).collect::<Vec<_>>(), "{name} in its own order");
    }
    assert!(orders.iter().all(|order| *order == orders[0]), "one order on all nodes");
}

#[tokio::test]
async fn counts_are_of_the_whole_cluster() {
    let nodes = Nodes::with(2, |app| app.subscription_count = true);
    let mut a = subscribed(&nodes, 0, "news").await;
    a.expect_event(COUNT, "news", &counted(1)).await;
    let mut b = subscribed(&nodes, 1, "news").await;
    for client in [&mut a, &mut b] {
        client.expect_event(COUNT, "news", &counted(2)).await;
    }
    let mut more = subscribed(&nodes, 1, "news").await;
    for client in [&mut a, &mut b, &mut more] {
        client.expect_event(COUNT, "news", &counted(3)).await;
    }
    for node in [0, 1] {
        let info = nodes.rest(node).read("/channels/news", &[("info", "subscription_count")]).await;
        assert_eq!(info, json!({"occupied": true, "subscription_count": 3}));
    }
    more.close().await;
    b.unsubscribe("news").await;
    // Both leaves may be told at once.
    let mut last = a.expect(COUNT).await;
    if last.data() == counted(2) {
        last = a.expect(COUNT).await;
    }
    assert_eq!(last.data(), counted(1));
    a.assert_silent().await;
}

#[tokio::test]
async fn a_newcomer_is_told_the_count_though_another_left_at_the_same_time() {
    let nodes = Nodes::with(2, |app| app.subscription_count = true);
    let mut stays = subscribed(&nodes, 0, "news").await;
    stays.expect_event(COUNT, "news", &counted(1)).await;
    let mut old = subscribed(&nodes, 1, "news").await;
    old.expect_event(COUNT, "news", &counted(2)).await;
    let take_turns = async |old: &mut Client, count: u64| {
        for _ in 0..30 {
            let mut new = nodes.connect(1).await;
            old.send(json!({"event": "pusher:unsubscribe", "data": {"channel": "news"}})).await;
            new.request("news", None).await;
            new.succeeded("news").await;
            let mut told = new.expect(COUNT).await;
            while told.data() != counted(count) {
                told = new.expect(COUNT).await;
            }
            *old = new;
        }
    };
    take_turns(&mut old, 2).await;
    stays.close().await;
    take_turns(&mut old, 1).await;
}

#[tokio::test]
async fn a_channel_is_occupied_and_vacated_once_in_the_cluster() {
    const ROUNDS: u64 = 5;
    let nodes = Nodes::start(3);
    for round in 1..=ROUNDS {
        let mut clients = Vec::new();
        for node in 0..3 {
            clients.push(nodes.connect(node).await);
        }
        for client in &mut clients {
            client.request("news", None).await;
        }
        for client in &mut clients {
            client.succeeded("news").await;
        }
        nodes.rest(0).settle().await;
        assert_eq!((nodes.metric(OCCUPIED), nodes.metric(VACATED)), (round, round - 1));
        for client in clients {
            client.reset();
        }
        eventually("the channel to be vacated", async || nodes.in_redis("42").totals.is_empty()).await;
        eventually("somebody to know", async || nodes.metric(VACATED) == round).await;
    }
    assert_eq!((nodes.metric(OCCUPIED), nodes.metric(VACATED)), (ROUNDS, ROUNDS));
}

#[tokio::test]
async fn a_client_event_reaches_the_others_on_all_nodes_and_not_its_sender() {
    let nodes = Nodes::start(2);
    let mut sender = nodes.connect(0).await;
    sender.join("presence-a", "u-1").await;
    let (mut here, mut there) = (nodes.connect(0).await, nodes.connect(1).await);
    here.join("presence-a", "u-2").await;
    there.join("presence-a", "u-1").await;
    sender.pending_events().await;
    sender.trigger("client-x", "presence-a", json!("1")).await;
    for client in [&mut here, &mut there] {
        let expected = json!({"event": "client-x", "channel": "presence-a", "data": "1", "user_id": "u-1"});
        assert_eq!(client.next_event().await.frame, expected);
    }
    sender.assert_silent().await;
    there.trigger("client-x", "presence-a", json!("2")).await;
    for client in [&mut here, &mut sender] {
        client.expect_event("client-x", "presence-a", "2").await;
    }
    there.assert_silent().await;
}

#[tokio::test]
async fn a_socket_is_excluded_whichever_node_it_is_on() {
    let nodes = Nodes::start(2);
    let mut clients = [subscribed(&nodes, 0, "news").await, subscribed(&nodes, 1, "news").await];
    for excluded in [0, 1] {
        for publisher in [0, 1] {
            let socket_id = clients[excluded].socket_id.clone();
            let body = json!({"name": "e", "data": "1", "channels": ["news"], "socket_id": socket_id});
            assert_eq!(nodes.rest(publisher).trigger(body).await.status, 200);
            clients[1 - excluded].expect_event("e", "news", "1").await;
            clients[excluded].assert_silent().await;
        }
    }
}

#[tokio::test]
async fn an_event_cached_on_one_node_is_had_on_the_other() {
    let nodes = Nodes::start(2);
    nodes.rest(0).publish("cache-x", "e", r#"{"v":1}"#).await;
    let read = async |node: usize| nodes.rest(node).read("/channels/cache-x", &[("info", "cache")]).await;
    for node in [0, 1] {
        let cache = read(node).await["cache"].clone();
        assert_eq!(cache["data"], json!(r#"{"v":1}"#), "node {node}");
        assert!((1790..=1800).contains(&cache["ttl"].as_u64().unwrap()), "{cache}");
    }
    let mut on_b = subscribed(&nodes, 1, "cache-x").await;
    on_b.expect_event("e", "cache-x", r#"{"v":1}"#).await;
    // The node knows the channel now, and the next event comes to it from the other.
    nodes.rest(0).publish("cache-x", "e", "2").await;
    on_b.expect_event("e", "cache-x", "2").await;
    for node in [0, 1] {
        subscribed(&nodes, node, "cache-x").await.expect_event("e", "cache-x", "2").await;
    }
    nodes.advance(1801);
    for node in [0, 1] {
        subscribed(&nodes, node, "cache-x").await.expect("pusher:cache_miss").await;
        assert_eq!(read(node).await["cache"], Value::Null, "node {node}");
    }
}

#[tokio::test]
async fn the_newest_cached_event_is_the_same_on_all_nodes() {
    let nodes = Nodes::start(3);
    let publishers: Vec<_> = (0..3)
        .map(|node| {
            let rest = nodes.rest(node);
            tokio::spawn(async move {
                for serial in 0..30 {
                    rest.publish("cache-x", "e", &format!("{node}-{serial}")).await;
                }
            })
        })
        .collect();
    // Subscribers come while events do.
    let mut early = subscribed(&nodes, 0, "cache-x").await;
    for publisher in publishers {
        publisher.await.unwrap();
    }
    let last = early.pending_events().await.pop().unwrap();
    for node in 0..3 {
        let mut late = subscribed(&nodes, node, "cache-x").await;
        late.expect_event("e", "cache-x", last.data()).await;
        late.assert_silent().await;
    }
}

#[tokio::test]
async fn a_node_without_subscribers_hears_nothing() {
    let nodes = Nodes::start(2);
    let mut client = subscribed(&nodes, 0, "news").await;
    let received = r#"tidewire_fanout_messages_total{direction="received"}"#;
    for serial in 0..20 {
        nodes.rest(0).publish("news", "e", &serial.to_string()).await;
        client.expect_event("e", "news", &serial.to_string()).await;
    }
    assert_eq!(crate::common::nodes::metric(&nodes.node(1), received), Some(0));
    assert!(crate::common::nodes::metric(&nodes.node(0), received) >= Some(20));
}

#[tokio::test]
async fn where_nobody_counts_further_subscribers_are_no_news() {
    let nodes = Nodes::with_config(2, Place::own(), |_| {});
    let calls = || -> u64 {
        let stats = nodes.place.server.info("cmdstat_evalsha");
        stats
            .strip_prefix("calls=")
            .and_then(|rest| rest.split(',').next())
            .map_or(0, |calls| calls.parse().unwrap())
    };
    let mut clients = vec![subscribed(&nodes, 0, "news").await];
    let beats = calls();
    for _ in 0..50 {
        clients.push(subscribed(&nodes, 0, "news").await);
    }
    // The leases are renewed meanwhile.
    assert!(calls() - beats < 10, "{} scripts", calls() - beats);
    nodes.rest(1).publish("news", "e", "1").await;
    for client in &mut clients {
        client.expect_event("e", "news", "1").await;
    }
    drop(clients.split_off(1));
    assert_eq!(nodes.rest(1).read("/channels/news", &[]).await, json!({"occupied": true}));
    // Once somebody does, they are counted.
    for node in 0..2 {
        let mut config = Config::for_tests(vec![demo_app()]);
        config.apps[0].subscription_count = true;
        config.redis = nodes.place.config();
        nodes.node(node).reload(config).unwrap();
    }
    clients.push(subscribed(&nodes, 0, "news").await);
    eventually("them to be counted", async || {
        let read = nodes.rest(1).read("/channels/news", &[("info", "subscription_count")]).await;
        read["subscription_count"] == 2
    })
    .await;
}

#[tokio::test]
async fn who_comes_back_soon_finds_the_channel_in_place() {
    let nodes = Nodes::start(2);
    let topics = || -> Vec<String> {
        let pattern = format!("*{}*c:42:news", nodes.place.prefix());
        nodes.ask(|redis| redis::cmd("PUBSUB").arg("CHANNELS").arg(&pattern).query(redis)).unwrap()
    };
    let mut client = subscribed(&nodes, 0, "news").await;
    assert_eq!(topics().len(), 1);
    for round in 0..5 {
        client.unsubscribe("news").await;
        nodes.rest(1).settle().await;
        assert_eq!(nodes.rest(1).read("/channels", &[]).await, json!({"channels": {}}));
        assert_eq!(topics().len(), 1, "followed for a while");
        nodes.rest(1).publish("news", "e", "missed").await;
        client.subscribe("news").await;
        nodes.rest(1).publish("news", "e", &round.to_string()).await;
        client.expect_event("e", "news", &round.to_string()).await;
    }
    client.assert_silent().await;
}

#[tokio::test]
async fn coming_and_going_leaves_nothing_behind() {
    let nodes = Nodes::with(2, |app| app.subscription_count = true);
    let tasks: Vec<_> = (0..6)
        .map(|number| {
            let nodes = Arc::clone(&nodes);
            tokio::spawn(async move {
                for round in 0..15 {
                    let mut client = nodes.connect((number + round) % 2).await;
                    for channel in ["news", "private-a", "cache-c"] {
                        client.request(channel, None).await;
                    }
                    // Some leave before they are let in.
                    match round % 3 {
                        0 => client.reset(),
                        1 => client.close().await,
                        _ => {
                            client
                                .send(json!({"event": "pusher:unsubscribe", "data": {"channel": "news"}}))
                                .await;
                            client.close().await;
                        }
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    eventually("nothing to be left", async || nodes.in_redis("42").totals.is_empty()).await;
    let counts = || (nodes.metric(OCCUPIED), nodes.metric(VACATED));
    eventually("as many vacated as occupied", async || counts().0 == counts().1).await;
    assert_eq!(nodes.have("42"), Default::default());
}
