//! Signed calls of the HTTP API, as bytes.

use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// The app that is published to.
#[derive(Clone, Debug)]
pub struct App {
    pub id: String,
    pub key: String,
    pub secret: String,
    /// In front of `/app/…` and `/apps/…`; not part of what is signed.
    pub path_prefix: String,
}

#[derive(Serialize)]
pub struct Event<'a> {
    pub name: &'a str,
    pub channel: &'a str,
    pub data: &'a str,
}

impl App {
    /// A whole HTTP request that publishes one event.
    pub fn trigger(&self, event: &Event<'_>) -> Vec<u8> {
        #[derive(Serialize)]
        struct Body<'a> {
            name: &'a str,
            channels: [&'a str; 1],
            data: &'a str,
        }
        self.post("events", &json(&Body { name: event.name, channels: [event.channel], data: event.data }))
    }

    /// One request that publishes all of them.
    pub fn batch(&self, events: &[Event<'_>]) -> Vec<u8> {
        #[derive(Serialize)]
        struct Body<'a> {
            batch: &'a [Event<'a>],
        }
        self.post("batch_events", &json(&Body { batch: events }))
    }

    /// A whole HTTP request with a body.
    pub fn post(&self, endpoint: &str, body: &str) -> Vec<u8> {
        let path = format!("/apps/{}/{endpoint}", self.id);
        let md5 = hex::encode(Md5::digest(body));
        let query = self.signed_query("POST", &path, &[("body_md5", &md5)], now());
        let (prefix, length) = (&self.path_prefix, body.len());
        format!(
            "POST {prefix}{path}?{query} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }

    /// A whole HTTP request without one. The values are sent as they are: only what needs no escaping.
    pub fn request(&self, method: &str, endpoint: &str, parameters: &[(&str, &str)]) -> Vec<u8> {
        let path = format!("/apps/{}/{endpoint}", self.id);
        let query = self.signed_query(method, &path, parameters, now());
        let prefix = &self.path_prefix;
        format!("{method} {prefix}{path}?{query} HTTP/1.1\r\nHost: bench\r\n\r\n").into_bytes()
    }

    /// With the names in the order in which they are signed.
    fn signed_query(&self, method: &str, path: &str, parameters: &[(&str, &str)], now: u64) -> String {
        let now = now.to_string();
        let auth = [("auth_key", self.key.as_str()), ("auth_timestamp", &now), ("auth_version", "1.0")];
        let mut all = [&auth, parameters].concat();
        all.sort_unstable();
        let query: Vec<String> = all.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let query = query.join("&");
        let signature = sign(&self.secret, &format!("{method}\n{path}\n{query}"));
        format!("{query}&auth_signature={signature}")
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Lower-case hex of HMAC-SHA256.
pub fn sign(secret: &str, text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(text.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

fn json(body: &impl Serialize) -> String {
    serde_json::to_string(body).expect("strings always serialise")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app() -> App {
        App {
            id: "42".into(),
            key: "tw-demo-key".into(),
            secret: "tw-demo-secret".into(),
            path_prefix: String::new(),
        }
    }

    #[test]
    fn a_call_is_signed_as_the_official_vector() {
        let body = r#"{"name":"order.paid","data":"{\"id\":7}","channels":["shop-1"]}"#;
        let md5 = hex::encode(Md5::digest(body));
        let query = app().signed_query("POST", "/apps/42/events", &[("body_md5", &md5)], 1_700_000_000);
        assert_eq!(
            query,
            "auth_key=tw-demo-key&auth_timestamp=1700000000&auth_version=1.0\
             &body_md5=9356e39cdb897f51c82535418cca1b39\
             &auth_signature=372846fcef1f21fe14c4832fc7d751dee130b3642bd26ccca9ddd54178cd7195"
        );
    }

    #[test]
    fn a_private_channel_is_signed_as_the_official_vector() {
        let signature = sign("tw-demo-secret", "1234.5678:private-orders");
        assert_eq!(signature, "9a620baf21c796449b775145c57bbc6767afe76e2d30b45b26c3e98ab8f3b482");
    }

    #[test]
    fn the_prefix_of_a_deployment_is_requested_but_not_signed() {
        let with = App { path_prefix: "/ws".into(), ..app() };
        let event = Event { name: "e", channel: "c", data: "{}" };
        let (with, without) = (with.trigger(&event), app().trigger(&event));
        let text = String::from_utf8(with).unwrap();
        assert!(text.starts_with("POST /ws/apps/42/events?"));
        assert_eq!(text.replacen("/ws", "", 1).into_bytes(), without);
    }
}
