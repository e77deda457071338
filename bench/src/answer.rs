//! The physical limit of request and response: one epoll loop that reads something and writes a canned answer.

use std::io::{self, BufRead, Read, Write};
use std::net::SocketAddr;

use anyhow::{Result, bail};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::child::{Child, print_line};
use crate::control::BareReply;
use crate::frame;

const LISTENER: Token = Token(usize::MAX);

struct Connection {
    stream: TcpStream,
    /// Answers given so far.
    answered: usize,
}

/// Until its stdin ends. Its first line holds the answers: a connection's `i`th read gets the `i`th, and the last
/// of them for ever after.
pub fn run() -> Result<()> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let answers: Vec<Vec<u8>> = serde_json::from_str(&line)?;
    let mut listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    print_line(&BareReply::Listening { port: listener.local_addr()?.port() })?;
    std::thread::spawn(|| {
        let _ = io::copy(&mut std::io::stdin().lock(), &mut io::sink());
        std::process::exit(0);
    });
    serve(&mut poll, &listener, &answers)
}

fn serve(poll: &mut Poll, listener: &TcpListener, answers: &[Vec<u8>]) -> Result<()> {
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    stream.set_nodelay(true)?;
                    poll.registry().register(&mut stream, Token(connections.len()), Interest::READABLE)?;
                    connections.push(Some(Connection { stream, answered: 0 }));
                }
            } else {
                let slot = &mut connections[event.token().0];
                if slot.as_mut().is_some_and(|connection| connection.answer(answers, &mut buffer).is_err()) {
                    *slot = None;
                }
            }
        }
    }
}

impl Connection {
    fn answer(&mut self, answers: &[Vec<u8>], buffer: &mut [u8]) -> io::Result<()> {
        match self.stream.read(buffer) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) if buffer[0] == 0x80 | frame::CLOSE => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {
                let answer = &answers[self.answered.min(answers.len() - 1)];
                self.answered += 1;
                self.stream.write_all(answer)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The suite's side: the process, and where it listens.
pub struct Answering {
    pub address: SocketAddr,
    child: Child<Vec<Vec<u8>>, BareReply>,
}

impl Answering {
    pub fn start(answers: &[Vec<u8>]) -> Result<Self> {
        let mut child = Child::spawn("answer", &[])?;
        let BareReply::Listening { port } = child.ask(&answers.to_vec())? else {
            bail!("the answering process does not listen");
        };
        Ok(Answering { address: SocketAddr::from(([127, 0, 0, 1], port)), child })
    }

    pub fn pid(&self) -> u32 {
        self.child.pid()
    }
}
