//! Canonical strings and signatures of the REST API.

use super::*;

const NOW: i64 = 1_700_000_000;

fn key() -> SigningKey {
    SigningKey::new("tw-demo-secret")
}

/// A query of the four parameters every request carries and `extra`, signed over `signed_path` and the
/// parameters as `signed_extra` writes them.
fn signed(method: &str, signed_path: &str, signed_extra: &str, extra: &str) -> String {
    let auth = format!("auth_key=tw-demo-key&auth_timestamp={NOW}&auth_version=1.0");
    let text = format!("{method}\n{signed_path}\n{auth}{signed_extra}");
    format!("{auth}{extra}&auth_signature={}", key().sign_hex(&[text.as_bytes()]))
}

fn check(method: &str, path: &str, query: &str, body: &str) -> Result<(), AuthFailure> {
    verify(method, path, &ApiQuery::parse(query), body.as_bytes(), &key(), NOW)
}

fn canonical_parameters(query: &str) -> String {
    let text = canonical_string("get", "/p", &ApiQuery::parse(query));
    text.strip_prefix("GET\n/p\n").unwrap().to_owned()
}

#[test]
fn s145_s147_parameters_are_sorted_by_their_lower_case_key() {
    assert_eq!(canonical_parameters("auth_signature=x&b=2&A=1&C=3"), "a=1&b=2&c=3");
    assert_eq!(canonical_parameters("Auth_Signature=x&a=1"), "a=1");
    assert_eq!(canonical_parameters(""), "");
}

#[test]
fn values_are_decoded_and_not_encoded_again() {
    assert_eq!(canonical_parameters("info=a%2Cb&x=%41%20%2B%26%3D"), "info=a,b&x=A +&=");
    assert_eq!(canonical_parameters("x=a+b"), "x=a+b");
    assert_eq!(canonical_parameters("x=a=b&y&z="), "x=a=b&y=&z=");
}

#[test]
fn of_a_repeated_key_the_last_value_counts_everywhere() {
    let query = ApiQuery::parse("x=1&y=9&X=2&x=3");
    assert_eq!(query.get("x"), Some("3"));
    assert_eq!(canonical_parameters("x=1&y=9&X=2&x=3"), "x=3&y=9");
}

#[test]
fn arrays_are_signed_as_ruby_and_php_write_them() {
    assert_eq!(canonical_parameters("channels%5B%5D=b&channels[]=a"), "channels[]=b&channels[]=a");
    assert_eq!(canonical_parameters("info%5B0%5D=b&info%5B1%5D=a&a=1"), "a=1&info=b,a");
    assert_eq!(ApiQuery::parse("info%5B0%5D=b&info%5B1%5D=a").get("info"), Some("b,a"));
}

#[test]
fn s137_a_clock_may_differ_by_less_than_600_seconds() {
    let query = signed("GET", "/p", "", "");
    let query = ApiQuery::parse(&query);
    for skew in [0, 599, -599] {
        assert_eq!(verify("GET", "/p", &query, b"", &key(), NOW + skew), Ok(()));
    }
    for skew in [600, -600, i64::MAX - NOW, i64::MIN] {
        let failure = verify("GET", "/p", &query, b"", &key(), NOW.saturating_add(skew)).unwrap_err();
        assert!(matches!(failure, AuthFailure::TimestampExpired { .. }), "{skew}");
    }
    assert_eq!(
        verify("GET", "/p", &query, b"", &key(), NOW + 600).unwrap_err().text(),
        "Timestamp expired: Given timestamp (2023-11-14T22:13:20Z) not within 600s of server time (2023-11-14T22:23:20Z)"
    );
}

#[test]
fn s138_s139_every_parameter_is_needed() {
    let complete = signed("GET", "/p", "", "");
    for (removed, replaced, failure) in [
        ("auth_version=1.0", "", AuthFailure::VersionMissing),
        ("auth_version=1.0", "auth_version=", AuthFailure::VersionMissing),
        ("auth_version=1.0", "auth_version=2.0", AuthFailure::VersionUnsupported),
        ("auth_timestamp=1700000000", "", AuthFailure::TimestampMissing),
        ("auth_timestamp=1700000000", "auth_timestamp=soon", AuthFailure::TimestampMissing),
        ("auth_timestamp=1700000000", "auth_timestamp=1700000000.5", AuthFailure::TimestampMissing),
        ("auth_signature=", "x=", AuthFailure::SignatureMissing),
    ] {
        let query = complete.replace(removed, replaced);
        assert_eq!(check("GET", "/p", &query, ""), Err(failure.clone()), "{query}");
        assert_eq!(failure.status(), 401);
    }
    assert_eq!(ApiQuery::parse(&complete).auth_key(), Some("tw-demo-key"));
    assert_eq!(ApiQuery::parse("auth_key=").auth_key(), None);
}

