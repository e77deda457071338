//! Follows the masters when they move.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::driver::Fanout;
use super::link::Link;
use super::topology::Places;
use crate::config::RedisAddress;

/// Between such questions at least.
const LOOK_AROUND_PAUSE: Duration = Duration::from_millis(100);

impl Fanout {
    /// Finds out where the masters are, now and then and whenever something hints that they have moved.
    pub async fn look_around(self: Rc<Self>) {
        loop {
            tokio::select! {
                () = self.shared.topology_changed.notified() => {}
                () = sleep(self.origin.look_around_every()) => {}
            }
            if self.origin.is_cluster() {
                self.follow_cluster().await;
            } else {
                self.follow_master().await;
            }
            sleep(LOOK_AROUND_PAUSE).await;
        }
    }

    /// The one server may have become a replica without closing the connection.
    async fn follow_master(&self) {
        let Some(link) = self.links().pop() else { return };
        let Some(connection) = link.connection() else { return };
        if !connection.is_master().await {
            connection.close("it is not a master any more");
        } else if self.origin.has_other_master(&connection.address).await {
            connection.close("the sentinels name another master");
        }
    }

    async fn follow_cluster(self: &Rc<Self>) {
        let connected = self.links().iter().filter_map(|link| link.connection()).collect();
        let known: Vec<RedisAddress> =
            self.servers.borrow().iter().filter_map(|server| server.address.clone()).collect();
        match self.origin.plan(connected, &known).await {
            Ok(plan) => self.adopt(plan),
            Err(error) => tracing::debug!(target: "tidewire::fanout", "{error}"),
        }
    }

    /// Moves places to the links of their masters: first all are taken away that go, then all given.
    fn adopt(self: &Rc<Self>, mut plan: HashMap<RedisAddress, Places>) {
        let mut gains = Vec::new();
        for (link, address) in self.addresses() {
            let places = plan.remove(&address).unwrap_or_default();
            let before = link.places.replace(places);
            self.leave(before.without(places), &link);
            gains.push((places.without(before), link));
        }
        for (gained, link) in gains {
            self.lead(gained, &link);
            if let Some(connection) = link.connection()
                && !gained.is_empty()
            {
                tracing::info!(target: "tidewire::fanout", redis = %connection.address, "has more slots now");
                self.up(gained, &connection);
            }
        }
        for (address, places) in plan {
            tracing::info!(target: "tidewire::fanout", redis = %address, "is a master of the cluster now");
            let link = self.add(Some(address), places);
            self.keep(&link);
        }
        self.drop_idle();
        self.tell();
    }

    fn addresses(&self) -> Vec<(Rc<Link>, RedisAddress)> {
        let servers = self.servers.borrow();
        servers.iter().filter_map(|server| Some((Rc::clone(&server.link), server.address.clone()?))).collect()
    }

    fn leave(&self, places: Places, link: &Link) {
        if places.is_empty() {
            return;
        }
        for place in places.iter() {
            self.routes.borrow_mut()[usize::from(place)] = None;
        }
        if link.is_up() {
            self.lost(places);
        }
    }

    /// Ends the links that have no places any more.
    fn drop_idle(self: &Rc<Self>) {
        let mut idle = Vec::new();
        self.servers.borrow_mut().retain_mut(|server| {
            let is_used = !server.link.places.get().is_empty();
            if !is_used {
                idle.push((Rc::clone(&server.link), server.task.take()));
            }
            is_used
        });
        for (link, task) in idle {
            task.inspect(AbortHandle::abort);
            for item in link.disconnect("it has no slots any more") {
                self.route(item);
            }
        }
        self.flush();
    }
}
