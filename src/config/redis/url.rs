//! The address of Redis as people write it. What is said of a bad one never repeats it: it may hold a password.

use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::super::{Secret, text};

/// `redis.url`; empty when there is none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RedisUrl(Option<UrlParts>);

#[derive(Clone, PartialEq, Eq)]
pub struct UrlParts {
    pub has_tls: bool,
    pub username: String,
    pub password: Secret,
    pub host: RedisHost,
    pub database: Option<u32>,
}

/// A server; the port it has if none is named depends on what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisHost {
    /// A name or an IP address, without brackets.
    pub name: String,
    pub port: Option<u16>,
}

/// Of a user's name in a URL.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

impl RedisUrl {
    pub(super) fn parts(&self) -> Option<&UrlParts> {
        self.0.as_ref()
    }
}

impl FromStr for RedisUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(Self(None)) } else { parse(text).map(|parts| Self(Some(parts))) }
    }
}

fn parse(text: &str) -> Result<UrlParts, String> {
    const SHAPE: &str = r#"expected "redis://host:6379" or, with TLS, "rediss://user:password@host:6379/0""#;
    let (scheme, rest) = text.split_once("://").ok_or(SHAPE)?;
    let has_tls = match scheme {
        "redis" | "valkey" => false,
        "rediss" | "valkeys" => true,
        // It is no secret, for it stands before the colon; but only a word is sure to be a scheme.
        word if word.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)) => {
            return Err(format!("{SHAPE}, got {word}://…"));
        }
        _ => return Err(SHAPE.to_owned()),
    };
    if rest.contains(['?', '#']) {
        return Err(
            "has a ? or a #, which mean nothing here; in a password they are written %3F and %23".to_owned()
        );
    }
    let (user, place) = rest.rsplit_once('@').unwrap_or(("", rest));
    if user.contains('/') {
        return Err("has a / before the @; in a password it is written %2F".to_owned());
    }
    let (username, password) = user.split_once(':').unwrap_or((user, ""));
    let (host, database) = place.split_once('/').unwrap_or((place, ""));
    if password == text::MASK {
        return Err("holds the mask that check-config prints, not the password".to_owned());
    }
    Ok(UrlParts {
        has_tls,
        username: decoded(username)?,
        password: Secret::new(&decoded(password)?),
        host: host.parse()?,
        database: parse_database(database)?,
    })
}

fn decoded(text: &str) -> Result<String, String> {
    let text = percent_decode_str(text).decode_utf8();
    text.map(String::from)
        .map_err(|_| "its user or password is not UTF-8 once its % escapes are read".to_owned())
}

fn parse_database(text: &str) -> Result<Option<u32>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| "expected the number of a database after the host's /".to_owned())
}

impl FromStr for RedisHost {
    type Err = String;

    /// `redis.example.com`, `10.0.0.1:6379` or `[::1]:6379`. The error does not repeat the text.
    fn from_str(text: &str) -> Result<Self, String> {
        const SHAPE: &str = r#"expected a host such as "redis.example.com:6379" or "[::1]:6379""#;
        let (name, port) = match text.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or(SHAPE)?,
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let is_v6 = text.starts_with('[');
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c) || (is_v6 && ":%".contains(c));
        if name.is_empty() || !name.chars().all(allowed) {
            let several = if text.contains(',') { "; further ones stand in redis.nodes" } else { "" };
            return Err(format!("{SHAPE}{several}"));
        }
        let port = match port.strip_prefix(':') {
            Some(port) => Some(port.parse().ok().filter(|port| *port > 0).ok_or(SHAPE)?),
            None if port.is_empty() => None,
            None => return Err(SHAPE.to_owned()),
        };
        Ok(RedisHost { name: name.to_owned(), port })
    }
}

