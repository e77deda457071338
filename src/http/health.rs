//! Answers for load balancers, supervisors and people who wonder whether the server runs.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderValue};

use super::respond::{self, Refusal, Reply};
use super::routes::Probe;
use crate::node::Unready;

pub fn answer(probe: Probe, unready: Option<Unready>, request: &HeaderMap) -> Reply {
    match probe {
        // soketi's and Reverb's words: probes and scripts compare them.
        Probe::Root | Probe::Live => ok(),
        Probe::Up => respond::with_body(
            StatusCode::OK,
            HeaderValue::from_static("application/json"),
            Bytes::from_static(br#"{"health":"OK"}"#),
        ),
        Probe::Ready => {
            let text = match unready {
                None => return ok(),
                Some(Unready::Draining) => "Tidewire is draining: send new connections elsewhere",
                Some(Unready::CutOff) => {
                    "Tidewire has not reached Redis, or Redis has refused what it was told, for longer than redis.unready_after: send new connections elsewhere"
                }
            };
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text).into_reply(request)
        }
    }
}

fn ok() -> Reply {
    respond::text(StatusCode::OK, Bytes::from_static(b"OK"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(probe: Probe, unready: Option<Unready>) -> u16 {
        answer(probe, unready, &HeaderMap::new()).status().as_u16()
    }

    #[test]
    fn a_draining_server_is_alive_but_not_ready() {
        for probe in [Probe::Root, Probe::Up, Probe::Live] {
            assert_eq!(status(probe, Some(Unready::Draining)), 200, "{probe:?}");
        }
        assert_eq!(status(Probe::Ready, None), 200);
        assert_eq!(status(Probe::Ready, Some(Unready::Draining)), 503);
        assert_eq!(status(Probe::Ready, Some(Unready::CutOff)), 503);
    }
}
