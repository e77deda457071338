//! What an observer makes of the frames that it hears: its positions, its answers, its history.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use serde_json::json;
use tidewire_bench::api;

use crate::check::is_ordinary;
use crate::history::{Act, Record, add_line};
use crate::observer::{Ended, Observer};
use crate::wire::{self, Frame};

/// One subscription.
pub struct Watch {
    pub channel: String,
    /// Empty before the first answer.
    epoch: String,
    serial: u64,
    /// Where it began without a break.
    start: u64,
    /// The position that it asked to go on from.
    asked: String,
    /// Where the replay that is under way ends.
    until: Option<(String, u64)>,
    is_new: bool,
}

/// How far back a repair goes at most.
const REPAIRED: usize = 30;

impl Observer {
    pub fn establish(&mut self, frame: &Frame<'_>) -> Result<(), Ended> {
        self.socket_id = frame.socket_id().ok_or(Ended::Garbled)?;
        *self.progress.socket_id.lock().unwrap_or_else(PoisonError::into_inner) = self.socket_id.clone();
        self.progress.is_connected.store(true, Ordering::Release);
        for index in 0..self.watches.len() {
            self.subscribe(index);
        }
        Ok(())
    }

    /// Asks for what it has once more, as a client does that has found a gap.
    pub fn repair(&mut self) {
        if self.socket_id.is_empty() {
            return;
        }
        for index in 0..self.watches.len() {
            let back = self.random.below(REPAIRED) as u64;
            let watch = &self.watches[index];
            if watch.is_settled() && watch.until.is_none() {
                self.subscribe_from(index, watch.serial.saturating_sub(back).max(watch.start));
            }
        }
    }

    /// Leaves and comes back on the same connection, with messages under way.
    pub fn flap(&mut self) {
        if self.socket_id.is_empty() {
            return;
        }
        for index in 0..self.watches.len() {
            if self.watches[index].is_settled() {
                let data = json!({ "channel": self.watches[index].channel });
                self.replies.push(json!({ "event": "pusher:unsubscribe", "data": data }).to_string());
                self.note_leaving(index);
                self.subscribe(index);
            }
        }
    }

    /// Sends a client event to each channel that takes them.
    pub fn speak(&mut self) {
        for index in 0..self.watches.len() {
            let channel = self.watches[index].channel.clone();
            let is_allowed = channel.starts_with("private-") || channel.starts_with("presence-");
            if !is_allowed || self.socket_id.is_empty() || self.watches[index].epoch.is_empty() {
                continue;
            }
            self.said += 1;
            let mid = format!("{}{}{}", self.plan.name, wire::CLIENT_MARK, self.said);
            let data = wire::payload(&mid, 40);
            self.replies
                .push(json!({ "event": "client-faults", "channel": channel, "data": data }).to_string());
            let (ch, sid) = (&*channel, &*self.socket_id);
            // Nobody tells the sender what becomes of it.
            let record = Record { p: &self.plan.name, f: Act::Publish, kind: "info", ..Record::default() };
            self.field.history.note(&Record { ch, sid, mid: &mid, ..record });
        }
    }

    pub fn subscribe(&mut self, index: usize) {
        let serial = self.watches[index].serial;
        self.subscribe_from(index, serial);
    }

    fn subscribe_from(&mut self, index: usize, serial: u64) {
        let watch = &mut self.watches[index];
        watch.asked.clear();
        if !watch.epoch.is_empty() {
            watch.asked = format!("{}:{serial}", watch.epoch);
        }
        let watch = &self.watches[index];
        let mut replay = String::from("{\"v\":1");
        if !watch.asked.is_empty() {
            replay += &format!(",\"from\":\"{}\"", watch.asked);
        } else if watch.is_new && !self.plan.rewind.is_empty() {
            replay += &format!(",\"rewind\":{}", self.plan.rewind);
        }
        if !self.last_socket_id.is_empty() {
            replay += &format!(",\"not_from\":\"{}\"", self.last_socket_id);
        }
        if self.plan.rejects_gaps && !watch.epoch.is_empty() {
            replay += ",\"on_gap\":\"reject\"";
        }
        let channel = watch.channel.clone();
        let replay = if is_ordinary(&channel) { String::new() } else { format!(",\"replay\":{replay}}}") };
        self.note_asking(&channel);
        let auth = self.auth(&channel);
        self.replies.push(format!(
            r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"{auth}{replay}}}}}"#
        ));
    }

