//! A store that cannot keep what it is given.

use std::sync::{Arc, Mutex};

use serde_json::json;
use tidewire::config::{Config, OnStoreError};
use tidewire::replay::Replay;
use tidewire::replay::memory::MemoryStore;
use tidewire::replay::store::{
    Append, Appended, Caps, Entry, Range, Retention, Stats, Store, StoreError, StreamName,
};
use tidewire_protocol::position::Position;
use tidewire_protocol::replay::Bounds;

use super::{HISTORY, deduplicated, event, keep, kept, keyed, rule};
use crate::common::{TestServer, demo_app};

/// A store in memory that fails when it is told to.
#[derive(Debug)]
pub struct Fragile {
    store: MemoryStore,
    error: Mutex<Option<StoreError>>,
}

impl Fragile {
    pub fn new() -> Arc<Self> {
        let caps = Caps { longest_window_ms: 3_600_000, max_bytes: 1 << 30, app_max_bytes: Vec::new() };
        Arc::new(Self { store: MemoryStore::new(&caps), error: Mutex::default() })
    }

    pub fn fail_with(&self, error: Option<StoreError>) {
        *self.error.lock().unwrap() = error;
    }

    fn check(&self) -> Result<(), StoreError> {
        self.error.lock().unwrap().clone().map_or(Ok(()), Err)
    }
}

impl Store for Fragile {
    fn append(&self, batch: &[Append], now_ms: u64) -> Result<Vec<Appended>, StoreError> {
        self.check()?;
        self.store.append(batch, now_ms)
    }

    fn conflicts(&self, message: &Append, now_ms: u64) -> bool {
        self.store.conflicts(message, now_ms)
    }

    fn position(&self, stream: &StreamName) -> Position {
        self.store.position(stream)
    }

    fn bounds(&self, stream: &StreamName, retention: &Retention, now_ms: u64) -> Result<Bounds, StoreError> {
        self.check()?;
        self.store.bounds(stream, retention, now_ms)
    }

    fn read(&self, stream: &StreamName, range: Range) -> Result<Vec<Entry>, StoreError> {
        let mut entries = self.store.read(stream, range)?;
        for entry in &mut entries {
            // As after a flipped bit on the disk.
            if matches!(entry, Entry::Message(message) if message.content.event.contains("rotten")) {
                *entry = Entry::Unreadable { serial: entry.serial() };
            }
        }
        Ok(entries)
    }

    fn first_since(&self, stream: &StreamName, since_ms: u64) -> Result<u64, StoreError> {
        self.store.first_since(stream, since_ms)
    }

    fn purge(&self, stream: &StreamName, before: u64, now_ms: u64) -> Result<(), StoreError> {
        self.check()?;
        self.store.purge(stream, before, now_ms)
    }

    fn skip(&self, stream: &StreamName) {
        self.store.skip(stream);
    }

    fn set_caps(&self, caps: &Caps) {
        self.store.set_caps(caps);
    }

    fn maintain(&self, now_ms: u64) -> Result<(), StoreError> {
        self.store.maintain(now_ms)
    }

    fn stats(&self) -> Stats {
        self.store.stats()
    }

    fn close(&self) -> Result<(), StoreError> {
        self.store.close()
    }
}

/// A server whose log is this store: it is in its place before an app asks for one.
pub fn serve(store: &Arc<Fragile>, on_store_error: OnStoreError) -> TestServer {
    let server = TestServer::start();
    let node = server.inner().node();
    let open = || {
        let (clock, mailboxes) = (node.clock.clone(), Arc::clone(&node.mailboxes));
        Replay::with_store(
            Arc::clone(store) as _,
            on_store_error,
            clock,
            mailboxes,
            Arc::clone(&node.metrics),
        )
    };
    node.replay.get_or_open(open).unwrap();
    let mut app = demo_app();
    keep(&mut app, vec![rule()]);
    server.inner().reload(Config::for_tests(vec![app])).unwrap();
    server
}

pub fn full() -> StoreError {
    StoreError::Full
}

fn unavailable() -> StoreError {
    StoreError::Unavailable("the disk does not answer".to_owned())
}

#[tokio::test]
async fn nothing_is_published_that_cannot_be_kept() {
    let store = Fragile::new();
    let server = serve(&store, OnStoreError::Reject);
    let mut client = server.connect().await;
    client.subscribe("log-a").await;
    let rest = server.rest();
    for (error, text, seconds) in
        [(full(), "replay.dir", "30"), (unavailable(), "the disk does not answer", "5")]
    {
        store.fail_with(Some(error));
        let answer = rest.trigger(keyed("log-a", "1", "k")).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some(seconds)));
        assert!(
            answer.body.contains(text) && answer.body.contains("nothing was published"),
            "{}",
            answer.body
        );
        client.assert_silent().await;
    }
    store.fail_with(None);
    // The retry is no repetition: the first try came to nothing.
    let answer = rest.trigger(keyed("log-a", "1", "k")).await;
    assert_eq!((answer.status, deduplicated(&answer)), (200, None));
    client.expect_event("e", "log-a", "1").await;
    assert_eq!(kept(&rest).await, ["1"]);
}

