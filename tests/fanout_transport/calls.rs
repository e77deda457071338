//! Scripts and pipelines.

use std::sync::LazyLock;
use std::thread;

use redis::Value;
use tidewire::fanout::redis::scripts::Script;
use tidewire::fanout::redis::transport::{LinkError, SHARED};

use crate::fixture::RedisServer;
use crate::node::Node;

pub static COUNT: LazyLock<Script> =
    LazyLock::new(|| Script::new("count", "return redis.call('INCRBY', KEYS[1], ARGV[1])"));
static FAIL: LazyLock<Script> =
    LazyLock::new(|| Script::new("fail", "return redis.error_reply('CUSTOM no')"));
static SAY: LazyLock<Script> =
    LazyLock::new(|| Script::new("say", "return redis.call(ARGV[1], KEYS[1], ARGV[2])"));

pub fn count(node: &Node, partition: u8, by: &str) -> Result<Value, LinkError> {
    let key = node.name(partition, "count");
    node.wait(node.transport.script(partition, &COUNT, &[key.as_bytes()], &[by.as_bytes()]))
}

#[test]
fn a_script_runs_also_after_the_server_has_forgotten_it() {
    let server = RedisServer::start();
    let node = Node::start(&server.config());
    assert_eq!(count(&node, 3, "2"), Ok(Value::Int(2)));
    assert_eq!(count(&node, 3, "5"), Ok(Value::Int(7)));
    let _: String = server.command(&["SCRIPT", "FLUSH"]);
    assert_eq!(count(&node, 3, "1"), Ok(Value::Int(8)));
    let calls: u64 =
        server.info("cmdstat_eval").split(',').next().unwrap()["calls=".len()..].parse().unwrap();
    assert_eq!(calls, 2, "the text goes over the wire once a flush");
}

#[test]
fn scripts_of_many_threads_all_count_while_scripts_are_flushed() {
    let server = RedisServer::start();
    let node = Node::start(&server.config());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..500).for_each(|_| drop(count(&node, 3, "1").unwrap())));
        }
        scope.spawn(|| (0..20).for_each(|_| server.command(&["SCRIPT", "FLUSH"])));
    });
    assert_eq!(count(&node, 3, "0"), Ok(Value::Int(4_000)));
}

#[test]
fn an_error_of_a_script_is_told() {
    let server = RedisServer::start();
    let node = Node::start(&server.config());
    let failed = node.wait(node.transport.script(1, &FAIL, &[], &[]));
    assert!(matches!(&failed, Err(LinkError::Refused(text)) if text.contains("CUSTOM")), "{failed:?}");
}

#[test]
fn a_script_publishes_in_one_order_with_messages() {
    let server = RedisServer::start();
    let node = Node::start(&server.config());
    node.subscribe(4, "orders");
    let topic = node.name(4, "orders");
    for number in 0..100 {
        let text = number.to_string();
        if number % 2 == 0 {
            node.transport.publish(4, topic.clone().into(), text.into(), None).unwrap();
        } else {
            let command = node.transport.publish_command().as_bytes();
            node.wait(node.transport.script(4, &SAY, &[topic.as_bytes()], &[command, text.as_bytes()]))
                .unwrap();
        }
    }
    let expected: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    assert_eq!(node.wait_for_messages(100), expected);
}

#[test]
fn a_pipeline_gives_one_value_for_each_command_and_a_transaction_those_of_its_commands() {
    let server = RedisServer::start();
    let node = Node::start(&server.config());
    let mut pipeline = redis::Pipeline::new();
    pipeline
        .cmd("SET")
        .arg("a")
        .arg(1)
        .cmd("INCR")
        .arg("a")
        .cmd("HGET")
        .arg("a")
        .arg("b")
        .cmd("GET")
        .arg("a");
    let values = node.wait(node.transport.query(0, pipeline)).unwrap();
    assert_eq!(values.len(), 4);
    assert_eq!(values[1], Value::Int(2));
    assert!(matches!(values[2], Value::ServerError(_)));
    assert_eq!(values[3], Value::BulkString(b"2".to_vec()));

    let mut transaction = redis::Pipeline::new();
    transaction.atomic().cmd("INCR").arg("a").cmd("INCR").arg("a");
    let values = node.wait(node.transport.query(SHARED, transaction)).unwrap();
    assert_eq!(values, [Value::Int(3), Value::Int(4)]);
}

#[tokio::test]
async fn futures_are_awaited_on_any_runtime() {
    let server = RedisServer::start();
    let node = Node::start(&server.config());
    let values = node.transport.script(SHARED, &COUNT, &[b"{tidewire}n"], &[b"3"]).await;
    assert_eq!(values, Ok(Value::Int(3)));
}
