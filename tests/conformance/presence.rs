//! 9.4 Presence, as far as one node goes.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::common::{Client, Credentials, TestServer, Upgrade, eventually, member};

const ADDED: &str = "pusher_internal:member_added";
const REMOVED: &str = "pusher_internal:member_removed";

/// A connection that has joined as this user.
async fn joined(server: &TestServer, channel: &str, user_id: &str) -> Client {
    let mut client = server.connect().await;
    client.join(channel, user_id).await;
    client
}

/// The presence part of a success frame.
fn members(success: &crate::common::Event) -> Value {
    success.json()["presence"].clone()
}

#[tokio::test]
async fn s069_the_first_member_is_told_of_itself() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    let success = client.join("presence-lobby", "u-1").await;
    let expected = json!({"presence": {"count": 1, "ids": ["u-1"], "hash": {"u-1": {"name": "u-1"}}}});
    assert_eq!(success.json(), expected);
    client.assert_silent().await;
}

#[tokio::test]
async fn s069_a_newcomer_is_told_of_everyone() {
    let server = TestServer::start();
    let _ada = joined(&server, "presence-lobby", "ada").await;
    let _lin = joined(&server, "presence-lobby", "lin").await;
    let mut client = server.connect().await;
    let presence = members(&client.join("presence-lobby", "mo").await);
    assert_eq!(presence["count"], 3);
    assert_eq!(presence["hash"].as_object().unwrap().len(), 3);
    let mut ids: Vec<&str> = presence["ids"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["ada", "lin", "mo"]);
    for id in ids {
        assert_eq!(presence["hash"][id], json!({ "name": id }));
    }
}

