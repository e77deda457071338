//! A node that cannot use its Redis says why, and ends.

use crate::common::redis::{Options, RedisServer};
use crate::process::fail_to_start;

fn told(url: &str, settings: &[(&str, &str)]) -> String {
    let output = fail_to_start(url, settings);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    text
}

#[test]
fn nobody_listens() {
    // Nobody else gets the port while this holds it without listening.
    let held = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let redis = RedisServer::start();
    redis.kill();
    for port in [redis.port(), port] {
        let text = told(&format!("redis://127.0.0.1:{port}"), &[]);
        assert!(text.contains(&format!("Redis at 127.0.0.1:{port}: connection refused")), "{text}");
        assert!(text.contains("Check redis.url"), "{text}");
    }
}

#[test]
fn a_password_is_missing_or_wrong() {
    let redis = RedisServer::with(Options { password: Some("right-word".into()), ..Options::default() });
    let place = format!("Redis at 127.0.0.1:{}", redis.port());
    let text = told(&redis.url(), &[]);
    assert!(text.contains(&place) && text.contains("it asks for a password"), "{text}");
    assert!(text.contains("redis.password"), "{text}");
    for (url, settings) in [
        (redis.url(), vec![("TIDEWIRE_REDIS__PASSWORD", "wrong-word")]),
        (format!("redis://:wrong-word@127.0.0.1:{}", redis.port()), vec![]),
        (
            redis.url(),
            vec![("TIDEWIRE_REDIS__USERNAME", "nobody"), ("TIDEWIRE_REDIS__PASSWORD", "wrong-word")],
        ),
    ] {
        let text = told(&url, &settings);
        assert!(text.contains(&place) && text.contains("it refuses the login"), "{text}");
        assert!(!text.contains("wrong-word"), "{text}");
    }
}

#[test]
fn it_is_another_kind_of_server() {
    let node = RedisServer::with(Options::default().arg("cluster-enabled", "yes").arg("cluster-port", "0"));
    let text = told(&node.url(), &[]);
    assert!(text.contains("it is a node of a Redis Cluster; set redis.cluster to true"), "{text}");
    let plain = RedisServer::start();
    let text = told(&plain.url(), &[("TIDEWIRE_REDIS__CLUSTER", "true")]);
    assert!(text.contains("set redis.cluster to false"), "{text}");
}
