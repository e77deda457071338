//! What is encoded is decoded, and nothing else makes the decoder fall over.

use proptest::prelude::*;

use super::*;

fn event() -> impl Strategy<Value = Event> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..50).prop_map(Bytes::from);
    let cache = (any::<u64>(), bytes()).prop_map(|(ttl_ms, data)| CachePart { ttl_ms, data });
    (proptest::option::of(any::<u64>()), proptest::option::of(cache), bytes())
        .prop_map(|(except, cache, frame)| Event { except, cache, frame })
}

fn decoded(bytes: impl Into<Bytes>) -> Result<Message, Malformed> {
    Message::decode(bytes.into())
}

proptest! {
    #[test]
    fn an_event_comes_back(event in event()) {
        let encoded = encode_event(&event);
        if let Some(offset) = cache_offset(&event) {
            let (data, frame) = cache_part(encoded.slice(offset..)).expect("a cached event");
            prop_assert_eq!(&data, &event.cache.as_ref().expect("it is cached").data);
            prop_assert_eq!(&frame, &event.frame);
        }
        let Ok(Message::Event(back)) = decoded(encoded) else { panic!("no event") };
        prop_assert_eq!(back, event);
    }

    #[test]
    fn a_stored_event_comes_back(
        event in event(),
        id in proptest::option::of(".{0,20}"),
        generation: u32,
        serial: u64,
        time_ms: u64,
        size: u32,
    ) {
        let part = encode_stored_part(size, id.as_deref(), &event).expect("a short id");
        let mut encoded = format!("S{generation}-{serial}:{time_ms}:").into_bytes();
        encoded.extend_from_slice(&part);
        let encoded = Bytes::from(encoded);
        let Ok(Message::Stored(back)) = decoded(encoded.clone()) else { panic!("no stored event") };
        let frame = back.event.frame.as_ptr_range();
        prop_assert!(frame.is_empty() || frame.end == encoded.as_ptr_range().end, "the frame is not copied");
        prop_assert_eq!(back, Stored { generation, serial, time_ms, size, id, event });
    }

    #[test]
    fn a_change_of_members_comes_back(version: u64, user_id in ".{0,20}", info in proptest::option::of(0..1_000)) {
        let json = info.map_or_else(String::new, |info| format!("{{\"a\":{info}}}"));
        let Ok(Message::Added(delta)) = decoded(format!("+{version}:{}:{user_id}{json}", user_id.len())) else {
            panic!("no member")
        };
        prop_assert_eq!(delta.version, version);
        prop_assert_eq!(delta.user_id, user_id);
        prop_assert_eq!(delta.info.as_deref().map_or("", RawValue::get), json);
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let _ = decoded(bytes.clone());
        let _ = cache_part(Bytes::from(bytes));
    }

    #[test]
    fn any_bytes_after_a_kind_are_decoded_or_refused(
        kind in proptest::sample::select(b"E+i-#ofTS".to_vec()),
        start in "([0-9]{0,21}[:-]){0,3}",
        rest in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut bytes = vec![kind];
        bytes.extend_from_slice(start.as_bytes());
        bytes.extend_from_slice(&rest);
        let _ = decoded(bytes);
    }

    #[test]
    fn half_a_message_is_decoded_or_refused(event in event(), at: proptest::sample::Index) {
        let encoded = encode_event(&event);
        let _ = decoded(encoded.slice(..at.index(encoded.len())));
    }
}

#[test]
fn short_messages_are_their_kind() {
    assert!(matches!(decoded("#12"), Ok(Message::Count(12))));
    assert!(matches!(decoded("o"), Ok(Message::Online)));
    assert!(matches!(decoded("f"), Ok(Message::Offline)));
    assert!(matches!(decoded("T9"), Ok(Message::Terminate(9))));
    let Ok(Message::Removed(delta)) = decoded("-7:2:\u{e9}") else { panic!("nobody was removed") };
    assert_eq!((delta.version, &*delta.user_id, delta.info.is_none()), (7, "\u{e9}", true));
}

#[test]
fn what_no_node_sends_is_refused() {
    for bytes in [
        &b""[..],
        b"?",
        b"E",
        b"E\x08frame",
        b"E\x01short",
        b"E\x02\0\0\0\0\0\0\0\x01\0\0\0\x09data",
        b"#",
        b"#-1",
        b"#+1",
        b"#1x",
        b"#99999999999999999999",
        b"+1:a",
        b"+1:2:a",
        b"+1:1:a{",
        b"+1:1:\xff",
        b"S4294967296-1:1:\0",
        b"S1-1:1:",
        b"S1-1:1:\0\0\0\x01",
    ] {
        assert!(Message::decode(Bytes::from_static(bytes)).is_err(), "{:?}", String::from_utf8_lossy(bytes));
    }
}
