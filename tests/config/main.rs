//! The four layers of the configuration, and what is said when one of them is wrong.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failing test may panic")]

mod redis;
mod replay;

use std::path::{Path, PathBuf};

use tidewire::config::{Flag, Loaded, Origin, Sources, schema};

const APP: &str = r#"{"id":"42","key":"tw-demo-key","secret":"tw-test-secret"}"#;

/// A directory of its own for each test, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tidewire-config-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn environment(pairs: &[(&str, &str)]) -> Sources {
    let environment = pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    Sources { environment, ..Sources::default() }
}

fn file(name: &str, text: &str) -> (Folder, Sources) {
    let folder = Folder::new(name);
    let path = folder.write("config.json", text);
    (folder, Sources { file: Some(path), ..Sources::default() })
}

#[track_caller]
fn loads(sources: &Sources) -> Loaded {
    sources.load().unwrap_or_else(|error| panic!("{error}"))
}

/// The problems, one a line, of a configuration that must not load.
#[track_caller]
fn problems(sources: &Sources) -> Vec<String> {
    sources.load().expect_err("must be refused").problems.iter().map(ToString::to_string).collect()
}

fn from_file(name: &str, text: &str) -> Loaded {
    loads(&file(name, text).1)
}

#[test]
fn without_anything_the_built_in_app_listens_on_loopback() {
    let config = loads(&Sources::default()).config;
    assert!(config.default_app);
    assert_eq!(config.source, None);
    assert_eq!(config.server.listen, ["127.0.0.1:6001".parse().unwrap()]);
    let app = &config.apps[0];
    assert_eq!((app.id.as_str(), app.credentials[0].key.as_str()), ("1", "app-key"));
    assert_eq!(app.credentials[0].secret.expose(), "app-secret");
}

