//! The settings that are text with a grammar: one parser each, for checking and for reading.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error as _};

use super::redis::{check_host, check_password, check_prefix};
use super::{RedisUrl, replay};

/// Stands for a secret in what is printed.
pub const MASK: &str = "***";

/// Checks `text` against the grammar that a schema's `format` names. Unknown formats allow everything.
pub fn check(format: &str, text: &str) -> Result<(), String> {
    match format {
        "listen-address" => parse_address(text).map(drop),
        "optional-listen-address" => parse_optional_address(text).map(drop),
        "network" => parse_network(text).map(drop),
        "path-prefix" => parse_prefix(text).map(drop),
        "log-filter" => check_log_filter(text),
        "app-id" => check_app_id(text),
        "app-key" => check_app_key(text),
        "app-secret" => check_secret(text),
        "origin" => check_origin(text),
        "channel-pattern" => replay::check_pattern(text),
        "directory" => check_directory(text),
        "redis-url" => text.parse::<RedisUrl>().map(drop),
        "redis-host" => check_host(text),
        "redis-password" => check_password(text),
        "redis-prefix" => check_prefix(text),
        _ => Ok(()),
    }
}

/// An address to bind: `0.0.0.0:6001`, `[::]:6001`, `localhost:6001`, `:6001` or `6001`.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let everywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let port: Option<u16> = port.parse().ok();
    match (host, port) {
        ("" | "*", Some(port)) => Ok(SocketAddr::new(everywhere, port)),
        ("localhost", Some(port)) => Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
        _ => text.parse().map_err(|_| {
            format!(r#"expected an address such as "0.0.0.0:6001", "[::]:6001" or "6001", got {text:?}"#)
        }),
    }
}

fn parse_optional_address(text: &str) -> Result<Option<SocketAddr>, String> {
    if matches!(text, "off" | "none" | "") { Ok(None) } else { parse_address(text).map(Some) }
}

