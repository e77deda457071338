//! What happens by the clock: idle clients, grace periods, throttled counts, expired cache entries.

use std::rc::Rc;
use std::time::Duration;

use tidewire_protocol::error::{CloseCode, NOT_AUTHORIZED_IN_TIME};
use tidewire_protocol::frame;

use super::Worker;
use super::mailbox::ConnectionRef;
use super::state::{Goodbye, NEVER_IDLE, State};
use crate::connection::Phase;

const PERIOD: Duration = Duration::from_secs(1);
/// Between two looks at every channel for cache entries to drop; expired ones are not served meanwhile.
const CACHE_EXPIRY_PERIOD_MS: u64 = 10_000;

/// Sweeps once a second, or when a test has moved the clock.
pub async fn sweep(worker: Rc<Worker>) {
    let mut next_expiry_ms = 0;
    loop {
        worker.node.clock.tick(PERIOD).await;
        worker.state().sweep();
        // The parts that all workers share; one of them does it.
        if worker.id == 0 {
            let now_ms = worker.node.clock.now_ms();
            let apps = worker.node.apps.all();
            apps.iter().for_each(|app| app.channels.flush_counts(now_ms));
            if now_ms >= next_expiry_ms {
                apps.iter().for_each(|app| app.channels.expire_cache(now_ms));
                next_expiry_ms = now_ms + CACHE_EXPIRY_PERIOD_MS;
            }
        }
    }
}

impl State {
    fn sweep(&mut self) {
        let now = self.node.clock.now_seconds();
        self.end_graces(now);
        self.close_unauthorized(now);
        self.end_lifetimes();
        self.retry_stalled();
        self.probe_idle(now);
    }

    /// Ends closed connections whose peer does not hang up.
    fn end_graces(&mut self, now: u32) {
        while let Some(&(deadline, reference)) = self.closing.front() {
            if deadline > now {
                break;
            }
            self.closing.pop_front();
            if let Some(connection) = self.connection_mut(reference.slot, reference.generation) {
                connection.phase = Phase::Expired;
                connection.socket.wake();
            }
        }
    }

    /// Notes when the connection must have signed in or joined a private channel (2.16).
    pub fn expect_authorization(&mut self, slot: u32, timeout_seconds: u32) {
        let deadline = self.node.clock.now_seconds().saturating_add(timeout_seconds);
        let reference = self.reference(slot);
        self.unauthorized.push_back((deadline, reference));
    }

    fn close_unauthorized(&mut self, now: u32) {
        let due = |waiting: &mut Vec<ConnectionRef>, (deadline, reference): (u32, ConnectionRef)| {
            if deadline <= now {
                waiting.push(reference);
            }
            deadline > now
        };
        let mut late = Vec::new();
        self.unauthorized.retain(|entry| due(&mut late, *entry));
        for reference in late {
            let connection = self.connection_mut(reference.slot, reference.generation);
            if connection.is_some_and(|connection| !connection.is_authorized) {
                self.close(
                    reference.slot,
                    Goodbye::explained(CloseCode::Unauthorized, NOT_AUTHORIZED_IN_TIME),
                );
            }
        }
    }

    /// Notes when the connection has lived long enough; an earlier time that was noted stays.
    pub fn limit_lifetime(&mut self, slot: u32, seconds: u64) {
        if seconds == 0 {
            return;
        }
        // ±10 %, so that clients which came together do not leave together.
        let jittered = seconds.saturating_mul(rand::random_range(900..=1100)) / 1000;
        let deadline = u64::from(self.node.clock.now_seconds()).saturating_add(jittered.max(1));
        if self.lifetimes.get(&slot).is_none_or(|noted| deadline < *noted) {
            self.forget_lifetime(slot);
            self.lifetimes.insert(slot, deadline);
            self.lifetime_ends.insert((deadline, slot));
        }
    }

    /// The connection has ended.
    pub fn forget_lifetime(&mut self, slot: u32) {
        if let Some(deadline) = self.lifetimes.remove(&slot) {
            self.lifetime_ends.remove(&(deadline, slot));
        }
    }

    /// Closes those that have lived long enough; their clients come back at once.
    fn end_lifetimes(&mut self) {
        let now = u64::from(self.node.clock.now_seconds());
        while let Some((_, slot)) = self.lifetime_ends.first().copied().filter(|(end, _)| *end <= now) {
            self.forget_lifetime(slot);
            self.close(slot, Goodbye::coded(CloseCode::ReconnectNow));
        }
    }

    /// Pings clients that have been silent for long, and closes those that stay silent (1.4).
    fn probe_idle(&mut self, now: u32) {
        let apps = self.node.apps.all();
        let Some(shortest) = apps.iter().map(|app| app.settings().limits.idle_seconds).min() else { return };
        for slot in 0..self.last_seen.len() {
            let last_seen = self.last_seen[slot];
            if last_seen != NEVER_IDLE && now.saturating_sub(last_seen) >= shortest {
                self.probe(slot as u32, now);
            }
        }
    }

    fn probe(&mut self, slot: u32, now: u32) {
        let idle = now.saturating_sub(self.last_seen[slot as usize]);
        let connection = self.at(slot);
        let settings = connection.app.settings();
        let limits = &settings.limits;
        match connection.pinged_at {
            None if idle >= limits.idle_seconds => {
                connection.pinged_at = Some(now);
                drop(settings);
                self.send(slot, &frame::encode_ping(b""));
            }
            Some(pinged_at) if now.saturating_sub(pinged_at) >= limits.pong_timeout_seconds => {
                drop(settings);
                self.close(slot, Goodbye::coded(CloseCode::PongNotReceived));
            }
            _ => {}
        }
    }
}
