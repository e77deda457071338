//! Several Redis servers that belong together: with sentinels, or as a cluster. The fault suite starts them, too.

use super::{Options, RedisServer, free_port, wait_until};

/// A master, its replicas and three sentinels that watch them, of which two decide.
pub struct Sentinel {
    /// The first is the master at the start.
    pub servers: Vec<RedisServer>,
    pub sentinels: Vec<RedisServer>,
}

impl Sentinel {
    pub const MASTER: &str = "tidewire-master";

    /// With one replica.
    pub fn start() -> Self {
        Self::with(&Options::default(), 1)
    }

    /// `options` are those of the master and of the replicas.
    pub fn with(options: &Options, replicas: usize) -> Self {
        let data = options.clone().arg("repl-diskless-sync-delay", 0);
        let master = RedisServer::with(data.clone());
        let data = data.arg("replicaof", format!("127.0.0.1 {}", master.port()));
        let replicas: Vec<RedisServer> = (0..replicas).map(|_| RedisServer::with(data.clone())).collect();
        for replica in &replicas {
            wait_until("replication", || replica.info("master_link_status") == "up");
        }
        let file = |port: u16| {
            let (name, master) = (Self::MASTER, master.port());
            Some(format!(
                "port {port}\nbind 127.0.0.1\nsentinel monitor {name} 127.0.0.1 {master} 2\n\
                 sentinel down-after-milliseconds {name} 1000\nsentinel failover-timeout {name} 3000\n"
            ))
        };
        let options = Options { args: vec!["--sentinel".to_owned()], ..options.clone() };
        let sentinels: Vec<RedisServer> =
            (0..3).map(|_| RedisServer::with_file(options.clone(), file)).collect();
        let known = format!("slaves={},sentinels=3", replicas.len());
        for sentinel in &sentinels {
            wait_until("the sentinels know each other and the replicas", || {
                let info: String = sentinel.command(&["INFO", "sentinel"]);
                info.contains(&known)
            });
        }
        let servers = std::iter::once(master).chain(replicas).collect();
        Self { servers, sentinels }
    }

    /// As in `redis.url` and `redis.nodes`.
    pub fn url(&self) -> String {
        self.sentinels[0].url()
    }

    pub fn nodes(&self) -> Vec<String> {
        self.sentinels[1..].iter().map(|sentinel| sentinel.addr().to_string()).collect()
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

/// First and last slot of each master.
const SLOTS: [(u16, u16); 3] = [(0, 5460), (5461, 10_922), (10_923, 16_383)];

/// Three masters that share the slots, and as many replicas as asked for.
pub struct RedisCluster {
    pub masters: Vec<RedisServer>,
    /// `replicas[n]` is the one of `masters[n]`.
    pub replicas: Vec<RedisServer>,
}

impl RedisCluster {
    /// Without replicas.
    pub fn start() -> Self {
        Self::with(&Options::default(), false)
    }

    /// Each master has a replica, which takes over about two seconds after the master is gone.
    pub fn with_replicas() -> Self {
        Self::with(&Options::default(), true)
    }

    /// `options` are those of each server.
    pub fn with(options: &Options, has_replicas: bool) -> Self {
        let masters: Vec<RedisServer> = (0..3).map(|_| Self::node(options)).collect();
        for (index, (master, slots)) in masters.iter().zip(SLOTS).enumerate() {
            let (first, last) = (slots.0.to_string(), slots.1.to_string());
            let _: String = master.command(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]);
            let _: String = master.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
        }
        let replicas: Vec<RedisServer> =
            masters.iter().filter(|_| has_replicas).map(|_| Self::node(options)).collect();
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

    fn node(options: &Options) -> RedisServer {
        let options = options
            .clone()
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

    /// As in `redis.url`.
    pub fn url(&self) -> String {
        self.masters[0].url()
    }

    /// As in `redis.nodes`.
    pub fn seeds(&self) -> Vec<String> {
        self.nodes().skip(1).map(|node| node.addr().to_string()).collect()
    }

    /// The master that had the slot at the start.
    pub fn owner(&self, slot: u16) -> &RedisServer {
        let last = SLOTS.iter().position(|(_, last)| slot <= *last);
        &self.masters[last.expect("there are no more slots")]
    }

    /// Begins to move a slot from the master that had it at the start: while it lasts, each key is at the one or at the
    /// other.
    pub fn begin_move(&self, slot: u16, to: &RedisServer) {
        let (from, slot) = (self.owner(slot), slot.to_string());
        let id = |server: &RedisServer| server.command::<String>(&["CLUSTER", "MYID"]);
        let _: String = to.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id(from)]);
        let _: String = from.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id(to)]);
    }

    /// Moves so many of the slot's keys, and says which.
    pub fn move_keys(&self, slot: u16, to: &RedisServer, most: usize) -> Vec<String> {
        let from = self.owner(slot);
        let words = ["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), &most.to_string()];
        let keys: Vec<String> = from.command(&words);
        for key in &keys {
            let moved: String =
                from.command(&["MIGRATE", "127.0.0.1", &to.port().to_string(), key, "0", "5000"]);
            assert_eq!(moved, "OK", "{key}");
        }
        keys
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
