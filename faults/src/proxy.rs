//! The wire between a node and Redis, to be cut, held, swallowed and healed.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::Result;

/// A TCP proxy on loopback.
pub struct Proxy {
    address: SocketAddr,
    line: Arc<Line>,
}

struct Line {
    target: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    way: Way,
    /// How often what is open was swallowed: a connection from before the last time is dead.
    swallowed: u64,
    /// Both ends of each connection, to end them.
    ends: Vec<TcpStream>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Open,
    /// Connections end, and so do those that are made.
    Cut,
    /// Connections stay and are made, and nothing gets through.
    Held,
    Gone,
}

impl Proxy {
    pub fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let state = Mutex::new(State { way: Way::Open, swallowed: 0, ends: Vec::new() });
        let line = Arc::new(Line { target, state, changed: Condvar::new() });
        let own = Arc::clone(&line);
        thread::Builder::new().name("proxy".into()).spawn(move || {
            for node in listener.incoming().flatten() {
                match own.state().way {
                    Way::Gone => return,
                    Way::Cut => continue,
                    Way::Open | Way::Held => {}
                }
                let line = Arc::clone(&own);
                thread::spawn(move || line.carry(&node));
            }
        })?;
        Ok(Self { address, line })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection, also those that are made from now on.
    pub fn cut(&self) {
        self.line.turn(Way::Cut);
    }

    /// A peer that has vanished: what is sent stays on the way.
    pub fn hold(&self) {
        self.line.turn(Way::Held);
    }

    /// Connections that are open stay so, and nothing ever comes out of them again: what was between both ends has
    /// forgotten them. New ones are carried.
    pub fn swallow(&self) {
        self.line.state().swallowed += 1;
    }

    /// What was held comes through now.
    pub fn heal(&self) {
        self.line.turn(Way::Open);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.line.turn(Way::Gone);
        // Its thread waits for a connection.
        let _ = TcpStream::connect(self.address);
    }
}

impl Line {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self, way: Way) {
        let mut state = self.state();
        state.way = way;
        if matches!(way, Way::Cut | Way::Gone) {
            for end in state.ends.drain(..) {
                let _ = end.shutdown(Shutdown::Both);
            }
        }
        self.changed.notify_all();
    }

    /// Whether anything gets through, once that is decided.
    fn is_open(&self) -> bool {
        let state = self.changed.wait_while(self.state(), |state| state.way == Way::Held);
        state.unwrap_or_else(PoisonError::into_inner).way == Way::Open
    }

    fn carry(&self, node: &TcpStream) {
        if !self.is_open() {
            return;
        }
        let born = self.state().swallowed;
        let Ok(redis) = TcpStream::connect(self.target) else { return };
        let (Ok(one), Ok(other)) = (node.try_clone(), redis.try_clone()) else { return };
        self.state().ends.extend([one, other]);
        thread::scope(|scope| {
            scope.spawn(|| self.pump(node, &redis, born));
            self.pump(&redis, node, born);
        });
    }

    fn pump(&self, mut from: &TcpStream, mut to: &TcpStream, born: u64) {
        let _ = from.set_nodelay(true);
        let mut block = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut block) {
            if !self.is_open() {
                break;
            }
            if self.state().swallowed == born && to.write_all(&block[..count]).is_err() {
                break;
            }
        }
        if self.state().swallowed != born {
            // Not even its end is told to the other one, who has to find out.
            return;
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
            }
        });
        address
    }

    fn ask(stream: &mut TcpStream) -> std::io::Result<u8> {
        let mut answer = [0];
        stream.write_all(b"a")?;
        stream.read_exact(&mut answer)?;
        Ok(answer[0])
    }

    #[test]
    fn a_wire_is_held_cut_healed_and_swallowed() {
        let proxy = Proxy::start(echo()).unwrap();
        let connect = || {
            let stream = TcpStream::connect(proxy.address()).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            stream
        };
        let mut stream = connect();
        assert_eq!(ask(&mut stream).unwrap(), b'a');
        proxy.hold();
        let error = ask(&mut stream).unwrap_err();
        assert!(matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut));
        // What was sent meanwhile comes through.
        proxy.heal();
        let mut answer = [0];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer[0], b'a');
        proxy.cut();
        assert!(ask(&mut stream).is_err());
        assert!(ask(&mut connect()).is_err());
        proxy.heal();
        let mut stream = connect();
        assert_eq!(ask(&mut stream).unwrap(), b'a');
        proxy.swallow();
        assert_eq!(ask(&mut connect()).unwrap(), b'a');
        let error = ask(&mut stream).unwrap_err();
        assert!(matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut));
    }
}
