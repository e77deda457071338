//! A publisher that keeps at a message until it knows what became of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tidewire_bench::api::App;
use tidewire_bench::random::Random;
use tidewire_protocol::position::Position;

use crate::balancer::Balancer;
use crate::history::{Act, History, Record};
use crate::http::{Answer, Connection};
use crate::observer::Progress;
use crate::wire;

/// How long a publisher goes on trying; well inside the 120 s for which a key is remembered.
const PERSISTENCE: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(5);

/// What is published.
#[derive(Clone, Debug)]
pub struct Load {
    pub channels: Vec<String>,
    /// Connections, each with one message under way.
    pub publishers: usize,
    /// Of all publishers together; 0 = as fast as they are answered.
    pub per_second: f64,
    pub bytes: usize,
    pub percent: Percent,
}

/// How many of a hundred calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Percent {
    /// Are for two channels.
    pub twofold: usize,
    pub batched: usize,
    /// Leave a connected observer out.
    pub excluding: usize,
    /// Are made again after the answer.
    pub repeated: usize,
    /// Are made on two connections at once.
    pub doubled: usize,
    /// Are too large.
    pub refused: usize,
}

impl Percent {
    pub const MIXED: Self =
        Self { twofold: 4, batched: 4, excluding: 4, repeated: 4, doubled: 4, refused: 1 };
    /// Without those that leave somebody out: of a message that was trimmed, nobody could tell for whom it was not.
    pub const FOR_ALL: Self = Self { excluding: 0, refused: 0, ..Self::MIXED };
}

/// Observers that may be left out, with their channels.
pub type Sockets = Vec<(Arc<Progress>, Vec<String>)>;

#[derive(Debug, Default)]
pub struct Tally {
    pub stored: AtomicU64,
    pub refused: AtomicU64,
    pub unknown: AtomicU64,
    /// Attempts that were answered 503 or the like.
    pub unavailable: AtomicU64,
    /// Attempts that were not answered.
    pub lost: AtomicU64,
    pub repeats: AtomicU64,
}

/// Publishers at work.
pub struct Publishers {
    pub tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// One of them.
pub struct Publisher {
    name: String,
    app: App,
    history: Arc<History>,
    tally: Arc<Tally>,
    balancer: Arc<Balancer>,
    connection: Connection,
    random: Random,
    count: u64,
}

/// One call of the API.
struct Call {
    /// A trigger has one message for several channels, a batch several messages.
    items: Vec<Item>,
    is_batch: bool,
    bytes: usize,
    /// The socket that is left out.
    excluded: String,
}

struct Item {
    mid: String,
    channel: String,
}

/// What became of a call, with the position of each of its items.
struct Fate {
    kind: &'static str,
    status: Option<u16>,
    positions: Vec<Option<Position>>,
}

impl Publishers {
    pub fn start(
        prefix: &str,
        balancer: &Arc<Balancer>,
        app: &App,
        history: &Arc<History>,
        load: &Load,
        sockets: &Sockets,
    ) -> Result<Self> {
        let (tally, stop) = (Arc::new(Tally::default()), Arc::new(AtomicBool::new(false)));
        let mut threads = Vec::new();
        for number in 0..load.publishers {
            let mut publisher = Publisher::new(&format!("{prefix}{number}"), balancer, app, history);
            publisher.tally = Arc::clone(&tally);
            let (load, stop, sockets) = (load.clone(), Arc::clone(&stop), sockets.clone());
            let thread = std::thread::Builder::new().name(publisher.name.clone());
            threads.push(thread.spawn(move || publisher.work(&load, &sockets, &stop))?);
        }
        Ok(Self { tally, stop, threads })
    }

    pub fn stored(&self) -> u64 {
        self.tally.stored.load(Ordering::Relaxed)
    }

    /// Lets each finish its message.
    pub fn stop(mut self) -> Result<Arc<Tally>> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().ok().context("a publisher panicked")?;
        }
        Ok(Arc::clone(&self.tally))
    }
}