impl fmt::Display for RedisHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]", self.name)?
        } else {
            f.write_str(&self.name)?
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// With its password masked.
impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(url) = &self.0 else { return Ok(()) };
        f.write_str(if url.has_tls { "rediss://" } else { "redis://" })?;
        let user = utf8_percent_encode(&url.username, ESCAPED);
        match (url.username.is_empty(), url.password.expose().is_empty()) {
            (true, true) => {}
            (false, true) => write!(f, "{user}@")?,
            (_, false) => write!(f, "{user}:{}@", text::MASK)?,
        }
        write!(f, "{}", url.host)?;
        url.database.map_or(Ok(()), |database| write!(f, "/{database}"))
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

impl Serialize for RedisUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for RedisHost {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RedisUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

pub fn check_host(text: &str) -> Result<(), String> {
    // A URL in its place may hold a password.
    let got = if text.contains(['@', '/']) { "a URL".to_owned() } else { format!("{text:?}") };
    text.parse::<RedisHost>().map(drop).map_err(|why| format!("{why}, got {got}"))
}

/// Says nothing of the text. Empty = none.
pub fn check_password(text: &str) -> Result<(), String> {
    if text == text::MASK {
        return Err("is the mask that check-config prints, not the password".to_owned());
    }
    Ok(())
}

/// The prefix stands in braces, which Redis Cluster takes for the part of a key that chooses its slot.
pub fn check_prefix(text: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    if !text.is_empty() && text.len() <= 64 && text.chars().all(allowed) {
        return Ok(());
    }
    Err(format!(r#"expected up to 64 letters, digits, - _ . and :, such as "tidewire", got {text:?}"#))
}

pub fn hosts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<RedisHost>, D::Error> {
    text::each(deserializer, str::parse)
}

pub fn hosts_schema(_: &mut SchemaGenerator) -> Schema {
    text::list_schema("redis-host")
}

pub fn url_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "redis-url" })
}

pub fn password_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "redis-password" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_scheme_user_host_port_and_database() {
        let parts = |text: &str| {
            let url = text.parse::<RedisUrl>().expect(text);
            let parts = url.parts().expect("it is not empty").clone();
            (
                parts.has_tls,
                parts.username,
                parts.password.expose().to_owned(),
                parts.host.to_string(),
                parts.database,
            )
        };
        let own = str::to_owned;
        for (text, expected) in [
            ("redis://cache", (false, own(""), own(""), own("cache"), None)),
            ("redis://cache:7/", (false, own(""), own(""), own("cache:7"), None)),
            ("rediss://u:p@10.0.0.1:6380/3", (true, own("u"), own("p"), own("10.0.0.1:6380"), Some(3))),
            ("redis://:p%40%2f%25@[::1]:7", (false, own(""), own("p@/%"), own("[::1]:7"), None)),
            ("valkey://u@cache", (false, own("u"), own(""), own("cache"), None)),
            ("valkeys://:a@b@cache", (true, own(""), own("a@b"), own("cache"), None)),
        ] {
            assert_eq!(parts(text), expected, "{text}");
        }
        assert_eq!("".parse::<RedisUrl>(), Ok(RedisUrl::default()));
    }

    #[test]
    fn what_is_said_of_a_bad_url_does_not_repeat_it() {
        for text in [
            "cache:6379",
            "http://u:hidden@cache",
            "hidden@://cache",
            "redis://",
            "redis://u:hidden@",
            "redis://u:hidden@cache:port",
            "redis://u:hidden@cache:0",
            "redis://u:hidden@cache/x",
            "redis://u:hidden@cache?protocol=resp3",
            "redis://u:hid/den@cache",
            "redis://u:%ffhidden@cache",
            "redis://u:hidden@a:1,b:2",
            "redis://u:***@cache",
            "redis://u:hidden@[::1",
            "redis://u:hidden@[::1]x",
            "redis://u:hidden@::1",
        ] {
            let error = text.parse::<RedisUrl>().expect_err(text);
            assert!(!error.contains("hid") && !error.contains("***"), "{error}");
        }
    }

    #[test]
    fn a_url_is_shown_without_its_password() {
        for (text, shown) in [
            ("rediss://the.user:hidden@cache:7/3", "rediss://the.user:***@cache:7/3"),
            ("redis://:hidden@[::1]", "redis://:***@[::1]"),
            ("redis://a%40b@cache", "redis://a%40b@cache"),
            ("", ""),
        ] {
            let url: RedisUrl = text.parse().expect(text);
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), format!("{shown:?}"));
            assert_eq!(serde_json::to_value(&url).expect("it is text"), shown);
        }
    }
}
