//! What comes from the other nodes, taken to the channels and users of this one.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dashmap::DashMap;
use tidewire_protocol::socket_id::SocketId;
use tokio::sync::Notify;

use super::message::{Delta, Event, Message, Stored};
use super::redis::transport::{Listener, Partitions};
use crate::app::App;
use crate::hub::channel::replica::{MemberChange, MemberChangeKind, RemoteEvent, Replicated};
use crate::hub::channel::{CacheEntry, Channel};
use crate::replay::store::StreamName;
use crate::sync::lock;
use crate::telemetry::metrics::Metrics;
use crate::worker::mailbox::{Hold, Mailbox};

/// What this node follows: everything of one topic is about one subject.
#[derive(Clone, Debug)]
pub enum Subject {
    Channel { app: Arc<App>, channel: Arc<Channel> },
    User { app: Arc<App>, user_id: Box<str> },
}

impl Subject {
    pub fn app(&self) -> &Arc<App> {
        let (Self::Channel { app, .. } | Self::User { app, .. }) = self;
        app
    }
}

/// Something that whoever keeps this node and the others in step has to look at.
#[derive(Debug)]
pub enum Notice {
    /// Something of the subject changed here.
    Touched(Subject),
    /// The replica of the topic's channel misses a change.
    Gap(Box<[u8]>),
    /// The server of these partitions can be used again.
    Up {
        partitions: Partitions,
        is_same_server: bool,
    },
    Down(Partitions),
    Unsubscribed(Box<[u8]>),
    /// The app has other settings.
    Settings(Arc<App>),
    Stop,
}

/// Notices in their order. Subjects are in it once, so that it is as long as there are subjects at the most.
#[derive(Debug, Default)]
pub struct Notices {
    waiting: Mutex<Vec<Notice>>,
    filled: Notify,
}

impl Notices {
    pub fn push(&self, notice: Notice) {
        let is_first = {
            let mut waiting = lock(&self.waiting);
            waiting.push(notice);
            waiting.len() == 1
        };
        if is_first {
            self.filled.notify_one();
        }
    }

    /// Waits until there is something to take.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }

    pub fn take(&self) -> Vec<Notice> {
        std::mem::take(&mut *lock(&self.waiting))
    }
}

/// A subject, and what is known of it between its subscription and its state.
#[derive(Debug)]
pub struct Followed {
    pub subject: Subject,
    /// Its topic has told whether the user is online, since it is followed.
    pub is_told: AtomicBool,
    /// Number of the user's newest termination that was heeded; 0: none is known yet.
    pub terminated: AtomicU64,
}

impl Followed {
    pub fn new(subject: Subject) -> Self {
        Self { subject, is_told: AtomicBool::new(false), terminated: AtomicU64::new(0) }
    }
}

/// By topic.
pub type Topics = DashMap<Box<[u8]>, Followed>;

/// Messages after which the workers are woken although there are more to take: both sides may work at once.
const MAX_BURST: u32 = 64;

/// Messages that came together: workers that sleep are woken once for all of them.
#[derive(Debug, Default)]
struct Burst {
    hold: Option<Hold>,
    messages: u32,
}

#[derive(Debug)]
pub struct Inbound {
    topics: Arc<Topics>,
    notices: Arc<Notices>,
    metrics: Arc<Metrics>,
    burst: Mutex<Burst>,
    burst_began: Notify,
}

impl Inbound {
    pub fn new(topics: Arc<Topics>, notices: Arc<Notices>, metrics: Arc<Metrics>) -> Self {
        Self { topics, notices, metrics, burst: Mutex::default(), burst_began: Notify::new() }
    }

    /// Ends bursts, for ever. A task of the thread that takes the messages: its turn is when what has come is taken.
    pub async fn end_bursts(self: Arc<Self>) {
        loop {
            self.burst_began.notified().await;
            std::mem::take(&mut *lock(&self.burst));
        }
    }

    fn note_message(&self, mailboxes: &Arc<[Mailbox]>) {
        let mut burst = lock(&self.burst);
        if burst.messages >= MAX_BURST {
            *burst = Burst::default();
        }
        burst.messages += 1;
        if burst.hold.is_none() {
            burst.hold = Some(Hold::new(mailboxes));
            self.burst_began.notify_one();
        }
    }
}

