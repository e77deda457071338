//! Blocks of an event stream, as the HTML standard has them (9.2.5).

use std::time::Duration;

/// One block: a cursor to remember, the name of an event and what it says, each where there is one. A block without
/// data moves the cursor and dispatches nothing.
pub fn push_block(out: &mut Vec<u8>, id: Option<&str>, event: Option<&str>, data: Option<&str>) {
    if let Some(id) = id {
        push_line(out, "id: ", id);
    }
    if let Some(event) = event {
        push_line(out, "event: ", event);
    }
    // JSON of ours has no line breaks; those of somebody else's are put together again by the client.
    for line in data.iter().flat_map(|data| data.split(['\r', '\n'])) {
        push_line(out, "data: ", line);
    }
    out.push(b'\n');
}

/// How long the client waits before it comes back.
pub fn push_retry(out: &mut Vec<u8>, after: Duration) {
    push_line(out, "retry: ", &after.as_millis().to_string());
    out.push(b'\n');
}

/// Something for proxies to forward, and for clients to see that the stream lives.
pub fn push_comment(out: &mut Vec<u8>) {
    out.extend_from_slice(b": ka\n\n");
}

fn push_line(out: &mut Vec<u8>, field: &str, value: &str) {
    out.extend_from_slice(field.as_bytes());
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(id: Option<&str>, event: Option<&str>, data: Option<&str>) -> String {
        let mut out = Vec::new();
        push_block(&mut out, id, event, data);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_block_has_a_line_for_each_part_and_an_empty_one() {
        assert_eq!(block(Some("k.1:2"), Some("e"), Some("{}")), "id: k.1:2\nevent: e\ndata: {}\n\n");
        assert_eq!(block(None, None, Some("{}")), "data: {}\n\n");
        assert_eq!(block(Some("k.1:2"), None, None), "id: k.1:2\n\n");
    }

    #[test]
    fn a_line_break_cannot_end_the_data() {
        assert_eq!(block(None, None, Some("{\n\"a\":1\r}")), "data: {\ndata: \"a\":1\ndata: }\n\n");
    }

    #[test]
    fn a_retry_is_in_milliseconds() {
        let mut out = Vec::new();
        push_retry(&mut out, Duration::from_millis(1500));
        push_comment(&mut out);
        assert_eq!(out, b"retry: 1500\n\n: ka\n\n");
    }
}
