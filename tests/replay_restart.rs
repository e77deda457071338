//! The log on disk: it outlives the server, and is opened when an app first asks for it.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a failing test panics")]

#[path = "common/mod.rs"]
mod common;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use tidewire::Server;
use tidewire::config::{AppConfig, AppReplay, Config, StoreKind};

use common::{Client, HttpConnection, TestServer, demo_app, eventually};

/// A directory that goes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tidewire-restart-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Where the store is: not there yet.
    fn store(&self) -> PathBuf {
        self.0.join("data").join("replay")
    }

    fn server(&self) -> TestServer {
        TestServer::with_config(|config| self.set(config, storing_app()))
    }

    fn set(&self, config: &mut Config, app: AppConfig) {
        config.apps = vec![app];
        config.replay.store = StoreKind::Sqlite;
        config.replay.dir = self.store();
    }

    fn config(&self, app: AppConfig) -> Config {
        let mut config = Config::for_tests(Vec::new());
        self.set(&mut config, app);
        config
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn storing_app() -> AppConfig {
    let mut replay = AppReplay::everything();
    replay.rules[0].max_messages = 1_000_000;
    replay.rules[0].max_bytes = 1 << 30;
    AppConfig { replay, ..demo_app() }
}

/// Subscribes to `orders` and gives what the server says about replay.
async fn subscribe(client: &mut Client, replay: Value) -> Value {
    client.send_subscribe(json!({ "channel": "orders", "replay": replay })).await;
    client.succeeded("orders").await.frame["replay"].clone()
}

fn position(answer: &Value) -> String {
    format!("{}:{}", answer["epoch"].as_str().unwrap(), answer["serial"])
}

/// The data of everything that is kept of `orders`, oldest first.
async fn kept(server: &TestServer) -> Vec<String> {
    let mut kept = Vec::new();
    let mut cursor = None::<String>;
    loop {
        let mut query = vec![("direction", "forward"), ("limit", "1000")];
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let page = server.rest().read("/channels/orders/history", &query).await;
        let items = page["items"].as_array().unwrap();
        kept.extend(items.iter().map(|item| item["data"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) if !items.is_empty() => cursor = Some(next.to_owned()),
            _ => return kept,
        }
    }
}

#[tokio::test]
async fn a_client_goes_on_where_it_was_when_the_server_is_back() {
    let directory = Directory::new();
    let server = directory.server();
    let mut client = server.connect().await;
    let before = subscribe(&mut client, json!({ "v": 1 })).await;
    for data in ["1", "2", "3"] {
        server.rest().publish("orders", "e", data).await;
    }
    drop(server);

    let server = directory.server();
    let mut client = server.connect().await;
    let answer = subscribe(&mut client, json!({ "v": 1, "from": position(&before) })).await;
    assert_eq!(
        (&answer["recovered"], &answer["count"], &answer["serial"]),
        (&json!(true), &json!(3), &json!(3))
    );
    // It was stopped in order: nothing can be lost, and the generation is the same.
    assert_eq!(answer["epoch"], before["epoch"]);
    for data in ["1", "2", "3"] {
        client.expect_event("e", "orders", data).await;
    }
    client.expect("pusher_internal:replay_done").await;
    server.rest().publish("orders", "e", "4").await;
    let event = client.expect_event("e", "orders", "4").await;
    assert_eq!(event.frame["serial"], json!(4));
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_stop_in_full_flow() {
    let directory = Directory::new();
    let server = directory.server();
    let rest = server.rest();
    let publishers: Vec<_> = (0..8)
        .map(|publisher| {
            let rest = rest.clone();
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                let mut connection = HttpConnection::open(rest.addr).await;
                for number in 0.. {
                    let data = format!("{publisher}-{number}");
                    let body = json!({ "name": "e", "channels": ["orders"], "data": data }).to_string();
                    let call = rest.post("/apps/42/events", body);
                    if connection.write(&call.bytes()).await.is_err() {
                        break;
                    }
                    match connection.try_response().await {
                        Some(answer) if answer.status == 200 => acknowledged.push(data),
                        _ => break,
                    }
                }
                acknowledged
            })
        })
        .collect();
    eventually("some messages are stored", async || server.inner().node().metrics.replay.stored.get() > 200)
        .await;
    tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
    let mut acknowledged = Vec::new();
    for publisher in publishers {
        acknowledged.extend(publisher.await.unwrap());
    }
    assert!(acknowledged.len() >= 100, "{}", acknowledged.len());

    let kept = kept(&directory.server()).await;
    for data in &acknowledged {
        assert_eq!(kept.iter().filter(|kept| *kept == data).count(), 1, "{data}");
    }
}

#[tokio::test]
async fn an_app_may_begin_to_store_while_the_server_runs() {
    let directory = Directory::new();
    let server = TestServer::with_config(|config| directory.set(config, demo_app()));
    server.rest().publish("orders", "e", "unstored").await;
    assert!(server.inner().node().replay.get().is_none());
    assert!(!directory.store().exists());

    server.inner().reload(directory.config(storing_app())).unwrap();
    let mut client = server.connect().await;
    let start = subscribe(&mut client, json!({ "v": 1 })).await;
    server.rest().publish("orders", "e", "stored").await;
    client.expect_event("e", "orders", "stored").await;
    assert!(directory.store().exists());

    // Nor is anything lost that was stored when the app stops storing.
    server.inner().reload(directory.config(demo_app())).unwrap();
    server.inner().reload(directory.config(storing_app())).unwrap();
    let mut late = server.connect().await;
    let answer = subscribe(&mut late, json!({ "v": 1, "from": position(&start) })).await;
    assert_eq!(answer["recovered"], json!(true), "{answer}");
    late.expect_event("e", "orders", "stored").await;
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_named() {
    let directory = Directory::new();
    std::fs::write(directory.0.join("data"), "a file").unwrap();
    let names = |error: &anyhow::Error, path: &Path| {
        let text = format!("{error:#}");
        assert!(text.contains(path.to_str().unwrap()), "{text}");
    };
    let error = Server::start(directory.config(storing_app())).unwrap_err();
    names(&error, &directory.store());

    // A server that runs goes on as it was.
    let server = TestServer::with_config(|config| directory.set(config, demo_app()));
    let mut app = storing_app();
    app.client_events = false;
    names(&server.inner().reload(directory.config(app)).unwrap_err(), &directory.store());
    server.assert_serves_others().await;
    assert!(server.inner().apps().by_id("42").unwrap().settings().client_events);
    assert_eq!(server.inner().broken(), None);
}

#[tokio::test]
async fn two_servers_do_not_share_a_directory() {
    let directory = Directory::new();
    let server = directory.server();
    let error = Server::start(directory.config(storing_app())).unwrap_err();
    assert!(format!("{error:#}").contains(directory.store().to_str().unwrap()), "{error:#}");
    server.rest().publish("orders", "e", "1").await;
    assert_eq!(kept(&server).await, ["1"]);
}

#[tokio::test]
async fn a_store_that_has_failed_breaks_the_server() {
    let directory = Directory::new();
    let server = directory.server();
    let node = server.inner().node();
    assert_eq!(server.inner().broken(), None);
    node.replay.get().unwrap().read(Box::new(|_, _| panic!("a bug"))).unwrap();
    eventually("the server knows", async || server.inner().broken().is_some()).await;
    eventually("the metric tells", async || node.metrics.replay.store_up.get() == 0).await;
    // Nothing is acknowledged any more, and other channels go on until the process ends.
    let answer = server.rest().trigger(json!({ "name": "e", "data": "1", "channels": ["orders"] })).await;
    assert_eq!(answer.status, 503, "{}", answer.body);
}
