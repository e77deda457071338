//! 9.1 Opening a connection.

use std::collections::HashSet;

use tidewire::config::{AppConfig, Credential, Secret};

use crate::common::{Client, Event, Frame, HttpConnection, TestServer, Upgrade, demo_app, eventually};

const STOCK_QUERY: &str = "protocol=7&client=js&version=8.6.0&flash=false";

/// A socket id is two runs of digits around one dot.
fn is_socket_id(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once('.').is_some_and(|(first, second)| digits(first) && digits(second))
}

#[tokio::test]
async fn s001_a_stock_upgrade_is_answered_101_and_greeted_first() {
    let server = TestServer::start();
    let mut socket = server.upgrade(&format!("/app/tw-demo-key?{STOCK_QUERY}")).await.upgraded();
    let Frame::Text(first) = socket.next_frame().await else { panic!("the first frame is text") };
    assert_eq!(Event::parse(&first).event, "pusher:connection_established");
}

#[tokio::test]
async fn s002_the_greeting_carries_its_data_as_a_string() {
    let server = TestServer::start();
    let mut socket = server.upgrade("/app/tw-demo-key?protocol=7").await.upgraded();
    let Frame::Text(first) = socket.next_frame().await else { panic!("the first frame is text") };
    assert!(Event::parse(&first).frame["data"].is_string(), "{first}");
}

#[tokio::test]
async fn s003_the_greeting_names_a_socket_id_of_digits_dot_digits() {
    let server = TestServer::start();
    for _ in 0..50 {
        let client = server.connect().await;
        assert!(is_socket_id(&client.socket_id), "{}", client.socket_id);
        for half in client.socket_id.split('.') {
            assert!(!half.starts_with('0'), "no leading zeros: {}", client.socket_id);
            assert!(half.parse::<u64>().expect("digits") < 1 << 53, "exact in JavaScript");
        }
    }
}

#[tokio::test]
async fn s004_the_greeting_names_an_activity_timeout_of_120_seconds_or_as_configured() {
    let server = TestServer::start();
    assert_eq!(server.connect().await.activity_timeout, 120);

    let server = TestServer::with(|app| app.limits.activity_timeout_seconds = 30);
    assert_eq!(server.connect().await.activity_timeout, 30);
}

#[tokio::test]
async fn s005_without_any_query_a_connection_is_treated_as_protocol_7() {
    let server = TestServer::start();
    let socket = server.upgrade("/app/tw-demo-key").await.upgraded();
    let mut client = Client::greeted(socket, server.rest()).await;
    client.subscribe("news").await;
}

#[tokio::test]
async fn s005_a_strict_server_refuses_a_missing_version_with_4008() {
    let server = TestServer::with_config(|config| config.server.require_protocol_version = true);
    assert_eq!(server.refusal("/app/tw-demo-key").await, 4008);
    server.connect().await;
}

#[tokio::test]
async fn s006_protocol_5_of_java_and_dotnet_is_accepted() {
    let server = TestServer::start();
    server.connect_with("client=java-client&protocol=5&version=2.4.4").await.subscribe("news").await;
    server.connect_with("protocol=5&client=pusher-dotnet-client&version=2.3.1").await.subscribe("news").await;
}

#[tokio::test]
async fn s007_protocol_6_of_pysher_is_accepted() {
    let server = TestServer::start();
    server.connect_with("client=Pysher&version=0.6.0&protocol=6").await.subscribe("news").await;
}

#[tokio::test]
async fn s008_protocol_3_is_refused_with_4007() {
    let server = TestServer::start();
    for protocol in ["1", "2", "3"] {
        assert_eq!(server.refusal(&format!("/app/tw-demo-key?protocol={protocol}")).await, 4007);
    }
}

#[tokio::test]
async fn s009_protocol_8_or_no_number_is_refused_with_4007() {
    let server = TestServer::start();
    for protocol in ["8", "abc", "99999999999999999999", "-7", "7.0"] {
        assert_eq!(
            server.refusal(&format!("/app/tw-demo-key?protocol={protocol}")).await,
            4007,
            "{protocol}"
        );
    }
}

#[tokio::test]
async fn s010_an_odd_library_version_is_accepted() {
    let server = TestServer::start();
    for version in ["garbage", "", "%00", "..", "8.6.0-SNAPSHOT"] {
        server.connect_with(&format!("protocol=7&client=js&version={version}")).await;
    }
}

#[tokio::test]
async fn s011_unknown_query_parameters_are_ignored() {
    let server = TestServer::start();
    server.connect_with("protocol=7&foo=1&bar&=&&tw_unknown=x&foo=2").await.subscribe("news").await;
}

