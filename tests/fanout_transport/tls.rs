//! Sentinel and Redis Cluster with TLS on every connection, and users with no more rights than `docs/cluster.md` gives them.

use redis::Value;
use tempfile::TempDir;
use tidewire::config::{RedisConfig, Secret};
use tidewire::fanout::redis::transport::Partitions;

use crate::calls::count;
use crate::fixture::{Options, RedisServer, config, free_port, wait_until};
use crate::node::{Node, assert_works};

const DATA_SECRET: &str = "secret-of-the-data";
const SENTINEL_SECRET: &str = "secret-of-the-sentinels";
/// Of Redis's default user: the servers among themselves, and the fixture.
const SERVER_SECRET: &str = "secret-of-the-servers";
const MASTER: &str = "orders";

/// Two authorities that are certificates of their own servers.
struct Authority {
    files: TempDir,
}

impl Authority {
    fn new() -> Self {
        let files = tempfile::tempdir().unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        std::fs::write(files.path().join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(files.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        Self { files }
    }

    fn certificate(&self) -> String {
        self.files.path().join("cert.pem").to_str().unwrap().to_owned()
    }

    /// Settings of a server, by name and value.
    fn settings(&self, tls_port: u16) -> [(&'static str, String); 6] {
        let key = self.files.path().join("key.pem").to_str().unwrap().to_owned();
        [
            ("tls-port", tls_port.to_string()),
            ("tls-cert-file", self.certificate()),
            ("tls-key-file", key),
            ("tls-ca-cert-file", self.certificate()),
            ("tls-auth-clients", "no".to_owned()),
            ("tls-replication", "yes".to_owned()),
        ]
    }
}

/// A server of the data, with its port for TLS. The other one is the fixture's.
struct Data {
    server: RedisServer,
    tls_port: u16,
}

impl Data {
    fn start(authority: &Authority, further: &[(&str, String)]) -> Self {
        let tls_port = free_port();
        let mut options = Options { password: Some(SERVER_SECRET.to_owned()), ..Options::default() };
        for (name, value) in authority.settings(tls_port).iter().chain(further) {
            options = options.arg(name, value);
        }
        options.args.push("--user".to_owned());
        options.args.extend(documented_user());
        Self { server: RedisServer::with(options), tls_port }
    }
}

/// The words of the user that `docs/cluster.md` shows.
fn documented_user() -> Vec<String> {
    let text = include_str!("../../docs/cluster.md");
    let line =
        text.lines().find_map(|line| line.strip_prefix("user tidewire ")).expect("the page has a user");
    let words = format!("tidewire {line}").replace("PASSWORD", DATA_SECRET);
    words.split(' ').map(str::to_owned).collect()
}

/// A master, a replica and a sentinel.
struct World {
    authority: Authority,
    servers: [Data; 2],
    sentinel: RedisServer,
    sentinel_port: u16,
}

impl World {
    fn start() -> Self {
        let authority = Authority::new();
        let quickly = [("repl-diskless-sync-delay", "0".to_owned())];
        let master = Data::start(&authority, &quickly);
        let [delay] = quickly;
        let of = format!("127.0.0.1 {}", master.tls_port);
        let replica = Data::start(&authority, &[delay, ("replicaof", of)]);
        wait_until("replication", || replica.server.info("master_link_status") == "up");

        let (sentinel_port, master_port) = (free_port(), master.tls_port);
        let tls: String = authority
            .settings(sentinel_port)
            .iter()
            .map(|(name, value)| format!("{name} \"{value}\"\n"))
            .collect();
        let file = |port: u16| {
            Some(format!(
                "port {port}\nbind 127.0.0.1\n{tls}requirepass {SERVER_SECRET}\n\
                 user watcher on >{SENTINEL_SECRET} +sentinel|get-master-addr-by-name\n\
                 sentinel monitor {MASTER} 127.0.0.1 {master_port} 1\nsentinel auth-pass {MASTER} {SERVER_SECRET}\n\
                 sentinel down-after-milliseconds {MASTER} 1000\nsentinel failover-timeout {MASTER} 3000\n"
            ))
        };
        let options = Options {
            args: vec!["--sentinel".to_owned()],
            password: Some(SERVER_SECRET.to_owned()),
            ..Options::default()
        };
        let sentinel = RedisServer::with_file(options, file);
        wait_until("the sentinel knows the replica", || {
            sentinel.command::<String>(&["INFO", "sentinel"]).contains("status=ok") && {
                let info: String = sentinel.command(&["INFO", "sentinel"]);
                info.contains("slaves=1")
            }
        });
        Self { authority, servers: [master, replica], sentinel, sentinel_port }
    }

    fn config(&self) -> RedisConfig {
        RedisConfig {
            sentinel_master: MASTER.to_owned(),
            sentinel_username: "watcher".to_owned(),
            sentinel_password: Secret::new(SENTINEL_SECRET),
            ..secured(&self.authority, self.sentinel_port, &[])
        }
    }

    fn master_port(&self) -> u16 {
        let address: Vec<String> = self.sentinel.command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]);
        address[1].parse().unwrap()
    }
}

/// A node of Tidewire that believes this authority, as the documented user.
fn secured(authority: &Authority, port: u16, further: &[u16]) -> RedisConfig {
    let nodes: Vec<String> = further.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    RedisConfig {
        username: "tidewire".to_owned(),
        password: Secret::new(DATA_SECRET),
        tls_ca: authority.certificate(),
        ..config(&format!("rediss://localhost:{port}"), &nodes)
    }
}

/// What a node says that cannot start: where, and without any secret.
fn refusal(config: &RedisConfig, place: &str) -> String {
    let text = match Node::try_start(config) {
        Ok(_) => panic!("it connects"),
        Err(error) => error.to_string(),
    };
    assert!(text.starts_with(&format!("Redis at {place}: ")), "{text}");
    assert!(!text.contains("secret"), "{text}");
    text
}

#[test]
fn sentinels_with_tls_and_users_lead_to_the_master_and_to_its_successor() {
    let world = World::start();
    let node = Node::start(&world.config());
    assert_works(&node);
    assert_eq!(count(&node, 8, "1"), Ok(Value::Int(1)));
    let [master, replica] = &world.servers;
    wait_until("the replica has it", || replica.server.command::<u64>(&["DBSIZE"]) == 1);
    master.server.kill();
    node.wait_down();
    assert!(!node.wait_up(), "another server");
    assert_eq!(world.master_port(), replica.tls_port);
    assert_eq!(count(&node, 8, "1"), Ok(Value::Int(2)), "its data was replicated");
    assert_works(&node);
}

#[test]
fn whatever_is_wrong_with_sentinels_is_said_of_the_server_that_refuses() {
    let world = World::start();
    let sentinel = format!("localhost:{}", world.sentinel_port);
    let master = format!("127.0.0.1:{}", world.servers[0].tls_port);

    let unknown = RedisConfig { sentinel_master: "nobody".to_owned(), ..world.config() };
    let text = refusal(&unknown, &sentinel);
    assert!(text.contains("know no master named nobody; check redis.sentinel_master"), "{text}");

    let wrong = || Secret::new("a-wrong-secret");
    let text = refusal(&RedisConfig { sentinel_password: wrong(), ..world.config() }, &sentinel);
    assert!(text.contains("it refuses the login (WRONGPASS"), "{text}");
    assert!(text.contains("redis.sentinel_password"), "{text}");
    let text =
        refusal(&RedisConfig { sentinel_username: "somebody".to_owned(), ..world.config() }, &sentinel);
    assert!(text.contains("it refuses the login (WRONGPASS"), "{text}");
    let nobody = RedisConfig {
        sentinel_username: String::new(),
        sentinel_password: Secret::new(""),
        ..world.config()
    };
    let text = refusal(&nobody, &sentinel);
    assert!(text.contains("it asks for a password"), "{text}");
    assert!(text.contains("redis.sentinel_password"), "{text}");

    let text = refusal(&RedisConfig { password: wrong(), ..world.config() }, &master);
    assert!(text.contains("it refuses the login (WRONGPASS"), "{text}");
    assert!(text.contains("redis.username and redis.password"), "{text}");

    let other = Authority::new();
    let text = refusal(&RedisConfig { tls_ca: other.certificate(), ..world.config() }, &sentinel);
    assert!(text.contains("redis.tls_ca"), "{text}");

    world.sentinel.kill();
    let text = refusal(&world.config(), &sentinel);
    assert!(text.contains("connection refused"), "{text}");
}

/// Three masters whose bus is encrypted, too.
fn cluster(authority: &Authority) -> Vec<Data> {
    let masters: Vec<Data> = (0..3)
        .map(|_| {
            let further = [
                ("cluster-enabled", "yes".to_owned()),
                ("tls-cluster", "yes".to_owned()),
                ("cluster-node-timeout", "2000".to_owned()),
                ("cluster-port", free_port().to_string()),
            ];
            Data::start(authority, &further)
        })
        .collect();
    for (data, (first, last)) in masters.iter().zip([("0", "5460"), ("5461", "10922"), ("10923", "16383")]) {
        let _: String = data.server.command(&["CLUSTER", "ADDSLOTSRANGE", first, last]);
    }
    for (epoch, data) in masters.iter().enumerate() {
        let _: String = data.server.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(epoch + 1).to_string()]);
    }
    for data in &masters[1..] {
        let bus: Vec<String> = data.server.command(&["CONFIG", "GET", "cluster-port"]);
        let words = ["CLUSTER", "MEET", "127.0.0.1", &data.tls_port.to_string(), &bus[1]];
        let _: String = masters[0].server.command(&words);
    }
    for data in &masters {
        wait_until("the cluster is whole", || {
            let info: String = data.server.command(&["CLUSTER", "INFO"]);
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
        });
    }
    masters
}

