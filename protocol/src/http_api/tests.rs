//! Bodies of the REST API, good and bad.

use super::*;

const LIMITS: TriggerLimits = TriggerLimits {
    max_channels: 100,
    max_channel_name_length: 200,
    max_event_name_length: 200,
    max_event_bytes: 10_240,
    max_batch_events: 10,
};

fn trigger(body: &str) -> Result<Trigger<'_>, ApiError> {
    Trigger::parse(body.as_bytes(), &LIMITS)
}

fn refused(body: &str) -> String {
    let error = trigger(body).unwrap_err();
    assert_eq!(error.status, 400, "{body}: {error}");
    error.text
}

fn channels<'t>(trigger: &'t Trigger<'_>) -> Vec<&'t str> {
    trigger.channels.iter().map(|channel| &**channel).collect()
}

fn with_channels(count: usize) -> String {
    let names: Vec<_> = (0..count).map(|index| format!("\"c-{index}\"")).collect();
    format!(r#"{{"name":"e","data":"","channels":[{}]}}"#, names.join(","))
}

fn with_data(data: &str) -> String {
    format!(r#"{{"name":"order.paid","data":{data},"channels":["shop-1"]}}"#)
}

#[test]
fn s151_s221_channels_come_as_a_list_or_as_one_name() {
    let list = r#"{"name":"e","data":"x","channels":["a","b"]}"#;
    assert_eq!(channels(&trigger(list).unwrap()), ["a", "b"]);
    for one in [
        r#"{"name":"e","data":"x","channel":"a"}"#,
        r#"{"name":"e","data":"x","channels":null,"channel":"a"}"#,
    ] {
        assert_eq!(channels(&trigger(one).unwrap()), ["a"]);
    }
    let both = r#"{"name":"e","data":"x","channel":"a","channels":["b"]}"#;
    assert_eq!(channels(&trigger(both).unwrap()), ["b"]);
}

#[test]
fn s153_data_of_10240_bytes_is_the_longest() {
    assert!(trigger(&with_data(&format!("\"{}\"", "x".repeat(10_240)))).is_ok());
    let escaped = format!("\"{}\"", "\\u0041".repeat(10_240));
    assert!(trigger(&with_data(&escaped)).is_ok());
    let error = trigger(&with_data(&format!("\"{}\"", "x".repeat(10_241)))).unwrap_err();
    assert_eq!(error.status, 413);
    assert_eq!(
        error.text,
        "The data content of this event exceeds the allowed maximum (10240 bytes): \
         event 'order.paid' on channel 'shop-1' carries 10241 bytes"
    );
    let bytes_count = format!("\"{}\"", "é".repeat(5121));
    assert_eq!(trigger(&with_data(&bytes_count)).unwrap_err().status, 413);
}

#[test]
fn s154_data_may_be_an_empty_text() {
    assert_eq!(trigger(&with_data(r#""""#)).unwrap().data.as_json(), r#""""#);
}

#[test]
fn s155_name_and_data_are_needed() {
    assert_eq!(refused(r#"{"name":"e","channels":["a"]}"#), "Missing parameter: data");
    assert_eq!(refused(r#"{"name":"e","data":null,"channels":["a"]}"#), "Missing parameter: data");
    assert_eq!(refused(r#"{"data":"","channels":["a"]}"#), "Missing parameter: name");
    assert_eq!(
        refused(r#"{"name":5,"data":"","channels":["a"]}"#),
        "Invalid parameter: name must be a string"
    );
    assert_eq!(
        refused(r#"{"name":"","data":"","channels":["a"]}"#),
        "Invalid event name: it must not be empty"
    );
}

#[test]
fn s156_data_that_is_no_string_travels_as_its_json_text() {
    assert_eq!(trigger(&with_data(r#"{"a": 1}"#)).unwrap().data.as_json(), r#""{\"a\": 1}""#);
    assert_eq!(trigger(&with_data("12")).unwrap().data.as_json(), r#""12""#);
}

#[test]
fn s131_a_data_string_is_kept_byte_for_byte() {
    for data in [r#""hello""#, r#""{\"a\":1}""#, r#""<\/script>\u0000""#, "\"\u{2028}é😀\""] {
        let body = with_data(data);
        let data_token = trigger(&body).unwrap().data;
        assert_eq!(data_token.as_json(), data);
    }
    assert!(refused(&with_data(r#""\ud800""#)).contains("surrogate"));
}

#[test]
fn s157_one_to_100_channels_are_allowed() {
    assert_eq!(trigger(&with_channels(100)).unwrap().channels.len(), 100);
    assert_eq!(refused(&with_channels(101)), "Event 'e' for 101 channels exceeds the allowed maximum (100)");
    assert!(refused(&with_channels(0)).contains("at least one channel"));
    assert_eq!(refused(r#"{"name":"e","data":""}"#), "Missing parameter: channels");
    for wrong in [r#""a""#, "{}", "[1]", "[null]", "[[]]"] {
        assert!(
            refused(&format!(r#"{{"name":"e","data":"","channels":{wrong}}}"#))
                .contains("array of channel names")
        );
    }
}

#[test]
fn s158_a_repeated_channel_counts_once() {
    let body = r#"{"name":"e","data":"","channels":["a","b","a","\u0062"]}"#;
    assert_eq!(channels(&trigger(body).unwrap()), ["a", "b"]);
}

#[test]
fn s159_one_invalid_channel_refuses_the_event() {
    for name in ["a b", "", "#x", "ä", "#server-to-user-"] {
        let text = refused(&format!(r#"{{"name":"e","data":"","channels":["ok","{name}"]}}"#));
        assert!(text.contains(&format!("(channel '{name}')")), "{text}");
    }
    assert!(trigger(r##"{"name":"e","data":"","channels":["#server-to-user-u-1"]}"##).is_ok());
    let long = "x".repeat(201);
    assert!(refused(&format!(r#"{{"name":"e","data":"","channel":"{long}"}}"#)).contains("201 characters"));
}

#[test]
fn s160_an_excluded_connection_is_an_id_or_nobody() {
    let socket = |value: &str| {
        let body = format!(r#"{{"name":"e","data":"","channels":["a"],"socket_id":{value}}}"#);
        trigger(&body).map(|trigger| trigger.socket_id.map(|id| id.to_string()))
    };
    assert_eq!(socket(r#""1234.5678""#), Ok(Some("1234.5678".into())));
    assert_eq!(socket("null"), Ok(None));
    assert_eq!(socket(r#""0.99999999999999999999""#), Ok(None));
    for wrong in [r#""abc""#, r#""""#, "5", "1.5", "[]"] {
        assert_eq!(socket(wrong).unwrap_err().status, 400, "{wrong}");
    }
}

#[test]
fn s161_s162_only_the_prefixes_of_the_protocol_are_reserved() {
    for name in ["pusher:x", "pusher_internal:x", "pusher:"] {
        assert!(refused(&format!(r#"{{"name":"{name}","data":"","channels":["a"]}}"#)).contains("reserved"));
    }
    let body = r#"{"name":"App\\Events\\OrderPaid","data":"","channels":["a"]}"#;
    assert_eq!(trigger(body).unwrap().name, r"App\Events\OrderPaid");
    let longest = "é".repeat(200);
    assert!(trigger(&format!(r#"{{"name":"{longest}","data":"","channels":["a"]}}"#)).is_ok());
    let text = refused(&format!(r#"{{"name":"{longest}é","data":"","channels":["a"]}}"#));
    assert!(text.contains("201 characters exceed the allowed maximum (200)"), "{text}");
}

#[test]
fn s164_s173_info_is_a_list_of_known_attributes() {
    let both = Info { user_count: true, subscription_count: true, ..Info::default() };
    for list in
        ["user_count,subscription_count", "subscription_count, user_count", ",user_count,,subscription_count"]
    {
        assert_eq!(Info::parse(list), Ok(both));
    }
    assert!(Info::parse("").unwrap().is_empty());
    for list in ["nonsense", "user_count,nonsense", "User_count"] {
        let error = Info::parse(list).unwrap_err();
        assert_eq!(error.status, 400);
        assert!(error.text.contains("info should be a comma separated list of attributes"));
    }
    let body = r#"{"name":"e","data":"","channels":["a"],"info":"user_count"}"#;
    assert!(trigger(body).unwrap().info.user_count);
    assert!(trigger(&body.replace(r#""user_count""#, "null")).unwrap().info.is_empty());
    refused(&body.replace("user_count", "nonsense"));
}

#[test]
fn a_position_can_be_asked_for() {
    assert_eq!(Info::parse("position"), Ok(Info { position: true, ..Info::default() }));
    let text = Info::parse("serial").unwrap_err().text;
    assert!(text.contains("(user_count, subscription_count, cache, position); 'serial' is none"), "{text}");
}

#[test]
fn an_idempotency_key_has_1_to_128_characters() {
    let with_key =
        |key: &str| format!(r#"{{"name":"e","data":"","channels":["a"],"idempotency_key":{key}}}"#);
    let quoted = |key: &str| with_key(&format!("\"{key}\""));
    let longest = "é".repeat(128);
    for (key, expected) in [("x", "x"), ("ord-77", "ord-77"), (r#"\"\u0041"#, "\"A"), (&longest, &longest)] {
        assert_eq!(trigger(&quoted(key)).unwrap().idempotency_key.as_deref(), Some(expected));
    }
    assert_eq!(trigger(&with_key("null")).unwrap().idempotency_key, None);
    assert_eq!(refused(&quoted("")), "Invalid idempotency_key: 0 characters where 1 to 128 are expected");
    assert_eq!(
        refused(&quoted(&format!("{longest}x"))),
        "Invalid idempotency_key: 129 characters where 1 to 128 are expected"
    );
    assert_eq!(refused(&with_key("7")), "Invalid parameter: idempotency_key must be a string");
    assert_eq!(check_idempotency_key("ord-77"), Ok(()));
}

#[test]
fn each_item_of_a_batch_has_its_own_idempotency_key() {
    let body = r#"{"batch":[{"channel":"a","name":"e","data":"","idempotency_key":"k-1"},
                            {"channel":"a","name":"e","data":""}]}"#;
    let batch = Batch::parse(body.as_bytes(), &LIMITS).unwrap();
    let keys: Vec<_> = batch.events.iter().map(|event| event.idempotency_key.as_deref()).collect();
    assert_eq!(keys, [Some("k-1"), None]);
    let wrong = body.replace("k-1", "");
    let text = Batch::parse(wrong.as_bytes(), &LIMITS).unwrap_err().text;
    assert!(text.starts_with("Invalid event at index 0 of the batch: Invalid idempotency_key"), "{text}");
}

#[test]
fn s166_a_body_that_is_no_json_object_is_refused() {
    for body in ["", "{", "{}x", "name=e", r#"{"name":}"#] {
        assert!(refused(body).starts_with("Invalid body: not JSON ("), "{body}");
    }
    for body in ["[]", "5", "null", r#""x""#] {
        assert_eq!(refused(body), "Invalid body: not a JSON object");
    }
    assert_eq!(Trigger::parse(b"{\"name\":\"\xff\"}", &LIMITS).unwrap_err().text, "Invalid body: not UTF-8");
}

#[test]
fn unknown_and_repeated_members_do_not_matter() {
    let body = r#"{"x":[{}],"name":"a","name":"e","data":"1","data":"2","channels":["a"]}"#;
    let trigger = trigger(body).unwrap();
    assert_eq!((&*trigger.name, trigger.data.as_json()), ("e", r#""2""#));
}

fn batch(count: usize) -> String {
    let items: Vec<_> =
        (0..count).map(|index| format!(r#"{{"channel":"c-{index}","name":"e","data":"{index}"}}"#)).collect();
    format!(r#"{{"batch":[{}]}}"#, items.join(","))
}

#[test]
fn s167_a_batch_holds_one_to_10_events_in_order() {
    let body = batch(10);
    let events = Batch::parse(body.as_bytes(), &LIMITS).unwrap().events;
    let names: Vec<_> = events.iter().flat_map(channels).collect();
    assert_eq!(names, (0..10).map(|index| format!("c-{index}")).collect::<Vec<_>>());
    let refused = |body: &str| Batch::parse(body.as_bytes(), &LIMITS).unwrap_err();
    assert_eq!(refused(&batch(11)).text, "Batch of 11 events exceeds the allowed maximum (10)");
    for body in [r#"{"batch":[]}"#, r#"{"batch":{}}"#, r#"{"batch":null}"#, "{}", "[]"] {
        assert_eq!(refused(body).status, 400, "{body}");
    }
}

#[test]
fn s169_one_invalid_item_refuses_the_batch() {
    let item = |name: &str| format!(r#"{{"channel":"a","name":"{name}","data":"1"}}"#);
    let body = format!(r#"{{"batch":[{},{}]}}"#, item("e"), item("pusher:x"));
    let error = Batch::parse(body.as_bytes(), &LIMITS).unwrap_err();
    assert!(error.text.starts_with("Invalid event at index 1 of the batch: Invalid event name"), "{error}");
    let body = r#"{"batch":[{"name":"e","data":"1"}]}"#;
    let error = Batch::parse(body.as_bytes(), &LIMITS).unwrap_err();
    assert_eq!(error.text, "Invalid event at index 0 of the batch: Missing parameter: channel");
    let body =
        format!(r#"{{"batch":[{}]}}"#, item("e").replace("\"1\"", &format!("\"{}\"", "x".repeat(10_241))));
    assert_eq!(Batch::parse(body.as_bytes(), &LIMITS).unwrap_err().status, 413);
}

#[test]
fn s184_the_legacy_call_carries_its_data_as_the_body() {
    let legacy = |query: &str, body: &[u8]| {
        let query = ApiQuery::parse(query);
        Trigger::legacy("a", &query, body, &LIMITS)
            .map(|trigger| (trigger.name.to_string(), trigger.data.as_json().to_owned(), trigger.socket_id))
    };
    let (name, data, socket_id) = legacy("name=e%20x&socket_id=1.2", b"{\"a\":1}").unwrap();
    assert_eq!((&*name, &*data), ("e x", r#""{\"a\":1}""#));
    assert_eq!(socket_id.unwrap().to_string(), "1.2");
    for (query, body) in
        [("", b"x".as_slice()), ("name=pusher:x", b"x"), ("name=e", b"\xff"), ("name=e&socket_id=x", b"")]
    {
        assert_eq!(legacy(query, body).unwrap_err().status, 400);
    }
    assert_eq!(legacy("name=e", &[b'x'; 10_241]).unwrap_err().status, 413);
}
