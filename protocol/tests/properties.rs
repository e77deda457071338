//! Properties that hold for every input.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::collections::HashSet;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, subsequence};
use serde_json::Value;
use serde_json::value::RawValue;
use tidewire_protocol::frame::{self, Assembler, Message, OpCode, Parsed};
use tidewire_protocol::http_auth::{self, ApiQuery, canonical_string};
use tidewire_protocol::{
    Batch, ChannelName, ClientMessage, DataToken, Info, Member, MemberLimits, SigningKey, SocketId, Trigger,
    TriggerLimits, UserData, server_message,
};

const MAX_MESSAGE_BYTES: usize = 1 << 20;
const LIMITS: TriggerLimits = TriggerLimits {
    max_channels: 100,
    max_channel_name_length: 200,
    max_event_name_length: 200,
    max_event_bytes: 10_240,
    max_batch_events: 10,
};

/// A frame of the server turned into one of a client: other first byte, masked payload.
fn as_client_frame(first: u8, frame: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let header = match frame[1] {
        127 => 10,
        126 => 4,
        _ => 2,
    };
    let mut client = frame[..header].to_vec();
    client[0] = first;
    client[1] |= 0x80;
    client.extend(mask);
    client.extend(frame[header..].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    client
}

/// Cuts `text` into messages' fragments at arbitrary characters and sends them as client frames.
fn fragmented(text: &str, cuts: &[Index], mask: [u8; 4]) -> Vec<u8> {
    let boundaries: Vec<_> = (0..=text.len()).filter(|at| text.is_char_boundary(*at)).collect();
    let mut cuts: Vec<_> = cuts.iter().map(|cut| *cut.get(&boundaries)).collect();
    cuts.extend([0, text.len()]);
    cuts.sort_unstable();
    let last = cuts.len() - 2;
    cuts.windows(2)
        .enumerate()
        .flat_map(|(index, cut)| {
            let opcode = if index == 0 { 1 } else { 0 };
            let fin = if index == last { 0x80 } else { 0 };
            as_client_frame(fin | opcode, &frame::encode_text(&text[cut[0]..cut[1]]), mask)
        })
        .collect()
}

/// Every text in a stream of bytes that arrives in chunks, as a socket would deliver it.
fn read_texts(chunks: &[&[u8]]) -> Vec<String> {
    let (mut buffer, mut assembler, mut texts) = (Vec::new(), Assembler::default(), Vec::new());
    for chunk in chunks {
        buffer.extend_from_slice(chunk);
        while let Parsed::Frame { consumed, frame } =
            frame::parse_frame(&mut buffer, MAX_MESSAGE_BYTES).unwrap()
        {
            let payload = &buffer[frame.payload.clone()];
            if let Some(Message::Text(text)) = assembler.push(&frame, payload, MAX_MESSAGE_BYTES).unwrap() {
                texts.push(text.into_owned());
            }
            buffer.drain(..consumed);
        }
    }
    assert!(buffer.is_empty() && assembler.is_idle());
    texts
}

fn json_string_token() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[^\"\\\\\u{0}-\u{1f}]{0,8}",
        Just("\\n".to_owned()),
        Just("\\\"".to_owned()),
        Just("\\\\".to_owned()),
        Just("\\/".to_owned()),
        "\\\\u[0-9a-fA-F]{4}",
        "\\\\ud[89ab][0-9a-f]{2}\\\\ud[c-f][0-9a-f]{2}",
    ];
    vec(piece, 0..12).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn near_json() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("\"event\""),
        Just("\"data\""),
        Just("\"channel\""),
        Just("\"pusher:subscribe\""),
        Just("\"client-x\""),
        Just("\"pusher:signin\""),
        Just("\"name\""),
        Just("\"channels\""),
        Just("\"batch\""),
        Just("\"user_id\""),
        Just("\"id\""),
        Just("\"watchlist\""),
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(":"),
        Just(","),
        Just("null"),
        Just("-1.5e9"),
        Just("\"\\ud800\""),
        Just("\"{\\\"channel\\\":1}\""),
        Just("\""),
        Just(" "),
    ];
    vec(word, 0..24).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn a_text_survives_any_fragmentation_and_any_chunks(
        text in "\\PC{0,300}",
        cuts in vec(any::<Index>(), 0..5),
        mask in any::<[u8; 4]>(),
        chunk_size in 1..400_usize,
    ) {
        let bytes = [fragmented(&text, &cuts, mask), fragmented("end", &[], mask)].concat();
        let chunks: Vec<_> = bytes.chunks(chunk_size).collect();
        prop_assert_eq!(read_texts(&chunks), [text.as_str(), "end"]);
    }

    #[test]
    fn every_length_survives_masking(length in 0..70_000_usize, mask in any::<[u8; 4]>()) {
        let text: String = ('a'..='z').cycle().take(length).collect();
        let mut bytes = as_client_frame(0x81, &frame::encode_text(&text), mask);
        let Ok(Parsed::Frame { consumed, frame }) = frame::parse_frame(&mut bytes, MAX_MESSAGE_BYTES) else {
            return Err(TestCaseError::fail("no frame"));
        };
        prop_assert_eq!(consumed, bytes.len());
        prop_assert_eq!(frame.opcode, OpCode::Text);
        prop_assert_eq!(&bytes[frame.payload], text.as_bytes());
    }

    #[test]
    fn the_frame_parser_is_total(mut bytes in vec(any::<u8>(), 0..200), max in 0..300_usize) {
        let length = bytes.len();
        let mut assembler = Assembler::default();
        match frame::parse_frame(&mut bytes, max) {
            Ok(Parsed::Frame { consumed, frame }) => {
                prop_assert!(consumed <= length && frame.payload.end == consumed);
                let _ = assembler.push(&frame, &bytes[frame.payload.clone()], max);
            }
            Ok(Parsed::Incomplete { needed }) => prop_assert!(needed == 0 || needed > length),
            Err(error) => prop_assert!(matches!(error.close_code(), 1002 | 1007 | 1009)),
        }
    }

    #[test]
    fn the_assembler_is_total_and_bounded(
        frames in vec((any::<bool>(), 0..6_usize, vec(any::<u8>(), 0..20)), 0..12),
        max in 0..60_usize,
    ) {
        const OPCODES: [OpCode; 6] =
            [OpCode::Continuation, OpCode::Text, OpCode::Binary, OpCode::Close, OpCode::Ping, OpCode::Pong];
        let mut assembler = Assembler::default();
        for (fin, opcode, payload) in &frames {
            let frame = frame::Frame { fin: *fin, opcode: OPCODES[*opcode], payload: 0..payload.len() };
            match assembler.push(&frame, payload, max) {
                Ok(Some(Message::Text(text))) => prop_assert!(text.len() <= max),
                Ok(Some(Message::Binary(bytes))) => prop_assert!(bytes.len() <= max),
                Ok(_) => {}
                Err(_) => break,
            }
        }
    }

    #[test]
    fn parsers_of_text_are_total(text in prop_oneof![".*".boxed(), near_json().boxed()]) {
        let limits = MemberLimits { max_user_id_length: 8, max_user_info_bytes: 8, strict_user_info: true };
        let _ = ClientMessage::parse(&text).map_err(|error| error.to_string());
        let _ = Trigger::parse(text.as_bytes(), &LIMITS);
        let _ = Batch::parse(text.as_bytes(), &LIMITS);
        let _ = Member::parse(&text, limits);
        let _ = UserData::parse(&text, 3);
        let _ = Info::parse(&text);
        let _ = SocketId::parse(&text);
        let _ = ChannelName::parse(&text, 8);
        let _ = http_auth::verify("GET", &text, &ApiQuery::parse(&text), b"", &SigningKey::new(""), 0);
    }

    #[test]
    fn a_complete_envelope_is_read_whatever_its_strings(event in "pusher:subscribe|client-.{0,9}", channel in ".{0,20}") {
        let text = serde_json::json!({
            "event": event, "channel": channel, "data": { "channel": channel, "auth": channel },
        })
        .to_string();
        match ClientMessage::parse(&text).unwrap() {
            ClientMessage::Subscribe(subscribe) => {
                prop_assert_eq!(&subscribe.channel, &channel);
                prop_assert_eq!(subscribe.auth.unwrap_or_default(), channel);
            }
            ClientMessage::ClientEvent { event: read, channel: read_channel, data } => {
                prop_assert_eq!((&*read, &*read_channel), (&*event, &*channel));
                prop_assert!(data.is_some());
            }
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        }
    }

    #[test]
    fn a_channel_name_is_what_the_grammar_says(name in "[A-Za-z0-9_=@,.;#-]{0,24}|.{0,8}|#server-to-user-.{0,4}") {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-=@,.;";
        let in_alphabet = |text: &str| !text.is_empty() && text.bytes().all(|byte| ALPHABET.contains(&byte));
        let expected = match name.strip_prefix("#server-to-user-") {
            Some(id) => in_alphabet(id) && id.len() <= 12,
            None => in_alphabet(&name) && name.len() <= 12,
        };
        let parsed = ChannelName::parse(&name, 12);
        prop_assert_eq!(parsed.is_ok(), expected);
        prop_assert!(parsed.is_err() || parsed.unwrap().as_str() == name);
    }

    #[test]
    fn a_data_token_measures_and_decodes_as_serde_does(json in json_string_token()) {
        let raw: &RawValue = serde_json::from_str(&json).unwrap();
        let token = DataToken::from_string_token(raw).unwrap();
        match serde_json::from_str::<String>(&json) {
            Ok(text) => {
                prop_assert!(token.is_valid_text());
                prop_assert_eq!(token.decoded_len(), text.len());
                prop_assert_eq!(token.decode().unwrap(), text);
            }
            Err(_) => prop_assert!(!token.is_valid_text() && token.decode().is_none()),
        }
    }

    #[test]
    fn s134_any_text_becomes_a_token_that_decodes_to_it(text in ".{0,60}|[\u{0}-\u{7f}]{0,60}") {
        let token = DataToken::from_text(&text);
        prop_assert_eq!(token.as_json(), serde_json::to_string(&text).unwrap());
        prop_assert_eq!(token.decoded_len(), text.len());
        let frame = server_message::channel_event(&text, &text, &token, Some(&text));
        let expected = serde_json::json!({ "event": text, "channel": text, "data": text, "user_id": text });
        prop_assert_eq!(serde_json::from_str::<Value>(&frame).unwrap(), expected);
    }

    #[test]
    fn s042_every_frame_but_errors_carries_its_data_as_text(text in ".{0,30}") {
        let info = RawValue::from_string(serde_json::to_string(&[&text]).unwrap()).unwrap();
        let members = [(text.as_str(), Some(&*info))];
        for frame in [
            server_message::presence_succeeded(&text, members.into_iter()),
            server_message::member_added(&text, &text, Some(&info)),
            server_message::member_removed(&text, &text),
            server_message::signin_success(&text),
            server_message::subscription_error(&text, &text, &text, 401),
            server_message::watchlist_events(&[(true, vec![&text])]),
        ] {
            let frame: Value = serde_json::from_str(&frame).unwrap();
            let data: Value = serde_json::from_str(frame["data"].as_str().unwrap()).unwrap();
            prop_assert!(data.is_object());
        }
        let error: Value = serde_json::from_str(&server_message::error(None, &text)).unwrap();
        prop_assert_eq!(error["data"]["message"].as_str(), Some(&*text));
    }

    #[test]
    fn what_is_signed_verifies_and_nothing_else(secret in ".{0,80}", message in vec(any::<u8>(), 0..200), bit in any::<Index>()) {
        let key = SigningKey::new(&secret);
        let signature = key.sign_hex(&[&message]);
        prop_assert!(key.verify_hex(&[&message], &signature));
        let mut bytes = hex::decode(&signature).unwrap();
        let bit = bit.index(256);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!key.verify_hex(&[&message], &hex::encode(bytes)));
    }

    #[test]
    fn s145_the_canonical_string_does_not_depend_on_the_order_of_the_wire(
        pairs in vec(("[a-z]{1,4}", "[a-z,%+@=]{0,6}"), 0..8),
        seed in any::<Index>(),
    ) {
        let mut seen = HashSet::new();
        let mut pairs: Vec<_> =
            pairs.iter().filter(|(key, _)| seen.insert(key)).map(|(key, value)| format!("{key}={value}")).collect();
        let before = canonical_string("GET", "/", &ApiQuery::parse(&pairs.join("&")));
        if !pairs.is_empty() {
            let middle = seed.index(pairs.len());
            pairs.rotate_left(middle);
            pairs.reverse();
        }
        prop_assert_eq!(canonical_string("GET", "/", &ApiQuery::parse(&pairs.join("&"))), before);
    }

    #[test]
    fn a_signed_query_verifies_however_it_is_encoded(
        values in vec("[ -~é]{0,8}", 3),
        order in subsequence(vec![0, 1, 2, 3, 4, 5, 6], 7).prop_shuffle(),
    ) {
        let auth = ["auth_key=k".to_owned(), "auth_timestamp=0".to_owned(), "auth_version=1.0".to_owned()];
        let signed: Vec<_> = values.iter().zip('x'..).map(|(value, key)| format!("{key}={value}")).collect();
        let text = format!("GET\n/p\n{}&{}", auth.join("&"), signed.join("&"));
        let key = SigningKey::new("secret");
        let encoded = values.iter().zip('x'..).map(|(value, key)| {
            let value: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
            format!("{key}={value}")
        });
        let signature = format!("auth_signature={}", key.sign_hex(&[text.as_bytes()]));
        let parts: Vec<_> = auth.into_iter().chain(encoded).chain([signature]).collect();
        let wire: Vec<_> = order.into_iter().map(|index| parts[index].clone()).collect();
        let query = wire.join("&");
        prop_assert_eq!(http_auth::verify("GET", "/p", &ApiQuery::parse(&query), b"", &key, 0), Ok(()));
    }
}
