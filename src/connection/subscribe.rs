//! Joining and leaving channels (2.4, 2.5).

use std::sync::Arc;

use tidewire_protocol::auth;
use tidewire_protocol::channel_name::{Access, ChannelName};
use tidewire_protocol::error::Refusal;
use tidewire_protocol::identity::{Member, MemberLimits};
use tidewire_protocol::message::Subscribe;
use tidewire_protocol::position::Position;
use tidewire_protocol::replay::Start;
use tidewire_protocol::{frame, server_message};

use super::resume::{self, Beginning, ReplayRefused};
use super::{Connection, Library, joining};
use crate::app::{App, Settings};
use crate::hub::Subscribed;
use crate::hub::channel::{Channel, JoinLimits, JoinRefused, Joined, LogPosition};
use crate::replay::store::StreamName;
use crate::worker::state::State;

pub fn subscribe(state: &mut State, slot: u32, request: &Subscribe<'_>) {
    let app = Arc::clone(&state.at(slot).app);
    let settings = app.settings();
    let name = match ChannelName::parse(&request.channel, settings.limits.max_channel_name_length) {
        Ok(name) => name,
        Err(error) => return refuse(state, slot, &request.channel, &Refusal::Name(error)),
    };
    let asked = match resume::request_of(state, slot, request) {
        Ok(asked) => asked,
        Err(error) => return refuse_replay(state, slot, name.as_str(), &error.into()),
    };
    // What the URL asks for every subscription is for new ones.
    let goes_back = matches!(request.replay, Some(Ok(asked)) if asked.start != Start::Live);
    if is_waiting(state, slot, name.as_str()) || (!goes_back && is_subscribed(state, slot, name.as_str())) {
        // The subscription that exists is untouched, so nobody hears of an error on the channel itself.
        return state.refuse(slot, &Refusal::AlreadySubscribed { channel: name.as_str() });
    }
    let member = match check(state, slot, &settings, name, request) {
        Ok(member) => member,
        Err(refused) => return refuse_with(state, slot, name.as_str(), &refused),
    };
    match resume::begin(state, slot, name, request, asked, &settings) {
        Ok(Some(beginning)) => join(state, slot, &settings, name, member, beginning),
        Ok(None) => {}
        Err(refused) => refuse_replay(state, slot, name.as_str(), &refused),
    }
}

/// Goes on with a subscription for which the store was asked. All is checked anew: time has passed.
pub fn subscribe_at(
    state: &mut State,
    slot: u32,
    request: &Subscribe<'_>,
    beginning: Result<Beginning, ReplayRefused<'_>>,
) {
    let app = Arc::clone(&state.at(slot).app);
    let settings = app.settings();
    let beginning = match beginning {
        Ok(beginning) => beginning,
        Err(refused) => return refuse_replay(state, slot, &request.channel, &refused),
    };
    let name = match ChannelName::parse(&request.channel, settings.limits.max_channel_name_length) {
        Ok(name) => name,
        Err(error) => return refuse(state, slot, &request.channel, &Refusal::Name(error)),
    };
    match check(state, slot, &settings, name, request) {
        Ok(member) => join(state, slot, &settings, name, member, beginning),
        Err(refused) => refuse_with(state, slot, name.as_str(), &refused),
    }
}

/// The right to join, and the room to; gives the member identity on presence channels. Who goes back in a channel it
/// is in has to show its right again: what it may see of the past is part of what was signed.
fn check(
    state: &mut State,
    slot: u32,
    settings: &Settings,
    name: ChannelName<'_>,
    request: &Subscribe<'_>,
) -> Result<Option<Member>, Refused> {
    let max_subscriptions = settings.limits.max_subscriptions_per_connection;
    let connection = state.at(slot);
    let waiting = connection.replaying.as_ref().map_or(0, |replaying| replaying.waiting())
        + connection.joining.as_ref().map_or(0, |joining| joining.subscriptions());
    if connection.subscriptions.len() + waiting >= max_subscriptions
        && !is_subscribed(state, slot, name.as_str())
    {
        return Err(Refused::plain(Refusal::TooManySubscriptions { max_subscriptions }));
    }
    authorize(state.at(slot), settings, name, request)
}