#[tokio::test]
async fn s070_the_hash_is_an_object_even_for_ids_that_look_like_indexes() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    for (channel, channel_data) in [
        ("presence-a", r#"{"user_id":"0"}"#),
        ("presence-b", r#"{"user_id":0}"#),
        ("presence-c", r#"{"user_id":"u-1","user_info":{}}"#),
    ] {
        let presence = members(&client.join_with(channel, channel_data).await);
        assert!(presence["hash"].is_object(), "{presence}");
        assert!(presence["ids"].is_array(), "{presence}");
    }
}

#[tokio::test]
async fn s071_a_second_user_is_announced_to_the_first_only() {
    let server = TestServer::start();
    let mut first = joined(&server, "presence-lobby", "u-1").await;
    let mut second = joined(&server, "presence-lobby", "u-2").await;
    let added = first.expect(ADDED).await;
    assert_eq!(added.channel.as_deref(), Some("presence-lobby"));
    assert_eq!(added.json(), json!({"user_id": "u-2", "user_info": {"name": "u-2"}}));
    second.assert_silent().await;
    first.assert_silent().await;
}

#[tokio::test]
async fn s072_a_second_connection_of_a_user_is_announced_to_nobody() {
    let server = TestServer::start();
    let mut first = joined(&server, "presence-lobby", "u-1").await;
    let mut other = joined(&server, "presence-lobby", "u-2").await;
    first.expect(ADDED).await;
    let mut again = server.connect().await;
    let presence = members(&again.join("presence-lobby", "u-1").await);
    assert_eq!(presence["count"], 2);
    assert_eq!(presence["ids"].as_array().unwrap().len(), 2);
    again.sync().await;
    for client in [&mut first, &mut other, &mut again] {
        client.assert_silent().await;
    }
}

#[tokio::test]
async fn s073_a_user_is_gone_with_its_last_connection() {
    let server = TestServer::start();
    let mut watcher = joined(&server, "presence-lobby", "watcher").await;
    let mut first = joined(&server, "presence-lobby", "u-1").await;
    let second = joined(&server, "presence-lobby", "u-1").await;
    watcher.expect(ADDED).await;

    first.unsubscribe("presence-lobby").await;
    watcher.assert_silent().await;
    second.close().await;
    let removed = watcher.expect(REMOVED).await;
    assert_eq!(removed.channel.as_deref(), Some("presence-lobby"));
    assert_eq!(removed.json(), json!({"user_id": "u-1"}));
    watcher.assert_silent().await;
    first.assert_silent().await;
}

#[tokio::test]
async fn s073_a_leave_by_unsubscribe_is_announced_too() {
    let server = TestServer::start();
    let mut watcher = joined(&server, "presence-lobby", "watcher").await;
    let mut client = joined(&server, "presence-lobby", "u-1").await;
    watcher.expect(ADDED).await;
    client.unsubscribe("presence-lobby").await;
    assert_eq!(watcher.expect(REMOVED).await.json(), json!({"user_id": "u-1"}));
    client.assert_silent().await;
}

#[tokio::test]
async fn s074_a_reset_connection_leaves_like_a_closed_one() {
    let server = TestServer::start();
    let mut watcher = joined(&server, "presence-lobby", "watcher").await;
    let client = joined(&server, "presence-lobby", "u-1").await;
    watcher.expect(ADDED).await;
    client.reset();
    assert_eq!(watcher.expect(REMOVED).await.json(), json!({"user_id": "u-1"}));
}

#[tokio::test]
async fn s074_a_vanished_connection_leaves_once_its_probe_stays_unanswered() {
    let server = TestServer::start();
    let mut watcher = joined(&server, "presence-lobby", "watcher").await;
    // Still open as far as TCP knows, but nobody reads or answers.
    let mut vanished = joined(&server, "presence-lobby", "u-1").await;
    watcher.expect(ADDED).await;
    vanished.answers_pings = false;
    server.advance(121);
    vanished.next_frame().await;
    watcher.sync().await;
    server.advance(31);
    assert_eq!(watcher.expect(REMOVED).await.json(), json!({"user_id": "u-1"}));
}

#[tokio::test]
async fn s076_a_numeric_user_id_is_the_same_member_as_its_text() {
    let server = TestServer::start();
    let mut watcher = joined(&server, "presence-lobby", "watcher").await;
    let mut number = server.connect().await;
    let presence = members(&number.join_with("presence-lobby", r#"{"user_id":7,"user_info":{}}"#).await);
    assert!(presence["ids"].as_array().unwrap().contains(&json!("7")), "{presence}");
    assert_eq!(presence["hash"]["7"], json!({}));
    assert_eq!(watcher.expect(ADDED).await.json()["user_id"], json!("7"));

    let mut text = server.connect().await;
    let presence = members(&text.join_with("presence-lobby", r#"{"user_id":"7","user_info":{}}"#).await);
    assert_eq!(presence["count"], 2);
    watcher.assert_silent().await;
    number.unsubscribe("presence-lobby").await;
    watcher.assert_silent().await;
    text.unsubscribe("presence-lobby").await;
    assert_eq!(watcher.expect(REMOVED).await.json(), json!({"user_id": "7"}));
}

#[tokio::test]
async fn s076_users_are_read_back_with_text_ids() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    client.join_with("presence-lobby", r#"{"user_id":12345678901234567890}"#).await;
    let users = server.rest().read("/channels/presence-lobby/users", &[]).await;
    assert_eq!(users, json!({"users": [{"id": "12345678901234567890"}]}));
}

#[tokio::test]
async fn s077_a_member_without_info_is_listed_with_null() {
    let server = TestServer::start();
    let mut watcher = joined(&server, "presence-lobby", "watcher").await;
    let mut client = server.connect().await;
    let presence = members(&client.join_with("presence-lobby", r#"{"user_id":"u-1"}"#).await);
    assert_eq!(presence["hash"].get("u-1"), Some(&Value::Null));
    let added = watcher.expect(ADDED).await.json();
    assert_eq!(added["user_id"], "u-1");
    assert_eq!(added.get("user_info").unwrap_or(&Value::Null), &Value::Null);
}

#[tokio::test]
async fn s078_channel_data_without_an_identity_is_refused() {
    let server = TestServer::start();
    let mut watcher = joined(&server, "presence-lobby", "watcher").await;
    let mut client = server.connect().await;
    for channel_data in [
        "not json",
        "{}",
        "[]",
        "null",
        "5",
        r#""u-1""#,
        r#"{"user_info":{}}"#,
        r#"{"user_id":""}"#,
        r#"{"user_id":null}"#,
        r#"{"user_id":{}}"#,
        r#"{"user_id":["u-1"]}"#,
        r#"{"user_id":"u-1""#,
    ] {
        client.request("presence-lobby", Some(channel_data)).await;
        client.expect_refusal().await;
    }
    watcher.assert_silent().await;
    let users = server.rest().read("/channels/presence-lobby/users", &[]).await;
    assert_eq!(users, json!({"users": [{"id": "watcher"}]}));
}

#[tokio::test]
async fn s079_a_signature_over_reordered_channel_data_is_refused() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    let signed = r#"{"user_id":"u-1","user_info":{}}"#;
    let auth = client.auth("presence-lobby", Some(signed));
    for sent in [r#"{"user_info":{},"user_id":"u-1"}"#, r#"{"user_id": "u-1","user_info":{}}"#] {
        client.send_subscribe(json!({"channel": "presence-lobby", "auth": auth, "channel_data": sent})).await;
        client.expect_refusal().await;
    }
    client.send_subscribe(json!({"channel": "presence-lobby", "auth": auth, "channel_data": signed})).await;
    client.succeeded("presence-lobby").await;
}

#[tokio::test]
async fn s080_a_user_id_has_at_most_128_characters() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    client.join("presence-a", &"u".repeat(128)).await;
    client.request("presence-b", Some(&member(&"u".repeat(129)))).await;
    client.expect_refusal().await;
    client.join("presence-b", &"ü".repeat(128)).await;
}

#[tokio::test]
async fn s080_user_info_has_at_most_1024_bytes() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    let with_info = |bytes: usize| {
        let info = format!(r#"{{"n":"{}"}}"#, "x".repeat(bytes - 8));
        assert_eq!(info.len(), bytes);
        format!(r#"{{"user_id":"u-1","user_info":{info}}}"#)
    };
    client.join_with("presence-a", &with_info(1024)).await;
    client.request("presence-b", Some(&with_info(1025))).await;
    client.expect_refusal().await;
}

/// A channel with users `u-0` … `u-99`.
async fn full_channel(server: &TestServer) -> Vec<Client> {
    let mut clients = Vec::with_capacity(100);
    for number in 0..100 {
        clients.push(joined(server, "presence-lobby", &format!("u-{number}")).await);
    }
    clients[0].pending_events().await;
    clients
}

#[tokio::test]
async fn s081_the_101st_user_is_refused_by_name_of_the_limit() {
    let server = TestServer::start();
    let mut clients = full_channel(&server).await;
    let mut late = server.connect().await;
    late.request("presence-lobby", Some(&member("u-100"))).await;
    let message = late.expect_refusal().await;
    assert!(message.contains("100"), "{message}");
    clients[0].assert_silent().await;
    let info = server.rest().read("/channels/presence-lobby", &[("info", "user_count")]).await;
    assert_eq!(info["user_count"], 100);

    clients[99].unsubscribe("presence-lobby").await;
    clients[0].expect(REMOVED).await;
    late.join("presence-lobby", "u-100").await;
}

#[tokio::test]
async fn s082_a_full_channel_admits_another_connection_of_a_member() {
    let server = TestServer::start();
    let mut clients = full_channel(&server).await;
    let mut again = server.connect().await;
    let presence = members(&again.join("presence-lobby", "u-7").await);
    assert_eq!(presence["count"], 100);
    clients[0].assert_silent().await;
}

#[tokio::test]
async fn s083_the_newest_info_of_a_user_is_what_newcomers_see() {
    let server = TestServer::start();
    let mut watcher = joined(&server, "presence-lobby", "watcher").await;
    let (mut first, mut second, mut late) =
        (server.connect().await, server.connect().await, server.connect().await);
    first.join_with("presence-lobby", r#"{"user_id":"u-1","user_info":{"status":"away"}}"#).await;
    watcher.expect(ADDED).await;
    let success =
        second.join_with("presence-lobby", r#"{"user_id":"u-1","user_info":{"status":"back"}}"#).await;
    assert_eq!(members(&success)["hash"]["u-1"], json!({"status": "back"}));
    second.sync().await;
    watcher.assert_silent().await;
    first.assert_silent().await;
    let presence = members(&late.join("presence-lobby", "u-2").await);
    assert_eq!(presence["hash"]["u-1"], json!({"status": "back"}));
}

#[tokio::test]
async fn s084_a_presence_channel_without_auth_is_refused() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    for auth in [Value::Null, json!("")] {
        let data = json!({"channel": "presence-lobby", "auth": auth, "channel_data": member("u-1")});
        client.send_subscribe(data).await;
        client.expect_refusal().await;
    }
    client.send_subscribe(json!({"channel": "presence-lobby", "channel_data": member("u-1")})).await;
    client.expect_refusal().await;
}

#[tokio::test]
async fn s085_a_signed_in_user_joins_without_channel_data() {
    let server = TestServer::start();
    let mut watcher = joined(&server, "presence-lobby", "watcher").await;
    let mut client = server.connect().await;
    client.sign_in(r#"{"id":"u-1","user_info":{"name":"Ada"}}"#).await;
    let presence = members(&client.subscribe("presence-lobby").await);
    assert_eq!(presence["hash"]["u-1"], json!({"name": "Ada"}));
    let added = watcher.expect(ADDED).await.json();
    assert_eq!(added, json!({"user_id": "u-1", "user_info": {"name": "Ada"}}));
}

#[tokio::test]
async fn s085_channel_data_wins_over_the_signed_in_user() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    client.sign_in(r#"{"id":"u-1","user_info":{"name":"Ada"}}"#).await;
    let presence = members(&client.join("presence-lobby", "u-2").await);
    assert_eq!(presence["ids"], json!(["u-2"]));
}

#[tokio::test]
async fn s085_without_sign_in_channel_data_is_required() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    client.request("presence-lobby", None).await;
    client.expect_refusal().await;
    let auth = client.auth("presence-lobby", None);
    let data = json!({"channel": "presence-lobby", "auth": auth, "channel_data": null});
    client.send_subscribe(data).await;
    client.expect_refusal().await;
    assert_eq!(server.rest().read("/channels", &[]).await, json!({"channels": {}}));
}

#[tokio::test]
async fn s086_user_info_of_any_type_is_accepted_by_default() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    for (number, info) in ["true", "7", r#""text""#, "[1,2]", "null"].into_iter().enumerate() {
        let channel = format!("presence-{number}");
        let channel_data = format!(r#"{{"user_id":"u-1","user_info":{info}}}"#);
        let presence = members(&client.join_with(&channel, &channel_data).await);
        assert_eq!(presence["hash"]["u-1"], serde_json::from_str::<Value>(info).unwrap());
    }
}

#[tokio::test]
async fn s086_a_strict_app_refuses_user_info_that_is_no_object() {
    let server = TestServer::with(|app| app.strict_user_info = true);
    let mut client = server.connect().await;
    for info in ["true", "7", r#""text""#, "[1,2]"] {
        client.request("presence-a", Some(&format!(r#"{{"user_id":"u-1","user_info":{info}}}"#))).await;
        let message = client.expect_refusal().await;
        assert!(message.contains("user_info"), "{message}");
    }
    client.join_with("presence-a", r#"{"user_id":"u-1","user_info":{}}"#).await;
    client.join_with("presence-b", r#"{"user_id":"u-1"}"#).await;
}

#[tokio::test]
async fn a_list_kept_by_its_frames_equals_the_servers_after_any_coming_and_going() {
    let server = TestServer::start();
    let busy: Vec<_> = (0..6)
        .map(|number| {
            let (addr, rest) = (server.addr(), server.rest());
            tokio::spawn(async move {
                // Pairs of connections share a user.
                let user = format!("u-{}", number / 2);
                for round in 0..30 {
                    let upgrade = Upgrade::get("/app/tw-demo-key?protocol=7");
                    let mut client = Client::greeted(upgrade.send(addr).await.upgraded(), rest.clone()).await;
                    client.join("presence-lobby", &user).await;
                    match (round + number) % 3 {
                        0 => client.unsubscribe("presence-lobby").await,
                        1 => client.reset(),
                        _ => client.close().await,
                    }
                }
            })
        })
        .collect();
    let mut watcher = server.connect().await;
    let success = watcher.join("presence-lobby", "watcher").await;
    let mut present: BTreeSet<String> = serde_json::from_value(members(&success)["ids"].clone()).unwrap();
    for task in busy {
        task.await.unwrap();
    }
    eventually("everybody else to be gone", async || {
        let users = server.rest().read("/channels/presence-lobby/users", &[]).await;
        users == json!({"users": [{"id": "watcher"}]})
    })
    .await;
    for event in watcher.pending_events().await {
        let user = event.json()["user_id"].as_str().unwrap().to_owned();
        let is_change = match event.event.as_str() {
            ADDED => present.insert(user),
            REMOVED => present.remove(&user),
            other => panic!("{other} while people come and go"),
        };
        assert!(is_change, "{event:?} changes nothing of {present:?}");
    }
    assert_eq!(present, BTreeSet::from(["watcher".to_owned()]));
}

#[tokio::test]
async fn the_same_user_on_another_app_is_another_member() {
    let server = TestServer::with_config(|config| {
        config.apps.push(tidewire::config::AppConfig::new("43", "other-key", "other-secret"));
    });
    let mut ours = joined(&server, "presence-lobby", "u-1").await;
    let socket = server.upgrade("/app/other-key?protocol=7").await.upgraded();
    let mut theirs = Client::greeted(socket, server.rest_as("other-key", "other-secret")).await;
    theirs.credentials = Credentials::new("other-key", "other-secret");
    let presence = members(&theirs.join("presence-lobby", "u-2").await);
    assert_eq!(presence["ids"], json!(["u-2"]));
    ours.assert_silent().await;
    theirs.close().await;
    eventually("one member on app 42", async || {
        let users = server.rest().read("/channels/presence-lobby/users", &[]).await;
        users == json!({"users": [{"id": "u-1"}]})
    })
    .await;
}
