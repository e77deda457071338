//! The settings of replay.

use std::time::Duration;

use tidewire::config::{AppReplay, Durability, OnStoreError, StoreKind, effective};

use super::{Folder, environment, file, from_file, loads, problems};

#[test]
fn replay_is_off_on_or_a_list_of_rules() {
    let config = from_file(
        "replay",
        r#"{"replay": {"dir": "/var/lib/tidewire", "durability": "always", "max_bytes": "16GiB"},
            "apps": [{"id":1,"key":"a","secret":"s1"}, {"id":2,"key":"b","secret":"s2","replay":true},
                     {"id":3,"key":"c","secret":"s3","replay":{"max_bytes":"64MiB","rules":[
                         {"match":"private-typing-*","stored":false},
                         {"match":"private-*","window":"15m","max_messages":50,"max_bytes":65536,"inactivity_ttl":90,
                          "client_events":true,"keepalive_interval":"5s","max_connection_lifetime":"0"}]}}]}"#,
    )
    .config;
    let replay = &config.replay;
    assert_eq!((replay.store, replay.durability), (StoreKind::Sqlite, Durability::Always));
    assert_eq!(replay.on_store_error, OnStoreError::Reject);
    assert_eq!((replay.dir.to_str(), replay.max_bytes), (Some("/var/lib/tidewire"), 16 << 30));

    let [off, on, rules] = &config.apps[..] else { panic!("three apps") };
    assert!(!off.replay.is_on());
    let rule = on.replay.rule("any-channel").unwrap();
    assert_eq!((rule.window.as_secs(), rule.max_messages, rule.max_bytes), (86_400, 1000, 1 << 20));
    assert_eq!(rules.replay.max_bytes, 64 << 20);
    assert_eq!(rules.replay.rule("private-typing-7"), None);
    assert_eq!(rules.replay.rule("news"), None);
    let rule = rules.replay.rule("private-chat-7").unwrap();
    assert!(rule.client_events);
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs());
    assert_eq!((seconds(rule.keepalive_interval), seconds(rule.max_connection_lifetime)), (Some(5), Some(0)));
    let retention = rule.retention();
    assert_eq!((retention.window_ms, retention.inactivity_ttl_ms), (900_000, 90_000));
    assert_eq!((retention.max_messages, retention.max_bytes), (50, 65_536));
}

