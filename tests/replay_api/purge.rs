//! What was purged is gone for everybody; the log goes on.

use serde_json::json;

use super::{
    HISTORY, ask, deduplicated, in_memory, keyed, moved, on_disk, on_each_store, page, position_of,
    publish_numbers, serials,
};

#[tokio::test]
async fn everything_goes_and_serials_go_on() {
    on_each_store(async |server| {
        let rest = server.rest();
        publish_numbers(&rest, "log-a", 1..=5).await;
        publish_numbers(&rest, "log-b", 1..=2).await;
        let head = position_of(&rest, "log-a").await;
        let answer = rest.delete(HISTORY).send().await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let state = answer.json();
        let told = (&state["floor"], &state["head"], &state["messages"], &state["bytes"], &state["position"]);
        assert_eq!(told, (&json!(6), &json!(5), &json!(0), &json!(0), &json!(head)));

        let empty = page(&rest, &[]).await;
        assert_eq!((&empty["items"], &empty["complete"]), (&json!([]), &json!(true)));
        let forward = ("direction", "forward");
        assert_eq!(ask(&rest, &[forward, ("from", &moved(&head, 3))]).await.status, 410);
        assert_eq!(ask(&rest, &[forward, ("from", &head)]).await.status, 200);

        publish_numbers(&rest, "log-a", 6..=7).await;
        assert_eq!(position_of(&rest, "log-a").await, moved(&head, 7));
        assert_eq!(serials(&page(&rest, &[forward, ("from", &head)]).await), [6, 7]);
        assert_eq!(rest.read("/channels/log-b/history", &[]).await["items"].as_array().unwrap().len(), 2);
    })
    .await;
}

