//! Coming back: everything that was missed, once and in order, then live.

use serde_json::json;

use super::{Replaying, at, position, publish, server};
use crate::common::{eventually, member};

#[tokio::test]
async fn s218_missed_messages_come_between_the_answer_and_live_ones() {
    let server = server();
    let mut client = server.connect().await;
    let answer = client.subscribe_replaying("news", json!({"v": 1})).await;
    assert_eq!(answer["serial"], 0);
    assert!(answer.get("recovered").is_none(), "{answer}");
    publish(&server, "news", 1..=2).await;
    client.expect_serial("news", "1", 1).await;
    client.expect_serial("news", "2", 2).await;
    client.close().await;

    publish(&server, "news", 3..=5).await;
    let mut back = server.connect().await;
    let resumed = back.subscribe_replaying("news", json!({"v": 1, "from": at(&position(&answer), 2)})).await;
    assert_eq!(
        resumed,
        json!({"v": 1, "epoch": answer["epoch"], "serial": 5, "recovered": true, "count": 3})
    );
    for number in 3..=5 {
        let event = back.expect_serial("news", &number.to_string(), number).await;
        assert_eq!(event.frame["replayed"], true, "{event:?}");
    }
    back.expect_done("news", 5).await;
    publish(&server, "news", [6]).await;
    let live = back.expect_serial("news", "6", 6).await;
    assert!(live.frame.get("replayed").is_none() && live.frame.get("prev").is_none(), "{live:?}");
}

#[tokio::test]
async fn more_than_the_ring_holds_comes_from_the_log_while_others_publish() {
    let server = server();
    let mut watcher = server.connect().await;
    let start = position(&watcher.subscribe_replaying("news", json!({"v": 1})).await);
    publish(&server, "news", 1..=400).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(server.connect().await);
    }
    let publishing = publish(&server, "news", 401..=600);
    let resuming = async {
        for client in &mut clients {
            client.ask("news", json!({"v": 1, "from": at(&start, 50)})).await;
        }
    };
    tokio::join!(publishing, resuming);
    for client in &mut clients {
        let answer = client.succeeded("news").await.frame["replay"].clone();
        let target = answer["serial"].as_u64().unwrap();
        assert_eq!(answer["count"], json!(target - 50));
        for number in 51..=600 {
            let event = client.expect_serial("news", &number.to_string(), number).await;
            assert_eq!(event.frame.get("replayed").is_some(), number <= target, "{event:?}");
            if number == target {
                client.expect_done("news", target).await;
            }
        }
        client.assert_silent().await;
    }
}

#[tokio::test]
async fn nothing_was_missed() {
    let server = server();
    publish(&server, "news", 1..=3).await;
    let mut client = server.connect().await;
    let answer = client.subscribe_replaying("news", json!({"v": 1})).await;
    client.close().await;
    let mut back = server.connect().await;
    let resumed = back.subscribe_replaying("news", json!({"v": 1, "from": position(&answer)})).await;
    assert_eq!((&resumed["recovered"], &resumed["count"]), (&json!(true), &json!(0)));
    back.expect_done("news", 3).await;
}

#[tokio::test]
async fn the_senders_own_messages_stay_away_from_it() {
    let server = server();
    let rest = server.rest();
    let mut client = server.connect().await;
    let start = position(&client.subscribe_replaying("news", json!({"v": 1})).await);
    publish(&server, "news", [1]).await;
    client.expect_serial("news", "1", 1).await;
    rest.publish_except(&["news"], "e", "own", &client.socket_id).await;
    publish(&server, "news", [3]).await;
    let event = client.expect_serial("news", "3", 3).await;
    assert_eq!(event.frame["prev"], 1, "the second was not for it: {event:?}");
    rest.publish_except(&["news"], "e", "own", &client.socket_id).await;
    client.assert_silent().await;

    let old = client.socket_id.clone();
    client.close().await;
    let mut back = server.connect().await;
    let from = at(&start, 3);
    let answer = back.subscribe_replaying("news", json!({"v": 1, "from": from, "not_from": old})).await;
    assert_eq!(answer["serial"], 4);
    back.expect_done("news", 4).await;
    publish(&server, "news", [5]).await;
    let event = back.expect_serial("news", "5", 5).await;
    assert!(event.frame.get("prev").is_none(), "it was told of the fourth by replay_done: {event:?}");
}

