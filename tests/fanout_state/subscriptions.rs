//! Counts of subscriptions, and users who are signed in.

use tidewire::fanout::message::Message;
use tidewire::fanout::redis::state::{Synced, Transition, Update, UserSynced, UserTransition};
use tidewire::fanout::redis::transport::LinkError;

use crate::support::{APP, World, done, json, with_count};

#[test]
fn the_first_and_the_last_subscription_are_transitions() {
    let mut world = World::start();
    let (one, two) = (world.node(), world.node());
    assert_eq!(one.sync(with_count("orders", 3)), done(3, Transition::Occupied));
    assert_eq!(one.sync(with_count("orders", 3)), done(3, Transition::None));
    assert_eq!(two.sync(with_count("orders", 2)), done(5, Transition::None));
    assert_eq!(one.sync(with_count("orders", 0)), done(2, Transition::None));
    assert_eq!(one.sync(with_count("orders", 0)), done(2, Transition::None));
    assert_eq!(two.sync(with_count("orders", 0)), done(0, Transition::Vacated));
    assert_eq!(two.sync(with_count("orders", 0)), done(0, Transition::None));
    assert!(world.dump().is_empty(), "{:?}", world.dump());
}

#[test]
fn the_total_is_announced_when_it_changed_and_somebody_is_there_to_hear_it() {
    let world = World::start();
    let (one, two, mut ear) = (world.node(), world.node(), world.ear());
    let update = |count| Update { announce: true, ..with_count("orders", count) };
    one.sync(update(2));
    two.sync(update(1));
    two.sync(update(1));
    one.sync(update(1));
    one.sync(with_count("orders", 4));
    one.sync(update(0));
    two.sync(update(0));
    assert_eq!(ear.told(), ["#2", "#3", "#2", "#1"]);
}

#[test]
fn who_takes_the_place_of_an_earlier_session_is_not_counted_twice() {
    let mut world = World::start();
    let (mut one, two, mut ear) = (world.node(), world.node(), world.ear());
    let update = |count| Update { announce: true, ..with_count("orders", count) };
    one.sync(update(2));
    two.sync(update(1));
    let old = [one.renew(), one.renew()];
    let instead = |count| Update { predecessors: &old, ..update(count) };
    for _ in 0..2 {
        assert_eq!(one.sync(instead(2)), done(3, Transition::None));
    }
    assert_eq!(one.sync(instead(3)), done(4, Transition::None));
    for old in &old {
        one.wait(one.state.retire(old)).expect("it is reaped");
    }
    assert_eq!(ear.told(), ["#2", "#3", "#4"]);
    assert_eq!(one.sync(instead(0)), done(1, Transition::None));
    assert_eq!(two.sync(update(0)), done(0, Transition::Vacated));
    one.wait(one.state.retire(&one.session)).expect("it is reaped");
    assert!(world.dump().is_empty(), "{:?}", world.dump());
}

#[test]
fn who_takes_the_place_of_an_earlier_session_holds_its_members() {
    let mut world = World::start();
    let (mut one, two, mut ear) = (world.node(), world.node(), world.ear());
    let ann = json("1");
    let members = |ids: &'static [&str]| ids.iter().map(|id| (*id, ann.as_deref())).collect::<Vec<_>>();
    let (all, those_here) = (members(&["ann", "bob", "gone"]), members(&["ann", "bob"]));
    one.sync(Update { added: &all, ..with_count("orders", 3) });
    two.join("orders", "bob", "1");
    ear.told();
    let mut old = vec![one.renew()];
    // One session in between had told some of it.
    one.sync(Update { added: &those_here[..1], ..with_count("orders", 1) });
    old.push(one.renew());
    for _ in 0..2 {
        one.sync(Update { added: &those_here, predecessors: &old, ..with_count("orders", 2) });
    }
    assert_eq!(ear.told(), [] as [&str; 0], "nobody came, and nobody went");
    for old in &old {
        one.wait(one.state.retire(old)).expect("it is reaped");
    }
    assert_eq!(two.members("orders").into_keys().collect::<Vec<_>>(), ["ann", "bob"]);
    assert_eq!(ear.told().len(), 1, "the one who went is told of, once");
    // Each is held once by each node.
    two.leave("orders", "bob");
    assert_eq!(two.members("orders").len(), 2);
    one.sync(Update { removed: &["ann", "bob"], ..with_count("orders", 0) });
    assert_eq!(ear.told().len(), 2);
    one.wait(one.state.retire(&one.session)).expect("it is reaped");
    two.wait(two.state.retire(&two.session)).expect("it is reaped");
    assert!(world.dump().is_empty(), "{:?}", world.dump());
}

