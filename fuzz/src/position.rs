//! Positions and the cursors of the history: each has one text, and any of them is resolved in any log.

use tidewire_protocol::history::{HistoryCursor, HistoryQuery, MAX_HISTORY_LIMIT};
use tidewire_protocol::replay::{Bounds, Generation, Reason};
use tidewire_protocol::{ApiQuery, Epoch, Position};

pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(position) = text.parse::<Position>() {
        assert_eq!(position.to_string(), text);
        assert_eq!(position.epoch.to_string().parse(), Ok(position.epoch));
        check_log(position);
    }
    if let Ok(cursor) = text.parse::<HistoryCursor>() {
        assert_eq!(cursor.to_string(), text);
        check_log(cursor.position());
    }
    check_query(text);
}

fn check_query(text: &str) {
    match HistoryQuery::parse(&ApiQuery::parse(text)) {
        Ok(query) => {
            assert!((1..=MAX_HISTORY_LIMIT).contains(&query.limit));
            assert_ne!(query.since_ms, Some(0));
            if let Some(cursor) = query.cursor {
                assert_eq!(query.direction, cursor.direction);
                assert!(query.from.is_none() && query.to.is_none() && query.since_ms.is_none());
            }
        }
        Err(error) => {
            assert_eq!(error.status, 400);
            assert!(error.text.len() < 4096, "an error does not repeat the request");
        }
    }
}

/// What a position is worth in logs that it is, and is not, of.
fn check_log(position: Position) {
    let Position { epoch, serial } = position;
    let log = |floor: u64, head: u64| {
        let generations = vec![Generation { number: epoch.generation, start: 1 }];
        Bounds { nonce: epoch.nonce, base: 0, generations, floor, head }
    };
    assert_eq!(log(1, serial).resolve(position, 0), Ok(()), "up to date, and nothing was trimmed");
    assert_eq!(log(serial.saturating_add(1), serial).resolve(position, 0), Ok(()), "nor if all of it was");
    if let (Some(next), Some(gap)) = (serial.checked_add(1), serial.checked_add(2)) {
        assert_eq!(log(1, next).resolve(position, 0), Err(Reason::TooMany));
        assert_eq!(log(next, next).resolve(position, 1), Ok(()));
        assert_eq!(log(gap, next).resolve(position, 1), Err(Reason::Expired));
    }
    if serial > 0 {
        assert_eq!(log(1, serial - 1).resolve(position, u64::MAX), Err(Reason::RolledBack));
        let in_generation = |generation| Position { epoch: Epoch { generation, ..epoch }, serial };
        if let Some(earlier) = epoch.generation.checked_sub(1) {
            let forgotten = in_generation(earlier);
            assert_eq!(log(1, serial).resolve(forgotten, u64::MAX), Err(Reason::StreamReset));
        }
        if let Some(later) = epoch.generation.checked_add(1) {
            let nothing_left = in_generation(later);
            assert_eq!(log(1, serial).resolve(nothing_left, u64::MAX), Ok(()));
            assert_eq!(log(1, serial - 1).resolve(nothing_left, u64::MAX), Err(Reason::RolledBack));
        }
    }
    let other = Position { epoch: Epoch { nonce: epoch.nonce ^ 1, ..epoch }, serial };
    assert_eq!(log(1, serial).resolve(other, u64::MAX), Err(Reason::StreamReset));
}
