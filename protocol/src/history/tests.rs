//! Parameters and cursors of the history, good and bad.

use super::*;

fn parse(query: &str) -> Result<HistoryQuery, ApiError> {
    HistoryQuery::parse(&ApiQuery::parse(query))
}

fn refused(query: &str) -> String {
    let error = parse(query).unwrap_err();
    assert_eq!(error.status, 400, "{query}: {error}");
    error.text
}

fn cursor_of(direction: Direction, bound: Option<u64>) -> HistoryCursor {
    HistoryCursor { direction, serial: 1842, bound, epoch: Epoch { nonce: 62, generation: 2 } }
}

#[test]
fn without_parameters_it_is_the_newest_hundred() {
    for query in ["", "limit=&direction=&from=&to=&since=&cursor=", "auth_key=k&other=1"] {
        assert_eq!(parse(query), Ok(HistoryQuery::default()), "{query}");
    }
    assert_eq!(HistoryQuery::default().limit, 100);
    assert_eq!(HistoryQuery::default().direction, Direction::Backward);
}

#[test]
fn every_parameter_is_read() {
    let query = parse("direction=forward&limit=1000&from=10.2%3A7&to=10.2:9&since=15m").unwrap();
    let epoch = Epoch { nonce: 62, generation: 2 };
    let expected = HistoryQuery {
        direction: Direction::Forward,
        limit: 1000,
        from: Some(Position { epoch, serial: 7 }),
        to: Some(Position { epoch, serial: 9 }),
        since_ms: Some(900_000),
        cursor: None,
    };
    assert_eq!(query, expected);
}

#[test]
fn a_wrong_parameter_is_named_with_what_is_expected() {
    for (query, text) in [
        ("direction=up", "Invalid parameter: direction 'up' must be backward or forward"),
        ("limit=0", "Invalid parameter: limit '0' must be a number from 1 to 1000"),
        ("limit=1001", "Invalid parameter: limit '1001' must be a number from 1 to 1000"),
        ("limit=%2B5", "Invalid parameter: limit '+5' must be a number from 1 to 1000"),
        (
            "from=7",
            "Invalid parameter: from '7' is not a position: expected epoch:serial, such as k3Jd9Q.2:1842",
        ),
        (
            "to=a.1:x",
            "Invalid parameter: to 'a.1:x' is not a position: expected epoch:serial, such as k3Jd9Q.2:1842",
        ),
        (
            "since=soon",
            "Invalid parameter: since 'soon' must be a duration such as 90s, 15m, 2h or 1d, or a number of seconds",
        ),
        (
            "cursor=x",
            "Invalid parameter: cursor 'x' is not a cursor: expected next or prev of another page, as it was sent",
        ),
    ] {
        assert_eq!(refused(query), text);
    }
    for query in ["limit=ten", "limit=1e2", "limit=-1", "limit=99999999999999999999", "since=0", "since=-1s"]
    {
        refused(query);
    }
}

#[test]
fn a_long_value_is_not_repeated_in_full() {
    for name in ["direction", "limit", "from", "to", "since", "cursor"] {
        assert!(refused(&format!("{name}={}", "x".repeat(10_000))).len() < 500);
    }
}

#[test]
fn since_is_an_age_in_any_unit() {
    for (since, seconds) in [("90s", 90), ("15m", 900), ("2h", 7200), ("1d", 86_400), ("300", 300)] {
        assert_eq!(parse(&format!("since={since}")).unwrap().since_ms, Some(seconds * 1000), "{since}");
    }
}

#[test]
fn from_comes_before_to_in_the_direction() {
    for query in [
        "direction=forward&from=a.1:5&to=a.1:5",
        "direction=forward&from=a.1:5&to=a.2:6",
        "from=a.1:5&to=a.1:5",
        "from=a.2:6&to=a.1:5",
        // Of two logs one is gone: not for the parser to say.
        "from=b.1:5&to=a.1:6",
    ] {
        assert!(parse(query).is_ok(), "{query}");
    }
    assert!(refused("direction=forward&from=a.1:6&to=a.1:5").contains("to must be after from"));
    assert!(refused("from=a.1:5&to=a.1:6").contains("to must be before from"));
}

#[test]
fn a_cursor_says_all_but_the_limit() {
    let cursor = cursor_of(Direction::Forward, Some(9));
    for direction in ["", "&direction=forward", "&direction="] {
        let query = parse(&format!("cursor={cursor}&limit=5{direction}")).unwrap();
        let expected = HistoryQuery {
            direction: Direction::Forward,
            limit: 5,
            cursor: Some(cursor),
            ..HistoryQuery::default()
        };
        assert_eq!(query, expected);
    }
    assert_eq!(
        refused(&format!("cursor={cursor}&direction=backward")),
        "Invalid parameter: direction must be forward, that of the cursor, or be left out"
    );
    for other in ["from=a.1:1", "to=a.1:1", "since=1h"] {
        let name = other.split('=').next().unwrap_or_default();
        assert!(refused(&format!("cursor={cursor}&{other}")).contains(&format!("{name} beside cursor")));
    }
}

#[test]
fn a_cursor_is_read_as_it_is_written() {
    for direction in [Direction::Backward, Direction::Forward] {
        for bound in [None, Some(0), Some(9), Some(u64::MAX)] {
            let cursor = cursor_of(direction, bound);
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
    }
    let cursor = cursor_of(Direction::Forward, Some(9));
    assert_eq!(cursor.to_string(), "AQMAAAAAAAAHMgAAAAAAAAAJAAAAAAAAAD4AAAAC");
    assert_eq!(cursor.position().to_string(), "10.2:1842");
}

#[test]
fn other_texts_are_no_cursors() {
    let bytes = cursor_of(Direction::Backward, None).to_bytes();
    let with = |at: usize, byte: u8| {
        let mut bytes = bytes;
        bytes[at] = byte;
        BASE64URL_NOPAD.encode(&bytes)
    };
    assert!(with(1, 0).parse::<HistoryCursor>().is_ok());
    let long = BASE64URL_NOPAD.encode(&[&bytes[..], &[0]].concat());
    let short = BASE64URL_NOPAD.encode(&bytes[..bytes.len() - 1]);
    let padded = format!("{}=", with(1, 0));
    for text in [
        "",
        "=",
        "AQ",
        "not a cursor",
        "AQMAAAAAAAAHMgAAAAAAAAAJAAAAAAAAAD4AAAA+",
        &with(0, 0),
        &with(0, 2),
        // An unknown flag, and a bound without its flag.
        &with(1, 4),
        &with(17, 1),
        &long,
        &short,
        &padded,
    ] {
        assert_eq!(text.parse::<HistoryCursor>(), Err(InvalidCursor), "{text}");
    }
}

#[test]
fn a_purge_names_its_position() {
    let before = |query: &str| position_parameter(&ApiQuery::parse(query), "before");
    assert_eq!(before(""), Ok(None));
    assert_eq!(before("before="), Ok(None));
    assert_eq!(before("before=10.2:7").unwrap().unwrap().serial, 7);
    assert!(
        before("before=x").unwrap_err().text.starts_with("Invalid parameter: before 'x' is not a position")
    );
}
