//! The work of the fan-out's thread: takes what is queued, gives it to the right link, keeps the links alive.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio::task::{AbortHandle, JoinSet, spawn_local};
use tokio::time::{Instant, sleep};

use super::connect::ConnectError;
use super::connection::Connection;
use super::link::{Link, Refused};
use super::origin::Origin;
use super::publisher::Item;
use super::topology::Places;
use super::transport::{LinkError, Listener, PLACES, Partitions, Place, Shared};
use crate::config::{RedisAddress, RedisConfig};

/// Between attempts to connect: doubled each time, and up to half less, so that nodes do not come all at once.
const BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(1);
/// A connection that lived so long was a good one: the next attempt is made at once.
const GOOD_LIFE: Duration = Duration::from_secs(1);
/// After which a command is tried again that was refused for a reason that may pass.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// Does the transport's work once it is run.
pub struct Driver(Rc<Fanout>);

pub struct Fanout {
    pub shared: Arc<Shared>,
    pub origin: Origin,
    response_timeout: Duration,
    pub servers: RefCell<Vec<Server>>,
    /// The link of each place.
    pub routes: RefCell<[Option<Rc<Link>>; PLACES]>,
    /// Who served each place last.
    identities: RefCell<[Option<Rc<str>>; PLACES]>,
    tasks: RefCell<JoinSet<()>>,
}

/// A server that has places.
pub struct Server {
    /// Of a Redis Cluster's node. Otherwise there is one server, which may move.
    pub address: Option<RedisAddress>,
    pub link: Rc<Link>,
    /// The task that keeps the link alive; none before [`Driver::run`].
    pub task: Option<AbortHandle>,
}

impl Driver {
    /// Connects to every server that is needed.
    pub async fn connect(config: &RedisConfig, shared: Arc<Shared>) -> Result<Self, ConnectError> {
        let fanout = Rc::new(Fanout {
            origin: Origin::new(config, Arc::clone(&shared))?,
            shared,
            response_timeout: config.response_timeout,
            servers: RefCell::default(),
            routes: RefCell::new([const { None }; PLACES]),
            identities: RefCell::new([const { None }; PLACES]),
            tasks: RefCell::new(JoinSet::new()),
        });
        if fanout.origin.is_cluster() {
            for (address, places) in fanout.origin.plan(Vec::new(), &[]).await? {
                let connection = fanout.origin.open(&address).await?;
                fanout.add(Some(address), places).connect(Rc::new(connection));
            }
        } else {
            let connection = fanout.origin.open_master().await?;
            fanout.add(None, Places::ALL).connect(Rc::new(connection));
        }
        fanout.tell();
        Ok(Self(fanout))
    }

    /// Tells the listener of the links that are up, and works until it is dropped. On a `LocalSet` of the thread that
    /// has connected.
    pub async fn run(self, listener: Arc<dyn Listener>) {
        let fanout = &self.0;
        // Whoever runs a driver runs it once.
        let _ = fanout.shared.listener.set(listener);
        for link in fanout.links() {
            fanout.keep(&link);
        }
        fanout.tasks.borrow_mut().spawn_local(Rc::clone(fanout).look_around());
        let mut items = Vec::new();
        loop {
            fanout.shared.queue.filled().await;
            fanout.shared.queue.take(&mut items);
            for item in items.drain(..) {
                fanout.route(item);
            }
            fanout.flush();
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.tasks.borrow_mut().abort_all();
        self.0.shared.set_up(Partitions::NONE, false);
        let waiting = self.0.shared.queue.close();
        let staged = self.0.links().into_iter().flat_map(|link| link.disconnect("stopped"));
        for item in staged.chain(waiting) {
            item.finish(Err(LinkError::Down));
        }
    }
}

impl Fanout {
    pub fn links(&self) -> Vec<Rc<Link>> {
        self.servers.borrow().iter().map(|server| Rc::clone(&server.link)).collect()
    }

    /// Gives an item to its link, or to whoever waits for it.
    pub fn route(self: &Rc<Self>, item: Item) {
        let routes = self.routes.borrow();
        match &routes[usize::from(item.place())] {
            Some(link) if link.is_up() => link.stage(item),
            _ => {
                drop(routes);
                self.missed(item);
            }
        }
    }

    pub fn flush(&self) {
        for link in self.links() {
            link.flush();
        }
    }

    /// There is no link for the item. What a server has refused may wait for another one.
    fn missed(self: &Rc<Self>, item: Item) {
        if item.was_refused() {
            return self.retry(vec![(item, LinkError::Down)]);
        }
        self.shared.queue.release(1, item.bytes());
        self.shared.metrics.fanout.count_error(LinkError::Down.kind());
        item.finish(Err(LinkError::Down));
    }

    /// Tries again a little later, up to the time that an answer may take.
    fn retry(self: &Rc<Self>, refused: Vec<Refused>) {
        let next = Instant::now() + RETRY_DELAY;
        let mut again = Vec::new();
        for (mut item, error) in refused {
            if next < item.deadline(self.response_timeout) {
                again.push(item);
                continue;
            }
            self.shared.queue.release(1, item.bytes());
            self.shared.metrics.fanout.count_error(error.kind());
            item.finish(Err(error));
        }
        if again.is_empty() {
            return;
        }
        let fanout = Rc::downgrade(self);
        spawn_local(async move {
            sleep(RETRY_DELAY).await;
            let Some(fanout) = fanout.upgrade() else { return };
            for item in again {
                fanout.route(item);
            }
            fanout.flush();
        });
    }

