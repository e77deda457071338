//! How far this node and the others are in step, as readiness, tests and the log are to know.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::redis::transport::LinkError;
use crate::sync::lock;

/// How often the same trouble is logged again.
const LOG_AGAIN: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Step {
    in_step: AtomicBool,
    /// Making known what this node has.
    pub telling: Trouble,
    /// Hearing what the others have.
    pub following: Trouble,
}

/// Redis can be reached, and may refuse one kind of request.
#[derive(Debug)]
pub struct Trouble {
    what: &'static str,
    refusal: Mutex<Option<Refusal>>,
}

#[derive(Clone, Copy, Debug)]
struct Refusal {
    since: Instant,
    logged: Instant,
}

impl Default for Step {
    fn default() -> Self {
        let trouble = |what| Trouble { what, refusal: Mutex::default() };
        Self {
            in_step: AtomicBool::new(false),
            telling: trouble("tell the cluster what this node has"),
            following: trouble("follow what the other nodes have"),
        }
    }
}

impl Step {
    /// Whether the node has told all it has since it lost contact.
    pub fn is_in_step(&self) -> bool {
        self.in_step.load(Ordering::Relaxed)
    }

    pub fn set_in_step(&self, in_step: bool) {
        self.in_step.store(in_step, Ordering::Relaxed);
    }

    /// How long Redis has refused what new subscriptions need.
    pub fn refused_for(&self) -> Option<Duration> {
        self.telling.refused_for().max(self.following.refused_for())
    }
}

impl Trouble {
    /// How long everything was refused.
    fn refused_for(&self) -> Option<Duration> {
        lock(&self.refusal).map(|refusal| refusal.since.elapsed())
    }

    /// Something came through.
    pub fn note_success(&self) {
        if lock(&self.refusal).take().is_some() {
            tracing::info!(target: "tidewire::fanout", "Redis lets this node {} again", self.what);
        }
    }

    pub fn note_failure(&self, error: &LinkError) {
        if !matches!(error, LinkError::Refused(_)) {
            return tracing::debug!(target: "tidewire::fanout", %error, "cannot {} yet", self.what);
        }
        let now = Instant::now();
        let mut refusal = lock(&self.refusal);
        let known = *refusal;
        let is_logged = known.is_some_and(|known| now - known.logged < LOG_AGAIN);
        let since = known.map_or(now, |known| known.since);
        let logged = known.filter(|_| is_logged).map_or(now, |known| known.logged);
        *refusal = Some(Refusal { since, logged });
        drop(refusal);
        if !is_logged {
            tracing::warn!(target: "tidewire::fanout", %error,
                "Redis does not let this node {}: new subscriptions wait until it does", self.what);
        }
    }
}
