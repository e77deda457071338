//! Several nodes on one log.

use tidewire::fanout::keys::{Keys, partition};
use tidewire::fanout::message::Message;
use tidewire::replay::redis::RedisStore;
use tidewire::replay::store::{Append, Appended, Store};

use crate::fixture::{RedisServer, wait_until};
use crate::link::Link;
use crate::support::{ALL, T0, append, append_one, keyed, message, messages, serials, stamp, stream};
use crate::{PREFIX, node};

fn subscribe(link: &Link, channel: &str) {
    let topic = Keys::new(PREFIX).channel_topic("42", channel).into_bytes().into_boxed_slice();
    link.transport
        .block_on(link.transport.subscribe(partition("42", channel), &[topic]))
        .expect("subscribed");
}

fn published(link: &Link) -> Vec<tidewire::fanout::message::Stored> {
    let heard = link.heard.messages().into_iter();
    heard
        .map(|(_, payload)| match Message::decode(payload) {
            Ok(Message::Stored(stored)) => stored,
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn nodes_that_append_at_once_agree_on_one_order() {
    const BATCHES: usize = 150;
    let server = RedisServer::start();
    let nodes: Vec<(Link, RedisStore)> = (0..3).map(|_| node(&server)).collect();
    let orders = stream("orders");
    subscribe(&nodes[0].0, "orders");
    let given: Vec<(u64, String)> = std::thread::scope(|scope| {
        let run = |index: usize| {
            let (store, orders) = (&nodes[index].1, &orders);
            scope.spawn(move || {
                let mut given = Vec::new();
                for number in 0..BATCHES {
                    let names: Vec<String> =
                        (0..=number % 4).map(|place| format!("{index}-{number}-{place}")).collect();
                    let batch: Vec<Append> = names.iter().map(|name| message(orders, name)).collect();
                    let appended = store.append(&batch, T0).expect("stored");
                    let serials = appended.into_iter().map(|one| stamp(one).position.serial);
                    given.extend(serials.zip(names));
                }
                assert!(given.windows(2).all(|pair| pair[0].0 < pair[1].0), "its own are in order");
                given
            })
        };
        let threads: Vec<_> = (0..nodes.len()).map(run).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    let mut given = given;
    given.sort();
    let count = given.len() as u64;
    assert_eq!(given.iter().map(|(serial, _)| *serial).collect::<Vec<_>>(), (1..=count).collect::<Vec<_>>());
    for (_, store) in &nodes {
        let log = messages(store, &orders);
        let log: Vec<(u64, String)> = log
            .into_iter()
            .map(|message| (message.stamp.position.serial, message.content.data.trim_matches('"').to_owned()))
            .collect();
        assert_eq!(log, given);
    }
    let totals: Vec<u64> =
        messages(&nodes[0].1, &orders).iter().map(|message| message.stamp.total_bytes).collect();
    let sizes: u64 = messages(&nodes[0].1, &orders).iter().map(|message| message.content.size()).sum();
    assert!(totals.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!(totals.last(), Some(&sizes));
    wait_until("all was heard", || nodes[0].0.heard.messages().len() as u64 == count);
    let heard: Vec<u64> = published(&nodes[0].0).iter().map(|stored| stored.serial).collect();
    assert_eq!(heard, (1..=count).collect::<Vec<_>>());
}

#[test]
fn a_key_counts_on_every_node() {
    let server = RedisServer::start();
    let ((_one_link, one), (_other_link, other)) = (node(&server), node(&server));
    let orders = stream("orders");
    let first = stamp(append_one(&one, &keyed(&orders, "k", "1"), T0));
    append(&other, &orders, "between", T0);
    for store in [&one, &other] {
        assert_eq!(append_one(store, &keyed(&orders, "k", "1"), T0), Appended::Repeat(first.position));
        assert_eq!(append_one(store, &keyed(&orders, "k", "2"), T0), Appended::Conflict);
    }
    assert_eq!(serials(&one, &orders, ALL), [1, 2]);
}

#[test]
fn an_encrypted_event_is_the_same_with_any_data() {
    let server = RedisServer::start();
    let (_link, store) = node(&server);
    let secret = stream("private-encrypted-orders");
    let first = stamp(append_one(&store, &keyed(&secret, "k", "1"), T0));
    assert_eq!(append_one(&store, &keyed(&secret, "k", "2"), T0), Appended::Repeat(first.position));
}

#[test]
fn many_nodes_with_one_key_store_it_once() {
    let server = RedisServer::start();
    let nodes: Vec<(Link, RedisStore)> = (0..3).map(|_| node(&server)).collect();
    let orders = stream("orders");
    for round in 0..50 {
        let keyed = keyed(&orders, &format!("k{round}"), "x");
        let positions: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                nodes.iter().map(|(_, store)| scope.spawn(|| append_one(store, &keyed, T0))).collect();
            threads
                .into_iter()
                .map(|thread| match thread.join().expect("no panic") {
                    Appended::Stored(stamp) => stamp.position,
                    Appended::Repeat(position) => position,
                    Appended::Conflict => panic!("it is the same"),
                })
                .collect()
        });
        assert!(positions.iter().all(|position| *position == positions[0]));
    }
    assert_eq!(serials(&nodes[0].1, &orders, ALL).len(), 50);
}