#[test]
fn a_cluster_with_tls_and_a_user_works_on_all_partitions() {
    let authority = Authority::new();
    let masters = cluster(&authority);
    let ports: Vec<u16> = masters.iter().map(|data| data.tls_port).collect();
    let config = RedisConfig { cluster: true, ..secured(&authority, ports[0], &ports[1..]) };
    let (one, two) = (Node::start(&config), Node::start(&config));
    for partition in Partitions::ALL.iter() {
        two.subscribe(partition, "all");
        assert_eq!(count(&one, partition, "1"), Ok(Value::Int(1)));
        assert_eq!(count(&two, partition, "1"), Ok(Value::Int(2)));
        one.publish(partition, "all", &partition.to_string()).unwrap();
    }
    two.wait_for_messages(64);

    let first = format!("localhost:{}", ports[0]);
    // The seeds are asked one after the other; only one is named, so that its answer is what counts.
    let alone = RedisConfig { cluster: true, ..secured(&authority, ports[0], &[]) };
    let text = refusal(&RedisConfig { password: Secret::new("a-wrong-secret"), ..alone.clone() }, &first);
    assert!(text.contains("it refuses the login (WRONGPASS"), "{text}");
    let other = Authority::new();
    let text = refusal(&RedisConfig { tls_ca: other.certificate(), ..alone }, &first);
    assert!(text.contains("redis.tls_ca"), "{text}");
}
