//! Servers that are too old, and Valkey: real servers that are made to say something else of themselves.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use tidewire::config::RedisConfig;

use crate::fixture::{Options, RedisCluster, RedisServer, config};
use crate::node::{Node, assert_works};

/// Carries connections to a server, and puts one text in the place of another of the same length in what it says. It lives as
/// long as the test's process.
fn disguise(server: SocketAddr, line: String, other: &str) -> String {
    let other = format!("{other:<width$}", width = line.len());
    assert_eq!(line.len(), other.len(), "the length of the answer is told before it");
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let upstream = TcpStream::connect(server).expect("the server listens");
            let (mut from, mut to) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
            thread::spawn(move || {
                std::io::copy(&mut from, &mut to).ok();
                to.shutdown(Shutdown::Both).ok();
            });
            let (line, other) = (line.clone(), other.clone());
            thread::spawn(move || replace(upstream, client, line.as_bytes(), other.as_bytes()));
        }
    });
    url
}

fn replace(mut from: TcpStream, mut to: TcpStream, line: &[u8], other: &[u8]) {
    let (mut held, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        held.extend_from_slice(&buffer[..length]);
        while let Some(at) = held.windows(line.len()).position(|part| part == line) {
            held[at..at + line.len()].copy_from_slice(other);
        }
        // What may be the beginning of the line waits for the rest.
        let waits = (1..line.len()).rev().find(|length| held.ends_with(&line[..*length])).unwrap_or(0);
        let sent: Vec<u8> = held.drain(..held.len() - waits).collect();
        if to.write_all(&sent).is_err() {
            break;
        }
    }
    to.shutdown(Shutdown::Both).ok();
}

fn version_line(server: &RedisServer) -> String {
    format!("redis_version:{}", server.info("redis_version"))
}

/// What is said of the server at `url`.
fn refusal(config: &RedisConfig, place: &str) -> String {
    let text = Node::try_start(config).err().expect("it is refused").to_string();
    assert!(text.starts_with(&format!("Redis at {place}: ")), "{text}");
    text
}

#[test]
fn a_redis_before_seven_is_refused_with_its_version() {
    let server = RedisServer::start();
    for version in ["6.2.9", "5.0.14"] {
        let line = version_line(&server);
        let url = disguise(server.addr(), line, &format!("redis_version:{version}"));
        let text = refusal(&config(&url, &[]), url.trim_start_matches("redis://"));
        assert!(
            text.ends_with(&format!("it is version {version}; Redis from 7.0 on or Valkey is needed")),
            "{text}"
        );
    }
}

#[test]
fn a_redis_before_six_does_not_know_the_greeting() {
    let args = ["--rename-command", "HELLO", ""].map(str::to_owned).into();
    let server = RedisServer::with(Options { args, ..Options::default() });
    // It quotes as those did.
    let url = disguise(server.addr(), "unknown command 'HELLO'".to_owned(), "unknown command `HELLO`");
    let text = refusal(&config(&url, &[]), url.trim_start_matches("redis://"));
    assert!(text.ends_with("it is too old to know RESP3; Redis from 7.0 on or Valkey is needed"), "{text}");
}

#[test]
fn a_cluster_of_an_old_version_is_refused_too() {
    let cluster = RedisCluster::start();
    let first = &cluster.masters[0];
    let url = disguise(first.addr(), version_line(first), "redis_version:6.2.9");
    // The nodes announce themselves, and only the way to the first leads through the disguise.
    let announced = url.rsplit(':').next().unwrap();
    let _: String = first.command(&["CONFIG", "SET", "cluster-announce-port", announced]);
    let text =
        refusal(&RedisConfig { cluster: true, ..config(&url, &[]) }, url.trim_start_matches("redis://"));
    assert!(text.contains("it is version 6.2.9"), "{text}");
}

/// Valkey goes on naming the last version of Redis that it is compatible with; a later one may stop doing so.
#[test]
fn valkey_is_taken_for_what_it_is() {
    let server = RedisServer::start();
    let old = disguise(server.addr(), version_line(&server), "redis_version:6.2.4");
    let old: SocketAddr = old.trim_start_matches("redis://").parse().unwrap();
    let line = format!("redis_git_sha1:{}", server.info("redis_git_sha1"));
    let valkey = disguise(old, line, "valkey_version:8.1.3");
    assert_works(&Node::start(&config(&valkey, &[])));
}
