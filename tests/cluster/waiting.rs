//! Clients that do not wait for answers, on a node that has to wait for the others: the second one, which Redis does not
//! answer for a while.

use std::sync::Arc;

use serde_json::json;

use crate::common::nodes::Place;
use crate::common::redis::CutProxy;
use crate::common::{Client, Nodes, eventually};
use crate::presence::{listed, set};

const WATCHLIST: &str = "pusher_internal:watchlist_events";
const ROOM: &str = "private-room";

fn nodes() -> (Arc<Nodes>, CutProxy) {
    let place = Place::shared();
    let proxy = CutProxy::start(place.server.addr());
    (Nodes::behind(&proxy, place, |_| {}), proxy)
}

async fn listener(nodes: &Arc<Nodes>) -> Client {
    let mut listener = nodes.connect(0).await;
    listener.subscribe(ROOM).await;
    listener
}

async fn unsubscribe(client: &mut Client, channel: &str) {
    client.send(json!({"event": "pusher:unsubscribe", "data": {"channel": channel}})).await;
}

#[tokio::test]
async fn what_is_said_of_a_channel_that_is_being_entered_is_done_in_order() {
    let (nodes, proxy) = nodes();
    let mut listener = listener(&nodes).await;
    let mut client = nodes.connect(1).await;
    proxy.blackhole();
    client.request(ROOM, None).await;
    client.trigger("client-a", ROOM, json!("1")).await;
    unsubscribe(&mut client, ROOM).await;
    client.trigger("client-a", ROOM, json!("out")).await;
    client.request(ROOM, None).await;
    client.trigger("client-a", ROOM, json!("2")).await;
    client.request(ROOM, None).await;
    client.sync().await;
    proxy.heal();
    client.succeeded(ROOM).await;
    client.expect_error(None).await;
    client.succeeded(ROOM).await;
    let error = client.expect_error(None).await;
    assert!(error.contains("Existing subscription"), "{error}");
    for data in ["1", "2"] {
        listener.expect_event("client-a", ROOM, data).await;
    }
    // It is in.
    nodes.rest(0).publish(ROOM, "e", "3").await;
    for client in [&mut client, &mut listener] {
        client.expect_event("e", ROOM, "3").await;
        client.assert_silent().await;
    }
    assert_eq!(nodes.in_redis("42").totals[ROOM], 2);
}

#[tokio::test]
async fn who_enters_and_leaves_at_once_was_there_and_is_gone() {
    let (nodes, proxy) = nodes();
    let mut listener = listener(&nodes).await;
    let mut client = nodes.connect(1).await;
    proxy.blackhole();
    client.request(ROOM, None).await;
    unsubscribe(&mut client, ROOM).await;
    client.sync().await;
    proxy.heal();
    client.succeeded(ROOM).await;
    nodes.rest(0).settle().await;
    assert_eq!(nodes.in_redis("42").totals[ROOM], 1);
    nodes.rest(0).publish(ROOM, "e", "1").await;
    listener.expect_event("e", ROOM, "1").await;
    client.assert_silent().await;
}

#[tokio::test]
async fn what_waits_is_bounded_and_goes_with_who_leaves() {
    let (nodes, proxy) = nodes();
    let mut listener = listener(&nodes).await;
    let mut client = nodes.connect(1).await;
    let mut gone = nodes.connect(1).await;
    proxy.blackhole();
    for client in [&mut client, &mut gone] {
        client.request(ROOM, None).await;
        for serial in 0..32 {
            client.trigger("client-a", ROOM, json!(serial.to_string())).await;
        }
    }
    client.sync().await;
    client.trigger("client-a", ROOM, json!("too many")).await;
    client.expect_refusal().await;
    // This has no room either, and has to be obeyed.
    unsubscribe(&mut client, ROOM).await;
    client.sync().await;
    gone.sync().await;
    gone.reset();
    let connections = || nodes.node(1).apps().by_id("42").unwrap().connection_count();
    eventually("the connection to be gone", async || connections() == 1).await;
    proxy.heal();
    client.assert_silent().await;
    listener.assert_silent().await;
    assert_eq!(nodes.in_redis("42").totals[ROOM], 1);
    client.subscribe(ROOM).await;
    client.trigger("client-a", ROOM, json!("in")).await;
    listener.expect_event("client-a", ROOM, "in").await;
}

#[tokio::test]
async fn subscriptions_that_need_the_user_wait_for_the_sign_in() {
    let (nodes, proxy) = nodes();
    let mut client = nodes.connect(1).await;
    proxy.blackhole();
    client.send_signin(r#"{"id":"u-1"}"#).await;
    client.request("#server-to-user-u-1", None).await;
    client.request("presence-a", None).await;
    client.send_signin(r#"{"id":"u-2"}"#).await;
    client.sync().await;
    proxy.heal();
    client.expect("pusher:signin_success").await;
    let error = client.expect_error(None).await;
    assert!(error.contains("u-1"), "{error}");
    let mut entered = [client.next_event().await, client.next_event().await];
    entered.sort_by(|one, other| one.channel.cmp(&other.channel));
    let succeeded = "pusher_internal:subscription_succeeded";
    assert!(entered[0].is(succeeded, "#server-to-user-u-1"), "{entered:?}");
    assert!(entered[1].is(succeeded, "presence-a"), "{entered:?}");
    assert_eq!(listed(&entered[1]), set(&["u-1"]));
    nodes.rest(0).publish("#server-to-user-u-1", "e", "1").await;
    client.expect_event("e", "#server-to-user-u-1", "1").await;
    client.assert_silent().await;
}

#[tokio::test]
async fn who_moves_to_another_node_is_never_offline() {
    let (nodes, proxy) = nodes();
    let mut watchers = Vec::new();
    for node in 0..2 {
        let mut watcher = nodes.connect(node).await;
        watcher.sign_in(&json!({"id": format!("w-{node}"), "watchlist": ["u-1"]}).to_string()).await;
        watcher.expect(WATCHLIST).await;
        watchers.push(watcher);
    }
    let mut old = nodes.connect(0).await;
    old.sign_in(r#"{"id":"u-1"}"#).await;
    for watcher in &mut watchers {
        watcher.expect(WATCHLIST).await;
    }
    let mut new = nodes.connect(1).await;
    proxy.blackhole();
    new.send_signin(r#"{"id":"u-1"}"#).await;
    // The answer to what follows is the first: the other node does not know of the sign-in.
    new.send(json!({"event": "unheard-of", "data": {}})).await;
    new.expect_refusal().await;
    proxy.heal();
    new.expect("pusher:signin_success").await;
    old.close().await;
    for client in watchers.iter_mut().chain([&mut new]) {
        client.assert_silent().await;
    }
    assert_eq!(nodes.in_redis("42").online["u-1"], 1);
    // One that gives up is nobody's.
    let mut tired = nodes.connect(1).await;
    proxy.blackhole();
    tired.send_signin(r#"{"id":"u-2"}"#).await;
    tired.sync().await;
    tired.close().await;
    proxy.heal();
    // What was on its way came before this.
    nodes.connect(1).await.sign_in(r#"{"id":"u-3"}"#).await;
    eventually("nobody to be left", async || !nodes.in_redis("42").online.contains_key("u-2")).await;
}