    /// A link to a server, for these places.
    pub fn add(self: &Rc<Self>, address: Option<RedisAddress>, places: Places) -> Rc<Link> {
        let fanout = Rc::downgrade(self);
        let retry = move |refused| {
            if let Some(fanout) = Weak::upgrade(&fanout) {
                fanout.retry(refused);
            }
        };
        let link =
            Rc::new(Link::new(Arc::clone(&self.shared), places, self.response_timeout, Box::new(retry)));
        self.lead(places, &link);
        self.servers.borrow_mut().push(Server { address, link: Rc::clone(&link), task: None });
        link
    }

    pub fn lead(&self, places: Places, link: &Rc<Link>) {
        let mut routes = self.routes.borrow_mut();
        for place in places.iter() {
            routes[usize::from(place)] = Some(Rc::clone(link));
        }
    }

    /// Starts the task that keeps the link alive.
    pub fn keep(self: &Rc<Self>, link: &Rc<Link>) {
        let mut servers = self.servers.borrow_mut();
        // Those that have ended.
        while self.tasks.borrow_mut().try_join_next().is_some() {}
        if let Some(server) = servers.iter_mut().find(|server| Rc::ptr_eq(&server.link, link)) {
            let life = Rc::clone(self).live(Rc::clone(link), server.address.clone());
            server.task = Some(self.tasks.borrow_mut().spawn_local(life));
        }
    }

    /// The life of a link: up, down, and up again.
    async fn live(self: Rc<Self>, link: Rc<Link>, address: Option<RedisAddress>) {
        let mut backoff = BACKOFF;
        loop {
            let connection = match link.connection() {
                Some(connection) => connection,
                None => {
                    let connection = Rc::new(self.reconnect(address.as_ref(), &mut backoff).await);
                    link.connect(Rc::clone(&connection));
                    connection
                }
            };
            let since = Instant::now();
            self.up(link.places.get(), &connection);
            let reason = connection.over().await;
            tracing::warn!(target: "tidewire::fanout", redis = %connection.address, "lost the connection to Redis: {reason}");
            self.down(&link, reason);
            if since.elapsed() >= GOOD_LIFE {
                backoff = BACKOFF;
            } else {
                pause(&mut backoff).await;
            }
        }
    }

    /// Tries for ever.
    async fn reconnect(&self, address: Option<&RedisAddress>, backoff: &mut Duration) -> Connection {
        let mut attempts = 0_u64;
        loop {
            let opened = match address {
                Some(address) => self.origin.open(address).await,
                None => self.origin.open_master().await,
            };
            match opened {
                Ok(connection) => {
                    let version = &*connection.server.version;
                    tracing::info!(target: "tidewire::fanout", redis = %connection.address, version, "connected to Redis again");
                    self.shared.metrics.fanout.reconnects.inc();
                    return connection;
                }
                Err(error) => {
                    if attempts.is_multiple_of(60) {
                        tracing::warn!(target: "tidewire::fanout", "{error}");
                    } else {
                        tracing::debug!(target: "tidewire::fanout", "{error}");
                    }
                    attempts += 1;
                    self.shared.metrics.fanout.count_error("connect");
                    self.shared.topology_changed.notify_one();
                    pause(backoff).await;
                }
            }
        }
    }

    /// These places can be used.
    pub fn up(&self, places: Places, connection: &Connection) {
        let (mut same, mut others) = (Places::default(), Places::default());
        {
            let identity = &connection.server.identity;
            let mut identities = self.identities.borrow_mut();
            for place in places.iter() {
                let last = identities[usize::from(place)].replace(Rc::clone(identity));
                // A server that was never told anything has lost nothing.
                let is_same = last.is_none_or(|last| last == *identity);
                let set = if is_same { &mut same } else { &mut others };
                set.insert(place);
            }
        }
        self.tell();
        let Some(listener) = self.shared.listener.get() else { return };
        for (places, same_server) in [(same, true), (others, false)] {
            if !places.partitions().is_empty() {
                listener.up(places.partitions(), same_server);
            }
        }
    }

    /// The link is out of use: so is what waits for it.
    fn down(self: &Rc<Self>, link: &Rc<Link>, reason: &'static str) {
        let waiting = link.disconnect(reason);
        self.shared.topology_changed.notify_one();
        self.lost(link.places.get());
        for item in waiting {
            self.missed(item);
        }
    }

    /// These places cannot be used.
    pub fn lost(&self, places: Places) {
        self.tell();
        if let Some(listener) = self.shared.listener.get()
            && !places.partitions().is_empty()
        {
            listener.down(places.partitions());
        }
    }

    /// Says to other threads what can be used.
    pub fn tell(&self) {
        let routes = self.routes.borrow();
        let is_up = |place: &Place| routes[usize::from(*place)].as_ref().is_some_and(|link| link.is_up());
        let up: Places = Places::ALL.iter().filter(is_up).collect();
        self.shared.set_up(up.partitions(), up.has_shared());
    }
}

/// Waits, longer each time.
async fn pause(backoff: &mut Duration) {
    let least = *backoff / 2;
    sleep(rand::rng().random_range(least..=*backoff)).await;
    *backoff = (*backoff * 2).min(MAX_BACKOFF);
}
