//! What an observer tells, line by line.

use std::collections::HashMap;

use tidewire_protocol::position::Position;

use super::channel::Channel;
use super::report::{Fault, Report};
use super::watch::{Pending, Watch};
use super::{Checker, Expect, SLOW, channel_mut, is_excluded, position};
use crate::history::Record;

/// Microseconds by which an observer may hear later of an answer than it was given.
const MARGIN: u64 = 100_000;

impl Checker {
    pub(super) fn sub_ok(&mut self, record: &Record<'_>) {
        let report = &mut self.report;
        let watch = watch_mut(&mut self.watches, record);
        let channel = channel_mut(&mut self.channels, record.ch);
        let was_open = watch.is_open;
        watch.opens(record.t, record.sid, record.not_from);
        let Some(answered) = position(record) else {
            // A channel that is not stored has no position.
            if record.reason != "disabled" || !self.expect.has_disabled {
                report.add(Fault::Garbled, || format!("{} was answered without a position", at(record)));
            }
            return;
        };
        match record.kind {
            "recovered" => {
                if was_open {
                    go_back(record, watch, report);
                }
                recover(record, answered, channel, watch, report);
            }
            "rewound" => {
                watch.end_segment(false);
                watch.position = None;
                watch.pending = Some(Pending::of(record, answered, None, 0));
            }
            "gap" => {
                *report.resyncs.entry(record.reason.to_owned()).or_default() += 1;
                if let Some(why) = needless(&self.expect, channel, watch, record) {
                    report.add(Fault::NeedlessResync, || format!("{} {why}", at(record)));
                }
                watch.restart(answered);
            }
            _ => watch.restart(answered),
        }
    }

    pub(super) fn recv(&mut self, record: &Record<'_>) {
        let report = &mut self.report;
        report.deliveries += 1;
        report.replayed += u64::from(record.kind == "replayed");
        let mid = self.names.number(record.mid);
        let watch = self.watches.get_mut(record.p).and_then(|watches| watches.get_mut(record.ch));
        let Some(watch) = watch.filter(|watch| watch.is_open) else {
            return report.add(Fault::Foreign, || format!("{} is not subscribed", at(record)));
        };
        let channel = channel_mut(&mut self.channels, record.ch);
        let is_hidden = record.kind == "replayed" && channel.excludes(mid, &watch.not_from);
        if channel.excludes(mid, &watch.socket_id) || is_hidden {
            report
                .add(Fault::Foreign, || format!("{} was left out of {} and got it", at(record), record.mid));
        }
        if record.serial.is_none() {
            report.unstored += 1;
            // The cached event of a cache channel is sent as it was, to those who begin.
            if watch.position.is_some() && !record.ch.contains("cache-") && !self.expect.has_disabled {
                report.add(Fault::Garbled, || format!("{} {} has no serial", at(record), record.mid));
            }
            return;
        }
        let Some(position) = position(record) else {
            return report.add(Fault::Garbled, || format!("{} has no epoch", at(record)));
        };
        let asked_at = watch.opened_at.saturating_sub(MARGIN);
        if record.kind == "replayed" && channel.is_purged(position.serial, asked_at) {
            report.add(Fault::Purged, || format!("{} {} had been purged", at(record), record.mid));
        }
        channel.place(mid, record.mid, position, self.expect.may_lose, record.p, report);
        if !record.id.is_empty() {
            report.add(Fault::Inconsistent, || {
                format!("{}: {} has the id {}", at(record), record.mid, record.id)
            });
        }
        if record.kind != "replayed" && !record.p.starts_with(SLOW) {
            let began = channel.published.get(&mid).map_or(0, |known| known.began);
            if began > 0 {
                report.latency.saturating_record(record.t.saturating_sub(began));
            }
        }
        advance(record, position, watch, report);
        if let Some(pending) = &mut watch.pending {
            pending.came += u64::from(position.serial <= pending.until);
        }
        watch.takes(position.serial, mid);
    }

    pub(super) fn done(&mut self, record: &Record<'_>) {
        let report = &mut self.report;
        let watch = watch_mut(&mut self.watches, record);
        let channel = channel_mut(&mut self.channels, record.ch);
        let Some(pending) = watch.pending.take() else {
            return report.add(Fault::Garbled, || format!("{} done without a replay", at(record)));
        };
        if record.serial != Some(pending.until) {
            report.add(Fault::Garbled, || format!("{} is not the end, {}", at(record), pending.until));
        }
        judge_recovery(record, &pending, channel, watch, report);
        if pending.lost_at > 0 {
            report.catch_up.saturating_record(record.t.saturating_sub(pending.lost_at));
        }
        let end = Position { epoch: pending.epoch, serial: pending.until };
        match watch.position {
            None => watch.restart(end),
            Some(position) if position.serial <= end.serial => watch.position = Some(end),
            Some(_) => {}
        }
    }

