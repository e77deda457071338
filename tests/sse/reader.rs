//! A client of event streams that hides nothing: status, headers, and each block on its own.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::websocket::find;
use crate::common::{Event, PATIENCE, TestServer};

pub const PATH: &str = "/app/tw-demo-key/sse";

/// A request that a test may add headers to.
pub struct Get {
    method: &'static str,
    target: String,
    headers: Vec<(String, String)>,
}

/// Of the demo app's streams, with this query.
pub fn get(query: &str) -> Get {
    Get::target(&format!("{PATH}?{query}"))
}

impl Get {
    pub fn target(target: &str) -> Self {
        Self { method: "GET", target: target.into(), headers: Vec::new() }
    }

    /// Another method than its name says.
    pub fn method(self, method: &'static str) -> Self {
        Self { method, ..self }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: tidewire.test\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    pub async fn send(&self, server: &TestServer) -> Answer {
        let mut stream = TcpStream::connect(server.addr()).await.expect("the server listens");
        stream.write_all(&self.bytes()).await.expect("the server takes the request");
        let mut answer = Answer { status: 0, headers: Vec::new(), stream, raw: Vec::new() };
        answer.read_head().await;
        answer
    }

    /// The stream, which must be there.
    pub async fn open(&self, server: &TestServer) -> Stream {
        self.send(server).await.stream().await
    }

    /// Must be refused with this status; the JSON that says why.
    pub async fn refused(&self, server: &TestServer, status: u16) -> Value {
        let mut answer = self.send(server).await;
        let body = answer.body().await;
        assert_eq!(answer.status, status, "{} {body}", self.target);
        assert_eq!(answer.header("content-type"), Some("application/json"), "{body}");
        let body: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
        assert_eq!(body["status"], status, "{body}");
        body
    }
}

/// What came back.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    stream: TcpStream,
    raw: Vec<u8>,
}

impl Answer {
    async fn read_head(&mut self) {
        let end = loop {
            if let Some(end) = find(&self.raw, b"\r\n\r\n") {
                break end;
            }
            assert!(fill(&mut self.stream, &mut self.raw).await, "the server hung up: {:?}", self.raw);
        };
        let head = String::from_utf8(self.raw.drain(..end + 4).collect()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        self.status = status.expect("a status line has a code");
        self.headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A body with a length.
    pub async fn body(&mut self) -> String {
        let length: usize = self.header("content-length").map_or(0, |length| length.parse().unwrap());
        while self.raw.len() < length {
            assert!(fill(&mut self.stream, &mut self.raw).await, "the body is complete");
        }
        String::from_utf8(self.raw.drain(..length).collect()).unwrap()
    }

    /// A body that comes in chunks, of an answer that says so.
    pub async fn stream(mut self) -> Stream {
        if self.status != 200 {
            let body = self.body().await;
            panic!("refused with {}: {body}", self.status);
        }
        assert_eq!(self.header("content-type"), Some("text/event-stream; charset=utf-8"));
        let Self { headers, stream, raw, .. } = self;
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length = length.map(|(_, length)| length.parse().unwrap());
        Stream {
            headers,
            stream,
            raw,
            length,
            text: String::new(),
            is_complete: false,
            last_event_id: String::new(),
        }
    }
}

/// An open stream.
pub struct Stream {
    pub headers: Vec<(String, String)>,
    stream: TcpStream,
    /// As it came.
    raw: Vec<u8>,
    /// Of a body that is not chunked.
    length: Option<usize>,
    /// Out of its chunks.
    text: String,
    /// The last chunk was there.
    is_complete: bool,
    /// What an `EventSource` would send when it comes back.
    pub last_event_id: String,
}

/// What stands between two empty lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    pub id: Option<String>,
    pub event: Option<String>,
    pub data: Option<String>,
    pub retry: Option<u64>,
    pub comment: Option<String>,
}

impl Block {
    pub fn json(&self) -> Value {
        let data = self.data.as_deref().unwrap_or_else(|| panic!("a block with data, not {self:?}"));
        serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}"))
    }
}