#[test]
fn a_configured_app_listens_everywhere() {
    let config = from_file("everywhere", &format!(r#"{{"apps":[{APP}]}}"#)).config;
    assert!(!config.default_app);
    assert_eq!(config.server.listen, ["0.0.0.0:6001".parse().unwrap()]);
}

#[test]
fn the_built_in_app_refuses_an_open_address() {
    for pairs in [[("TIDEWIRE_SERVER__LISTEN", "0.0.0.0:6001")], [("TIDEWIRE_SERVER__LISTEN", "6001")]] {
        let found = problems(&environment(&pairs));
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("TIDEWIRE_SERVER__LISTEN: 0.0.0.0:6001 can be reached"), "{found:?}");
        assert!(found[0].contains("TIDEWIRE_APP_SECRET"));
    }
    assert!(environment(&[("TIDEWIRE_SERVER__LISTEN", "[::1]:6001, localhost:7001")]).load().is_ok());
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let text =
        format!(r#"{{"server":{{"workers":2,"drain_seconds":20,"max_handshakes":30}},"apps":[{APP}]}}"#);
    let (_folder, mut sources) = file("precedence", &text);
    sources.environment =
        environment(&[("TIDEWIRE_SERVER__WORKERS", "3"), ("TIDEWIRE_SERVER__DRAIN_SECONDS", "21")])
            .environment;
    sources.flags = vec![Flag { name: "--workers", path: "server.workers", value: "4".to_owned() }];
    let loaded = loads(&sources);
    let server = &loaded.config.server;
    assert_eq!((server.workers, server.drain_seconds, server.max_handshakes), (4, 21, 30));
    assert_eq!(server.header_timeout_seconds, 65);
    assert_eq!(loaded.origins["server.workers"], Origin::Flag("--workers"));
    assert_eq!(
        loaded.origins["server.drain_seconds"],
        Origin::Environment("TIDEWIRE_SERVER__DRAIN_SECONDS".to_owned())
    );
    assert_eq!(loaded.origins["server.max_handshakes"], Origin::File);
    assert!(!loaded.origins.contains_key("server.header_timeout_seconds"));
}

#[test]
fn limits_of_an_app_are_laid_over_the_common_ones() {
    let config = from_file(
        "limits",
        r#"{"limits":{"max_event_bytes":20000,"max_batch_events":5},
            "apps":[{"id":1,"key":"a","secret":"s1","limits":{"max_batch_events":7}},{"id":2,"key":"b","secret":"s2"}]}"#,
    )
    .config;
    let limits: Vec<_> =
        config.apps.iter().map(|a| (a.limits.max_event_bytes, a.limits.max_batch_events)).collect();
    assert_eq!(limits, [(20_000, 7), (20_000, 5)]);
    assert_eq!(config.apps[0].limits.max_presence_members, 100);
    assert_eq!(config.apps[0].id, "1");
}

#[test]
fn common_limits_also_bind_the_built_in_app() {
    let config = loads(&environment(&[("TIDEWIRE_LIMITS__MAX_EVENT_BYTES", "5000")])).config;
    assert_eq!(config.apps[0].limits.max_event_bytes, 5000);
}

#[test]
fn text_that_looks_like_a_number_stays_text() {
    let sources = environment(&[
        ("TIDEWIRE_APP_ID", "0042"),
        ("TIDEWIRE_APP_KEY", "1e5"),
        ("TIDEWIRE_APP_SECRET", "00123"),
    ]);
    let app = loads(&sources).config.apps.remove(0);
    assert_eq!(app.id, "0042");
    assert_eq!(app.credentials[0].key, "1e5");
    assert_eq!(app.credentials[0].secret.expose(), "00123");
}

#[test]
fn lists_in_the_environment_are_separated_by_commas() {
    let sources = environment(&[
        ("TIDEWIRE_SERVER__LISTEN", "127.0.0.1:1, [::1]:2"),
        ("TIDEWIRE_SERVER__TRUSTED_PROXIES", "10.0.0.0/8,192.168.1.1"),
    ]);
    let server = loads(&sources).config.server;
    assert_eq!(server.listen.len(), 2);
    let networks: Vec<String> = server.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.0.0.0/8", "192.168.1.1/32"]);
}

#[test]
fn a_bad_item_of_a_list_is_told_with_its_variable() {
    let found = problems(&environment(&[("TIDEWIRE_SERVER__TRUSTED_PROXIES", "10.0.0.0/8,10.0.0.0/99")]));
    assert_eq!(
        found,
        [
            r#"TIDEWIRE_SERVER__TRUSTED_PROXIES: expected an address or a CIDR range such as "10.0.0.0/8", got "10.0.0.0/99""#
        ]
    );
}

#[test]
fn all_problems_are_told_at_once() {
    let (_folder, mut sources) = file(
        "all-problems",
        r#"{
            "server": {"listem": "x", "workers": 100, "listen": ["0.0.0.0"], "require_protocol_version": "maybe"},
            "log": {"format": "prety"},
            "max_event_bytes": 5,
            "apps": [{"id": "1", "key": "a b", "secert": "s1"}, {"id": true, "key": "k", "secret": ""}, 5]
        }"#,
    );
    sources.environment = environment(&[
        ("TIDEWIRE_SERVER__LISTEM", "1"),
        ("TIDEWIRE_SERVER__DRAIN_SECONDS", "soon"),
        ("TIDEWIRE_LISTEN", "1"),
        ("TIDEWIRE_SERVER", "1"),
        ("TIDEWIRE_APPS__0__KEY", "1"),
    ])
    .environment;
    let mut found = problems(&sources);
    found.sort();
    let mut expected = [
        r#"TIDEWIRE_APPS__0__KEY: apps cannot be set one by one; use TIDEWIRE_APPS with a JSON array, or the file"#,
        r#"TIDEWIRE_LISTEN: unknown variable, did you mean TIDEWIRE_SERVER__LISTEN?"#,
        r#"TIDEWIRE_SERVER: is a section, name a setting in it with __"#,
        r#"TIDEWIRE_SERVER__DRAIN_SECONDS: expected a whole number from 0 to 86400, got "soon""#,
        r#"TIDEWIRE_SERVER__LISTEM: unknown variable, did you mean TIDEWIRE_SERVER__LISTEN?"#,
        r#"apps[0].key: expected letters, digits, - and _, got "a b""#,
        r#"apps[0].secert: unknown key, did you mean "secret"?"#,
        r#"apps[0].secret: is missing"#,
        r#"apps[1].id: expected text in quotes, got true"#,
        r#"apps[1].secret: is empty; `openssl rand -hex 32` makes a good one"#,
        r#"apps[2]: expected an object, got 5"#,
        r#"log.format: expected one of "auto", "pretty", "compact", "json", got "prety""#,
        r#"max_event_bytes: unknown key here, it belongs to "limits""#,
        r#"server.listem: unknown key, did you mean "listen"?"#,
        r#"server.listen[0]: expected an address such as "0.0.0.0:6001", "[::]:6001" or "6001", got "0.0.0.0""#,
        r#"server.require_protocol_version: expected true or false, got "maybe""#,
        r#"server.workers: expected a whole number from 0 to 64, got 100"#,
    ];
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn a_secret_of_the_wrong_kind_is_not_shown() {
    let (_folder, sources) = file("secret-number", r#"{"apps":[{"id":1,"key":"k","secret":123456}]}"#);
    assert_eq!(problems(&sources), ["apps[0].secret: expected text in quotes, got a number"]);
}

#[test]
fn ids_and_keys_are_unique() {
    let (_folder, sources) = file(
        "duplicates",
        r#"{"apps":[{"id":1,"key":"a","secret":"s","keys":[{"key":"b","secret":"t"},{"key":"a","secret":"u"}]},
                    {"id":"1","key":"b","secret":"v"}]}"#,
    );
    assert_eq!(
        problems(&sources),
        [
            r#"apps[0].keys[1].key: "a" is also apps[0].key"#,
            r#"apps[1].id: "1" is also the id of apps[0]"#,
            r#"apps[1].key: "b" is also apps[0].keys[0].key"#,
        ]
    );
}

