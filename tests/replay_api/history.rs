//! Pages of a channel's log, both ways.

use serde_json::{Value, json};

use super::{
    HISTORY, ask, data_of, in_memory, in_memory_with, keep, moved, on_each_store, page, position_of,
    publish_numbers, rule, serials,
};
use crate::common::Rest;

#[tokio::test]
async fn it_begins_with_the_newest() {
    on_each_store(async |server| {
        let rest = server.rest();
        publish_numbers(&rest, "log-a", 1..=3).await;
        let epoch = position_of(&rest, "log-a").await.split(':').next().unwrap().to_owned();
        let page = page(&rest, &[]).await;
        assert_eq!(data_of(&page), ["3", "2", "1"]);
        assert_eq!(serials(&page), [3, 2, 1]);
        let rest_of_page = json!({
            "channel": page["channel"], "epoch": page["epoch"], "oldest": page["oldest"], "newest": page["newest"],
            "next": page["next"], "prev": page["prev"], "complete": page["complete"],
        });
        assert_eq!(
            rest_of_page,
            json!({
                "channel": "log-a", "epoch": epoch, "oldest": 1, "newest": 3,
                "next": null, "prev": null, "complete": true,
            })
        );
    })
    .await;
}

#[tokio::test]
async fn an_item_is_the_event_as_subscribers_got_it() {
    on_each_store(async |server| {
        let mut client = server.connect().await;
        client.subscribe("log-a").await;
        let rest = server.rest();
        let data = "{\"text\":\"\\u00e9 \\\"quoted\\\" </a> \u{1f600}\\n\"}";
        let before = server.rest().clock.unix_millis();
        let body =
            json!({"name": "e \"1\"", "data": data, "channels": ["log-a"], "idempotency_key": "k-\"1\""});
        assert_eq!(rest.trigger(body).await.status, 200);
        let got = client.expect("e \"1\"").await;
        let page = page(&rest, &[]).await;
        let item = &page["items"][0];
        let time = item["ts"].as_i64().unwrap();
        assert!((before..=server.rest().clock.unix_millis()).contains(&time), "{time}");
        assert_eq!(item["data"], got.data());
        let expected = json!({"serial": 1, "id": "k-\"1\"", "event": "e \"1\"", "data": data, "ts": time});
        assert_eq!(*item, expected);
    })
    .await;
}

#[tokio::test]
async fn a_client_event_tells_who_sent_it() {
    on_each_store(async |server| {
        let mut client = server.connect().await;
        client.join("presence-log-a", "u-1").await;
        client.trigger("client-typing", "presence-log-a", json!({"n": 1})).await;
        let rest = server.rest();
        let read = async || rest.read("/channels/presence-log-a/history", &[]).await;
        crate::common::eventually("the client event is kept", async || read().await["newest"] == 1).await;
        let item = &read().await["items"][0];
        assert_eq!(item["event"], "client-typing");
        assert_eq!((&item["user_id"], &item["id"]), (&json!("u-1"), &Value::Null));
    })
    .await;
}

#[tokio::test]
async fn a_channel_that_nobody_used_is_an_empty_page() {
    on_each_store(async |server| {
        for direction in ["forward", "backward"] {
            let page = page(&server.rest(), &[("direction", direction)]).await;
            assert_eq!(page["items"], json!([]));
            assert_eq!((&page["oldest"], &page["newest"]), (&json!(1), &json!(0)));
            assert_eq!(
                (&page["next"], &page["prev"], &page["complete"]),
                (&Value::Null, &Value::Null, &json!(true))
            );
        }
    })
    .await;
}

/// Follows `next` to the end; the data of all pages.
async fn all_pages(rest: &Rest, query: &[(&str, &str)], mut between: impl AsyncFnMut()) -> Vec<String> {
    let mut all = Vec::new();
    let mut current = page(rest, query).await;
    loop {
        all.extend(data_of(&current).into_iter().map(str::to_owned));
        let Some(next) = current["next"].as_str().map(str::to_owned) else {
            assert_eq!(current["complete"], true);
            return all;
        };
        assert_eq!(current["complete"], false);
        between().await;
        current = page(rest, &[("cursor", &next), ("limit", "7")]).await;
    }
}