impl Drop for Publishers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Publisher {
    pub fn new(name: &str, balancer: &Arc<Balancer>, app: &App, history: &Arc<History>) -> Self {
        let seed = name.bytes().fold(7, |seed: u64, byte| seed.wrapping_mul(31) + u64::from(byte));
        let mut random = Random::new(seed);
        let address = balancer.address(balancer.pick(&mut random));
        Self {
            name: name.to_owned(),
            balancer: Arc::clone(balancer),
            app: app.clone(),
            history: Arc::clone(history),
            tally: Arc::default(),
            connection: Connection::new(address, PATIENCE),
            random,
            count: 0,
        }
    }

    fn work(&mut self, load: &Load, sockets: &Sockets, stop: &AtomicBool) {
        let began = Instant::now();
        let each = load.publishers as f64 / load.per_second;
        while !stop.load(Ordering::Relaxed) {
            let call = self.compose(load, sockets);
            let is_doubled = self.rolls(load.percent.doubled);
            if is_doubled {
                self.double(&call);
            } else {
                self.publish(&call);
            }
            if self.rolls(load.percent.repeated) {
                self.go_elsewhere();
                self.publish(&call);
            }
            if load.per_second > 0.0 {
                let due = began + Duration::from_secs_f64(self.count as f64 * each);
                // What a fault held up is not made up for in one burst.
                let wait = due.saturating_duration_since(Instant::now());
                std::thread::sleep(wait.min(Duration::from_secs(1)));
            }
        }
    }

    /// One message to one channel, until it is stored; its serial. `excluded` is the socket that does not get it.
    pub fn send(&mut self, channel: &str, excluded: &str) -> Result<u64> {
        let items = vec![Item { mid: self.next_mid(), channel: channel.to_owned() }];
        let fate = self.publish(&Call { items, is_batch: false, bytes: 0, excluded: excluded.to_owned() });
        if fate.kind != "ok" {
            bail!("{channel}: a message was not stored: {} {:?}", fate.kind, fate.status);
        }
        let position = fate.positions.first().copied().flatten();
        Ok(position.context("the answer has no position")?.serial)
    }

    fn next_mid(&mut self) -> String {
        self.count += 1;
        format!("{}-{}", self.name, self.count)
    }

    fn rolls(&mut self, percent: usize) -> bool {
        self.random.below(100) < percent
    }

    fn any_channel(&mut self, load: &Load) -> String {
        load.channels[self.random.below(load.channels.len())].clone()
    }

    fn compose(&mut self, load: &Load, sockets: &Sockets) -> Call {
        let percent = load.percent;
        let mut items = vec![Item { mid: self.next_mid(), channel: self.any_channel(load) }];
        let mut excluded = String::new();
        if !sockets.is_empty() && self.rolls(percent.excluding) {
            let (observer, own) = &sockets[self.random.below(sockets.len())];
            items[0].channel.clone_from(&own[self.random.below(own.len())]);
            excluded = observer.socket_id();
        }
        if self.rolls(percent.batched) {
            for _ in 1..BATCH {
                items.push(Item { mid: self.next_mid(), channel: self.any_channel(load) });
            }
            return Call { items, is_batch: true, bytes: load.bytes, excluded };
        }
        if self.rolls(percent.twofold) {
            let other = self.any_channel(load);
            if other != items[0].channel {
                items.push(Item { mid: items[0].mid.clone(), channel: other });
            }
        }
        let bytes = if self.rolls(percent.refused) { TOO_LARGE } else { load.bytes };
        Call { items, is_batch: false, bytes, excluded }
    }

    /// The same call on two connections at once: what one of them stores, the other one must recognise.
    fn double(&mut self, call: &Call) {
        let t0 = self.history.now();
        let address = self.balancer.address(self.balancer.pick(&mut self.random));
        let mut other = Connection::new(address, PATIENCE);
        let is_sent = other.send(&self.request(call)).is_ok();
        self.publish(call);
        if let Ok(answer) = other.answer()
            && is_sent
            && answer.status == 200
        {
            let fate = Fate::stored(&answer, call);
            self.tally.repeats.fetch_add(u64::from(answer.is_repeat), Ordering::Relaxed);
            self.note(call, &fate, t0.max(1));
        }
    }

