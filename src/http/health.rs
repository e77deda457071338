//! Answers for load balancers, supervisors and people who wonder whether the server runs.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderValue};

use super::respond::{self, Refusal, Reply};
use super::routes::Probe;

pub fn answer(probe: Probe, is_draining: bool, request: &HeaderMap) -> Reply {
    match probe {
        // soketi's and Reverb's words: probes and scripts compare them.
        Probe::Root | Probe::Live => ok(),
        Probe::Up => respond::with_body(
            StatusCode::OK,
            HeaderValue::from_static("application/json"),
            Bytes::from_static(br#"{"health":"OK"}"#),
        ),
        Probe::Ready if is_draining => {
            let text = "Tidewire is draining: send new connections elsewhere";
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text).into_reply(request)
        }
        Probe::Ready => ok(),
    }
}

fn ok() -> Reply {
    respond::text(StatusCode::OK, Bytes::from_static(b"OK"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(probe: Probe, is_draining: bool) -> u16 {
        answer(probe, is_draining, &HeaderMap::new()).status().as_u16()
    }

    #[test]
    fn a_draining_server_is_alive_but_not_ready() {
        for probe in [Probe::Root, Probe::Up, Probe::Live] {
            assert_eq!(status(probe, true), 200, "{probe:?}");
        }
        assert_eq!(status(Probe::Ready, false), 200);
        assert_eq!(status(Probe::Ready, true), 503);
    }
}
