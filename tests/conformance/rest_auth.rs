//! 9.9 REST authentication.

use serde_json::{Value, json};
use tidewire::config::AppConfig;

use crate::common::rest::join;
use crate::common::sign::{hmac_hex, md5_hex};
use crate::common::{Rest, TestServer};

const VECTOR_BODY: &str = r#"{"name":"order.paid","data":"{\"id\":7}","channels":["shop-1"]}"#;
const EVENT: &str = r#"{"name":"e","data":"d","channels":["news"]}"#;

/// Percent-encodes everything but letters, digits, `_`, `-` and `.`.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[test]
fn s136_the_harness_signs_like_the_printed_vectors() {
    let auth = "auth_key=tw-demo-key&auth_timestamp=1700000000&auth_version=1.0";
    let empty = md5_hex(b"");
    for (text, signature) in [
        (
            format!("POST\n/apps/42/events\n{auth}&body_md5={}", md5_hex(VECTOR_BODY.as_bytes())),
            "372846fcef1f21fe14c4832fc7d751dee130b3642bd26ccca9ddd54178cd7195",
        ),
        (
            format!(
                "GET\n/apps/42/channels\n{auth}&filter_by_prefix=presence-&info=user_count,subscription_count"
            ),
            "e9e58b66721e061fdc0ec33442c7e80d241c19fcd902e63982d39ae046223ee4",
        ),
        (
            format!(
                "GET\n/apps/42/channels\n{auth}&body_md5={empty}&filter_by_prefix=presence-&info=user_count,subscription_count"
            ),
            "291153c3be95ec25e4f77bdb1446521188c435137821750198ade74eae1b5097",
        ),
    ] {
        assert_eq!(hmac_hex("tw-demo-secret", &text), signature);
    }
}

#[tokio::test]
async fn s136_the_printed_publish_is_accepted() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    client.subscribe("shop-1").await;
    let answer = server.rest().post("/apps/42/events", VECTOR_BODY).send().await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
    client.expect_event("order.paid", "shop-1", r#"{"id":7}"#).await;
}

