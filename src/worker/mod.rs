//! One thread: a listener, the connections it accepted, and a mailbox.
//!
//! All state is in one `RefCell` that is borrowed for the length of a synchronous turn and never across an
//! `.await`.

mod accept;
mod deliver;
mod drain;
pub mod mailbox;
pub mod state;
mod sweep;

use std::cell::{Cell, RefCell, RefMut};
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;

use tidewire_protocol::error::CloseCode;
use tidewire_protocol::server_message;
use tidewire_protocol::socket_id::SocketId;
use tokio::task::LocalSet;

use self::mailbox::Mailbox;
use self::state::{Goodbye, State};
use crate::app::App;
use crate::connection::{Client, Connection, ConnectionTask, Phase, receive};
use crate::node::Node;
use crate::socket::{Socket, Stream};
use crate::token_bucket::TokenBucket;

/// Bytes read at once; shared by all connections of the worker.
const READ_BUFFER_BYTES: usize = 16 * 1024;

pub struct Worker {
    pub id: usize,
    pub node: Arc<Node>,
    state: RefCell<State>,
    read_buffer: RefCell<Box<[u8]>>,
    /// Connections between their HTTP request and their first frame.
    handshakes: Cell<usize>,
}

/// Runs a worker on this thread until it is told to stop.
pub fn run(id: usize, node: Arc<Node>, listeners: Vec<TcpListener>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    let result = local.block_on(&runtime, async {
        let worker = Rc::new(Worker {
            id,
            state: RefCell::new(State::new(Arc::clone(&node), id)),
            node,
            read_buffer: RefCell::new(vec![0; READ_BUFFER_BYTES].into_boxed_slice()),
            handshakes: Cell::new(0),
        });
        for listener in listeners {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tokio::task::spawn_local(accept::accept(Rc::clone(&worker), listener));
        }
        tokio::task::spawn_local(sweep::sweep(Rc::clone(&worker)));
        worker.deliver_mail().await;
        Ok(())
    });
    // Dropping the tasks closes every socket.
    drop(local);
    result
}

impl Worker {
    pub fn state(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    pub fn read_buffer(&self) -> RefMut<'_, Box<[u8]>> {
        self.read_buffer.borrow_mut()
    }

    fn mailbox(&self) -> &Mailbox {
        &self.node.mailboxes[self.id]
    }

    /// A place among the handshakes under way, until it is dropped; `None` when all are taken.
    pub fn begin_handshake(self: &Rc<Self>) -> Option<HandshakePlace> {
        if self.handshakes.get() >= self.node.config.max_handshakes {
            return None;
        }
        self.handshakes.set(self.handshakes.get() + 1);
        self.node.begin_handshake();
        Some(HandshakePlace(Rc::clone(self)))
    }

    /// Takes over an accepted client and greets it. `early` is what it sent along with its handshake.
    pub fn admit(self: &Rc<Self>, stream: Stream, early: &[u8], app: Arc<App>, client: Client) {
        let socket_id = new_socket_id();
        let settings = app.settings();
        let limits = &settings.limits;
        let mut state = self.state();
        let now_ms = self.node.clock.now_ms();
        let generation = state.next_generation();
        app.metrics.connections.inc();
        app.metrics.connections_opened.inc();
        let slot = state.insert(Connection {
            app: Arc::clone(&app),
            socket_id,
            generation,
            client,
            phase: Phase::Open,
            is_authorized: false,
            pinged_at: None,
            socket: Socket::new(stream),
            subscriptions: Vec::new(),
            client_events: TokenBucket::new(limits.client_events_per_second, now_ms),
            input: None,
            user: None,
        });
        if settings.authorized_connections {
            state.expect_authorization(slot, limits.authorization_timeout_seconds);
        }
        let greeting = server_message::connection_established(socket_id, limits.activity_timeout_seconds);
        state.send_text(slot, &greeting);
        if !early.is_empty() {
            receive(&mut state, slot, &mut early.to_vec());
        }
        drop(state);
        tokio::task::spawn_local(ConnectionTask { worker: Rc::clone(self), slot, generation });
    }

    /// Forgets a connection whose task has ended.
    pub fn remove(&self, slot: u32, generation: u32) {
        self.state().remove(slot, generation);
    }

    /// Closes every connection that `is_meant` picks.
    fn close_where(&self, goodbye: Goodbye<'_>, is_meant: impl Fn(&Connection) -> bool) {
        let mut state = self.state();
        let slots: Vec<u32> = state
            .connections()
            .filter(|(_, connection)| is_meant(connection))
            .map(|(slot, _)| slot)
            .collect();
        for slot in slots {
            state.close(slot, goodbye);
        }
    }

    fn close_app(&self, app: &Arc<App>) {
        let goodbye = if app.settings().enabled {
            Goodbye::explained(CloseCode::AppUnknown, "The application was removed from this server")
        } else {
            Goodbye::explained(CloseCode::AppDisabled, "The application was disabled")
        };
        self.close_where(goodbye, |connection| Arc::ptr_eq(&connection.app, app));
    }
}

/// Two random halves; unguessable, because the id is the nonce of channel signatures (1.3).
fn new_socket_id() -> SocketId {
    loop {
        if let Some(socket_id) = SocketId::from_bits(rand::random()) {
            return socket_id;
        }
    }
}

/// Counts a handshake until it is over.
pub struct HandshakePlace(Rc<Worker>);

impl Drop for HandshakePlace {
    fn drop(&mut self) {
        self.0.handshakes.set(self.0.handshakes.get() - 1);
        self.0.node.end_handshake();
    }
}
