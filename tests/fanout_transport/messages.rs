//! Messages: in order, each once, bounded.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use bytes::Bytes;
use tidewire::fanout::redis::transport::LinkError;

use crate::fixture::{RedisServer, wait_until};
use crate::node::{Node, PATIENCE, Told};

#[test]
fn a_message_reaches_every_subscribed_node_and_no_other() {
    let server = RedisServer::start();
    let nodes: Vec<Node> = (0..3).map(|_| Node::start(&server.config())).collect();
    nodes[0].subscribe(5, "orders");
    nodes[1].subscribe(5, "orders");
    nodes[2].subscribe(5, "other");
    nodes[2].publish(5, "orders", "one").unwrap();
    nodes[0].publish(5, "orders", "two").unwrap();
    nodes[0].publish(5, "other", "three").unwrap();
    assert_eq!(nodes[0].wait_for_messages(2), ["one", "two"]);
    assert_eq!(nodes[1].wait_for_messages(2), ["one", "two"]);
    assert_eq!(nodes[2].wait_for_messages(1), ["three"]);
    nodes[1].unsubscribe(5, "orders");
    nodes[0].publish(5, "orders", "four").unwrap();
    assert_eq!(nodes[0].wait_for_messages(3).last().unwrap(), "four");
    assert_eq!(nodes[1].messages().len(), 2);
    let told = nodes[0].told();
    assert!(
        told.contains(&Told::Message(nodes[0].name(5, "orders").into_bytes(), Bytes::from_static(b"four")))
    );
}

#[test]
fn messages_of_many_threads_keep_the_order_of_each_and_are_the_same_everywhere() {
    const THREADS: usize = 8;
    const MESSAGES: usize = 2_000;
    let server = RedisServer::start();
    let (publisher, subscriber) = (Node::start(&server.config()), Node::start(&server.config()));
    publisher.subscribe(7, "orders");
    subscriber.subscribe(7, "orders");
    let done = Arc::new(AtomicUsize::new(0));
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (publisher, done) = (&publisher, &done);
            scope.spawn(move || {
                for number in 0..MESSAGES {
                    let topic = Bytes::from(publisher.name(7, "orders"));
                    let payload = Bytes::from(format!("{thread} {number}"));
                    let done = Arc::clone(done);
                    let done = Box::new(move |result: Result<(), LinkError>| {
                        result.unwrap();
                        done.fetch_add(1, Ordering::Relaxed);
                    });
                    publisher.transport.publish(7, topic, payload, Some(done)).unwrap();
                }
            });
        }
    });
    let heard = subscriber.wait_for_messages(THREADS * MESSAGES);
    let mut next: HashMap<&str, usize> = HashMap::new();
    for message in &heard {
        let (thread, number) = message.split_once(' ').unwrap();
        let expected = next.entry(thread).or_default();
        assert_eq!(number.parse::<usize>().unwrap(), *expected, "of thread {thread}");
        *expected += 1;
    }
    assert_eq!(publisher.wait_for_messages(THREADS * MESSAGES), heard);
    wait_until("every publisher is told", || done.load(Ordering::Relaxed) == THREADS * MESSAGES);
    assert_eq!(publisher.metrics.fanout.messages_sent.get(), (THREADS * MESSAGES) as u64);
    assert_eq!(subscriber.metrics.fanout.messages_received.get(), (THREADS * MESSAGES) as u64);
    assert_eq!(publisher.metrics.fanout.bytes_sent.get(), subscriber.metrics.fanout.bytes_received.get());
}

#[test]
fn what_is_queued_together_goes_out_in_few_pieces_and_wakes_once() {
    let server = RedisServer::start();
    let node = Node::start(&server.config());
    server.pause();
    for number in 0..2_000 {
        let payload = Bytes::from(format!("{number}"));
        node.transport.publish(1, Bytes::from(node.name(1, "orders")), payload, None).unwrap();
    }
    server.resume();
    wait_until("all are sent", || node.metrics.fanout.messages_sent.get() == 2_000);
    let reads: u64 = server.info("total_reads_processed").parse().unwrap();
    assert!(reads < 200, "{reads} reads for 2000 messages");
}

