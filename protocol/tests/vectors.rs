//! The test vectors of the protocol specification (Appendix A).

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use tidewire_protocol::auth::{channel_string, signin_string, split_auth};
use tidewire_protocol::http_auth::{ApiQuery, canonical_string, verify};
use tidewire_protocol::{SigningKey, SocketId};

const NOW: i64 = 1_700_000_000;
const AUTH: &str = "auth_key=tw-demo-key&auth_timestamp=1700000000&auth_version=1.0";

fn key() -> SigningKey {
    SigningKey::new("tw-demo-secret")
}

fn socket_id() -> SocketId {
    "1234.5678".parse().unwrap()
}

#[track_caller]
fn assert_authentic(method: &str, path: &str, query: &str, body: &str) {
    assert_eq!(verify(method, path, &ApiQuery::parse(query), body.as_bytes(), &key(), NOW), Ok(()));
}

#[track_caller]
fn assert_token(string_to_sign: &str, expected_string: &str, token: &str) {
    assert_eq!(string_to_sign, expected_string);
    let (app_key, signature) = split_auth(token).unwrap();
    assert_eq!(app_key, "tw-demo-key");
    assert_eq!(key().sign_hex(&[string_to_sign.as_bytes()]), signature);
    assert!(key().verify_hex(&[string_to_sign.as_bytes()], signature));
}

#[test]
fn s136_vector_a1_publish() {
    let body = r#"{"name":"order.paid","data":"{\"id\":7}","channels":["shop-1"]}"#;
    let query = format!(
        "{AUTH}&body_md5=9356e39cdb897f51c82535418cca1b39&\
         auth_signature=372846fcef1f21fe14c4832fc7d751dee130b3642bd26ccca9ddd54178cd7195"
    );
    assert_eq!(body.len(), 63);
    assert_eq!(
        canonical_string("POST", "/apps/42/events", &ApiQuery::parse(&query)),
        format!("POST\n/apps/42/events\n{AUTH}&body_md5=9356e39cdb897f51c82535418cca1b39")
    );
    assert_authentic("POST", "/apps/42/events", &query, body);
}

#[test]
fn s144_vector_a2_read() {
    for comma in [",", "%2C"] {
        let query = format!(
            "{AUTH}&filter_by_prefix=presence-&info=user_count{comma}subscription_count&\
             auth_signature=e9e58b66721e061fdc0ec33442c7e80d241c19fcd902e63982d39ae046223ee4"
        );
        assert_authentic("GET", "/apps/42/channels", &query, "");
    }
}

#[test]
fn s143_vector_a3_read_as_python_does() {
    let query = format!(
        "{AUTH}&body_md5=d41d8cd98f00b204e9800998ecf8427e&filter_by_prefix=presence-&\
         info=user_count,subscription_count&\
         auth_signature=291153c3be95ec25e4f77bdb1446521188c435137821750198ade74eae1b5097"
    );
    assert_authentic("GET", "/apps/42/channels", &query, "");
}

#[test]
fn s057_vector_a4_private_channel() {
    assert_token(
        &channel_string(socket_id(), "private-orders", None),
        "1234.5678:private-orders",
        "tw-demo-key:9a620baf21c796449b775145c57bbc6767afe76e2d30b45b26c3e98ab8f3b482",
    );
}

#[test]
fn s065_vector_a5_presence_channel() {
    let channel_data = r#"{"user_id":"u-1","user_info":{"name":"Ada"}}"#;
    assert_token(
        &channel_string(socket_id(), "presence-lobby", Some(channel_data)),
        r#"1234.5678:presence-lobby:{"user_id":"u-1","user_info":{"name":"Ada"}}"#,
        "tw-demo-key:df7d66c951d77e1b8d286d54a03bf98b36288bfa33495d600f72c7c3e325d94a",
    );
}

#[test]
fn s116_vector_a6_sign_in() {
    assert_token(
        &signin_string(socket_id(), r#"{"id":"u-1","watchlist":["u-2"]}"#),
        r#"1234.5678::user::{"id":"u-1","watchlist":["u-2"]}"#,
        "tw-demo-key:84958bfeababfe1b16d923b29526f16fba7e83687e2320d0ce5d3be07e4a64ef",
    );
}

#[test]
fn s194_vector_a7_webhook() {
    let body = r#"{"time_ms":1700000000123,"events":[{"name":"channel_occupied","channel":"shop-1"}]}"#;
    assert_eq!(
        key().sign_hex(&[body.as_bytes()]),
        "7fb54e190cee21bfea6c952065f1f3aaad70016f40678f698e168f0c91bfe8b0"
    );
}