fn numbers(range: impl Iterator<Item = u64>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn pages_are_whole_in_both_directions_while_others_publish() {
    on_each_store(async |server| {
        let rest = server.rest();
        publish_numbers(&rest, "log-a", 1..=30).await;
        let mut last = 30;
        let mut publish = async || {
            last += 1;
            publish_numbers(&rest, "log-a", last..=last).await;
        };
        let backward = all_pages(&rest, &[("limit", "7")], &mut publish).await;
        assert_eq!(backward, numbers((1..=30).rev()));
        let forward = all_pages(&rest, &[("limit", "7"), ("direction", "forward")], &mut publish).await;
        assert_eq!(forward, numbers(1..=last));
    })
    .await;
}

#[tokio::test]
async fn a_page_leads_back_to_what_was_before_it() {
    on_each_store(async |server| {
        let rest = server.rest();
        publish_numbers(&rest, "log-a", 1..=20).await;
        let cursor = |page: &Value, name: &str| page[name].as_str().unwrap().to_owned();
        let first = page(&rest, &[("limit", "5")]).await;
        assert_eq!(first["prev"], Value::Null);
        let second = page(&rest, &[("limit", "5"), ("cursor", &cursor(&first, "next"))]).await;
        assert_eq!(serials(&second), [15, 14, 13, 12, 11]);
        let back = page(&rest, &[("limit", "5"), ("cursor", &cursor(&second, "prev"))]).await;
        assert_eq!(serials(&back), [16, 17, 18, 19, 20]);
        assert_eq!(back["complete"], true);
        let again = page(&rest, &[("limit", "3"), ("cursor", &cursor(&back, "prev"))]).await;
        assert_eq!(serials(&again), [15, 14, 13]);
        publish_numbers(&rest, "log-a", 21..=22).await;
        let newer = page(&rest, &[("cursor", &cursor(&second, "prev"))]).await;
        assert_eq!(serials(&newer), (16..=22).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test]
async fn from_is_left_out_and_to_is_the_last_one_in() {
    on_each_store(async |server| {
        let rest = server.rest();
        publish_numbers(&rest, "log-a", 1..=10).await;
        let head = position_of(&rest, "log-a").await;
        let (three, seven) = (moved(&head, 3), moved(&head, 7));
        let read = async |query: &[(&str, &str)]| serials(&page(&rest, query).await);
        let forward = ("direction", "forward");
        assert_eq!(read(&[forward, ("from", &three), ("to", &seven)]).await, [4, 5, 6, 7]);
        assert_eq!(read(&[("from", &seven), ("to", &three)]).await, [6, 5, 4, 3]);
        assert_eq!(read(&[forward, ("from", &seven)]).await, [8, 9, 10]);
        assert_eq!(read(&[forward, ("to", &three)]).await, [1, 2, 3]);
        assert_eq!(read(&[("from", &three)]).await, [2, 1]);
        assert_eq!(read(&[("to", &seven)]).await, [10, 9, 8, 7]);
        assert_eq!(read(&[forward, ("from", &head)]).await, [] as [u64; 0]);
        assert_eq!(read(&[("from", &moved(&head, 1))]).await, [] as [u64; 0]);
        assert_eq!(read(&[("to", &moved(&head, 0))]).await.len(), 10);
        assert_eq!(read(&[forward, ("from", &moved(&head, 0))]).await.len(), 10);
        let bounded = [forward, ("from", &three), ("to", &seven), ("limit", "2")];
        assert_eq!(all_pages(&rest, &bounded, async || {}).await, ["4", "5", "6", "7"]);
        let bounded = [("from", &*seven), ("to", &*three), ("limit", "3")];
        assert_eq!(all_pages(&rest, &bounded, async || {}).await, ["6", "5", "4", "3"]);
    })
    .await;
}

#[tokio::test]
async fn since_leaves_out_what_is_older() {
    on_each_store(async |server| {
        let rest = server.rest();
        publish_numbers(&rest, "log-a", 1..=3).await;
        server.advance(600);
        publish_numbers(&rest, "log-a", 4..=6).await;
        server.advance(60);
        publish_numbers(&rest, "log-a", 7..=7).await;
        let read = async |since: &str, direction: &str| {
            serials(&page(&rest, &[("since", since), ("direction", direction)]).await)
        };
        assert_eq!(read("30s", "forward").await, [7]);
        assert_eq!(read("5m", "forward").await, [4, 5, 6, 7]);
        assert_eq!(read("5m", "backward").await, [7, 6, 5, 4]);
        assert_eq!(read("300", "backward").await, [7, 6, 5, 4]);
        assert_eq!(read("1d", "backward").await.len(), 7);
        let paged = all_pages(&rest, &[("since", "5m"), ("limit", "2")], async || {}).await;
        assert_eq!(paged, ["7", "6", "5", "4"]);
        server.advance(120);
        assert_eq!(read("30s", "forward").await, [] as [u64; 0]);
        assert_eq!(read("30s", "backward").await, [] as [u64; 0]);
    })
    .await;
}

#[tokio::test]
async fn a_page_has_100_messages_and_at_most_1000() {
    on_each_store(async |server| {
        let rest = server.rest();
        for batch in 0..110 {
            let item = |number| json!({"name": "e", "data": format!("{batch}-{number}"), "channel": "log-a"});
            assert_eq!(rest.batch((0..10).map(item).collect()).await.status, 200);
        }
        let page_of = async |query: &[(&str, &str)]| serials(&page(&rest, query).await);
        assert_eq!(page_of(&[]).await, (1001..=1100).rev().collect::<Vec<_>>());
        assert_eq!(page_of(&[("limit", "1000")]).await, (101..=1100).rev().collect::<Vec<_>>());
        assert_eq!(page_of(&[("limit", "1"), ("direction", "forward")]).await, [1]);
    })
    .await;
}

#[tokio::test]
async fn a_page_ends_at_4_mib() {
    let server = in_memory_with(|config| config.apps[0].limits.max_event_bytes = 1 << 20);
    let rest = server.rest();
    let large = "x".repeat((1 << 20) - 100);
    for number in 1..=6 {
        rest.publish("log-a", "e", &format!("{number}{large}")).await;
    }
    let first = page(&rest, &[("direction", "forward")]).await;
    assert_eq!(serials(&first), [1, 2, 3, 4]);
    let second = page(&rest, &[("cursor", first["next"].as_str().unwrap())]).await;
    assert_eq!((serials(&second), &second["complete"]), (vec![5, 6], &json!(true)));
}

#[tokio::test]
async fn a_name_in_the_path_may_be_escaped() {
    on_each_store(async |server| {
        let rest = server.rest();
        rest.publish("log-a@b,c;d=e", "e", "1").await;
        for path in ["/channels/log-a@b,c;d=e/history", "/channels/log-a%40b%2Cc%3Bd%3De/history"] {
            let page = rest.read(path, &[]).await;
            assert_eq!((&page["channel"], data_of(&page)), (&json!("log-a@b,c;d=e"), vec!["1"]), "{path}");
        }
        rest.get("/apps/42/channels/log-a%20b/history").send().await.refused(400);
        rest.get("/apps/42/channels/log-%ff/history").send().await.refused(400);
    })
    .await;
}

#[tokio::test]
async fn wrong_parameters_are_named() {
    let server = in_memory();
    let rest = server.rest();
    publish_numbers(&rest, "log-a", 1..=10).await;
    let head = position_of(&rest, "log-a").await;
    let cursor = page(&rest, &[("limit", "2")]).await["next"].as_str().unwrap().to_owned();
    for (name, value) in [
        ("direction", "sideways"),
        ("limit", "0"),
        ("limit", "1001"),
        ("limit", "ten"),
        ("from", "7"),
        ("to", "7"),
        ("since", "soon"),
        ("cursor", "abc"),
    ] {
        let text = ask(&rest, &[(name, value)]).await.refused(400);
        assert!(text.contains(&format!("Invalid parameter: {name} '{value}'")), "{text}");
    }
    ask(&rest, &[("cursor", &cursor), ("from", &head)]).await.refused(400);
    ask(&rest, &[("cursor", &cursor), ("direction", "forward")]).await.refused(400);
    ask(&rest, &[("direction", "forward"), ("from", &head), ("to", &moved(&head, 2))]).await.refused(400);
    let empty = ask(&rest, &[("limit", ""), ("cursor", ""), ("from", ""), ("direction", "")]).await;
    assert_eq!(empty.status, 200, "{}", empty.body);
}

#[tokio::test]
async fn it_is_signed_like_every_other_call() {
    let server = in_memory();
    let rest = server.rest();
    publish_numbers(&rest, "log-a", 1..=1).await;
    for path in [HISTORY, "/apps/42/channels/log-a/history/state"] {
        rest.get(path).secret("wrong").send().await.refused(401);
        rest.get(path).without("auth_key").send().await.refused(401);
        rest.get(path).shifted(-601).send().await.refused(401);
        rest.get(path).wire_path("/apps/42/channels/log-b/history").send().await.refused(401);
        assert_eq!(rest.get(path).send().await.status, 200);
        rest.post(path, "{}").send().await.refused(405);
    }
    server.rest_as("nobody", "secret").get(HISTORY).send().await.refused(401);
}

#[tokio::test]
async fn a_channel_without_a_rule_has_no_history() {
    let server = in_memory_with(|config| {
        let exempt = tidewire::config::ReplayRule {
            pattern: tidewire::config::ChannelPattern::new("log-private-*"),
            stored: false,
            ..rule()
        };
        keep(&mut config.apps[0], vec![exempt, rule()]);
    });
    let without_replay = crate::common::TestServer::start();
    for (server, channel) in [(&server, "plain"), (&server, "log-private-1"), (&without_replay, "log-a")] {
        let rest = server.rest();
        let path = format!("/apps/42/channels/{channel}/history");
        for request in [rest.get(&path), rest.get(&format!("{path}/state")), rest.delete(&path)] {
            let answer = request.send().await;
            assert_eq!(answer.status, 404, "{channel}: {}", answer.body);
            assert!(answer.header("content-type").unwrap().starts_with("application/json"));
            let body = answer.json();
            assert_eq!((&body["error"], &body["channel"]), (&json!("replay_disabled"), &json!(channel)));
            assert!(body["message"].as_str().unwrap().contains("replay.rules"), "{body}");
        }
    }
}

#[tokio::test]
async fn the_state_counts_what_is_kept() {
    on_each_store(async |server| {
        let rest = server.rest();
        let state = async || rest.read("/channels/log-a/history/state", &[]).await;
        let empty = state().await;
        assert_eq!(
            (&empty["floor"], &empty["head"], &empty["messages"], &empty["bytes"]),
            (&json!(1), &json!(0), &json!(0), &json!(0))
        );
        publish_numbers(&rest, "log-a", 1..=3).await;
        let three = state().await;
        assert_eq!(three["position"], position_of(&rest, "log-a").await);
        assert_eq!((&three["floor"], &three["head"], &three["messages"]), (&json!(1), &json!(3), &json!(3)));
        let generations = three["generations"].as_array().unwrap();
        assert_eq!((generations.len(), &generations[0]["start"]), (1, &json!(1)));
        let bytes = three["bytes"].as_u64().unwrap();
        publish_numbers(&rest, "log-a", 4..=4).await;
        let one = state().await["bytes"].as_u64().unwrap() - bytes;
        assert_eq!(bytes, 3 * one);
    })
    .await;
}