#[test]
fn a_file_that_is_not_json_is_refused_with_line_column_and_hint() {
    for (name, text, expected) in [
        ("comment", "{\n  // apps\n}", "line 2 column 3; JSON has no comments"),
        ("quotes", "{'apps': []}", "line 1 column 2; JSON wants double quotes"),
        ("comma", "{\"apps\": [],\n}", "line 2 column 1; take away the comma before it"),
        ("empty", "", "line 1 column 0"),
    ] {
        let (_folder, sources) = file(name, text);
        let found = problems(&sources);
        assert!(
            found[0].starts_with("is not valid JSON: ") && found[0].ends_with(expected),
            "{name}: {found:?}"
        );
    }
}

#[test]
fn a_byte_order_mark_is_no_mistake() {
    assert_eq!(from_file("bom", &format!("\u{feff}{{\"apps\":[{APP}]}}")).config.apps.len(), 1);
}

#[test]
fn a_named_file_must_exist_and_a_looked_for_one_need_not() {
    let missing = Sources { file: Some("/nowhere/tidewire.json".into()), ..Sources::default() };
    assert_eq!(problems(&missing), ["--config: there is no file /nowhere/tidewire.json"]);
    assert_eq!(
        problems(&environment(&[("TIDEWIRE_CONFIG", "/nowhere/tidewire.json")])),
        ["TIDEWIRE_CONFIG: there is no file /nowhere/tidewire.json"]
    );
    let searched = Sources { search: vec!["/nowhere/tidewire.json".into()], ..Sources::default() };
    assert!(loads(&searched).config.default_app);
}

