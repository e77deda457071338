//! `info=position`: where a channel's log stands.

use serde_json::json;

use super::{data_of, in_memory, moved, on_disk, on_each_store, page, position_of, publish_numbers};

#[tokio::test]
async fn a_trigger_tells_where_its_message_stands() {
    on_each_store(async |server| {
        let rest = server.rest();
        let body =
            json!({"name": "e", "data": "1", "channels": ["log-a", "plain", "log-b"], "info": "position"});
        let first = rest.trigger(body.clone()).await.json();
        let at = |channel: &str| first["channels"][channel]["position"].as_str().unwrap().to_owned();
        assert!(at("log-a").ends_with(":1") && at("log-b").ends_with(":1"), "{first}");
        assert_eq!(first["channels"]["plain"], json!({}));
        let second = rest.trigger(body).await.json();
        assert_eq!(second["channels"]["log-b"]["position"], moved(&at("log-b"), 2));
    })
    .await;
}

#[tokio::test]
async fn without_info_the_answer_stays_empty() {
    let server = in_memory();
    let answer = server.rest().trigger(json!({"name": "e", "data": "1", "channels": ["log-a"]})).await;
    assert_eq!(answer.body, "{}");
}

#[tokio::test]
async fn position_goes_with_other_attributes() {
    let server = in_memory();
    let mut client = server.connect().await;
    client.join("presence-log-a", "u-1").await;
    let rest = server.rest();
    let info = "user_count,position";
    let body = json!({"name": "e", "data": "1", "channels": ["presence-log-a"], "info": info});
    let answer = rest.trigger(body).await.json();
    let channel = &answer["channels"]["presence-log-a"];
    assert_eq!(channel["user_count"], 1);
    let read = rest.read("/channels/presence-log-a", &[("info", info)]).await;
    assert_eq!(read, json!({"occupied": true, "user_count": 1, "position": channel["position"]}));
}

#[tokio::test]
async fn a_channel_tells_its_position_before_and_after_its_first_message() {
    on_each_store(async |server| {
        let rest = server.rest();
        let before = position_of(&rest, "log-a").await;
        assert!(before.ends_with(":0"), "{before}");
        publish_numbers(&rest, "log-a", 1..=3).await;
        assert_eq!(position_of(&rest, "log-a").await, moved(&before, 3));
        // A backend reads the position, renders the state, and hands the position on: nothing is missed.
        let page = page(&rest, &[("direction", "forward"), ("from", &before)]).await;
        assert_eq!(data_of(&page), ["1", "2", "3"]);
    })
    .await;
}

#[tokio::test]
async fn a_channel_that_is_not_stored_has_none() {
    let server = in_memory();
    let answer = server.rest().read("/channels/plain", &[("info", "position")]).await;
    assert_eq!(answer, json!({"occupied": false}));
    let server = crate::common::TestServer::start();
    let answer = server.rest().read("/channels/log-a", &[("info", "position")]).await;
    assert_eq!(answer, json!({"occupied": false}));
}

#[tokio::test]
async fn the_list_of_channels_tells_no_positions() {
    let server = in_memory();
    let request = server.rest().get("/apps/42/channels").query("info", "position");
    let text = request.send().await.refused(400);
    assert!(text.contains("position is only told of a single channel"), "{text}");
}

#[tokio::test]
async fn an_event_for_100_channels_has_100_positions() {
    let server = in_memory();
    let channels: Vec<String> = (0..100).map(|number| format!("log-{number}")).collect();
    let body = json!({"name": "e", "data": "1", "channels": channels, "info": "position"});
    let answer = server.rest().trigger(body).await.json();
    let told = answer["channels"].as_object().unwrap();
    assert_eq!(told.len(), 100);
    assert!(told.values().all(|channel| channel["position"].as_str().unwrap().ends_with(":1")));
}

#[tokio::test]
async fn positions_go_on_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let before = {
        let server = on_disk(directory.path());
        publish_numbers(&server.rest(), "log-a", 1..=3).await;
        position_of(&server.rest(), "log-a").await
    };
    let server = on_disk(directory.path());
    assert_eq!(position_of(&server.rest(), "log-a").await, before);
    publish_numbers(&server.rest(), "log-a", 4..=5).await;
    let page = page(&server.rest(), &[("direction", "forward"), ("from", &before)]).await;
    assert_eq!(data_of(&page), ["4", "5"]);
    let all = super::kept(&server.rest()).await;
    assert_eq!(all, ["1", "2", "3", "4", "5"]);
}