#[tokio::test]
async fn channels_that_are_not_stored_go_on() {
    let store = Fragile::new();
    let server = serve(&store, OnStoreError::Reject);
    let mut client = server.connect().await;
    client.subscribe("plain").await;
    store.fail_with(Some(full()));
    let rest = server.rest();
    rest.publish("plain", "e", "1").await;
    client.expect_event("e", "plain", "1").await;
    let both = json!({"name": "e", "data": "2", "channels": ["plain", "log-a"], "idempotency_key": "k"});
    let text = rest.trigger(both.clone()).await.refused(503);
    assert!(text.contains("1 of 2 deliveries were made"), "{text}");
    client.expect_event("e", "plain", "2").await;
    store.fail_with(None);
    let answer = rest.trigger(both).await;
    assert_eq!((answer.status, deduplicated(&answer)), (200, Some("partial")));
    client.assert_silent().await;
    assert_eq!(kept(&rest).await, ["2"]);
}

#[tokio::test]
async fn live_only_delivers_what_cannot_be_kept_and_says_that_it_is_missing() {
    let store = Fragile::new();
    let server = serve(&store, OnStoreError::LiveOnly);
    let mut client = server.connect().await;
    client.subscribe("log-a").await;
    let rest = server.rest();
    rest.publish("log-a", "e", "1").await;
    let before = super::position_of(&rest, "log-a").await;
    store.fail_with(Some(full()));
    let mut body = event("log-a", "2");
    body["info"] = "position".into();
    let answer = rest.trigger(body).await;
    assert_eq!((answer.status, answer.json()), (200, json!({"channels": {"log-a": {}}})));
    client.expect_event("e", "log-a", "1").await;
    client.expect_event("e", "log-a", "2").await;
    store.fail_with(None);
    rest.publish("log-a", "e", "3").await;
    let answer = super::ask(&rest, &[("direction", "forward"), ("from", &before)]).await;
    assert_eq!(answer.status, 410, "{}", answer.body);
    assert_eq!(kept(&rest).await, ["3"]);
}

#[tokio::test]
async fn a_store_that_cannot_be_read_is_a_503_as_well() {
    let store = Fragile::new();
    let server = serve(&store, OnStoreError::Reject);
    let rest = server.rest();
    rest.publish("log-a", "e", "1").await;
    store.fail_with(Some(unavailable()));
    let state = format!("{HISTORY}/state");
    for request in [rest.get(HISTORY), rest.get(&state), rest.delete(HISTORY)] {
        let answer = request.send().await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")), "{}", answer.body);
        assert!(answer.body.contains("the disk does not answer"), "{}", answer.body);
    }
    // A position comes from memory.
    assert!(super::position_of(&rest, "log-a").await.ends_with(":1"));
    store.fail_with(None);
    assert_eq!(kept(&rest).await, ["1"]);
}

#[tokio::test]
async fn a_store_that_has_failed_takes_nothing_more() {
    let store = Fragile::new();
    let server = serve(&store, OnStoreError::LiveOnly);
    let rest = server.rest();
    store.fail_with(Some(StoreError::Failed("fsync: input/output error".to_owned())));
    let text = rest.trigger(event("log-a", "1")).await.refused(503);
    assert!(text.contains("fsync: input/output error") && text.contains("nothing was published"), "{text}");
    store.fail_with(None);
    rest.trigger(event("log-a", "1")).await.refused(503);
    assert!(server.inner().node().replay.get().unwrap().is_failed());
}

#[tokio::test]
async fn unreadable_messages_are_named_and_left_out() {
    let store = Fragile::new();
    let server = serve(&store, OnStoreError::Reject);
    let rest = server.rest();
    for name in ["e", "rotten", "e", "rotten"] {
        rest.publish("log-a", name, "1").await;
    }
    let page = super::page(&rest, &[]).await;
    assert_eq!(super::serials(&page), [3, 1]);
    assert_eq!((&page["unreadable"], &page["complete"]), (&json!([4, 2]), &json!(true)));
    // They count for the limit and do not stop the paging.
    let first = super::page(&rest, &[("limit", "1")]).await;
    assert_eq!((&first["items"], &first["unreadable"]), (&json!([]), &json!([4])));
    let second = super::page(&rest, &[("limit", "1"), ("cursor", first["next"].as_str().unwrap())]).await;
    assert_eq!((super::serials(&second), second.get("unreadable")), (vec![3], None));
    let state = rest.read("/channels/log-a/history/state", &[]).await;
    assert_eq!((&state["messages"], state.get("bytes")), (&json!(4), None));
}