/// Waits for the first part of a second, so that no test straddles two of them.
async fn early_in_a_second(rest: &Rest) {
    while rest.clock.unix_millis() % 1000 > 300 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn s137_a_timestamp_may_be_599_seconds_off_and_not_600() {
    let server = TestServer::start();
    let rest = server.rest();
    early_in_a_second(&rest).await;
    for seconds in [0, 599, -599] {
        assert_eq!(rest.get("/apps/42/channels").shifted(seconds).send().await.status, 200, "{seconds}");
    }
    for seconds in [600, -600, 601, -86_400, 1_000_000_000_000] {
        let text = rest.get("/apps/42/channels").shifted(seconds).send().await.refused(401);
        assert!(text.starts_with("Timestamp expired"), "{text}");
        assert!(text.contains("600s"), "{text}");
    }
}

#[tokio::test]
async fn s137_a_timestamp_that_is_no_number_is_refused() {
    let server = TestServer::start();
    for timestamp in ["", "now", "1e9", "-", "99999999999999999999999", "170000000O"] {
        let request = server.rest().get("/apps/42/channels").query("auth_timestamp", timestamp);
        request.send().await.refused(401);
    }
}

#[tokio::test]
async fn s138_a_request_without_its_authentication_is_refused() {
    let server = TestServer::start();
    let rest = server.rest();
    for missing in ["auth_key", "auth_timestamp"] {
        rest.get("/apps/42/channels").without(missing).send().await.refused(401);
    }
    let text = rest.get("/apps/42/channels").without("auth_key").send().await.refused(401);
    assert!(text.contains("auth_key"), "{text}");
    let unsigned = rest.get("/apps/42/channels").wire_query(|params, _| join(params));
    unsigned.send().await.refused(401);
    let empty =
        rest.get("/apps/42/channels").wire_query(|params, _| format!("{}&auth_signature=", join(params)));
    empty.send().await.refused(401);
    let nothing = rest.get("/apps/42/channels").wire_query(|_, _| String::new());
    nothing.send().await.refused(401);
    rest.post("/apps/42/events", EVENT).wire_query(|_, _| String::new()).send().await.refused(401);
}

#[tokio::test]
async fn s139_the_version_must_be_1_0() {
    let server = TestServer::start();
    let rest = server.rest();
    rest.get("/apps/42/channels").without("auth_version").send().await.refused(401);
    for version in ["2.0", "1", "", "1.00"] {
        rest.get("/apps/42/channels").query("auth_version", version).send().await.refused(401);
    }
}

#[tokio::test]
async fn s140_an_unknown_key_is_refused_by_name() {
    let server = TestServer::start();
    let text = server.rest_as("nobody", "tw-demo-secret").get("/apps/42/channels").send().await.refused(401);
    assert!(text.contains("Unknown auth_key"), "{text}");
}

#[tokio::test]
async fn s141_a_key_opens_its_own_app_only() {
    let server = TestServer::with_config(|config| {
        config.apps.push(AppConfig::new("43", "other-key", "other-secret"));
    });
    server.rest().get("/apps/43/channels").send().await.refused(401);
    server.rest().post("/apps/43/events", EVENT).send().await.refused(401);
    server.rest_as("other-key", "other-secret").get("/apps/42/channels").send().await.refused(401);
    assert_eq!(server.rest_as("other-key", "other-secret").get("/apps/43/channels").send().await.status, 200);
}

#[tokio::test]
async fn s141_an_app_that_does_not_exist_is_404_for_a_valid_key_only() {
    let server = TestServer::start();
    server.rest().get("/apps/4711/channels").send().await.refused(404);
    server.rest_as("nobody", "x").get("/apps/4711/channels").send().await.refused(401);
}

#[tokio::test]
async fn s142_a_body_must_be_the_signed_one() {
    let server = TestServer::start();
    let rest = server.rest();
    let mut client = server.connect().await;
    client.subscribe("news").await;
    let changed = EVENT.replace("\"d\"", "\"D\"");
    rest.post("/apps/42/events", EVENT).wire_body(changed.as_bytes()).send().await.refused(401);
    rest.post("/apps/42/events", EVENT).wire_body(b"").send().await.refused(401);
    rest.post("/apps/42/events", "").wire_body(EVENT.as_bytes()).send().await.refused(401);
    rest.post("/apps/42/events", EVENT).without("body_md5").send().await.refused(401);
    rest.post("/apps/42/events", EVENT).query("body_md5", "00").send().await.refused(401);
    client.assert_silent().await;
}

#[tokio::test]
async fn s143_the_md5_of_nothing_on_a_get_is_part_of_the_signature() {
    let server = TestServer::start();
    let request =
        server.rest().get("/apps/42/channels").query("body_md5", "d41d8cd98f00b204e9800998ecf8427e");
    assert_eq!(request.send().await.status, 200);
    let request = server.rest().get("/apps/42/channels").wire_query(|params, signature| {
        format!("{}&body_md5=d41d8cd98f00b204e9800998ecf8427e&auth_signature={signature}", join(params))
    });
    request.send().await.refused(401);
}

#[tokio::test]
async fn s144_values_may_be_percent_encoded_on_the_wire() {
    let server = TestServer::with(|app| app.subscription_count = true);
    let mut client = server.connect().await;
    client.join("presence-a", "u-1").await;
    let request = || {
        let request = server.rest().get("/apps/42/channels").query("filter_by_prefix", "presence-");
        request.query("info", "user_count,subscription_count")
    };
    // Both attributes are known; whether a presence channel may have the second is 4.7's question.
    let raw = request().send().await.status;
    let escaped = request()
        .wire_query(|params, signature| {
            let pairs: Vec<String> =
                params.iter().map(|(key, value)| format!("{key}={}", encoded(value))).collect();
            let query = format!("{}&auth_signature={signature}", pairs.join("&"));
            assert!(query.contains("user_count%2Csubscription_count"));
            query
        })
        .send()
        .await;
    assert_eq!((raw, escaped.status), (200, 200), "{}", escaped.body);
    assert_eq!(escaped.json()["channels"]["presence-a"]["user_count"], 1);
}

#[tokio::test]
async fn s144_plus_and_space_are_both_understood() {
    let server = TestServer::start();
    let signed = |value: &str| server.rest().get("/apps/42/channels").query("filter_by_prefix", value);
    let sent = |value: &'static str| {
        move |params: &[(String, String)], signature: &str| {
            let pairs = params.iter().map(|(key, old)| {
                let value = if key == "filter_by_prefix" { value } else { old.as_str() };
                format!("{key}={value}")
            });
            format!("{}&auth_signature={signature}", pairs.collect::<Vec<_>>().join("&"))
        }
    };
    for (value, wire) in [("a b", "a%20b"), ("a b", "a+b"), ("a+b", "a%2B%62"), ("a+b", "a+b")] {
        let answer = signed(value).wire_query(sent(wire)).send().await;
        assert_eq!(answer.status, 200, "signed {value:?}, sent {wire:?}: {}", answer.body);
    }
}

