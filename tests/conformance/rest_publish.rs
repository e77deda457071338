//! 9.10 REST endpoints that publish.

use serde_json::{Value, json};

use crate::common::{Client, TestServer};

async fn subscribed(server: &TestServer, channel: &str) -> Client {
    let mut client = server.connect().await;
    client.subscribe(channel).await;
    client
}

#[tokio::test]
async fn s151_one_event_goes_to_several_channels() {
    let server = TestServer::start();
    let (mut a, mut b) = (subscribed(&server, "a").await, subscribed(&server, "b").await);
    let answer = server.rest().trigger(json!({"name": "e", "data": "d", "channels": ["a", "b"]})).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
    a.expect_event("e", "a", "d").await;
    b.expect_event("e", "b", "d").await;
}

#[tokio::test]
async fn s151_php_names_a_single_channel() {
    let server = TestServer::start();
    let (mut a, mut b) = (subscribed(&server, "a").await, subscribed(&server, "b").await);
    let answer = server.rest().trigger(json!({"name": "e", "data": "d", "channel": "a"})).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
    a.expect_event("e", "a", "d").await;
    let both = json!({"name": "both", "data": "d", "channel": "a", "channels": ["b"]});
    assert_eq!(server.rest().trigger(both).await.status, 200);
    b.expect_event("both", "b", "d").await;
    a.assert_silent().await;
}

#[tokio::test]
async fn s152_every_success_is_200_with_an_object() {
    let server = TestServer::start();
    let rest = server.rest();
    for answer in [
        rest.trigger(json!({"name": "e", "data": "d", "channels": ["a"]})).await,
        rest.batch(json!([{"name": "e", "data": "d", "channel": "a"}])).await,
        rest.get("/apps/42/channels").send().await,
        rest.get("/apps/42/channels/a").send().await,
        rest.get("/apps/42/channels/presence-a/users").send().await,
        rest.post("/apps/42/users/u-1/terminate_connections", "{}").send().await,
    ] {
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(answer.json().is_object(), "{}", answer.body);
        assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("application/json")));
    }
}

#[tokio::test]
async fn s153_data_has_at_most_10240_bytes() {
    let server = TestServer::start();
    let mut client = subscribed(&server, "a").await;
    for (fits, too_long) in [
        ("x".repeat(10_240), "x".repeat(10_241)),
        ("ä".repeat(5_120), format!("{}x", "ä".repeat(5_120))),
        ("\"".repeat(10_240), "\"".repeat(10_241)),
        ("\u{0}".repeat(10_240), "\u{0}".repeat(10_241)),
    ] {
        server.rest().publish("a", "e", &fits).await;
        client.expect_event("e", "a", &fits).await;
        let text = server
            .rest()
            .trigger(json!({"name": "e", "data": too_long, "channels": ["a"]}))
            .await
            .refused(413);
        assert!(text.contains("10240"), "{text}");
        server.rest().batch(json!([{"name": "e", "data": too_long, "channel": "a"}])).await.refused(413);
        client.assert_silent().await;
    }
}

#[tokio::test]
async fn s153_the_limit_is_the_apps() {
    let server = TestServer::with(|app| app.limits.max_event_bytes = 100);
    server.rest().publish("a", "e", &"x".repeat(100)).await;
    let event = json!({"name": "e", "data": "x".repeat(101), "channels": ["a"]});
    server.rest().trigger(event).await.refused(413);
}

#[tokio::test]
async fn s154_empty_data_is_delivered_as_an_empty_string() {
    let server = TestServer::start();
    let mut client = subscribed(&server, "a").await;
    server.rest().publish("a", "e", "").await;
    assert_eq!(client.next_event().await.frame, json!({"event": "e", "channel": "a", "data": ""}));
}

