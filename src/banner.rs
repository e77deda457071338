//! The text a person sees when the server starts: where it listens, for whom, and what to paste into an app.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::cli::descriptors::DescriptorLimit;
use crate::config::{AppConfig, Config, StoreKind};

/// Apps named one by one; the rest is counted.
const SHOWN_APPS: usize = 8;

/// What the banner tells.
#[derive(Debug)]
pub struct Banner<'a> {
    pub config: &'a Config,
    /// The addresses that are really bound.
    pub listen: &'a [SocketAddr],
    pub admin: Option<SocketAddr>,
    pub descriptors: DescriptorLimit,
    pub max_connections: usize,
    /// Print what to paste into a client and a publisher.
    pub snippets: bool,
}

impl Banner<'_> {
    pub fn render(&self) -> String {
        let mut text = format!("\nTidewire {}\n\n", env!("CARGO_PKG_VERSION"));
        self.rows(&mut text);
        if self.config.default_app {
            text.push_str(BUILT_IN_NOTE);
        }
        if let (Some(address), Some(app), true) =
            (self.listen.first(), self.config.apps.first(), self.snippets)
        {
            text.push_str(&snippets(self.config, *address, app));
        }
        text.push('\n');
        text
    }

    fn rows(&self, text: &mut String) {
        let prefix = &self.config.server.path_prefix;
        let has_tls = !self.config.server.tls_certificate.is_empty();
        let (ws, http) = if has_tls { ("wss", "https") } else { ("ws", "http") };
        for address in self.listen {
            let (host, note) = reachable(*address);
            row(text, "websocket", &format!("{ws}://{host}{prefix}/app/{{key}}{note}"));
            row(text, "http api", &format!("{http}://{host}{prefix}/apps/{{id}}/events{note}"));
        }
        match self.admin {
            Some(address) => row(text, "metrics", &format!("http://{}/metrics", reachable(address).0)),
            None => row(text, "metrics", "off (admin.listen)"),
        }
        row(text, "config", &self.config_source());
        if self.config.redis.is_on() {
            row(text, "redis", &format!("{}, prefix {}", self.config.redis, self.config.redis.prefix));
        }
        self.app_rows(text);
        if let Some(replay) = self.replay_text() {
            row(text, "replay", &replay);
        }
        row(text, "open files", &self.descriptor_text());
        row(text, "connections", &format!("{} at most on this node", grouped(self.max_connections as u64)));
    }

    fn config_source(&self) -> String {
        match &self.config.source {
            Some(path) => format!("{} (read again when it changes, and on SIGHUP)", path.display()),
            None => "no file; environment, flags and defaults".to_owned(),
        }
    }

    fn app_rows(&self, text: &mut String) {
        for app in self.config.apps.iter().take(SHOWN_APPS) {
            row(text, "app", &self.app_text(app));
        }
        let hidden = self.config.apps.len().saturating_sub(SHOWN_APPS);
        if hidden > 0 {
            row(text, "", &format!("… and {hidden} more"));
        }
    }

    fn app_text(&self, app: &AppConfig) -> String {
        let key = app.credentials.first().map_or("", |pair| pair.key.as_str());
        let key = if self.config.default_app { key.to_owned() } else { masked(key) };
        let mut text = format!("{}  key {key}", app.id);
        if app.name != app.id {
            let _ = write!(text, "  {:?}", app.name);
        }
        let _ = write!(text, "  {} byte events", grouped(app.limits.max_event_bytes as u64));
        match app.limits.max_connections {
            0 => {}
            limit => {
                let _ = write!(text, ", {} connections", grouped(limit as u64));
            }
        }
        let _ = write!(text, ", client events {}", if app.client_events { "on" } else { "off" });
        if !app.enabled {
            text.push_str("  DISABLED");
        }
        text
    }

    /// Where the messages are, for somebody who looks for them.
    fn replay_text(&self) -> Option<String> {
        let stores: Vec<&str> =
            self.config.apps.iter().filter(|app| app.replay.is_on()).map(|app| app.id.as_str()).collect();
        let replay = &self.config.replay;
        let place = match replay.store {
            StoreKind::Sqlite => format!("sqlite in {}", replay.dir.display()),
            StoreKind::Memory => "in memory, gone when the server stops".to_owned(),
            StoreKind::Redis => "in redis".to_owned(),
        };
        let apps = match stores[..] {
            [] => return None,
            [app] => format!("app {app}"),
            _ => format!("{} apps", stores.len()),
        };
        Some(format!("{place}, for {apps}"))
    }

    fn descriptor_text(&self) -> String {
        let DescriptorLimit { was, is } = self.descriptors;
        let raised = if is > was { format!(" (raised from {})", grouped(was)) } else { String::new() };
        let few = if is < crate::cli::descriptors::FEW {
            " - few: raise it with ulimit -n, LimitNOFILE= or --ulimit nofile="
        } else {
            ""
        };
        format!("{}{raised}{few}", grouped(is))
    }
}

const BUILT_IN_NOTE: &str = "
  No app is configured, so this is the built-in one. Everybody knows its secret (app-secret), therefore the server
  listens on 127.0.0.1 only. To define your own app:

      tidewire default-config > config.json      # a fresh key and secret
  or  TIDEWIRE_APP_ID=42 TIDEWIRE_APP_KEY=… TIDEWIRE_APP_SECRET=… tidewire
";