fn join(
    state: &mut State,
    slot: u32,
    settings: &Settings,
    name: ChannelName<'_>,
    member: Option<Member>,
    beginning: Beginning,
) {
    let app = Arc::clone(&state.at(slot).app);
    let rule = settings.replay.rule(name.as_str());
    let beginning = match resume::under_rule(name.as_str(), rule, beginning) {
        Ok(beginning) => beginning,
        Err(refused) => return refuse_replay(state, slot, name.as_str(), &refused),
    };
    let position = log_position(&app, name.as_str());
    let log_position = position.as_ref().map(|position| position as LogPosition<'_>);
    if beginning != Beginning::Stock
        && let Some(channel) = app.channels.get(name.as_str())
        && state.subscription_position(slot, channel.id).is_some()
    {
        return go_back(state, slot, &channel, log_position, beginning);
    }
    if app.cluster.is_some() {
        return joining::join(state, slot, name, member, beginning);
    }
    let limits = JoinLimits {
        max_members: settings.limits.max_presence_members,
        announce_count: settings.subscription_count,
    };
    let now_ms = state.node.clock.now_ms();
    match app.channels.subscribe(name, state.worker, member.as_ref(), limits, log_position, now_ms) {
        Ok(subscribed) => entered(state, slot, subscribed, member, beginning),
        Err(JoinRefused::TooManyMembers | JoinRefused::Gone) => {
            let max_members = limits.max_members;
            refuse(
                state,
                slot,
                name.as_str(),
                &Refusal::TooManyMembers { channel: name.as_str(), max_members },
            );
        }
    }
}

/// Asks the store where the channel's log stands, if it has one.
pub fn log_position<'a>(app: &'a App, channel: &str) -> Option<impl Fn() -> Position + use<'a>> {
    app.settings().replay.rule(channel)?;
    let replay = app.replay.get()?;
    let stream = StreamName { app: app.id.clone(), channel: channel.into() };
    Some(move || replay.position(&stream))
}

pub fn unsubscribe(state: &mut State, slot: u32, channel: &str) {
    let position = state
        .at(slot)
        .app
        .channels
        .get(channel)
        .and_then(|channel| state.subscription_position(slot, channel.id));
    let was_waiting = match &mut state.at(slot).replaying {
        Some(replaying) => replaying.cancel(channel),
        None => false,
    };
    match position {
        Some(position) => state.unsubscribe(slot, position),
        None if was_waiting => {}
        None => state.refuse(slot, &Refusal::NotSubscribed { channel }),
    }
}

/// Tells the client that it is in, and what the channel remembers.
pub fn entered(
    state: &mut State,
    slot: u32,
    subscribed: Subscribed,
    member: Option<Member>,
    beginning: Beginning,
) {
    let Subscribed { channel, joined: Joined { after, succeeded, cached, log_head, .. } } = subscribed;
    count_resume(state, beginning);
    let lifetime = state
        .at(slot)
        .app
        .settings()
        .replay
        .rule(channel.name())
        .and_then(|rule| rule.max_connection_lifetime);
    if let Some(lifetime) = lifetime {
        state.limit_lifetime(slot, lifetime.as_secs());
    }
    if matches!(channel.access(), Access::Private | Access::Encrypted | Access::Presence) {
        state.at(slot).is_authorized = true;
    }
    let id = channel.id;
    let miss = cached.is_some().then(|| server_message::cache_miss(channel.name()));
    state.add_subscription(slot, channel, after, member.map(|member| member.user_id));
    match resume::answer_of(beginning, log_head) {
        Some(answer) => state.send_text(slot, &server_message::with_replay(&succeeded, &answer)),
        None => state.send_text(slot, &succeeded),
    }
    match cached {
        None => {}
        // It is among what comes out of the log, or the client has it.
        Some(Some(_)) if matches!(beginning, Beginning::After { .. }) => {}
        Some(Some(frame)) => state.send(slot, &frame),
        Some(None) => state.send_text(slot, &miss.unwrap_or_default()),
    }
    if let Some(head) = log_head {
        state.begin_following(slot, id, head, beginning);
    }
}

/// Takes a subscriber back to where it asks; the rest of its subscription is untouched.
fn go_back(
    state: &mut State,
    slot: u32,
    channel: &Channel,
    log_position: Option<LogPosition<'_>>,
    beginning: Beginning,
) {
    count_resume(state, beginning);
    let head = log_position.map(|position| channel.begin_log(position));
    if let Some(answer) = resume::answer_of(beginning, head) {
        state.send_text(slot, &server_message::replay_resumed(channel.name(), &answer));
    }
    if let Some(head) = head {
        state.begin_following(slot, channel.id, head, beginning);
    }
}

fn count_resume(state: &State, beginning: Beginning) {
    if let Some(outcome) = beginning.outcome() {
        state.node.metrics.replay.count_resume(outcome);
    }
}

fn is_waiting(state: &mut State, slot: u32, channel: &str) -> bool {
    let connection = state.at(slot);
    connection.replaying.as_ref().is_some_and(|replaying| replaying.is_waiting_for(channel))
        || connection.joining.as_ref().is_some_and(|joining| joining.is_waiting_for(channel))
}

fn is_subscribed(state: &mut State, slot: u32, channel: &str) -> bool {
    if state.at(slot).subscriptions.is_empty() {
        return false;
    }
    let channel = state.at(slot).app.channels.get(channel);
    channel.is_some_and(|channel| state.subscription_position(slot, channel.id).is_some())
}

