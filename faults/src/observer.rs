//! One client that asks for replay: it comes back with its positions, and does what else clients do.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tidewire_bench::api::App;
use tidewire_bench::frame;
use tidewire_bench::random::Random;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::balancer::Balancer;
use crate::following::Watch;
use crate::history::{Act, History, Record};
use crate::socket::{Reading, Socket};
use crate::wire::Frame;

/// From connecting to the connection being established.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Longer than any run.
const FOREVER: Duration = Duration::from_secs(86_400);

/// What an observer is to do.
#[derive(Clone, Debug)]
pub struct Plan {
    pub name: String,
    pub channels: Vec<String>,
    /// JSON of `replay.rewind` for the first subscription; empty = live.
    pub rewind: &'static str,
    pub rejects_gaps: bool,
    pub reading: Reading,
    /// After so long without a byte it pings, after half as long again it gives the connection up.
    pub silence: Duration,
    /// It waits a random time up to this before it comes back.
    pub pause: Duration,
    pub starts_after: Duration,
    /// It sends a client event after every such time, where it may.
    pub talks_every: Option<Duration>,
    /// As whom it is a member; empty = its name.
    pub user: String,
}

/// How far an observer is, for those who wait for it.
#[derive(Debug, Default)]
pub struct Progress {
    pub subscribed: AtomicU64,
    pub is_connected: AtomicBool,
    pub socket_id: Mutex<String>,
    /// Serial of each of its channels, in their order.
    pub serials: Vec<AtomicU64>,
}

/// Told to all observers at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Watch,
    /// Every so-manieth drops its connection; the number makes each order another one.
    Cut {
        every: usize,
        number: u64,
    },
    /// Every so-manieth asks for a few messages once more: `pusher:subscribe` with an earlier position.
    Repair {
        every: usize,
        number: u64,
    },
    /// Every so-manieth unsubscribes and subscribes again.
    Flap {
        every: usize,
        number: u64,
    },
    /// Nobody reads slowly any more.
    Hurry,
    Stop,
}

/// What all observers of a run share.
pub struct Field {
    pub balancer: Arc<Balancer>,
    pub app: App,
    pub history: Arc<History>,
    pub received: Arc<AtomicU64>,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By the server, with a close code.
    Closed(u16),
    /// The stream ended or broke.
    Lost,
    NotConnected,
    Silent,
    Cut,
    Unavailable,
    Garbled,
    Stopped,
}

pub struct Observer {
    pub plan: Plan,
    pub field: Rc<Field>,
    pub progress: Arc<Progress>,
    pub watches: Vec<Watch>,
    pub random: Random,
    pub socket_id: String,
    pub last_socket_id: String,
    /// Lines for the history, and texts for the server, of what was read last.
    pub lines: Vec<u8>,
    pub replies: Vec<String>,
    pub said: u64,
    /// The one that it is connected to.
    pub node: usize,
    index: usize,
}

impl Observer {
    pub fn new(index: usize, plan: Plan, field: Rc<Field>, progress: Arc<Progress>) -> Self {
        let watches = plan.channels.iter().map(|channel| Watch::new(channel)).collect();
        let random = Random::new(index as u64);
        let (socket_id, last_socket_id) = Default::default();
        let (lines, replies) = Default::default();
        Self {
            plan,
            field,
            progress,
            watches,
            random,
            socket_id,
            last_socket_id,
            lines,
            replies,
            said: 0,
            node: 0,
            index,
        }
    }

    /// Connects, watches and comes back until it is told to stop.
    pub async fn live(mut self, mut orders: watch::Receiver<Order>) {
        sleep(self.plan.starts_after).await;
        while *orders.borrow_and_update() != Order::Stop {
            let ended = self.session(&mut orders).await;
            self.leave(ended);
            if ended != Ended::Stopped {
                self.pause(ended).await;
            }
        }
    }

    async fn pause(&mut self, ended: Ended) {
        // 4200 means at once: the server has spread the closes already.
        if ended != Ended::Closed(4200) {
            let longest = self.plan.pause.as_micros() as usize;
            sleep(Duration::from_micros(self.random.below(longest.max(1)) as u64)).await;
        }
    }

    fn leave(&mut self, ended: Ended) {
        let (kind, status) = match ended {
            Ended::Closed(code) => ("closed", Some(code)),
            Ended::Lost => ("lost", None),
            Ended::NotConnected => ("not_connected", None),
            Ended::Silent => ("silent", None),
            Ended::Cut => ("cut", None),
            Ended::Unavailable => ("unavailable", None),
            Ended::Garbled => ("garbled", None),
            Ended::Stopped => ("stopped", None),
        };
        self.progress.is_connected.store(false, Ordering::Release);
        self.progress.subscribed.store(0, Ordering::Release);
        self.watches.iter_mut().for_each(Watch::leave);
        if !self.socket_id.is_empty() {
            self.last_socket_id = std::mem::take(&mut self.socket_id);
        }
        let record = Record { p: &self.plan.name, f: Act::Close, kind, status, ..Record::default() };
        self.field.history.note(&record);
    }