#[tokio::test]
async fn s012_an_unknown_key_is_refused_with_4001_after_the_upgrade() {
    let server = TestServer::start();
    assert_eq!(server.refusal(&format!("/app/unknown-key?{STOCK_QUERY}")).await, 4001);
    assert_eq!(server.refusal(&format!("/app/TW-DEMO-KEY?{STOCK_QUERY}")).await, 4001, "keys match by byte");
    assert_eq!(server.refusal(&format!("/app/42?{STOCK_QUERY}")).await, 4001, "an id is not a key");
}

#[tokio::test]
async fn s013_an_empty_key_is_refused_with_4001() {
    let server = TestServer::start();
    assert_eq!(server.refusal("/app/?protocol=7").await, 4001);
}

#[tokio::test]
async fn s014_another_path_is_refused_with_4005() {
    let server = TestServer::start();
    for path in ["/nope", "/", "/apps/tw-demo-key", "/app/tw-demo-key/more"] {
        assert_eq!(server.refusal(&format!("{path}?protocol=7")).await, 4005, "{path}");
    }
}

#[tokio::test]
async fn s015_a_disabled_app_is_refused_with_4003() {
    let server = TestServer::with(|app| app.enabled = false);
    assert_eq!(server.refusal("/app/tw-demo-key?protocol=7").await, 4003);
}

#[tokio::test]
async fn s016_an_app_that_requires_tls_is_refused_over_plain_with_4000() {
    let server = TestServer::with(|app| app.require_tls = true);
    assert_eq!(server.refusal("/app/tw-demo-key?protocol=7").await, 4000);
}

#[tokio::test]
async fn s016_a_trusted_proxy_vouches_for_tls() {
    let server = TestServer::with(|app| app.require_tls = true);
    let through_tls = Upgrade::get("/app/tw-demo-key?protocol=7").header("X-Forwarded-Proto", "https");
    let socket = through_tls.send(server.addr()).await.upgraded();
    Client::greeted(socket, server.rest()).await;
    let through_plain = Upgrade::get("/app/tw-demo-key?protocol=7").header("X-Forwarded-Proto", "http");
    assert_eq!(server.refused(through_plain).await.code, 4000);
}

#[tokio::test]
async fn s016_a_stranger_cannot_vouch_for_tls() {
    let server = TestServer::with_config(|config| {
        config.apps[0].require_tls = true;
        config.server.trusted_proxies.clear();
    });
    let claim = Upgrade::get("/app/tw-demo-key?protocol=7").header("X-Forwarded-Proto", "https");
    assert_eq!(server.refused(claim).await.code, 4000);
}

#[tokio::test]
async fn s017_a_full_app_refuses_with_4004_and_serves_again_once_a_place_is_free() {
    let server = TestServer::with(|app| app.limits.max_connections = 2);
    let mut first = server.connect().await;
    let second = server.connect().await;
    for _ in 0..5 {
        assert_eq!(server.refusal("/app/tw-demo-key?protocol=7").await, 4004);
    }
    first.subscribe("news").await;
    server.rest().publish("news", "still-here", "1").await;
    first.expect_event("still-here", "news", "1").await;

    second.close().await;
    eventually("a place in the app", async || {
        let mut socket = server.upgrade("/app/tw-demo-key?protocol=7").await.upgraded();
        let Frame::Text(text) = socket.next_frame().await else { panic!("the first frame is text") };
        Event::parse(&text).event == "pusher:connection_established"
    })
    .await;
}

#[tokio::test]
async fn s017_refused_and_lost_connections_leak_no_place() {
    let server = TestServer::with(|app| app.limits.max_connections = 1);
    for round in 0..20 {
        let mut held = None;
        eventually("the only place", async || {
            let mut socket = server.upgrade("/app/tw-demo-key?protocol=7").await.upgraded();
            let Frame::Text(text) = socket.next_frame().await else { panic!("the first frame is text") };
            let accepted = Event::parse(&text).event == "pusher:connection_established";
            held = accepted.then_some(socket);
            accepted
        })
        .await;
        assert_eq!(server.refusal("/app/tw-demo-key?protocol=7").await, 4004);
        assert_eq!(server.refusal("/app/tw-demo-key?protocol=3").await, 4007);
        let held = held.expect("the round holds a connection");
        if round % 2 == 0 { held.reset() } else { drop(held) }
    }
}

