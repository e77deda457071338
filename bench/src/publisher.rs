//! Keep-alive connections to the HTTP API.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// A few connections used in turn, each with at most one request under way.
pub struct Publisher {
    connections: Vec<Connection>,
    next: usize,
}

struct Connection {
    address: SocketAddr,
    stream: TcpStream,
    /// Bytes read of answers that are not taken yet.
    held: Vec<u8>,
    waiting: bool,
}

impl Publisher {
    pub fn connect(address: SocketAddr, connections: usize) -> Result<Self> {
        Publisher::over(&[address], connections)
    }

    /// Spread over several servers, as a load balancer in front of them would.
    pub fn over(addresses: &[SocketAddr], connections: usize) -> Result<Self> {
        let targets = addresses.iter().cycle().take(connections);
        let connections = targets.map(|address| Connection::open(*address)).collect::<Result<_>>()?;
        Ok(Publisher { connections, next: 0 })
    }

    /// Sends on the next connection, once the answer to what it sent before is there.
    pub fn send(&mut self, request: &[u8]) -> Result<()> {
        let turn = self.next;
        self.next = (turn + 1) % self.connections.len();
        let connection = &mut self.connections[turn];
        connection.finish()?;
        connection.write(request)
    }

    /// Waits for every answer that is due.
    pub fn finish(&mut self) -> Result<()> {
        self.connections.iter_mut().try_for_each(Connection::finish)
    }

    /// The body of the answer to one request.
    pub fn ask(&mut self, request: &[u8]) -> Result<String> {
        let connection = &mut self.connections[0];
        connection.finish()?;
        connection.stream.write_all(request).context("asking")?;
        connection.take_answer()
    }

    /// All requests in one write on one connection, then all answers.
    pub fn pipeline(&mut self, requests: &[u8], count: usize) -> Result<()> {
        let connection = &mut self.connections[0];
        connection.finish()?;
        connection.stream.write_all(requests).context("publishing")?;
        (0..count).try_for_each(|_| connection.take_answer().map(drop))
    }
}

impl Connection {
    fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Connection { address, stream, held: Vec::new(), waiting: false })
    }

    fn write(&mut self, request: &[u8]) -> Result<()> {
        self.stream.write_all(request).context("publishing")?;
        self.waiting = true;
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        if std::mem::take(&mut self.waiting) {
            self.take_answer()?;
        }
        Ok(())
    }

    /// The body of the next answer.
    fn take_answer(&mut self) -> Result<String> {
        loop {
            if let Some(answer) = Answer::parse(&self.held)? {
                ensure!(answer.ok, "the server refused: {}", String::from_utf8_lossy(&self.held));
                let body = String::from_utf8_lossy(&self.held[answer.body..answer.length]).into_owned();
                self.held.drain(..answer.length);
                // Some servers want a new connection for each call.
                if answer.close {
                    *self = Connection::open(self.address)?;
                }
                return Ok(body);
            }
            let mut block = [0; 16 * 1024];
            let count = self.stream.read(&mut block).context("waiting for the answer to a trigger")?;
            if count == 0 {
                bail!("the server closed a publishing connection");
            }
            self.held.extend_from_slice(&block[..count]);
        }
    }
}

struct Answer {
    ok: bool,
    close: bool,
    /// Where it begins.
    body: usize,
    length: usize,
}

impl Answer {
    /// `None` while bytes are missing.
    fn parse(bytes: &[u8]) -> Result<Option<Self>> {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
        let head = std::str::from_utf8(&bytes[..end])?.to_ascii_lowercase();
        let header = |name: &str| {
            head.lines().skip(1).filter_map(|line| line.split_once(':')).find(|pair| pair.0 == name)
        };
        let ok = head.split(' ').nth(1).is_some_and(|status| status.starts_with('2'));
        let close = header("connection").is_some_and(|(_, value)| value.trim() == "close");
        let (_, length) = header("content-length").context("an answer without Content-Length")?;
        let body = end + 4;
        let length = body + length.trim().parse::<usize>()?;
        Ok((bytes.len() >= length).then_some(Answer { ok, close, body, length }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_after_its_body() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 ";
        for cut in [0, 20, 39] {
            assert!(Answer::parse(&bytes[..cut]).unwrap().is_none(), "{cut}");
        }
        let answer = Answer::parse(bytes).unwrap().unwrap();
        assert_eq!((answer.ok, answer.close, answer.length), (true, false, bytes.len() - 9));
        let refused = b"HTTP/1.1 401 Unauthorized\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let answer = Answer::parse(refused).unwrap().unwrap();
        assert_eq!((answer.ok, answer.close), (false, true));
    }
}
