//! A Redis Cluster: every partition has its master, and masters change.

use std::time::Instant;

use redis::Value;
use tidewire::fanout::redis::transport::{LinkError, Partitions, SHARED};

use crate::calls::{COUNT, count};
use crate::fixture::{RedisCluster, RedisServer, wait_until};
use crate::node::{Node, Told};

/// Every partition carries a message.
pub fn assert_all_partitions_work(publisher: &Node, subscriber: &Node) {
    subscriber.forget();
    for partition in Partitions::ALL.iter() {
        let topic = subscriber.name(partition, "all").into_bytes().into_boxed_slice();
        subscriber.wait(subscriber.transport.subscribe(partition, &[topic])).unwrap();
    }
    for partition in Partitions::ALL.iter() {
        publisher.publish(partition, "all", &partition.to_string()).unwrap();
    }
    let mut heard = subscriber.wait_for_messages(64);
    heard.sort_by_key(|text| text.parse::<u8>().unwrap());
    assert_eq!(heard, (0..64).map(|partition| partition.to_string()).collect::<Vec<_>>());
}

pub fn slot_of(server: &RedisServer, key: &str) -> u16 {
    server.command(&["CLUSTER", "KEYSLOT", key])
}

#[test]
fn scripts_and_sharded_topics_work_on_all_partitions() {
    let cluster = RedisCluster::start();
    let (one, two) = (Node::start(&cluster.config()), Node::start(&cluster.config()));
    assert_eq!(one.transport.publish_command(), "SPUBLISH");
    let ups = one.told();
    assert_eq!(ups.len(), 3, "one link for each master: {ups:?}");
    assert_all_partitions_work(&one, &two);
    for partition in Partitions::ALL.iter() {
        assert_eq!(count(&one, partition, "1"), Ok(Value::Int(1)));
        assert_eq!(count(&two, partition, "1"), Ok(Value::Int(2)));
    }
    let shared = |node: &Node| node.wait(node.transport.script(SHARED, &COUNT, &[b"{tidewire}n"], &[b"1"]));
    assert_eq!((shared(&one), shared(&two)), (Ok(Value::Int(1)), Ok(Value::Int(2))));
    for master in &cluster.masters {
        assert!(master.command::<u64>(&["DBSIZE"]) > 5, "the partitions are spread");
        let _: String = master.command(&["SCRIPT", "FLUSH"]);
    }
    for partition in Partitions::ALL.iter() {
        assert_eq!(count(&one, partition, "1"), Ok(Value::Int(3)));
        one.unsubscribe(partition, "all");
        two.unsubscribe(partition, "all");
    }
    for master in &cluster.masters {
        assert_eq!(master.command::<Vec<String>>(&["PUBSUB", "SHARDCHANNELS"]), Vec::<String>::new());
    }
    assert!(!one.told().iter().any(|told| matches!(told, Told::Down(_) | Told::Unsubscribed(_))));
}

#[test]
fn a_lost_master_takes_only_its_own_partitions_along() {
    let cluster = RedisCluster::start();
    let node = Node::start(&cluster.config());
    let lost = node.told().iter().find_map(|told| match told {
        Told::Up(partitions, _) => Some(*partitions),
        _ => None,
    });
    let lost = lost.unwrap();
    let probe = node.name(lost.iter().next().unwrap(), "x");
    let slot = slot_of(&cluster.masters[0], &probe);
    let master = cluster.owner(slot);
    node.forget();
    master.kill();
    node.wait_for("its partitions are down", |told| told.contains(&Told::Down(lost)));
    assert!(!node.transport.is_connected());
    let down: Vec<_> = lost.iter().map(|partition| count(&node, partition, "1")).collect();
    assert!(down.iter().all(|answer| *answer == Err(LinkError::Down)), "{down:?}");
    assert!(!node.told().iter().any(|told| matches!(told, Told::Down(other) if *other != lost)));
    master.restart();
    node.wait_for("its partitions are up", |told| told.contains(&Told::Up(lost, false)));
    cluster.wait_until_ok();
    wait_until("all scripts run", || {
        Partitions::ALL.iter().all(|partition| count(&node, partition, "1").is_ok())
    });
    assert_all_partitions_work(&node, &node);
}

#[test]
fn a_killed_master_s_replica_takes_over() {
    let cluster = RedisCluster::with_replicas();
    let (one, two) = (Node::start(&cluster.config()), Node::start(&cluster.config()));
    for partition in Partitions::ALL.iter() {
        assert_eq!(count(&one, partition, "1"), Ok(Value::Int(1)));
    }
    let written = |server: &RedisServer| server.command::<u64>(&["DBSIZE"]);
    wait_until("the replicas have it", || {
        cluster
            .masters
            .iter()
            .zip(&cluster.replicas)
            .all(|(master, replica)| written(master) == written(replica))
    });
    let since = Instant::now();
    cluster.masters[1].kill();
    for node in [&one, &two] {
        node.wait_for("it is down", |told| told.iter().any(|told| matches!(told, Told::Down(_))));
        wait_until("it is connected", || node.transport.is_connected());
    }
    println!("fail-over took {:?}", since.elapsed());
    cluster.wait_until_ok();
    for partition in Partitions::ALL.iter() {
        assert_eq!(count(&two, partition, "1"), Ok(Value::Int(2)), "of partition {partition}");
    }
    assert_all_partitions_work(&one, &two);
    // The old master comes back as a replica: nobody goes there.
    cluster.masters[1].restart();
    wait_until("it is a replica", || cluster.masters[1].info("role") == "slave");
    one.forget();
    assert_all_partitions_work(&two, &one);
    assert!(one.transport.is_connected() && two.transport.is_connected());
}

#[test]
fn a_cluster_is_found_when_the_first_seed_is_away() {
    let cluster = RedisCluster::with_replicas();
    cluster.masters[0].kill();
    wait_until("the replica has taken over", || cluster.replicas[0].info("role") == "master");
    cluster.wait_until_ok();
    let node = Node::start(&cluster.config());
    assert!(node.transport.is_connected());
    assert_all_partitions_work(&node, &node);
}
