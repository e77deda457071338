//! 9.3 Subscribe and unsubscribe.

use serde_json::{Value, json};

use crate::common::{Credentials, TestServer, eventually, member};

#[tokio::test]
async fn s043_a_subscription_is_acknowledged_with_an_empty_object_as_a_string() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    client.send_subscribe(json!({"channel": "news"})).await;
    let success = client.succeeded("news").await;
    assert_eq!(success.frame["data"], json!("{}"));
    server.rest().publish("news", "e", "1").await;
    client.expect_event("e", "news", "1").await;
}

#[tokio::test]
async fn s044_a_public_channel_ignores_auth_and_channel_data() {
    let server = TestServer::start();
    for (name, auth, channel_data) in [
        ("empty", json!(""), Value::Null),
        ("bogus", json!("tw-demo-key:00"), json!("{\"user_id\":\"u-1\"}")),
        ("nocolon", json!("nocolon"), json!("not json")),
        ("null", Value::Null, Value::Null),
        ("odd", json!(7), json!({"user_id": 1})),
    ] {
        let mut client = server.connect().await;
        client.send_subscribe(json!({"auth": auth, "channel_data": channel_data, "channel": name})).await;
        assert_eq!(client.succeeded(name).await.data(), "{}");
    }
}

#[tokio::test]
async fn s045_the_data_of_a_subscribe_may_be_a_json_string() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    client.send_subscribe(json!(r#"{"channel":"news"}"#)).await;
    client.succeeded("news").await;

    let auth = client.auth("presence-a", Some(&member("u-1")));
    let data = json!({"channel": "presence-a", "auth": auth, "channel_data": member("u-1")});
    client.send_subscribe(json!(data.to_string())).await;
    client.succeeded("presence-a").await;

    client.send(json!({"event": "pusher:unsubscribe", "data": r#"{"channel":"news"}"#})).await;
    client.assert_silent().await;
    client.subscribe("news").await;
}

#[tokio::test]
async fn s046_a_channel_that_is_missing_or_no_string_is_refused() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    for data in [
        json!({}),
        json!({"auth": ""}),
        json!({"channel": 5}),
        json!({"channel": null}),
        json!({"channel": {}}),
        json!({"channel": ["news"]}),
        json!({"channel": true}),
    ] {
        client.send_subscribe(data).await;
        client.expect_refusal().await;
    }
}

#[tokio::test]
async fn s047_a_second_subscribe_is_refused_and_events_arrive_once() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    for channel in ["news", "private-a"] {
        client.subscribe(channel).await;
        client.request(channel, None).await;
        let message = client.expect_refusal().await;
        assert!(message.contains("Existing subscription") && message.contains(channel), "{message}");
        server.rest().publish(channel, "e", "1").await;
        client.expect_event("e", channel, "1").await;
        client.assert_silent().await;
    }
}

#[tokio::test]
async fn s047_a_second_presence_subscribe_changes_no_count() {
    let server = TestServer::start();
    let (mut client, mut watcher) = (server.connect().await, server.connect().await);
    watcher.join("presence-a", "watcher").await;
    client.join("presence-a", "u-1").await;
    watcher.expect("pusher_internal:member_added").await;
    client.request("presence-a", Some(&member("u-2"))).await;
    client.expect_refusal().await;
    watcher.assert_silent().await;
    client.unsubscribe("presence-a").await;
    let removed = watcher.expect("pusher_internal:member_removed").await;
    assert_eq!(removed.json(), json!({"user_id": "u-1"}));
}

#[tokio::test]
async fn s047_two_subscribes_in_one_packet_are_one_success_and_one_refusal() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    let frame = crate::common::websocket::frame(
        true,
        crate::common::websocket::TEXT,
        br#"{"event":"pusher:subscribe","data":{"channel":"news"}}"#,
    );
    client.socket.send_bytes(&[frame.clone(), frame].concat()).await;
    client.succeeded("news").await;
    client.expect_refusal().await;
    client.assert_silent().await;
}

#[tokio::test]
async fn s048_an_unsubscribe_is_silent_and_ends_delivery() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    for channel in ["news", "private-a"] {
        client.subscribe(channel).await;
        client.unsubscribe(channel).await;
        server.rest().publish(channel, "e", "1").await;
        client.assert_silent().await;
    }
}