impl Stream {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The next block of any kind; `None` at the proper end of the body.
    pub async fn next_block(&mut self) -> Option<Block> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let text: String = self.text.drain(..end + 2).collect();
                let block = parse(&text);
                if let Some(id) = &block.id {
                    self.last_event_id.clone_from(id);
                }
                return Some(block);
            }
            if self.is_complete {
                assert_eq!(self.text, "", "a block is cut off");
                return None;
            }
            self.read().await;
        }
    }

    /// The stream broke off or has ended; false while more comes.
    pub async fn is_cut_off(&mut self) -> bool {
        while !self.is_complete {
            if !fill(&mut self.stream, &mut self.raw).await {
                return true;
            }
        }
        false
    }

    /// Reads until there is more text.
    async fn read(&mut self) {
        while !self.take_text() {
            assert!(fill(&mut self.stream, &mut self.raw).await, "the body broke off after {:?}", self.text);
        }
    }

    /// Unpacks what has arrived; false when that is nothing.
    fn take_text(&mut self) -> bool {
        if let Some(length) = self.length {
            self.is_complete = self.raw.len() == length;
            if self.is_complete {
                self.text.push_str(std::str::from_utf8(&self.raw).unwrap());
            }
            return self.is_complete;
        }
        let Some(line) = find(&self.raw, b"\r\n") else { return false };
        let length = std::str::from_utf8(&self.raw[..line]).unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        let Some(chunk) = self.raw.get(line + 2..line + 2 + length + 2) else { return false };
        // A character is never cut: a chunk is made of whole blocks.
        self.text.push_str(std::str::from_utf8(&chunk[..length]).unwrap());
        self.raw.drain(..line + length + 4);
        self.is_complete = length == 0;
        true
    }

    /// The first blocks: when to come back, and the cursor, if there is one.
    pub async fn begin(&mut self) -> Option<String> {
        let retry = self.next_block().await.unwrap().retry.expect("a stream begins with retry");
        assert!((1500..=4500).contains(&retry), "{retry}");
        // Whether a cursor follows is known once the next block is there; streams without one say nothing more.
        if !self.text.starts_with("id: ") {
            return None;
        }
        let block = self.next_block().await.unwrap();
        assert_eq!(block, Block { id: block.id.clone(), ..Block::default() });
        block.id
    }

    /// The next block that is not a comment.
    pub async fn next(&mut self) -> Block {
        loop {
            let block = self.next_block().await.expect("the stream goes on");
            if block.comment.is_none() {
                return block;
            }
        }
    }

    /// The next frame, as on a socket.
    pub async fn next_event(&mut self) -> Event {
        let block = self.next().await;
        assert_eq!(block.event, None, "{block:?}");
        Event::parse(block.data.as_deref().unwrap_or_else(|| panic!("a frame, not {block:?}")))
    }

    pub async fn expect_event(&mut self, event: &str, channel: &str, data: &str) -> Event {
        let got = self.next_event().await;
        let seen = (got.event.as_str(), got.channel.as_deref(), got.data.as_deref());
        assert_eq!(seen, (event, Some(channel), Some(data)));
        got
    }

    /// `tidewire:error` with this code, and then the end.
    pub async fn expect_end(&mut self, code: u16) -> String {
        let block = self.next().await;
        assert_eq!(block.event.as_deref(), Some("tidewire:error"), "{block:?}");
        assert_eq!(block.json()["code"], code, "{block:?}");
        assert_eq!(self.next_block().await, None);
        block.json()["reason"].as_str().unwrap().to_owned()
    }
}

/// Reads once; false at the end of the connection.
async fn fill(stream: &mut TcpStream, received: &mut Vec<u8>) -> bool {
    let read = tokio::time::timeout(PATIENCE, stream.read_buf(received)).await;
    matches!(read.unwrap_or_else(|_| panic!("nothing arrived within {PATIENCE:?}")), Ok(count) if count > 0)
}

fn parse(text: &str) -> Block {
    let mut block = Block::default();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        match field {
            "" => block.comment = Some(value),
            "id" => block.id = Some(value),
            "event" => block.event = Some(value),
            "retry" => block.retry = Some(value.parse().unwrap()),
            "data" => match &mut block.data {
                Some(data) => data.push_str(&format!("\n{value}")),
                none => *none = Some(value),
            },
            other => panic!("no field of an event stream: {other}"),
        }
    }
    block
}
