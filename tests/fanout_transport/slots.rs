//! A Redis Cluster's slots that move from one master to another, with and without what is in them.
//!
//! While a slot is being moved neither master runs a script of which a key is not there, and the scripts name keys that
//! seldom exist: asking the other master (`ASKING`) would be refused as well. They wait for the end of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use redis::Value;
use tidewire::config::RedisConfig;
use tidewire::fanout::redis::transport::LinkError;

use crate::calls::{COUNT, count};
use crate::cluster::{assert_all_partitions_work, slot_of};
use crate::fixture::{RedisCluster, RedisServer, wait_until};
use crate::node::{Node, Told};

const PARTITION: u8 = 20;

/// A master that does not have the slot.
fn another(cluster: &RedisCluster, slot: u16) -> &RedisServer {
    let owner = cluster.owner(slot).port();
    cluster.masters.iter().find(|master| master.port() != owner).unwrap()
}

/// Counts under a name of its own, in a script of two keys.
fn count_as(node: &Node, name: &str) -> Result<Value, LinkError> {
    let keys = [node.name(PARTITION, name), node.name(PARTITION, "optional")];
    let keys = keys.each_ref().map(|key| key.as_bytes());
    node.wait(node.transport.script(PARTITION, &COUNT, &keys, &[b"1"]))
}

fn is_refused(answer: &Result<Value, LinkError>, with: &str) -> bool {
    matches!(answer, Err(LinkError::Refused(text)) if text.starts_with(with))
}

/// As many as are subscribed to the topic there, whatever the server says of the slot.
fn subscribers(server: &RedisServer, topic: &str) -> u64 {
    let (_, count): (String, u64) = server.command(&["PUBSUB", "SHARDNUMSUB", topic]);
    count
}

#[test]
fn a_slot_that_moves_is_followed_and_its_topics_can_be_subscribed_again() {
    let cluster = RedisCluster::start();
    let (one, two) = (Node::start(&cluster.config()), Node::start(&cluster.config()));
    for node in [&one, &two] {
        node.subscribe(20, "moving");
        node.forget();
    }
    let slot = slot_of(&cluster.masters[0], &one.name(20, "moving"));
    cluster.move_slot(slot, another(&cluster, slot));
    // Whoever calls meanwhile is served, if late, or hears that it is not known.
    let meanwhile = count(&one, 20, "1");
    assert!(matches!(meanwhile, Ok(Value::Int(1)) | Err(LinkError::Unknown)), "{meanwhile:?}");
    for node in [&one, &two] {
        node.wait_for("the partition is up elsewhere", |told| {
            told.iter().any(|told| matches!(told, Told::Up(partitions, false) if partitions.contains(20)))
        });
        wait_until("all is up", || node.transport.is_connected());
    }
    for node in [&one, &two] {
        node.subscribe(20, "moving");
    }
    one.publish(20, "moving", "there").unwrap();
    assert_eq!(two.wait_for_messages(1), ["there"]);
    assert_all_partitions_work(&two, &one);
}

#[test]
fn what_is_refused_while_a_slot_is_being_moved_works_right_after() {
    let cluster = RedisCluster::start();
    let config = RedisConfig { response_timeout: Duration::from_secs(1), ..cluster.config() };
    let (one, two) = (Node::start(&config), Node::start(&config));
    let slot = slot_of(&cluster.masters[0], &one.name(PARTITION, "x"));
    let to = another(&cluster, slot);
    two.subscribe(PARTITION, "before");
    assert_eq!(count(&one, PARTITION, "7"), Ok(Value::Int(7)));
    cluster.begin_move(slot, to);

    // Nothing that needs no key minds.
    two.subscribe(PARTITION, "meanwhile");
    for topic in ["before", "meanwhile"] {
        one.publish(PARTITION, topic, topic).unwrap();
    }
    assert_eq!(two.wait_for_messages(2), ["before", "meanwhile"]);
    // Nor does what has all its keys.
    assert_eq!(count(&one, PARTITION, "1"), Ok(Value::Int(8)));
    let refused = count_as(&one, "new");
    assert!(is_refused(&refused, "ASK"), "{refused:?}");

    assert_eq!(cluster.move_keys(slot, to, 10), [one.name(PARTITION, "count")]);
    let refused = count(&one, PARTITION, "1");
    assert!(is_refused(&refused, "ASK"), "{refused:?}");
    let mut other = to.client();
    redis::cmd("ASKING").exec(&mut other).unwrap();
    let mut script = redis::cmd("EVAL");
    script.arg("return 1").arg(2).arg(one.name(PARTITION, "count")).arg(one.name(PARTITION, "optional"));
    let refused = script.exec(&mut other).unwrap_err();
    assert_eq!(refused.code(), Some("TRYAGAIN"), "the other master would not do it either");

    cluster.move_slot(slot, to);
    for node in [&one, &two] {
        node.wait_for("the partition is up elsewhere", |told| {
            told.iter()
                .any(|told| matches!(told, Told::Up(partitions, false) if partitions.contains(PARTITION)))
        });
        wait_until("all is up", || node.transport.is_connected());
    }
    assert_eq!(count(&one, PARTITION, "1"), Ok(Value::Int(9)), "it went along");
    assert_eq!(count_as(&one, "new"), Ok(Value::Int(1)), "nothing that was refused was done");
    assert_all_partitions_work(&one, &two);
}

