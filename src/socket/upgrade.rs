//! The WebSocket handshake on an HTTP connection, and the stream behind it.

use bytes::Bytes;
use fastwebsockets::WebSocketError;
use fastwebsockets::upgrade::UpgradeFut;
use http_body_util::Full;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::Stream;

/// Whether a request asks for a WebSocket.
pub fn is_upgrade<B>(request: &Request<B>) -> bool {
    fastwebsockets::upgrade::is_upgrade_request(request)
}

/// A handshake that was answered but is not over.
pub struct Upgrade(UpgradeFut);

/// The 101 reply, and what to await once it is on its way. Fails when the request is no proper handshake.
pub fn upgrade<B>(request: &mut Request<B>) -> Result<(Response<Full<Bytes>>, Upgrade), WebSocketError> {
    let (reply, on_upgrade) = fastwebsockets::upgrade::upgrade(request)?;
    Ok((reply.map(|_| Full::default()), Upgrade(on_upgrade)))
}

impl Upgrade {
    /// The stream, with the bytes that were read ahead; `None` when the client went away.
    ///
    /// Everything of HTTP is dropped here: an idle connection keeps none of hyper's buffers.
    pub async fn into_stream(self) -> Option<(Stream, Bytes)> {
        let upgraded = self.0.await.ok()?.into_inner().into_inner();
        // A copy: `read_buf` would keep all of hyper's buffer, even when it is empty.
        let upgraded = match upgraded.downcast::<TokioIo<TcpStream>>() {
            Ok(parts) => {
                let early = Bytes::copy_from_slice(&parts.read_buf);
                return Some((Stream::Plain(parts.io.into_inner()), early));
            }
            Err(upgraded) => upgraded,
        };
        let parts = upgraded.downcast::<TokioIo<TlsStream<TcpStream>>>().ok()?;
        let early = Bytes::copy_from_slice(&parts.read_buf);
        Some((Stream::Tls(Box::new(parts.io.into_inner())), early))
    }
}
