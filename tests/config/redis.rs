//! The settings of Redis.

use std::time::Duration;

use tidewire::config::{Config, Origin, RedisMode, StoreKind, changes, effective};

use super::{APP, Folder, environment, file, from_file, loads, problems};

fn redis(name: &str, section: &str) -> Config {
    from_file(name, &format!(r#"{{"redis":{section},"apps":[{APP}]}}"#)).config
}

fn seeds(config: &Config) -> Vec<String> {
    config.redis.seeds().iter().map(ToString::to_string).collect()
}

#[test]
fn without_a_url_a_node_is_alone() {
    let config = from_file("redis-off", &format!(r#"{{"apps":[{APP}]}}"#)).config;
    assert!(!config.redis.is_on() && config.redis.seeds().is_empty());
    assert_eq!(config.replay.store, StoreKind::Sqlite);
    assert_eq!(config.redis.prefix, "tidewire");
    let times = [config.redis.node_timeout, config.redis.response_timeout, config.redis.unready_after];
    assert_eq!(times.map(|time| time.as_secs()), [15, 5, 30]);
}

#[test]
fn a_url_names_one_server() {
    let config = redis(
        "redis-url",
        r#"{"url": "rediss://ops:very%2Fhidden@cache.example.com/3", "node_timeout": "3s", "unready_after": 0}"#,
    );
    assert!(config.redis.is_on() && config.redis.has_tls());
    assert_eq!(config.redis.mode(), RedisMode::Standalone);
    assert_eq!(seeds(&config), ["cache.example.com:6379"]);
    assert_eq!(config.redis.database(), 3);
    let credentials = config.redis.credentials();
    assert_eq!(credentials.username, Some("ops"));
    assert_eq!(credentials.password.map(|password| password.expose()), Some("very/hidden"));
    assert_eq!(config.redis.sentinel_credentials(), Default::default());
    assert_eq!(
        (config.redis.node_timeout, config.redis.unready_after),
        (Duration::from_secs(3), Duration::ZERO)
    );
    assert_eq!(config.replay.store, StoreKind::Redis);
}

#[test]
fn sentinels_and_nodes_of_a_cluster_are_seeds() {
    let sentinel = redis(
        "redis-sentinel",
        r#"{"url": "redis://10.0.0.1", "nodes": "10.0.0.2, [::1]:7, 10.0.0.1:26379", "sentinel_master": "main",
            "username": "ops", "password": "p", "sentinel_password": "s", "tls_ca": ""}"#,
    );
    assert_eq!(sentinel.redis.mode(), RedisMode::Sentinel { master: "main" });
    assert_eq!(seeds(&sentinel), ["10.0.0.1:26379", "10.0.0.2:26379", "[::1]:7"]);
    assert_eq!(sentinel.redis.credentials().password.map(|password| password.expose()), Some("p"));
    assert_eq!(sentinel.redis.sentinel_credentials().password.map(|password| password.expose()), Some("s"));
    assert_eq!(sentinel.redis.to_string(), "10.0.0.1:26379, 10.0.0.2:26379, [::1]:7 (Sentinel, master main)");

    let cluster = redis(
        "redis-cluster",
        r#"{"url": "redis://10.0.0.1/0", "nodes": ["10.0.0.2:6380"], "cluster": true}"#,
    );
    assert_eq!(cluster.redis.mode(), RedisMode::Cluster);
    assert_eq!(seeds(&cluster), ["10.0.0.1:6379", "10.0.0.2:6380"]);
}

#[test]
fn a_setting_beats_what_the_url_says() {
    let config = redis("redis-both", r#"{"url": "redis://a:b@cache", "username": "c", "password": "d"}"#);
    let credentials = config.redis.credentials();
    assert_eq!(credentials.username, Some("c"));
    assert_eq!(credentials.password.map(|password| password.expose()), Some("d"));
}

#[test]
fn redis_url_counts_when_nothing_else_says_whether_there_is_redis() {
    let fallback = ("REDIS_URL", "redis://platform:7");
    let loaded = loads(&environment(&[fallback]));
    assert_eq!(seeds(&loaded.config), ["platform:7"]);
    assert_eq!(loaded.origins["redis.url"], Origin::Environment("REDIS_URL".to_owned()));

    let own = ("TIDEWIRE_REDIS__URL", "redis://own");
    let loaded = loads(&environment(&[fallback, own]));
    assert_eq!(seeds(&loaded.config), ["own:6379"]);
    assert_eq!(loaded.origins["redis.url"], Origin::Environment("TIDEWIRE_REDIS__URL".to_owned()));

    let (_folder, mut sources) =
        file("redis-fallback", &format!(r#"{{"redis":{{"url":"redis://file"}},"apps":[{APP}]}}"#));
    sources.environment = environment(&[fallback]).environment;
    assert_eq!(seeds(&loads(&sources).config), ["file:6379"]);

    let (_folder, mut sources) =
        file("redis-refused", &format!(r#"{{"redis":{{"url":""}},"apps":[{APP}]}}"#));
    sources.environment = environment(&[fallback]).environment;
    let loaded = loads(&sources);
    assert!(!loaded.config.redis.is_on());
    assert_eq!(loaded.warnings, [r#"REDIS_URL is set, but redis.url is "" in the file: this node is alone"#]);

    assert_eq!(
        problems(&environment(&[("REDIS_URL", "tcp://user:hidden@platform")])),
        [
            r#"REDIS_URL: expected "redis://host:6379" or, with TLS, "rediss://user:password@host:6379/0", got tcp://…"#
        ]
    );
}

#[test]
fn the_secrets_of_redis_may_come_from_files() {
    let folder = Folder::new("redis-files");
    let write = |name: &str, text: &str| folder.write(name, text).to_str().unwrap().to_owned();
    let (url, password) = (write("url", "redis://a:b@cache:7\n"), write("password", "from-a-file\n"));
    let pairs = [
        ("TIDEWIRE_REDIS__URL_FILE", &*url),
        ("TIDEWIRE_REDIS__PASSWORD_FILE", &*password),
        ("TIDEWIRE_REDIS__SENTINEL_PASSWORD_FILE", &*password),
        ("TIDEWIRE_REDIS__SENTINEL_MASTER", "main"),
        ("REDIS_URL", "redis://not-this-one"),
    ];
    let sources = environment(&pairs);
    let loaded = loads(&sources);
    assert_eq!(seeds(&loaded.config), ["cache:7"]);
    let redis = &loaded.config.redis;
    for credentials in [redis.credentials(), redis.sentinel_credentials()] {
        assert_eq!(credentials.password.map(|password| password.expose()), Some("from-a-file"));
    }
    assert_eq!(
        loaded.origins["redis.password"],
        Origin::Environment("TIDEWIRE_REDIS__PASSWORD_FILE".to_owned())
    );
    assert!([&url, &password].into_iter().all(|path| sources.files().contains(&path.into())));

    assert_eq!(
        problems(&environment(&[
            pairs[1],
            ("TIDEWIRE_REDIS__PASSWORD", "x"),
            ("REDIS_URL", "redis://cache")
        ])),
        ["TIDEWIRE_REDIS__PASSWORD_FILE: and TIDEWIRE_REDIS__PASSWORD are both set, keep one"]
    );
    let found = problems(&environment(&[("TIDEWIRE_REDIS__URL_FILE", "/nowhere/url")]));
    assert!(found[0].starts_with("TIDEWIRE_REDIS__URL_FILE: /nowhere/url: No such file"), "{found:?}");
    assert_eq!(
        problems(&environment(&[("TIDEWIRE_REDIS__PASWORD_FILE", "x")])),
        ["TIDEWIRE_REDIS__PASWORD_FILE: unknown variable, did you mean TIDEWIRE_REDIS__PASSWORD_FILE?"]
    );
}

#[test]
fn a_mistake_in_a_setting_of_redis_is_told_without_secrets() {
    let (_folder, mut sources) = file(
        "redis-problems",
        r#"{"redis": {"url": "redis://user:hidden@cache:port", "password": "***", "sentinel_password": 71,
                      "nodes": ["redis://u:hidden@cache", "cache:99999"], "cluster": "perhaps",
                      "prefix": "{tidewire}", "node_timeout": "1s", "unready_after": "soon", "adress": "x"}}"#,
    );
    sources.environment = environment(&[("TIDEWIRE_REDIS__RESPONSE_TIMEOUT", "0")]).environment;
    let mut found = problems(&sources);
    found.sort();
    let time = r#"a time such as "90s", "15m", "24h" or "7d", or a number of seconds"#;
    let host = r#"expected a host such as "redis.example.com:6379" or "[::1]:6379""#;
    let mut expected = [
        format!(r#"TIDEWIRE_REDIS__RESPONSE_TIMEOUT: expected {time}, from 1s to 1m, got "0""#),
        "redis.adress: unknown key".to_owned(),
        r#"redis.cluster: expected true or false, got "perhaps""#.to_owned(),
        format!(r#"redis.node_timeout: expected {time}, from 3s to 1h, got "1s""#),
        format!("redis.nodes[0]: {host}, got a URL"),
        format!(r#"redis.nodes[1]: {host}, got "cache:99999""#),
        "redis.password: is the mask that check-config prints, not the password".to_owned(),
        r#"redis.prefix: expected up to 64 letters, digits, - _ . and :, such as "tidewire", got "{tidewire}""#
            .to_owned(),
        "redis.sentinel_password: expected text in quotes, got a number".to_owned(),
        format!(r#"redis.unready_after: expected {time}, of at most 24h, got "soon""#),
        format!("redis.url: {host}"),
    ];
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn settings_of_redis_that_exclude_each_other_are_refused() {
    for (section, expected) in [
        (
            r#"{"url": "redis://a", "cluster": true, "sentinel_master": "m"}"#,
            "redis.cluster: and redis.sentinel_master are both set, keep one",
        ),
        (
            r#"{"url": "redis://a/3", "cluster": true}"#,
            "redis.url: names database 3, but a Redis Cluster has only database 0",
        ),
        (
            r#"{"nodes": ["a", "b"], "cluster": true}"#,
            "redis.url: is empty, but redis.nodes is set; name one of the servers here",
        ),
        (
            r#"{"sentinel_master": "m"}"#,
            "redis.url: is empty, but redis.sentinel_master is set; name one of the servers here",
        ),
        (
            r#"{"url": "redis://a", "username": "ops"}"#,
            "redis.password: is missing, but redis.username is set",
        ),
    ] {
        let (_folder, sources) = file("redis-excluded", &format!(r#"{{"redis":{section},"apps":[{APP}]}}"#));
        assert_eq!(problems(&sources), [expected]);
    }
}

#[test]
fn replay_of_several_nodes_is_kept_in_redis() {
    const STORED: &str = r#""apps":[{"id":7,"key":"k","secret":"s","replay":true}]"#;
    let on = ("REDIS_URL", "redis://cache");
    let (_folder, mut sources) = file("redis-replay", &format!("{{{STORED}}}"));
    assert_eq!(loads(&sources).config.replay.store, StoreKind::Sqlite);
    sources.environment = environment(&[on]).environment;
    assert_eq!(loads(&sources).config.replay.store, StoreKind::Redis);

    for store in ["sqlite", "memory"] {
        sources.environment = environment(&[on, ("TIDEWIRE_REPLAY__STORE", store)]).environment;
        assert_eq!(
            problems(&sources),
            [
                r#"TIDEWIRE_REPLAY__STORE: expected "redis": REDIS_URL is set, and app 7 keeps messages that every node has to find"#
            ]
        );
        // No app keeps any: the store is never opened.
        let quiet = environment(&[on, ("TIDEWIRE_REPLAY__STORE", store)]);
        assert!(quiet.load().is_ok());
    }
    assert_eq!(
        problems(&environment(&[("TIDEWIRE_REPLAY__STORE", "redis")])),
        [r#"TIDEWIRE_REPLAY__STORE: "redis" needs redis.url"#]
    );
}

#[test]
fn doubtful_settings_of_redis_are_warned_of() {
    let stored = r#"{"id": 1, "key": "k", "secret": "s", "replay": true}"#;
    for on_store_error in ["reject", "live_only"] {
        let text = format!(
            r#"{{"redis":{{"url":"redis://a"}},"replay":{{"on_store_error":"{on_store_error}"}},"apps":[{stored}]}}"#
        );
        let warnings = from_file("redis-live-only", &text).warnings;
        let is_warned = warnings.iter().any(|warning| warning.contains("it is as \"reject\""));
        assert_eq!(is_warned, on_store_error == "live_only", "{warnings:?}");
    }
    for (section, expected) in [
        (r#"{"password": "p"}"#, "redis.password is set, but redis.url is not"),
        (r#"{"url": "redis://a", "tls_ca": "ca.pem"}"#, "so nothing is encrypted"),
        (r#"{"url": "redis://a", "nodes": ["b"]}"#, "only redis.url is used"),
        (r#"{"url": "redis://a", "sentinel_password": "p"}"#, "but redis.sentinel_master is not"),
        (r#"{"url": "redis://a", "response_timeout": "15s"}"#, "the others take it for dead"),
    ] {
        let loaded = from_file("redis-doubts", &format!(r#"{{"redis":{section},"apps":[{APP}]}}"#));
        assert_eq!(loaded.warnings.len(), 1, "{section}: {:?}", loaded.warnings);
        assert!(loaded.warnings[0].contains(expected), "{:?}", loaded.warnings);
    }
}

#[test]
fn no_password_of_redis_is_shown() {
    let section = r#"{"url": "rediss://ops:hidden-1@cache", "password": "hidden-2", "sentinel_master": "m",
                      "sentinel_password": "hidden-3"}"#;
    let config = redis("redis-shown", section);
    let printed = effective(&config);
    assert!(printed.contains(r#""url": "rediss://ops:***@cache""#), "{printed}");
    for text in [printed, format!("{config:?}"), format!("{:#?}", config.redis), config.redis.to_string()] {
        assert!(!text.contains("hidden"), "{text}");
    }
    assert!(!format!("{:?}", config.redis.credentials()).contains("hidden"));
}

#[test]
fn settings_of_redis_change_with_a_restart() {
    let one = redis("redis-change-1", r#"{"url": "redis://:hidden-1@cache", "password": ""}"#);
    let two = redis("redis-change-2", r#"{"url": "redis://:hidden-2@cache", "node_timeout": "30s"}"#);
    let texts: Vec<String> = changes(&one, &two).iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            r#"redis.node_timeout: "15s" -> "30s" (takes effect after a restart)"#,
            "redis credentials (takes effect after a restart)",
        ]
    );
    assert_eq!(changes(&one, &one), []);
}
