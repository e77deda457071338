//! Subscriptions that ask for what was missed: where they may begin, and what they are answered.

use std::collections::VecDeque;
use std::sync::Arc;

use tidewire_protocol::channel_name::ChannelName;
use tidewire_protocol::error::Refusal;
use tidewire_protocol::identity::{Overrides, OverridesError};
use tidewire_protocol::message::Subscribe;
use tidewire_protocol::position::{Epoch, Position};
use tidewire_protocol::replay::{OnGap, Reason, ReplayError, ReplayRequest, Rewind, Start};
use tidewire_protocol::server_message::{self, ReplayAnswer, ReplayOutcome};

use super::subscribe;
use crate::app::Settings;
use crate::config::ReplayRule;
use crate::replay::follower::Follower;
use crate::replay::store::{Retention, StoreError, StreamName};
use crate::replay::{Busy, Resolved};
use crate::worker::chase::LogAnswer;
use crate::worker::mailbox::Job;
use crate::worker::state::State;

/// What a connection has to do with logs.
#[derive(Debug, Default)]
pub struct Replaying {
    /// What every subscription asks that asks for nothing itself, from the URL of the connection.
    default_request: Option<Result<ReplayRequest, ReplayError>>,
    /// Channels it catches up with, one after the other.
    pub chasing: VecDeque<u64>,
    /// A page is on its way.
    pub awaits_page: bool,
    /// Pages in a row that could not be had.
    pub failed_reads: u32,
    /// Subscriptions that wait for the store to tell where they may begin.
    waiting: Vec<(u32, Box<Subscribe<'static>>)>,
    next_ticket: u32,
}

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// It did not ask for positions.
    Stock,
    Live,
    /// After a message that it has, and to which the log reaches back.
    After {
        cursor: u64,
        /// Of the log in which it was found.
        epoch: Epoch,
        request: ReplayRequest,
    },
    /// Live, though it asked for what was before.
    Gap {
        reason: Reason,
        oldest: Option<u64>,
    },
}

impl Beginning {
    /// Whether what was asked for is there, as it is counted; `None` when nothing was.
    pub fn outcome(self) -> Option<Result<(), Reason>> {
        match self {
            Self::Stock | Self::Live => None,
            Self::After { .. } => Some(Ok(())),
            Self::Gap { reason, .. } => Some(Err(reason)),
        }
    }
}

/// Why a subscription is refused for what it asks of the log.
#[derive(Debug)]
pub struct ReplayRefused<'a> {
    pub refusal: Refusal<'a>,
    /// Serial of the first message that is still there, where that is the reason.
    oldest: Option<u64>,
}

impl<'a, R: Into<Refusal<'a>>> From<R> for ReplayRefused<'a> {
    fn from(refusal: R) -> Self {
        Self { refusal: refusal.into(), oldest: None }
    }
}

impl ReplayRefused<'_> {
    /// Why what was asked for is not there, where that is why.
    pub fn reason(&self) -> Option<Reason> {
        match self.refusal {
            Refusal::ReplayGone { reason, .. } => Some(reason),
            _ => None,
        }
    }

    /// As `pusher:subscription_error`, which everybody gets who asked for replay.
    pub fn subscription_error(&self, channel: &str) -> String {
        let text = self.refusal.to_string();
        let (kind, status) = self.refusal.subscription_error();
        match self.refusal {
            Refusal::ReplayGone { reason, .. } => {
                server_message::replay_gone(channel, &text, reason, self.oldest)
            }
            _ => server_message::subscription_error(channel, kind, &text, status),
        }
    }
}

impl Replaying {
    /// Every subscription that asks for nothing itself asks this.
    pub fn asking(request: Result<ReplayRequest, ReplayError>) -> Self {
        Self { default_request: Some(request), ..Self::default() }
    }

    pub fn is_waiting_for(&self, channel: &str) -> bool {
        self.waiting.iter().any(|(_, request)| request.channel == channel)
    }

    /// Subscriptions that are neither granted nor refused yet.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Forgets a subscription that waits; true when there was one.
    pub fn cancel(&mut self, channel: &str) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|(_, request)| request.channel != channel);
        self.waiting.len() < before
    }

    fn wait(&mut self, request: &Subscribe<'_>) -> u32 {
        self.next_ticket = self.next_ticket.wrapping_add(1);
        self.waiting.push((self.next_ticket, Box::new(request.clone().into_owned())));
        self.next_ticket
    }

    fn take(&mut self, ticket: u32) -> Option<Box<Subscribe<'static>>> {
        let index = self.waiting.iter().position(|(held, _)| *held == ticket)?;
        Some(self.waiting.swap_remove(index).1)
    }
}

