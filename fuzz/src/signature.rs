//! Signatures: what was signed verifies, what was changed afterwards does not.

use md5::{Digest, Md5};
use tidewire_protocol::http_auth::{canonical_string, verify};
use tidewire_protocol::{ApiQuery, AuthFailure, SigningKey, SocketId, auth};

const NOW: i64 = 1_700_000_000;

/// The input is a path, a query and a body, one a line; the body may hold further lines.
pub fn check(input: &[u8]) {
    let mut parts = input.splitn(3, |byte| *byte == b'\n');
    let mut line = || parts.next().unwrap_or_default();
    let (path, query, body) = (line(), line(), line());
    let (Ok(path), Ok(query)) = (std::str::from_utf8(path), std::str::from_utf8(query)) else { return };
    let key = SigningKey::new("tw-demo-secret");
    check_unsigned(path, query, body, &key);
    check_signed(path, query, body, &key);
    check_channel(path, query, &key);
}

/// No input may pass by itself, and every refusal has a text and a status.
fn check_unsigned(path: &str, query: &str, body: &[u8], key: &SigningKey) {
    let failure = verify("POST", path, &ApiQuery::parse(query), body, key, NOW);
    let failure = failure.expect_err("nobody guesses an HMAC");
    assert!([400, 401].contains(&failure.status()));
    assert!(!failure.text().is_empty());
}

fn check_signed(path: &str, query: &str, body: &[u8], key: &SigningKey) {
    let body_md5: String = Md5::digest(body).iter().map(|byte| format!("{byte:02x}")).collect();
    let query =
        format!("{query}&auth_key=tw-demo-key&auth_timestamp={NOW}&auth_version=1.0&body_md5={body_md5}");
    let canonical = canonical_string("POST", path, &ApiQuery::parse(&query));
    let signature = key.sign_hex(&[canonical.as_bytes()]);
    let signed = format!("{query}&auth_signature={signature}");
    let parsed = ApiQuery::parse(&signed);
    assert_eq!(parsed.auth_key(), Some("tw-demo-key"));
    assert_eq!(verify("POST", path, &parsed, body, key, NOW), Ok(()));

    let other_key = SigningKey::new("another secret");
    assert!(matches!(
        verify("POST", path, &parsed, body, &other_key, NOW),
        Err(AuthFailure::Signature { .. })
    ));
    assert!(matches!(verify("GET", path, &parsed, body, key, NOW), Err(AuthFailure::Signature { .. })));
    let longer = [body, b"x"].concat();
    assert_eq!(verify("POST", path, &parsed, &longer, key, NOW), Err(AuthFailure::BodyHashDiffers));
    for late in [-600, 600] {
        let failure = verify("POST", path, &parsed, body, key, NOW + late);
        assert!(matches!(failure, Err(AuthFailure::TimestampExpired { .. })));
    }
    // Wire order is the sender's: signature first, as .NET sends it.
    let reordered = format!("auth_signature={signature}&{query}");
    if ApiQuery::parse(&query).get("auth_signature").is_none() {
        assert_eq!(verify("POST", path, &ApiQuery::parse(&reordered), body, key, NOW), Ok(()));
    }
}

fn check_channel(channel: &str, data: &str, key: &SigningKey) {
    let socket_id = SocketId::parse("1234.5678").ok().flatten().expect("a well-formed id");
    let text = auth::channel_string(socket_id, channel, Some(data));
    let signature = key.sign_hex(&[text.as_bytes()]);
    assert!(key.verify_hex(&[text.as_bytes()], &signature));
    assert!(key.verify_hex(&[text.as_bytes()], &signature.to_ascii_uppercase()));
    assert!(!key.verify_hex(&[text.as_bytes(), b"x"], &signature));
    assert!(!key.verify_hex(&[text.as_bytes()], data), "nobody guesses an HMAC");
    let auth = format!("tw-demo-key:{signature}");
    assert_eq!(auth::split_auth(&auth), Some(("tw-demo-key", &*signature)));
    if let Some((before, after)) = auth::split_auth(data) {
        assert!(!before.contains(':'));
        assert_eq!(before.len() + 1 + after.len(), data.len());
    }
    if let Ok(Some(id)) = SocketId::parse(data) {
        assert_eq!(SocketId::parse(&id.to_string()), Ok(Some(id)));
        assert_eq!(id.to_string(), data, "an id of ours is written in one way only");
    }
}
