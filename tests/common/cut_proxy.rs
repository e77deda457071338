//! A wire that can be cut.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

use tidewire::config::RedisConfig;

use super::config;

/// A TCP proxy on loopback that can be cut, as a cable can.
pub struct CutProxy {
    port: u16,
    state: Arc<AtomicU8>,
}

const OPEN: u8 = 0;
const CUT: u8 = 1;
const BLACKHOLE: u8 = 2;
const GONE: u8 = 3;

impl CutProxy {
    pub fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(AtomicU8::new(OPEN));
        let proxy = Self { port, state: Arc::clone(&state) };
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if state.load(Ordering::SeqCst) == GONE {
                    return;
                }
                let state = Arc::clone(&state);
                thread::spawn(move || Self::carry(&client, target, &state));
            }
        });
        proxy
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// For a node of Tidewire that reaches its server only this way.
    pub fn config(&self) -> RedisConfig {
        config(&self.url(), &[])
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Ends every connection, also those that are made from now on.
    pub fn cut(&self) {
        self.state.store(CUT, Ordering::SeqCst);
    }

    /// Connections stay open and are made, but nothing gets through: a peer that vanished.
    pub fn blackhole(&self) {
        self.state.store(BLACKHOLE, Ordering::SeqCst);
    }

    /// Lets through what is sent from now on, and what was held back.
    pub fn heal(&self) {
        self.state.store(OPEN, Ordering::SeqCst);
    }

    fn carry(client: &TcpStream, target: SocketAddr, state: &AtomicU8) {
        while state.load(Ordering::SeqCst) == BLACKHOLE {
            thread::sleep(Duration::from_millis(5));
        }
        let Ok(server) = TcpStream::connect(target) else { return };
        thread::scope(|scope| {
            scope.spawn(|| Self::pump(client, &server, state));
            Self::pump(&server, client, state);
        });
    }

    fn pump(mut from: &TcpStream, mut to: &TcpStream, state: &AtomicU8) {
        from.set_nodelay(true).ok();
        from.set_read_timeout(Some(Duration::from_millis(10))).ok();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let end = match state.load(Ordering::SeqCst) {
                OPEN => match from.read(&mut buffer) {
                    Ok(0) => true,
                    Ok(length) => {
                        while state.load(Ordering::SeqCst) == BLACKHOLE {
                            thread::sleep(Duration::from_millis(5));
                        }
                        to.write_all(&buffer[..length]).is_err()
                    }
                    Err(error) => !is_timeout(&error),
                },
                BLACKHOLE => {
                    thread::sleep(Duration::from_millis(5));
                    false
                }
                _ => true,
            };
            if end {
                from.shutdown(Shutdown::Both).ok();
                to.shutdown(Shutdown::Both).ok();
                return;
            }
        }
    }
}

impl Drop for CutProxy {
    fn drop(&mut self) {
        self.state.store(GONE, Ordering::SeqCst);
        TcpStream::connect(self.addr()).ok();
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}
