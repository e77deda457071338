//! Positions whose messages are not there any more.

use serde_json::{Value, json};
use tidewire::config::ReplayRule;

use super::{
    HISTORY, ask, data_of, in_memory_with, keep, moved, on_each_store, page, position_of, publish_numbers,
    rule, serials,
};
use crate::common::TestServer;

/// Checks a 410 and hands its body back.
async fn gone(server: &TestServer, query: &[(&str, &str)], reason: &str) -> Value {
    let answer = ask(&server.rest(), query).await;
    assert_eq!(answer.status, 410, "{query:?}: {}", answer.body);
    assert!(answer.header("content-type").unwrap().starts_with("application/json"));
    let body = answer.json();
    assert_eq!((&body["error"], &body["reason"]), (&json!("position_gone"), &json!(reason)), "{body}");
    body
}

#[tokio::test]
async fn a_position_older_than_the_window_is_gone() {
    on_each_store(async |server| {
        let rest = server.rest();
        publish_numbers(&rest, "log-a", 1..=3).await;
        let cursor = page(&rest, &[("direction", "forward"), ("limit", "1")]).await["next"].clone();
        server.advance(1800);
        publish_numbers(&rest, "log-a", 4..=6).await;
        let head = position_of(&rest, "log-a").await;
        let forward = ("direction", "forward");
        assert_eq!(serials(&page(&rest, &[forward, ("from", &moved(&head, 1))]).await).len(), 5);
        server.advance(1801);
        for query in [
            &[forward, ("from", &*moved(&head, 1))][..],
            &[forward, ("from", &*moved(&head, 0))],
            &[("cursor", cursor.as_str().unwrap())],
            &[("to", &*moved(&head, 2))],
        ] {
            let body = gone(server, query, "expired").await;
            let epoch = head.split(':').next().unwrap();
            assert_eq!(
                (&body["oldest"], &body["newest"], &body["epoch"]),
                (&json!(4), &json!(6), &json!(epoch))
            );
            assert!(body["message"].as_str().unwrap().contains("trimmed"));
        }
        // Right at the boundary nothing is missing.
        assert_eq!(serials(&page(&rest, &[forward, ("from", &moved(&head, 3))]).await), [4, 5, 6]);
        // Who does not say where it was gets what there is; backward there is an end, not a gap.
        assert_eq!(serials(&page(&rest, &[forward]).await), [4, 5, 6]);
        assert_eq!(serials(&page(&rest, &[forward, ("since", "1d")]).await), [4, 5, 6]);
        let end = page(&rest, &[("from", &moved(&head, 3))]).await;
        assert_eq!((serials(&end), &end["complete"]), (vec![], &json!(true)));
        // Everything is too old.
        server.advance(3601);
        gone(server, &[forward, ("from", &moved(&head, 5))], "expired").await;
        let empty = page(&rest, &[forward, ("from", &head)]).await;
        assert_eq!(
            (&empty["oldest"], &empty["newest"], &empty["complete"]),
            (&json!(7), &json!(6), &json!(true))
        );
    })
    .await;
}

#[tokio::test]
async fn a_backward_reader_whose_messages_are_trimmed_meanwhile_comes_to_an_end() {
    on_each_store(async |server| {
        let rest = server.rest();
        publish_numbers(&rest, "log-a", 1..=5).await;
        server.advance(1800);
        publish_numbers(&rest, "log-a", 6..=10).await;
        let first = page(&rest, &[("limit", "7")]).await;
        assert_eq!(first["complete"], false);
        server.advance(1801);
        let second = page(&rest, &[("cursor", first["next"].as_str().unwrap())]).await;
        assert_eq!(
            (serials(&second), &second["complete"], &second["next"]),
            (vec![], &json!(true), &Value::Null)
        );
        let back = page(&rest, &[("cursor", second["prev"].as_str().unwrap())]).await;
        assert_eq!(serials(&back), [6, 7, 8, 9, 10]);
    })
    .await;
}

#[tokio::test]
async fn counts_and_bytes_are_limits_as_well() {
    for limited in [ReplayRule { max_messages: 5, ..rule() }, ReplayRule { max_bytes: 5 * 1000, ..rule() }] {
        let server = in_memory_with(|config| keep(&mut config.apps[0], vec![limited]));
        let rest = server.rest();
        for number in 10..=29 {
            rest.publish("log-a", "e", &format!("{number}{}", "x".repeat(900))).await;
        }
        let head = position_of(&rest, "log-a").await;
        let kept = serials(&page(&rest, &[("direction", "forward")]).await);
        assert_eq!(kept, [16, 17, 18, 19, 20]);
        let body = gone(&server, &[("direction", "forward"), ("from", &moved(&head, 14))], "expired").await;
        assert_eq!(body["oldest"], 16);
        let state = rest.read("/channels/log-a/history/state", &[]).await;
        assert_eq!((&state["floor"], &state["messages"]), (&json!(16), &json!(5)));
    }
}

#[tokio::test]
async fn a_silent_channel_is_forgotten_after_its_inactivity_ttl() {
    let inactive = ReplayRule { inactivity_ttl: std::time::Duration::from_secs(60), ..rule() };
    let server = in_memory_with(|config| keep(&mut config.apps[0], vec![inactive]));
    let rest = server.rest();
    publish_numbers(&rest, "log-a", 1..=3).await;
    server.advance(59);
    assert_eq!(serials(&page(&rest, &[]).await), [3, 2, 1]);
    server.advance(2);
    assert_eq!(page(&rest, &[]).await["items"], json!([]));
}

#[tokio::test]
async fn a_position_of_another_log_or_beyond_this_one_is_gone() {
    on_each_store(async |server| {
        let rest = server.rest();
        publish_numbers(&rest, "log-a", 1..=3).await;
        let head = position_of(&rest, "log-a").await;
        let (epoch, _) = head.split_once(':').unwrap();
        let (nonce, generation) = epoch.split_once('.').unwrap();
        let other_log = format!("zz{}.{generation}:2", &nonce[..nonce.len().min(8)]);
        publish_numbers(&rest, "log-b", 1..=3).await;
        let other_channel = position_of(&rest, "log-b").await;
        let unknown_generation = format!("{nonce}.0:2");
        for direction in ["forward", "backward"] {
            for name in ["from", "to"] {
                for (position, reason) in [
                    (&other_channel, "stream_reset"),
                    (&other_log, "stream_reset"),
                    (&unknown_generation, "stream_reset"),
                    (&moved(&head, 4), "rolled_back"),
                    (&moved(&head, u64::MAX), "rolled_back"),
                ] {
                    gone(server, &[("direction", direction), (name, position)], reason).await;
                }
            }
        }
        assert_eq!(data_of(&page(&rest, &[]).await), ["3", "2", "1"]);
    })
    .await;
}

#[tokio::test]
async fn a_cursor_of_another_log_is_gone() {
    let (one, two) = (super::in_memory(), super::in_memory());
    for server in [&one, &two] {
        publish_numbers(&server.rest(), "log-a", 1..=5).await;
    }
    let cursor = page(&one.rest(), &[("limit", "2")]).await["next"].as_str().unwrap().to_owned();
    gone(&two, &[("cursor", &cursor)], "stream_reset").await;
    assert_eq!(one.rest().get(HISTORY).query("cursor", &cursor).send().await.status, 200);
}
