//! 9.6 Cache channels, encrypted channels, subscription counts.

use serde_json::{Value, json};

use crate::common::{Client, TestServer, eventually, member};

const COUNT: &str = "pusher_internal:subscription_count";

/// Subscribes a fresh connection, as `u-1` where the channel asks who it is.
async fn subscribed(server: &TestServer, channel: &str) -> Client {
    let mut client = server.connect().await;
    let data = channel.starts_with("presence-").then(|| member("u-1"));
    client.request(channel, data.as_deref()).await;
    client.succeeded(channel).await;
    client
}

#[tokio::test]
async fn s102_an_empty_cache_channel_reports_a_miss() {
    let server = TestServer::start();
    let mut client = subscribed(&server, "cache-x").await;
    let miss = client.next_event().await;
    assert_eq!(miss.frame, json!({"event": "pusher:cache_miss", "channel": "cache-x", "data": "{}"}));
    client.assert_silent().await;
}

#[tokio::test]
async fn s103_a_subscriber_gets_the_newest_event_after_its_success() {
    let server = TestServer::start();
    server.rest().publish("cache-x", "price.changed", r#"{"cents": 1250}"#).await;
    let mut client = subscribed(&server, "cache-x").await;
    let cached = client.next_event().await;
    let expected = json!({"event": "price.changed", "channel": "cache-x", "data": "{\"cents\": 1250}"});
    assert_eq!(cached.frame, expected);

    server.rest().publish("cache-x", "second", "2").await;
    server.rest().publish("cache-x", "third", "").await;
    let mut late = subscribed(&server, "cache-x").await;
    late.expect_event("third", "cache-x", "").await;
    late.assert_silent().await;
}

#[tokio::test]
async fn s103_the_cached_event_joins_the_stream_without_a_hole_or_a_repetition() {
    let server = TestServer::start();
    let rest = server.rest();
    rest.publish("cache-x", "e", "0").await;
    let publishing = tokio::spawn(async move {
        for serial in 1.. {
            rest.publish("cache-x", "e", &serial.to_string()).await;
        }
    });
    for _ in 0..40 {
        let mut client = subscribed(&server, "cache-x").await;
        let first: u64 = client.expect("e").await.data().parse().unwrap();
        for serial in first + 1..first + 4 {
            client.expect_event("e", "cache-x", &serial.to_string()).await;
        }
    }
    publishing.abort();
}

#[tokio::test]
async fn s104_an_event_is_cached_with_nobody_subscribed() {
    let server = TestServer::start();
    server.rest().publish("cache-x", "e", "1").await;
    assert_eq!(server.rest().read("/channels", &[]).await, json!({"channels": {}}), "not occupied");
    subscribed(&server, "cache-x").await.expect_event("e", "cache-x", "1").await;
}

#[tokio::test]
async fn s105_the_cache_outlives_the_last_subscriber() {
    let server = TestServer::start();
    let client = subscribed(&server, "cache-x").await;
    server.rest().publish("cache-x", "e", "1").await;
    client.close().await;
    eventually("the channel to be empty", async || {
        server.rest().read("/channels", &[]).await == json!({"channels": {}})
    })
    .await;
    let mut again = subscribed(&server, "cache-x").await;
    again.expect_event("e", "cache-x", "1").await;
    again.unsubscribe("cache-x").await;
    again.subscribe("cache-x").await;
    again.expect_event("e", "cache-x", "1").await;
}

#[tokio::test]
async fn s106_a_cached_event_lives_for_1800_seconds() {
    let server = TestServer::start();
    server.rest().publish("cache-x", "e", "1").await;
    server.advance(1790);
    subscribed(&server, "cache-x").await.expect_event("e", "cache-x", "1").await;
    server.advance(11);
    subscribed(&server, "cache-x").await.expect("pusher:cache_miss").await;
}

#[tokio::test]
async fn s106_a_new_event_starts_the_lifetime_again() {
    let server = TestServer::with(|app| app.limits.cache_ttl_seconds = 60);
    server.rest().publish("cache-x", "e", "1").await;
    server.advance(50);
    server.rest().publish("cache-x", "e", "2").await;
    server.advance(50);
    subscribed(&server, "cache-x").await.expect_event("e", "cache-x", "2").await;
    server.advance(11);
    subscribed(&server, "cache-x").await.expect("pusher:cache_miss").await;
}

#[tokio::test]
async fn s107_an_exclusion_does_not_keep_an_event_out_of_the_cache() {
    let server = TestServer::start();
    let mut excluded = subscribed(&server, "cache-x").await;
    excluded.expect("pusher:cache_miss").await;
    server.rest().publish_except(&["cache-x"], "e", "1", &excluded.socket_id).await;
    excluded.assert_silent().await;
    subscribed(&server, "cache-x").await.expect_event("e", "cache-x", "1").await;
    excluded.unsubscribe("cache-x").await;
    excluded.subscribe("cache-x").await;
    excluded.expect_event("e", "cache-x", "1").await;
}

#[tokio::test]
async fn s107_present_subscribers_see_the_cached_event_once() {
    let server = TestServer::start();
    let mut first = subscribed(&server, "cache-x").await;
    first.expect("pusher:cache_miss").await;
    server.rest().publish("cache-x", "e", "1").await;
    first.expect_event("e", "cache-x", "1").await;
    for _ in 0..3 {
        let mut other = subscribed(&server, "cache-x").await;
        other.expect_event("e", "cache-x", "1").await;
        other.sync().await;
    }
    first.assert_silent().await;
}

#[tokio::test]
async fn s108_every_kind_of_cache_channel_behaves_alike() {
    let server = TestServer::start();
    for channel in ["private-cache-x", "presence-cache-x", "private-encrypted-cache-x"] {
        let mut first = subscribed(&server, channel).await;
        let miss = first.expect("pusher:cache_miss").await;
        assert_eq!((miss.channel.as_deref(), miss.data()), (Some(channel), "{}"));
        server.rest().publish(channel, "e", "1").await;
        first.expect_event("e", channel, "1").await;
        subscribed(&server, channel).await.expect_event("e", channel, "1").await;

        let mut stranger = server.connect().await;
        stranger.send_subscribe(json!({"channel": channel, "auth": "tw-demo-key:00"})).await;
        stranger.expect_refusal().await;
        stranger.assert_silent().await;

        server.advance(1801);
        subscribed(&server, channel).await.expect("pusher:cache_miss").await;
    }
}

#[tokio::test]
async fn s109_names_that_only_look_like_cache_channels_have_no_cache() {
    let server = TestServer::start();
    for channel in [
        "cachex",
        "cache",
        "private-cachex",
        "presence-cachex",
        "private-encrypted-cachex",
        "my-cache-x",
        "Cache-x",
    ] {
        server.rest().publish(channel, "e", "1").await;
        subscribed(&server, channel).await.assert_silent().await;
    }
}

#[tokio::test]
async fn s110_success_on_an_encrypted_channel_carries_exactly_an_empty_object() {
    let server = TestServer::with(|app| app.subscription_count = true);
    for (channel, query) in [
        ("private-encrypted-x", "protocol=7&client=js"),
        ("private-encrypted-x", "protocol=5&client=java-client"),
        ("private-encrypted-cache-x", "protocol=7&client=js"),
    ] {
        let mut client = server.connect_with(query).await;
        assert_eq!(client.subscribe(channel).await.frame["data"], json!("{}"));
    }
}

#[tokio::test]
async fn s111_ciphertext_is_delivered_byte_for_byte() {
    let server = TestServer::start();
    let mut client = subscribed(&server, "private-encrypted-x").await;
    for ciphertext in [
        r#"{"nonce":"c2l4IG11c3QgYmUgdHdlbnR5LWZvdXI=","ciphertext":"AAECAwQF+/8="}"#,
        r#"{ "ciphertext" : "AA==" ,  "nonce":"\u0041" }"#,
    ] {
        server.rest().publish("private-encrypted-x", "secret", ciphertext).await;
        client.expect_event("secret", "private-encrypted-x", ciphertext).await;
    }
}

#[tokio::test]
async fn s112_an_encrypted_channel_without_auth_is_refused() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    for auth in [Value::Null, json!(""), json!("tw-demo-key:00")] {
        client.send_subscribe(json!({"channel": "private-encrypted-x", "auth": auth})).await;
        client.expect_refusal().await;
    }
}

