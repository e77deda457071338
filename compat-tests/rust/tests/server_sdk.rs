//! The community Rust server SDK, `pusher` 0.4.5, with only its host changed.
//!
//! It sends `"socket_id":null`, form-encodes its query and signs it unsorted.

mod common;

use common::{Subscriber, name, sdk, sdk_with_secret, with_channel};
use serde_json::json;

fn options(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[tokio::test]
async fn s160_s227_trigger_with_a_null_socket_id_is_delivered() {
    let channel = name("orders");
    let mut subscriber = Subscriber::on(&channel).await;
    let triggered = sdk().trigger(&channel, "order.paid", json!({ "id": 7, "note": "ü 🐎" })).await.unwrap();
    assert!(triggered.event_ids.is_none());
    let event = subscriber.expect("order.paid").await;
    assert_eq!(event["data"], json!({ "id": 7, "note": "ü 🐎" }).to_string());
}

#[tokio::test]
async fn s151_trigger_multi_reaches_each_channel() {
    let channels = [name("a"), name("b")];
    let mut subscribers = [Subscriber::on(&channels[0]).await, Subscriber::on(&channels[1]).await];
    sdk().trigger_multi(&[&channels[0], &channels[1]], "tick", "text").await.unwrap();
    for (subscriber, channel) in subscribers.iter_mut().zip(&channels) {
        let event = subscriber.expect("tick").await;
        assert_eq!((&event["channel"], &event["data"]), (&json!(channel), &json!("\"text\"")));
    }
}

#[tokio::test]
async fn s132_trigger_exclusive_skips_one_connection() {
    let channel = name("chat");
    let (mut author, mut reader) = (Subscriber::on(&channel).await, Subscriber::on(&channel).await);
    let sdk = sdk();
    sdk.trigger_exclusive(&channel, "said", "hi", &author.socket_id).await.unwrap();
    sdk.trigger_multi_exclusive(&[&channel], "said", "hi", &author.socket_id).await.unwrap();
    sdk.trigger(&channel, "marker", "").await.unwrap();
    author.expect("marker").await;
    reader.expect("said").await;
    reader.expect("said").await;
}

#[tokio::test]
async fn s144_s171_channels_with_a_form_encoded_query() {
    let stem = name("presence-a@x,y.z;q=1");
    let _members = [Subscriber::member(&stem, "u-1").await, Subscriber::member(&stem, "u-1").await];
    let found = sdk()
        .channels_with_options(options(&[
            ("filter_by_prefix", "presence-a@x,y.z;q=1"),
            ("info", "user_count"),
        ]))
        .await
        .unwrap();
    assert_eq!(found.channels[&stem].user_count, Some(1));
}

#[tokio::test]
async fn s170_channels_without_a_match_is_an_empty_object() {
    let found = sdk().channels_with_options(options(&[("filter_by_prefix", &name("nobody"))])).await.unwrap();
    assert!(found.channels.is_empty());
    sdk().channels().await.unwrap();
}

#[tokio::test]
async fn s175_channel_never_seen_is_not_occupied() {
    let channel = sdk().channel(&name("never")).await.unwrap();
    assert_eq!((channel.occupied, channel.user_count), (Some(false), None));
}

#[tokio::test]
async fn s148_channel_with_special_characters_and_user_count() {
    let channel = name("presence-a@x,y.z;q=1");
    let _member = Subscriber::member(&channel, "u-1").await;
    let info = sdk().channel_with_options(&channel, options(&[("info", "user_count")])).await.unwrap();
    assert_eq!((info.occupied, info.user_count), (Some(true), Some(1)));
}

#[tokio::test]
async fn s178_s179_channel_users_are_strings() {
    let channel = name("presence-a");
    assert!(sdk().channel_users(&channel).await.unwrap().users.is_empty());
    let _members = [Subscriber::member(&channel, "7").await, Subscriber::member(&channel, "7").await];
    let users = sdk().channel_users(&channel).await.unwrap().users;
    assert_eq!(users.iter().map(|user| user.id.as_str()).collect::<Vec<_>>(), ["7"]);
}

#[tokio::test]
async fn s057_a_token_for_a_private_channel_opens_it() {
    let channel = name("private-a");
    let mut subscriber = Subscriber::connect().await;
    let token = sdk().authenticate_private_channel(&channel, &subscriber.socket_id).unwrap();
    assert_eq!(subscriber.subscribe(with_channel(&token, &channel)).await, json!({}));
}

#[tokio::test]
async fn s077_a_null_user_info_is_null_for_the_others() {
    let channel = name("presence-a");
    let mut subscriber = Subscriber::connect().await;
    let member = pusher::Member { user_id: "u-1", user_info: None };
    let token = sdk().authenticate_presence_channel(&channel, &subscriber.socket_id, &member).unwrap();
    let success = subscriber.subscribe(with_channel(&token, &channel)).await;
    assert_eq!(success, json!({ "presence": { "count": 1, "ids": ["u-1"], "hash": { "u-1": null } } }));
}

#[tokio::test]
async fn s149_a_wrong_secret_is_an_error_that_shows_the_string_to_sign() {
    let error = sdk_with_secret("another-secret").trigger(&name("a"), "x", "").await.unwrap_err();
    assert!(error.starts_with("Error: 401") && error.contains(r"POST\n/apps/"), "{error}");
}

#[tokio::test]
async fn s176_a_refused_read_is_an_error_with_the_servers_text() {
    let error =
        sdk().channel_with_options(&name("news"), options(&[("info", "user_count")])).await.unwrap_err();
    assert!(error.starts_with("Error: 400"), "{error}");
}