#[tokio::test]
async fn what_is_before_a_position_goes() {
    on_each_store(async |server| {
        let rest = server.rest();
        publish_numbers(&rest, "log-a", 1..=5).await;
        let head = position_of(&rest, "log-a").await;
        for (before, left) in [(3, vec![3, 4, 5]), (2, vec![3, 4, 5]), (0, vec![3, 4, 5]), (5, vec![5])] {
            let answer = rest.delete(HISTORY).query("before", &moved(&head, before)).send().await;
            assert_eq!(answer.status, 200, "{before}: {}", answer.body);
            assert_eq!(answer.json()["floor"], left[0]);
            assert_eq!(serials(&page(&rest, &[("direction", "forward")]).await), left, "{before}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_position_that_is_none_of_this_log_purges_nothing() {
    let server = in_memory();
    let rest = server.rest();
    publish_numbers(&rest, "log-a", 1..=3).await;
    let head = position_of(&rest, "log-a").await;
    let purge = async |before: &str| rest.delete(HISTORY).query("before", before).send().await;
    let text = purge("yesterday").await.refused(400);
    assert!(text.contains("before 'yesterday' is not a position"), "{text}");
    assert_eq!(purge(&moved(&head, 4)).await.json()["reason"], "rolled_back");
    assert_eq!(purge("zz.1:3").await.json()["reason"], "stream_reset");
    assert_eq!(serials(&page(&rest, &[]).await), [3, 2, 1]);
}

#[tokio::test]
async fn only_the_holder_of_the_secret_purges() {
    let server = in_memory();
    let rest = server.rest();
    publish_numbers(&rest, "log-a", 1..=3).await;
    rest.delete(HISTORY).secret("wrong").send().await.refused(401);
    rest.delete(HISTORY).shifted(601).send().await.refused(401);
    rest.delete(HISTORY).wire_body(b"{}").send().await.refused(401);
    // Signed as a GET: the method is part of the signature.
    let read = rest.get(HISTORY);
    let signature = read.signature();
    let forged = rest.delete(HISTORY).wire_query(move |params, _| {
        format!("{}&auth_signature={signature}", crate::common::rest::join(params))
    });
    forged.send().await.refused(401);
    rest.delete("/apps/42/channels/log-a/history/state").send().await.refused(405);
    rest.delete("/apps/42/channels/log-a").send().await.refused(405);
    assert_eq!(serials(&page(&rest, &[]).await), [3, 2, 1]);
}

#[tokio::test]
async fn a_purged_message_is_not_published_again_by_a_retry() {
    on_each_store(async |server| {
        let rest = server.rest();
        rest.trigger(keyed("log-a", "1", "k")).await;
        assert_eq!(rest.delete(HISTORY).send().await.status, 200);
        assert_eq!(deduplicated(&rest.trigger(keyed("log-a", "1", "k")).await), Some("true"));
        assert_eq!(page(&rest, &[]).await["items"], json!([]));
    })
    .await;
}

#[tokio::test]
async fn what_was_purged_is_replayed_to_nobody() {
    on_each_store(async |server| {
        // Somebody is subscribed, so the end of the log is in memory as well.
        let mut subscribed = server.connect().await;
        subscribed.subscribe("log-a").await;
        let rest = server.rest();
        publish_numbers(&rest, "log-a", 1..=5).await;
        let head = position_of(&rest, "log-a").await;
        assert_eq!(rest.delete(HISTORY).send().await.status, 200);
        publish_numbers(&rest, "log-a", 6..=6).await;
        let resume = async |replay: serde_json::Value| {
            let mut client = server.connect().await;
            client.send_subscribe(json!({"channel": "log-a", "replay": replay})).await;
            let answer = client.succeeded("log-a").await;
            let pending = client.pending_events().await;
            let events = pending.into_iter().filter(|event| event.event == "e");
            (answer.frame["replay"].clone(), events.map(|event| event.data().to_owned()).collect::<Vec<_>>())
        };
        let (answer, events) = resume(json!({"v": 1, "from": moved(&head, 2)})).await;
        assert_eq!((&answer["recovered"], &answer["reason"]), (&json!(false), &json!("expired")), "{answer}");
        assert_eq!(events, [] as [&str; 0]);
        let (answer, events) = resume(json!({"v": 1, "from": head})).await;
        assert_eq!((&answer["recovered"], events), (&json!(true), vec!["6".to_owned()]), "{answer}");
        let (answer, events) = resume(json!({"v": 1, "rewind": {"count": 5}})).await;
        assert_eq!((&answer["recovered"], events), (&json!(true), vec!["6".to_owned()]), "{answer}");
    })
    .await;
}

#[tokio::test]
async fn what_was_purged_stays_away_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let head = {
        let server = on_disk(directory.path());
        publish_numbers(&server.rest(), "log-a", 1..=5).await;
        let head = position_of(&server.rest(), "log-a").await;
        let answer = server.rest().delete(HISTORY).query("before", &moved(&head, 4)).send().await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        head
    };
    let server = on_disk(directory.path());
    assert_eq!(serials(&page(&server.rest(), &[("direction", "forward")]).await), [4, 5]);
    assert_eq!(position_of(&server.rest(), "log-a").await, head);
}

#[tokio::test]
async fn purging_a_channel_that_nobody_used_does_nothing() {
    on_each_store(async |server| {
        let answer = server.rest().delete(HISTORY).send().await;
        assert_eq!((answer.status, &answer.json()["head"]), (200, &json!(0)));
        publish_numbers(&server.rest(), "log-a", 1..=1).await;
        assert_eq!(serials(&page(&server.rest(), &[]).await), [1]);
    })
    .await;
}

#[tokio::test]
async fn the_cached_event_goes_with_all_the_others() {
    let server = in_memory();
    let rest = server.rest();
    publish_numbers(&rest, "cache-log-a", 1..=2).await;
    let history = "/apps/42/channels/cache-log-a/history";
    let before = position_of(&rest, "cache-log-a").await;
    assert_eq!(rest.delete(history).query("before", &before).send().await.status, 200);
    let cached = rest.read("/channels/cache-log-a", &[("info", "cache")]).await["cache"].clone();
    assert_eq!(cached["data"], "2", "the newest was not purged");
    assert_eq!(rest.delete(history).send().await.status, 200);
    assert_eq!(rest.read("/channels/cache-log-a", &[("info", "cache")]).await["cache"], json!(null));
    let mut client = server.connect().await;
    client.subscribe("cache-log-a").await;
    client.expect("pusher:cache_miss").await;
}
