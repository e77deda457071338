//! What may be asked of the log, and which positions are still good.

use super::*;

fn parse(json: &str) -> Result<ReplayRequest, ReplayError> {
    ReplayRequest::parse(serde_json::from_str(json).unwrap())
}

fn start(json: &str) -> Start {
    parse(json).unwrap().start
}

fn at(generation: u32, serial: u64) -> Position {
    Position { epoch: Epoch { nonce: 7, generation }, serial }
}

/// 11 to 300, of which 1 and 3 and 4 had the messages from 11, 101 and 201 on; 51 is the oldest that is there.
fn bounds() -> Bounds {
    let generation = |number, start| Generation { number, start };
    Bounds {
        nonce: 7,
        base: 10,
        generations: vec![generation(1, 11), generation(3, 101), generation(4, 201)],
        floor: 51,
        head: 300,
    }
}

fn resolve(bounds: &Bounds, cursor: Position) -> Result<(), Reason> {
    bounds.resolve(cursor, u64::MAX)
}

#[test]
fn a_bare_request_is_live_with_positions() {
    for json in [
        "{}",
        r#"{"v":1}"#,
        r#"{"v":null,"from":null,"rewind":null,"on_gap":null,"not_from":null}"#,
        r#"{"v":1,"later":[{}]}"#,
    ] {
        assert_eq!(parse(json), Ok(ReplayRequest::LIVE), "{json}");
    }
}

