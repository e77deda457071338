//! HMAC-SHA256 signatures of channels, sign-ins, REST requests and webhooks (section 3).

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::SocketId;

/// An app secret, ready to sign.
///
/// Holds the keyed hash state rather than the secret: preparing it costs two compressions, once.
#[derive(Clone)]
pub struct SigningKey(Hmac<Sha256>);

impl SigningKey {
    /// `secret` is used as its UTF-8 bytes, whatever it looks like.
    pub fn new(secret: &str) -> Self {
        Self(Hmac::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of every length"))
    }

    /// The signature of the joined `parts`, in lower-case hexadecimal.
    pub fn sign_hex(&self, parts: &[&[u8]]) -> String {
        hex::encode(self.digest(parts).finalize().into_bytes())
    }

    /// Compares in constant time. The hexadecimal digits may be of either case (3.4).
    pub fn verify_hex(&self, parts: &[&[u8]], hex: &str) -> bool {
        let mut signature = [0; 32];
        hex::decode_to_slice(hex, &mut signature).is_ok()
            && self.digest(parts).verify_slice(&signature).is_ok()
    }

    fn digest(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut digest = self.0.clone();
        for part in parts {
            digest.update(part);
        }
        digest
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(***)")
    }
}

/// Splits `key:signature` at the first colon; keys contain none.
pub fn split_auth(auth: &str) -> Option<(&str, &str)> {
    auth.split_once(':')
}

/// What a channel authorisation signs: `channel_data` takes part exactly if the client sent it, whatever the
/// prefix of the channel (3.1, 3.2).
pub fn channel_string(socket_id: SocketId, channel: &str, channel_data: Option<&str>) -> String {
    match channel_data {
        Some(data) => format!("{socket_id}:{channel}:{data}"),
        None => format!("{socket_id}:{channel}"),
    }
}

/// What a sign-in signs (3.3).
pub fn signin_string(socket_id: SocketId, user_data: &str) -> String {
    format!("{socket_id}::user::{user_data}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::new("tw-demo-secret")
    }

    #[test]
    fn parts_sign_as_their_concatenation() {
        assert_eq!(key().sign_hex(&[b"ab", b"", b"c"]), key().sign_hex(&[b"abc"]));
    }

    #[test]
    fn s062_hexadecimal_of_either_case_verifies() {
        let signature = key().sign_hex(&[b"abc"]);
        assert!(key().verify_hex(&[b"abc"], &signature));
        assert!(key().verify_hex(&[b"abc"], &signature.to_uppercase()));
    }

    #[test]
    fn s061_every_other_text_fails() {
        let signature = key().sign_hex(&[b"abc"]);
        assert!(!key().verify_hex(&[b"abd"], &signature));
        assert!(!SigningKey::new("other").verify_hex(&[b"abc"], &signature));
        for text in ["", "zz", &signature[..62], &format!("{signature}00"), &"é".repeat(32)] {
            assert!(!key().verify_hex(&[b"abc"], text), "{text}");
        }
    }

    #[test]
    fn the_first_colon_splits_key_from_signature() {
        assert_eq!(split_auth("k:a:b"), Some(("k", "a:b")));
        assert_eq!(split_auth("nocolon"), None);
    }

    #[test]
    fn debug_output_is_free_of_secrets() {
        assert_eq!(format!("{:?}", key()), "SigningKey(***)");
    }
}