#[tokio::test]
async fn s145_the_order_of_parameters_on_the_wire_is_free() {
    let server = TestServer::start();
    type Order = fn(&[(String, String)], &str) -> String;
    let orders: [Order; 4] = [
        |params, signature| format!("auth_signature={signature}&{}", join(params)),
        |params, signature| format!("{}&auth_signature={signature}", join(params)),
        |params, signature| {
            let reversed: Vec<_> = params.iter().rev().cloned().collect();
            format!("{}&auth_signature={signature}", join(&reversed))
        },
        |params, signature| {
            let (first, rest) = params.split_at(2);
            format!("{}&auth_signature={signature}&{}", join(rest), join(first))
        },
    ];
    for order in orders {
        let request = server.rest().get("/apps/42/channels").query("filter_by_prefix", "presence-");
        assert_eq!(request.query("info", "user_count").wire_query(order).send().await.status, 200);
        assert_eq!(server.rest().post("/apps/42/events", EVENT).wire_query(order).send().await.status, 200);
    }
}

#[tokio::test]
async fn s146_the_deployment_prefix_is_not_part_of_the_signature() {
    let server = TestServer::with_config(|config| config.server.path_prefix = "/ws".into());
    let mut client = server.connect().await;
    client.subscribe("news").await;
    let request = server.rest().post("/apps/42/events", EVENT);
    assert!(request.string_to_sign().starts_with("POST\n/apps/42/events\n"));
    let answer = request.wire_path("/ws/apps/42/events").send().await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    client.expect_event("e", "news", "d").await;
}

#[tokio::test]
async fn s146_a_prefix_that_was_signed_or_cut_off_by_a_proxy_is_understood_too() {
    let server = TestServer::with_config(|config| config.server.path_prefix = "/ws".into());
    for (signed, wire) in
        [("/ws/apps/42/events", "/ws/apps/42/events"), ("/ws/apps/42/events", "/apps/42/events")]
    {
        let answer = server.rest().post(signed, EVENT).wire_path(wire).send().await;
        assert_eq!(answer.status, 200, "signed {signed}, sent {wire}: {}", answer.body);
    }
}

#[tokio::test]
async fn s147_parameter_names_are_compared_in_lower_case() {
    let server = TestServer::start();
    let request = server.rest().get("/apps/42/channels").query("filter_by_prefix", "presence-");
    let answer = request
        .query("info", "user_count")
        .wire_query(|params, signature| {
            let pairs = params.iter().map(|(key, value)| match key.as_str() {
                "info" => format!("INFO={value}"),
                "filter_by_prefix" => format!("Filter_By_Prefix={value}"),
                _ => format!("{key}={value}"),
            });
            format!("{}&auth_signature={signature}", pairs.collect::<Vec<_>>().join("&"))
        })
        .send()
        .await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[tokio::test]
async fn s148_channel_names_in_the_path_are_raw_or_escaped() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    let name = "a@b,c;d=e.f_g-h";
    client.subscribe(name).await;
    let escaped = encoded(name);
    assert!(escaped.contains("%40") && escaped.contains("%2C"));
    let (raw_path, escaped_path) =
        (format!("/apps/42/channels/{name}"), format!("/apps/42/channels/{escaped}"));
    for (signed, wire) in [(&raw_path, &raw_path), (&raw_path, &escaped_path), (&escaped_path, &escaped_path)]
    {
        let answer = server.rest().get(signed).wire_path(wire).send().await;
        assert_eq!(answer.status, 200, "signed {signed}, sent {wire}: {}", answer.body);
        assert_eq!(answer.json(), json!({"occupied": true}));
    }
    client.join("presence-a@b,c;d=e", "u-1").await;
    let users = server.rest().read("/channels/presence-a@b,c;d=e/users", &[]).await;
    assert_eq!(users, json!({"users": [{"id": "u-1"}]}));
}