#[test]
fn every_member_is_read() {
    let json = r#"{"v":1,"from":"k3Jd9Q.2:1842","on_gap":"reject","not_from":"1234.5678"}"#;
    let request = parse(json).unwrap();
    assert_eq!(request.start, Start::After("k3Jd9Q.2:1842".parse().unwrap()));
    assert_eq!(request.on_gap, OnGap::Reject);
    assert_eq!(request.not_from.map(|id| id.to_string()).as_deref(), Some("1234.5678"));
    assert_eq!(parse(r#"{"on_gap":"continue"}"#).unwrap().on_gap, OnGap::Continue);
    assert_eq!(start(r#"{"from":"\u0061.0:7"}"#), start(r#"{"from":"a.0:7"}"#));
}

#[test]
fn a_rewind_has_three_forms() {
    assert_eq!(start(r#"{"rewind":{"count":50}}"#), Start::Rewind(Rewind::Count(50)));
    assert_eq!(start(r#"{"rewind":{"seconds":120,"x":1}}"#), Start::Rewind(Rewind::Seconds(120)));
    assert_eq!(start(r#"{"rewind":{"count":null,"seconds":1}}"#), Start::Rewind(Rewind::Seconds(1)));
    assert_eq!(start(r#"{"rewind":"earliest"}"#), Start::Rewind(Rewind::Earliest));
    assert_eq!(start(r#"{"rewind":"\u0065arliest"}"#), Start::Rewind(Rewind::Earliest));
    assert_eq!(
        start(&format!(r#"{{"rewind":{{"count":{}}}}}"#, u64::MAX)),
        Start::Rewind(Rewind::Count(u64::MAX))
    );
}

#[test]
fn what_is_no_rewind_is_refused() {
    for rewind in [
        "{}",
        r#"{"count":0}"#,
        r#"{"seconds":0}"#,
        r#"{"count":-1}"#,
        r#"{"count":1.5}"#,
        r#"{"count":1e3}"#,
        r#"{"count":"5"}"#,
        r#"{"count":18446744073709551616}"#,
        r#"{"count":1,"seconds":1}"#,
        r#""latest""#,
        r#""""#,
        "50",
        "true",
        "[]",
    ] {
        assert_eq!(parse(&format!(r#"{{"rewind":{rewind}}}"#)), Err(ReplayError::Rewind), "{rewind}");
    }
}

#[test]
fn errors_name_the_member_and_what_is_expected() {
    for (json, text) in [
        ("true", r#"replay must be an object such as {"v":1}"#),
        ("[]", r#"replay must be an object such as {"v":1}"#),
        (r#""{}""#, r#"replay must be an object such as {"v":1}"#),
        (r#"{"v":2}"#, "replay.v must be 1, the only version this server speaks"),
        (r#"{"v":"1"}"#, "replay.v must be 1, the only version this server speaks"),
        (r#"{"from":""}"#, "replay.from is not a position: expected epoch:serial, such as k3Jd9Q.2:1842"),
        (r#"{"from":7}"#, "replay.from is not a position: expected epoch:serial, such as k3Jd9Q.2:1842"),
        (
            r#"{"from":"\ud800"}"#,
            "replay.from is not a position: expected epoch:serial, such as k3Jd9Q.2:1842",
        ),
        (
            r#"{"rewind":0}"#,
            r#"replay.rewind must be {"count":n}, {"seconds":n} or "earliest", with n of 1 or more"#,
        ),
        (r#"{"from":"a.1:1","rewind":"earliest"}"#, "replay.from and replay.rewind exclude each other"),
        (r#"{"on_gap":"stop"}"#, r#"replay.on_gap must be "continue" or "reject""#),
        (r#"{"on_gap":true}"#, r#"replay.on_gap must be "continue" or "reject""#),
        (r#"{"not_from":"me"}"#, "replay.not_from must be a socket id"),
        (r#"{"not_from":5.6}"#, "replay.not_from must be a socket id"),
    ] {
        assert_eq!(parse(json).unwrap_err().to_string(), text, "{json}");
    }
}

#[test]
fn a_socket_id_of_another_server_excludes_nobody() {
    assert_eq!(parse(r#"{"not_from":"0.1"}"#), Ok(ReplayRequest::LIVE));
}

#[test]
fn a_log_stands_at_its_newest_message() {
    assert_eq!(bounds().position(), at(4, 300));
    assert_eq!(bounds().epoch(), Epoch { nonce: 7, generation: 4 });
}

#[test]
fn a_client_that_is_up_to_date_misses_nothing() {
    assert_eq!(resolve(&bounds(), at(4, 300)), Ok(()));
    assert_eq!(bounds().resolve(at(4, 300), 0), Ok(()));
    let trimmed_to_nothing = Bounds { floor: 301, ..bounds() };
    assert_eq!(resolve(&trimmed_to_nothing, at(4, 300)), Ok(()));
    assert_eq!(resolve(&trimmed_to_nothing, at(4, 299)), Err(Reason::Expired));
}

#[test]
fn the_message_after_the_cursor_must_be_there() {
    assert_eq!(resolve(&bounds(), at(1, 50)), Ok(()));
    assert_eq!(resolve(&bounds(), at(1, 51)), Ok(()));
    assert_eq!(resolve(&bounds(), at(1, 49)), Err(Reason::Expired));
}

#[test]
fn only_who_holds_lost_messages_is_rolled_back() {
    for (cursor, expected) in [
        (at(1, 100), Ok(())),
        (at(1, 101), Err(Reason::RolledBack)),
        (at(1, 300), Err(Reason::RolledBack)),
        (at(3, 101), Ok(())),
        (at(3, 200), Ok(())),
        (at(3, 201), Err(Reason::RolledBack)),
        (at(4, 201), Ok(())),
        (at(4, 301), Err(Reason::RolledBack)),
        (at(4, u64::MAX), Err(Reason::RolledBack)),
    ] {
        assert_eq!(resolve(&bounds(), cursor), expected, "{cursor}");
    }
}

#[test]
fn another_log_or_a_forgotten_generation_is_a_new_stream() {
    let other = Position { epoch: Epoch { nonce: 8, generation: 4 }, serial: 300 };
    assert_eq!(resolve(&bounds(), other), Err(Reason::StreamReset));
    // Even where it holds nothing: another log has other serials.
    assert_eq!(resolve(&bounds(), Position { serial: 10, ..other }), Err(Reason::StreamReset));
    assert_eq!(resolve(&bounds(), at(0, 250)), Err(Reason::StreamReset));
}

#[test]
fn a_generation_of_which_nothing_is_left_counts_as_the_one_before() {
    for (cursor, expected) in [
        (at(2, 100), Ok(())),
        (at(2, 101), Err(Reason::RolledBack)),
        (at(5, 300), Ok(())),
        (at(5, 301), Err(Reason::RolledBack)),
        (at(u32::MAX, 250), Ok(())),
    ] {
        assert_eq!(resolve(&bounds(), cursor), expected, "{cursor}");
    }
}

#[test]
fn the_generation_of_a_cursor_that_holds_nothing_does_not_matter() {
    let whole = Bounds { floor: 11, ..bounds() };
    for generation in [0, 1, 2, 4, 5] {
        assert_eq!(resolve(&whole, at(generation, 10)), Ok(()), "{generation}");
        assert_eq!(resolve(&bounds(), at(generation, 10)), Err(Reason::Expired), "{generation}");
    }
    // Before the first message: what was there had another log, or was forgotten.
    assert_eq!(resolve(&whole, at(1, 9)), Err(Reason::Expired));
    assert_eq!(resolve(&whole, at(0, 9)), Err(Reason::StreamReset));
}

#[test]
fn a_stream_without_messages_is_good_at_its_base_alone() {
    for base in [0, 10] {
        let generations = vec![Generation { number: 4, start: base + 1 }];
        let empty = Bounds { nonce: 7, base, generations, floor: base + 1, head: base };
        assert_eq!(empty.position(), at(4, base));
        assert_eq!(resolve(&empty, empty.position()), Ok(()));
        assert_eq!(resolve(&empty, at(3, base)), Ok(()));
        assert_eq!(resolve(&empty, at(4, base + 1)), Err(Reason::RolledBack));
        assert_eq!(resolve(&empty, at(3, base + 1)), Err(Reason::StreamReset));
    }
}

#[test]
fn more_than_the_maximum_is_too_many() {
    assert_eq!(bounds().resolve(at(4, 250), 50), Ok(()));
    assert_eq!(bounds().resolve(at(4, 250), 49), Err(Reason::TooMany));
    assert_eq!(bounds().resolve(at(4, 299), 0), Err(Reason::TooMany));
}

#[test]
fn of_several_reasons_the_gravest_is_told() {
    // Rolled back and trimmed and too many; then trimmed and too many.
    assert_eq!(Bounds { floor: 290, ..bounds() }.resolve(at(1, 101), 5), Err(Reason::RolledBack));
    assert_eq!(Bounds { floor: 290, ..bounds() }.resolve(at(1, 100), 5), Err(Reason::Expired));
}

#[test]
fn bounds_that_contradict_themselves_do_no_harm() {
    let generations = vec![Generation { number: 1, start: 0 }, Generation { number: 2, start: 0 }];
    let broken = Bounds { nonce: 7, base: u64::MAX, generations, floor: 0, head: 0 };
    assert_eq!(resolve(&broken, at(9, u64::MAX)), Ok(()));
    assert_eq!(resolve(&broken, at(1, 1)), Err(Reason::RolledBack));
    let no_generation = Bounds { generations: Vec::new(), ..broken };
    assert_eq!(no_generation.position(), at(0, 0));
    assert_eq!(resolve(&no_generation, at(0, 0)), Err(Reason::StreamReset));
}

#[test]
fn every_reason_has_a_name_and_a_meaning() {
    let reasons =
        [Reason::Expired, Reason::RolledBack, Reason::StreamReset, Reason::TooMany, Reason::Disabled];
    assert_eq!(
        reasons.map(Reason::as_str),
        ["expired", "rolled_back", "stream_reset", "too_many", "disabled"]
    );
    assert!(reasons.iter().all(|reason| !reason.meaning().is_empty()));
}