#[test]
fn a_mistake_in_a_replay_setting_is_told_with_what_was_meant() {
    let (_folder, mut sources) = file(
        "replay-problems",
        r#"{"replay": {"store": "reddis", "dir": "", "max_bytes": "4GB", "rules": []},
            "apps": [{"id":1,"key":"a","secret":"s1","window":"1h","replay":"yes"},
                     {"id":2,"key":"b","secret":"s2","replay":{"max_bytes":-1,"rules":[
                        {"match":"","window":"0","max_messages":0,"max_bytes":"1B","inactivity_ttl":"2y"},
                        {"match":"a b","windows":"1h","keepalive_interval":true},
                        {"stored":false,"window":"366d"}]}}],
            "limits": {"max_replay_messages": 0, "keepalive_interval": "soon"}}"#,
    );
    sources.environment =
        environment(&[("TIDEWIRE_REPLAY__DURABILITY", "sometimes"), ("TIDEWIRE_REPLAY__DIRR", "x")])
            .environment;
    let mut found = problems(&sources);
    found.sort();
    let time = r#"a time such as "90s", "15m", "24h" or "7d", or a number of seconds"#;
    let size = r#"a size such as "512KiB", "1MiB" or "4GiB", or a number of bytes"#;
    let rule = "apps[1].replay.rules";
    let mut expected = [
        r#"TIDEWIRE_REPLAY__DIRR: unknown variable, did you mean TIDEWIRE_REPLAY__DIR?"#.to_owned(),
        r#"TIDEWIRE_REPLAY__DURABILITY: expected one of "always", "interval", "none", got "sometimes""#
            .to_owned(),
        r#"apps[0].replay: expected true, false or an object, got "yes""#.to_owned(),
        r#"apps[0].window: unknown key here, it belongs to "apps[].replay.rules[]""#.to_owned(),
        format!("apps[1].replay.max_bytes: expected {size}, got -1"),
        format!(r#"{rule}[0].inactivity_ttl: expected {time}, of at most 365d, got "2y""#),
        format!(r#"{rule}[0].match: is empty; "*" matches every channel"#),
        format!(r#"{rule}[0].max_bytes: expected {size}, of at least 1KiB, got "1B""#),
        format!("{rule}[0].max_messages: expected a whole number of at least 1, got 0"),
        format!(r#"{rule}[0].window: expected {time}, from 1s to 365d, got "0""#),
        format!("{rule}[1].keepalive_interval: expected {time}, from 1s to 1h, got true"),
        format!(
            r#"{rule}[1].match: expected a channel's name in which * stands for anything, such as "private-chat-*", got "a b""#
        ),
        format!(r#"{rule}[1].windows: unknown key, did you mean "window"?"#),
        format!("{rule}[2].match: is missing"),
        format!(r#"{rule}[2].window: expected {time}, from 1s to 365d, got "366d""#),
        format!(r#"limits.keepalive_interval: expected {time}, from 1s to 1h, got "soon""#),
        "limits.max_replay_messages: expected a whole number of at least 1, got 0".to_owned(),
        "replay.dir: is empty, expected a directory".to_owned(),
        format!(r#"replay.max_bytes: expected {size}, of at least 16MiB, got "4GB""#),
        r#"replay.rules: unknown key here, it belongs to "apps[].replay""#.to_owned(),
        r#"replay.store: expected one of "sqlite", "memory", "redis", got "reddis""#.to_owned(),
    ];
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn replay_of_the_one_app_may_be_switched_on_by_a_variable() {
    let on = ("TIDEWIRE_APP_REPLAY", "true");
    let app = [("TIDEWIRE_APP_ID", "7"), ("TIDEWIRE_APP_KEY", "k"), ("TIDEWIRE_APP_SECRET", "s")];
    let own = loads(&environment(&[app[0], app[1], app[2], on])).config;
    assert_eq!(own.apps[0].replay, AppReplay::everything());

    let built_in = loads(&environment(&[on])).config;
    assert!(built_in.default_app && built_in.apps[0].replay.is_on());

    let pusher = [
        ("PUSHER_APP_ID", "8"),
        ("PUSHER_APP_KEY", "eight"),
        ("PUSHER_APP_SECRET", "s"),
        ("TIDEWIRE_APP_REPLAY", "1"),
    ];
    assert!(loads(&environment(&pusher)).config.apps[0].replay.is_on());

    let (_folder, mut sources) = file(
        "replay-env",
        r#"{"apps":[{"id":1,"key":"k","secret":"s","replay":{"rules":[{"match":"a"}]}}]}"#,
    );
    assert!(loads(&sources).config.apps[0].replay.is_on());
    sources.environment = environment(&[("TIDEWIRE_APP_REPLAY", "off")]).environment;
    assert!(!loads(&sources).config.apps[0].replay.is_on());
    let rules = ("TIDEWIRE_APP_REPLAY", r#"{"rules":[{"match":"b-*","window":"1h"}]}"#);
    sources.environment = environment(&[rules]).environment;
    assert!(loads(&sources).config.apps[0].replay.rule("b-1").is_some());

    for (value, expected) in [
        ("maybe", r#"TIDEWIRE_APP_REPLAY: expected true, false or an object, got "maybe""#),
        (
            r#"{"rules":[{"match":""}]}"#,
            r#"TIDEWIRE_APP_REPLAY.rules[0].match: is empty; "*" matches every channel"#,
        ),
    ] {
        let pair = ("TIDEWIRE_APP_REPLAY", value);
        assert_eq!(problems(&environment(&[pair])), [expected]);
        assert_eq!(problems(&environment(&[app[0], app[1], app[2], pair])), [expected]);
    }
    let (_folder, mut sources) =
        file("replay-two", r#"{"apps":[{"id":1,"key":"k","secret":"s"},{"id":2,"key":"l","secret":"s"}]}"#);
    sources.environment = environment(&[on]).environment;
    assert_eq!(
        problems(&sources),
        ["TIDEWIRE_APP_ID: is not set, so there is no telling which app is meant"]
    );
}

#[test]
fn the_directory_of_replay_is_no_file_and_a_cap_is_no_toy() {
    let folder = Folder::new("replay-dir");
    let path = folder.write("occupied", "");
    let occupied = ("TIDEWIRE_REPLAY__DIR", path.to_str().unwrap());
    // Nobody asks for it.
    assert!(environment(&[occupied]).load().is_ok());
    let found = problems(&environment(&[occupied, ("TIDEWIRE_APP_REPLAY", "true")]));
    assert_eq!(
        found,
        [format!("TIDEWIRE_REPLAY__DIR: expected a directory, but {} is a file", path.display())]
    );
    let in_memory = ("TIDEWIRE_REPLAY__STORE", "memory");
    assert!(environment(&[occupied, in_memory, ("TIDEWIRE_APP_REPLAY", "true")]).load().is_ok());

    let (_folder, sources) =
        file("replay-cap", r#"{"apps":[{"id":1,"key":"k","secret":"s","replay":{"max_bytes":"1KiB"}}]}"#);
    assert_eq!(
        problems(&sources),
        ["apps[0].replay.max_bytes: expected 0 (only replay.max_bytes counts) or at least 1MiB"]
    );
}

#[test]
fn doubtful_rules_are_warned_of() {
    let loaded = from_file(
        "replay-doubts",
        r#"{"replay":{"max_bytes":"16MiB"},
            "apps":[{"id":1,"key":"k","secret":"s","client_events":false,"replay":{"max_bytes":"1GiB","rules":[
                {"match":"private-*","max_bytes":"2KiB","client_events":true},{"match":"private-chat-*"}]}}]}"#,
    );
    let all = loaded.warnings.join("\n");
    for expected in [
        "replay.max_bytes is 1GiB, but the whole store keeps only 16MiB",
        "rules[0] (private-*) keeps 2KiB, less than one event",
        "rules[0] (private-*) stores client events, but",
        "rules[1] (private-chat-*) is never reached, rules[0] matches the same channels",
    ] {
        assert!(all.contains(expected), "{expected} in {all}");
    }
    assert_eq!(loaded.warnings.len(), 4);
}

#[test]
fn what_check_config_prints_is_a_configuration() {
    let text =
        r#"{"apps":[{"id":"1","key":"k","secret":"s","replay":{"rules":[{"match":"a-*","window":90}]}}]}"#;
    let config = from_file("effective", text).config;
    let printed = effective(&config);
    assert!(
        printed.contains(r#""window": "90s""#) && printed.contains(r#""max_bytes": "4GiB""#),
        "{printed}"
    );
    let again = from_file("effective-again", &printed.replace("***", "s")).config;
    assert_eq!(again.apps, config.apps);
    assert_eq!(again.replay, config.replay);
}