    fn auth(&self, channel: &str) -> String {
        let app = &self.field.app;
        let signed = format!("{}:{channel}", self.socket_id);
        if channel.starts_with("presence-") {
            let member = json!({ "user_id": self.user() }).to_string();
            let signature = api::sign(&app.secret, &format!("{signed}:{member}"));
            let quoted = json!(member);
            return format!(",\"auth\":\"{}:{signature}\",\"channel_data\":{quoted}", app.key);
        }
        if channel.starts_with("private-") {
            return format!(",\"auth\":\"{}:{}\"", app.key, api::sign(&app.secret, &signed));
        }
        String::new()
    }

    pub fn note(&mut self, record: &Record<'_>) {
        add_line(&mut self.lines, &Record { p: &self.plan.name, ..*record });
    }

    fn index_of(&self, frame: &Frame<'_>) -> Option<usize> {
        let channel = frame.channel?;
        self.watches.iter().position(|watch| watch.channel == channel)
    }

    pub fn succeed(&mut self, now: u64, frame: &Frame<'_>) {
        let Some(index) = self.index_of(frame) else { return self.foreign(now, frame) };
        let watch = &mut self.watches[index];
        let from = std::mem::take(&mut watch.asked);
        let is_rewound = watch.is_new && !self.plan.rewind.is_empty();
        let mut record = Record { t: now, f: Act::SubOk, kind: "live", from: &from, ..Record::default() };
        if let Some(answer) = frame.replay.as_ref().filter(|_| !is_ordinary(&watch.channel)) {
            record = Record { epoch: answer.epoch, serial: answer.serial, reason: answer.reason, ..record };
            record = Record { count: answer.count, oldest: answer.oldest, ..record };
            match (answer.recovered, answer.serial) {
                (Some(true), Some(serial)) => {
                    // A rewind has no position before its first message comes.
                    watch.until = Some((answer.epoch.to_owned(), serial));
                    watch.go_back(&from);
                    record.kind = if is_rewound { "rewound" } else { "recovered" };
                }
                (recovered, serial) => {
                    record.kind = if recovered.is_some() { "gap" } else { "live" };
                    watch.start_at(answer.epoch, serial.unwrap_or(0));
                }
            }
        }
        watch.is_new &= watch.epoch.is_empty();
        let (sid, not_from) = (self.socket_id.clone(), self.last_socket_id.clone());
        let channel = watch.channel.clone();
        self.note(&Record { ch: &channel, sid: &sid, not_from: &not_from, ..record });
        self.progress.subscribed.fetch_add(1, Ordering::AcqRel);
        self.show(index);
    }

    pub fn receive(&mut self, now: u64, frame: &Frame<'_>) {
        let Some(index) = self.index_of(frame) else { return self.foreign(now, frame) };
        let watch = &mut self.watches[index];
        if let Some(epoch) = frame.epoch {
            watch.epoch.clear();
            watch.epoch.push_str(epoch);
        } else if let (true, Some((epoch, _))) = (watch.epoch.is_empty(), &watch.until) {
            watch.epoch.push_str(epoch);
            watch.start = frame.serial.unwrap_or(1).saturating_sub(1);
        }
        watch.serial = watch.serial.max(frame.serial.unwrap_or(0));
        let watch = &self.watches[index];
        let mid = frame.mid().unwrap_or("?");
        let record = Record {
            t: now,
            p: &self.plan.name,
            f: Act::Recv,
            kind: if frame.replayed { "replayed" } else { "" },
            ch: &watch.channel,
            epoch: &watch.epoch,
            serial: frame.serial,
            mid,
            // A message that has a serial has its key as `id`, too.
            id: match frame.id {
                Some(id) if id != mid => id,
                None if frame.serial.is_some() && !wire::is_of_client(mid) => "?",
                _ => "",
            },
            prev: frame.prev,
            ..Record::default()
        };
        add_line(&mut self.lines, &record);
        self.field.received.fetch_add(1, Ordering::Relaxed);
        self.show(index);
    }

