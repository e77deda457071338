//! 9.8 Delivery.

use serde_json::json;

use crate::common::{Frame, HttpConnection, TestServer, WebSocket, eventually};

#[tokio::test]
async fn s129_events_arrive_in_the_order_of_their_publisher() {
    let server = TestServer::start();
    let mut subscribers = Vec::new();
    for _ in 0..8 {
        let mut client = server.connect().await;
        client.subscribe("news").await;
        subscribers.push(client);
    }
    let mut publisher = HttpConnection::open(server.addr()).await;
    for serial in 1..=100 {
        let body = json!({"name": "e", "data": serial.to_string(), "channels": ["news"]});
        let answer = publisher.exchange(server.rest().post("/apps/42/events", body.to_string())).await;
        assert_eq!(answer.status, 200);
    }
    for client in &mut subscribers {
        for serial in 1..=100 {
            client.expect_event("e", "news", &serial.to_string()).await;
        }
        client.assert_silent().await;
    }
}

#[tokio::test]
async fn s129_two_publishers_are_seen_in_one_order_by_all() {
    let server = TestServer::start();
    let mut subscribers = Vec::new();
    for _ in 0..6 {
        let mut client = server.connect().await;
        client.subscribe("news").await;
        subscribers.push(client);
    }
    let publishers: Vec<_> = ["a", "b"]
        .map(|name| {
            let rest = server.rest();
            tokio::spawn(async move {
                for serial in 0..100 {
                    rest.publish("news", name, &serial.to_string()).await;
                }
            })
        })
        .into_iter()
        .collect();
    for publisher in publishers {
        publisher.await.unwrap();
    }
    let mut orders = Vec::new();
    for client in &mut subscribers {
        let mut order = Vec::new();
        for _ in 0..200 {
            let event = client.next_event().await;
            order.push((event.event, event.data.unwrap_or_default()));
        }
        client.assert_silent().await;
        orders.push(order);
    }
    for name in ["a", "b"] {
        let serials: Vec<&str> =
            orders[0].iter().filter(|(event, _)| event == name).map(|(_, data)| data.as_str()).collect();
        assert_eq!(serials, (0..100).map(|serial| serial.to_string()).collect::<Vec<_>>());
    }
    assert!(orders.iter().all(|order| *order == orders[0]), "one order per channel");
}

#[tokio::test]
async fn s129_a_large_fan_out_misses_nobody_while_others_come_and_go() {
    const HOLDERS: usize = 1_200;
    const EVENTS: usize = 60;
    // All on one worker, which writes to so many in several turns.
    let server = TestServer::with_config(|config| config.server.workers = 1);
    let mut holders = Vec::with_capacity(HOLDERS);
    for _ in 0..HOLDERS {
        let mut client = server.connect().await;
        client.subscribe("news").await;
        holders.push(client);
    }
    let rest = server.rest();
    let publishing = tokio::spawn(async move {
        for serial in 0..EVENTS {
            rest.publish("news", "e", &serial.to_string()).await;
        }
    });
    // Every third leaves while events are on their way; the last take the places of those that left.
    for (index, client) in holders.iter_mut().enumerate() {
        if index % 3 == 0 {
            client.unsubscribe("news").await;
        }
    }
    let mut late = server.connect().await;
    late.subscribe("news").await;
    publishing.await.unwrap();
    for (index, client) in holders.iter_mut().enumerate() {
        if index % 3 == 0 {
            let seen = client.pending_events().await;
            let serials: Vec<String> = seen.into_iter().filter_map(|event| event.data).collect();
            let expected: Vec<String> = (0..serials.len()).map(|serial| serial.to_string()).collect();
            assert_eq!(serials, expected, "a run from the beginning up to the leave");
        } else {
            for serial in 0..EVENTS {
                client.expect_event("e", "news", &serial.to_string()).await;
            }
        }
    }
    for client in holders.iter_mut().step_by(97) {
        client.assert_silent().await;
    }
    let seen = late.pending_events().await;
    let first = EVENTS - seen.len();
    for (serial, event) in (first..EVENTS).zip(seen) {
        assert_eq!(event.data(), serial.to_string(), "a run from the join to the end");
    }
}

#[tokio::test]
async fn s130_a_delivered_frame_has_three_members() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    for channel in ["news", "private-a", "presence-a"] {
        match channel {
            "presence-a" => client.join(channel, "u-1").await,
            _ => client.subscribe(channel).await,
        };
        let body = json!({"name": "e", "data": "d", "channels": [channel], "socket_id": "1.1",
            "user_id": "forged", "extra": true});
        assert_eq!(server.rest().trigger(body).await.status, 200);
        assert_eq!(client.next_event().await.frame, json!({"event": "e", "channel": channel, "data": "d"}));
    }
}

#[tokio::test]
async fn s131_text_stays_text() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    client.subscribe("news").await;
    for data in ["hello", r#"{"a":1}"#, r#"{ "a" : 1.0 }"#, r#""quoted""#, "12", "null", "[", "{}"] {
        server.rest().publish("news", "e", data).await;
        assert_eq!(client.next_event().await.frame["data"], json!(data));
    }
}

