//! A WebSocket client of single bytes: it sends whatever a test asks for, valid or not.
//!
//! Written against RFC 6455 by hand, so that the server is never checked with its own parser.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a test waits for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// The nonce of RFC 6455 section 1.3, whose answer is printed there.
const SAMPLE_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const SAMPLE_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CONTINUATION: u8 = 0x0;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xA;

/// One frame from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    /// The TCP connection ended, cleanly or by a reset.
    Eof,
}

/// An upgrade request; every header can be replaced.
pub struct Upgrade {
    target: String,
    headers: Vec<(String, String)>,
    raw: Option<Vec<u8>>,
}

impl Upgrade {
    pub fn get(target: &str) -> Self {
        let headers = [
            ("Host", "tidewire.test"),
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", SAMPLE_KEY),
        ];
        let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Self { target: target.into(), headers, raw: None }
    }

    /// Exactly these bytes instead of a request.
    pub fn raw(bytes: Vec<u8>) -> Self {
        Self { target: String::new(), headers: Vec::new(), raw: Some(bytes) }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        if let Some(raw) = &self.raw {
            return raw.clone();
        }
        let mut request = format!("GET {} HTTP/1.1\r\n", self.target);
        for (name, value) in &self.headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        request.into_bytes()
    }

    /// Sends the request and reads the answer's head; the status is for the caller to judge.
    pub async fn send(&self, addr: SocketAddr) -> Handshake {
        let stream = TcpStream::connect(addr).await.expect("the server listens");
        self.send_over(stream).await
    }

    pub async fn send_over(&self, mut stream: TcpStream) -> Handshake {
        stream.set_nodelay(true).expect("a fresh socket takes options");
        stream.write_all(&self.bytes()).await.expect("the server takes the upgrade request");
        let mut socket = WebSocket { stream, received: Vec::new() };
        let head = socket.read_head().await;
        let mut lines = head.split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("not a status line: {status_line:?}"));
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Handshake { status, headers, socket }
    }
}

/// The server's answer to an upgrade request.
pub struct Handshake {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    socket: WebSocket,
}

impl Handshake {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The socket of a completed upgrade: 101 with the right `Sec-WebSocket-Accept`.
    pub fn upgraded(self) -> WebSocket {
        assert_eq!(self.status, 101, "the upgrade was refused over HTTP: {:?}", self.headers);
        assert_eq!(self.header("sec-websocket-accept"), Some(SAMPLE_ACCEPT));
        assert!(self.header("sec-websocket-extensions").is_none(), "no extension was offered");
        self.socket
    }
}

/// An open WebSocket, frames in and out.
pub struct WebSocket {
    stream: TcpStream,
    received: Vec<u8>,
}

impl WebSocket {
    async fn read_head(&mut self) -> String {
        loop {
            if let Some(end) = find(&self.received, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.received[..end]).into_owned();
                self.received.drain(..end + 4);
                return head;
            }
            assert!(self.fill().await, "the connection ended inside the HTTP head: {:?}", self.received);
        }
    }

    /// Reads once; false at the end of the stream.
    async fn fill(&mut self) -> bool {
        let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await;
        let read = read.unwrap_or_else(|_| panic!("nothing arrived within {PATIENCE:?}"));
        matches!(read, Ok(count) if count > 0)
    }

    /// The next frame of any kind. Checks what RFC 6455 asks of a server: no mask, no reserved bits.
    pub async fn next_frame(&mut self) -> Frame {
        loop {
            if let Some(frame) = self.take_frame() {
                return frame;
            }
            if !self.fill().await {
                return Frame::Eof;
            }
        }
    }

    fn take_frame(&mut self) -> Option<Frame> {
        let bytes = &self.received;
        let (&first, &second) = (bytes.first()?, bytes.get(1)?);
        assert_eq!(first & 0x80, 0x80, "the server never fragments");
        assert_eq!(first & 0x70, 0, "the server negotiated no extension, so no reserved bit");
        assert_eq!(second & 0x80, 0, "a server never masks");
        let (length, head) = match second & 0x7f {
            126 => (usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
            127 => (usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?, 10),
            short => (usize::from(short), 2),
        };
        let payload = bytes.get(head..head + length)?.to_vec();
        self.received.drain(..head + length);
        Some(match first & 0x0f {
            TEXT => Frame::Text(String::from_utf8(payload).expect("text frames carry UTF-8")),
            BINARY => Frame::Binary(payload),
            PING => Frame::Ping(payload),
            PONG => Frame::Pong(payload),
            CLOSE => close_frame(&payload),
            other => panic!("opcode {other:#x} from the server"),
        })
    }

    pub async fn send_text(&mut self, text: &str) {
        self.send_bytes(&frame(true, TEXT, text.as_bytes())).await;
    }

    pub async fn send_frame(&mut self, fin: bool, opcode: u8, payload: &[u8]) {
        self.send_bytes(&frame(fin, opcode, payload)).await;
    }

    /// Puts bytes on the wire as they are.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        self.try_send_bytes(bytes).await.expect("the connection takes bytes");
    }

    /// Like `send_bytes` for a peer that may already have hung up.
    pub async fn try_send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let write = tokio::time::timeout(PATIENCE, self.stream.write_all(bytes)).await;
        write.unwrap_or_else(|_| panic!("the server took no bytes for {PATIENCE:?}"))
    }

    /// Skips data until the close frame; its code.
    pub async fn closed_with(&mut self) -> Option<u16> {
        loop {
            match self.next_frame().await {
                Frame::Close(code, _) => return code,
                Frame::Eof => panic!("the connection ended without a close frame"),
                _ => {}
            }
        }
    }

    /// Ends the TCP connection with a reset, as a lost network or a killed process would.
    pub fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).expect("a socket takes SO_LINGER");
    }
}

/// One masked client frame.
pub fn frame(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x5a, 0x01, 0xc3, 0x7e];
    let mut bytes = frame_head(fin, opcode, payload.len() as u64, true);
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// First bytes of a frame, up to the mask: the length may lie about what follows.
pub fn frame_head(fin: bool, opcode: u8, length: u64, masked: bool) -> Vec<u8> {
    let mask_bit = if masked { 0x80 } else { 0 };
    let mut head = vec![if fin { 0x80 } else { 0 } | opcode];
    match length {
        0..=125 => head.push(mask_bit | length as u8),
        126..=0xffff => {
            head.push(mask_bit | 126);
            head.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            head.push(mask_bit | 127);
            head.extend_from_slice(&length.to_be_bytes());
        }
    }
    head
}

fn close_frame(payload: &[u8]) -> Frame {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return Frame::Close(None, String::new());
    };
    assert!(reason.len() <= 123, "a close reason has at most 123 bytes");
    let reason = String::from_utf8(reason.to_vec()).expect("a close reason is UTF-8");
    Frame::Close(Some(u16::from_be_bytes(*code)), reason)
}

pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
