//! Messages that were delivered while Redis could not take them.

use tidewire::replay::store::Store;
use tidewire_protocol::replay::Reason;

use crate::fixture::RedisServer;
use crate::node;
use crate::support::{ALL, T0, append, fill, resolve, serials, stream};

#[test]
fn a_skip_waits_until_redis_is_back() {
    let server = RedisServer::durable();
    let (link, store) = node(&server);
    let (other_link, other) = node(&server);
    let (orders, quiet) = (stream("orders"), stream("quiet"));
    fill(&store, &orders, 3, T0);
    fill(&store, &quiet, 3, T0);
    let (before, quiet_before) = (store.position(&orders), store.position(&quiet));
    server.kill();
    link.wait_until_down();
    store.skip(&orders);
    store.skip(&orders);
    store.skip(&quiet);
    assert_eq!(store.position(&orders), before);
    server.restart();
    link.wait_until_up();
    other_link.wait_until_up();
    // Before anything else of this node.
    let stamp = append(&store, &orders, "next", T0);
    assert_eq!(stamp.position.serial, 5);
    assert_eq!(resolve(&store, &orders, before), Err(Reason::Expired));
    assert_eq!(resolve(&other, &quiet, quiet_before), Ok(()));
    store.maintain(T0).expect("maintained");
    assert_eq!(resolve(&other, &quiet, quiet_before), Err(Reason::Expired));
    assert_eq!(serials(&other, &orders, ALL), [5]);
    assert_eq!(append(&other, &quiet, "next", T0).position.serial, 5);
}

#[test]
fn a_skip_is_no_serial_of_another_node() {
    let server = RedisServer::start();
    let (_link, store) = node(&server);
    let (_other_link, other) = node(&server);
    let orders = stream("orders");
    fill(&store, &orders, 3, T0);
    append(&other, &orders, "4", T0);
    store.skip(&orders);
    let after = store.position(&orders);
    assert_eq!(after.serial, 5);
    let stamp = append(&other, &orders, "6", T0);
    assert_eq!(stamp.position.serial, 6);
    assert_eq!(stamp.position.epoch, after.epoch);
    assert!(stamp.begins_generation);
}
