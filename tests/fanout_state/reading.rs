//! Reads of the REST API.

use tidewire::fanout::redis::reads::{ChannelRead, Want};
use tidewire::fanout::redis::state::Update;

use crate::support::{APP, World, with_count};

#[test]
fn channels_are_listed_by_name_with_what_the_cluster_has() {
    let world = World::start();
    let (one, two) = (world.node(), world.node());
    for i in 0..150 {
        one.sync(with_count(&format!("orders-{i:03}"), 1));
        two.sync(with_count(&format!("orders-{i:03}"), i % 2));
    }
    one.join("presence-room", "ann", "");
    two.join("presence-room", "bob", "");
    one.sync(Update { app: "43", ..with_count("orders-other", 1) });
    let list = |prefix, with_users| two.wait(two.state.channels(APP, prefix, with_users)).expect("a list");
    let all = list("", false);
    assert_eq!(all.len(), 151);
    assert!(all.is_sorted());
    assert_eq!(all[1], ("orders-001".into(), 2, 0));
    assert_eq!(list("presence-", true), [("presence-room".into(), 2, 2)]);
    assert_eq!(list("orders-14", true).len(), 10);
    for glob in ["*", "orders-?", "[o]", "\\", "^"] {
        assert!(list(glob, false).is_empty(), "{glob}");
    }
}

#[test]
fn one_channel_is_read_with_its_users() {
    let world = World::start();
    let node = world.node();
    node.join("presence-room", "bob", "1");
    node.join("presence-room", "ann\n", "2");
    let read = |channel| node.wait(node.state.channel(APP, channel, true)).expect("a channel");
    assert_eq!(read("presence-room"), ChannelRead { total: 1, users: 2, cached: None });
    assert_eq!(read("presence-other"), ChannelRead::default());
    let users = |channel| node.wait(node.state.users(APP, channel)).expect("users");
    assert_eq!(users("presence-room"), ["ann\n", "bob"]);
    assert!(users("presence-other").is_empty());
}

#[test]
fn a_snapshot_has_what_is_wanted() {
    let world = World::start();
    let node = world.node();
    node.join("presence-room", "ann", r#"{"a":[1,2]}"#);
    let snapshot = |want| node.wait(node.state.snapshot(APP, "presence-room", want)).expect("a snapshot");
    let none = snapshot(Want::default());
    assert!((none.version, none.count, none.members.len()) == (0, 0, 0));
    assert_eq!(snapshot(Want { count: true, ..Want::default() }).count, 1);
    let members = snapshot(Want { members: true, ..Want::default() });
    let info = members.members[0].1.as_ref().map(|info| info.get());
    assert_eq!((&*members.members[0].0, info), ("ann", Some(r#"{"a":[1,2]}"#)));
    assert!(members.version > 1_700_000_000_000_000, "microseconds");
}
