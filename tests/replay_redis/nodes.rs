//! Several nodes on one log.

use tidewire::fanout::keys::{Keys, partition};
use tidewire::fanout::message::{CachePart, Message};
use tidewire::replay::redis::RedisStore;
use tidewire::replay::redis::follow::ChannelHead;
use tidewire::replay::store::{Append, Appended, Content, Hints, Store};

use crate::fixture::{RedisServer, wait_until};
use crate::link::Link;
use crate::support::{
    ALL, T0, append, append_one, content, keyed, message, messages, serials, stamp, stream,
};
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

#[test]
fn what_is_published_says_all_that_is_in_the_log() {
    let server = RedisServer::start();
    let (link, store) = node(&server);
    let (other_link, other) = node(&server);
    let room = stream("presence-room");
    subscribe(&link, "presence-room");
    let full = Content {
        id: Some("ord-77".into()),
        event: "client-typing".into(),
        data: r#""{\"a\":1}""#.into(),
        user_id: Some("7".into()),
        except: tidewire_protocol::SocketId::parse("12.34")
            .expect("an id")
            .map(tidewire_protocol::SocketId::to_bits),
    };
    let append_full = Append {
        stream: room.clone(),
        content: full.clone(),
        inactivity_ttl_ms: 0,
        hints: Hints { cache_ttl_ms: Some(5000), ..Hints::default() },
    };
    let empty = link.transport.block_on(store.head(&room)).expect("head");
    append_one(&other, &append_full, T0 + 3);
    append(&other, &room, "2", T0 + 4);
    drop((other, other_link));
    wait_until("both came", || link.heard.messages().len() == 2);
    let mut last: ChannelHead = empty;
    let log = link.transport.block_on(store.range(&room, 0, u64::MAX)).expect("read");
    for (stored, message) in published(&link).into_iter().zip(log) {
        let frame = stored.event.frame.clone();
        if stored.serial == 1 {
            let cache = CachePart { ttl_ms: 5000, data: bytes::Bytes::from_static(b"{\"a\":1}") };
            assert_eq!(stored.event.cache, Some(cache));
        }
        let event = store.stored_event(&room, stored, last);
        last = ChannelHead::from(&event.stamp);
        // The log's message began the generation; whoever knew it before need not be told.
        let expected = tidewire::replay::store::Stamp { begins_generation: false, ..message.stamp };
        assert_eq!(event.stamp, expected);
        let read = tidewire::replay::event::StoredEvent::from_message("presence-room", message);
        assert_eq!(event.plain(), read.plain());
        assert_eq!(event.plain().as_ptr(), frame.as_ptr(), "it is not copied");
        assert_eq!((event.except, event.size()), (read.except, read.size()));
        assert_eq!(event.positioned(0, true), read.positioned(0, true));
    }
    assert_eq!(link.transport.block_on(store.head(&room)), Ok(last));
    // It can append at once now: it knows where the stream stands.
    assert_eq!(append(&store, &room, "3", T0 + 5).position.serial, 3);
    let total = messages(&store, &room)[2].stamp.total_bytes;
    assert_eq!(total, full.size() + content("2").size() + content("3").size());
}

#[test]
fn a_hole_is_read_exactly() {
    let server = RedisServer::start();
    let (link, store) = node(&server);
    let orders = stream("orders");
    let batch: Vec<Append> = (1..=700).map(|number| message(&orders, &number.to_string())).collect();
    store.append(&batch, T0).expect("stored");
    let range = |after, before| -> Vec<u64> {
        let messages = link.transport.block_on(store.range(&orders, after, before)).expect("read");
        messages.iter().map(|message| message.stamp.position.serial).collect()
    };
    assert_eq!(range(5, 8), [6, 7]);
    assert_eq!(range(5, 6), [0u64; 0]);
    assert_eq!(range(698, u64::MAX), [699, 700]);
    assert_eq!(range(0, 601).len(), 600);
    assert_eq!(range(700, u64::MAX), [0u64; 0]);
}
