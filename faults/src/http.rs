//! A keep-alive connection to the HTTP API, one request at a time.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// What the server answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
    /// A repeat of an earlier publish, recognised by its key.
    pub is_repeat: bool,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<u64>,
    closes: bool,
    length: usize,
}

pub struct Connection {
    address: SocketAddr,
    patience: Duration,
    stream: Option<TcpStream>,
    held: Vec<u8>,
}

impl Connection {
    /// Connects with the first call.
    pub fn new(address: SocketAddr, patience: Duration) -> Self {
        Self { address, patience, stream: None, held: Vec::new() }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// After an error nobody knows whether the request was carried out.
    pub fn call(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.send(request)?;
        self.answer()
    }

    /// The answer to what was [sent](Self::send).
    pub fn answer(&mut self) -> io::Result<Answer> {
        let answer = self.read_answer();
        if answer.as_ref().map_or(true, |answer| answer.closes) {
            self.stream = None;
            self.held.clear();
        }
        answer
    }

    /// Sends a request, whose answer is to be taken before the next one.
    pub fn send(&mut self, request: &[u8]) -> io::Result<()> {
        if self.stream.is_none() {
            let stream = TcpStream::connect_timeout(&self.address, self.patience)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(self.patience))?;
            stream.set_write_timeout(Some(self.patience))?;
            self.stream = Some(stream);
        }
        let Some(stream) = &mut self.stream else { return Err(io::ErrorKind::NotConnected.into()) };
        stream.write_all(request).inspect_err(|_| self.stream = None)
    }

    fn read_answer(&mut self) -> io::Result<Answer> {
        let Some(stream) = &mut self.stream else { return Err(io::ErrorKind::NotConnected.into()) };
        loop {
            if let Some(answer) = Answer::parse(&self.held)? {
                self.held.drain(..answer.length);
                return Ok(answer);
            }
            let mut block = [0; 16 * 1024];
            let count = stream.read(&mut block)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.held.extend_from_slice(&block[..count]);
        }
    }
}

impl Answer {
    /// `None` while bytes are missing.
    fn parse(bytes: &[u8]) -> io::Result<Option<Self>> {
        let garbled = || io::Error::from(io::ErrorKind::InvalidData);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
        let head = std::str::from_utf8(&bytes[..end]).map_err(|_| garbled())?.to_ascii_lowercase();
        let header = |name: &str| {
            let found =
                head.lines().skip(1).filter_map(|line| line.split_once(':')).find(|pair| pair.0 == name);
            found.map(|(_, value)| value.trim())
        };
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(garbled)?;
        let body: usize = header("content-length").unwrap_or("0").parse().map_err(|_| garbled())?;
        let length = end + 4 + body;
        if bytes.len() < length {
            return Ok(None);
        }
        Ok(Some(Self {
            status,
            body: bytes[end + 4..length].to_vec(),
            is_repeat: header("tidewire-deduplicated") == Some("true"),
            retry_after: header("retry-after").and_then(|seconds| seconds.parse().ok()),
            closes: header("connection") == Some("close"),
            length,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_once_it_is_whole() {
        let bytes = b"HTTP/1.1 200 OK\r\nTidewire-Deduplicated: true\r\nContent-Length: 2\r\n\r\n{}HTTP";
        for cut in [0, 20, bytes.len() - 5] {
            assert!(Answer::parse(&bytes[..cut]).unwrap().is_none(), "{cut}");
        }
        let answer = Answer::parse(bytes).unwrap().unwrap();
        assert_eq!((answer.status, answer.is_repeat, answer.closes), (200, true, false));
        assert_eq!(answer.retry_after, None);
        assert_eq!((answer.body.as_slice(), answer.length), (&b"{}"[..], bytes.len() - 4));
    }
}
