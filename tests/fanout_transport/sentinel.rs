//! The master is named by sentinels, and moves.

use std::time::{Duration, Instant};

use redis::Value;
use tidewire::config::RedisConfig;

use crate::calls::count;
use crate::fixture::{RedisServer, Sentinel, wait_until};
use crate::node::{Node, assert_works};

#[test]
fn a_killed_master_s_replica_takes_over() {
    let world = Sentinel::start();
    let node = Node::start(&world.config());
    assert_eq!(count(&node, 8, "1"), Ok(Value::Int(1)));
    let old = world.master_port();
    world.master().kill();
    node.wait_down();
    assert!(!node.wait_up(), "another server");
    assert_ne!(world.master_port(), old);
    assert_eq!(count(&node, 8, "1"), Ok(Value::Int(2)), "its data was replicated");
    assert_works(&node);
}

#[test]
fn an_ordered_fail_over_is_followed_although_the_old_master_lives() {
    let world = Sentinel::start();
    let node = Node::start(&world.config());
    let old = world.master_port();
    world.fail_over();
    wait_until("the sentinels agree", || world.master_port() != old);
    // The old master would take what is written for ten seconds more.
    let since = Instant::now();
    node.wait_down();
    assert!(!node.wait_up());
    assert!(since.elapsed() < Duration::from_secs(6), "{:?}", since.elapsed());
    assert_eq!(count(&node, 8, "1"), Ok(Value::Int(1)));
    assert_eq!(world.master().command::<u64>(&["DBSIZE"]), 1);
    assert_works(&node);
}

#[test]
fn a_paused_master_is_left_for_its_successor() {
    let world = Sentinel::start();
    let node = Node::start(&world.config());
    let old = world.master_port();
    let paused = world.servers.iter().find(|server| server.port() == old).unwrap();
    paused.pause();
    node.wait_down();
    assert!(!node.wait_up());
    assert_ne!(world.master_port(), old);
    assert_works(&node);
    paused.resume();
    std::thread::sleep(Duration::from_millis(500));
    assert_works_again(&node);
}

fn assert_works_again(node: &Node) {
    node.publish(8, "after", "still").unwrap();
    assert_eq!(node.wait_for_messages(2).last().unwrap(), "still");
}

#[test]
fn sentinels_that_are_away_or_know_nothing_are_named() {
    let world = Sentinel::start();
    let refusal = |config: &RedisConfig| Node::try_start(config).err().expect("it fails").to_string();
    let unknown = RedisConfig { sentinel_master: "nobody".to_owned(), ..world.config() };
    let text = refusal(&unknown);
    assert!(
        text.contains("these sentinels know no master named nobody; check redis.sentinel_master"),
        "{text}"
    );

    world.sentinels[0].kill();
    assert!(Node::start(&world.config()).transport.is_connected(), "the others know it too");
    world.sentinels.iter().for_each(RedisServer::kill);
    let text = refusal(&world.config());
    assert!(text.contains("connection refused"), "{text}");
    let plain = RedisConfig { sentinel_master: String::new(), ..world.config() };
    world.sentinels[0].restart();
    assert!(refusal(&plain).contains("it is a sentinel; set redis.sentinel_master"), "{}", refusal(&plain));
}
