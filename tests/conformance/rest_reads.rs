//! 9.10 REST endpoints that read, terminate users, or are there for old clients.

use serde_json::{Value, json};

use crate::common::{Client, HttpConnection, TestServer, eventually};

async fn subscribed(server: &TestServer, channel: &str) -> Client {
    let mut client = server.connect().await;
    client.subscribe(channel).await;
    client
}

#[tokio::test]
async fn s170_without_occupied_channels_the_list_is_an_empty_object() {
    let server = TestServer::start();
    let answer = server.rest().get("/apps/42/channels").send().await;
    assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"channels":{}}"#));
}

#[tokio::test]
async fn s171_presence_channels_are_listed_with_their_user_counts() {
    let server = TestServer::start();
    let mut clients = Vec::new();
    for (channel, user) in [("presence-lobby", "u-1"), ("presence-lobby", "u-2"), ("presence-ops", "u-1")] {
        let mut client = server.connect().await;
        client.join(channel, user).await;
        client.subscribe("news").await;
        clients.push(client);
    }
    clients[0].expect("pusher_internal:member_added").await;
    clients[0].sign_in(r#"{"id":"u-1"}"#).await;
    clients[0].subscribe("#server-to-user-u-1").await;
    let query = [("filter_by_prefix", "presence-"), ("info", "user_count")];
    let expected =
        json!({"channels": {"presence-lobby": {"user_count": 2}, "presence-ops": {"user_count": 1}}});
    assert_eq!(server.rest().read("/channels", &query).await, expected);
    let expected = json!({"channels": {"presence-ops": {"user_count": 1}}});
    let query = [("filter_by_prefix", "presence-o"), ("info", "user_count")];
    assert_eq!(server.rest().read("/channels", &query).await, expected);
    let expected = json!({"channels": {"presence-lobby": {}, "presence-ops": {}, "news": {}}});
    assert_eq!(server.rest().read("/channels", &[]).await, expected);
}

#[tokio::test]
async fn s172_a_user_count_of_a_list_needs_a_presence_prefix() {
    let server = TestServer::start();
    server.rest().get("/apps/42/channels").query("info", "user_count").send().await.refused(400);
    for prefix in ["", "news", "private-", "presence", "x-presence-"] {
        let request = server.rest().get("/apps/42/channels").query("info", "user_count");
        request.query("filter_by_prefix", prefix).send().await.refused(400);
    }
}

#[tokio::test]
async fn s173_an_unknown_attribute_is_refused_in_known_words() {
    let server = TestServer::start();
    for info in ["nonsense", "user_count,nonsense"] {
        for path in ["/apps/42/channels", "/apps/42/channels/presence-a"] {
            let request = server.rest().get(path).query("filter_by_prefix", "presence-").query("info", info);
            let text = request.send().await.refused(400);
            assert!(text.contains("info should be a comma separated list of attributes"), "{text}");
        }
    }
}

#[tokio::test]
async fn s174_a_channel_leaves_the_list_with_its_last_subscriber() {
    let server = TestServer::start();
    let mut first = subscribed(&server, "news").await;
    let second = subscribed(&server, "news").await;
    first.unsubscribe("news").await;
    assert_eq!(server.rest().read("/channels", &[]).await, json!({"channels": {"news": {}}}));
    second.close().await;
    eventually("the channel to vanish", async || {
        server.rest().read("/channels", &[]).await == json!({"channels": {}})
    })
    .await;
}

#[tokio::test]
async fn s175_a_channel_never_seen_is_not_occupied() {
    let server = TestServer::start();
    let answer = server.rest().get("/apps/42/channels/never-seen").send().await;
    assert_eq!((answer.status, answer.json()), (200, json!({"occupied": false})));
    let _reader = subscribed(&server, "news").await;
    assert_eq!(server.rest().read("/channels/news", &[]).await, json!({"occupied": true}));
}

#[tokio::test]
async fn s176_a_user_count_needs_a_presence_channel() {
    let server = TestServer::start();
    for channel in ["news", "private-a", "cache-a"] {
        let request = server.rest().get(&format!("/apps/42/channels/{channel}")).query("info", "user_count");
        let text = request.send().await.refused(400);
        assert!(text.contains("presence channel"), "{text}");
    }
    let info = server.rest().read("/channels/presence-a", &[("info", "user_count")]).await;
    assert_eq!(info["occupied"], false);
}

#[tokio::test]
async fn s176_a_subscription_count_needs_the_feature() {
    let server = TestServer::start();
    let request = server.rest().get("/apps/42/channels/news").query("info", "subscription_count");
    request.send().await.refused(400);
    let server = TestServer::with(|app| app.subscription_count = true);
    let request = server.rest().get("/apps/42/channels/presence-a").query("info", "subscription_count");
    request.send().await.refused(400);
    let _reader = subscribed(&server, "news").await;
    let info = server.rest().read("/channels/news", &[("info", "subscription_count")]).await;
    assert_eq!(info, json!({"occupied": true, "subscription_count": 1}));
}

#[tokio::test]
async fn s177_a_cached_event_is_read_with_its_remaining_lifetime() {
    let server = TestServer::start();
    let read = async || server.rest().read("/channels/cache-x", &[("info", "cache")]).await;
    assert_eq!(read().await, json!({"occupied": false, "cache": null}));
    server.rest().publish("cache-x", "e", r#"{"v":1}"#).await;
    let cache = read().await["cache"].clone();
    assert_eq!(cache["data"], json!(r#"{"v":1}"#));
    let ttl = cache["ttl"].as_u64().unwrap();
    assert!((1790..=1800).contains(&ttl), "{ttl}");
    server.advance(1000);
    let ttl = read().await["cache"]["ttl"].as_u64().unwrap();
    assert!((790..=800).contains(&ttl), "{ttl}");
    server.advance(801);
    assert_eq!(read().await["cache"], Value::Null);
    server.rest().get("/apps/42/channels/news").query("info", "cache").send().await.refused(400);
}

#[tokio::test]
async fn s178_the_users_of_a_channel_are_distinct_and_text() {
    let server = TestServer::start();
    let mut clients = Vec::new();
    for data in [r#"{"user_id":"u-1"}"#, r#"{"user_id":"u-1"}"#, r#"{"user_id":7,"user_info":{"a":1}}"#] {
        let mut client = server.connect().await;
        client.join_with("presence-a", data).await;
        clients.push(client);
    }
    let mut users = server.rest().read("/channels/presence-a/users", &[]).await["users"].clone();
    let list = users.as_array_mut().unwrap();
    list.sort_by_key(|user| user["id"].to_string());
    assert_eq!(users, json!([{"id": "7"}, {"id": "u-1"}]));
}

#[tokio::test]
async fn s179_an_unoccupied_presence_channel_has_no_users() {
    let server = TestServer::start();
    let answer = server.rest().get("/apps/42/channels/presence-a/users").send().await;
    assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"users":[]}"#));
}

#[tokio::test]
async fn s180_only_presence_channels_have_users() {
    let server = TestServer::start();
    for channel in ["news", "private-a", "presencex"] {
        server.rest().get(&format!("/apps/42/channels/{channel}/users")).send().await.refused(400);
    }
}

#[tokio::test]
async fn s181_terminating_a_user_closes_its_signed_in_connections() {
    let server = TestServer::start();
    let mut victims = [server.connect().await, server.connect().await];
    for client in &mut victims {
        client.sign_in(r#"{"id":"u-1"}"#).await;
    }
    let mut presence_only = server.connect().await;
    presence_only.join("presence-a", "u-1").await;
    let mut other = server.connect().await;
    other.sign_in(r#"{"id":"u-2"}"#).await;

    let answer = server.rest().post("/apps/42/users/u-1/terminate_connections", "{}").send().await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
    for client in &mut victims {
        client.expect_error(Some(4009)).await;
        client.expect_close(4009).await;
    }
    presence_only.assert_silent().await;
    other.assert_silent().await;

    let mut again = server.connect().await;
    again.sign_in(r#"{"id":"u-1"}"#).await;
    again.assert_silent().await;
}

#[tokio::test]
async fn s182_terminating_a_user_without_connections_succeeds() {
    let server = TestServer::start();
    for body in ["{}", ""] {
        for user in ["nobody", "a@b", "a%40b"] {
            let path = format!("/apps/42/users/{user}/terminate_connections");
            let answer = server.rest().post(&path, body).send().await;
            assert_eq!((answer.status, answer.body.as_str()), (200, "{}"), "{user} {body:?}");
        }
    }
}

#[tokio::test]
async fn s183_python_terminates_without_an_app_id() {
    let server = TestServer::with_config(|config| {
        config.apps.push(tidewire::config::AppConfig::new("43", "other-key", "other-secret"));
    });
    let mut client = server.connect().await;
    client.sign_in(r#"{"id":"u-1"}"#).await;
    let path = "/users/u-1/terminate_connections";
    let answer = server.rest_as("other-key", "other-secret").post(path, "{}").send().await;
    assert_eq!(answer.status, 200);
    client.assert_silent().await;
    server.rest_as("tw-demo-key", "wrong").post(path, "{}").send().await.refused(401);
    let answer = server.rest().post(path, "{}").send().await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
    client.expect_error(Some(4009)).await;
    client.expect_close(4009).await;
}

#[tokio::test]
async fn s184_the_legacy_publish_takes_the_body_as_data() {
    let server = TestServer::start();
    let (mut a, mut b) = (subscribed(&server, "a").await, subscribed(&server, "a").await);
    let path = "/apps/42/channels/a/events";
    for data in ["plain text", r#"{"a": 1}"#] {
        let answer = server.rest().post(path, data).query("name", "e").send().await;
        assert_eq!((answer.status, answer.body.as_str()), (202, ""));
        a.expect_event("e", "a", data).await;
        b.expect_event("e", "a", data).await;
    }
    let request = server.rest().post(path, "d").query("name", "e").query("socket_id", &a.socket_id);
    assert_eq!(request.send().await.status, 202);
    b.expect_event("e", "a", "d").await;
    a.assert_silent().await;

    server.rest().post(path, &b"\xff\xfe"[..]).query("name", "e").send().await.refused(400);
    server.rest().post(path, "d").send().await.refused(400);
    server.rest().post(path, "d").query("name", "e").query("socket_id", "abc").send().await.refused(400);
    server.rest().post(path, "d").query("name", "e").secret("wrong").send().await.refused(401);
    b.assert_silent().await;
}

#[tokio::test]
async fn s184_the_legacy_stats_tell_whether_a_channel_is_occupied() {
    let server = TestServer::start();
    let _reader = subscribed(&server, "a").await;
    assert_eq!(server.rest().read("/channels/a/stats", &[]).await["occupied"], true);
    assert_eq!(server.rest().read("/channels/b/stats", &[]).await["occupied"], false);
}

#[tokio::test]
async fn s185_unknown_paths_are_404_and_wrong_methods_405() {
    let server = TestServer::start();
    for path in
        ["/apps/42/nope", "/apps/42/channels/a/nope", "/apps/42/", "/apps/42", "/apps/42/users/u-1/nope"]
    {
        server.rest().get(path).send().await.refused(404);
    }
    server.rest().get("/apps/42/events").send().await.refused(405);
    server.rest().get("/apps/42/batch_events").send().await.refused(405);
    server.rest().post("/apps/42/channels", "{}").send().await.refused(405);
    server.rest().post("/apps/42/channels/a", "{}").send().await.refused(405);
    server.rest().get("/apps/42/users/u-1/terminate_connections").send().await.refused(405);
    for method in ["OPTIONS", "PUT", "DELETE", "PATCH"] {
        let mut connection = HttpConnection::open(server.addr()).await;
        let request =
            format!("{method} /apps/42/events HTTP/1.1\r\nHost: tidewire.test\r\nContent-Length: 0\r\n\r\n");
        connection.write(request.as_bytes()).await.unwrap();
        let answer = connection.response().await;
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
}

#[tokio::test]
async fn s186_a_publisher_above_its_rate_is_told_to_wait() {
    let server = TestServer::with(|app| app.limits.triggers_per_second = 2);
    let mut client = subscribed(&server, "a").await;
    let event = || json!({"name": "e", "data": "d", "channels": ["a"]});
    let mut accepted = 0;
    // The limiter runs in real time as well: some of these fall into the next moment.
    let refused = loop {
        let answer = server.rest().trigger(event()).await;
        if answer.status != 200 {
            break answer;
        }
        accepted += 1;
        client.expect_event("e", "a", "d").await;
        assert!(accepted < 1000, "never limited");
    };
    assert!(accepted >= 2, "{accepted}");
    assert_eq!(refused.status, 429);
    let wait: u64 = refused.header("retry-after").and_then(|value| value.parse().ok()).unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    server.advance(wait);
    assert_eq!(server.rest().trigger(event()).await.status, 200);
    client.expect_event("e", "a", "d").await;
    server.rest().read("/channels", &[]).await;
}

#[tokio::test]
async fn a_connection_is_kept_alive_between_requests() {
    let server = TestServer::start();
    let mut connection = HttpConnection::open(server.addr()).await;
    for _ in 0..20 {
        let event = json!({"name": "e", "data": "d", "channels": ["a"]}).to_string();
        assert_eq!(connection.exchange(server.rest().post("/apps/42/events", event)).await.status, 200);
        assert_eq!(connection.exchange(server.rest().get("/apps/42/channels")).await.status, 200);
        assert_eq!(connection.exchange(server.rest().get("/apps/42/nope")).await.status, 404);
    }
}
