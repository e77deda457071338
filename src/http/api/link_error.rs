//! What is told to a caller when the other nodes cannot be reached.

use hyper::StatusCode;

use crate::fanout::cluster::LinkError;
use crate::http::respond::{Hint, Refusal};

/// Redis is most often back as soon as this.
const RETRY_SECONDS: u64 = 1;

/// 503 for an event. `extent` says what was done in spite of it.
pub fn refusal(error: &LinkError, extent: &str) -> Refusal {
    let text = match error {
        LinkError::Down => {
            "The server cannot reach Redis, and so not the other nodes: try again in a second".to_owned()
        }
        LinkError::Overloaded => "The server is overloaded: try again in a second".to_owned(),
        LinkError::Timeout | LinkError::Unknown => format!(
            "{error}, so the event was delivered or was not: try again, with an idempotency_key if it must not be \
             delivered twice"
        ),
        LinkError::Refused(_) => format!("{error}: try again in a second"),
    };
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, format!("{text}; {extent}"))
        .with(Hint::RetryAfter(RETRY_SECONDS))
}

/// 503 for a question: this node alone does not know.
#[allow(clippy::needless_pass_by_value, reason = "fits map_err")]
pub fn unreadable(error: LinkError) -> Refusal {
    let text = format!("What the other nodes have cannot be told, because {error}: try again in a second");
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text).with(Hint::RetryAfter(RETRY_SECONDS))
}
