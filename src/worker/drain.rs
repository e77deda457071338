//! The end of a worker's connections: closed with 4200 at a steady rate, so that they do not all come back at
//! once.

use std::rc::Rc;
use std::time::Duration;

use tidewire_protocol::error::CloseCode;

use super::Worker;
use super::mailbox::ConnectionRef;
use super::state::Goodbye;

/// Time between two groups of closes.
const STEP: Duration = Duration::from_millis(50);

pub async fn drain(worker: Rc<Worker>) {
    let mut waiting: Vec<ConnectionRef> = {
        let state = worker.state();
        state.connections().map(|(slot, _)| state.reference(slot)).collect()
    };
    let window = Duration::from_secs(worker.node.config.drain_seconds);
    let steps = usize::try_from(window.as_millis() / STEP.as_millis()).unwrap_or(usize::MAX).max(1);
    let total = waiting.len();
    for step in 1..=steps {
        // The first goes at once, the last at the end of the window.
        let left = total - (total * step).div_ceil(steps).min(total);
        {
            let mut state = worker.state();
            for reference in waiting.drain(left..) {
                if state.connection_mut(reference.slot, reference.generation).is_some() {
                    state.close(reference.slot, Goodbye::coded(CloseCode::ReconnectNow));
                }
            }
        }
        if waiting.is_empty() {
            return;
        }
        tokio::time::sleep(STEP).await;
    }
}