#[tokio::test]
async fn s155_an_event_without_data_or_name_is_refused() {
    let server = TestServer::start();
    let mut client = subscribed(&server, "a").await;
    for body in [
        json!({"name": "e", "channels": ["a"]}),
        json!({"data": "d", "channels": ["a"]}),
        json!({"name": null, "data": "d", "channels": ["a"]}),
        json!({"name": 5, "data": "d", "channels": ["a"]}),
        json!({"name": "", "data": "d", "channels": ["a"]}),
        json!({"name": "n".repeat(201), "data": "d", "channels": ["a"]}),
    ] {
        server.rest().trigger(body.clone()).await.refused(400);
        let mut item = body;
        item.as_object_mut().unwrap().remove("channels");
        item["channel"] = "a".into();
        server.rest().batch(json!([item])).await.refused(400);
    }
    client.assert_silent().await;
    server.rest().publish("a", &"n".repeat(200), "d").await;
    client.expect_event(&"n".repeat(200), "a", "d").await;
}

#[tokio::test]
async fn s156_data_of_another_type_is_delivered_as_its_json_text() {
    let server = TestServer::start();
    let mut client = subscribed(&server, "a").await;
    for data in [json!({"a": 1}), json!([1, 2]), json!(7), json!(true)] {
        let answer = server.rest().trigger(json!({"name": "e", "data": data, "channels": ["a"]})).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let delivered = client.expect("e").await;
        assert_eq!(delivered.data(), data.to_string());
    }
    let too_long = json!({"name": "e", "data": {"n": "x".repeat(10_233)}, "channels": ["a"]});
    server.rest().trigger(too_long).await.refused(413);
    client.assert_silent().await;
}

#[tokio::test]
async fn s157_an_event_goes_to_1_to_100_channels() {
    let server = TestServer::start();
    let mut client = subscribed(&server, "c-0").await;
    client.subscribe("c-99").await;
    let channels = |count: usize| (0..count).map(|number| format!("c-{number}")).collect::<Vec<_>>();
    let event = |channels: Value| json!({"name": "e", "data": "d", "channels": channels});

    server.rest().trigger(event(json!(channels(101)))).await.refused(400);
    client.assert_silent().await;
    assert_eq!(server.rest().trigger(event(json!(channels(100)))).await.status, 200);
    client.expect_event("e", "c-0", "d").await;
    client.expect_event("e", "c-99", "d").await;

    server.rest().trigger(event(json!([]))).await.refused(400);
    server.rest().trigger(json!({"name": "e", "data": "d"})).await.refused(400);
    server.rest().trigger(event(Value::Null)).await.refused(400);
    server.rest().trigger(event(json!("c-0"))).await.refused(400);
    server.rest().trigger(event(json!([5]))).await.refused(400);
    server.rest().trigger(json!({"name": "e", "data": "d", "channel": 5})).await.refused(400);
    client.assert_silent().await;
}

#[tokio::test]
async fn s158_a_channel_named_twice_gets_the_event_once() {
    let server = TestServer::start();
    let mut client = subscribed(&server, "a").await;
    let answer =
        server.rest().trigger(json!({"name": "e", "data": "d", "channels": ["a", "a", "b", "a"]})).await;
    assert_eq!(answer.status, 200);
    client.expect_event("e", "a", "d").await;
    client.assert_silent().await;
}

#[tokio::test]
async fn s159_one_invalid_channel_refuses_the_event() {
    let server = TestServer::start();
    let mut client = subscribed(&server, "a").await;
    for invalid in ["a b", "ä", "", "a/b", "#x", "#server-to-user-", "n:1", &"n".repeat(201)] {
        let event = json!({"name": "e", "data": "d", "channels": ["a", invalid]});
        server.rest().trigger(event).await.refused(400);
        server.rest().trigger(json!({"name": "e", "data": "d", "channel": invalid})).await.refused(400);
    }
    client.assert_silent().await;
}

