//! Several Redis servers that belong together: with sentinels, or as a cluster.

use tidewire::config::RedisConfig;

use super::{Options, RedisServer, config, free_port, wait_until};

/// A master, a replica and three sentinels that watch them, of which two decide.
pub struct Sentinel {
    pub servers: [RedisServer; 2],
    pub sentinels: Vec<RedisServer>,
}

impl Sentinel {
    pub const MASTER: &str = "tidewire-master";

    pub fn start() -> Self {
        let options = Options::default().arg("repl-diskless-sync-delay", 0);
        let master = RedisServer::with(options.clone());
        let replica = RedisServer::with(options.arg("replicaof", format!("127.0.0.1 {}", master.port())));
        wait_until("replication", || replica.info("master_link_status") == "up");
        let file = |port: u16| {
            let (name, master) = (Self::MASTER, master.port());
            Some(format!(
                "port {port}\nbind 127.0.0.1\nsentinel monitor {name} 127.0.0.1 {master} 2\n\
                 sentinel down-after-milliseconds {name} 1000\nsentinel failover-timeout {name} 3000\n"
            ))
        };
        let options = Options { args: vec!["--sentinel".to_owned()], ..Options::default() };
        let sentinels: Vec<RedisServer> =
            (0..3).map(|_| RedisServer::with_file(options.clone(), file)).collect();
        for sentinel in &sentinels {
            wait_until("the sentinels know each other and the replica", || {
                let info: String = sentinel.command(&["INFO", "sentinel"]);
                info.contains("slaves=1,sentinels=3")
            });
        }
        Self { servers: [master, replica], sentinels }
    }

    /// As in `redis.url` and `redis.nodes`.
    pub fn url(&self) -> String {
        self.sentinels[0].url()
    }

    pub fn nodes(&self) -> Vec<String> {
        self.sentinels[1..].iter().map(|sentinel| sentinel.addr().to_string()).collect()
    }

    /// For a node of Tidewire.
    pub fn config(&self) -> RedisConfig {
        RedisConfig { sentinel_master: Self::MASTER.to_owned(), ..config(&self.url(), &self.nodes()) }
    }

    /// The port of the server that most sentinels take for the master.
    pub fn master_port(&self) -> u16 {
        let ports: Vec<u16> = self
            .sentinels
            .iter()
            .filter_map(|sentinel| {
                let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", Self::MASTER];
                let address: Vec<String> = sentinel.try_command(&words).ok()?;
                address.get(1)?.parse().ok()
            })
            .collect();
        let votes = |port: u16| ports.iter().filter(|vote| **vote == port).count();
        ports.iter().copied().max_by_key(|port| votes(*port)).expect("a sentinel answers")
    }

    pub fn master(&self) -> &RedisServer {
        let port = self.master_port();
        self.servers.iter().find(|server| server.port() == port).expect("it is one of them")
    }

    /// Orders a fail-over; the old master becomes a replica.
    pub fn fail_over(&self) {
        let _: String = self.sentinels[0].command(&["SENTINEL", "FAILOVER", Self::MASTER]);
    }
}

/// Three masters that share the slots, and as many replicas as asked for.
pub struct RedisCluster {
    pub masters: Vec<RedisServer>,
    /// `replicas[n]` is the one of `masters[n]`.
    pub replicas: Vec<RedisServer>,
}

impl RedisCluster {
    /// Without replicas.
    pub fn start() -> Self {
        Self::with(false)
    }

    /// Each master has a replica, which takes over about two seconds after the master is gone.
    pub fn with_replicas() -> Self {
        Self::with(true)
    }

    fn with(has_replicas: bool) -> Self {
        let masters: Vec<RedisServer> = (0..3).map(|_| Self::node()).collect();
        for (index, (master, slots)) in
            masters.iter().zip([(0, 5460), (5461, 10_922), (10_923, 16_383)]).enumerate()
        {
            let (first, last) = (slots.0.to_string(), slots.1.to_string());
            let _: String = master.command(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]);
            let _: String = master.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
        }
        let replicas: Vec<RedisServer> =
            masters.iter().filter(|_| has_replicas).map(|_| Self::node()).collect();
        let cluster = Self { masters, replicas };
        let first = &cluster.masters[0];
        for node in cluster.nodes().skip(1) {
            cluster.meet(first, node);
        }
        let count = cluster.nodes().count().to_string();
        for node in cluster.nodes() {
            wait_until("the nodes know each other", || Self::field(node, "cluster_known_nodes") == count);
        }
        for (master, replica) in cluster.masters.iter().zip(&cluster.replicas) {
            let id: String = master.command(&["CLUSTER", "MYID"]);
            wait_until("the replica knows its master", || {
                replica.try_command::<String>(&["CLUSTER", "REPLICATE", &id]).is_ok()
            });
        }
        for replica in &cluster.replicas {
            wait_until("replication", || replica.info("master_link_status") == "up");
        }
        cluster.wait_until_ok();
        cluster
    }

    fn node() -> RedisServer {
        let options = Options::default()
            .arg("cluster-enabled", "yes")
            .arg("cluster-node-timeout", 1000)
            .arg("cluster-replica-validity-factor", 0)
            .arg("repl-diskless-sync-delay", 0)
            .arg("cluster-port", free_port());
        RedisServer::with(options)
    }

    fn meet(&self, one: &RedisServer, other: &RedisServer) {
        let bus = other.options.args.last().expect("its bus has a port");
        let words = ["CLUSTER", "MEET", "127.0.0.1", &other.port().to_string(), bus];
        let _: String = one.command(&words);
    }

    fn field(node: &RedisServer, field: &str) -> String {
        let info: String = node.command(&["CLUSTER", "INFO"]);
        let value = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.unwrap_or_default().trim().to_owned()
    }

    pub fn nodes(&self) -> impl Iterator<Item = &RedisServer> {
        self.masters.iter().chain(&self.replicas)
    }

    /// Until every node that runs takes the cluster for whole.
    pub fn wait_until_ok(&self) {
        for node in self.nodes() {
            if node.is_running() {
                wait_until("cluster_state:ok", || Self::field(node, "cluster_state") == "ok");
            }
        }
    }

    /// For a node of Tidewire.
    pub fn config(&self) -> RedisConfig {
        RedisConfig { cluster: true, ..config(&self.url(), &self.seeds()) }
    }

    /// As in `redis.url`.
    pub fn url(&self) -> String {
        self.masters[0].url()
    }

    /// As in `redis.nodes`.
    pub fn seeds(&self) -> Vec<String> {
        self.nodes().skip(1).map(|node| node.addr().to_string()).collect()
    }

    /// Gives a slot without keys, and what is subscribed in it, to another master.
    pub fn move_slot(&self, slot: u16, to: &RedisServer) {
        let id: String = to.command(&["CLUSTER", "MYID"]);
        let slot = slot.to_string();
        let words = ["CLUSTER", "SETSLOT", &slot, "NODE", &id];
        // The new owner first, so that nobody is without one.
        let _: String = to.command(&words);
        let _: String = to.command(&["CLUSTER", "BUMPEPOCH"]);
        for node in self.masters.iter().filter(|node| node.port() != to.port()) {
            let _: String = node.command(&words);
        }
    }
}