#[test]
fn s142_a_body_must_be_the_one_that_was_hashed() {
    let hash = format!("&body_md5={}", hex::encode(Md5::digest("{}")));
    let query = signed("POST", "/p", &hash, &hash);
    assert_eq!(check("POST", "/p", &query, "{}"), Ok(()));
    assert_eq!(check("POST", "/p", &query, "{ }"), Err(AuthFailure::BodyHashDiffers));
    assert_eq!(check("POST", "/p", &query, ""), Err(AuthFailure::BodyHashDiffers));
    let unhashed = signed("POST", "/p", "", "");
    assert_eq!(check("POST", "/p", &unhashed, "{}"), Err(AuthFailure::BodyHashMissing));
    assert_eq!(check("POST", "/p", &unhashed, ""), Ok(()));
}

#[test]
fn s143_the_hash_of_an_empty_body_is_signed_when_it_is_sent() {
    let hash = "&body_md5=d41d8cd98f00b204e9800998ecf8427e";
    assert_eq!(check("GET", "/p", &signed("GET", "/p", hash, hash), ""), Ok(()));
    assert!(check("GET", "/p", &signed("GET", "/p", "", hash), "").is_err());
}

#[test]
fn s144_an_encoded_value_is_signed_without_its_encoding() {
    for wire in ["&info=user_count,x", "&info=user_count%2Cx", "&info=user_count%2cx"] {
        assert_eq!(
            check("GET", "/p", &signed("GET", "/p", "&info=user_count,x", wire), ""),
            Ok(()),
            "{wire}"
        );
    }
}

#[test]
fn a_plus_is_a_plus_or_else_a_space() {
    for signed_value in ["a+b", "a b"] {
        let query = signed("GET", "/p", &format!("&name={signed_value}"), "&name=a+b");
        assert_eq!(check("GET", "/p", &query, ""), Ok(()), "{signed_value}");
    }
    // An escaped plus is never a space, not even next to one that is.
    assert_eq!(check("GET", "/p", &signed("GET", "/p", "&name=a b+", "&name=a+b%2B"), ""), Ok(()));
    assert!(check("GET", "/p", &signed("GET", "/p", "&name=a b", "&name=a%2Bb"), "").is_err());
}

#[test]
fn s148_a_path_is_signed_raw_or_decoded() {
    let decoded = "/apps/42/channels/a@b,c;d=e";
    for (signed_path, wire) in [
        (decoded, decoded),
        (decoded, "/apps/42/channels/a%40b%2Cc%3Bd%3De"),
        ("/apps/42/channels/a%40b", "/apps/42/channels/a%40b"),
    ] {
        assert_eq!(check("GET", wire, &signed("GET", signed_path, "", ""), ""), Ok(()), "{wire}");
    }
    assert!(check("GET", decoded, &signed("GET", "/apps/42/channels/a%40b,c;d=e", "", ""), "").is_err());
    let both = signed("GET", "/apps/42/channels/a@b", "&x=1 2", "&x=1+2");
    assert_eq!(check("GET", "/apps/42/channels/a%40b", &both, ""), Ok(()));
}

#[test]
fn s149_a_wrong_signature_is_told_what_to_sign() {
    let query = signed("GET", "/p", "", "");
    let (rest, signature) = query.rsplit_once('=').unwrap();
    let last = if signature.ends_with('0') { '1' } else { '0' };
    let wrong = format!("{}{last}", &signature[..63]);
    assert_eq!(
        check("GET", "/p", &format!("{rest}={wrong}"), "").unwrap_err().text(),
        format!(
            "Invalid signature: you should have sent HmacSHA256Hex(\"GET\\n/p\\nauth_key=tw-demo-key&\
             auth_timestamp=1700000000&auth_version=1.0\", your_secret_key), but you sent \"{wrong}\""
        )
    );
    for (method, path) in [("POST", "/p"), ("GET", "/q"), ("GET", "/p/")] {
        assert!(check(method, path, &query, "").is_err());
    }
}

#[test]
fn dates_are_gregorian() {
    for (unix_seconds, text) in [
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59Z"),
        (951_782_400, "2000-02-29T00:00:00Z"),
        (951_868_800, "2000-03-01T00:00:00Z"),
        (1_709_251_199, "2024-02-29T23:59:59Z"),
        (4_107_542_400, "2100-03-01T00:00:00Z"),
        (-62_167_219_200, "0000-01-01T00:00:00Z"),
    ] {
        assert_eq!(iso_8601(unix_seconds), text);
    }
    for extreme in [i64::MIN, i64::MAX] {
        assert!(iso_8601(extreme).ends_with('Z'));
    }
}
