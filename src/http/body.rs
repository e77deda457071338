//! Reading a request's body: once, bounded in bytes and in time.

use std::fmt::Display;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::StatusCode;
use hyper::body::Body;
use hyper::header::{EXPECT, HeaderMap};

use super::respond::Refusal;

/// Time for the whole body after its head. Generous: 2 MiB pass in it over 600 kbit/s.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of a body nobody wants is still read, as a multiple of the limit. Closing on a client that is still
/// sending resets the connection, and the client reports the reset instead of our answer.
const DISCARD_FACTOR: usize = 4;
/// Time for that.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Reads the body, at most `max_bytes` of it. A body that arrived in one piece is not copied.
pub async fn read<B>(body: B, headers: &HeaderMap, max_bytes: usize) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    read_within(body, headers, max_bytes, BODY_TIMEOUT).await
}

async fn read_within<B>(
    mut body: B,
    headers: &HeaderMap,
    max_bytes: usize,
    timeout: Duration,
) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let announced = body.size_hint().lower();
    if announced > max_bytes as u64 {
        discard(body, headers, max_bytes).await;
        return Err(too_large(max_bytes, Some(announced)));
    }
    let mut limited = Limited::new(&mut body, max_bytes);
    match tokio::time::timeout(timeout, collect(&mut limited)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            discard(body, headers, max_bytes).await;
            Err(too_large(max_bytes, None))
        }
        Ok(Err(error)) => Err(broken(&error)),
        Err(_) => Err(Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("The body did not arrive within {} s", timeout.as_secs()),
        )),
    }
}

/// Reads and drops a body that will not be looked at, so that the client gets to read the answer and the
/// connection can be used again.
pub async fn discard<B: Body + Unpin>(mut body: B, headers: &HeaderMap, max_bytes: usize) {
    // Who asks before sending (curl above 1 MiB) learns the answer before sending.
    if headers.contains_key(EXPECT) {
        return;
    }
    let mut budget = max_bytes.saturating_mul(DISCARD_FACTOR) as u64;
    if body.size_hint().lower() > budget {
        return;
    }
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            let read = frame.data_ref().map_or(0, |data| bytes::Buf::remaining(data) as u64);
            match budget.checked_sub(read) {
                Some(left) => budget = left,
                None => return,
            }
        }
    };
    // Whether the rest came or not, the answer is the same.
    let _ = tokio::time::timeout(DISCARD_TIMEOUT, reading).await;
}

async fn collect<B>(body: &mut B) -> Result<Bytes, B::Error>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if first.is_empty() {
            first = data;
            continue;
        }
        if rest.is_empty() {
            // What is announced and within the limit may be reserved; a chunked body grows as it comes.
            let expected = usize::try_from(body.size_hint().lower()).unwrap_or(0);
            rest.reserve(first.len() + data.len() + expected);
            rest.extend_from_slice(&first);
        }
        rest.extend_from_slice(&data);
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

fn too_large(max_bytes: usize, announced: Option<u64>) -> Refusal {
    let size = announced.map_or(String::new(), |bytes| format!(" of {bytes} bytes"));
    Refusal::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!(
            "The request body{size} exceeds the allowed maximum ({max_bytes} bytes, server.max_request_body_bytes)"
        ),
    )
}

fn broken(error: &dyn Display) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, format!("The body could not be read: {error}"))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use http_body_util::Full;
    use hyper::body::Frame;

    use super::*;

    /// A body in pieces of unknown total, as a chunked request has; it never ends when there are none.
    struct Pieces(&'static [&'static [u8]], usize);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if self.0.is_empty() {
                return Poll::Pending;
            }
            let next = self.0.get(self.1).map(|piece| Ok(Frame::data(Bytes::from_static(piece))));
            self.1 += 1;
            Poll::Ready(next)
        }
    }

    #[tokio::test]
    async fn a_body_in_pieces_is_put_together() {
        let body = read(Pieces(&[b"{", b"\"a\":", b"1}"], 0), &HeaderMap::new(), 7).await;
        assert_eq!(body, Ok(Bytes::from_static(b"{\"a\":1}")));
        assert_eq!(read(Full::default(), &HeaderMap::new(), 7).await, Ok(Bytes::new()));
    }

    #[tokio::test]
    async fn a_body_in_one_piece_is_not_copied() {
        let sent = Bytes::from(vec![b'x'; 100]);
        let read = read(Full::new(sent.clone()), &HeaderMap::new(), 100).await.expect("within the limit");
        assert_eq!(read.as_ptr(), sent.as_ptr());
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_with_the_limit_named() {
        for refusal in [
            read(Full::new(Bytes::from_static(b"12345678")), &HeaderMap::new(), 7).await,
            read(Pieces(&[b"1234", b"5678"], 0), &HeaderMap::new(), 7).await,
        ] {
            let refusal = refusal.expect_err("8 bytes are more than 7");
            assert_eq!(refusal.status, StatusCode::PAYLOAD_TOO_LARGE);
            assert!(refusal.text.contains("7 bytes, server.max_request_body_bytes"), "{}", refusal.text);
        }
    }

    #[tokio::test]
    async fn a_body_that_never_comes_is_given_up() {
        let refusal = read_within(Pieces(&[], 0), &HeaderMap::new(), 7, Duration::from_millis(1))
            .await
            .expect_err("nothing comes");
        assert_eq!(refusal.status, StatusCode::REQUEST_TIMEOUT);
    }
}