#[tokio::test]
async fn s049_an_unsubscribe_from_a_channel_not_held_is_refused() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    for data in
        [json!({"channel": "news"}), json!({"channel": "not a name"}), json!({}), json!({"channel": 5})]
    {
        client.send(json!({"event": "pusher:unsubscribe", "data": data})).await;
        client.expect_refusal().await;
    }
    client.subscribe("news").await;
    client.unsubscribe("news").await;
    client.send(json!({"event": "pusher:unsubscribe", "data": {"channel": "news"}})).await;
    let message = client.expect_refusal().await;
    assert!(message.contains("No current subscription to channel news"), "{message}");
}

#[tokio::test]
async fn s050_a_channel_can_be_left_and_joined_again() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    for channel in ["news", "private-a", "presence-a"] {
        let data = channel.starts_with("presence-").then(|| member("u-1"));
        for round in 0..3 {
            client.request(channel, data.as_deref()).await;
            client.succeeded(channel).await;
            server.rest().publish(channel, "round", &round.to_string()).await;
            client.expect_event("round", channel, &round.to_string()).await;
            client.unsubscribe(channel).await;
        }
    }
    client.assert_silent().await;
}

#[tokio::test]
async fn s051_a_disconnect_leaves_every_channel() {
    let server = TestServer::with(|app| app.subscription_count = true);
    let mut watcher = server.connect().await;
    watcher.join("presence-a", "watcher").await;
    for clean in [true, false] {
        let mut client = server.connect().await;
        client.join("presence-a", "u-1").await;
        watcher.expect("pusher_internal:member_added").await;
        for channel in ["news", "private-a", "cache-c"] {
            client.subscribe(channel).await;
            if channel == "cache-c" {
                client.expect("pusher:cache_miss").await;
            }
            client.expect("pusher_internal:subscription_count").await;
        }
        let info = server.rest().read("/channels/news", &[("info", "subscription_count")]).await;
        assert_eq!(info, json!({"occupied": true, "subscription_count": 1}));
        if clean {
            client.close().await
        } else {
            client.reset()
        }
        let removed = watcher.expect("pusher_internal:member_removed").await;
        assert_eq!(removed.json(), json!({"user_id": "u-1"}));
        eventually("only the watcher's channel is occupied", async || {
            let listing = server.rest().read("/channels", &[]).await;
            listing == json!({"channels": {"presence-a": {}}})
        })
        .await;
        let info = server.rest().read("/channels/presence-a", &[("info", "user_count")]).await;
        assert_eq!(info, json!({"occupied": true, "user_count": 1}));
    }
}

#[tokio::test]
async fn s052_names_outside_the_grammar_are_refused() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    for name in [
        "a b",
        "ä",
        "a/b",
        "a:b",
        "",
        " ",
        "a\n",
        "a\0",
        "a#b",
        "a?b",
        "a%20b",
        "a+b",
        "a*",
        "a\\b",
        "😀",
        "private-a b",
        "presence-ä",
    ] {
        client.request(name, None).await;
        client.expect_refusal().await;
    }
    assert_eq!(server.rest().read("/channels", &[]).await, json!({"channels": {}}));
}

#[tokio::test]
async fn s053_every_legal_character_is_accepted() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-=@,.;";
    for name in ["A-z_0=9@x,y.z;q", alphabet, "a", ";", "-", "0"] {
        client.subscribe(name).await;
        server.rest().publish(name, "e", "1").await;
        client.expect_event("e", name, "1").await;
    }
    client.subscribe(&format!("private-{alphabet}")).await;
}

#[tokio::test]
async fn s054_names_have_at_most_200_characters() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    for prefix in ["", "private-", "cache-"] {
        let longest = format!("{prefix}{}", "n".repeat(200 - prefix.len()));
        client.subscribe(&longest).await;
        if prefix == "cache-" {
            client.expect("pusher:cache_miss").await;
        }
        client.request(&format!("{longest}n"), None).await;
        client.expect_refusal().await;
    }
}

#[tokio::test]
async fn s054_the_longest_name_is_configurable() {
    let server = TestServer::with(|app| app.limits.max_channel_name_length = 164);
    let mut client = server.connect().await;
    client.subscribe(&"n".repeat(164)).await;
    client.request(&"n".repeat(165), None).await;
    client.expect_refusal().await;
}

#[tokio::test]
async fn s055_names_with_a_hash_belong_to_the_server() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    client.sign_in(r#"{"id":"u-1"}"#).await;
    for name in [
        "#",
        "#x",
        "#server",
        "#server-to-user-",
        "#server-to-user-u-2",
        "#server-to-user",
        "##x",
        "#private-x",
    ] {
        client.request(name, None).await;
        client.expect_refusal().await;
    }
    client.subscribe("#server-to-user-u-1").await;
}

