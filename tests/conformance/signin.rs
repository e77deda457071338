//! 9.7 Sign-in, the user channel, the watch-list.

use serde_json::json;

use crate::common::{Client, Credentials, TestServer};

const WATCHLIST: &str = "pusher_internal:watchlist_events";

/// A connection signed in as this user.
async fn user(server: &TestServer, id: &str) -> Client {
    let mut client = server.connect().await;
    client.sign_in(&json!({ "id": id }).to_string()).await;
    client
}

/// A connection that watches these users; its first report has been read.
async fn watcher(server: &TestServer, watched: &[&str]) -> Client {
    let mut client = server.connect().await;
    client.sign_in(&json!({"id": "watcher", "watchlist": watched}).to_string()).await;
    client.expect(WATCHLIST).await;
    client
}

#[tokio::test]
async fn s116_a_sign_in_is_acknowledged_with_the_same_bytes() {
    let server = TestServer::start();
    for user_data in [
        r#"{"id":"u-1"}"#,
        r#"{ "user_info" : {"name":"Ä😀","q":"\"\u00e4\\"}, "id":"u-1", "free": [1, 2.50] }"#,
        r#"{"id":"a@b,c;d=e.f_g-h"}"#,
    ] {
        let mut client = server.connect().await;
        let success = client.sign_in(user_data).await;
        assert!(success.channel.is_none());
        assert_eq!(success.json(), json!({ "user_data": user_data }));
    }
}