    pub(super) fn skip(&mut self, record: &Record<'_>) {
        self.report.skips += 1;
        let watch = watch_mut(&mut self.watches, record);
        let (Some(serial), Some(position)) = (record.serial, watch.position) else { return };
        if serial <= position.serial {
            self.report.add(Fault::Reordered, || format!("{} is behind {}", at(record), position.serial));
            return;
        }
        if serial > position.serial + 1 {
            self.report.add(Fault::Gap, || format!("{} follows {}", at(record), position.serial));
        }
        watch.skips(serial);
        watch.position = Some(Position { serial, ..position });
    }

    pub(super) fn resync(&mut self, record: &Record<'_>) {
        *self.report.resyncs.entry(format!("{} while connected", record.reason)).or_default() += 1;
        let watch = watch_mut(&mut self.watches, record);
        let channel = channel_mut(&mut self.channels, record.ch);
        if let Some(why) = needless(&self.expect, channel, watch, record) {
            self.report.add(Fault::NeedlessResync, || format!("{} {why}", at(record)));
        }
        watch.pending = None;
        match position(record) {
            Some(position) => watch.restart(position),
            None => self.report.add(Fault::Garbled, || format!("{} has no position", at(record))),
        }
    }

    pub(super) fn refused(&mut self, record: &Record<'_>) {
        if record.kind != "gone" {
            return;
        }
        *self.report.resyncs.entry(format!("{} refused", record.reason)).or_default() += 1;
        let watch = watch_mut(&mut self.watches, record);
        let channel = channel_mut(&mut self.channels, record.ch);
        if let Some(why) = needless(&self.expect, channel, watch, record) {
            self.report.add(Fault::NeedlessResync, || format!("{} {why}", at(record)));
        }
    }
}

impl Pending {
    fn of(record: &Record<'_>, answered: Position, after: Option<u64>, lost_at: u64) -> Self {
        let Position { epoch, serial: until } = answered;
        Self { after, until, epoch, count: record.count, came: 0, lost_at }
    }
}

/// On one connection a client may ask for what it has already.
fn go_back(record: &Record<'_>, watch: &mut Watch, report: &mut Report) {
    let Ok(from) = record.from.parse::<Position>() else { return };
    match watch.position {
        Some(position) if (watch.start()..=position.serial).contains(&from.serial) => watch.goes_back(from),
        _ => report.add(Fault::Garbled, || format!("{} went back to {}", at(record), record.from)),
    }
}

fn recover(
    record: &Record<'_>,
    answered: Position,
    channel: &Channel,
    watch: &mut Watch,
    report: &mut Report,
) {
    report.recoveries += 1;
    let Some(position) = watch.position else {
        return report.add(Fault::Garbled, || format!("{} recovered without a position", at(record)));
    };
    if record.from != position.to_string() {
        report.add(Fault::Garbled, || format!("{} asked from {}, not {position}", at(record), record.from));
    }
    if answered.serial < position.serial || answered.epoch.nonce != position.epoch.nonce {
        report.add(Fault::WrongRecovery, || format!("{} recovered {position} at {answered}", at(record)));
    }
    let lost_at = std::mem::take(&mut watch.closed_at);
    if lost_at > 0 && channel.went_on_without_log(lost_at, record.t.saturating_sub(MARGIN)) {
        report.add(Fault::WrongRecovery, || {
            format!("{} recovered {position} over messages that were not stored", at(record))
        });
    }
    watch.trusts();
    watch.pending = Some(Pending::of(record, answered, Some(position.serial), lost_at));
}

/// One step forward, and only one.
fn advance(record: &Record<'_>, next: Position, watch: &mut Watch, report: &mut Report) {
    let before = record.prev.unwrap_or(next.serial.saturating_sub(1));
    let Some(position) = watch.position else {
        // The first message of a rewind tells where it begins.
        if watch.pending.as_ref().is_none_or(|pending| pending.after.is_some()) {
            report.add(Fault::Garbled, || format!("{} before any answer", at(record)));
        }
        watch.restart(Position { serial: before, ..next });
        watch.position = Some(next);
        return;
    };
    if next.serial <= position.serial {
        let fault = if next.serial <= watch.start() || watch.has(next.serial) {
            Fault::Duplicate
        } else {
            Fault::Reordered
        };
        return report.add(fault, || format!("{} after {}", at(record), position.serial));
    }
    if before > position.serial {
        report.add(Fault::Gap, || format!("{} follows {before}, not {}", at(record), position.serial));
    }
    // A rewind counts as of the newest generation until it is told another.
    let is_older = next.epoch.generation < position.epoch.generation && watch.pending.is_none();
    if next.epoch.nonce != position.epoch.nonce || is_older {
        report
            .add(Fault::Garbled, || format!("{} is of {}, after {}", at(record), next.epoch, position.epoch));
    }
    if next.epoch.generation > position.epoch.generation && watch.pending.is_none() {
        // Not told otherwise, it takes what it has for what the log has.
        watch.trusts();
    }
    watch.position = Some(next);
}