#[tokio::test]
async fn s160_a_socket_id_is_null_or_well_formed() {
    let server = TestServer::start();
    let mut client = subscribed(&server, "a").await;
    let event =
        |socket_id: Value| json!({"name": "e", "data": "d", "channels": ["a"], "socket_id": socket_id});
    assert_eq!(server.rest().trigger(event(Value::Null)).await.status, 200);
    client.expect_event("e", "a", "d").await;
    for malformed in ["abc", "1", "1.", ".1", "1.2.3", "1.a", "-1.2", " 1.2", "1.2\n", ""] {
        server.rest().trigger(event(json!(malformed))).await.refused(400);
    }
    server.rest().trigger(event(json!(7))).await.refused(400);
    client.assert_silent().await;
}

#[tokio::test]
async fn s161_reserved_event_names_are_refused() {
    let server = TestServer::start();
    let mut client = subscribed(&server, "a").await;
    for name in ["pusher:x", "pusher_internal:x", "pusher:", "pusher_internal:member_added"] {
        server.rest().trigger(json!({"name": name, "data": "d", "channels": ["a"]})).await.refused(400);
        server.rest().batch(json!([{"name": name, "data": "d", "channel": "a"}])).await.refused(400);
    }
    client.assert_silent().await;
    for name in ["pusher", "pusherx", "x:pusher:", "client-x"] {
        server.rest().publish("a", name, "d").await;
        client.expect_event(name, "a", "d").await;
    }
}

#[tokio::test]
async fn s162_a_php_class_is_an_event_name() {
    let server = TestServer::start();
    let mut client = subscribed(&server, "a").await;
    server.rest().publish("a", r"App\Events\OrderPaid", "d").await;
    client.expect_event(r"App\Events\OrderPaid", "a", "d").await;
}

#[tokio::test]
async fn s163_a_publish_reports_distinct_users_when_asked() {
    let server = TestServer::start();
    let mut clients = Vec::new();
    for user in ["u-1", "u-1", "u-2"] {
        let mut client = server.connect().await;
        client.join("presence-a", user).await;
        clients.push(client);
    }
    let event = json!({"name": "e", "data": "d", "channels": ["presence-a"], "info": "user_count"});
    let answer = server.rest().trigger(event).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json(), json!({"channels": {"presence-a": {"user_count": 2}}}));
}

#[tokio::test]
async fn s163_a_publish_reports_what_applies_to_each_channel() {
    let server = TestServer::with(|app| app.subscription_count = true);
    let _first = subscribed(&server, "news").await;
    let _second = subscribed(&server, "news").await;
    let mut member = server.connect().await;
    member.join("presence-a", "u-1").await;
    let answer = server
        .rest()
        .trigger(json!({"name": "e", "data": "d", "channels": ["presence-a", "news"],
            "info": "user_count,subscription_count"}))
        .await;
    assert_eq!(answer.status, 200);
    let channels = answer.json()["channels"].clone();
    assert_eq!(channels["presence-a"]["user_count"], 1);
    assert_eq!(channels["news"], json!({"subscription_count": 2}));
}

#[tokio::test]
async fn s163_an_info_of_null_is_no_info() {
    let server = TestServer::start();
    let event = json!({"name": "e", "data": "d", "channels": ["a"], "info": null, "socket_id": null});
    assert_eq!(server.rest().trigger(event).await.body, "{}");
}

#[tokio::test]
async fn s164_an_unknown_info_is_refused() {
    let server = TestServer::start();
    let mut client = subscribed(&server, "a").await;
    for info in ["nonsense", "user_count,nonsense", "USER_COUNT"] {
        let event = json!({"name": "e", "data": "d", "channels": ["a"], "info": info});
        server.rest().trigger(event).await.refused(400);
        server
            .rest()
            .batch(json!([{"name": "e", "data": "d", "channel": "a", "info": info}]))
            .await
            .refused(400);
    }
    client.assert_silent().await;
}

