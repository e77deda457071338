//! Waiting for the cluster: subscriptions that are granted once the other nodes know of them, and sign-ins that are once
//! this node follows everybody they are about.

use std::sync::Arc;

use tidewire_protocol::channel_name::{Access, ChannelName};
use tidewire_protocol::error::Refusal;
use tidewire_protocol::identity::{Member, UserData};

use super::resume::{self, Beginning};
use super::{Library, sign_in, subscribe};
use crate::app::App;
use crate::hub::Subscribed;
use crate::hub::channel::shared::{Entrance, Place, Waiter};
use crate::hub::channel::{Channel, LogPosition};
use crate::worker::state::State;

/// What a connection has asked for and the cluster has not granted yet.
#[derive(Debug, Default)]
pub struct Joining {
    subscriptions: Vec<PendingSubscription>,
    /// At most one: a later sign-in takes the place of an earlier one.
    sign_in: Option<Box<PendingSignIn>>,
    next_ticket: u32,
}

#[derive(Debug)]
struct PendingSubscription {
    ticket: u32,
    channel: Arc<Channel>,
    member: Option<Member>,
    beginning: Beginning,
    place: Option<Place>,
    /// How often it was asked for again, which is refused once it is granted.
    repeats: u8,
}

#[derive(Debug)]
pub struct PendingSignIn {
    ticket: u32,
    pub user: UserData,
    pub user_data: Box<str>,
    /// Users that are not followed yet.
    missing: usize,
}

impl Joining {
    pub fn subscriptions(&self) -> usize {
        self.subscriptions.len()
    }

    /// Notes that a subscription was asked for again; false when it does not wait.
    pub fn note_repeat(&mut self, channel: &str) -> bool {
        let pending = self.subscriptions.iter_mut().find(|pending| pending.channel.name() == channel);
        pending.is_some_and(|pending| {
            pending.repeats = pending.repeats.saturating_add(1);
            true
        })
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
        let pending = PendingSubscription { ticket, channel, member, beginning, place: None, repeats: 0 };
        if try_enter(state, slot, &app, pending) {
            return;
        }
    }
}

/// False when the channel is gone from the directory.
fn try_enter(state: &mut State, slot: u32, app: &Arc<App>, mut pending: PendingSubscription) -> bool {
    let waiter = Waiter { connection: state.reference(slot), ticket: pending.ticket };
    let log_position = subscribe::log_position(app, pending.channel.name());
    let (entrance, is_changed) = pending.channel.enter(
        state.worker,
        pending.member.as_ref(),
        waiter.clone(),
        pending.place,
        log_position.as_ref().map(|position| position as LogPosition<'_>),
        state.node.clock.now_ms(),
    );
    app.touch_channel(&pending.channel, is_changed);
    match entrance {
        Entrance::Gone => return false,
        Entrance::Wait(place) => {
            pending.place = Some(place);
            state.at(slot).joining().subscriptions.push(pending);
        }
        Entrance::TooManyMembers => {
            let user_id = pending.member.as_ref().map(|member| &*member.user_id);
            let is_changed = pending.channel.give_up(user_id, &waiter);
            app.touch_channel(&pending.channel, is_changed);
            let channel = pending.channel.name();
            let max_members = app.settings().limits.max_presence_members;
            subscribe::refuse(state, slot, channel, &Refusal::TooManyMembers { channel, max_members });
        }
        Entrance::Open(joined) => {
            let PendingSubscription { channel, member, beginning, repeats, .. } = pending;
            let beginning = match resume::upon_entering(channel.name(), beginning, joined.log_head) {
                Ok(beginning) => beginning,
                Err(refused) => {
                    let user_id = member.as_ref().map(|member| &*member.user_id);
                    app.touch_channel(&channel, channel.give_up(user_id, &waiter));
                    subscribe::refuse_replay(state, slot, channel.name(), &refused);
                    return true;
                }
            };
            let subscribed = Subscribed { channel: Arc::clone(&channel), joined };
            subscribe::entered(state, slot, subscribed, member, beginning);
            if app.settings().subscription_count {
                tell_count(state, slot, &channel);
            }
            for _ in 0..repeats {
                state.refuse(slot, &Refusal::AlreadySubscribed { channel: channel.name() });
            }
        }
    }
    true
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

/// Forgets a subscription that waits; true when there was one.
pub fn cancel(state: &mut State, slot: u32, channel: &str) -> bool {
    let Some(joining) = &mut state.at(slot).joining else { return false };
    let Some(pending) = joining.take(|pending| pending.channel.name() == channel) else { return false };
    give_up(state, slot, &pending);
    true
}

fn give_up(state: &mut State, slot: u32, pending: &PendingSubscription) {
    let waiter = Waiter { connection: state.reference(slot), ticket: pending.ticket };
    let user_id = pending.member.as_ref().map(|member| &*member.user_id);
    let is_changed = pending.channel.give_up(user_id, &waiter);
    state.at(slot).app.touch_channel(&pending.channel, is_changed);
}

/// Signs the connection in once this node follows the user, and everybody on its watch-list.
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
    for user_id in followed(&pending.user) {
        let waiter = Waiter { connection, ticket: pending.ticket };
        app.touch_user(user_id, app.users.let_go(user_id, &waiter));
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
            if pending.missing == 0 {
                finish_sign_in(self, slot);
            }
            return;
        }
        let Some(pending) = joining.take(|pending| pending.ticket == ticket) else { return };
        let app = Arc::clone(&self.at(slot).app);
        // A channel that somebody waits for does not leave the directory.
        try_enter(self, slot, &app, pending);
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