impl Listener for Inbound {
    fn message(&self, topic: &[u8], payload: Bytes) {
        // Nobody here may be in the channel any more.
        let Some(followed) = self.topics.get(topic) else { return };
        let message = match Message::decode(payload) {
            Ok(message) => message,
            Err(error) => {
                self.metrics.fanout.count_error("malformed");
                tracing::debug!(target: "tidewire::fanout", %error, "a message of another node, or of another version of it");
                return;
            }
        };
        match &followed.subject {
            Subject::Channel { app, channel } => {
                self.note_message(app.channels.mailboxes());
                if self.take_to_channel(app, channel, message) == Replicated::Gap {
                    self.notices.push(Notice::Gap(topic.into()));
                }
            }
            Subject::User { app, user_id } => match message {
                Message::Online | Message::Offline => {
                    followed.is_told.store(true, Ordering::Relaxed);
                    app.users.set_online(user_id, matches!(message, Message::Online));
                }
                Message::Terminate(number) => {
                    followed.terminated.fetch_max(number, Ordering::Relaxed);
                    app.users.terminate(user_id);
                }
                _ => self.metrics.fanout.count_error("malformed"),
            },
        }
    }

    fn up(&self, partitions: Partitions, is_same_server: bool) {
        self.notices.push(Notice::Up { partitions, is_same_server });
    }

    fn down(&self, partitions: Partitions) {
        self.notices.push(Notice::Down(partitions));
    }

    fn unsubscribed(&self, topic: &[u8]) {
        self.notices.push(Notice::Unsubscribed(topic.into()));
    }
}

impl Inbound {
    fn take_to_channel(&self, app: &App, channel: &Arc<Channel>, message: Message) -> Replicated {
        let mailboxes = app.channels.mailboxes();
        match message {
            Message::Event(Event { except, cache, frame }) => {
                let except = except.and_then(SocketId::from_bits);
                let cache = cache.map(|cache| cache_entry(&cache.data, cache.ttl_ms, app.now_ms()));
                channel.deliver(frame, except, cache, mailboxes);
                Replicated::Done
            }
            Message::Added(delta) => channel.change_member(change(delta, MemberChangeKind::Added), mailboxes),
            Message::Changed(delta) => {
                channel.change_member(change(delta, MemberChangeKind::Changed), mailboxes)
            }
            Message::Removed(delta) => {
                channel.change_member(change(delta, |_| MemberChangeKind::Removed), mailboxes)
            }
            Message::Count(count) => {
                let announces = app.settings().subscription_count;
                let count = u32::try_from(count).unwrap_or(u32::MAX);
                if channel.change_count(count, announces, mailboxes, app.now_ms()) {
                    app.channels.await_count(channel);
                }
                Replicated::Done
            }
            Message::Stored(stored) => {
                let Stored { generation, serial, time_ms, size, id, event } = stored;
                let Event { except, cache, frame } = event;
                let cache = cache.map(|cache| Arc::new(cache_entry(&cache.data, cache.ttl_ms, app.now_ms())));
                let event = RemoteEvent {
                    generation,
                    serial,
                    time_ms,
                    size: size.into(),
                    id: id.map(Box::from),
                    except: except.and_then(SocketId::from_bits),
                    frame,
                    cache,
                };
                channel.deliver_stored(event, mailboxes)
            }
            Message::Purged(before) => {
                app.channels.forget_before(channel.name(), before, app.now_ms());
                if let Some(replay) = app.replay.get() {
                    replay.forget_pages(&StreamName { app: app.id.clone(), channel: channel.name().into() });
                }
                Replicated::Done
            }
            Message::Online | Message::Offline | Message::Terminate(_) => {
                self.metrics.fanout.count_error("malformed");
                Replicated::Done
            }
        }
    }
}

fn change(
    delta: Delta,
    kind: impl FnOnce(Option<Box<serde_json::value::RawValue>>) -> MemberChangeKind,
) -> MemberChange {
    let Delta { version, user_id, info } = delta;
    MemberChange { version, user_id: user_id.into(), kind: kind(info) }
}

/// The cached event's data, for as long as the cluster keeps it.
pub fn cache_entry(data: &Bytes, ttl_ms: u64, now_ms: u64) -> CacheEntry {
    CacheEntry { data: String::from_utf8_lossy(data).into(), expires_ms: now_ms.saturating_add(ttl_ms) }
}