#[tokio::test]
async fn s117_a_wrong_signature_signs_nobody_in() {
    let server = TestServer::start();
    let user_data = r#"{"id":"u-1"}"#;
    let ours = Credentials::default();
    let mut client = server.connect().await;
    let right = ours.user_auth(&client.socket_id, user_data);
    for auth in [
        "tw-demo-key:00".to_owned(),
        "nocolon".to_owned(),
        String::new(),
        right.replace("tw-demo-key", "other-key"),
        right.replace("tw-demo-key:", "tw-demo-key::user::"),
        ours.user_auth("1234.5678", user_data),
        ours.user_auth(&client.socket_id, r#"{"id":"u-2"}"#),
        Credentials::new("tw-demo-key", "wrong").user_auth(&client.socket_id, user_data),
        ours.channel_auth(&client.socket_id, user_data, None),
    ] {
        client.send(json!({"event": "pusher:signin", "data": {"auth": auth, "user_data": user_data}})).await;
        client.expect_refusal().await;
        client.request("#server-to-user-u-1", None).await;
        client.expect_refusal().await;
    }
    client.sign_in(user_data).await;
}

#[tokio::test]
async fn s118_user_data_without_a_usable_id_is_refused() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    for user_data in [
        "not json",
        "{}",
        "[]",
        "null",
        r#""u-1""#,
        r#"{"id":""}"#,
        r#"{"id":7}"#,
        r#"{"id":null}"#,
        r#"{"id":{}}"#,
        r#"{"user_id":"u-1"}"#,
        r#"{"id":"u-1""#,
    ] {
        client.send_signin(user_data).await;
        client.expect_refusal().await;
    }
    client.sign_in(r#"{"id":"u-1"}"#).await;
}

#[tokio::test]
async fn s119_a_missing_parameter_is_named() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    let auth = client.credentials.user_auth(&client.socket_id, "");
    for data in [json!({"auth": auth}), json!({"auth": auth, "user_data": null})] {
        client.send(json!({"event": "pusher:signin", "data": data})).await;
        let message = client.expect_refusal().await;
        assert!(message.starts_with("Missing parameter: data.user"), "{message}");
    }
    for data in [json!({"user_data": r#"{"id":"u-1"}"#}), json!({}), json!({"auth": 5, "user_data": 5})] {
        client.send(json!({"event": "pusher:signin", "data": data})).await;
        client.expect_refusal().await;
    }
    client.send(json!({"event": "pusher:signin"})).await;
    client.expect_refusal().await;
}

#[tokio::test]
async fn s120_a_signed_in_user_subscribes_to_its_own_channel() {
    let server = TestServer::start();
    let mut client = user(&server, "u-1").await;
    client.send_subscribe(json!({"auth": "", "channel": "#server-to-user-u-1"})).await;
    assert_eq!(client.succeeded("#server-to-user-u-1").await.frame["data"], json!("{}"));
}

#[tokio::test]
async fn s121_nobody_else_may_subscribe_to_a_users_channel() {
    let server = TestServer::start();
    let mut other = user(&server, "u-1").await;
    let mut anonymous = server.connect().await;
    for (client, channel) in [(&mut other, "#server-to-user-u-2"), (&mut anonymous, "#server-to-user-u-1")] {
        client.send_subscribe(json!({"auth": "", "channel": channel})).await;
        client.expect_refusal().await;
        let auth = client.auth(channel, None);
        client.send_subscribe(json!({"auth": auth, "channel": channel})).await;
        client.expect_refusal().await;
        server.rest().publish(channel, "secret", "1").await;
        client.assert_silent().await;
    }
}

#[tokio::test]
async fn s122_an_event_for_a_user_reaches_all_its_connections() {
    let server = TestServer::start();
    let mut connections =
        [user(&server, "u-1").await, user(&server, "u-1").await, user(&server, "u-1").await];
    let mut stranger = user(&server, "u-2").await;
    stranger.subscribe("#server-to-user-u-2").await;
    for client in &mut connections {
        client.subscribe("#server-to-user-u-1").await;
    }
    server.rest().publish("#server-to-user-u-1", "notice", r#"{"a":1}"#).await;
    for client in &mut connections {
        let event = client.next_event().await;
        let expected = json!({"event": "notice", "channel": "#server-to-user-u-1", "data": "{\"a\":1}"});
        assert_eq!(event.frame, expected);
    }
    stranger.assert_silent().await;
}

#[tokio::test]
async fn s123_a_second_sign_in_must_name_the_same_user() {
    let server = TestServer::start();
    let mut client = user(&server, "u-1").await;
    client.subscribe("#server-to-user-u-1").await;
    client.sign_in(r#"{"id":"u-1","user_info":{"name":"again"}}"#).await;
    client.send_signin(r#"{"id":"u-2"}"#).await;
    client.expect_refusal().await;
    client.request("#server-to-user-u-2", None).await;
    client.expect_refusal().await;
    server.rest().publish("#server-to-user-u-1", "notice", "1").await;
    client.expect_event("notice", "#server-to-user-u-1", "1").await;
    client.assert_silent().await;
}

#[tokio::test]
async fn s123_a_second_sign_in_replaces_the_watch_list() {
    let server = TestServer::start();
    let mut client = watcher(&server, &["u-2"]).await;
    client.sign_in(r#"{"id":"watcher","watchlist":["u-3"]}"#).await;
    let report = client.expect(WATCHLIST).await.json();
    assert_eq!(report, json!({"events": [{"name": "offline", "user_ids": ["u-3"]}]}));
    let _ignored = user(&server, "u-2").await;
    let _watched = user(&server, "u-3").await;
    let report = client.expect(WATCHLIST).await.json();
    assert_eq!(report, json!({"events": [{"name": "online", "user_ids": ["u-3"]}]}));
    client.assert_silent().await;
}

#[tokio::test]
async fn s124_the_state_of_watched_users_follows_the_sign_in() {
    let server = TestServer::start();
    let _online = user(&server, "u-2").await;
    let mut client = server.connect().await;
    client.sign_in(r#"{"id":"u-1","watchlist":["u-2"]}"#).await;
    let report = client.next_event().await;
    let expected =
        json!({"event": WATCHLIST, "data": "{\"events\":[{\"name\":\"online\",\"user_ids\":[\"u-2\"]}]}"});
    assert_eq!(report.frame, expected);
    client.assert_silent().await;
}

#[tokio::test]
async fn s124_online_and_offline_users_are_reported_in_one_frame() {
    let server = TestServer::start();
    let _online = user(&server, "u-2").await;
    let mut client = server.connect().await;
    client.sign_in(r#"{"id":"u-1","watchlist":["u-5","u-2","u-9"]}"#).await;
    let report = client.expect(WATCHLIST).await.json();
    let mut seen: Vec<(String, Vec<String>)> = Vec::new();
    for item in report["events"].as_array().unwrap() {
        let mut ids: Vec<String> =
            item["user_ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect();
        ids.sort();
        seen.push((item["name"].as_str().unwrap().to_owned(), ids));
    }
    seen.sort();
    let expected = [
        ("offline".to_owned(), vec!["u-5".to_owned(), "u-9".to_owned()]),
        ("online".to_owned(), vec!["u-2".to_owned()]),
    ];
    assert_eq!(seen, expected);
    client.assert_silent().await;
}

#[tokio::test]
async fn s125_a_watcher_hears_of_the_first_and_the_last_connection() {
    let server = TestServer::start();
    let mut client = watcher(&server, &["u-2"]).await;
    let change = |name: &str| json!({"events": [{"name": name, "user_ids": ["u-2"]}]});

    let first = user(&server, "u-2").await;
    assert_eq!(client.expect(WATCHLIST).await.json(), change("online"));
    let second = user(&server, "u-2").await;
    client.assert_silent().await;
    first.close().await;
    client.assert_silent().await;
    second.reset();
    assert_eq!(client.expect(WATCHLIST).await.json(), change("offline"));
    client.assert_silent().await;
}

#[tokio::test]
async fn s126_a_watch_list_is_cut_after_100_ids() {
    let server = TestServer::start();
    let ids: Vec<String> = (0..101).map(|number| format!("w-{number}")).collect();
    let mut client = server.connect().await;
    client.sign_in(&json!({"id": "u-1", "watchlist": ids}).to_string()).await;
    let mut reported = 0;
    for _ in 0..2 {
        // The order of these two is not written down.
        let event = client.next_event().await;
        if event.event == WATCHLIST {
            reported = event.json()["events"][0]["user_ids"].as_array().unwrap().len();
        } else {
            crate::common::error_message(&event, Some(4302));
        }
    }
    assert_eq!(reported, 100);
    let _unwatched = user(&server, "w-100").await;
    client.assert_silent().await;
    let _watched = user(&server, "w-99").await;
    assert_eq!(client.expect(WATCHLIST).await.json()["events"][0]["user_ids"], json!(["w-99"]));
}

#[tokio::test]
async fn s126_a_watch_list_of_100_ids_is_whole() {
    let server = TestServer::start();
    let ids: Vec<String> = (0..100).map(|number| format!("w-{number}")).collect();
    let mut client = server.connect().await;
    client.sign_in(&json!({"id": "u-1", "watchlist": ids}).to_string()).await;
    assert_eq!(client.expect(WATCHLIST).await.json()["events"][0]["user_ids"], json!(ids));
    client.assert_silent().await;
}

#[tokio::test]
async fn s127_without_the_feature_there_are_no_watch_list_frames() {
    let server = TestServer::with(|app| app.watchlist = false);
    let mut client = server.connect().await;
    client.sign_in(r#"{"id":"u-1","watchlist":["u-2"]}"#).await;
    let other = user(&server, "u-2").await;
    client.assert_silent().await;
    other.close().await;
    client.assert_silent().await;
}

#[tokio::test]
async fn s127_without_a_watch_list_there_are_no_watch_list_frames() {
    let server = TestServer::start();
    for user_data in [r#"{"id":"u-1"}"#, r#"{"id":"u-1","watchlist":null}"#] {
        let mut client = server.connect().await;
        client.sign_in(user_data).await;
        client.assert_silent().await;
    }
}

#[tokio::test]
async fn s128_a_connection_that_never_authorises_is_closed_with_4009() {
    let server = TestServer::with(|app| app.authorized_connections = true);
    let (mut idle, mut public) = (server.connect().await, server.connect().await);
    let (mut private, mut member) = (server.connect().await, server.connect().await);
    let mut signed_in = server.connect().await;
    public.subscribe("news").await;
    private.subscribe("private-a").await;
    member.join("presence-a", "u-1").await;
    signed_in.sign_in(r#"{"id":"u-1"}"#).await;
    let mut refused = server.connect().await;
    refused.send_subscribe(json!({"channel": "private-a", "auth": "tw-demo-key:00"})).await;
    refused.expect_refusal().await;

    server.advance(31);
    for client in [&mut idle, &mut public, &mut refused] {
        let message = client.expect_error(Some(4009)).await;
        assert!(message.contains("not authorized within timeout"), "{message}");
        client.expect_close(4009).await;
    }
    for client in [&mut private, &mut member, &mut signed_in] {
        client.assert_silent().await;
    }
}

#[tokio::test]
async fn s128_the_time_out_is_off_by_default_and_configurable() {
    let server = TestServer::start();
    let mut idle = server.connect().await;
    server.advance(60);
    idle.assert_silent().await;

    let server = TestServer::with(|app| {
        app.authorized_connections = true;
        app.limits.authorization_timeout_seconds = 5;
    });
    let mut idle = server.connect().await;
    server.advance(6);
    idle.expect_error(Some(4009)).await;
    idle.expect_close(4009).await;
}

#[tokio::test]
async fn s123_a_user_that_reconnects_may_sign_in_as_somebody_else() {
    let server = TestServer::start();
    let client = user(&server, "u-1").await;
    client.close().await;
    let mut client = user(&server, "u-2").await;
    client.subscribe("#server-to-user-u-2").await;
    client.assert_silent().await;
}