    /// Tries until there is an answer that settles it.
    fn publish(&mut self, call: &Call) -> Fate {
        let t0 = self.history.now();
        let (deadline, mut is_unknown) = (Instant::now() + PERSISTENCE, false);
        let fate = loop {
            match self.connection.call(&self.request(call)) {
                Ok(answer) if answer.status == 200 => {
                    self.tally.repeats.fetch_add(u64::from(answer.is_repeat), Ordering::Relaxed);
                    break Fate::stored(&answer, call);
                }
                Ok(answer) if answer.status == 429 || answer.status >= 500 => {
                    is_unknown = true;
                    self.tally.unavailable.fetch_add(1, Ordering::Relaxed);
                }
                Ok(answer) => {
                    let kind = if is_unknown { "info" } else { "fail" };
                    break Fate { kind, status: Some(answer.status), positions: Vec::new() };
                }
                Err(_) => {
                    is_unknown = true;
                    self.tally.lost.fetch_add(1, Ordering::Relaxed);
                }
            }
            if Instant::now() > deadline {
                break Fate { kind: "info", status: None, positions: Vec::new() };
            }
            std::thread::sleep(Duration::from_millis(10 + self.random.below(90) as u64));
            self.go_elsewhere();
        };
        self.note(call, &fate, t0.max(1));
        fate
    }

    /// To any node, maybe the same.
    fn go_elsewhere(&mut self) {
        let address = self.balancer.address(self.balancer.pick(&mut self.random));
        if address != self.connection.address() {
            self.connection = Connection::new(address, PATIENCE);
        }
    }

    fn request(&self, call: &Call) -> Vec<u8> {
        let body = |item: &Item| {
            let data = wire::payload(&item.mid, call.bytes);
            let mut body =
                json!({ "name": "faults", "data": data, "idempotency_key": item.mid, "info": "position" });
            if !call.excluded.is_empty() {
                body["socket_id"] = json!(call.excluded);
            }
            body
        };
        if call.is_batch {
            let with_channel = |item: &Item| {
                let mut body = body(item);
                body["channel"] = json!(item.channel);
                body
            };
            let items: Vec<Value> = call.items.iter().map(with_channel).collect();
            return self.app.post("batch_events", &json!({ "batch": items }).to_string());
        }
        let mut body = body(&call.items[0]);
        body["channels"] = call.items.iter().map(|item| json!(item.channel)).collect();
        self.app.post("events", &body.to_string())
    }

    fn note(&self, call: &Call, fate: &Fate, t0: u64) {
        let counter = match fate.kind {
            "ok" => &self.tally.stored,
            "fail" => &self.tally.refused,
            _ => &self.tally.unknown,
        };
        for (number, item) in call.items.iter().enumerate() {
            counter.fetch_add(1, Ordering::Relaxed);
            let position = fate.positions.get(number).copied().flatten();
            let epoch = position.map(|position| position.epoch.to_string());
            self.history.note(&Record {
                t0,
                p: &self.name,
                f: Act::Publish,
                kind: fate.kind,
                ch: &item.channel,
                mid: &item.mid,
                sid: &call.excluded,
                epoch: epoch.as_deref().unwrap_or(""),
                serial: position.map(|position| position.serial),
                status: fate.status,
                ..Record::default()
            });
        }
    }
}

/// More than `max_event_bytes` allows.
const TOO_LARGE: usize = 11 * 1024;
/// Messages of a batch; `max_batch_events` is 10.
const BATCH: usize = 5;

impl Fate {
    fn stored(answer: &Answer, call: &Call) -> Self {
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let of_item = |(number, item): (usize, &Item)| {
            let told = if call.is_batch { &body["batch"][number] } else { &body["channels"][&item.channel] };
            told["position"].as_str()?.parse().ok()
        };
        let positions = call.items.iter().enumerate().map(of_item).collect();
        Self { kind: "ok", status: Some(answer.status), positions }
    }
}
