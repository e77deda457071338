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
        /// What the subscriber's own signature leaves of the rule.
        narrowing: Retention,
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
    let narrowing = retention_of(overrides);
    let retention = rule.retention().narrowed(narrowing);
    if let Start::After(position) = asked.start {
        let now_ms = state.node.clock.unix_millis().unsigned_abs();
        let channel = state.at(slot).app.channels.get(name.as_str());
        let resolved = channel.and_then(|channel| channel.resolve(position, &retention, max_replay, now_ms));
        // Of what cannot be replayed, only the store knows what is left.
        if resolved == Some(Ok(())) {
            let Position { epoch, serial: cursor } = position;
            return Ok(Some(Beginning::After { cursor, epoch, request: asked, narrowing }));
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

/// What the store found out of a subscription's beginning.
fn found<'a>(
    channel: &'a str,
    asked: ReplayRequest,
    narrowing: Retention,
    resolved: Result<Resolved, StoreError>,
) -> Result<Beginning, ReplayRefused<'a>> {
    match resolved {
        Ok(Resolved { verdict: Ok(cursor), bounds }) => {
            let epoch = bounds.position().epoch;
            Ok(Beginning::After { cursor, epoch, request: asked, narrowing })
        }
        Ok(Resolved { verdict: Err(reason), bounds }) => gap(channel, asked, reason, Some(bounds.floor)),
        Err(_) => Err(Refusal::ReplayUnavailable { channel }.into()),
    }
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
    let ticket = state.at(slot).replaying().wait(request);
    let answer = move |resolved| LogAnswer::Resolved { ticket, resolved };
    ask(state, slot, channel, start, retention, max_replay, answer).map_err(|Busy| {
        state.at(slot).replaying().cancel(channel);
        Refusal::ReplayUnavailable { channel }
    })
}

/// Asks the store again: the log became another one while the subscription waited for the cluster. The job that answers
/// has the ticket. False when it cannot be asked.
pub fn look_again(state: &mut State, slot: u32, ticket: u32, channel: &str, beginning: Beginning) -> bool {
    let settings = state.at(slot).app.settings();
    let (Beginning::After { request, narrowing, .. }, Some(rule)) =
        (beginning, settings.replay.rule(channel))
    else {
        return false;
    };
    let retention = rule.retention().narrowed(narrowing);
    let max_replay = settings.limits.max_replay_messages;
    let answer = move |resolved| LogAnswer::FoundAgain { ticket, resolved };
    ask(state, slot, channel, request.start, retention, max_replay, answer).is_ok()
}

/// What [`look_again`] came to.
pub fn found_again(
    channel: &str,
    beginning: Beginning,
    resolved: Result<Resolved, StoreError>,
) -> Result<Beginning, ReplayRefused<'_>> {
    match beginning {
        Beginning::After { request, narrowing, .. } => found(channel, request, narrowing, resolved),
        _ => Ok(beginning),
    }
}

fn ask(
    state: &mut State,
    slot: u32,
    channel: &str,
    start: Start,
    retention: Retention,
    max_replay: u64,
    answer: impl FnOnce(Result<Resolved, StoreError>) -> LogAnswer + Send + 'static,
) -> Result<(), Busy> {
    let connection = state.reference(slot);
    let mailboxes = Arc::clone(&state.node.mailboxes);
    let stream = StreamName { app: state.at(slot).app.id.clone(), channel: channel.into() };
    let replay = state.node.replay.get().ok_or(Busy)?;
    let done = move |resolved| {
        mailboxes[connection.worker as usize].push(Job::Log(connection, Box::new(answer(resolved))));
    };
    replay.resolve(Arc::new(stream), start, retention, max_replay, Box::new(done))
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
        let beginning = match overrides_of(&request) {
            Ok(overrides) => found(&request.channel, asked, retention_of(overrides), resolved),
            Err(error) => Err(error.into()),
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
