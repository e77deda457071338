//! Members of presence channels: users, however many sessions have them.

use tidewire::fanout::redis::state::{Synced, Update};

use crate::support::{World, json, short, version_of, with_count};

const ROOM: &str = "presence-room";

#[test]
fn a_user_on_two_sessions_comes_and_goes_once() {
    let mut world = World::start();
    let (one, two, mut ear) = (world.node(), world.node(), world.ear());
    one.join(ROOM, "ann", r#"{"name":"Ann"}"#);
    two.join(ROOM, "ann", r#"{"name":"Ann"}"#);
    two.join(ROOM, "bob", "");
    assert_eq!(ear.told(), [r#"+ann{"name":"Ann"}"#, "+bob"]);
    one.leave(ROOM, "ann");
    one.leave(ROOM, "ann");
    assert!(ear.told().is_empty());
    two.leave(ROOM, "ann");
    two.leave(ROOM, "bob");
    assert_eq!(ear.told(), ["-ann", "-bob"]);
    assert!(world.dump().is_empty(), "{:?}", world.dump());
}

#[test]
fn versions_are_contiguous_and_those_of_the_snapshot() {
    let world = World::start();
    let (one, two, mut ear) = (world.node(), world.node(), world.ear());
    let Synced::Done { version: first, .. } = one.join(ROOM, "ann", "1") else { panic!("dead") };
    two.join(ROOM, "bob", "2");
    one.join(ROOM, "ann", "3");
    one.sync(Update { removed: &["ann"], added: &[("cid", None), ("dan", None)], ..with_count(ROOM, 2) });
    let Synced::Done { version: last, .. } = two.join(ROOM, "bob", "2") else { panic!("dead") };
    let heard = ear.hear();
    let told: Vec<String> = heard.iter().map(|heard| short(&heard.message)).collect();
    assert_eq!(told, ["+ann1", "+bob2", "iann3", "-ann", "+cid", "+dan"]);
    let versions: Vec<u64> = heard.iter().filter_map(|heard| version_of(&heard.message)).collect();
    assert_eq!(versions, (first..=last).collect::<Vec<u64>>());
    assert_eq!(one.snapshot(ROOM).version, last);
    assert!(heard.iter().all(|heard| heard.topic == one.state.keys().channel_topic("42", ROOM)));
}

#[test]
fn a_repeated_update_changes_nothing_though_others_came_between() {
    let mut world = World::start();
    let (one, two) = (world.node(), world.node());
    one.join(ROOM, "ann", r#"{"device":"a phone whose name is rather long"}"#);
    two.join(ROOM, "ann", r#"{"device":"a desk"}"#);
    let (before, mut ear) = (world.dump(), world.ear());
    one.join(ROOM, "ann", r#"{"device":"a phone whose name is rather long"}"#);
    one.sync(Update { removed: &["bob"], ..with_count(ROOM, 1) });
    assert_eq!(world.dump(), before);
    assert!(ear.told().is_empty());
    one.join(ROOM, "ann", "");
    assert_eq!(ear.told(), ["iann"]);
}

#[test]
fn the_channel_has_no_more_members_than_it_may() {
    let world = World::start();
    let (one, two, mut ear) = (world.node(), world.node(), world.ear());
    let three = |added, removed| Update { max_members: 3, added, removed, ..with_count(ROOM, 1) };
    one.sync(three(&[("ann", None), ("bob", None)], &[]));
    let synced = two.sync(three(&[("ann", None), ("cid", None), ("dan", None), ("eve", None)], &[]));
    let Synced::Done { refused, .. } = synced else { panic!("dead") };
    assert_eq!(refused, [Box::from("dan"), Box::from("eve")]);
    // Whoever goes makes room in the same update.
    let Synced::Done { refused, .. } = two.sync(three(&[("dan", None)], &["cid"])) else { panic!("dead") };
    assert!(refused.is_empty());
    assert_eq!(ear.told(), ["+ann", "+bob", "+cid", "-cid", "+dan"]);
    // The refused are held by nobody.
    two.sync(three(&[], &["eve", "ann", "dan"]));
    assert_eq!(one.members(ROOM).into_keys().collect::<Vec<_>>(), ["ann", "bob"]);
}

#[test]
fn ids_may_be_any_text() {
    let mut world = World::start();
    let (mut node, mut ear) = (world.node(), world.ear());
    let ids = ["a\nb", ":", "7:", "\u{e9}\u{1f600}", "\0", " ", "#%d%s", "{x}"];
    for id in ids {
        node.join(ROOM, id, r#"":\n""#);
    }
    assert_eq!(node.members(ROOM).len(), ids.len());
    assert!(node.members(ROOM).values().all(|info| info == r#"":\n""#));
    ear.hear();
    let session = node.renew();
    let reaped = node.wait(node.state.reap(&session)).expect("it is reaped");
    assert_eq!((reaped.members, reaped.channels), (ids.len() as u64, 1));
    let mut told = ear.told();
    told.sort();
    let mut expected = ids.map(|id| format!("-{id}"));
    expected.sort();
    assert_eq!(told, expected);
    assert!(world.dump().is_empty(), "{:?}", world.dump());
}

#[test]
fn ten_thousand_members_come_and_go() {
    let mut world = World::start();
    let (node, mut ear) = (world.node(), world.ear());
    let ids: Vec<String> = (0..10_000).map(|i| format!("user-{i}")).collect();
    let info = json(r#"{"name":"somebody"}"#);
    let added: Vec<_> = ids.iter().map(|id| (&**id, info.as_deref())).collect();
    let all = Update { max_members: 9_990, added: &added, announce: true, ..with_count(ROOM, 10_000) };
    let Synced::Done { total, refused, version, .. } = node.sync(all) else { panic!("dead") };
    assert_eq!((total, refused.len()), (10_000, 10));
    let snapshot = node.snapshot(ROOM);
    assert_eq!((snapshot.members.len(), snapshot.version), (9_990, version));
    let heard = ear.hear();
    let versions: Vec<u64> = heard.iter().filter_map(|heard| version_of(&heard.message)).collect();
    assert_eq!(versions, (version - 9_989..=version).collect::<Vec<u64>>());
    let added = &added[..1];
    let removed: Vec<&str> = ids[1..].iter().map(|id| &**id).collect();
    node.sync(Update { removed: &removed, added, ..with_count(ROOM, 1) });
    assert_eq!(node.members(ROOM).len(), 1);
    assert_eq!(ear.hear().len(), 9_989);
    node.leave(ROOM, &ids[0]);
    assert!(world.dump().is_empty());
}
