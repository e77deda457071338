//! Redis goes away and comes back: what is told, how soon, and that everything works again by itself.

use std::thread;
use std::time::{Duration, Instant};

use redis::Value;
use tidewire::fanout::redis::transport::{LinkError, Partitions};

use crate::calls::count;
use crate::fixture::{CutProxy, RedisServer};
use crate::node::{Node, Told, assert_works};

/// One second of silence, three for the answer to a ping, and what a loaded machine adds.
const DOWN_WITHIN: Duration = Duration::from_millis(5_500);

#[test]
fn the_first_connection_is_up_once_and_with_no_earlier_server() {
    let server = RedisServer::start();
    let node = Node::start(&server.config());
    assert_eq!(node.told(), [Told::Up(Partitions::ALL, true)]);
    assert_eq!(node.transport.disconnected_for(), None);
    assert_eq!(node.metrics.fanout.connected.get(), 1);
}

#[test]
fn a_restart_after_two_seconds_is_another_server() {
    let server = RedisServer::durable();
    let node = Node::start(&server.config());
    node.subscribe(8, "before");
    assert_eq!(count(&node, 8, "1"), Ok(Value::Int(1)));
    server.kill();
    assert!(node.wait_down() < Duration::from_millis(500), "a broken connection is noticed at once");
    assert_eq!(node.publish(8, "before", "lost"), Err(LinkError::Down));
    assert_eq!(node.command(0, &["PING"]), Err(LinkError::Down));
    assert_eq!(node.metrics.fanout.connected.get(), 0);
    assert!(node.transport.disconnected_for().is_some());
    thread::sleep(Duration::from_secs(2));
    server.restart();
    let since = Instant::now();
    assert!(!node.wait_up(), "it was restarted");
    assert!(since.elapsed() < Duration::from_millis(1_500), "{:?}", since.elapsed());
    assert_eq!(server.info("pubsub_channels"), "0", "nothing is subscribed");
    assert_eq!(count(&node, 8, "1"), Ok(Value::Int(2)));
    assert_eq!(node.metrics.fanout.reconnects.get(), 1);
    assert_works(&node);
}

#[test]
fn a_paused_server_is_down_within_four_seconds_and_the_same_afterwards() {
    let server = RedisServer::start();
    let node = Node::start(&server.config());
    assert_eq!(count(&node, 8, "1"), Ok(Value::Int(1)));
    let since = Instant::now();
    server.pause();
    let answer = count(&node, 8, "1");
    assert_eq!(answer, Err(LinkError::Unknown), "it may have been done");
    node.wait_down();
    assert!(since.elapsed() < DOWN_WITHIN, "{:?}", since.elapsed());
    assert!(since.elapsed() > Duration::from_secs(3));
    server.resume();
    assert!(node.wait_up(), "its data is what it was");
    assert_works(&node);
}

#[test]
fn a_pause_of_a_second_is_not_an_outage() {
    let server = RedisServer::start();
    let node = Node::start(&server.config());
    node.forget();
    server.pause();
    thread::sleep(Duration::from_secs(1));
    server.resume();
    assert_eq!(count(&node, 8, "1"), Ok(Value::Int(1)));
    assert_eq!(node.told(), []);
}

#[test]
fn a_peer_that_has_vanished_is_found_and_what_it_did_not_answer_is_unknown() {
    let server = RedisServer::start();
    let proxy = CutProxy::start(server.addr());
    let node = Node::start(&proxy.config());
    node.subscribe(8, "before");
    node.forget();
    let since = Instant::now();
    proxy.blackhole();
    // What goes on being published does not hide that nothing is answered.
    let results = thread::scope(|scope| {
        let publishers: Vec<_> =
            (0..4).map(|_| scope.spawn(|| node.publish(8, "before", "into the hole"))).collect();
        publishers.into_iter().map(|publisher| publisher.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(results, vec![Err(LinkError::Unknown); 4]);
    node.wait_down();
    assert!(since.elapsed() < DOWN_WITHIN, "{:?}", since.elapsed());
    proxy.heal();
    assert!(node.wait_up());
    assert_works(&node);
}

#[test]
fn a_cut_connection_comes_back_to_the_same_server() {
    let server = RedisServer::start();
    let proxy = CutProxy::start(server.addr());
    let node = Node::start(&proxy.config());
    for _ in 0..3 {
        node.forget();
        proxy.cut();
        node.wait_down();
        assert!(!node.transport.is_connected());
        thread::sleep(Duration::from_millis(100));
        proxy.heal();
        assert!(node.wait_up());
        assert_works(&node);
    }
}

#[test]
fn a_node_idles_for_longer_than_a_ping_may_take() {
    let server = RedisServer::start();
    let node = Node::start(&server.config());
    thread::sleep(Duration::from_millis(5_500));
    assert_eq!(node.told(), [Told::Up(Partitions::ALL, true)]);
    let pings: u64 =
        server.info("cmdstat_ping").split(',').next().unwrap()["calls=".len()..].parse().unwrap();
    assert!((4..20).contains(&pings), "{pings} pings in 5.5 s");
}

#[test]
fn calls_under_way_when_the_server_dies_all_end() {
    let server = RedisServer::start();
    let node = Node::start(&server.config());
    thread::scope(|scope| {
        let callers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        if let Err(error) = count(&node, 1, "1") {
                            break error;
                        }
                    }
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(300));
        server.kill();
        for caller in callers {
            let error = caller.join().unwrap();
            assert!(matches!(error, LinkError::Unknown | LinkError::Down), "{error}");
        }
    });
    server.restart();
    assert!(!node.wait_up());
    assert_works(&node);
}

#[test]
fn a_master_that_becomes_a_replica_is_left() {
    let (server, other) = (RedisServer::start(), RedisServer::start());
    let node = Node::start(&server.config());
    let _: String = server.command(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]);
    let refused = count(&node, 8, "1");
    assert!(matches!(refused, Err(LinkError::Refused(_) | LinkError::Down)), "{refused:?}");
    node.wait_down();
    let _: String = server.command(&["REPLICAOF", "NO", "ONE"]);
    assert!(!node.wait_up(), "its data is another's");
    assert_works(&node);
}
