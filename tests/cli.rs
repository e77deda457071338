//! The `tidewire` command as a shell sees it: output, messages, exit codes, signals.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failing test may panic")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tidewire::config::{Sources, schema};
use tidewire_protocol::SigningKey;
use tidewire_protocol::http_auth::{ApiQuery, verify};

const APP: &str = r#"{"id":"42","key":"tw-demo-key","secret":"tw-test-secret"}"#;
const PATIENCE: Duration = Duration::from_secs(15);

/// A directory of its own to run in, so that no `config.json` of the developer's is found.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("tidewire-cli-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn with_config(text: &str) -> Self {
        let folder = Self::new();
        folder.write(text);
        folder
    }

    /// In one step, as editors do: a reload never sees half a file.
    fn write(&self, text: &str) {
        std::fs::write(self.0.join("next"), text).unwrap();
        std::fs::rename(self.0.join("next"), self.0.join("config.json")).unwrap();
    }

    fn tidewire(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
        command.args(arguments).current_dir(&self.0).env_clear().stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.tidewire(arguments).output().unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn check_config_prints_what_is_in_force_without_secrets() {
    let output =
        Folder::with_config(&format!(r#"{{"apps":[{APP}]}}"#)).run(&["check-config", "--workers", "3"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let effective: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(effective["server"]["workers"], 3);
    assert_eq!(effective["apps"][0]["limits"]["max_event_bytes"], 10_240);
    assert_eq!(effective["apps"][0]["secret"], "***");
    assert!(!stdout(&output).contains("tw-test-secret"));
    assert!(stderr(&output).contains("config.json is fine"));
}

#[test]
fn a_wrong_configuration_ends_with_78_and_the_likely_meaning() {
    let folder = Folder::with_config(r#"{"apps":[{"id":1,"key":"k","secert":"s"}]}"#);
    for arguments in [&["check-config"][..], &["serve"], &[], &["healthcheck"], &["sign", "GET", "channels"]]
    {
        let output = folder.run(arguments);
        assert_eq!(code(&output), 78, "{arguments:?}");
        let told = stderr(&output);
        assert!(told.contains("config.json) has 2 problems"), "{told}");
        assert!(told.contains(r#"apps[0].secert: unknown key, did you mean "secret"?"#), "{told}");
        assert!(told.contains("apps[0].secret: is missing"), "{told}");
    }
}

#[test]
fn a_mistyped_variable_and_a_bad_flag_are_configuration_problems() {
    let folder = Folder::new();
    let output =
        folder.tidewire(&["--workers", "many"]).env("TIDEWIRE_SERVER__LISTEM", "1").output().unwrap();
    assert_eq!(code(&output), 78);
    let told = stderr(&output);
    assert!(
        told.contains("TIDEWIRE_SERVER__LISTEM: unknown variable, did you mean TIDEWIRE_SERVER__LISTEN?"),
        "{told}"
    );
    assert!(told.contains(r#"--workers: expected a whole number from 0 to 64, got "many""#), "{told}");
}

#[test]
fn the_built_in_app_does_not_listen_on_an_open_address() {
    let output = Folder::new().run(&["--listen", "0.0.0.0:0"]);
    assert_eq!(code(&output), 78);
    assert!(stderr(&output).contains("--listen: 0.0.0.0:0 can be reached from other machines"));
    assert!(stderr(&output).contains("tidewire default-config > config.json"));
}

#[test]
fn wrong_usage_ends_with_2() {
    for arguments in [&["--lisen", "x"][..], &["nonsense"], &["listen"], &["trigger", "channel"]] {
        assert_eq!(code(&Folder::new().run(arguments)), 2, "{arguments:?}");
    }
}

#[test]
fn an_address_in_use_ends_with_1() {
    let folder = Folder::new();
    // Without SO_REUSEPORT on both sides, the address is taken.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = folder.run(&["--listen", &address, "--admin-listen", "off"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains(&address), "{}", stderr(&output));
}

#[test]
fn default_config_loads_and_is_fresh_each_time() {
    let folder = Folder::new();
    let output = folder.run(&["default-config"]);
    folder.write(&stdout(&output));
    let sources = Sources { file: Some(folder.0.join("config.json")), ..Sources::default() };
    let loaded = sources.load().unwrap_or_else(|error| panic!("{error}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let app = &loaded.config.apps[0];
    assert!(app.id.bytes().all(|b| b.is_ascii_digit()));
    assert_eq!(app.credentials[0].secret.expose().len(), 64);
    assert_ne!(stdout(&output), stdout(&folder.run(&["default-config"])));
}

#[test]
fn default_config_prints_the_schema_too() {
    assert_eq!(stdout(&Folder::new().run(&["default-config", "--schema"])), schema::render());
}

#[test]
fn completions_exist_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = Folder::new().run(&["completions", shell]);
        assert_eq!(code(&output), 0);
        assert!(stdout(&output).contains("healthcheck"), "{shell}");
    }
}

#[test]
fn version_is_told_in_both_ways() {
    let expected = format!("tidewire {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(stdout(&Folder::new().run(&["version"])), expected);
    assert_eq!(stdout(&Folder::new().run(&["--version"])), expected);
}

#[test]
fn help_explains_configuration_and_exit_codes() {
    let help = stdout(&Folder::new().run(&["--help"]));
    for expected in ["TIDEWIRE_CONFIG", "TIDEWIRE_APP_SECRET", "SIGHUP", "78", "Examples:", "check-config"] {
        assert!(help.contains(expected), "{expected}");
    }
}

/// Path, query and body of a printed curl command.
fn parts_of_curl(line: &str) -> (String, String, String) {
    let quoted: Vec<&str> = line.trim_end().split('\'').collect();
    let target = quoted[1].strip_prefix("http://").unwrap();
    let target = &target[target.find('/').unwrap()..];
    let (path, query) = target.split_once('?').unwrap();
    let body = if line.contains("--data-raw") { quoted[5] } else { "" };
    (path.to_owned(), query.to_owned(), body.to_owned())
}

#[test]
fn a_signed_command_passes_the_verification_of_the_server() {
    let folder = Folder::with_config(&format!(r#"{{"apps":[{APP}]}}"#));
    let body = r#"{"name":"my-event","channel":"my-channel","data":"{}"}"#;
    let key = SigningKey::new("tw-test-secret");
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
    for (method, path, data, expected_path) in [
        ("POST", "/apps/42/events", body, "/apps/42/events"),
        ("post", "events", body, "/apps/42/events"),
        ("GET", "channels?info=user_count&filter_by_prefix=presence-", "", "/apps/42/channels"),
    ] {
        let output = folder.run(&["sign", method, path, "--data", data]);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let line = stdout(&output);
        let method = method.to_uppercase();
        assert!(line.starts_with(&format!("curl -X {method} 'http://127.0.0.1:6001/apps/42/")), "{line}");
        let (path, query, sent) = parts_of_curl(&line);
        assert_eq!((path.as_str(), sent.as_str()), (expected_path, data));
        let query = ApiQuery::parse(&query);
        assert_eq!(query.auth_key(), Some("tw-demo-key"));
        verify(&method, &path, &query, sent.as_bytes(), &key, now)
            .unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}

#[test]
fn a_call_may_be_signed_for_an_app_that_is_not_configured() {
    let flags = ["--key", "other", "--secret", "hidden", "--app", "7", "--url", "http://10.0.0.5:80/ws"];
    let output = Folder::new().run(&[&["sign", "GET", "channels"], &flags[..]].concat());
    let line = stdout(&output);
    assert!(line.starts_with("curl -X GET 'http://10.0.0.5:80/ws/apps/7/channels?auth_key=other&"), "{line}");
    assert!(!line.contains("hidden"));
}

#[test]
fn an_app_that_is_not_there_is_named() {
    let output =
        Folder::with_config(&format!(r#"{{"apps":[{APP}]}}"#)).run(&["sign", "GET", "/apps/9/channels"]);
    assert_eq!(code(&output), 1);
    assert_eq!(stderr(&output), "tidewire: no app 9 in the configuration, it has 42\n");
}

#[test]
fn healthcheck_of_nothing_fails() {
    let output = Folder::new().run(&["healthcheck", "--url", "http://127.0.0.1:1"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("cannot reach 127.0.0.1:1"));
}

/// A server of the binary's, killed at the end of the test whatever happens.
struct Running {
    child: Child,
    url: String,
    /// What was printed before the server said that it listens.
    banner: Vec<String>,
    log: std::sync::mpsc::Receiver<String>,
    folder: Folder,
}

impl Running {
    fn start(config: &str, arguments: &[&str]) -> Self {
        let folder = Folder::with_config(config);
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let common = ["--listen", &address, "--admin-listen", "off", "--workers", "2"];
        let mut command = folder.tidewire(&[&common[..], arguments].concat());
        let mut child =
            command.env("TIDEWIRE_SERVER__DRAIN_SECONDS", "0").stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (sender, log) = std::sync::mpsc::channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut running =
            Running { child, url: format!("http://{address}"), banner: Vec::new(), log, folder };
        running.banner = running.lines_before("\"listening\"", " listening ");
        running
    }

    /// The lines up to the one that contains either text.
    fn lines_before(&self, json: &str, text: &str) -> Vec<String> {
        let lines = std::iter::from_fn(|| self.log.recv_timeout(PATIENCE).ok());
        lines.take_while(|line| !line.contains(json) && !line.contains(text)).collect()
    }

    /// The first line of the log that contains the text.
    fn wait_for(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while let Ok(line) = self.log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            if line.contains(text) {
                return line;
            }
            seen.push(line);
        }
        panic!("no {text:?} among {seen:#?}");
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.folder.run(&[arguments, &["--url", &self.url]].concat())
    }

    fn exit_code(&mut self) -> i32 {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().expect("not killed by a signal");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("still running");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn one_app() -> String {
    format!(r#"{{"apps":[{APP}]}}"#)
}

#[test]
fn the_built_in_app_comes_with_snippets_to_paste() {
    let running = Running::start("{}", &["--log-format", "pretty"]);
    let banner = running.banner.join("\n");
    let socket = format!("{}/app/{{key}}", running.url.replace("http", "ws"));
    for expected in
        [socket.as_str(), "new Pusher('app-key'", "PUSHER_APP_SECRET=app-secret", "127.0.0.1 only"]
    {
        assert!(banner.contains(expected), "{expected} in {banner}");
    }
}

#[test]
fn snippets_of_an_own_app_do_not_hold_its_secret() {
    let running = Running::start(&one_app(), &["--log-format", "pretty", "--snippets"]);
    let banner = running.banner.join("\n");
    assert!(banner.contains("new Pusher('tw-demo-key'") && !banner.contains("tw-test-secret"), "{banner}");
    let running = Running::start(&one_app(), &["--log-format", "pretty"]);
    let banner = running.banner.join("\n");
    assert!(banner.contains("42  key tw-…ey") && !banner.contains("new Pusher"), "{banner}");
}

#[test]
fn a_running_server_is_healthy_and_ends_with_0_on_sigterm() {
    let mut running = Running::start(&one_app(), &[]);
    let output = running.run(&["healthcheck"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stdout(&output).starts_with("200"), "{}", stdout(&output));
    assert_eq!(code(&running.run(&["healthcheck", "--ready"])), 0);
    running.signal(Signal::TERM);
    running.wait_for("draining");
    assert_eq!(running.exit_code(), 0);
}

#[test]
fn a_second_signal_ends_the_drain() {
    let mut running = Running::start(&one_app(), &["--drain-seconds", "600"]);
    // The window is as long as there are clients; one that does not go away keeps it open.
    let port = running.url.rsplit(':').next().unwrap().parse::<u16>().unwrap();
    let mut client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let request = "GET /app/tw-demo-key?protocol=7 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    client.write_all(request.as_bytes()).unwrap();
    client.read_exact(&mut [0; 12]).unwrap();
    running.signal(Signal::INT);
    running.wait_for("draining");
    running.signal(Signal::TERM);
    running.wait_for("stopping without waiting");
    assert_eq!(running.exit_code(), 0);
}

#[test]
fn what_is_triggered_is_heard() {
    let running = Running::start(&one_app(), &[]);
    let channels = ["my-channel", "private-orders", "presence-room"];
    let arguments = [&["listen"], &channels[..], &["--count", "3", "--url", &running.url]].concat();
    let mut listener =
        running.folder.tidewire(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let notices = BufReader::new(listener.stderr.take().unwrap()).lines().map_while(Result::ok);
    let subscribed = notices.filter(|line| line.starts_with("subscribed to ")).take(channels.len()).count();
    assert_eq!(subscribed, channels.len());

    let output = running.run(&["trigger", &channels.join(","), "my-event", r#"{"hello":"world"}"#]);
    assert_eq!((code(&output), stdout(&output).as_str()), (0, "{}\n"), "{}", stderr(&output));

    let heard = listener.wait_with_output().unwrap();
    assert_eq!(heard.status.code(), Some(0));
    let mut lines: Vec<String> = stdout(&heard).lines().map(str::to_owned).collect();
    lines.sort();
    let mut expected = channels.map(|channel| format!("{channel}\tmy-event\t{{\"hello\":\"world\"}}"));
    expected.sort();
    assert_eq!(lines, expected);
}

#[test]
fn a_refused_trigger_tells_the_servers_words() {
    let running = Running::start(&one_app(), &[]);
    let output = running.run(&["trigger", "my channel", "my-event"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).starts_with("tidewire: 400 "), "{}", stderr(&output));
}

#[test]
fn a_listener_learns_why_it_is_refused() {
    let running = Running::start(&one_app(), &[]);
    let output = running.run(&["listen", "my-channel", "--key", "unknown", "--secret", "s", "--app", "42"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("closed by the server: 4001"), "{}", stderr(&output));
}

#[test]
fn sighup_takes_over_a_good_file_and_not_a_bad_one() {
    let running = Running::start(&one_app(), &["--log-format", "compact"]);
    running.folder.write("{ not json");
    running.signal(Signal::HUP);
    running.wait_for("configuration not reloaded, the running one stays");
    running.wait_for("is not valid JSON: key must be a string at line 1 column 3");

    running.folder.write("{}");
    running.signal(Signal::HUP);
    running.wait_for("no app is left");

    running.folder.write(&format!(
        r#"{{"server":{{"mailbox_jobs":2048}},"apps":[{APP},{{"id":7,"key":"seven","secret":"s7"}}]}}"#
    ));
    running.signal(Signal::HUP);
    running.wait_for("configuration reloaded");
    running.wait_for("server.mailbox_jobs: 65536 -> 2048 (takes effect after a restart)");
    running.wait_for("app 7 added");
    let output = running.run(&["trigger", "c", "e", "--app", "7"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
}

#[test]
fn a_changed_file_is_noticed_without_a_signal() {
    let running = Running::start(&one_app(), &[]);
    running.folder.write(&format!(r#"{{"apps":[{APP},{{"id":7,"key":"seven","secret":"s7"}}]}}"#));
    let line = running.wait_for("app 7 added");
    let event: serde_json::Value =
        serde_json::from_str(&line).expect("logs are JSON where there is no terminal");
    assert_eq!(event["level"], "INFO");
}

#[test]
fn logs_never_show_secrets() {
    let running = Running::start(&one_app(), &["--log-level", "trace", "--log-format", "compact"]);
    running.run(&["trigger", "my-channel", "my-event"]);
    running.signal(Signal::TERM);
    let mut all = Vec::new();
    while let Ok(line) = running.log.recv_timeout(PATIENCE) {
        all.push(line);
    }
    assert!(!all.is_empty());
    assert!(all.iter().all(|line| !line.contains("tw-test-secret")));
}

#[test]
fn the_example_file_passes_the_check() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.json.example");
    let output = Folder::new().run(&["check-config", "--config", example.to_str().unwrap()]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
}