#[tokio::test]
async fn s056_prefixes_are_case_sensitive() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    for name in
        ["Private-x", "PRIVATE-x", "Presence-x", "PRESENCE-x", "Cache-x", "privatex", "presencex", "private"]
    {
        client.send_subscribe(json!({ "channel": name })).await;
        assert_eq!(client.succeeded(name).await.data(), "{}");
        client.assert_silent().await;
    }
}

#[tokio::test]
async fn s057_a_signed_subscription_to_a_private_channel_succeeds() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    assert_eq!(client.subscribe("private-a").await.frame["data"], json!("{}"));
    server.rest().publish("private-a", "e", "1").await;
    client.expect_event("e", "private-a", "1").await;
}

#[tokio::test]
async fn s058_a_private_channel_without_auth_is_refused() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    for channel in ["private-a", "private-cache-a", "private-encrypted-cache-a"] {
        for data in [
            json!({ "channel": channel }),
            json!({"channel": channel, "auth": ""}),
            json!({"channel": channel, "auth": null}),
        ] {
            client.send_subscribe(data).await;
            let message = client.expect_refusal().await;
            assert!(message.starts_with("Auth info required"), "{message}");
        }
        server.rest().publish(channel, "e", "1").await;
        client.assert_silent().await;
    }
    client.send_subscribe(json!({"channel": "private-a", "auth": 5})).await;
    client.expect_refusal().await;
}

#[tokio::test]
async fn s059_auth_without_a_colon_is_a_format_error() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    client.send_subscribe(json!({"channel": "private-a", "auth": "nocolon"})).await;
    let message = client.expect_refusal().await;
    assert!(message.contains("key:signature"), "{message}");
}

#[tokio::test]
async fn s060_auth_under_another_key_is_refused() {
    let server = TestServer::with_config(|config| {
        config.apps.push(tidewire::config::AppConfig::new("43", "otherkey", "other-secret"));
    });
    let mut client = server.connect().await;
    for credentials in [
        Credentials::new("otherkey", "tw-demo-secret"),
        Credentials::new("otherkey", "other-secret"),
        Credentials::new("TW-DEMO-KEY", "tw-demo-secret"),
        Credentials::new("", "tw-demo-secret"),
    ] {
        let auth = credentials.channel_auth(&client.socket_id, "private-a", None);
        client.send_subscribe(json!({"channel": "private-a", "auth": auth})).await;
        let message = client.expect_refusal().await;
        assert!(message.contains("Invalid key"), "{message}");
    }
}

#[tokio::test]
async fn s061_a_signature_for_anything_else_is_refused() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    let ours = Credentials::default();
    let right = client.auth("private-a", None);
    for auth in [
        client.auth("private-b", None),
        client.auth("private-a", Some("")),
        ours.channel_auth("1234.5678", "private-a", None),
        Credentials::new("tw-demo-key", "wrong").channel_auth(&client.socket_id, "private-a", None),
        ours.user_auth(&client.socket_id, "private-a"),
        "tw-demo-key:".into(),
        "tw-demo-key:zz".into(),
        "tw-demo-key:ä".into(),
        right[..right.len() - 1].into(),
        right[..right.len() - 2].into(),
        format!("{right}0"),
        format!("{right}00"),
        format!(" {right}"),
    ] {
        client.send_subscribe(json!({"channel": "private-a", "auth": auth})).await;
        client.expect_refusal().await;
        server.rest().publish("private-a", "secret", "1").await;
        client.assert_silent().await;
    }
}

#[tokio::test]
async fn s061_the_refusal_shows_the_string_to_sign() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    let wrong = format!("tw-demo-key:{}", "0".repeat(64));
    client.send_subscribe(json!({"channel": "private-a", "auth": wrong})).await;
    let message = client.expect_refusal().await;
    assert!(message.starts_with("Invalid signature"), "{message}");
    assert!(message.contains(&format!("{}:private-a", client.socket_id)), "{message}");
    assert!(!message.contains("tw-demo-secret"), "{message}");
}

#[tokio::test]
async fn s062_a_signature_in_upper_case_is_accepted() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    let auth = client.auth("private-a", None);
    let (key, signature) = auth.split_once(':').unwrap();
    let auth = format!("{key}:{}", signature.to_uppercase());
    client.send_subscribe(json!({"channel": "private-a", "auth": auth})).await;
    client.succeeded("private-a").await;
}

