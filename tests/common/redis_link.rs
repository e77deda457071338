//! A way to Redis for tests of what stands on it, with its thread.

use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidewire::config::RedisConfig;
use tidewire::fanout::redis::transport::{Listener, Partitions, Transport};
use tidewire::telemetry::metrics::Metrics;
use tokio::sync::oneshot;

/// How long a test waits for a link.
const PATIENCE: Duration = Duration::from_secs(20);

/// What came on topics, in order.
#[derive(Default)]
pub struct Heard(Mutex<Vec<(Vec<u8>, Bytes)>>);

impl Heard {
    pub fn messages(&self) -> Vec<(Vec<u8>, Bytes)> {
        self.0.lock().expect("no test panics with it").clone()
    }
}

impl Listener for Heard {
    fn message(&self, topic: &[u8], payload: Bytes) {
        self.0.lock().expect("no test panics with it").push((topic.to_vec(), payload));
    }

    fn up(&self, _: Partitions, _: bool) {}

    fn down(&self, _: Partitions) {}

    fn unsubscribed(&self, _: &[u8]) {}
}

/// A transport whose thread ends with this value.
pub struct Link {
    pub transport: Transport,
    pub heard: Arc<Heard>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Link {
    pub fn start(config: &RedisConfig) -> Self {
        let (sender, receiver) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let heard = Arc::new(Heard::default());
        let (listener, config) = (Arc::clone(&heard), config.clone());
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime");
            tokio::task::LocalSet::new().block_on(&runtime, async {
                let (transport, driver) =
                    Transport::connect(&config, Arc::new(Metrics::new())).await.expect("it connects");
                sender.send(transport).expect("it is awaited");
                tokio::select! {
                    () = driver.run(listener) => {}
                    _ = stopped => {}
                }
            });
        });
        let transport = receiver.recv_timeout(PATIENCE).expect("it connects");
        let link = Self { transport, heard, stop: Some(stop), thread: Some(thread) };
        link.wait_until_up();
        link
    }

    pub fn wait_until_up(&self) {
        self.wait_until(true);
    }

    pub fn wait_until_down(&self) {
        self.wait_until(false);
    }

    fn wait_until(&self, is_up: bool) {
        let deadline = Instant::now() + PATIENCE;
        while self.transport.is_connected() != is_up {
            assert!(Instant::now() < deadline, "the link does not change");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().map(JoinHandle::join);
    }
}
