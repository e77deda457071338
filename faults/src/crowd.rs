//! Many observers on a thread of their own, seen from the one that plays the scenario.

use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::observer::{Field, Observer, Order, Plan, Progress};

pub struct Crowd {
    orders: watch::Sender<Order>,
    thread: Option<JoinHandle<Result<()>>>,
    plans: Vec<Plan>,
    progress: Vec<Arc<Progress>>,
    received: Arc<AtomicU64>,
    /// Orders so far.
    number: u64,
}

impl Crowd {
    /// Starts them. Each has the number of its plan, to which [`Crowd::cut`] refers.
    pub fn start(
        plans: Vec<Plan>,
        field: impl FnOnce(Arc<AtomicU64>) -> Field + Send + 'static,
    ) -> Result<Self> {
        let received = Arc::new(AtomicU64::new(0));
        let progress: Vec<Arc<Progress>> = plans.iter().map(|plan| Arc::new(Progress::of(plan))).collect();
        let (orders, told) = watch::channel(Order::Watch);
        let theirs = (plans.clone(), progress.clone(), Arc::clone(&received));
        let thread = std::thread::Builder::new().name("observers".into()).spawn(move || {
            let (plans, progress, received) = theirs;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let field = Rc::new(field(received));
            let everybody = LocalSet::new();
            for (index, (plan, progress)) in plans.into_iter().zip(progress).enumerate() {
                let observer = Observer::new(index, plan, Rc::clone(&field), progress);
                everybody.spawn_local(observer.live(told.clone()));
            }
            runtime.block_on(everybody);
            field.history.flush()
        })?;
        Ok(Self { orders, thread: Some(thread), plans, progress, received, number: 0 })
    }

    /// Messages received so far by all together.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub fn len(&self) -> usize {
        self.plans.len()
    }

    /// Observers that are subscribed to all their channels.
    pub fn subscribed(&self) -> usize {
        let all = |(plan, progress): &(&Plan, &Arc<Progress>)| {
            progress.subscribed.load(Ordering::Acquire) >= plan.channels.len() as u64
        };
        self.plans.iter().zip(&self.progress).filter(all).count()
    }

    /// Names of observers that have not come to `serial` of `channel`.
    pub fn behind(&self, channel: &str, serial: u64) -> Vec<&str> {
        let mut behind = Vec::new();
        for (plan, progress) in self.plans.iter().zip(&self.progress) {
            let Some(index) = plan.channels.iter().position(|name| name == channel) else { continue };
            if progress.serials[index].load(Ordering::Acquire) < serial {
                behind.push(plan.name.as_str());
            }
        }
        behind
    }

    /// The socket of a connected observer of `channel`, to leave it out of a message.
    pub fn progress(&self) -> &[Arc<Progress>] {
        &self.progress
    }

    pub fn plans(&self) -> &[Plan] {
        &self.plans
    }

    /// Every so-manieth observer drops its connection now.
    pub fn cut(&mut self, every: usize) {
        self.number += 1;
        self.orders.send_replace(Order::Cut { every, number: self.number });
    }

    /// Every so-manieth observer asks for its last messages once more.
    pub fn repair(&mut self, every: usize) {
        self.number += 1;
        self.orders.send_replace(Order::Repair { every, number: self.number });
    }

    /// Every so-manieth observer unsubscribes and subscribes again.
    pub fn flap(&mut self, every: usize) {
        self.number += 1;
        self.orders.send_replace(Order::Flap { every, number: self.number });
    }

    /// Those that read slowly do so no longer.
    pub fn hurry(&self) {
        self.orders.send_replace(Order::Hurry);
    }

    pub fn stop(&mut self) -> Result<()> {
        self.orders.send_replace(Order::Stop);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().ok().context("the observers panicked")?
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // After an error nobody waits for their history.
        let _ = self.stop();
    }
}

impl Progress {
    fn of(plan: &Plan) -> Self {
        let serials = plan.channels.iter().map(|_| AtomicU64::new(0)).collect();
        Self { serials, ..Self::default() }
    }

    /// Empty while it has none.
    pub fn socket_id(&self) -> String {
        if self.is_connected.load(Ordering::Acquire) {
            self.socket_id.lock().unwrap_or_else(PoisonError::into_inner).clone()
        } else {
            String::new()
        }
    }
}