#[tokio::test]
async fn s063_a_token_is_bound_to_its_connection() {
    let server = TestServer::start();
    let (mut owner, mut thief) = (server.connect().await, server.connect().await);
    let token = owner.auth("private-a", None);
    thief.send_subscribe(json!({"channel": "private-a", "auth": token})).await;
    thief.expect_refusal().await;
    owner.send_subscribe(json!({"channel": "private-a", "auth": token})).await;
    owner.succeeded("private-a").await;
}

#[tokio::test]
async fn s064_a_refused_connection_may_try_again_with_a_valid_token() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    for channel in ["private-a", "presence-a"] {
        client.send_subscribe(json!({"channel": channel, "auth": "tw-demo-key:00"})).await;
        client.expect_refusal().await;
        let data = channel.starts_with("presence-").then(|| member("u-1"));
        client.request(channel, data.as_deref()).await;
        client.succeeded(channel).await;
    }
}

#[tokio::test]
async fn s065_channel_data_on_a_private_channel_is_part_of_the_string_to_sign() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    let data = r#"{"anything":[1, 2]}"#;
    let unsigned = client.auth("private-a", None);
    client.send_subscribe(json!({"channel": "private-a", "auth": unsigned, "channel_data": data})).await;
    client.expect_refusal().await;
    client.request("private-a", Some(data)).await;
    client.succeeded("private-a").await;
}

#[tokio::test]
async fn s065_channel_data_that_is_null_or_empty_counts_as_absent() {
    let server = TestServer::start();
    for absent in [Value::Null, json!("")] {
        let mut client = server.connect().await;
        let auth = client.auth("private-a", None);
        client.send_subscribe(json!({"channel": "private-a", "auth": auth, "channel_data": absent})).await;
        client.succeeded("private-a").await;
    }
}

#[tokio::test]
async fn s066_no_event_of_a_channel_comes_before_its_success() {
    const ROUNDS: usize = 40;
    let server = TestServer::start();
    let rest = server.rest();
    let publishing = tokio::spawn(async move {
        for serial in 0.. {
            rest.publish("private-a", "tick", &serial.to_string()).await;
        }
    });
    // A holder keeps the channel in use, so that every publish has work to do.
    let mut holder = server.connect().await;
    holder.subscribe("private-a").await;
    for _ in 0..ROUNDS {
        let mut client = server.connect().await;
        client.request("private-a", None).await;
        client.succeeded("private-a").await;
        let first: u64 = client.expect("tick").await.data().parse().unwrap();
        let second: u64 = client.expect("tick").await.data().parse().unwrap();
        assert_eq!(second, first + 1, "and no event is missing after it");
    }
    publishing.abort();
}

#[tokio::test]
async fn s067_a_refused_pusher_js_also_gets_a_subscription_error() {
    let server = TestServer::start();
    let mut client = server.connect_with("protocol=7&client=js&version=8.6.0").await;
    for (channel, auth) in [
        ("private-a", "tw-demo-key:00"),
        ("private-a", ""),
        ("private-a", "nocolon"),
        ("private-a", "other:00"),
        ("presence-a", "tw-demo-key:00"),
        ("private-encrypted-a", "tw-demo-key:00"),
    ] {
        client.send_subscribe(json!({"channel": channel, "auth": auth})).await;
        client.expect_error(None).await;
        let error = client.next_event().await;
        assert!(error.is("pusher:subscription_error", channel), "{error:?}");
        let facts = error.json();
        assert_eq!(facts["type"], "AuthError");
        assert!(facts["error"].is_string());
        assert_eq!(facts["status"], 401);
        client.assert_silent().await;
    }
}

#[tokio::test]
async fn s068_other_clients_get_the_error_frame_only() {
    let server = TestServer::start();
    for query in [
        "protocol=5&client=java-client&version=2.4.4",
        "protocol=5&client=pusher-dotnet-client",
        "protocol=6&client=Pysher",
        "protocol=7&client=pusher-websocket-swift",
        "protocol=7",
    ] {
        let mut client = server.connect_with(query).await;
        client.send_subscribe(json!({"channel": "private-encrypted-a", "auth": "tw-demo-key:00"})).await;
        client.expect_refusal().await;
        client.assert_silent().await;
    }
}
