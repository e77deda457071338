//! What one peer may hold, and how everything is given back.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::{Frame, TestServer, eventually};

#[tokio::test]
async fn a_connection_holds_a_limited_number_of_subscriptions() {
    let server = TestServer::with(|app| app.limits.max_subscriptions_per_connection = 3);
    let mut client = server.connect().await;
    for channel in ["a", "private-b", "c"] {
        client.subscribe(channel).await;
    }
    for channel in ["d", "private-d"] {
        client.request(channel, None).await;
        let message = client.expect_refusal().await;
        assert!(message.contains('3'), "{message}");
    }
    client.unsubscribe("c").await;
    client.subscribe("d").await;
    server.rest().publish("d", "e", "1").await;
    client.expect_event("e", "d", "1").await;
    server.assert_serves_others().await;
}

#[tokio::test]
async fn thousands_of_subscriptions_of_one_connection_all_work_and_all_go() {
    const CHANNELS: usize = 3_000;
    let server = TestServer::start();
    let mut client = server.connect().await;
    for number in 0..CHANNELS {
        client.subscribe(&format!("c-{number}")).await;
    }
    for number in [0, CHANNELS / 2, CHANNELS - 1] {
        let channel = format!("c-{number}");
        server.rest().publish(&channel, "e", "1").await;
        client.expect_event("e", &channel, "1").await;
    }
    client.close().await;
    eventually("all channels to be free", async || {
        server.rest().read("/channels", &[]).await == json!({"channels": {}})
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_refused_requests_is_answered_one_by_one() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    let nonsense = crate::common::websocket::frame(true, 1, b"nonsense");
    client.socket.send_bytes(&nonsense.repeat(2_000)).await;
    for _ in 0..2_000 {
        client.expect_error(None).await;
    }
    client.assert_silent().await;
    server.assert_serves_others().await;
}

#[tokio::test]
async fn a_peer_that_asks_and_never_reads_is_closed() {
    let server = TestServer::with_config(|config| config.server.outbox_bytes = 64 * 1024);
    let mut client = server.connect().await;
    let ping = crate::common::websocket::frame(true, 1, br#"{"event":"pusher:ping"}"#).repeat(1_000);
    let deadline = Instant::now() + Duration::from_secs(30);
    // Either the server closes it or it stops reading; the bound is what matters.
    while server.inner().node().connection_count() > 0 && Instant::now() < deadline {
        let writing = client.socket.try_send_bytes(&ping);
        if tokio::time::timeout(Duration::from_millis(500), writing).await.is_err() {
            break;
        }
    }
    server.assert_serves_others().await;
}

#[tokio::test]
async fn a_thousand_connections_come_and_go_without_a_trace() {
    let server = TestServer::start();
    for _ in 0..10 {
        let mut clients = Vec::new();
        for number in 0..100 {
            let mut client = server.connect().await;
            client.subscribe("news").await;
            client.join_with("presence-a", &format!(r#"{{"user_id":"u-{}"}}"#, number % 7)).await;
            clients.push(client);
        }
        for (number, client) in clients.into_iter().enumerate() {
            if number % 2 == 0 { client.reset() } else { drop(client) }
        }
    }
    eventually("no connection to be left", async || server.inner().node().connection_count() == 0).await;
    assert_eq!(server.rest().read("/channels", &[]).await, json!({"channels": {}}));
    server.assert_serves_others().await;
}

#[tokio::test]
async fn connections_that_an_app_refuses_use_no_place_of_the_node() {
    let server = TestServer::with_config(|config| {
        config.server.max_connections = 3;
        config.apps[0].limits.max_connections = 1;
        config.apps.push(tidewire::config::AppConfig::new("43", "other-key", "other-secret"));
    });
    let _held = server.connect().await;
    for _ in 0..10 {
        assert_eq!(server.refusal("/app/tw-demo-key?protocol=7").await, 4004);
    }
    let other = "/app/other-key?protocol=7";
    let mut sockets = [server.upgrade(other).await.upgraded(), server.upgrade(other).await.upgraded()];
    for socket in &mut sockets {
        let Frame::Text(greeting) = socket.next_frame().await else { panic!("the first frame is text") };
        assert!(greeting.contains("pusher:connection_established"), "{greeting}");
    }
    assert_eq!(server.refusal(other).await, 4100);
}

#[tokio::test]
async fn a_drain_closes_everybody_and_ends() {
    let server = TestServer::with_config(|config| config.server.drain_seconds = 1);
    let mut clients = Vec::new();
    for _ in 0..50 {
        let mut client = server.connect().await;
        client.subscribe("news").await;
        clients.push(client);
    }
    let started = Instant::now();
    let reading = async {
        for client in &mut clients {
            client.expect_close(4200).await;
        }
    };
    tokio::join!(server.inner().drain(), reading);
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(server.inner().node().connection_count(), 0);
}

#[tokio::test]
async fn a_drain_does_not_wait_for_the_dead() {
    let server = TestServer::with_config(|config| config.server.drain_seconds = 0);
    let mut dead = Vec::new();
    for _ in 0..5 {
        dead.push(server.connect().await);
    }
    let started = Instant::now();
    // Nobody reads, nobody answers the close.
    server.inner().drain().await;
    assert!(started.elapsed() < Duration::from_secs(7), "{:?}", started.elapsed());
    for client in &mut dead {
        assert!(matches!(client.next_frame().await, Frame::Close(Some(4200), _)));
    }
}

#[tokio::test]
async fn stopping_the_server_ends_every_connection() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    drop(server);
    assert!(matches!(client.next_frame().await, Frame::Eof | Frame::Close(..)));
}

#[tokio::test]
async fn refused_clients_that_do_not_hang_up_leave_room_for_others() {
    let server = TestServer::with_config(|config| config.server.max_handshakes = 1);
    let mut lingering = Vec::new();
    for _ in 0..6 {
        lingering.push(server.upgrade("/app/nobody?protocol=7").await.upgraded());
    }
    server.connect().await.subscribe("news").await;
}
