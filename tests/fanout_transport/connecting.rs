//! What is said when Redis cannot be used.

use std::io::Write as _;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use tidewire::config::{RedisConfig, Secret};

use crate::fixture::{Options, RedisServer, config, free_port};
use crate::node::Node;

fn refusal(config: &RedisConfig) -> String {
    match Node::try_start(config) {
        Ok(_) => panic!("it connects"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_port_on_which_nobody_listens_is_named() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = refusal(&config(&format!("redis://127.0.0.1:{port}"), &[]));
    assert_eq!(
        text,
        format!("Redis at 127.0.0.1:{port}: connection refused; is it running there? Check redis.url")
    );
}

#[test]
fn a_host_without_address_is_named() {
    let text = refusal(&config("redis://no-such-host.invalid:6379", &[]));
    assert!(text.starts_with("Redis at no-such-host.invalid:6379: "), "{text}");
    assert!(text.contains("check redis.url"), "{text}");
}

#[test]
fn a_server_that_does_not_answer_is_named_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let since = Instant::now();
    let text = refusal(&config(&format!("redis://{}", listener.local_addr().unwrap()), &[]));
    assert!(since.elapsed() < Duration::from_secs(5));
    assert!(text.contains(": no answer; check redis.url"), "{text}");
}

#[test]
fn a_server_of_another_protocol_is_said_to_be_no_redis() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        // Kept open: to close with something unread may take the answer away from the client.
        let mut answered = Vec::new();
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            connection.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
            answered.push(connection);
        }
    });
    assert_eq!(
        refusal(&config(&format!("redis://{address}"), &[])),
        format!(
            "Redis at {address}: what answers there is not Redis; check redis.url; with TLS it begins with rediss://"
        )
    );
}

#[test]
fn a_wrong_or_missing_password_is_said_and_not_shown() {
    let server =
        RedisServer::with(Options { password: Some("right-secret".to_owned()), ..Options::default() });
    let mut config = config(&server.url(), &[]);
    let text = refusal(&config);
    assert!(text.contains("it asks for a password; check redis.username and redis.password"), "{text}");
    config.password = Secret::new("wrong-secret");
    let text = refusal(&config);
    assert!(text.contains("it refuses the login (WRONGPASS"), "{text}");
    assert!(!text.contains("secret"), "{text}");
    config.username = "nobody".to_owned();
    assert!(refusal(&config).contains("it refuses the login (WRONGPASS"));
    config.username = "default".to_owned();
    config.password = Secret::new("right-secret");
    assert!(Node::start(&config).transport.is_connected());
}

#[test]
fn a_password_in_the_url_and_a_database_are_used() {
    let server = RedisServer::with(Options { password: Some("pa:ss@word".to_owned()), ..Options::default() });
    let url = format!("redis://:pa%3Ass%40word@127.0.0.1:{}/3", server.port());
    let node = Node::start(&config(&url, &[]));
    node.command(1, &["SET", "key", "value"]).unwrap();
    assert_eq!(server.command::<u64>(&["DBSIZE"]), 0);
    assert!(server.info("db3").starts_with("keys=1,"));
}

#[test]
fn a_database_that_is_not_there_is_said() {
    let server = RedisServer::start();
    let text = refusal(&config(&format!("{}/999", server.url()), &[]));
    assert!(text.contains("out of range"), "{text}");
}

#[test]
fn a_server_of_the_wrong_kind_is_refused_with_the_setting_that_helps() {
    let server = RedisServer::start();
    let options = Options::default().arg("replicaof", format!("127.0.0.1 {}", server.port()));
    let replica = RedisServer::with(options);
    let text = refusal(&replica.config());
    assert!(text.contains("it is a replica; name its master in redis.url"), "{text}");

    let text = refusal(&RedisConfig { cluster: true, ..server.config() });
    assert!(text.contains("cluster support disabled"), "{text}");
    assert!(text.contains("set redis.cluster to false"), "{text}");

    let text = refusal(&RedisConfig { sentinel_master: "mymaster".to_owned(), ..server.config() });
    assert!(text.contains("redis.url and redis.nodes have to name sentinels"), "{text}");

    let node = RedisServer::with(Options::default().arg("cluster-enabled", "yes"));
    let text = refusal(&node.config());
    assert!(text.contains("it is a node of a Redis Cluster; set redis.cluster to true"), "{text}");
    let text = refusal(&RedisConfig { cluster: true, ..node.config() });
    assert!(text.contains("its cluster is not in order"), "{text}");
}

#[test]
fn a_file_with_authorities_that_is_not_there_is_named() {
    let server = RedisServer::start();
    let text = refusal(&RedisConfig { tls_ca: "/no/such/ca.pem".to_owned(), ..server.config() });
    assert!(text.contains("/no/such/ca.pem: No such file"), "{text}");
    assert!(text.contains("check redis.tls_ca"), "{text}");
}

#[test]
fn tls_is_spoken_and_an_unknown_authority_refused() {
    let files = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let file = |name: &str, text: String| {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let certificate = file("cert.pem", made.cert.pem());
    let key = file("key.pem", made.signing_key.serialize_pem());
    let port = free_port();
    let options = Options::default()
        .arg("tls-port", port)
        .arg("tls-cert-file", &certificate)
        .arg("tls-key-file", key)
        .arg("tls-auth-clients", "no");
    let _server = RedisServer::with(options);

    let mut config = config(&format!("rediss://localhost:{port}"), &[]);
    let text = refusal(&config);
    assert!(text.contains("UnknownIssuer; check redis.url, and redis.tls_ca"), "{text}");
    config.tls_ca = certificate;
    let node = Node::start(&config);
    node.subscribe(1, "orders");
    node.publish(1, "orders", "sealed").unwrap();
    assert_eq!(node.wait_for_messages(1), ["sealed"]);

    config.url = format!("redis://localhost:{port}").parse().unwrap();
    let text = refusal(&config);
    assert!(text.contains("with TLS it begins with rediss://"), "{text}");
}