fn parse_network(text: &str) -> Result<IpNet, String> {
    let whole = text.parse::<IpAddr>().map(IpNet::from);
    whole
        .or_else(|_| text.parse())
        .map_err(|_| format!(r#"expected an address or a CIDR range such as "10.0.0.0/8", got {text:?}"#))
}

/// `ws`, `/ws` and `/ws/` all mean `/ws`; `/` means none.
fn parse_prefix(text: &str) -> Result<String, String> {
    let trimmed = text.trim_matches('/');
    if trimmed.is_empty() {
        return Ok(String::new());
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~/".contains(c);
    if !trimmed.chars().all(allowed) || trimmed.contains("//") {
        return Err(format!(r#"expected a path such as "/ws", got {text:?}"#));
    }
    let first = trimmed.split('/').next().unwrap_or_default();
    if matches!(first, "app" | "apps") {
        return Err(format!("/{first} is already the start of every path, choose another prefix"));
    }
    Ok(format!("/{trimmed}"))
}

fn check_log_filter(text: &str) -> Result<(), String> {
    tracing_subscriber::EnvFilter::builder().parse(text).map(drop).map_err(|e| {
        format!(r#"expected a level such as "info" or a filter such as "info,tidewire::hub=debug", got {text:?} ({e})"#)
    })
}

fn check_app_id(text: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !text.is_empty() && text.chars().all(allowed) {
        return Ok(());
    }
    Err(format!("expected digits (letters, - _ . are accepted), got {text:?}"))
}

/// Keys stand in URLs unescaped and before the colon of a signature (protocol 1.1, 3.4).
fn check_app_key(text: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if !text.is_empty() && text.chars().all(allowed) {
        return Ok(());
    }
    Err(format!("expected letters, digits, - and _, got {text:?}"))
}

/// Says nothing of the text: it is a secret also when it is a bad one.
fn check_secret(text: &str) -> Result<(), String> {
    match text {
        "" => Err("is empty; `openssl rand -hex 32` makes a good one".to_owned()),
        MASK => Err("is the mask that check-config prints, not the secret".to_owned()),
        _ => Ok(()),
    }
}

fn check_origin(text: &str) -> Result<(), String> {
    let host = text.split_once("://").map_or(text, |(_, host)| host).trim_end_matches('/');
    let inner = host.strip_prefix("*.").unwrap_or(host);
    let allowed = |c: char| !c.is_whitespace() && !"/*?#@".contains(c);
    if text == "*" || (!inner.is_empty() && inner.chars().all(allowed)) {
        return Ok(());
    }
    Err(format!(
        r#"expected a host or an origin such as "example.com", "*.example.com" or "https://example.com", got {text:?}"#
    ))
}

fn check_directory(text: &str) -> Result<(), String> {
    if text.is_empty() { Err("is empty, expected a directory".to_owned()) } else { Ok(()) }
}

/// A list of text that may also be written as one string with commas.
#[derive(Deserialize)]
#[serde(untagged)]
enum Texts {
    One(String),
    Many(Vec<String>),
}

impl Texts {
    fn into_vec(self) -> Vec<String> {
        match self {
            Texts::One(text) => split_list(&text),
            Texts::Many(list) => list,
        }
    }
}

/// The items of a list written with commas.
pub fn split_list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

pub fn each<'de, D, T>(deserializer: D, parse: fn(&str) -> Result<T, String>) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
{
    let list = Texts::deserialize(deserializer)?.into_vec();
    list.iter().map(|item| parse(item).map_err(D::Error::custom)).collect()
}

pub fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
    each(deserializer, parse_address)
}

pub fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    each(deserializer, parse_network)
}

/// `*` among the origins means any, which the rest of the server knows as an empty list.
pub fn origins<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let list = Texts::deserialize(deserializer)?.into_vec();
    if list.iter().any(|item| item == "*") {
        return Ok(Vec::new());
    }
    Ok(list.iter().map(|item| item.trim_end_matches('/').to_owned()).collect())
}

pub fn optional_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    match Option::<String>::deserialize(deserializer)? {
        Some(text) => parse_optional_address(&text).map_err(D::Error::custom),
        None => Ok(None),
    }
}

pub fn prefix<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    parse_prefix(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// Ids are text everywhere; a file may write them as numbers, as Laravel's examples do.
pub fn app_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Id {
        Text(String),
        Number(u64),
    }
    Ok(match Id::deserialize(deserializer)? {
        Id::Text(text) => text,
        Id::Number(number) => number.to_string(),
    })
}

pub fn list_schema(format: &str) -> Schema {
    json_schema!({
        "type": ["array", "string"],
        "format": format,
        "items": { "type": "string", "format": format },
    })
}

pub fn addresses_schema(_: &mut SchemaGenerator) -> Schema {
    list_schema("listen-address")
}

pub fn networks_schema(_: &mut SchemaGenerator) -> Schema {
    list_schema("network")
}

pub fn origins_schema(_: &mut SchemaGenerator) -> Schema {
    list_schema("origin")
}

pub fn optional_address_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "null"], "format": "optional-listen-address" })
}

pub fn prefix_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "path-prefix" })
}

pub fn app_id_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "integer"], "format": "app-id", "minimum": 0 })
}

pub fn app_key_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "app-key", "pattern": "^[A-Za-z0-9_-]+$" })
}

pub fn secret_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "app-secret", "minLength": 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_only_a_port() {
        for (text, expected) in [
            ("6001", "0.0.0.0:6001"),
            (":6001", "0.0.0.0:6001"),
            ("*:6001", "0.0.0.0:6001"),
            ("localhost:7", "127.0.0.1:7"),
            ("[::1]:7", "[::1]:7"),
            ("10.1.2.3:7", "10.1.2.3:7"),
        ] {
            assert_eq!(parse_address(text).map(|a| a.to_string()).as_deref(), Ok(expected), "{text}");
        }
        for text in ["", "example.com:6001", "127.0.0.1", "127.0.0.1:99999", "::1"] {
            assert!(parse_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_prefix_is_the_same_with_and_without_slashes() {
        for text in ["ws", "/ws", "ws/", "/ws/"] {
            assert_eq!(parse_prefix(text).as_deref(), Ok("/ws"));
        }
        assert_eq!(parse_prefix("/").as_deref(), Ok(""));
        assert!(parse_prefix("/a b").is_err());
        assert!(parse_prefix("/apps").is_err());
    }

    #[test]
    fn an_origin_is_a_host_or_a_url() {
        for text in ["*", "example.com", "*.example.com", "https://example.com", "http://localhost:5173/"] {
            assert!(check_origin(text).is_ok(), "{text}");
        }
        for text in ["", "https://", "https://example.com/path", "a b", "*.*.example.com"] {
            assert!(check_origin(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_bad_secret_is_not_repeated_in_the_error() {
        let error = check("app-secret", "***").expect_err("the mask is no secret");
        assert!(!error.contains("***"));
    }
}