#[tokio::test]
async fn s165_the_content_type_does_not_matter() {
    let server = TestServer::start();
    let body = json!({"name": "e", "data": "d", "channels": ["a"]}).to_string();
    for kind in [
        "application/json",
        "application/json; charset=utf-8",
        "text/plain",
        "application/x-www-form-urlencoded",
    ] {
        let request = server.rest().post("/apps/42/events", body.clone()).header("Content-Type", kind);
        assert_eq!(request.send().await.status, 200, "{kind}");
    }
    assert_eq!(server.rest().post("/apps/42/events", body).send().await.status, 200);
}

#[tokio::test]
async fn s166_malformed_json_is_refused() {
    let server = TestServer::start();
    for body in ["not json", "{", "[]", "null", "5", "\"x\"", "{}", "\u{feff}{}", "{\"name\":\"e\"}{}"] {
        server.rest().post("/apps/42/events", body).send().await.refused(400);
        server.rest().post("/apps/42/batch_events", body).send().await.refused(400);
    }
    server
        .rest()
        .post("/apps/42/events", &b"{\"name\":\"\xff\",\"data\":\"d\",\"channels\":[\"a\"]}"[..])
        .send()
        .await
        .refused(400);
    server.rest().post("/apps/42/events", "").send().await.refused(400);
    server.rest().post("/apps/42/events", "[".repeat(100_000)).send().await.refused(400);
    let lone_surrogate = r#"{"name":"e","data":"\ud83d","channels":["a"]}"#;
    server.rest().post("/apps/42/events", lone_surrogate).send().await.refused(400);
}

fn items(count: usize) -> Value {
    (0..count).map(|number| json!({"name": "e", "data": number.to_string(), "channel": "a"})).collect()
}

#[tokio::test]
async fn s167_a_batch_of_10_is_delivered_in_order() {
    let server = TestServer::start();
    let mut client = subscribed(&server, "a").await;
    let answer = server.rest().batch(items(10)).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
    for number in 0..10 {
        client.expect_event("e", "a", &number.to_string()).await;
    }
}

#[tokio::test]
async fn s167_a_batch_of_11_or_none_is_refused() {
    let server = TestServer::start();
    let mut client = subscribed(&server, "a").await;
    server.rest().batch(items(11)).await.refused(400);
    server.rest().batch(json!([])).await.refused(400);
    server.rest().batch(Value::Null).await.refused(400);
    server.rest().batch(json!({})).await.refused(400);
    server.rest().batch(json!([5])).await.refused(400);
    client.assert_silent().await;
}

#[tokio::test]
async fn s168_a_batch_with_info_answers_an_array_of_equal_length() {
    let server = TestServer::with(|app| app.subscription_count = true);
    let mut member = server.connect().await;
    member.join("presence-a", "u-1").await;
    let _reader = subscribed(&server, "news").await;
    let answer = server
        .rest()
        .batch(json!([
            {"name": "e", "data": "d", "channel": "presence-a", "info": "user_count"},
            {"name": "e", "data": "d", "channel": "other"},
            {"name": "e", "data": "d", "channel": "news", "info": "subscription_count"},
        ]))
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json(), json!({"batch": [{"user_count": 1}, {}, {"subscription_count": 1}]}));
}

#[tokio::test]
async fn s169_one_invalid_item_refuses_the_batch() {
    let server = TestServer::start();
    let mut client = subscribed(&server, "a").await;
    for invalid in [
        json!({"name": "e", "data": "d"}),
        json!({"name": "e", "data": "d", "channel": "a b"}),
        json!({"name": "pusher:e", "data": "d", "channel": "a"}),
        json!({"name": "e", "data": "d", "channel": "a", "socket_id": "abc"}),
        json!({"name": "e", "channel": "a"}),
        json!("text"),
    ] {
        let good = json!({"name": "e", "data": "d", "channel": "a"});
        server.rest().batch(json!([good, invalid, good])).await.refused(400);
        server.rest().batch(json!([good, good, invalid])).await.refused(400);
    }
    client.assert_silent().await;
}
