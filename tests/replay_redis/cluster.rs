//! The log on three masters.

use tidewire::fanout::keys::partition;
use tidewire::replay::store::{Append, Appended, Store};
use tidewire_protocol::position::Position;

use crate::fixture::{RedisCluster, RedisServer};
use crate::link::Link;
use crate::open;
use crate::support::{ALL, T0, fill, message, resolve, serials, stamp, stream};

fn owner<'a>(cluster: &'a RedisCluster, channel: &str) -> &'a RedisServer {
    let key = format!("{{tidewire.{}}}log", partition("42", channel));
    let slot: u64 = cluster.masters[0].command(&["CLUSTER", "KEYSLOT", &key]);
    let index = [5460, 10_922, 16_383].iter().position(|last| slot <= *last).expect("a slot");
    &cluster.masters[index]
}

#[test]
fn streams_are_spread_and_one_master_away_does_not_stop_the_others() {
    let cluster = RedisCluster::start();
    let link = Link::start(&cluster.config());
    let store = open(&link);
    let channels: Vec<String> = (0..60).map(|number| format!("orders-{number}")).collect();
    let batch: Vec<Append> = channels.iter().map(|channel| message(&stream(channel), "1")).collect();
    for serial in 1..=3 {
        let appended = store.append(&batch, T0).expect("stored");
        assert!(appended.into_iter().all(|one| stamp(one).position.serial == serial));
    }
    for channel in &channels {
        assert_eq!(serials(&store, &stream(channel), ALL), [1, 2, 3]);
    }
    let before: Vec<Position> = channels.iter().map(|channel| store.position(&stream(channel))).collect();
    let lost = owner(&cluster, &channels[0]);
    lost.kill();
    link.wait_until_down();
    let outcomes = store.append_each(&batch, T0);
    let mut stored = 0;
    for ((channel, outcome), before) in channels.iter().zip(outcomes).zip(before) {
        // The others may stop, too, once they miss it.
        if let Ok(appended) = outcome {
            assert!(matches!(appended, Appended::Stored(_)));
            assert_ne!(owner(&cluster, channel).port(), lost.port());
            assert_eq!(resolve(&store, &stream(channel), before), Ok(()));
            stored += 1;
        }
    }
    assert!(stored > 20, "{stored}");
}

#[test]
fn a_replica_that_takes_over_begins_a_generation() {
    let cluster = RedisCluster::with_replicas();
    let link = Link::start(&cluster.config());
    let store = open(&link);
    let orders = stream("orders");
    fill(&store, &orders, 5, T0);
    let before = store.position(&orders);
    let master = owner(&cluster, "orders");
    let _: i64 = master.command(&["WAIT", "1", "5000"]);
    master.kill();
    link.wait_until_down();
    link.wait_until_up();
    let stamp = crate::support::append(&store, &orders, "6", T0);
    assert_eq!(stamp.position.serial, 6);
    assert!(stamp.begins_generation);
    assert_eq!(resolve(&store, &orders, before), Ok(()));
    assert_eq!(serials(&store, &orders, ALL), [1, 2, 3, 4, 5, 6]);
}
