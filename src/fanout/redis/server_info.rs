//! What a server says of itself.

use std::rc::Rc;

/// The answers to `INFO server`, `INFO replication` and `INFO memory`, as far as they matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// As the server writes it.
    pub version: Box<str>,
    is_valkey: bool,
    pub mode: ServerMode,
    pub is_master: bool,
    /// `maxmemory-policy`, unless it is `noeviction`.
    pub eviction_policy: Option<Box<str>>,
    /// Another one after a restart, and when it goes on from another server's data.
    pub identity: Rc<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerMode {
    Standalone,
    Cluster,
    Sentinel,
}

/// Sharded pub/sub and `EVALSHA` with its flags are of 7.0.
const OLDEST_MAJOR: u32 = 7;

impl ServerInfo {
    pub fn parse(info: &str) -> Self {
        let field = |name: &str| {
            let mut lines = info.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map_or("", str::trim)
        };
        let valkey = field("valkey_version");
        Self {
            version: if valkey.is_empty() { field("redis_version") } else { valkey }.into(),
            is_valkey: !valkey.is_empty(),
            mode: match field("redis_mode") {
                "cluster" => ServerMode::Cluster,
                "sentinel" => ServerMode::Sentinel,
                _ => ServerMode::Standalone,
            },
            is_master: field("role") != "slave",
            eviction_policy: match field("maxmemory_policy") {
                "" | "noeviction" => None,
                policy => Some(policy.into()),
            },
            identity: match field("run_id") {
                // It cannot be told from another one, so it never is the same.
                "" => format!("{:032x}", rand::random::<u128>()).into(),
                run_id => format!("{run_id}/{}", field("master_replid")).into(),
            },
        }
    }

    /// Redis from 7.0 on, or any Valkey.
    pub fn is_new_enough(&self) -> bool {
        let major = self.version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        self.is_valkey || major.is_some_and(|major| major >= OLDEST_MAJOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(info: &str) -> (String, bool) {
        let server = ServerInfo::parse(info);
        (server.version.to_string(), server.is_new_enough())
    }

    #[test]
    fn redis_is_new_enough_from_seven_on_and_valkey_always() {
        assert_eq!(version("# Server\r\nredis_version:6.2.14\r\n"), ("6.2.14".to_owned(), false));
        assert_eq!(version("redis_version:7.0.0\r\n"), ("7.0.0".to_owned(), true));
        assert_eq!(version("redis_version:7.0-rc1\r\n"), ("7.0-rc1".to_owned(), true));
        assert_eq!(version("redis_version:10.0.1\r\n"), ("10.0.1".to_owned(), true));
        assert_eq!(
            version("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.0\r\n"),
            ("8.1.0".to_owned(), true)
        );
        assert_eq!(version("garbage"), (String::new(), false));
    }

    #[test]
    fn a_restart_and_another_history_are_another_identity() {
        let info = |run: &str, replid: &str| {
            ServerInfo::parse(&format!(
                "redis_version:7.0.15\r\nredis_mode:cluster\r\nrun_id:{run}\r\n\r\nrole:master\r\nmaster_replid:{replid}\r\n"
            ))
        };
        assert_eq!(info("a", "x"), info("a", "x"));
        assert_ne!(info("a", "x").identity, info("b", "x").identity);
        assert_ne!(info("a", "x").identity, info("a", "y").identity);
        assert!(info("a", "x").is_master);
        assert_eq!(info("a", "x").mode, ServerMode::Cluster);
        assert!(!ServerInfo::parse("role:slave\r\n").is_master);
        let policy = |info| ServerInfo::parse(info).eviction_policy;
        assert_eq!(policy("maxmemory_policy:noeviction\r\n"), None);
        assert_eq!(policy("maxmemory_policy:allkeys-lru\r\n").as_deref(), Some("allkeys-lru"));
        assert_ne!(ServerInfo::parse("").identity, ServerInfo::parse("").identity);
    }
}
