//! One message for one key, however often and whatever way it is sent.

use serde_json::json;
use tidewire::config::AppConfig;

use super::{
    deduplicated, event, in_memory, in_memory_with, keep, kept, keyed, on_disk, on_each_store,
    publish_numbers, rule,
};
use crate::common::{Client, TestServer};

async fn subscribed(server: &TestServer, channel: &str) -> Client {
    let mut client = server.connect().await;
    client.subscribe(channel).await;
    client
}

#[tokio::test]
async fn a_repeat_is_answered_as_the_first_and_delivered_once() {
    on_each_store(async |server| {
        for channel in ["log-a", "plain"] {
            let mut client = subscribed(server, channel).await;
            let rest = server.rest();
            let first = rest.trigger(keyed(channel, "1", "k-1")).await;
            assert_eq!((first.status, &*first.body, deduplicated(&first)), (200, "{}", None));
            for _ in 0..3 {
                let repeat = rest.trigger(keyed(channel, "1", "k-1")).await;
                assert_eq!((repeat.status, &*repeat.body), (200, "{}"), "{channel}");
                assert_eq!(deduplicated(&repeat), Some("true"), "{channel}");
            }
            client.expect_event("e", channel, "1").await;
            client.assert_silent().await;
        }
        assert_eq!(kept(&server.rest()).await, ["1"]);
    })
    .await;
}

#[tokio::test]
async fn a_repeat_tells_the_position_of_the_first() {
    on_each_store(async |server| {
        let rest = server.rest();
        let mut body = keyed("log-a", "1", "k-1");
        body["info"] = "position".into();
        let first = rest.trigger(body.clone()).await;
        publish_numbers(&rest, "log-a", 2..=5).await;
        let repeat = rest.trigger(body).await;
        assert_eq!(repeat.body, first.body);
        assert!(first.body.contains(":1\""), "{}", first.body);
    })
    .await;
}

#[tokio::test]
async fn without_a_key_every_request_is_an_event() {
    let server = in_memory();
    let rest = server.rest();
    for _ in 0..2 {
        assert_eq!(deduplicated(&rest.trigger(event("log-a", "1")).await), None);
    }
    assert_eq!(kept(&rest).await, ["1", "1"]);
}

#[tokio::test]
async fn the_key_may_stand_in_the_header_and_that_of_the_body_wins() {
    let server = in_memory();
    let rest = server.rest();
    let send = async |body: serde_json::Value, header: &str| {
        let request = rest.post("/apps/42/events", body.to_string()).header("X-Idempotency-Key", header);
        request.send().await
    };
    assert_eq!(deduplicated(&send(event("log-a", "1"), "k-1").await), None);
    assert_eq!(deduplicated(&send(event("log-a", "1"), "k-1").await), Some("true"));
    assert_eq!(deduplicated(&rest.trigger(keyed("log-a", "1", "k-1")).await), Some("true"));
    assert_eq!(deduplicated(&send(keyed("log-a", "1", "k-2"), "k-1").await), None);
    assert_eq!(kept(&rest).await, ["1", "1"]);
}

#[tokio::test]
async fn the_publish_call_of_2012_takes_the_header() {
    let server = in_memory();
    let rest = server.rest();
    for expected in [None, Some("true")] {
        let request = rest.post("/apps/42/channels/log-a/events", "hello").query("name", "e");
        let answer = request.header("x-idempotency-key", "k").send().await;
        assert_eq!((answer.status, deduplicated(&answer)), (202, expected), "{}", answer.body);
    }
    assert_eq!(kept(&rest).await, ["hello"]);
}

