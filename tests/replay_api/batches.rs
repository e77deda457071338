//! Keys and positions of the items of a batch.

use serde_json::{Value, json};

use super::{deduplicated, in_memory, kept, moved, on_each_store, position_of};

fn item(channel: &str, data: &str, key: &str) -> Value {
    json!({"name": "e", "data": data, "channel": channel, "idempotency_key": key})
}

#[tokio::test]
async fn every_item_has_its_own_key() {
    on_each_store(async |server| {
        let rest = server.rest();
        let plain = json!({"name": "e", "data": "3", "channel": "log-a"});
        let answer = rest.batch(json!([item("log-a", "1", "k-1"), item("log-a", "2", "k-2"), plain])).await;
        assert_eq!((answer.status, &*answer.body, deduplicated(&answer)), (200, "{}", None));
        let answer = rest.batch(json!([item("log-a", "1", "k-1"), item("log-a", "4", "k-4")])).await;
        assert_eq!((answer.status, deduplicated(&answer)), (200, Some("partial")));
        let answer = rest.batch(json!([item("log-a", "4", "k-4"), item("log-a", "2", "k-2")])).await;
        assert_eq!((answer.status, deduplicated(&answer)), (200, Some("true")));
        assert_eq!(kept(&rest).await, ["1", "2", "3", "4"]);
    })
    .await;
}

#[tokio::test]
async fn the_same_item_twice_in_one_batch_is_published_once() {
    on_each_store(async |server| {
        let rest = server.rest();
        let answer = rest.batch(json!([item("log-a", "1", "k"), item("log-a", "1", "k")])).await;
        assert_eq!((answer.status, deduplicated(&answer)), (200, Some("partial")), "{}", answer.body);
        assert_eq!(kept(&rest).await, ["1"]);
    })
    .await;
}

#[tokio::test]
async fn two_events_under_one_key_in_a_batch_are_refused_with_all_of_it() {
    on_each_store(async |server| {
        let rest = server.rest();
        let batch = json!([item("log-a", "1", "k-1"), item("log-a", "2", "k"), item("log-a", "3", "k")]);
        let text = rest.batch(batch).await.refused(409);
        assert!(text.contains("nothing was published"), "{text}");
        let batch = json!([item("log-a", "1", "k"), item("log-b", "2", "k"), item("plain", "3", "k")]);
        assert_eq!(rest.batch(batch).await.status, 200);
        let batch = json!([item("log-a", "9", "k-9"), item("log-b", "3", "k")]);
        let text = rest.batch(batch).await.refused(409);
        assert!(text.contains("'log-b'"), "{text}");
        assert_eq!(kept(&rest).await, ["1"]);
    })
    .await;
}

#[tokio::test]
async fn a_batch_has_no_key_of_its_own() {
    let server = in_memory();
    let rest = server.rest();
    let body = json!({"batch": [item("log-a", "1", "k")]}).to_string();
    let request = rest.post("/apps/42/batch_events", body).header("X-Idempotency-Key", "k");
    let text = request.send().await.refused(400);
    assert!(text.contains("each item") && text.contains("idempotency_key"), "{text}");
    assert_eq!(kept(&rest).await, [] as [&str; 0]);
}

#[tokio::test]
async fn a_batch_tells_the_position_of_each_item_that_asks() {
    on_each_store(async |server| {
        let rest = server.rest();
        let asks = |channel: &str, data: &str, info: &str| {
            json!({"name": "e", "data": data, "channel": channel, "info": info})
        };
        let batch = json!([
            asks("log-a", "1", "position"),
            {"name": "e", "data": "2", "channel": "log-a"},
            asks("plain", "3", "position"),
            asks("log-a", "4", "position"),
            asks("presence-log-a", "5", "position,user_count"),
        ]);
        let answer = rest.batch(batch).await.json();
        let head = position_of(&rest, "log-a").await;
        let at = |serial| moved(&head, serial);
        let other = position_of(&rest, "presence-log-a").await;
        assert_eq!(
            answer,
            json!({"batch": [
                {"position": at(1)}, {}, {}, {"position": at(3)}, {"user_count": 0, "position": other}
            ]})
        );
    })
    .await;
}