#[tokio::test]
async fn s149_a_wrong_signature_is_refused_and_explained() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    client.subscribe("news").await;
    let request = server.rest().post("/apps/42/events", EVENT);
    let (string_to_sign, signature) = (request.string_to_sign(), request.signature());
    let last = if signature.ends_with('0') { "1" } else { "0" };
    let wrong = format!("{}{last}", &signature[..63]);
    let sent = wrong.clone();
    let request = request.wire_query(move |params, _| format!("{}&auth_signature={sent}", join(params)));
    let text = request.send().await.refused(401);
    // The hosted service writes the line breaks as two characters.
    let shown = text.replace("\\n", "\n");
    assert!(shown.contains(&string_to_sign), "{text}");
    assert!(text.contains(&wrong), "{text}");
    assert!(!text.contains(&signature) && !text.contains("tw-demo-secret"), "{text}");
    client.assert_silent().await;
}

#[tokio::test]
async fn s149_signatures_of_another_length_or_alphabet_are_refused() {
    let server = TestServer::start();
    for signature in
        ["", "0", "zz", "ä", "%C3%A4", "0000000000000000000000000000000000000000000000000000000000000000"]
    {
        let request = server.rest().get("/apps/42/channels");
        let request = request
            .wire_query(move |params, _| format!("{}&auth_signature={}", join(params), encoded(signature)));
        request.send().await.refused(401);
    }
    server.rest_as("tw-demo-key", "another-secret").get("/apps/42/channels").send().await.refused(401);
}

#[tokio::test]
async fn s149_a_signature_covers_method_path_and_parameters() {
    let server = TestServer::start();
    let rest = server.rest();
    rest.get("/apps/42/channels/a").wire_path("/apps/42/channels/b").send().await.refused(401);
    let added = rest.get("/apps/42/channels").wire_query(|params, signature| {
        format!("{}&auth_signature={signature}&filter_by_prefix=x", join(params))
    });
    added.send().await.refused(401);
    rest.get("/apps/42/events").wire_path("/apps/42/channels").send().await.refused(401);
}

#[tokio::test]
async fn s150_errors_are_text_that_ends_in_a_newline() {
    let server = TestServer::start();
    for (request, status) in [
        (server.rest_as("nobody", "x").get("/apps/42/channels"), 401),
        (server.rest().post("/apps/42/events", "{}"), 400),
        (server.rest().get("/apps/42/channels/news/users"), 400),
        (server.rest().get("/apps/42/nope"), 404),
    ] {
        let answer = request.send().await;
        assert_eq!(answer.status, status, "{}", answer.body);
        assert!(
            answer.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")),
            "{answer:?}"
        );
        assert!(answer.body.ends_with('\n') && answer.body.len() > 1, "{answer:?}");
    }
}

#[tokio::test]
async fn s150_errors_are_a_json_object_for_who_accepts_json() {
    let server = TestServer::start();
    for (request, status) in [
        (server.rest_as("nobody", "x").get("/apps/42/channels"), 401),
        (server.rest().post("/apps/42/events", "{}"), 400),
        (server.rest().get("/apps/42/channels/news/users"), 400),
    ] {
        let answer = request.header("Accept", "application/json").send().await;
        assert_eq!(answer.status, status, "{}", answer.body);
        assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("application/json")));
        let body = answer.json();
        assert!(body["error"].is_string(), "{body}");
        assert_eq!(body["status"], json!(status));
    }
}

#[tokio::test]
async fn a_disabled_app_answers_403() {
    let server = TestServer::with(|app| app.enabled = false);
    server.rest().get("/apps/42/channels").send().await.refused(403);
    server.rest().post("/apps/42/events", EVENT).send().await.refused(403);
    let answer = server.rest_as("tw-demo-key", "wrong").get("/apps/42/channels").send().await;
    assert_eq!(answer.status, 401, "the signature comes first");
}

#[tokio::test]
async fn replays_inside_the_window_are_allowed() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    client.subscribe("news").await;
    let timestamp = server.rest().clock.unix_millis() / 1000;
    for _ in 0..2 {
        let request =
            server.rest().post("/apps/42/events", EVENT).query("auth_timestamp", &timestamp.to_string());
        let answer = request.send().await;
        assert_eq!((answer.status, answer.json()), (200, Value::Object(serde_json::Map::new())));
        client.expect_event("e", "news", "d").await;
    }
}