#[tokio::test]
async fn s113_both_subscribers_are_told_the_count_of_two() {
    let server = TestServer::with(|app| app.subscription_count = true);
    let mut first = subscribed(&server, "news").await;
    first.expect_event(COUNT, "news", r#"{"subscription_count":1}"#).await;
    let mut second = subscribed(&server, "news").await;
    for client in [&mut first, &mut second] {
        let count = client.next_event().await;
        let expected = json!({"event": COUNT, "channel": "news", "data": "{\"subscription_count\":2}"});
        assert_eq!(count.frame, expected);
    }
    second.unsubscribe("news").await;
    first.expect_event(COUNT, "news", r#"{"subscription_count":1}"#).await;
    second.assert_silent().await;
}

#[tokio::test]
async fn s113_every_channel_but_presence_is_counted() {
    let server = TestServer::with(|app| app.subscription_count = true);
    for channel in ["private-x", "private-encrypted-x"] {
        let mut client = subscribed(&server, channel).await;
        client.expect_event(COUNT, channel, r#"{"subscription_count":1}"#).await;
    }
    let mut client = subscribed(&server, "cache-x").await;
    client.expect("pusher:cache_miss").await;
    client.expect_event(COUNT, "cache-x", r#"{"subscription_count":1}"#).await;
}

#[tokio::test]
async fn s113_java_gets_no_count_on_an_encrypted_channel() {
    let server = TestServer::with(|app| app.subscription_count = true);
    let mut java = server.connect_with("protocol=5&client=java-client").await;
    java.subscribe("private-encrypted-x").await;
    let mut other = subscribed(&server, "private-encrypted-x").await;
    other.expect_event(COUNT, "private-encrypted-x", r#"{"subscription_count":2}"#).await;
    java.assert_silent().await;
}

#[tokio::test]
async fn s114_without_the_feature_nobody_is_told_a_count() {
    let server = TestServer::start();
    let mut first = subscribed(&server, "news").await;
    let mut second = subscribed(&server, "news").await;
    second.assert_silent().await;
    second.unsubscribe("news").await;
    first.assert_silent().await;
}

#[tokio::test]
async fn s114_presence_channels_have_no_count_frames() {
    let server = TestServer::with(|app| app.subscription_count = true);
    for channel in ["presence-x", "presence-cache-x"] {
        let mut client = server.connect().await;
        client.join(channel, "u-1").await;
        let others = client.pending_events().await;
        assert!(others.iter().all(|event| event.event != COUNT), "{others:?}");
    }
}

#[tokio::test]
async fn s115_a_large_channel_is_counted_once_in_five_seconds() {
    const LARGE: usize = 101;
    const MORE: usize = 50;
    let server = TestServer::with(|app| app.subscription_count = true);
    let mut clients = Vec::with_capacity(LARGE + MORE);
    for _ in 0..LARGE {
        clients.push(subscribed(&server, "news").await);
    }
    clients[0].pending_events().await;
    server.advance(6);
    clients[0].pending_events().await;

    let joining = std::time::Instant::now();
    for _ in 0..MORE {
        clients.push(subscribed(&server, "news").await);
    }
    let during = counts(clients[0].pending_events().await);
    let quick = joining.elapsed().as_secs() < 4;
    assert!(!quick || during.len() <= 1, "at most one count in five seconds: {during:?}");

    server.advance(6);
    let last = loop {
        let count = clients[0].expect(COUNT).await.json()["subscription_count"].as_u64();
        if count == Some((LARGE + MORE) as u64) {
            break count;
        }
    };
    assert_eq!(last, Some(151));
    clients[0].assert_silent().await;
}

fn counts(events: Vec<crate::common::Event>) -> Vec<u64> {
    let counts = events.iter().filter(|event| event.event == COUNT);
    counts.filter_map(|event| event.json()["subscription_count"].as_u64()).collect()
}