/// What the subscription asks, or what its connection asks for every one.
pub fn request_of(
    state: &mut State,
    slot: u32,
    request: &Subscribe<'_>,
) -> Result<Option<ReplayRequest>, ReplayError> {
    let default = state.at(slot).replaying.as_ref().and_then(|replaying| replaying.default_request);
    request.replay.or(default).transpose()
}

/// Finds out where the subscription begins. `None` when the store was asked: [`State::resolved`] goes on.
pub fn begin<'a>(
    state: &mut State,
    slot: u32,
    name: ChannelName<'a>,
    request: &Subscribe<'_>,
    asked: Option<ReplayRequest>,
    settings: &Settings,
) -> Result<Option<Beginning>, ReplayRefused<'a>> {
    let Some(asked) = asked else { return Ok(Some(Beginning::Stock)) };
    let Some(rule) = settings.replay.rule(name.as_str()) else {
        return gap(name.as_str(), asked, Reason::Disabled, None).map(Some);
    };
    if asked.start == Start::Live {
        return Ok(Some(Beginning::Live));
    }
    let overrides = overrides_of(request)?;
    if overrides.history == Some(false) {
        return gap(name.as_str(), asked, Reason::Disabled, None).map(Some);
    }
    let max_replay = settings.limits.max_replay_messages;
    check_rewind(name.as_str(), asked.start, rule, max_replay)?;
    let retention = rule.retention().narrowed(retention_of(overrides));
    if let Start::After(position) = asked.start {
        let now_ms = state.node.clock.unix_millis().unsigned_abs();
        let channel = state.at(slot).app.channels.get(name.as_str());
        let resolved = channel.and_then(|channel| channel.resolve(position, &retention, max_replay, now_ms));
        // Of what cannot be replayed, only the store knows what is left.
        if resolved == Some(Ok(())) {
            let Position { epoch, serial: cursor } = position;
            return Ok(Some(Beginning::After { cursor, epoch, request: asked }));
        }
    }
    ask_store(state, slot, name, request, asked.start, retention, max_replay)?;
    Ok(None)
}

fn gap(
    channel: &str,
    asked: ReplayRequest,
    reason: Reason,
    oldest: Option<u64>,
) -> Result<Beginning, ReplayRefused<'_>> {
    match asked.on_gap {
        OnGap::Reject if asked.start != Start::Live => {
            Err(ReplayRefused { refusal: Refusal::ReplayGone { channel, reason }, oldest })
        }
        _ => Ok(Beginning::Gap { reason, oldest }),
    }
}

/// The beginning, unless the rule is gone since that was looked up.
pub fn under_rule<'a>(
    channel: &'a str,
    rule: Option<&ReplayRule>,
    beginning: Beginning,
) -> Result<Beginning, ReplayRefused<'a>> {
    match (rule, beginning) {
        (None, Beginning::After { request, .. }) => gap(channel, request, Reason::Disabled, None),
        _ => Ok(beginning),
    }
}

/// The beginning, unless the log became another one while the subscription waited for the cluster.
pub fn upon_entering(
    channel: &str,
    beginning: Beginning,
    head: Option<Position>,
) -> Result<Beginning, ReplayRefused<'_>> {
    let (Beginning::After { cursor, epoch, request }, Some(head)) = (beginning, head) else {
        return Ok(beginning);
    };
    if head.epoch.nonce != epoch.nonce {
        return gap(channel, request, Reason::StreamReset, None);
    }
    if head.epoch.generation > epoch.generation && head.serial < cursor {
        return gap(channel, request, Reason::RolledBack, None);
    }
    Ok(beginning)
}

fn overrides_of(request: &Subscribe<'_>) -> Result<Overrides, OverridesError> {
    request.channel_data.as_deref().map_or(Ok(Overrides::default()), Overrides::of_channel_data)
}

fn retention_of(overrides: Overrides) -> Retention {
    let ms = |seconds: u64| seconds.saturating_mul(1000);
    Retention {
        window_ms: overrides.window_seconds.map_or(u64::MAX, ms),
        max_messages: overrides.max_messages.unwrap_or(u64::MAX),
        max_bytes: u64::MAX,
        inactivity_ttl_ms: overrides.inactivity_ttl_seconds.map_or(0, ms),
    }
}

fn check_rewind<'a>(
    channel: &'a str,
    start: Start,
    rule: &ReplayRule,
    max_messages: u64,
) -> Result<(), Refusal<'a>> {
    let window_seconds = rule.window.as_secs();
    match start {
        Start::Rewind(Rewind::Count(count)) if count > max_messages => {
            Err(Refusal::RewindCount { count, max_messages })
        }
        Start::Rewind(Rewind::Seconds(seconds)) if seconds > window_seconds => {
            Err(Refusal::RewindSeconds { channel, seconds, window_seconds })
        }
        _ => Ok(()),
    }
}

