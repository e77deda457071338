//! Waiting for the cluster: subscriptions that are granted once the other nodes know of them, and sign-ins that are once
//! this node follows everybody they are about and the others know of them. What the client says of them meanwhile waits, too.

use std::sync::Arc;

use tidewire_protocol::channel_name::{Access, ChannelName};
use tidewire_protocol::error::Refusal;
use tidewire_protocol::identity::{Member, UserData};
use tidewire_protocol::message::ClientMessage;

use super::deferred::{Deferred, Subject};
use super::resume::{self, Beginning};
use super::{Library, receive, sign_in, subscribe};
use crate::app::App;
use crate::hub::Subscribed;
use crate::hub::channel::shared::{Entrance, Newcomer, Place, Waiter};
use crate::hub::channel::{Channel, LogPosition};
use crate::replay::Resolved;
use crate::replay::store::StoreError;
use crate::worker::state::State;

/// How often the beginning of a subscription is looked up again because its log became another one meanwhile.
const MAX_LOOKS: u8 = 3;

/// What a connection has asked for and the cluster has not granted yet.
#[derive(Debug, Default)]
pub struct Joining {
    subscriptions: Vec<PendingSubscription>,
    /// At most one: others wait for it, or take its place.
    sign_in: Option<Box<PendingSignIn>>,
    deferred: Deferred,
    next_ticket: u32,
}

#[derive(Debug)]
struct PendingSubscription {
    ticket: u32,
    channel: Arc<Channel>,
    member: Option<Member>,
    beginning: Beginning,
    place: Option<Place>,
    looks: u8,
}

#[derive(Debug)]
pub struct PendingSignIn {
    ticket: u32,
    pub user: UserData,
    pub user_data: Box<str>,
    /// Users that are not followed yet, and one more while the others do not know of the sign-in.
    missing: usize,
}

impl Joining {
    pub fn subscriptions(&self) -> usize {
        self.subscriptions.len()
    }

    pub fn is_waiting_for(&self, channel: &str) -> bool {
        self.subscriptions.iter().any(|pending| pending.channel.name() == channel)
    }

    fn is_idle(&self) -> bool {
        self.subscriptions.is_empty() && self.sign_in.is_none() && self.deferred.is_empty()
    }

    /// Whether something waits that comes before this.
    fn waits(&self, subject: &Subject<'_>) -> bool {
        match subject {
            Subject::SignIn => self.sign_in.is_some(),
            Subject::Channel { name, needs_user } => {
                (*needs_user && self.sign_in.is_some()) || self.is_waiting_for(name)
            }
        }
    }

    fn take_ready(&mut self) -> Option<Box<str>> {
        let mut deferred = std::mem::take(&mut self.deferred);
        let ready = deferred.take_ready(|subject| self.waits(subject));
        self.deferred = deferred;
        ready
    }

    fn ticket(&mut self) -> u32 {
        self.next_ticket = self.next_ticket.wrapping_add(1);
        self.next_ticket
    }

    fn take(&mut self, is_meant: impl Fn(&PendingSubscription) -> bool) -> Option<PendingSubscription> {
        let index = self.subscriptions.iter().position(is_meant)?;
        Some(self.subscriptions.swap_remove(index))
    }
}

/// Keeps a message for when what comes before it is granted or refused. False when it is to be acted upon now.
pub fn defer(state: &mut State, slot: u32, message: &ClientMessage<'_>, text: &str) -> bool {
    let connection = state.at(slot);
    let Some(joining) = connection.joining.as_mut().filter(|joining| !joining.is_idle()) else {
        return false;
    };
    let Some(subject) = Subject::of(message) else { return false };
    if !joining.waits(&subject) && !joining.deferred.precede(&subject) {
        return false;
    }
    let max_bytes = connection.app.settings().limits.max_message_bytes;
    if joining.deferred.push(subject, text, max_bytes) {
        return true;
    }
    if let ClientMessage::Unsubscribe { channel } = message {
        joining.deferred.forget(channel);
        cancel(state, slot, channel);
        return true;
    }
    false
}

/// Acts on what was deferred and has to wait for nothing any more.
fn act_on_deferred(state: &mut State, slot: u32) {
    while state.at(slot).is_open() {
        let Some(text) = state.at(slot).joining.as_mut().and_then(|joining| joining.take_ready()) else {
            return;
        };
        if let Ok(message) = ClientMessage::parse(&text) {
            receive::act_on(state, slot, message);
        }
    }
}

