//! Requests of nine server SDKs: each is authentic, and means what its author meant.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod golden;

use golden::{REQUESTS, Request, SECRET, SIGNED_AT};
use tidewire_protocol::{ApiQuery, Batch, Info, SigningKey, Trigger, TriggerLimits, http_auth};

const LIMITS: TriggerLimits = TriggerLimits {
    max_channels: 100,
    max_channel_name_length: 200,
    max_event_name_length: 200,
    max_event_bytes: 10_240,
    max_batch_events: 10,
};

fn requests(path_end: &str) -> impl Iterator<Item = &'static Request> {
    REQUESTS.iter().filter(move |request| request.path.ends_with(path_end))
}

fn request(habit: &str) -> &'static Request {
    REQUESTS.iter().find(|request| request.habit.starts_with(habit)).unwrap()
}

fn is_authentic(request: &Request, body: &str, now: i64) -> bool {
    let key = SigningKey::new(SECRET);
    let query = ApiQuery::parse(request.query);
    http_auth::verify(request.method, request.path, &query, body.as_bytes(), &key, now).is_ok()
}

fn trigger(request: &Request) -> Trigger<'_> {
    Trigger::parse(request.body.as_bytes(), &LIMITS).unwrap()
}

#[test]
fn s143_s144_s145_s148_every_request_is_authentic() {
    for request in REQUESTS {
        assert!(is_authentic(request, request.body, SIGNED_AT), "{request:#?}");
        assert_eq!(ApiQuery::parse(request.query).auth_key(), Some("tw-demo-key"));
    }
}

#[test]
fn s137_s142_no_request_is_authentic_later_or_with_another_body() {
    for request in REQUESTS {
        assert!(!is_authentic(request, request.body, SIGNED_AT + 600), "{}", request.habit);
        assert!(!is_authentic(request, "{\"x\":1}", SIGNED_AT), "{}", request.habit);
    }
}

#[test]
fn s149_no_request_is_authentic_with_one_digit_changed() {
    for request in REQUESTS {
        let at = request.query.find("auth_signature=").unwrap() + "auth_signature=".len();
        let digit = if request.query[at..].starts_with('0') { "1" } else { "0" };
        let query = format!("{}{digit}{}", &request.query[..at], &request.query[at + 1..]);
        let (key, query) = (SigningKey::new(SECRET), ApiQuery::parse(&query));
        let body = request.body.as_bytes();
        assert!(http_auth::verify(request.method, request.path, &query, body, &key, SIGNED_AT).is_err());
    }
}

#[test]
fn s151_s160_s221_every_publish_call_is_understood() {
    for request in requests("/events") {
        let trigger = trigger(request);
        assert_eq!(&*trigger.channels[0], "shop-1", "{}", request.habit);
        assert!(matches!(&*trigger.name, "order.paid" | r"App\Events\OrderPaid"), "{}", request.habit);
        let excludes = request.body.contains("1234.5678");
        assert_eq!(trigger.socket_id.is_some(), excludes, "{}", request.habit);
    }
}

#[test]
fn s131_data_arrives_as_its_sender_meant_it() {
    for (habit, text) in [
        ("PHP: one", r#"{"id":7,"note":"a\/b <i>"}"#),
        ("Swift: sorted", r#"{"note":"a\/b"}"#),
        ("Go: alphabetical", "<b>a & b</b>"),
        ("Python: spaces", r#"{"name": "J\u00f6rg"}"#),
        ("Rust: an", r#"{"id":7}"#),
    ] {
        assert_eq!(trigger(request(habit)).data.decode().unwrap(), text, "{habit}");
    }
}

#[test]
fn s144_every_list_call_asks_for_the_same() {
    let lists: Vec<_> = requests("/channels").collect();
    assert_eq!(lists.len(), 8);
    for request in lists {
        let query = ApiQuery::parse(request.query);
        assert_eq!(query.get("filter_by_prefix"), Some("presence-"), "{}", request.habit);
        let info = Info::parse(query.get("info").unwrap()).unwrap();
        assert_eq!(info, Info { user_count: true, subscription_count: true, ..Info::default() });
    }
    let array = ApiQuery::parse(request("PHP, attributes").query);
    assert_eq!(array.get("info"), Some("user_count,subscription_count"));
}

#[test]
fn s167_every_batch_is_understood() {
    for request in requests("/batch_events") {
        let batch = Batch::parse(request.body.as_bytes(), &LIMITS).unwrap();
        let channels: Vec<_> = batch.events.iter().map(|event| &*event.channels[0]).collect();
        assert_eq!(channels, ["shop-1", "shop-2"]);
    }
    let node = Batch::parse(request("Node, several").body.as_bytes(), &LIMITS).unwrap();
    assert!(node.events[0].info.is_empty());
    assert!(node.events[1].info.subscription_count);
}

#[test]
fn content_types_are_all_json_or_missing() {
    for request in REQUESTS {
        for (name, value) in request.headers {
            assert!(*name != "content-type" || value.starts_with("application/json"), "{}", request.habit);
        }
    }
}
