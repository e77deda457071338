//! What is decided once, though many try at the same time.

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::time::Duration;

use tidewire::fanout::redis::lease::{Reaped, Session};
use tidewire::fanout::redis::state::{Transition, Update};

use crate::support::{APP, Ear, Node, World, short, transition, with_count};

const ROOM: &str = "presence-room";

#[test]
fn a_channel_is_occupied_and_vacated_once_each_time() {
    const RACERS: usize = 12;
    let world = World::start();
    let nodes = [world.node(), world.node(), world.node()];
    let barrier = Barrier::new(RACERS);
    let transitions = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..RACERS)
            .map(|racer| {
                let (node, session, barrier) = (&nodes[racer % 3], Session::draw(), &barrier);
                scope.spawn(move || {
                    (0..40)
                        .map(|round| {
                            barrier.wait();
                            transition(&node.sync_as(&session, with_count("orders", 1 - round % 2)))
                        })
                        .collect::<Vec<Transition>>()
                })
            })
            .collect();
        racers.into_iter().map(|racer| racer.join().expect("no racer fails")).collect::<Vec<_>>()
    });
    for round in 0..40 {
        let expected = if round % 2 == 0 { Transition::Occupied } else { Transition::Vacated };
        let told: Vec<Transition> =
            transitions.iter().map(|racer| racer[round]).filter(|told| *told != Transition::None).collect();
        assert_eq!(told, [expected], "round {round}");
    }
}

#[test]
fn a_user_comes_and_goes_once_though_sessions_race() {
    const RACERS: usize = 8;
    let world = World::start();
    let (nodes, mut ear) = ([world.node(), world.node()], world.ear());
    let barrier = Barrier::new(RACERS);
    std::thread::scope(|scope| {
        for racer in 0..RACERS {
            let (node, session, barrier) = (&nodes[racer % 2], Session::draw(), &barrier);
            scope.spawn(move || {
                for round in 0..40 {
                    barrier.wait();
                    let update = with_count(ROOM, 0);
                    let is_there = round % 2 == 0;
                    let added = Update { added: &[("ann", None)], ..update };
                    let removed = Update { removed: &["ann"], ..update };
                    node.sync_as(&session, if is_there { added } else { removed });
                }
            });
        }
    });
    let expected: Vec<&str> = (0..40).map(|round| if round % 2 == 0 { "+ann" } else { "-ann" }).collect();
    assert_eq!(ear.told(), expected);
}

/// A session with members, some of whom are on a living node as well, and an ear that has heard of it all.
fn crowd(world: &World, living: &Node) -> (Session, Ear, u64) {
    let dying = world.node();
    let ids: Vec<String> = (0..90).map(|i| format!("user-{i}")).collect();
    let added: Vec<_> = ids.iter().map(|id| (&**id, None)).collect();
    for room in 0..12 {
        let channel = format!("presence-room-{room}");
        dying.sync(Update { added: &added, ..with_count(&channel, 90) });
        living.sync(Update { added: &added[..10], ..with_count(&channel, 10) });
    }
    for channel in 0..150 {
        dying.sync(with_count(&format!("orders-{channel}"), 2));
    }
    living.sync(with_count("orders-0", 1));
    for id in &ids {
        dying.wait(dying.state.sync_user(&dying.session, APP, id, true)).expect("it is done");
    }
    living.wait(living.state.sync_user(&living.session, APP, &ids[0], true)).expect("it is done");
    let mut ear = world.ear();
    ear.hear();
    (dying.session.clone(), ear, 12 * 80)
}

fn assert_each_left_once(ear: &mut Ear, members: u64) {
    let mut counts: BTreeMap<(String, String), u32> = BTreeMap::new();
    let mut offline = 0;
    for heard in ear.hear() {
        match short(&heard.message) {
            text if text.starts_with('-') => *counts.entry((heard.topic, text)).or_default() += 1,
            text => offline += u32::from(text == "Offline"),
        }
    }
    assert_eq!(counts.len() as u64, members);
    assert!(counts.values().all(|count| *count == 1));
    assert_eq!(offline, 89);
}

#[test]
fn three_reapers_announce_each_departure_once() {
    let mut world = World::start();
    let reapers = [world.node(), world.node(), world.node()];
    let before = world.dump();
    let (dead, mut ear, members) = crowd(&world, &reapers[0]);
    let reaped: Vec<Reaped> = std::thread::scope(|scope| {
        let reap = |node: &Node| node.wait(node.state.reap(&dead)).expect("it is reaped");
        let reaps: Vec<_> = reapers.iter().map(|node| scope.spawn(move || reap(node))).collect();
        reaps.into_iter().map(|reap| reap.join().expect("no reaper fails")).collect()
    });
    let sum = |of: fn(&Reaped) -> u64| reaped.iter().map(of).sum::<u64>();
    assert_eq!(sum(|reaped| reaped.members), members);
    // The living node has the rooms and one of the others.
    assert_eq!(sum(|reaped| reaped.channels), 149);
    assert_eq!(sum(|reaped| reaped.users), 89);
    assert_each_left_once(&mut ear, members);
    assert!(world.dump().keys().all(|key| !key.contains(&*dead.0)));
    let living = &reapers[0];
    assert_eq!(living.members("presence-room-3").len(), 10);
    living.wait(living.state.retire(&living.session)).expect("it is retired");
    assert_eq!(world.dump(), before);
}

#[test]
fn a_reap_may_stop_anywhere_and_be_done_by_others() {
    let world = World::start();
    let reapers = [world.node(), world.node()];
    let (dead, mut ear, members) = crowd(&world, &reapers[0]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut cut = 0;
    for round in 0..200 {
        let reap = reapers[round % 2].state.reap(&dead);
        let patience = Duration::from_micros(50 * round as u64);
        let is_done = runtime.block_on(async { tokio::time::timeout(patience, reap).await.is_ok() });
        if is_done {
            break;
        }
        cut += 1;
    }
    assert!(cut > 3, "cut {cut} times");
    let reaper = &reapers[0];
    reaper.wait(reaper.state.reap(&dead)).expect("it is reaped");
    assert_each_left_once(&mut ear, members);
}