#[tokio::test]
async fn s132_an_excluded_socket_gets_nothing_on_any_channel() {
    let server = TestServer::start();
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = server.connect().await;
        client.subscribe("x").await;
        client.subscribe("y").await;
        clients.push(client);
    }
    for excluded in 0..clients.len() {
        let socket_id = clients[excluded].socket_id.clone();
        server.rest().publish_except(&["x", "y"], "e", "1", &socket_id).await;
        for (index, client) in clients.iter_mut().enumerate() {
            if index == excluded {
                client.assert_silent().await;
            } else {
                let mut channels = vec![client.next_event().await.channel, client.next_event().await.channel];
                channels.sort();
                assert_eq!(channels, [Some("x".to_owned()), Some("y".to_owned())]);
            }
        }
    }
}

#[tokio::test]
async fn s132_a_batch_excludes_item_by_item() {
    let server = TestServer::start();
    let (mut first, mut second) = (server.connect().await, server.connect().await);
    first.subscribe("x").await;
    second.subscribe("x").await;
    let answer = server
        .rest()
        .batch(json!([
            {"name": "one", "data": "1", "channel": "x", "socket_id": first.socket_id},
            {"name": "two", "data": "2", "channel": "x", "socket_id": second.socket_id},
            {"name": "three", "data": "3", "channel": "x"},
        ]))
        .await;
    assert_eq!(answer.status, 200);
    for (client, missed) in [(&mut first, "one"), (&mut second, "two")] {
        for (event, data) in [("one", "1"), ("two", "2"), ("three", "3")] {
            if event != missed {
                client.expect_event(event, "x", data).await;
            }
        }
        client.assert_silent().await;
    }
}

#[tokio::test]
async fn s133_an_unknown_socket_id_excludes_nobody() {
    let server = TestServer::start();
    let mut gone = server.connect().await;
    let gone_id = gone.socket_id.clone();
    gone.subscribe("news").await;
    gone.close().await;
    let mut client = server.connect().await;
    client.subscribe("news").await;
    for socket_id in ["1234.5678", &gone_id, "0.0", "00012.5", "99999999999999999999.99999999999999999999"] {
        server.rest().publish_except(&["news"], "e", socket_id, socket_id).await;
        client.expect_event("e", "news", socket_id).await;
    }
}

#[tokio::test]
async fn s134_every_text_survives() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    client.subscribe("news").await;
    let controls: String = (0u8..32).map(char::from).collect();
    for data in [
        "Grüße, 你好, עברית, 😀👩‍👩‍👧",
        "a\u{0}b",
        "</script><!--",
        "\u{2028}\u{2029}\u{7f}\u{feff}\u{ffff}\u{10ffff}",
        "\\\"/\\u0041\\",
        controls.as_str(),
    ] {
        server.rest().publish("news", "e", data).await;
        client.expect_event("e", "news", data).await;
        // The same, every character escaped, as Python and PHP do.
        let escaped: String = data.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
        let body = format!(r#"{{"name":"e","data":"{escaped}","channels":["news"]}}"#);
        assert_eq!(server.rest().post("/apps/42/events", body).send().await.status, 200);
        client.expect_event("e", "news", data).await;
    }
}

#[tokio::test]
async fn s134_event_names_survive_too() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    client.subscribe("news").await;
    for name in ["Ä😀", "quote\"back\\slash", "</script>", "new\nline", " ", "App\\Events\\Paid"] {
        server.rest().publish("news", name, "1").await;
        client.expect_event(name, "news", "1").await;
    }
}

#[tokio::test]
async fn s135_a_slow_subscriber_is_closed_with_4100_and_others_still_receive() {
    const EVENTS: usize = 500;
    /// After the slow one was closed. It is cut off five seconds later, so there may not be many.
    const MORE: usize = 20;
    let server = TestServer::with_config(|config| config.server.outbox_bytes = 64 * 1024);
    let mut slow = server.connect().await;
    slow.subscribe("news").await;
    let mut fast = Vec::new();
    for _ in 0..4 {
        let mut client = server.connect().await;
        client.subscribe("news").await;
        fast.push(client);
    }
    let padding = "x".repeat(10_000);
    let mut publisher = HttpConnection::open(server.addr()).await;
    let app = server.inner().apps().by_id("42").unwrap();
    let mut more = 0;
    for serial in 0..EVENTS {
        more += usize::from(app.metrics.outbox_overflow.get() > 0);
        if more > MORE {
            break;
        }
        let data = format!("{serial} {padding}");
        let body = json!({"name": "e", "data": data, "channels": ["news"]});
        let answer = publisher.exchange(server.rest().post("/apps/42/events", body.to_string())).await;
        assert_eq!(answer.status, 200);
        // Reading in step: whoever is closed here is closed for another's fault.
        for client in &mut fast {
            client.expect_event("e", "news", &data).await;
        }
    }
    for client in &mut fast {
        client.assert_silent().await;
    }
    assert!(more > MORE, "the slow one was closed");
    drop(fast);
    let received = read_until_close(&mut slow.socket, 4100).await;
    assert!(received < EVENTS, "the slow one missed something");
    eventually("the channel to be empty", async || {
        server.rest().read("/channels/news", &[]).await == json!({"occupied": false})
    })
    .await;
    server.assert_serves_others().await;
}

/// Reads events `0 …`, `1 …` without a gap up to the close frame; how many there were.
async fn read_until_close(socket: &mut WebSocket, code: u16) -> usize {
    for serial in 0.. {
        match socket.next_frame().await {
            Frame::Text(text) => {
                assert!(text.contains(&format!("\"data\":\"{serial} ")), "a gap at {serial}")
            }
            Frame::Close(seen, _) => {
                assert_eq!(seen, Some(code));
                return serial;
            }
            other => panic!("expected close {code}, got {other:?}"),
        }
    }
    0
}