    /// The checker knows that nobody subscribed to it.
    fn foreign(&mut self, now: u64, frame: &Frame<'_>) {
        let (ch, mid) = (frame.channel.unwrap_or("?"), frame.mid().unwrap_or("?"));
        self.note(&Record { t: now, f: Act::Recv, ch, mid, serial: frame.serial, ..Record::default() });
    }

    pub fn finish_replay(&mut self, now: u64, frame: &Frame<'_>) {
        let Some(index) = self.index_of(frame) else { return };
        let watch = &mut self.watches[index];
        if let Some((epoch, serial)) = watch.until.take()
            && watch.serial <= serial
        {
            watch.go_to(&epoch, serial);
        }
        self.note(&Record {
            t: now,
            f: Act::Done,
            ch: frame.channel.unwrap_or("?"),
            serial: frame.serial,
            ..Record::default()
        });
        self.show(index);
    }

    pub fn skip(&mut self, now: u64, frame: &Frame<'_>) {
        let Some(index) = self.index_of(frame) else { return };
        let watch = &mut self.watches[index];
        watch.serial = watch.serial.max(frame.serial.unwrap_or(0));
        let ch = frame.channel.unwrap_or("?");
        self.note(&Record { t: now, f: Act::Skip, ch, serial: frame.serial, ..Record::default() });
        self.show(index);
    }

    pub fn reset(&mut self, now: u64, frame: &Frame<'_>) {
        let Some(index) = self.index_of(frame) else { return };
        let from = self.watches[index].position();
        let epoch = frame.epoch.unwrap_or("");
        self.watches[index].until = None;
        self.watches[index].start_at(epoch, frame.serial.unwrap_or(0));
        self.note(&Record {
            t: now,
            f: Act::Resync,
            ch: frame.channel.unwrap_or("?"),
            epoch,
            serial: frame.serial,
            from: &from,
            reason: frame.reason.unwrap_or(""),
            ..Record::default()
        });
        self.show(index);
    }

    pub fn refused(&mut self, now: u64, frame: &Frame<'_>) -> Result<(), Ended> {
        let Some(index) = self.index_of(frame) else { return Ok(()) };
        let refusal = frame.refusal();
        let watch = &mut self.watches[index];
        let from = std::mem::take(&mut watch.asked);
        let is_gone = refusal.kind == "ReplayGone";
        if is_gone {
            // It starts over without a position.
            watch.epoch.clear();
            watch.is_new = false;
        }
        self.note(&Record {
            t: now,
            f: Act::Refused,
            kind: if is_gone { "gone" } else { "error" },
            ch: frame.channel.unwrap_or("?"),
            from: &from,
            reason: &refusal.reason.replace(['"', '\\'], ""),
            oldest: refusal.oldest,
            status: Some(refusal.status),
            ..Record::default()
        });
        if !is_gone {
            return Err(Ended::Unavailable);
        }
        self.subscribe(index);
        Ok(())
    }

    fn show(&self, index: usize) {
        if let Some(shown) = self.progress.serials.get(index) {
            shown.store(self.watches[index].serial, Ordering::Release);
        }
    }
}

impl Watch {
    pub fn new(channel: &str) -> Self {
        let (epoch, asked) = Default::default();
        Self { channel: channel.to_owned(), epoch, serial: 0, start: 0, asked, until: None, is_new: true }
    }

    /// It has a place, and no answer is under way.
    fn is_settled(&self) -> bool {
        !self.epoch.is_empty() && self.asked.is_empty()
    }

    /// The connection is gone.
    pub fn leave(&mut self) {
        self.until = None;
        self.asked.clear();
    }

    fn position(&self) -> String {
        format!("{}:{}", self.epoch, self.serial)
    }

    /// To the position that it asked to go on from.
    fn go_back(&mut self, position: &str) {
        if let Some((epoch, serial)) = position.split_once(':') {
            let serial = serial.parse().unwrap_or(self.serial);
            self.go_to(epoch, serial);
        }
    }

    fn start_at(&mut self, epoch: &str, serial: u64) {
        self.start = serial;
        self.go_to(epoch, serial);
    }

    fn go_to(&mut self, epoch: &str, serial: u64) {
        self.epoch.clear();
        self.epoch.push_str(epoch);
        self.serial = serial;
    }
}
