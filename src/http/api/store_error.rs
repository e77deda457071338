//! What is told to a caller whom the store of messages cannot serve.

use hyper::StatusCode;

use crate::http::respond::{Hint, Refusal};
use crate::replay::store::StoreError;

/// A queue before the store is full; it moves in a moment.
const BUSY_SECONDS: u64 = 1;
/// Somebody has to make room.
const FULL_SECONDS: u64 = 30;
/// The store recovers by itself, or the server is started again.
const UNAVAILABLE_SECONDS: u64 = 5;

/// 503. `extent` says what was done in spite of it.
pub fn refusal(error: &StoreError, extent: &str) -> Refusal {
    let (text, seconds) = match error {
        StoreError::Full => {
            let text = "The replay store is full: free space in replay.dir (with the redis store: raise Redis's maxmemory), or lower replay.max_bytes";
            (text.to_owned(), FULL_SECONDS)
        }
        StoreError::Unavailable(cause) => (
            format!("The replay store is unavailable ({cause}): try again in a few seconds"),
            UNAVAILABLE_SECONDS,
        ),
        StoreError::Failed(cause) => (
            format!(
                "The replay store has failed ({cause}), and the server starts anew: try again in a few seconds"
            ),
            UNAVAILABLE_SECONDS,
        ),
    };
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, format!("{text}; {extent}")).with(Hint::RetryAfter(seconds))
}

/// 503, because too many others wait for the store.
pub fn busy() -> Refusal {
    let text = "Too many requests wait for the replay store: try again in a second";
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text).with(Hint::RetryAfter(BUSY_SECONDS))
}
