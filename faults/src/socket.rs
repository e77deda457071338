//! A client's WebSocket: handshake, frames in, frames out.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tidewire_bench::frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const HEAD_END: &[u8] = b"\r\n\r\n";
const MAX_HEAD_BYTES: usize = 8 * 1024;

/// How fast a client reads.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// 0 = as fast as it can.
    pub bytes_per_second: usize,
}

impl Reading {
    pub const FAST: Self = Self { bytes_per_second: 0 };
}

pub struct Socket {
    stream: TcpStream,
    input: Vec<u8>,
    /// Where the first frame begins that was not taken yet.
    start: usize,
    reading: Reading,
}

/// Opcode and payload of a frame, the latter as a range of [`Socket::bytes`].
pub struct Taken {
    pub opcode: u8,
    pub payload: Range<usize>,
}

impl Socket {
    pub async fn connect(address: SocketAddr, path: &str, reading: Reading) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        if reading.bytes_per_second > 0 {
            // Otherwise the kernel reads ahead some megabytes in the client's name.
            socket.set_recv_buffer_size(4 * 1024)?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        let mut socket = Self { stream, input: Vec::new(), start: 0, reading };
        socket.upgrade(path).await?;
        Ok(socket)
    }

    async fn upgrade(&mut self, path: &str) -> Result<()> {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: faults\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        self.stream.write_all(request.as_bytes()).await?;
        let end = loop {
            if let Some(end) = self.input.windows(4).position(|four| four == HEAD_END) {
                break end + HEAD_END.len();
            }
            if self.input.len() > MAX_HEAD_BYTES || self.fill().await? == 0 {
                bail!("no answer to the handshake");
            }
        };
        let head = std::str::from_utf8(&self.input[..end])?;
        let status = head.split(' ').nth(1).context("no status line")?;
        if status != "101" {
            bail!("the handshake was answered {status}");
        }
        self.start = end;
        Ok(())
    }

    pub fn read_as(&mut self, reading: Reading) {
        self.reading = reading;
    }

    /// Waits for bytes; 0 at the end of the stream.
    pub async fn fill(&mut self) -> io::Result<usize> {
        self.input.drain(..self.start);
        self.start = 0;
        if self.reading.bytes_per_second == 0 {
            self.input.reserve(16 * 1024);
            return self.stream.read_buf(&mut self.input).await;
        }
        let mut few = [0; 256];
        let count = self.stream.read(&mut few).await?;
        self.input.extend_from_slice(&few[..count]);
        tokio::time::sleep(Duration::from_secs_f64(count as f64 / self.reading.bytes_per_second as f64))
            .await;
        Ok(count)
    }

    /// The next frame, if all of it is here.
    pub fn take(&mut self) -> Result<Option<Taken>> {
        let Some(found) = frame::parse(&self.input[self.start..])? else { return Ok(None) };
        let payload = self.start + found.payload.start..self.start + found.payload.end;
        self.start += found.length;
        Ok(Some(Taken { opcode: found.opcode, payload }))
    }

    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.input[range]
    }

    pub async fn send(&mut self, opcode: u8, payload: &[u8]) -> io::Result<()> {
        self.stream.write_all(&frame::client(opcode, payload)).await
    }
}
