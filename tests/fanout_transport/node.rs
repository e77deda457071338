//! A node that has only its transport, and notes what it is told.

use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidewire::config::RedisConfig;
use tidewire::fanout::redis::transport::{
    ConnectError, LinkError, Listener, Partition, Partitions, Transport,
};
use tidewire::telemetry::metrics::Metrics;
use tokio::sync::oneshot;

/// How long a test waits for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What the listener was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Message(Vec<u8>, Bytes),
    Up(Partitions, bool),
    Down(Partitions),
    Unsubscribed(Vec<u8>),
}

#[derive(Default)]
struct Notes {
    told: Mutex<Vec<Told>>,
    changed: Condvar,
}

impl Notes {
    fn add(&self, told: Told) {
        self.told.lock().unwrap().push(told);
        self.changed.notify_all();
    }
}

impl Listener for Notes {
    fn message(&self, topic: &[u8], payload: Bytes) {
        self.add(Told::Message(topic.to_vec(), payload));
    }

    fn up(&self, partitions: Partitions, same_server: bool) {
        self.add(Told::Up(partitions, same_server));
    }

    fn down(&self, partitions: Partitions) {
        self.add(Told::Down(partitions));
    }

    fn unsubscribed(&self, topic: &[u8]) {
        self.add(Told::Unsubscribed(topic.to_vec()));
    }
}

pub struct Node {
    pub transport: Transport,
    pub metrics: Arc<Metrics>,
    prefix: String,
    notes: Arc<Notes>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    pub fn start(config: &RedisConfig) -> Self {
        let node = Self::try_start(config).unwrap_or_else(|error| panic!("{error}"));
        node.wait_for("all partitions are up", |told| covered(told) == Partitions::ALL);
        node
    }

    pub fn try_start(config: &RedisConfig) -> Result<Self, ConnectError> {
        let (sender, receiver) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let notes = Arc::new(Notes::default());
        let (listener, settings) = (Arc::clone(&notes), config.clone());
        let metrics = Arc::new(Metrics::new());
        let kept = Arc::clone(&metrics);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            tokio::task::LocalSet::new().block_on(&runtime, async {
                match Transport::connect(&settings, metrics).await {
                    Err(error) => sender.send(Err(error)).unwrap(),
                    Ok((transport, driver)) => {
                        sender.send(Ok(transport)).unwrap();
                        tokio::select! {
                            () = driver.run(listener) => {}
                            _ = stopped => {}
                        }
                    }
                }
            });
        });
        let transport = receiver.recv_timeout(PATIENCE).expect("it connects or says why not")?;
        let prefix = config.prefix.clone();
        Ok(Self { transport, metrics: kept, prefix, notes, stop: Some(stop), thread: Some(thread) })
    }

    pub fn stop(&mut self) {
        self.stop.take().map(|stop| stop.send(()));
        self.thread.take().map(JoinHandle::join);
    }

    /// A name in this partition.
    pub fn name(&self, partition: Partition, name: &str) -> String {
        format!("{{{}.{partition}}}{name}", self.prefix)
    }

    pub fn wait<F: Future>(&self, future: F) -> F::Output {
        self.transport.block_on(future)
    }

    pub fn subscribe(&self, partition: Partition, name: &str) {
        self.try_subscribe(partition, name).unwrap();
    }

    pub fn try_subscribe(&self, partition: Partition, name: &str) -> Result<(), LinkError> {
        let topic = self.name(partition, name).into_bytes().into_boxed_slice();
        self.wait(self.transport.subscribe(partition, &[topic]))
    }

    pub fn unsubscribe(&self, partition: Partition, name: &str) {
        let topic = self.name(partition, name).into_bytes().into_boxed_slice();
        self.wait(self.transport.unsubscribe(partition, &[topic])).unwrap();
    }

    /// Publishes and waits for the answer.
    pub fn publish(&self, partition: Partition, name: &str, payload: &str) -> Result<(), LinkError> {
        let (sender, done) = mpsc::channel();
        let topic = Bytes::from(self.name(partition, name));
        let payload = Bytes::from(payload.to_owned());
        let done_fn = Box::new(move |result| sender.send(result).unwrap());
        self.transport.publish(partition, topic, payload, Some(done_fn))?;
        done.recv_timeout(PATIENCE).expect("whoever publishes is told")
    }

    /// One command on one partition.
    pub fn command(&self, partition: Partition, words: &[&str]) -> Result<redis::Value, LinkError> {
        let mut pipeline = redis::Pipeline::new();
        pipeline.cmd(words[0]);
        for word in &words[1..] {
            pipeline.arg(*word);
        }
        let mut values = self.wait(self.transport.query(partition, pipeline))?;
        assert_eq!(values.len(), 1);
        Ok(values.remove(0))
    }

    pub fn told(&self) -> Vec<Told> {
        self.notes.told.lock().unwrap().clone()
    }

    pub fn forget(&self) {
        self.notes.told.lock().unwrap().clear();
    }

    /// The messages so far, as text.
    pub fn messages(&self) -> Vec<String> {
        messages(&self.told())
    }

    /// Waits until this is true of what was told.
    pub fn wait_for(&self, what: &str, holds: impl Fn(&[Told]) -> bool) -> Vec<Told> {
        let deadline = Instant::now() + PATIENCE;
        let mut told = self.notes.told.lock().unwrap();
        while !holds(&told) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what} did not come true: {:?}", brief(&told));
            told = self.notes.changed.wait_timeout(told, left).unwrap().0;
        }
        told.clone()
    }

    pub fn wait_for_messages(&self, count: usize) -> Vec<String> {
        messages(&self.wait_for("the messages came", |told| messages(told).len() >= count))
    }

    /// How long it takes until every partition was told to be down.
    pub fn wait_down(&self) -> Duration {
        let since = Instant::now();
        // Where another server takes over, it may be up again by now.
        self.wait_for("it is down", |told| told.contains(&Told::Down(Partitions::ALL)));
        since.elapsed()
    }

    /// Waits until every partition is up again after it was down, and says whether it is with the same server.
    pub fn wait_up(&self) -> bool {
        let told = self.wait_for("it is up", |told| {
            let down = told.iter().rposition(|told| matches!(told, Told::Down(_)));
            matches!(told.last(), Some(Told::Up(..)))
                && down.is_none_or(|down| covered(&told[down..]) == Partitions::ALL)
        });
        assert!(self.transport.is_connected());
        let Some(Told::Up(_, same_server)) = told.last() else { panic!("it is up") };
        *same_server
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What was told to be up.
fn covered(told: &[Told]) -> Partitions {
    told.iter().fold(Partitions::NONE, |all, told| match told {
        Told::Up(partitions, _) => Partitions(all.0 | partitions.0),
        _ => all,
    })
}

fn messages(told: &[Told]) -> Vec<String> {
    let payloads = told.iter().filter_map(|told| match told {
        Told::Message(_, payload) => Some(String::from_utf8_lossy(payload).into_owned()),
        _ => None,
    });
    payloads.collect()
}

/// Without most messages.
fn brief(told: &[Told]) -> Vec<&Told> {
    told.iter().rev().take(20).collect()
}

/// What is published now arrives.
pub fn assert_works(node: &Node) {
    node.forget();
    node.subscribe(8, "after");
    node.publish(8, "after", "it works").unwrap();
    assert_eq!(node.wait_for_messages(1), ["it works"]);
}