    async fn session(&mut self, orders: &mut watch::Receiver<Order>) -> Ended {
        let path = format!("/app/{}?protocol=7&client=faults&version=1.0", self.field.app.key);
        self.node = self.field.balancer.pick(&mut self.random);
        let address = self.field.balancer.address(self.node);
        let connecting = Socket::connect(address, &path, self.plan.reading);
        let Ok(Ok(mut socket)) = timeout(HANDSHAKE, connecting).await else { return Ended::NotConnected };
        let mut heard = Instant::now();
        let mut has_pinged = false;
        let pause = self.plan.talks_every.unwrap_or(FOREVER);
        let mut speaks = Instant::now() + pause;
        loop {
            if let Err(ended) = self.hear(&mut socket).await {
                return ended;
            }
            let patience = if has_pinged { self.plan.silence * 3 / 2 } else { self.plan.silence };
            tokio::select! {
                count = socket.fill() => {
                    if !matches!(count, Ok(1..)) {
                        return Ended::Lost;
                    }
                    (heard, has_pinged) = (Instant::now(), false);
                }
                told = orders.changed() => {
                    let order = *orders.borrow_and_update();
                    let mine = |every: usize| self.index.is_multiple_of(every);
                    match order {
                        _ if told.is_err() => return Ended::Stopped,
                        Order::Stop => return Ended::Stopped,
                        Order::Cut { every, .. } if mine(every) => return Ended::Cut,
                        Order::Repair { every, .. } if mine(every) => self.repair(),
                        Order::Flap { every, .. } if mine(every) => self.flap(),
                        Order::Hurry => self.hurry(&mut socket),
                        _ => {}
                    }
                },
                () = sleep_until(speaks) => {
                    self.speak();
                    speaks = Instant::now() + pause;
                }
                () = sleep_until(heard + patience) => {
                    if std::mem::replace(&mut has_pinged, true) {
                        return Ended::Silent;
                    }
                    self.replies.push(r#"{"event":"pusher:ping","data":{}}"#.to_owned());
                }
            }
        }
    }

    fn hurry(&mut self, socket: &mut Socket) {
        self.plan.reading = Reading::FAST;
        socket.read_as(Reading::FAST);
    }

    /// Takes in every frame that is here, and answers.
    async fn hear(&mut self, socket: &mut Socket) -> Result<(), Ended> {
        let now = self.field.history.now();
        let mut verdict = Ok(());
        while verdict.is_ok() {
            let Ok(taken) = socket.take() else {
                verdict = Err(Ended::Garbled);
                break;
            };
            let Some(taken) = taken else { break };
            let payload = socket.bytes(taken.payload);
            verdict = match taken.opcode {
                frame::TEXT => self.hear_text(now, payload),
                frame::CLOSE => Err(payload
                    .first_chunk()
                    .map_or(Ended::Lost, |code| Ended::Closed(u16::from_be_bytes(*code)))),
                frame::PING => {
                    let payload = payload.to_vec();
                    socket.send(frame::PONG, &payload).await.map_err(|_| Ended::Lost)
                }
                _ => Ok(()),
            };
        }
        self.field.history.write(&self.lines);
        self.lines.clear();
        for reply in std::mem::take(&mut self.replies) {
            socket.send(frame::TEXT, reply.as_bytes()).await.map_err(|_| Ended::Lost)?;
        }
        verdict
    }

    fn hear_text(&mut self, now: u64, text: &[u8]) -> Result<(), Ended> {
        let Ok(frame) = Frame::parse(text) else { return Err(Ended::Garbled) };
        match &*frame.event {
            "pusher:ping" => self.replies.push(r#"{"event":"pusher:pong","data":{}}"#.to_owned()),
            "pusher:connection_established" => self.establish(&frame)?,
            "pusher_internal:subscription_succeeded" => {
                self.succeed(now, &frame);
                self.note_members(now, &frame);
            }
            "pusher_internal:replay_resumed" => self.succeed(now, &frame),
            "pusher_internal:member_added" => self.note_member(now, Act::MemberAdded, &frame),
            "pusher_internal:member_removed" => self.note_member(now, Act::MemberRemoved, &frame),
            "pusher_internal:replay_done" => self.finish_replay(now, &frame),
            "pusher_internal:replay_skip" => self.skip(now, &frame),
            "pusher_internal:replay_reset" => self.reset(now, &frame),
            "pusher:subscription_error" => self.refused(now, &frame)?,
            event if event.starts_with("pusher:") || event.starts_with("pusher_internal:") => {}
            _ => self.receive(now, &frame),
        }
        Ok(())
    }
}