/// `recovered: true` means: all of it, and as many as announced.
fn judge_recovery(
    record: &Record<'_>,
    pending: &Pending,
    channel: &Channel,
    watch: &Watch,
    report: &mut Report,
) {
    let first = pending.after.unwrap_or(watch.start()) + 1;
    let nonce = pending.epoch.nonce;
    let is_left_out = |serial| channel.at(nonce, serial).is_some_and(|mid| is_excluded(channel, watch, mid));
    let missing: Vec<u64> = (first..=pending.until)
        .filter(|serial| watch.position.is_some() && !watch.has(*serial) && !is_left_out(*serial))
        .collect();
    if let Some(serial) = missing.first() {
        report.add(Fault::WrongRecovery, || {
            format!("{}: {} of the replay did not come, the first is {serial}", at(record), missing.len())
        });
    }
    let whole = (pending.until + 1).saturating_sub(first);
    let is_as_announced = pending.count.is_none_or(|count| count == pending.came || count == whole);
    if !is_as_announced {
        report.add(Fault::WrongRecovery, || {
            let (count, came) = (pending.count.unwrap_or(0), pending.came);
            format!("{}: {count} were announced, {came} of {whole} came", at(record))
        });
    }
}

/// Why a resync was not needed; `None` when it was.
fn needless(expect: &Expect, channel: &Channel, watch: &Watch, record: &Record<'_>) -> Option<String> {
    let from: Position = record.from.parse().ok()?;
    // Who is refused is not told where the log stands, only where it begins.
    let head_of = |oldest: u64| (oldest + expect.max_messages).saturating_sub(1);
    let head = record.serial.or_else(|| record.oldest.map(head_of)).unwrap_or(from.serial);
    let upto = record.serial.or_else(|| record.oldest.map(|oldest| oldest - 1)).unwrap_or(from.serial);
    let held = watch.last.filter(|(serial, _)| *serial == from.serial);
    let is_still_there = held.is_some_and(|(serial, mid)| channel.stored.get(&serial) == Some(&mid));
    let is_same_log = channel.covered.is_some_and(|covered| covered.epoch.nonce == from.epoch.nonce);
    let first = from.serial + 1;
    let is_needless = match record.reason {
        "too_many" => {
            let head = record.serial.unwrap_or_else(|| channel.head_by(record.t));
            head.saturating_sub(from.serial) <= expect.max_replay
        }
        // A lost slice may have been all that told of the cursor's generation.
        "stream_reset" => is_same_log && (!expect.may_lose || is_still_there),
        "rolled_back" => !expect.may_lose || is_still_there,
        "expired" => {
            record.oldest.is_some_and(|oldest| oldest <= first)
                || channel.has_all(from.epoch, from.serial, upto)
                || !(expect.may_lose
                    || expect.drops_early
                    || is_beyond_retention(expect, channel, from, head, record.t))
        }
        "disabled" => !expect.has_disabled,
        _ => true,
    };
    is_needless.then(|| format!("resynced ({}) from {from} to {upto}", record.reason))
}

/// Whether the message after `from` may have been trimmed by then.
fn is_beyond_retention(expect: &Expect, channel: &Channel, from: Position, head: u64, now: u64) -> bool {
    let first = from.serial + 1;
    let by_count = expect.max_messages > 0 && head + 1 > first + expect.max_messages;
    let published = channel.at(from.epoch.nonce, first).and_then(|mid| channel.published.get(&mid));
    let by_age = expect.window > 0 && published.is_none_or(|known| known.began + expect.window <= now);
    let by_purge = channel.purges.iter().any(|(at, before)| *at <= now && first < *before);
    by_count || by_age || by_purge
}

fn watch_mut<'a>(
    watches: &'a mut HashMap<Box<str>, HashMap<Box<str>, Watch>>,
    record: &Record<'_>,
) -> &'a mut Watch {
    // Owned keys are made only where a name is new.
    if !watches.contains_key(record.p) {
        watches.insert(record.p.into(), HashMap::new());
    }
    let own = watches.get_mut(record.p).expect("it was put there above");
    if !own.contains_key(record.ch) {
        own.insert(record.ch.into(), Watch::default());
    }
    own.get_mut(record.ch).expect("it was put there above")
}

fn at(record: &Record<'_>) -> String {
    let serial = record.serial.map_or_else(|| "?".to_owned(), |serial| serial.to_string());
    format!("{} {}:{serial} at {:.3} s,", record.p, record.ch, record.t as f64 / 1e6)
}