#[test]
fn a_large_message_comes_as_it_was_sent() {
    let server = RedisServer::start();
    let node = Node::start(&server.config());
    node.subscribe(0, "orders");
    let payload: Bytes = (0..3_000_000_u32).map(|number| number as u8).collect();
    node.transport.publish(0, Bytes::from(node.name(0, "orders")), payload.clone(), None).unwrap();
    node.transport.publish(0, Bytes::from(node.name(0, "orders")), Bytes::new(), None).unwrap();
    let told = node.wait_for("both came", |told| {
        told.iter().filter(|told| matches!(told, Told::Message(..))).count() == 2
    });
    let topic = node.name(0, "orders").into_bytes();
    assert_eq!(
        told[told.len() - 2..],
        [Told::Message(topic.clone(), payload), Told::Message(topic, Bytes::new())]
    );
}

#[test]
fn what_waits_for_redis_is_bounded_in_messages() {
    let server = RedisServer::start();
    let node = Node::start(&server.config());
    server.pause();
    let (sender, done) = mpsc::channel();
    let mut queued = 0;
    let refused = loop {
        let sender = sender.clone();
        let done = Box::new(move |result| sender.send(result).unwrap());
        match node.transport.publish(2, Bytes::from_static(b"{tidewire.2}orders"), Bytes::new(), Some(done)) {
            Ok(()) => queued += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((queued, refused), (65_536, LinkError::Overloaded));
    server.resume();
    for _ in 0..queued {
        done.recv_timeout(PATIENCE).expect("every message has an end").unwrap();
    }
    assert!(done.try_recv().is_err(), "a refused message is not told again");
    node.publish(2, "orders", "there is room again").unwrap();
}

#[test]
fn what_waits_for_redis_is_bounded_in_bytes() {
    let server = RedisServer::start();
    let node = Node::start(&server.config());
    server.pause();
    let payload = Bytes::from(vec![b'x'; 1024 * 1024]);
    let mut queued = 0;
    while node.transport.publish(2, Bytes::from_static(b"{tidewire.2}o"), payload.clone(), None).is_ok() {
        queued += 1;
    }
    assert_eq!(queued, 64);
    server.resume();
    wait_until("there is room again", || node.publish(2, "orders", "").is_ok());
}

#[test]
fn ten_thousand_topics_are_subscribed_in_batches() {
    let server = RedisServer::start();
    let node = Node::start(&server.config());
    let topics: Vec<Box<[u8]>> =
        (0..10_000).map(|number| node.name(9, &format!("topic-{number}")).into_bytes().into()).collect();
    for batch in topics.chunks(1_000) {
        node.wait(node.transport.subscribe(9, batch)).unwrap();
    }
    assert_eq!(server.info("pubsub_channels"), "10000");
    node.publish(9, "topic-9999", "last").unwrap();
    assert_eq!(node.wait_for_messages(1), ["last"]);
    for batch in topics.chunks(1_000) {
        node.wait(node.transport.unsubscribe(9, batch)).unwrap();
    }
    assert_eq!(server.info("pubsub_channels"), "0");
}

#[test]
fn a_stopped_node_ends_what_waits_for_it() {
    let server = RedisServer::start();
    let mut node = Node::start(&server.config());
    server.pause();
    let (sender, done) = mpsc::channel();
    for _ in 0..5_000 {
        let sender = sender.clone();
        let done = Box::new(move |result| drop(sender.send(result)));
        node.transport.publish(2, Bytes::from_static(b"{tidewire.2}o"), Bytes::new(), Some(done)).unwrap();
    }
    node.stop();
    for _ in 0..5_000 {
        done.recv_timeout(PATIENCE).expect("every message has an end").unwrap_err();
    }
    let refused = node.transport.publish(2, Bytes::new(), Bytes::new(), None);
    assert_eq!(refused, Err(LinkError::Down));
    assert_eq!(node.command(0, &["PING"]), Err(LinkError::Down));
}