#[test]
fn a_call_that_waits_for_the_end_of_a_move_is_done_once() {
    let cluster = RedisCluster::start();
    let node = Node::start(&cluster.config());
    let slot = slot_of(&cluster.masters[0], &node.name(PARTITION, "x"));
    let to = another(&cluster, slot);
    cluster.begin_move(slot, to);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| count_as(&node, "new"));
        wait_until("it was refused", || {
            cluster.owner(slot).command::<String>(&["INFO", "errorstats"]).contains("errorstat_ASK")
        });
        cluster.move_slot(slot, to);
        assert_eq!(waiting.join().unwrap(), Ok(Value::Int(1)));
    });
    assert_eq!(count_as(&node, "new"), Ok(Value::Int(2)));
}

/// Under load: Redis takes every subscription of the slot away, and the client could take that for an answer.
#[test]
fn nobody_gets_another_s_answer_when_subscriptions_are_taken_away() {
    let cluster = RedisCluster::start();
    let node = Node::start(&cluster.config());
    let (slot, topic) = (slot_of(&cluster.masters[0], &node.name(PARTITION, "x")), node.name(PARTITION, "x"));
    let to = another(&cluster, slot);
    // Another partition of the same master, which is not moved.
    let stays = (0..64).find(|partition| {
        let other = slot_of(&cluster.masters[0], &node.name(*partition, "x"));
        *partition != PARTITION && cluster.owner(other).port() == cluster.owner(slot).port()
    });
    let stays = stays.unwrap();
    node.subscribe(PARTITION, "x");
    let is_over = AtomicBool::new(false);
    let (began, begins) = mpsc::channel();
    let counted = thread::scope(|scope| {
        let load: Vec<_> = (0..4)
            .map(|thread| {
                let (node, is_over, began) = (&node, &is_over, began.clone());
                scope.spawn(move || {
                    let key = node.name(stays, &format!("count-{thread}"));
                    let (mut done, mut unknown) = (0, 0);
                    while !is_over.load(Ordering::Relaxed) {
                        let keys = [key.as_bytes()];
                        match node.wait(node.transport.script(stays, &COUNT, &keys, &[b"1"])) {
                            Ok(Value::Int(count)) => {
                                done += 1;
                                assert!((done..=done + unknown).contains(&count), "{count} after {done}");
                            }
                            Err(LinkError::Unknown) => unknown += 1,
                            Err(LinkError::Down) => thread::yield_now(),
                            other => panic!("not an answer to this: {other:?}"),
                        }
                        if done == 100 {
                            began.send(()).unwrap();
                        }
                    }
                    done
                })
            })
            .collect();
        (0..4).for_each(|_| begins.recv().unwrap());
        cluster.move_slot(slot, to);
        wait_until("the subscription was taken away", || subscribers(cluster.owner(slot), &topic) == 0);
        wait_until("the slot's new master is known", || count(&node, PARTITION, "1").is_ok());
        wait_until("all is up", || node.transport.is_connected());
        node.subscribe(PARTITION, "x");
        is_over.store(true, Ordering::Relaxed);
        load.into_iter().map(|thread| thread.join().unwrap()).sum::<i64>()
    });
    assert!(counted >= 400);
    node.forget();
    node.publish(PARTITION, "x", "there").unwrap();
    assert_eq!(node.wait_for_messages(1), ["there"]);
}
