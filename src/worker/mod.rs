//! One thread: a listener, the connections it accepted, and a mailbox.
//!
//! All state is in one `RefCell` that is borrowed for the length of a synchronous turn and never across an
//! `.await`.

mod accept;
pub mod chase;
mod deliver;
mod drain;
pub mod mailbox;
pub mod state;
mod sweep;

use std::cell::{Cell, RefCell, RefMut};
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tidewire_protocol::error::CloseCode;
use tidewire_protocol::replay::{ReplayError, ReplayRequest};
use tidewire_protocol::server_message;
use tidewire_protocol::socket_id::SocketId;
use tokio::task::{JoinSet, LocalSet};

use self::mailbox::Mailbox;
use self::state::{Goodbye, State};
use crate::app::App;
use crate::connection::{Client, Connection, ConnectionTask, Phase, Replaying, receive};
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
    /// Connections that were refused and have not hung up.
    refusals: Cell<usize>,
}

/// A client that passed the handshake.
#[derive(Debug)]
pub struct Admission {
    pub app: Arc<App>,
    pub client: Client,
    pub socket_id: SocketId,
    /// What every subscription asks of the log that asks for nothing itself.
    pub replay: Option<Result<ReplayRequest, ReplayError>>,
    /// How long the connection may last; 0 = as long as it likes.
    pub lifetime: Duration,
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
            refusals: Cell::new(0),
        });
        let mut endless = JoinSet::new();
        for listener in listeners {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            endless.spawn_local(accept::accept(Rc::clone(&worker), listener));
        }
        endless.spawn_local(sweep::sweep(Rc::clone(&worker)));
        tokio::select! {
            () = worker.deliver_mail() => Ok(()),
            Some(ended) = endless.join_next() => {
                Err(std::io::Error::other(format!("a task that never ends has ended: {ended:?}")))
            }
        }
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
    pub fn begin_handshake(self: &Rc<Self>) -> Option<Place> {
        Place::take(self, |worker| &worker.handshakes)
    }

    /// A place among the refused clients that may take their time to read why; there are as many.
    pub fn begin_refusal(self: &Rc<Self>) -> Option<Place> {
        Place::take(self, |worker| &worker.refusals)
    }

    /// Takes over an accepted client and greets it. `early` is what it sent along with its handshake.
    pub fn admit(self: &Rc<Self>, stream: Stream, early: &[u8], admission: Admission) {
        let Admission { app, client, socket_id, replay, lifetime } = admission;
        // A WebSocket may take its time: its bounds are the outbox and the server's pings.
        stream.lift_write_timeout();
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
            replaying: replay.map(|request| Box::new(Replaying::asking(request))),
            user: None,
            joining: None,
        });
        if settings.authorized_connections {
            state.expect_authorization(slot, limits.authorization_timeout_seconds);
        }
        state.limit_lifetime(slot, lifetime.as_secs());
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
pub fn new_socket_id() -> SocketId {
    loop {
        if let Some(socket_id) = SocketId::from_bits(rand::random()) {
            return socket_id;
        }
    }
}

/// Counts a client that is neither greeted nor gone, until it is dropped.
pub struct Place {
    worker: Rc<Worker>,
    counter: fn(&Worker) -> &Cell<usize>,
}

impl Place {
    fn take(worker: &Rc<Worker>, counter: fn(&Worker) -> &Cell<usize>) -> Option<Self> {
        let taken = counter(worker).get();
        if taken >= worker.node.config.max_handshakes {
            return None;
        }
        counter(worker).set(taken + 1);
        worker.node.begin_handshake();
        Some(Self { worker: Rc::clone(worker), counter })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let counter = (self.counter)(&self.worker);
        counter.set(counter.get() - 1);
        self.worker.node.end_handshake();
    }
}