/// Checks the right to join; gives the member identity on presence channels (2.7, 3.4).
fn authorize(
    connection: &Connection,
    settings: &Settings,
    name: ChannelName<'_>,
    request: &Subscribe<'_>,
) -> Result<Option<Member>, Refused> {
    let channel = name.as_str();
    match name.access() {
        Access::Public => Ok(None),
        Access::User => {
            let user = connection.user.as_ref().map(|user| &*user.id);
            if user.is_some() && user == name.user_id() {
                return Ok(None);
            }
            Err(Refused::plain(Refusal::NotThatUser { channel }))
        }
        Access::Private | Access::Encrypted => {
            verify(connection, settings, channel, request)?;
            Ok(None)
        }
        Access::Presence => {
            verify(connection, settings, channel, request)?;
            identify(connection, settings, channel, request).map(Some)
        }
    }
}

/// Verifies `auth` over the exact bytes the client sent.
fn verify(
    connection: &Connection,
    settings: &Settings,
    channel: &str,
    request: &Subscribe<'_>,
) -> Result<(), Refused> {
    let auth = request.auth.as_deref().ok_or(Refusal::AuthRequired { channel }).map_err(Refused::plain)?;
    let (key, signature) =
        auth::split_auth(auth).ok_or(Refusal::AuthFormat { channel }).map_err(Refused::plain)?;
    let signing_key = settings.signing_key(key).ok_or(Refusal::AuthKey { key }).map_err(Refused::plain)?;
    let string_to_sign = auth::channel_string(connection.socket_id, channel, request.channel_data.as_deref());
    if signing_key.verify_hex(&[string_to_sign.as_bytes()], signature) {
        return Ok(());
    }
    Err(Refused::signature(&Refusal::Signature { string_to_sign: &string_to_sign, signature }))
}

/// The member is who `channel_data` says, else who signed in (2.7).
fn identify(
    connection: &Connection,
    settings: &Settings,
    channel: &str,
    request: &Subscribe<'_>,
) -> Result<Member, Refused> {
    let limits = MemberLimits {
        max_user_id_length: settings.limits.max_user_id_length,
        max_user_info_bytes: settings.limits.max_user_info_bytes,
        strict_user_info: settings.strict_user_info,
    };
    let member = match (&request.channel_data, &connection.user) {
        (Some(channel_data), _) => Member::parse(channel_data, limits),
        (None, Some(user)) => {
            let member = Member { user_id: user.id.clone(), user_info: user.user_info.clone() };
            member.check(limits).map(|()| member)
        }
        (None, None) => return Err(Refused::plain(Refusal::MemberRequired { channel })),
    };
    member.map_err(|error| Refused::plain(Refusal::Member(error)))
}

/// A refusal made into what is sent, so that it can outlive the texts it was made of.
struct Refused {
    message: String,
    /// What `pusher:subscription_error` says: pusher-js shows it to people, who need no string to sign.
    short: Option<&'static str>,
    code: Option<u16>,
    kind: (&'static str, u16),
}

impl Refused {
    #[allow(clippy::needless_pass_by_value, reason = "fits map_err")]
    fn plain(refusal: Refusal<'_>) -> Self {
        Self::new(&refusal, None)
    }

    fn signature(refusal: &Refusal<'_>) -> Self {
        Self::new(refusal, Some("Invalid signature"))
    }

    fn new(refusal: &Refusal<'_>, short: Option<&'static str>) -> Self {
        Self { message: refusal.to_string(), short, code: refusal.code(), kind: refusal.subscription_error() }
    }
}

pub fn refuse(state: &mut State, slot: u32, channel: &str, refusal: &Refusal<'_>) {
    refuse_with(state, slot, channel, &Refused::new(refusal, None));
}

/// Who asked for replay is told in the name of the channel, whatever its library: it must not take itself for live.
pub fn refuse_replay(state: &mut State, slot: u32, channel: &str, refused: &ReplayRefused<'_>) {
    if let Some(reason) = refused.reason() {
        state.node.metrics.replay.count_resume(Err(reason));
    }
    state.send_error(slot, None, &refused.refusal.to_string());
    state.send_text(slot, &refused.subscription_error(channel));
}

/// The error frame, and for pusher-js the event that Echo's `channel.error()` listens to (2.14).
fn refuse_with(state: &mut State, slot: u32, channel: &str, refused: &Refused) {
    let (kind, status) = refused.kind;
    tracing::debug!(target: "tidewire::connection", socket_id = %state.at(slot).socket_id, channel,
        error = refused.short.unwrap_or(&refused.message), "subscription refused");
    state.send_error(slot, refused.code, &refused.message);
    if state.at(slot).client.library == Library::Js {
        let error = refused.short.unwrap_or(&refused.message);
        let text = server_message::subscription_error(channel, kind, error, status);
        state.send(slot, &frame::encode_text(&text));
    }
}
