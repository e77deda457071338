//! Signatures as the official SDKs make them, computed apart from the code under test.

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha2::Sha256;

/// A key and its secret; the default pair is the demo app's.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub key: String,
    pub secret: String,
}

impl Default for Credentials {
    fn default() -> Self {
        Self::new("tw-demo-key", "tw-demo-secret")
    }
}

impl Credentials {
    pub fn new(key: &str, secret: &str) -> Self {
        Self { key: key.into(), secret: secret.into() }
    }

    /// Value of `auth` for a channel (specification 3.1, 3.2).
    pub fn channel_auth(&self, socket_id: &str, channel: &str, channel_data: Option<&str>) -> String {
        let mut text = format!("{socket_id}:{channel}");
        if let Some(channel_data) = channel_data {
            text.push(':');
            text.push_str(channel_data);
        }
        format!("{}:{}", self.key, hmac_hex(&self.secret, &text))
    }

    /// Value of `auth` for `pusher:signin` (specification 3.3).
    pub fn user_auth(&self, socket_id: &str, user_data: &str) -> String {
        format!("{}:{}", self.key, hmac_hex(&self.secret, &format!("{socket_id}::user::{user_data}")))
    }
}

pub fn hmac_hex(secret: &str, text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

pub fn md5_hex(body: &[u8]) -> String {
    hex::encode(Md5::digest(body))
}