#[tokio::test]
async fn another_event_under_the_same_key_is_refused() {
    on_each_store(async |server| {
        for channel in ["log-a", "plain"] {
            let mut client = subscribed(server, channel).await;
            let rest = server.rest();
            rest.trigger(keyed(channel, "1", "k")).await;
            client.expect_event("e", channel, "1").await;
            let mut renamed = keyed(channel, "1", "k");
            renamed["name"] = "f".into();
            let mut excluding = keyed(channel, "1", "k");
            excluding["socket_id"] = client.socket_id.clone().into();
            for other in [keyed(channel, "2", "k"), renamed, excluding] {
                let text = rest.trigger(other).await.refused(409);
                assert!(text.contains(&format!("another event on channel '{channel}'")), "{text}");
                assert!(text.contains("nothing was published"), "{text}");
            }
            client.assert_silent().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_encrypted_event_is_the_same_however_it_is_encrypted() {
    on_each_store(async |server| {
        for channel in ["private-encrypted-log-a", "private-encrypted-plain"] {
            let mut client = subscribed(server, channel).await;
            let rest = server.rest();
            rest.trigger(keyed(channel, r#"{"nonce":"1","ciphertext":"x"}"#, "k")).await;
            let repeat = rest.trigger(keyed(channel, r#"{"nonce":"2","ciphertext":"y"}"#, "k")).await;
            assert_eq!((repeat.status, deduplicated(&repeat)), (200, Some("true")), "{channel}");
            let mut renamed = keyed(channel, "{}", "k");
            renamed["name"] = "f".into();
            rest.trigger(renamed).await.refused(409);
            let item = |nonce: &str| json!({"name": "e", "data": nonce, "channel": channel, "idempotency_key": "k-2"});
            let answer = rest.batch(json!([item("1"), item("2")])).await;
            assert_eq!((answer.status, deduplicated(&answer)), (200, Some("partial")));
            client.expect_event("e", channel, r#"{"nonce":"1","ciphertext":"x"}"#).await;
            client.expect_event("e", channel, "1").await;
            client.assert_silent().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_conflict_on_one_channel_keeps_the_event_from_all() {
    on_each_store(async |server| {
        for (taken, free) in
            [("plain", "other"), ("log-a", "log-b"), ("log-c", "plain-c"), ("plain-d", "log-d")]
        {
            let mut client = subscribed(server, free).await;
            let rest = server.rest();
            assert_eq!(rest.trigger(keyed(taken, "1", "k")).await.status, 200);
            let both = json!({"name": "e", "data": "2", "channels": [free, taken], "idempotency_key": "k"});
            let text = rest.trigger(both).await.refused(409);
            assert!(text.contains(taken) && text.contains("nothing was published"), "{text}");
            client.assert_silent().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_retry_completes_what_was_half_done() {
    on_each_store(async |server| {
        let mut client = subscribed(server, "log-b").await;
        let rest = server.rest();
        rest.trigger(keyed("log-a", "1", "k")).await;
        let both = json!({"name": "e", "data": "1", "channels": ["log-a", "log-b"], "idempotency_key": "k"});
        let answer = rest.trigger(both.clone()).await;
        assert_eq!((answer.status, deduplicated(&answer)), (200, Some("partial")));
        let answer = rest.trigger(both).await;
        assert_eq!((answer.status, deduplicated(&answer)), (200, Some("true")));
        client.expect_event("e", "log-b", "1").await;
        client.assert_silent().await;
        assert_eq!(kept(&rest).await, ["1"]);
    })
    .await;
}

#[tokio::test]
async fn a_key_has_1_to_128_characters() {
    let server = in_memory();
    let rest = server.rest();
    for key in ["k".repeat(128), "ö".repeat(128)] {
        assert_eq!(rest.trigger(keyed("log-a", "1", &key)).await.status, 200);
        let request = rest.post("/apps/42/events", event("log-a", "1").to_string());
        assert_eq!(deduplicated(&request.header("X-Idempotency-Key", &key).send().await), Some("true"));
    }
    for key in ["", &"k".repeat(129)] {
        let text = rest.trigger(keyed("log-a", "1", key)).await.refused(400);
        assert!(text.contains("1 to 128"), "{text}");
        let item = json!({"name": "e", "data": "1", "channel": "log-a", "idempotency_key": key});
        rest.batch(json!([item])).await.refused(400);
        let request = rest.post("/apps/42/events", event("log-a", "1").to_string());
        request.header("X-Idempotency-Key", key).send().await.refused(400);
    }
    let number = json!({"name": "e", "data": "1", "channels": ["log-a"], "idempotency_key": 7});
    rest.trigger(number).await.refused(400);
    let null = json!({"name": "e", "data": "1", "channels": ["log-a"], "idempotency_key": null});
    assert_eq!(deduplicated(&rest.trigger(null).await), None);
    assert_eq!(kept(&rest).await.len(), 3);
}

#[tokio::test]
async fn a_key_is_of_one_app_and_channel() {
    let server = in_memory_with(|config| {
        let mut other = AppConfig::new("43", "other-key", "other-secret");
        keep(&mut other, vec![rule()]);
        config.apps.push(other);
    });
    let other = server.rest_as("other-key", "other-secret");
    for channel in ["log-a", "log-b", "plain", "plain-b"] {
        assert_eq!(deduplicated(&server.rest().trigger(keyed(channel, channel, "k")).await), None);
        let answer = other.post("/apps/43/events", keyed(channel, channel, "k").to_string()).send().await;
        assert_eq!((answer.status, deduplicated(&answer)), (200, None));
    }
}

#[tokio::test]
async fn a_key_is_free_again_after_two_minutes() {
    on_each_store(async |server| {
        let rest = server.rest();
        for channel in ["log-a", "plain"] {
            rest.trigger(keyed(channel, "1", "k")).await;
        }
        server.advance(110);
        for channel in ["log-a", "plain"] {
            assert_eq!(deduplicated(&rest.trigger(keyed(channel, "1", "k")).await), Some("true"));
            rest.trigger(keyed(channel, "2", "k")).await.refused(409);
        }
        server.advance(11);
        for channel in ["log-a", "plain"] {
            let answer = rest.trigger(keyed(channel, "2", "k")).await;
            assert_eq!((answer.status, deduplicated(&answer)), (200, None), "{channel}");
        }
        assert_eq!(kept(&rest).await, ["1", "2"]);
    })
    .await;
}

#[tokio::test]
async fn of_many_requests_at_once_one_is_the_event() {
    on_each_store(async |server| {
        for channel in ["log-a", "plain"] {
            let mut client = subscribed(server, channel).await;
            let requests = (0..50).map(|_| {
                let rest = server.rest();
                tokio::spawn(async move { rest.trigger(keyed(channel, "1", "k")).await })
            });
            let mut firsts = 0;
            for request in requests.collect::<Vec<_>>() {
                let answer = request.await.unwrap();
                assert_eq!(answer.status, 200, "{}", answer.body);
                firsts += usize::from(deduplicated(&answer).is_none());
            }
            assert_eq!(firsts, 1, "{channel}");
            client.expect_event("e", channel, "1").await;
            client.assert_silent().await;
        }
        assert_eq!(kept(&server.rest()).await, ["1"]);
    })
    .await;
}

#[tokio::test]
async fn of_many_different_events_under_one_key_one_is_published() {
    let server = in_memory();
    let requests = (0..20).map(|number| {
        let rest = server.rest();
        tokio::spawn(async move { rest.trigger(keyed("log-a", &number.to_string(), "k")).await.status })
    });
    let mut statuses = Vec::new();
    for request in requests.collect::<Vec<_>>() {
        statuses.push(request.await.unwrap());
    }
    statuses.sort_unstable();
    assert_eq!(statuses[0], 200);
    assert!(statuses[1..].iter().all(|status| *status == 409), "{statuses:?}");
    assert_eq!(kept(&server.rest()).await.len(), 1);
}

#[tokio::test]
async fn keys_outlive_a_restart_with_the_messages() {
    let directory = tempfile::tempdir().unwrap();
    let mut body = keyed("log-a", "1", "k");
    body["info"] = "position".into();
    let first = {
        let server = on_disk(directory.path());
        server.rest().trigger(body.clone()).await
    };
    assert_eq!((first.status, deduplicated(&first)), (200, None));
    let server = on_disk(directory.path());
    let repeat = server.rest().trigger(body).await;
    assert_eq!((repeat.status, &*repeat.body), (200, &*first.body));
    assert_eq!(deduplicated(&repeat), Some("true"));
    server.rest().trigger(keyed("log-a", "2", "k")).await.refused(409);
    assert_eq!(kept(&server.rest()).await, ["1"]);
}
