//! A message as Redis has it: an entry of a stream, and what is published on the channel's topic.

use bytes::Bytes;
use redis::Value;
use tidewire_protocol::{DataToken, frame, server_message};

use crate::fanout::message::{CachePart, Event, encode_stored_part};
use crate::replay::store::{Append, Content};

/// Names and values of an entry's fields, without its time and the bytes before it.
pub fn fields(content: &Content) -> Vec<Vec<u8>> {
    let Content { id, event, data, user_id, except } = content;
    let mut fields: Vec<Vec<u8>> = Vec::with_capacity(8);
    let mut push = |name: &str, value: &str| fields.extend([name.into(), value.into()]);
    push("n", event);
    push("d", data);
    let optional = [("i", id.as_deref()), ("u", user_id.as_deref())];
    optional
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .for_each(|(name, value)| push(name, value));
    if let Some(except) = except {
        push("x", &except.to_string());
    }
    fields
}

/// What an entry says, with its time and the bytes before it. `None` when nothing of this version wrote it.
pub fn decode(fields: Vec<Value>) -> Option<(u64, u64, Content)> {
    let (mut time_ms, mut before) = (None, None);
    let (mut event, mut data, mut id, mut user_id, mut except) = (None, None, None, None, None);
    let mut values = fields.into_iter();
    while let (Some(name), Some(value)) = (values.next(), values.next()) {
        let value = text(value)?;
        match text(name)?.as_str() {
            "t" => time_ms = Some(value.parse().ok()?),
            "b" => before = Some(value.parse().ok()?),
            "n" => event = Some(value.into()),
            "d" => data = Some(value.into()),
            "i" => id = Some(value.into()),
            "u" => user_id = Some(value.into()),
            "x" => except = Some(value.parse().ok()?),
            _ => {}
        }
    }
    Some((time_ms?, before?, Content { id, event: event?, data: data?, user_id, except }))
}

pub fn text(value: Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

/// What subscribers on every node get, without the position. `None` when the key is too long for it.
pub fn publishers_part(append: &Append) -> Option<Bytes> {
    let Content { id, event, data, user_id, except } = &append.content;
    let data = DataToken::from_stored(data);
    let text = server_message::channel_event(event, &append.stream.channel, &data, user_id.as_deref());
    let cache = append.hints.cache_ttl_ms.map(|ttl_ms| CachePart {
        ttl_ms,
        data: Bytes::from(data.decode().unwrap_or_default().into_owned()),
    });
    let event = Event { except: *except, cache, frame: frame::encode_text(&text) };
    // Requests are bounded far below 4 GiB.
    let size = u32::try_from(append.content.size()).unwrap_or(u32::MAX);
    encode_stored_part(size, id.as_deref(), &event)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fanout::message::Message;
    use crate::replay::store::{Hints, StreamName};

    #[test]
    fn a_message_of_the_topic_is_as_large_as_the_stored_one() {
        let content = Content {
            id: Some("ord-77".into()),
            event: "client-\u{0}\"é".into(),
            data: r#""{\"a\":1}""#.into(),
            user_id: Some("7\n".into()),
            except: None,
        };
        let stream = StreamName { app: "42".into(), channel: "presence-é".into() };
        let hints = Hints { cache_ttl_ms: Some(9), ..Hints::default() };
        let append = Append { stream, content, inactivity_ttl_ms: 0, hints };
        let part = publishers_part(&append).expect("its key is short");
        let message = [b"S7-8:9:", &part[..]].concat();
        let Ok(Message::Stored(stored)) = Message::decode(message.into()) else { panic!("it decodes") };
        assert_eq!(u64::from(stored.size), append.content.size());
        assert_eq!((stored.generation, stored.serial, stored.time_ms), (7, 8, 9));
        assert_eq!(stored.event.cache.map(|cache| cache.data), Some(Bytes::from_static(b"{\"a\":1}")));
    }

    #[test]
    fn an_entry_is_read_back_as_it_was_written() {
        let content = Content {
            id: Some("".into()),
            event: "e".into(),
            data: "\"\u{0}\"".into(),
            user_id: None,
            except: Some(u64::MAX),
        };
        let all = [b"t".to_vec(), b"5".to_vec(), b"b".to_vec(), b"6".to_vec()];
        let all = all.into_iter().chain(fields(&content)).map(Value::BulkString);
        assert_eq!(decode(all.collect()), Some((5, 6, content)));
        assert_eq!(decode(vec![Value::BulkString(b"t".to_vec()), Value::BulkString(b"x".to_vec())]), None);
    }
}