#[tokio::test]
async fn s018_an_origin_outside_the_allow_list_is_refused_with_4009() {
    let server = TestServer::with(|app| {
        app.allowed_origins =
            vec!["https://app.example.com".into(), "*.example.org".into(), "localhost".into()];
    });
    let from = |origin: &str| Upgrade::get("/app/tw-demo-key?protocol=7").header("Origin", origin);
    for origin in
        ["https://evil.test", "https://app.example.com.evil.test", "https://evilexample.org", "null"]
    {
        assert_eq!(server.refused(from(origin)).await.code, 4009, "{origin}");
    }
    for origin in ["https://app.example.com", "https://a.example.org", "http://localhost:5173"] {
        Client::greeted(from(origin).send(server.addr()).await.upgraded(), server.rest()).await;
    }
}

#[tokio::test]
async fn s018_without_an_allow_list_every_origin_may_connect() {
    let server = TestServer::start();
    let upgrade = Upgrade::get("/app/tw-demo-key?protocol=7").header("Origin", "https://anywhere.test");
    Client::greeted(upgrade.send(server.addr()).await.upgraded(), server.rest()).await;
}

/// `TestServer::refused` checks the shape of each refusal; here stands one of every kind.
#[tokio::test]
async fn s019_every_refusal_has_an_object_with_a_number_equal_to_the_close_code() {
    let other = |id: &str, key: &str| AppConfig { ..AppConfig::new(id, key, "secret") };
    let server = TestServer::with_config(|config| {
        config.apps.push(AppConfig { enabled: false, ..other("1", "disabled") });
        config.apps.push(AppConfig { require_tls: true, ..other("2", "tls") });
        config.apps.push(AppConfig { allowed_origins: vec!["a.test".into()], ..other("3", "origin") });
        let mut full = other("4", "full");
        full.limits.max_connections = 1;
        config.apps.push(full);
    });
    let mut holder = server.upgrade("/app/full?protocol=7").await.upgraded();
    let Frame::Text(_) = holder.next_frame().await else { panic!("the first frame is text") };
    for (target, origin, code) in [
        ("/app/tls?protocol=7", "https://a.test", 4000),
        ("/app/unknown?protocol=7", "https://a.test", 4001),
        ("/app/disabled?protocol=7", "https://a.test", 4003),
        ("/nope", "https://a.test", 4005),
        ("/app/origin?protocol=2", "https://a.test", 4007),
        ("/app/origin?protocol=7", "https://b.test", 4009),
    ] {
        let refusal = server.refused(Upgrade::get(target).header("Origin", origin)).await;
        assert_eq!(refusal.code, code, "{target}");
    }
    assert_eq!(server.refusal("/app/full?protocol=7").await, 4004);
}

#[tokio::test]
async fn s019_the_first_condition_of_the_table_decides() {
    let server = TestServer::with(|app| {
        app.enabled = false;
        app.require_tls = true;
        app.allowed_origins = vec!["a.test".into()];
    });
    assert_eq!(server.refusal("/nope?protocol=1").await, 4005);
    assert_eq!(server.refusal("/app/other?protocol=1").await, 4001);
    assert_eq!(server.refusal("/app/tw-demo-key?protocol=1").await, 4003);

    let server = TestServer::with(|app| {
        app.require_tls = true;
        app.allowed_origins = vec!["a.test".into()];
    });
    assert_eq!(server.refusal("/app/tw-demo-key?protocol=1").await, 4000);
}

#[tokio::test]
async fn s019_clients_below_protocol_6_get_frame_and_close_too() {
    let server = TestServer::start();
    assert_eq!(server.refusal("/app/unknown?protocol=5&client=java-client").await, 4001);
    assert_eq!(server.refusal("/app/unknown?protocol=6&client=Pysher").await, 4001);
}

#[tokio::test]
async fn s020_the_sub_protocol_of_pusher_is_selected() {
    let server = TestServer::start();
    let offers = [
        ("pusher-channels-protocol-7", "pusher-channels-protocol-7"),
        ("chat, pusher-channels-protocol-7", "pusher-channels-protocol-7"),
    ];
    for (offer, selected) in offers {
        let upgrade =
            Upgrade::get("/app/tw-demo-key?client=pusher-websocket-swift&version=10.1.10&protocol=7");
        let handshake = upgrade.header("Sec-WebSocket-Protocol", offer).send(server.addr()).await;
        assert_eq!(handshake.header("sec-websocket-protocol"), Some(selected), "{offer}");
        Client::greeted(handshake.upgraded(), server.rest()).await;
    }
}