/// A client of this machine can always use these; what other hosts must use only the operator knows.
fn snippets(config: &Config, address: SocketAddr, app: &AppConfig) -> String {
    let host = client_host(address.ip());
    let port = address.port();
    let key = app.credentials.first().map_or("", |pair| pair.key.as_str());
    let known = app.credentials.first().filter(|_| config.default_app);
    let secret = known.map_or("<the secret of this app>", |pair| pair.secret.expose());
    let id = &app.id;
    let prefix = &config.server.path_prefix;
    let ws_path = if prefix.is_empty() { String::new() } else { format!("\n        wsPath: '{prefix}',") };
    let options = format!(
        "cluster: '',{ws_path}
        wsHost: '{host}',
        wsPort: {port},
        wssPort: {port},
        forceTLS: false,
        enabledTransports: ['ws', 'wss'],"
    );
    format!(
        "
  pusher-js

      const pusher = new Pusher('{key}', {{
        {options}
      }});
      pusher.subscribe('my-channel').bind('my-event', data => console.log(data));

  Laravel Echo

      window.Echo = new Echo({{
        broadcaster: 'pusher',
        key: '{key}',
        {options}
      }});

  .env of Laravel

      BROADCAST_CONNECTION=pusher
      PUSHER_APP_ID={id}
      PUSHER_APP_KEY={key}
      PUSHER_APP_SECRET={secret}
      PUSHER_HOST={host}
      PUSHER_PORT={port}
      PUSHER_SCHEME=http
      PUSHER_APP_CLUSTER=mt1

  Publish from a shell

      tidewire trigger my-channel my-event '{{\"hello\":\"world\"}}'
"
    )
}

fn row(text: &mut String, name: &str, value: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "  {name:<12} {value}");
}

/// How a client of this machine reaches an address, with a note where more than this machine can.
fn reachable(address: SocketAddr) -> (String, &'static str) {
    let host = client_host(address.ip());
    let note = if address.ip().is_unspecified() { "  (all interfaces)" } else { "" };
    (format!("{host}:{}", address.port()), note)
}

/// `0.0.0.0` is a place to listen, not one to connect to; people copy it into clients, so it is never shown.
pub fn client_host(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
        IpAddr::V6(ip) if ip.is_unspecified() => format!("[{}]", Ipv6Addr::LOCALHOST),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// Enough of a key to tell two apart. Keys are public, but need not stand in every log archive.
fn masked(key: &str) -> String {
    // Keys are ASCII: the configuration refuses others.
    match key.len() {
        0..=6 => "…".to_owned(),
        length => format!("{}…{}", key.get(..3).unwrap_or(""), key.get(length - 2..).unwrap_or("")),
    }
}

/// `1048576` as `1,048,576`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AppReplay, Sources};

    fn render(config: &Config, snippets: bool) -> String {
        let descriptors = DescriptorLimit { was: 1024, is: 1_048_576 };
        let listen = &config.server.listen;
        Banner {
            config,
            listen,
            admin: config.admin.listen,
            descriptors,
            max_connections: 1_048_448,
            snippets,
        }
        .render()
    }

    #[test]
    fn the_built_in_app_is_explained_and_pasteable() {
        let text = render(&Sources::default().load().expect("defaults are fine").config, true);
        for expected in [
            "ws://127.0.0.1:6001/app/{key}",
            "1  key app-key",
            "listens on 127.0.0.1 only",
            "new Pusher('app-key'",
            "cluster: ''",
            "wssPort: 6001",
            "PUSHER_APP_SECRET=app-secret",
            "1,048,576 (raised from 1,024)",
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
    }

    #[test]
    fn an_own_app_keeps_its_secret_and_most_of_its_key() {
        let mut config = Config::for_tests(vec![AppConfig::new("42", "a-rather-long-key", "very-hidden")]);
        config.server.listen = vec!["0.0.0.0:6001".parse().expect("an address")];
        let text = render(&config, false);
        assert!(text.contains("42  key a-r…ey"), "{text}");
        assert!(text.contains("ws://127.0.0.1:6001/app/{key}  (all interfaces)"), "{text}");
        assert!(!text.contains("a-rather-long-key") && !text.contains("0.0.0.0"));
        assert!(!render(&config, true).contains("very-hidden"));
    }

    #[test]
    fn replay_is_told_with_its_place_when_an_app_uses_it() {
        let mut config =
            Config::for_tests(vec![AppConfig::new("42", "k", "s"), AppConfig::new("43", "l", "s")]);
        assert!(!render(&config, false).contains("replay"));
        config.apps[0].replay = AppReplay::everything();
        let text = render(&config, false);
        assert!(text.contains("  replay       sqlite in ./data/replay, for app 42\n"), "{text}");
        config.apps[1].replay = AppReplay::everything();
        config.replay.store = StoreKind::Memory;
        let text = render(&config, false);
        assert!(
            text.contains("  replay       in memory, gone when the server stops, for 2 apps\n"),
            "{text}"
        );
    }

    #[test]
    fn redis_is_told_without_credentials() {
        let mut config = Config::for_tests(vec![AppConfig {
            replay: AppReplay::everything(),
            ..AppConfig::new("42", "k", "s")
        }]);
        config.redis.url = "rediss://ops:very-hidden@cache.example.com/3".parse().expect("a URL");
        config.replay.store = StoreKind::Redis;
        let text = render(&config, false);
        let expected = "  redis        cache.example.com:6379 (standalone, TLS), prefix tidewire\n";
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("  replay       in redis, for app 42\n"), "{text}");
        assert!(!text.contains("hidden") && !text.contains("ops"));
        config.redis.sentinel_master = "tidewire".to_owned();
        config.redis.nodes = vec!["[::1]:7".parse().expect("a host")];
        let expected = "cache.example.com:26379, [::1]:7 (Sentinel, master tidewire, TLS)";
        assert!(render(&config, false).contains(expected));
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([0, 999, 1000, 1_048_576].map(grouped), ["0", "999", "1,000", "1,048,576"]);
    }
}
