//! Leases: who lives, who finds the dead, and what a node that was dead learns.

use std::time::{Duration, Instant};

use redis::Commands;
use tidewire::fanout::redis::lease::{Beat, Session, SessionHealth};

use crate::support::{APP, Node, World, with_count};

const LONG_MS: u64 = 60_000;

fn beat(node: &Node, is_new: bool, lease_ms: u64, connections: &[(&str, u64)]) -> Beat {
    node.wait(node.state.beat(&node.session, is_new, lease_ms, &[], connections)).expect("an answer")
}

fn health(node: &Node, is_new: bool) -> SessionHealth {
    beat(node, is_new, LONG_MS, &[(APP, 9)]).health
}

fn connections(node: &Node, app: &str) -> u64 {
    node.wait(node.state.connections(app)).expect("an answer")
}

fn alive() -> Beat {
    Beat { health: SessionHealth::Alive, expired: Vec::new(), unfinished: Vec::new() }
}

#[test]
fn a_session_lives_while_its_lease_is_renewed() {
    let mut world = World::start();
    let (one, two) = (world.node(), world.node());
    assert_eq!(health(&one, false), SessionHealth::Forgotten, "it was never registered");
    assert_eq!(beat(&one, true, LONG_MS, &[(APP, 3), ("a\nb", 1)]), alive());
    assert_eq!(beat(&one, true, LONG_MS, &[(APP, 3), ("a\nb", 1)]), alive());
    assert_eq!(beat(&two, true, LONG_MS, &[(APP, 4)]), alive());
    assert_eq!((connections(&one, APP), connections(&two, "a\nb"), connections(&one, "b")), (7, 1, 0));
    assert_eq!(beat(&one, false, LONG_MS, &[(APP, 2), ("a\nb", 0)]), alive());
    assert_eq!((connections(&two, APP), connections(&two, "a\nb")), (6, 0));
    for node in [&one, &two] {
        node.wait(node.state.retire(&node.session)).expect("it is retired");
        assert_eq!(health(node, false), SessionHealth::Forgotten);
    }
    assert_eq!(connections(&one, APP), 0);
    assert!(world.dump().is_empty(), "{:?}", world.dump());
}

#[test]
fn a_session_keeps_its_predecessors_alive_and_counts_their_connections() {
    let world = World::start();
    let (mut one, two) = (world.node(), world.node());
    beat(&one, true, 400, &[(APP, 3)]);
    beat(&two, true, 400, &[]);
    let old = [one.renew()];
    let deadline = Instant::now() + Duration::from_secs(2);
    while Instant::now() < deadline {
        let told = one.wait(one.state.beat(&one.session, true, 400, &old, &[(APP, 4)])).expect("an answer");
        assert_eq!(told, alive());
        assert_eq!(beat(&two, false, 400, &[]), alive(), "nobody is dead");
        assert_eq!(connections(&two, APP), 4);
        std::thread::sleep(Duration::from_millis(20));
    }
    // One of which Redis knows nothing stays unknown.
    let unknown = [Session::draw()];
    one.wait(one.state.beat(&one.session, false, 1, &unknown, &[])).expect("an answer");
    std::thread::sleep(Duration::from_millis(20));
    assert!(!beat(&two, false, LONG_MS, &[]).expired.contains(&unknown[0]));
}

#[test]
fn a_lease_that_is_over_is_found_by_one_node() {
    let mut world = World::start();
    let nodes: Vec<Node> = (0..4).map(|_| world.node()).collect();
    let dying = world.node();
    for node in &nodes {
        beat(node, true, LONG_MS, &[]);
    }
    beat(&dying, true, 40, &[(APP, 5)]);
    dying.sync(with_count("orders", 1));
    assert_eq!(connections(&nodes[0], APP), 5);
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(connections(&nodes[0], APP), 0, "its connections are gone with its lease");
    let beats: Vec<Beat> = std::thread::scope(|scope| {
        let beats: Vec<_> =
            nodes.iter().map(|node| scope.spawn(|| beat(node, false, LONG_MS, &[]))).collect();
        beats.into_iter().map(|beat| beat.join().expect("it beats")).collect()
    });
    let dead = [dying.session.clone()];
    assert!(beats.iter().all(|beat| beat.health == SessionHealth::Alive));
    let expired: Vec<&Session> = beats.iter().flat_map(|beat| &beat.expired).collect();
    assert_eq!(expired, [&dead[0]]);
    assert_eq!(beat(&nodes[0], false, LONG_MS, &[]).unfinished, dead);
    // The dead learn that they are, even if they say that they are new.
    for is_new in [false, true] {
        let told = beat(&dying, is_new, LONG_MS, &[(APP, 5)]);
        assert!(told.health == SessionHealth::Dead && told.expired.is_empty());
    }
    nodes[1].wait(nodes[1].state.reap(&dead[0])).expect("it is reaped");
    assert_eq!(beat(&nodes[2], false, LONG_MS, &[]), alive());
    assert_eq!(health(&dying, false), SessionHealth::Forgotten);
    let left: Vec<String> = world.dump().into_keys().collect();
    assert_eq!(left, [nodes[0].state.keys().nodes()]);
}

#[test]
fn a_node_that_beats_late_but_before_anybody_else_lives_on() {
    let world = World::start();
    let node = world.node();
    beat(&node, true, 20, &[]);
    std::thread::sleep(Duration::from_millis(40));
    assert_eq!(beat(&node, false, LONG_MS, &[]), alive());
}

#[test]
fn when_redis_was_away_nobody_is_dead() {
    const LEASE_MS: u64 = 400;
    let world = World::start();
    let (one, two) = (world.node(), world.node());
    for node in [&one, &two] {
        beat(node, true, LEASE_MS, &[]);
    }
    // Longer than a lease, in which nobody can beat.
    std::thread::sleep(Duration::from_millis(LEASE_MS + 100));
    assert_eq!(beat(&one, false, LEASE_MS, &[]), alive());
    assert_eq!(beat(&two, false, LEASE_MS, &[]), alive());
    // Who stays away then is found.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let told = beat(&one, false, LEASE_MS, &[]);
        assert!(told.health == SessionHealth::Alive && Instant::now() < deadline);
        if !told.expired.is_empty() {
            assert_eq!(told.expired, std::slice::from_ref(&two.session));
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn fences_stay_for_an_hour() {
    let mut world = World::start();
    let node = world.node();
    node.wait(node.state.reap(&node.session)).expect("it is reaped");
    for partition in 0..64 {
        let ttl: i64 = world.redis.ttl(node.state.keys().fence(partition, &node.session.0)).expect("a time");
        assert!((3_500..=3_600).contains(&ttl), "{ttl}");
    }
}

#[test]
fn a_node_has_more_apps_than_lua_takes_arguments() {
    let world = World::start();
    let node = world.node();
    let apps: Vec<String> = (0..9_000).map(|i| format!("app-{i}")).collect();
    let counts: Vec<(&str, u64)> = apps.iter().map(|app| (&**app, 2)).collect();
    assert_eq!(beat(&node, true, LONG_MS, &counts), alive());
    assert_eq!((connections(&node, "app-0"), connections(&node, "app-8999")), (2, 2));
}