#[tokio::test]
async fn s021_no_sub_protocol_is_selected_when_none_of_ours_was_offered() {
    let server = TestServer::start();
    let plain = server.upgrade("/app/tw-demo-key?protocol=7").await;
    assert_eq!(plain.header("sec-websocket-protocol"), None);

    let foreign = Upgrade::get("/app/tw-demo-key?protocol=7").header("Sec-WebSocket-Protocol", "chat");
    let handshake = foreign.send(server.addr()).await;
    assert_eq!(handshake.header("sec-websocket-protocol"), None);
    handshake.upgraded();
}

#[tokio::test]
async fn s022_repeated_slashes_in_the_path_collapse() {
    let server = TestServer::start();
    for path in ["//app/tw-demo-key", "/app//tw-demo-key", "///app///tw-demo-key"] {
        let socket = server.upgrade(&format!("{path}?{STOCK_QUERY}")).await.upgraded();
        Client::greeted(socket, server.rest()).await;
    }
}

#[tokio::test]
async fn s023_a_configured_prefix_stands_before_the_path() {
    let server = TestServer::with_config(|config| config.server.path_prefix = "/ws".into());
    for path in ["/ws/app/tw-demo-key", "/ws//app/tw-demo-key", "//ws/app/tw-demo-key"] {
        let socket = server.upgrade(&format!("{path}?protocol=7")).await.upgraded();
        Client::greeted(socket, server.rest()).await;
    }
    assert_eq!(server.refusal("/wsapp/tw-demo-key?protocol=7").await, 4005);
    assert_eq!(server.refusal("/other/app/tw-demo-key?protocol=7").await, 4005);
}

#[tokio::test]
async fn s024_a_plain_get_is_answered_426() {
    let server = TestServer::start();
    let mut connection = HttpConnection::open(server.addr()).await;
    connection.write(b"GET /app/tw-demo-key HTTP/1.1\r\nHost: tidewire.test\r\n\r\n").await.unwrap();
    let answer = connection.response().await;
    assert_eq!(answer.status, 426);
    assert!(answer.header("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")));
}

#[tokio::test]
async fn s025_ten_thousand_connections_get_ten_thousand_socket_ids() {
    const CONNECTIONS: usize = 10_000;
    const AT_ONCE: usize = 50;
    let server = TestServer::start();
    let mut seen = HashSet::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS / AT_ONCE {
        let mut batch = Vec::with_capacity(AT_ONCE);
        for _ in 0..AT_ONCE {
            batch.push(server.connect().await);
        }
        for client in batch {
            assert!(seen.insert(client.socket_id.clone()), "{} was given twice", client.socket_id);
            // A reset leaves no port in TIME_WAIT.
            client.reset();
        }
    }
    assert_eq!(seen.len(), CONNECTIONS);
}

#[tokio::test]
async fn s026_a_draining_server_closes_with_4200_and_refuses_with_4200() {
    let server = TestServer::with_config(|config| config.server.drain_seconds = 2);
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(server.connect().await);
    }
    let draining = server.inner().drain();
    let observing = async {
        eventually("new connections to be refused", async || {
            let mut socket = server.upgrade("/app/tw-demo-key?protocol=7").await.upgraded();
            let Frame::Text(text) = socket.next_frame().await else { panic!("the first frame is text") };
            Event::parse(&text).event == "pusher:error"
        })
        .await;
        assert_eq!(server.refusal("/app/tw-demo-key?protocol=7").await, 4200);
        for client in &mut clients {
            client.expect_close(4200).await;
        }
    };
    tokio::join!(draining, observing);
}

#[tokio::test]
async fn s027_a_full_node_refuses_with_4100() {
    let server = TestServer::with_config(|config| {
        config.server.max_connections = 2;
        config.apps.push(AppConfig::new("43", "other-key", "other-secret"));
    });
    let _first = server.connect().await;
    let _second = server.connect().await;
    assert_eq!(server.refusal("/app/tw-demo-key?protocol=7").await, 4100);
    assert_eq!(server.refusal("/app/other-key?protocol=7").await, 4100, "the limit is the node's");
}

#[tokio::test]
async fn an_app_may_own_several_keys() {
    let server = TestServer::with_config(|config| {
        let mut app = demo_app();
        app.credentials.push(Credential { key: "second-key".into(), secret: Secret::new("second-secret") });
        config.apps = vec![app];
    });
    let socket = server.upgrade("/app/second-key?protocol=7").await.upgraded();
    let mut client = Client::greeted(socket, server.rest()).await;
    client.subscribe("private-a").await;
    server.rest_as("second-key", "second-secret").publish("private-a", "e", "1").await;
    client.expect_event("e", "private-a", "1").await;
}