#[test]
fn apps_do_not_see_each_other() {
    let world = World::start();
    let node = world.node();
    for app in ["42", "43", "4\n2", "4:2", "4%3A2", "{42}"] {
        let update = Update { app, ..with_count("orders", 1) };
        assert_eq!(node.sync(update), done(1, Transition::Occupied), "{app:?}");
        let read = node.wait(node.state.channel(app, "orders", false)).expect("a channel");
        assert_eq!(read.total, 1);
    }
    let reaped = node.wait(node.state.retire(&node.session)).expect("it is reaped");
    assert_eq!(reaped.channels, 6);
}

#[test]
fn watchers_hear_of_the_first_and_of_the_last_session_of_a_user() {
    let mut world = World::start();
    let (one, two, mut ear) = (world.node(), world.node(), world.ear());
    let sync = |node: &crate::support::Node, is_signed_in| match node
        .wait(node.state.sync_user(&node.session, APP, "ann", is_signed_in))
        .expect("it is done")
    {
        UserSynced::Done { transition } => transition,
        UserSynced::Dead => panic!("the session is dead"),
    };
    assert_eq!(sync(&one, true), UserTransition::Online);
    assert_eq!(sync(&one, true), UserTransition::None);
    assert_eq!(sync(&two, true), UserTransition::None);
    let is_online = |user| one.wait(one.state.user(APP, user)).expect("an answer").is_online;
    assert_eq!(["bob", "ann", "eve\n"].map(is_online), [false, true, false]);
    assert_eq!(sync(&one, false), UserTransition::None);
    assert_eq!(sync(&one, false), UserTransition::None);
    assert_eq!(sync(&two, false), UserTransition::Offline);
    assert_eq!(sync(&two, false), UserTransition::None);
    let heard = ear.hear();
    assert!(heard.iter().all(|heard| heard.topic == one.state.keys().user_topic(APP, "ann")));
    let messages: Vec<&Message> = heard.iter().map(|heard| &heard.message).collect();
    assert!(matches!(messages[..], [Message::Online, Message::Offline]), "{messages:?}");
    assert!(world.dump().is_empty());
}

#[test]
fn a_fenced_session_changes_nothing() {
    let mut world = World::start();
    let (mut one, two) = (world.node(), world.node());
    one.join("presence-room", "ann", "1");
    two.join("presence-room", "bob", "2");
    let dead = one.renew();
    one.wait(one.state.reap(&dead)).expect("it is reaped");
    let (before, mut ear) = (world.dump(), world.ear());
    let update = Update {
        removed: &["bob"],
        added: &[("eve", None)],
        announce: true,
        ..with_count("presence-room", 7)
    };
    assert_eq!(one.sync_as(&dead, update), Synced::Dead);
    let signed_in = one.wait(one.state.sync_user(&dead, APP, "ann", true)).expect("an answer");
    assert_eq!(signed_in, UserSynced::Dead);
    assert_eq!(world.dump(), before);
    assert!(ear.told().is_empty());
    one.join("presence-room", "ann", "1");
    assert_eq!(one.members("presence-room").len(), 2);
}

#[test]
fn redis_may_forget_its_scripts() {
    let world = World::start();
    let node = world.node();
    for count in 1..5 {
        let _: () = world.server.command(&["SCRIPT", "FLUSH"]);
        let transition = if count == 1 { Transition::Occupied } else { Transition::None };
        assert_eq!(node.sync(with_count("orders", count)), done(u64::from(count), transition));
    }
}

#[test]
fn without_memory_nothing_is_done_by_half_and_the_dead_are_removed() {
    let mut world = World::start();
    let (node, mut ear) = (world.node(), world.ear());
    node.join("presence-room", "ann", "1");
    node.join("presence-room", "bob", "2");
    ear.hear();
    let before = world.dump();
    let _: () = world.server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let update = Update {
        removed: &["ann"],
        added: &[("eve", None)],
        announce: true,
        ..with_count("presence-room", 7)
    };
    let refused = node.wait(node.state.sync(&node.session, update));
    assert!(matches!(&refused, Err(LinkError::Refused(text)) if text.contains("OOM")), "{refused:?}");
    assert_eq!(world.dump(), before);
    assert!(ear.told().is_empty());
    let reaped = node.wait(node.state.reap(&node.session)).expect("it is reaped");
    assert_eq!((reaped.members, reaped.channels), (2, 1));
    assert!(world.dump().is_empty());
}