/// Has the connection enter the channel as soon as it may.
pub fn join(
    state: &mut State,
    slot: u32,
    name: ChannelName<'_>,
    member: Option<Member>,
    beginning: Beginning,
) {
    let app = Arc::clone(&state.at(slot).app);
    let ticket = state.at(slot).joining().ticket();
    loop {
        let channel = app.channels.get_or_create(name);
        let member = member.clone();
        let pending = PendingSubscription { ticket, channel, member, beginning, place: None, looks: 0 };
        if try_enter(state, slot, &app, pending) {
            return;
        }
    }
}

/// False when the channel is gone from the directory.
fn try_enter(state: &mut State, slot: u32, app: &Arc<App>, mut pending: PendingSubscription) -> bool {
    let newcomer = Newcomer {
        waiter: Waiter { connection: state.reference(slot), ticket: pending.ticket },
        member: pending.member.as_ref(),
        place: pending.place,
        looked_up_in: match pending.beginning {
            Beginning::After { epoch, .. } => Some(epoch),
            _ => None,
        },
    };
    let log_position = subscribe::log_position(app, pending.channel.name());
    let log_position = log_position.as_ref().map(|position| position as LogPosition<'_>);
    let (entrance, is_changed) = pending.channel.enter(newcomer, log_position, state.node.clock.now_ms());
    app.touch_channel(&pending.channel, is_changed);
    match entrance {
        Entrance::Gone => return false,
        Entrance::Wait(place) => {
            pending.place = Some(place);
            state.at(slot).joining().subscriptions.push(pending);
        }
        Entrance::LookAgain(place) => {
            pending.place = Some(place);
            look_again(state, slot, pending);
        }
        Entrance::TooManyMembers => {
            give_up(state, slot, &pending);
            let channel = pending.channel.name();
            let max_members = app.settings().limits.max_presence_members;
            subscribe::refuse(state, slot, channel, &Refusal::TooManyMembers { channel, max_members });
        }
        Entrance::Open(joined) => {
            let PendingSubscription { channel, member, beginning, .. } = pending;
            let subscribed = Subscribed { channel: Arc::clone(&channel), joined };
            subscribe::entered(state, slot, subscribed, member, beginning);
            if app.settings().subscription_count {
                tell_count(state, slot, &channel);
            }
        }
    }
    true
}

/// Has the subscription wait for the store to say whether its beginning is still there.
fn look_again(state: &mut State, slot: u32, mut pending: PendingSubscription) {
    pending.looks += 1;
    let PendingSubscription { ticket, beginning, looks, .. } = pending;
    if looks <= MAX_LOOKS && resume::look_again(state, slot, ticket, pending.channel.name(), beginning) {
        return state.at(slot).joining().subscriptions.push(pending);
    }
    give_up(state, slot, &pending);
    let channel = pending.channel.name();
    subscribe::refuse_replay(state, slot, channel, &Refusal::ReplayUnavailable { channel }.into());
}

fn tell_count(state: &mut State, slot: u32, channel: &Channel) {
    // pusher-websocket-java tries to decrypt it on encrypted channels and throws (2.10).
    if channel.access() == Access::Encrypted && state.at(slot).client.library == Library::Java {
        return;
    }
    if let Some(count) = channel.count_for_newcomer() {
        state.send_text(slot, &count);
    }
}

/// Forgets a subscription that waits, if there is one.
fn cancel(state: &mut State, slot: u32, channel: &str) {
    let Some(joining) = &mut state.at(slot).joining else { return };
    let Some(pending) = joining.take(|pending| pending.channel.name() == channel) else { return };
    give_up(state, slot, &pending);
}

fn give_up(state: &mut State, slot: u32, pending: &PendingSubscription) {
    let waiter = Waiter { connection: state.reference(slot), ticket: pending.ticket };
    let user_id = pending.member.as_ref().map(|member| &*member.user_id);
    let is_changed = pending.channel.give_up(user_id, &waiter);
    state.at(slot).app.touch_channel(&pending.channel, is_changed);
}

/// Signs the connection in once this node follows the user, and everybody on its watch-list, and the others know of it.
pub fn begin_sign_in(state: &mut State, slot: u32, user: UserData, user_data: &str) {
    cancel_sign_in(state, slot);
    let connection = state.reference(slot);
    let app = Arc::clone(&state.at(slot).app);
    let ticket = state.at(slot).joining().ticket();
    let waiter = Waiter { connection, ticket };
    let mut missing = 0;
    for user_id in followed(&user) {
        if let Some(is_changed) = app.users.hold(user_id, &waiter) {
            app.touch_user(user_id, is_changed);
            missing += 1;
        }
    }
    if let Some(is_changed) = app.users.announce(&user.id, &waiter) {
        app.touch_user(&user.id, is_changed);
        missing += 1;
    }
    let pending = PendingSignIn { ticket, user, user_data: user_data.into(), missing };
    state.at(slot).joining().sign_in = Some(Box::new(pending));
    if missing == 0 {
        finish_sign_in(state, slot);
    }
}

fn followed(user: &UserData) -> impl Iterator<Item = &str> {
    std::iter::once(&*user.id).chain(user.watchlist.iter().map(|id| &**id))
}

fn finish_sign_in(state: &mut State, slot: u32) {
    let connection = state.reference(slot);
    let Some(pending) = state.at(slot).joining().sign_in.take() else { return };
    let PendingSignIn { ticket, user, user_data, .. } = *pending;
    let app = Arc::clone(&state.at(slot).app);
    let held: Vec<Box<str>> = followed(&user).map(Box::from).collect();
    sign_in::signed_in(state, slot, user, &user_data);
    // What the sign-in holds now, it holds by itself.
    for user_id in held {
        app.touch_user(&user_id, app.users.let_go(&user_id, &Waiter { connection, ticket }));
    }
}

fn cancel_sign_in(state: &mut State, slot: u32) {
    let connection = state.reference(slot);
    let Some(joining) = &mut state.at(slot).joining else { return };
    let Some(pending) = joining.sign_in.take() else { return };
    let app = Arc::clone(&state.at(slot).app);
    let waiter = Waiter { connection, ticket: pending.ticket };
    for user_id in followed(&pending.user) {
        app.touch_user(user_id, app.users.let_go(user_id, &waiter));
    }
    // Unless it was signed in already.
    if state.at(slot).user.is_none() {
        app.touch_user(&pending.user.id, app.users.sign_out(&pending.user.id, connection));
    }
}

impl State {
    /// Goes on with what waited for the cluster.
    pub fn enter(&mut self, slot: u32, ticket: u32) {
        let Some(joining) = &mut self.at(slot).joining else { return };
        if let Some(pending) = &mut joining.sign_in
            && pending.ticket == ticket
        {
            pending.missing = pending.missing.saturating_sub(1);
            if pending.missing > 0 {
                return;
            }
            finish_sign_in(self, slot);
        } else {
            let Some(pending) = joining.take(|pending| pending.ticket == ticket) else { return };
            let app = Arc::clone(&self.at(slot).app);
            // A channel that somebody waits for does not leave the directory.
            try_enter(self, slot, &app, pending);
        }
        act_on_deferred(self, slot);
    }

    /// Goes on with a subscription whose beginning was looked up again.
    pub fn found_again(&mut self, slot: u32, ticket: u32, resolved: Result<Resolved, StoreError>) {
        let Some(joining) = &mut self.at(slot).joining else { return };
        // It may have been cancelled.
        let Some(mut pending) = joining.take(|pending| pending.ticket == ticket) else { return };
        let channel = Arc::clone(&pending.channel);
        match resume::found_again(channel.name(), pending.beginning, resolved) {
            Ok(beginning) => {
                pending.beginning = beginning;
                let app = Arc::clone(&self.at(slot).app);
                try_enter(self, slot, &app, pending);
            }
            Err(refused) => {
                give_up(self, slot, &pending);
                subscribe::refuse_replay(self, slot, channel.name(), &refused);
            }
        }
        act_on_deferred(self, slot);
    }

    /// Ends everything that waits for the cluster.
    pub(crate) fn stop_joining(&mut self, slot: u32) {
        cancel_sign_in(self, slot);
        let Some(joining) = self.at(slot).joining.take() else { return };
        for pending in joining.subscriptions {
            give_up(self, slot, &pending);
        }
    }
}