fn ask_store<'a>(
    state: &mut State,
    slot: u32,
    name: ChannelName<'a>,
    request: &Subscribe<'_>,
    start: Start,
    retention: Retention,
    max_replay: u64,
) -> Result<(), Refusal<'a>> {
    let channel = name.as_str();
    let connection = state.reference(slot);
    let mailboxes = Arc::clone(&state.node.mailboxes);
    let stream = StreamName { app: state.at(slot).app.id.clone(), channel: name.as_str().into() };
    let node = Arc::clone(&state.node);
    let replay = node.replay.get().ok_or(Refusal::ReplayUnavailable { channel })?;
    let ticket = state.at(slot).replaying().wait(request);
    let answer = move |resolved| {
        let answer = Box::new(LogAnswer::Resolved { ticket, resolved });
        mailboxes[connection.worker as usize].push(Job::Log(connection, answer));
    };
    replay.resolve(Arc::new(stream), start, retention, max_replay, Box::new(answer)).map_err(|Busy| {
        state.at(slot).replaying().cancel(channel);
        Refusal::ReplayUnavailable { channel }
    })
}

impl State {
    /// Goes on with a subscription whose beginning the store has looked up.
    pub fn resolved(&mut self, slot: u32, ticket: u32, resolved: Result<Resolved, StoreError>) {
        // It may have been cancelled.
        let Some(request) = self.at(slot).replaying().take(ticket) else { return };
        let asked = match request_of(self, slot, &request) {
            Ok(Some(asked)) => asked,
            _ => return,
        };
        let beginning = match resolved {
            Ok(Resolved { verdict: Ok(cursor), bounds }) => {
                let epoch = bounds.position().epoch;
                Ok(Beginning::After { cursor, epoch, request: asked })
            }
            Ok(Resolved { verdict: Err(reason), bounds }) => {
                gap(&request.channel, asked, reason, Some(bounds.floor))
            }
            Err(_) => Err(Refusal::ReplayUnavailable { channel: &request.channel }.into()),
        };
        subscribe::subscribe_at(self, slot, &request, beginning);
    }

    /// Begins to keep the subscriber's place in the log, right after it was told of its subscription.
    pub fn begin_following(&mut self, slot: u32, channel: u64, head: Position, beginning: Beginning) {
        let follower = match beginning {
            Beginning::Stock => return,
            Beginning::Live | Beginning::Gap { .. } => Follower::live(true, head),
            Beginning::After { cursor, request, .. } => {
                let target = Position { serial: head.serial.max(cursor), ..head };
                Follower::resuming(cursor, target, request.not_from)
            }
        };
        self.follow(slot, channel, follower);
    }
}

/// What the answer to the subscription says of the log; nothing to those who did not ask.
pub fn answer_of(beginning: Beginning, head: Option<Position>) -> Option<ReplayAnswer> {
    let (position, outcome) = match beginning {
        Beginning::Stock => return None,
        Beginning::Live => (head, ReplayOutcome::Live),
        Beginning::Gap { reason, oldest } => (head, ReplayOutcome::Gap { reason, oldest }),
        Beginning::After { cursor, .. } => {
            let target = head.map(|head| Position { serial: head.serial.max(cursor), ..head });
            let count = target.map_or(0, |target| target.serial - cursor);
            (target, ReplayOutcome::Recovered { count })
        }
    };
    Some(ReplayAnswer { position, outcome })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(position: Position, on_gap: OnGap) -> Beginning {
        let request = ReplayRequest { start: Start::After(position), on_gap, not_from: None };
        Beginning::After { cursor: position.serial, epoch: position.epoch, request }
    }

    #[test]
    fn a_log_that_became_another_one_meanwhile_is_not_gone_on_with() {
        let at = |text: &str| text.parse::<Position>().unwrap();
        let upon = |from, head, on_gap| upon_entering("c", after(at(from), on_gap), Some(at(head)));
        let gap = |reason| Beginning::Gap { reason, oldest: None };
        let live = OnGap::default();
        for head in ["a.1:15", "a.1:20", "a.2:15", "a.2:16"] {
            assert_eq!(upon("a.1:15", head, live).unwrap(), after(at("a.1:15"), live), "{head}");
        }
        // What was delivered may be behind what is stored.
        assert_eq!(upon("a.2:15", "a.1:14", live).unwrap(), after(at("a.2:15"), live));
        assert_eq!(upon("a.1:15", "b.1:20", live).unwrap(), gap(Reason::StreamReset));
        assert_eq!(upon("a.1:15", "a.2:14", live).unwrap(), gap(Reason::RolledBack));
        let refused = upon("a.1:15", "b.1:20", OnGap::Reject).unwrap_err();
        assert_eq!(refused.reason(), Some(Reason::StreamReset));
    }
}
