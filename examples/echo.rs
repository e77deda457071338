//! A plain WebSocket echo on the server's own socket room, so that any RFC 6455 suite can be pointed at it.
//!
//! `cargo run --example echo -- 9001` listens on 127.0.0.1:9001; with port 0 it prints the port it got.

use std::convert::Infallible;
use std::future::poll_fn;
use std::ops::ControlFlow;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tidewire::socket::{self, Input, Socket, Upgrade};
use tidewire_protocol::frame::{self, Message};
use tokio::io::ReadBuf;
use tokio::net::TcpListener;
use tokio::task::LocalSet;

/// As large as the suites get.
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let port: u16 = std::env::args().nth(1).map_or(Ok(9001), |port| port.parse())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("echo on ws://{}", listener.local_addr()?);
    LocalSet::new().run_until(serve(listener)).await
}

async fn serve(listener: TcpListener) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
        tokio::task::spawn_local(connection.with_upgrades());
    }
}

async fn answer(
    mut request: Request<Incoming>,
) -> Result<Response<http_body_util::Full<bytes::Bytes>>, Infallible> {
    Ok(match socket::upgrade(&mut request) {
        Ok((reply, upgrade)) => {
            tokio::task::spawn_local(echo(upgrade));
            reply
        }
        Err(error) => {
            let mut reply = Response::new(format!("This is a WebSocket echo: {error}\n").into());
            *reply.status_mut() = hyper::StatusCode::BAD_REQUEST;
            reply
        }
    })
}

async fn echo(upgrade: Upgrade) {
    let Some((stream, early)) = upgrade.into_stream().await else { return };
    let mut echo = Echo { socket: Socket::new(stream), input: Input::default(), is_closing: false };
    echo.take(&mut early.to_vec());
    poll_fn(|cx| echo.poll(cx)).await;
}

struct Echo {
    socket: Socket,
    input: Input,
    is_closing: bool,
}

impl Echo {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let mut read = ReadBuf::new(&mut buffer);
            match self.socket.poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() => self.take(read.filled_mut()),
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        let flushed =
            if self.is_closing { self.socket.poll_shutdown(cx) } else { self.socket.poll_flush(cx) };
        match flushed {
            Poll::Ready(Err(_)) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }

    fn take(&mut self, bytes: &mut [u8]) {
        if self.is_closing {
            return;
        }
        let Self { socket, input, is_closing, .. } = self;
        let result = input.feed(bytes, MAX_MESSAGE_BYTES, |message| {
            let answer = match message {
                Message::Text(text) => frame::encode_text(&text),
                Message::Binary(bytes) => frame::encode_binary(&bytes),
                Message::Ping(payload) => frame::encode_pong(payload),
                Message::Pong(_) => return ControlFlow::Continue(()),
                Message::Close(close) => {
                    *is_closing = true;
                    frame::encode_close(close.map_or(1000, |(code, _)| code), "")
                }
            };
            socket.send(&answer, usize::MAX);
            if *is_closing { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if let Err(error) = result {
            self.is_closing = true;
            self.socket.send(&frame::encode_close(error.close_code(), &error.to_string()), usize::MAX);
        }
    }
}
