//! What one server stored, another takes up without knowing that all of it is there.

use serde_json::json;

use super::{Replaying, at, position, publish};
use crate::common::TestServer;

#[tokio::test]
async fn a_generation_is_told_with_its_first_message() {
    let directory = tempfile::tempdir().unwrap();
    let start = |directory: &std::path::Path| {
        TestServer::with_config(|config| {
            config.replay.dir = directory.to_owned();
            config.apps[0].replay = tidewire::config::AppReplay::everything();
        })
    };
    let first = start(directory.path());
    publish(&first, "news", 1..=3).await;
    let mut client = first.connect().await;
    let answer = client.subscribe_replaying("news", json!({"v": 1})).await;
    // As `kill -9` leaves them.
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(directory.path()).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    drop(first);

    let second = start(copy.path());
    let mut back = second.connect().await;
    let resumed = back.subscribe_replaying("news", json!({"v": 1, "from": position(&answer)})).await;
    assert_eq!((&resumed["recovered"], &resumed["count"]), (&json!(true), &json!(0)), "{resumed}");
    back.expect_done("news", 3).await;
    publish(&second, "news", [4, 5]).await;
    let event = back.expect_serial("news", "4", 4).await;
    let epoch = event.frame["epoch"].as_str().expect("the first of its generation").to_owned();
    assert_ne!(answer["epoch"], json!(epoch));
    assert!(back.expect_serial("news", "5", 5).await.frame.get("epoch").is_none());
    // The position from before is good as long as it is in what was kept.
    let mut late = second.connect().await;
    let resumed = late.subscribe_replaying("news", json!({"v": 1, "from": at(&position(&answer), 1)})).await;
    assert_eq!((&resumed["epoch"], &resumed["count"]), (&json!(epoch), &json!(4)));
    let mut wrong = second.connect().await;
    let lost = wrong.subscribe_replaying("news", json!({"v": 1, "from": at(&position(&answer), 4)})).await;
    assert_eq!((&lost["recovered"], &lost["reason"]), (&json!(false), &json!("rolled_back")));
}