#[test]
fn the_first_file_that_exists_is_read() {
    let folder = Folder::new("search");
    let second = folder.write("second.json", &format!(r#"{{"apps":[{APP}]}}"#));
    let sources = Sources { search: vec![folder.0.join("first.json"), second.clone()], ..Sources::default() };
    assert_eq!(loads(&sources).config.source, Some(second));
}

#[test]
fn one_app_may_come_from_three_variables() {
    let config = loads(&environment(&[
        ("TIDEWIRE_APP_ID", "7"),
        ("TIDEWIRE_APP_KEY", "seven"),
        ("TIDEWIRE_APP_SECRET", "s"),
        // Weaker, and not looked at any more.
        ("PUSHER_APP_ID", "8"),
        ("PUSHER_APP_KEY", "eight"),
        ("PUSHER_APP_SECRET", "s"),
    ]))
    .config;
    assert_eq!(config.apps.len(), 1);
    assert_eq!(config.apps[0].id, "7");
    assert!(!config.default_app);
}

#[test]
fn a_secret_may_come_from_a_file() {
    let folder = Folder::new("secret-file");
    let path = folder.write("secret", "from-a-file\n");
    let pairs = [
        ("TIDEWIRE_APP_ID", "7"),
        ("TIDEWIRE_APP_KEY", "seven"),
        ("TIDEWIRE_APP_SECRET_FILE", path.to_str().unwrap()),
    ];
    let app = loads(&environment(&pairs)).config.apps.remove(0);
    assert_eq!(app.credentials[0].secret.expose(), "from-a-file");
    let both = [pairs[0], pairs[1], pairs[2], ("TIDEWIRE_APP_SECRET", "x")];
    assert_eq!(
        problems(&environment(&both)),
        ["TIDEWIRE_APP_SECRET_FILE: and TIDEWIRE_APP_SECRET are both set, keep one"]
    );
}

#[test]
fn variables_give_an_app_of_the_file_its_secret() {
    let (_folder, mut sources) = file("merge", r#"{"apps":[{"id":1,"key":"k","client_events":false}]}"#);
    assert_eq!(problems(&sources), ["apps[0].secret: is missing"]);
    sources.environment = environment(&[("TIDEWIRE_APP_SECRET", "from-env")]).environment;
    let app = loads(&sources).config.apps.remove(0);
    assert_eq!(app.credentials[0].secret.expose(), "from-env");
    assert!(!app.client_events);
}

#[test]
fn half_an_app_in_the_environment_is_refused() {
    assert_eq!(
        problems(&environment(&[("TIDEWIRE_APP_ID", "7"), ("TIDEWIRE_APP_KEY", "seven")])),
        ["TIDEWIRE_APP_SECRET: is not set, but TIDEWIRE_APP_ID is"]
    );
    assert_eq!(
        problems(&environment(&[("TIDEWIRE_APP_KEY", "seven")])),
        ["TIDEWIRE_APP_ID: is not set, so there is no telling which app is meant"]
    );
}

#[test]
fn laravels_variables_define_the_app_when_nothing_else_does() {
    let pusher = [("PUSHER_APP_ID", "8"), ("PUSHER_APP_KEY", "eight"), ("PUSHER_APP_SECRET", "s")];
    let config = loads(&environment(&pusher)).config;
    assert_eq!(config.apps[0].id, "8");
    assert!(!config.default_app);

    let (_folder, mut sources) = file("pusher", &format!(r#"{{"apps":[{APP}]}}"#));
    sources.environment = environment(&pusher).environment;
    assert_eq!(loads(&sources).config.apps.iter().map(|a| a.id.as_str()).collect::<Vec<_>>(), ["42"]);

    let half = loads(&environment(&pusher[..2]));
    assert!(half.config.default_app);
    assert_eq!(half.warnings, ["PUSHER_APP_ID is set but PUSHER_APP_SECRET is not: no app is made of it"]);
}

#[test]
fn a_list_of_apps_may_come_from_the_environment() {
    let config = loads(&environment(&[("TIDEWIRE_APPS", &format!("[{APP}]"))])).config;
    assert_eq!(config.apps[0].id, "42");
    let typo = r#"[{"id":"42","key":"k","secert":"hidden"}]"#;
    assert_eq!(
        problems(&environment(&[("TIDEWIRE_APPS", typo)])),
        [
            r#"TIDEWIRE_APPS[0].secert: unknown key, did you mean "secret"?"#,
            "TIDEWIRE_APPS[0].secret: is missing"
        ]
    );
    assert!(
        problems(&environment(&[("TIDEWIRE_APPS", "hidden")]))[0]
            .starts_with("TIDEWIRE_APPS: is not valid JSON")
    );
}

#[test]
fn the_platforms_port_beats_the_file_and_no_more() {
    let port = ("PORT", "8080");
    assert_eq!(loads(&environment(&[port])).config.server.listen, ["127.0.0.1:8080".parse().unwrap()]);
    let (_folder, mut sources) =
        file("port", &format!(r#"{{"server":{{"listen":"10.0.0.1:1"}},"apps":[{APP}]}}"#));
    sources.environment = environment(&[port]).environment;
    assert_eq!(loads(&sources).config.server.listen, ["10.0.0.1:8080".parse().unwrap()]);
    sources.environment = environment(&[port, ("TIDEWIRE_SERVER__LISTEN", "10.0.0.1:2")]).environment;
    assert_eq!(loads(&sources).config.server.listen, ["10.0.0.1:2".parse().unwrap()]);
    assert_eq!(
        problems(&environment(&[("PORT", "http")])),
        [r#"PORT: expected a port from 0 to 65535, got "http""#]
    );
}

#[test]
fn the_usual_log_variables_set_the_level() {
    let level = |pairs: &[(&str, &str)]| loads(&environment(pairs)).config.log.level;
    assert_eq!(level(&[("TIDEWIRE_LOG", "debug")]), "debug");
    assert_eq!(
        level(&[("TIDEWIRE_LOG__LEVEL", "warn"), ("TIDEWIRE_LOG", "debug"), ("RUST_LOG", "trace")]),
        "trace"
    );
    let found = problems(&environment(&[("TIDEWIRE_LOG", "tidewire=loud")]));
    assert!(found[0].starts_with("TIDEWIRE_LOG: expected a level"), "{found:?}");
}

#[test]
fn an_empty_variable_counts_as_absent() {
    let config =
        loads(&environment(&[("TIDEWIRE_APP_KEY", ""), ("TIDEWIRE_SERVER__WORKERS", ""), ("PORT", "")]))
            .config;
    assert!(config.default_app);
    assert_eq!(config.server.workers, 0);
}

#[test]
fn admin_can_be_switched_off() {
    assert_eq!(loads(&environment(&[("TIDEWIRE_ADMIN__LISTEN", "off")])).config.admin.listen, None);
    let loaded = from_file("admin", r#"{"admin":{"listen":null}}"#);
    assert_eq!(loaded.config.admin.listen, None);
}

#[test]
fn doubts_are_warnings_not_refusals() {
    let loaded = from_file(
        "doubts",
        r#"{"limits":{"max_event_bytes":3000000},
            "apps":[{"id":"app-id","key":"k","secret":"app-secret"},{"id":"2","key":"k2","secret":" s "}]}"#,
    );
    let all = loaded.warnings.join("\n");
    for expected in
        ["accept only digits", "stands in manuals", "white space", "max_request_body_bytes", "outbox_bytes"]
    {
        assert!(all.contains(expected), "{expected} in {all}");
    }
}

#[test]
fn debug_output_shows_no_secret() {
    let config = from_file("debug", &format!(r#"{{"apps":[{APP}]}}"#)).config;
    assert!(!format!("{config:?}").contains("tw-test-secret"));
}

#[test]
fn the_example_loads_without_doubts_about_its_shape() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.json.example");
    let loaded = loads(&Sources { file: Some(path), ..Sources::default() });
    assert!(!loaded.config.default_app);
    assert!(loaded.warnings.iter().all(|w| w.contains("choose another")), "{:?}", loaded.warnings);
}

/// `UPDATE_SCHEMA=1 cargo test --test config` writes it anew.
#[test]
fn the_checked_in_schema_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.schema.json");
    let rendered = schema::render();
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(&path, &rendered).unwrap();
    }
    let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(checked_in == rendered, "config.schema.json is stale: UPDATE_SCHEMA=1 cargo test --test config");
}