#[tokio::test]
async fn a_subscriber_goes_back_without_leaving() {
    let server = server();
    let mut other = server.connect().await;
    other.join("presence-p", "u-2").await;
    let mut client = server.connect().await;
    let channel_data = member("u-1");
    let mut data = json!({"channel": "presence-p", "channel_data": channel_data, "replay": {"v": 1}});
    data["auth"] = client.auth("presence-p", Some(&channel_data)).into();
    client.send_subscribe(data.clone()).await;
    let start = position(&client.succeeded("presence-p").await.frame["replay"]);
    other.expect("pusher_internal:member_added").await;
    publish(&server, "presence-p", 1..=3).await;
    for number in 1..=3 {
        client.expect_serial("presence-p", &number.to_string(), number).await;
        other.expect_event("e", "presence-p", &number.to_string()).await;
    }

    data["replay"]["from"] = at(&start, 1).into();
    client.send_subscribe(data).await;
    let resumed = client.expect("pusher_internal:replay_resumed").await;
    assert_eq!(
        (resumed.channel.as_deref(), &resumed.frame["replay"]["count"]),
        (Some("presence-p"), &json!(2))
    );
    client.expect_serial("presence-p", "2", 2).await;
    client.expect_serial("presence-p", "3", 3).await;
    client.expect_done("presence-p", 3).await;
    other.assert_silent().await;
    publish(&server, "presence-p", [4]).await;
    client.expect_serial("presence-p", "4", 4).await;
}

#[tokio::test]
async fn a_first_join_may_rewind() {
    let server = server();
    publish(&server, "news", 1..=5).await;
    server.advance(100);
    publish(&server, "news", 6..=8).await;
    for (rewind, first) in [
        (json!({"count": 2}), 7),
        (json!({"count": 50}), 1),
        (json!({"seconds": 50}), 6),
        (json!({"seconds": 3600}), 1),
        (json!("earliest"), 1),
    ] {
        let mut client = server.connect().await;
        let answer = client.subscribe_replaying("news", json!({"v": 1, "rewind": rewind})).await;
        assert_eq!((&answer["recovered"], &answer["count"]), (&json!(true), &json!(9 - first)), "{rewind}");
        for number in first..=8 {
            client.expect_serial("news", &number.to_string(), number).await;
        }
        client.expect_done("news", 8).await;
    }
}

#[tokio::test]
async fn a_user_s_own_channel_is_stored_as_any_other() {
    let server = server();
    let user = json!({"id": "u-1"}).to_string();
    let mut client = server.connect().await;
    client.sign_in(&user).await;
    let start = position(&client.subscribe_replaying("#server-to-user-u-1", json!({"v": 1})).await);
    client.close().await;
    server.rest().publish("#server-to-user-u-1", "e", "1").await;
    let mut back = server.connect().await;
    back.sign_in(&user).await;
    back.subscribe_replaying("#server-to-user-u-1", json!({"v": 1, "from": start})).await;
    back.expect_serial("#server-to-user-u-1", "1", 1).await;
}

#[tokio::test]
async fn the_url_may_ask_for_every_subscription() {
    let server = server();
    let mut client = server.connect_with("protocol=7&replay=1").await;
    let start = position(&client.subscribe("news").await.frame["replay"]);
    publish(&server, "news", 1..=2).await;
    client.expect_serial("news", "1", 1).await;

    let mut back = server.connect_with(&format!("protocol=7&last_message_id={}", at(&start, 1))).await;
    let answer = back.subscribe("news").await;
    assert_eq!(answer.frame["replay"]["count"], 1);
    back.expect_serial("news", "2", 2).await;
    back.expect_done("news", 2).await;
}

#[tokio::test]
async fn a_subscription_that_is_given_up_while_the_store_is_asked_never_comes() {
    let server = server();
    let mut client = server.connect().await;
    for _ in 0..20 {
        client.ask("news", json!({"v": 1, "rewind": "earliest"})).await;
        client.send(json!({"event": "pusher:unsubscribe", "data": {"channel": "news"}})).await;
    }
    eventually("nobody is subscribed", async || {
        client.sync().await;
        server.rest().read("/channels/news", &[]).await["occupied"] == false
    })
    .await;
    server.assert_serves_others().await;
}
