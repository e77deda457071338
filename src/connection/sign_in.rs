//! Signing in as a user (2.12), and watching other users (2.13).

use std::sync::Arc;

use tidewire_protocol::error::Refusal;
use tidewire_protocol::identity::UserData;
use tidewire_protocol::{auth, server_message};

use super::{Connection, joining};
use crate::app::Settings;
use crate::worker::state::State;

pub fn sign_in(state: &mut State, slot: u32, auth: &str, user_data: &str) {
    let app = Arc::clone(&state.at(slot).app);
    let settings = app.settings();
    let mut user = match verify(state.at(slot), &settings, auth, user_data) {
        Ok(user) => user,
        Err(message) => return state.send_error(slot, None, &message),
    };
    if !settings.watchlist {
        user.watchlist = Vec::new();
        user.watchlist_truncated = false;
    }
    if app.cluster.is_some() {
        return joining::begin_sign_in(state, slot, user, user_data);
    }
    signed_in(state, slot, user, user_data);
}

/// Makes the connection the user's, and tells the client.
pub fn signed_in(state: &mut State, slot: u32, user: UserData, user_data: &str) {
    let max_watchlist = state.at(slot).app.settings().limits.max_watchlist;
    let is_truncated = user.watchlist_truncated;
    if let Some(seconds) = user.replay.lifetime_seconds {
        state.limit_lifetime(slot, seconds);
    }
    state.become_user(slot, user);
    state.send_text(slot, &server_message::signin_success(user_data));
    if is_truncated {
        state.refuse(slot, &Refusal::WatchlistTruncated { max_watchlist });
    }
    state.watch(slot);
}

/// Checks the signature over the exact bytes, then reads them. The error is the text for the client.
fn verify(
    connection: &Connection,
    settings: &Settings,
    auth: &str,
    user_data: &str,
) -> Result<UserData, String> {
    let (key, signature) = auth::split_auth(auth).ok_or_else(|| Refusal::SignInFormat.to_string())?;
    let signing_key = settings.signing_key(key).ok_or_else(|| Refusal::SignInKey { key }.to_string())?;
    let string_to_sign = auth::signin_string(connection.socket_id, user_data);
    if !signing_key.verify_hex(&[string_to_sign.as_bytes()], signature) {
        return Err(Refusal::Signature { string_to_sign: &string_to_sign, signature }.to_string());
    }
    let user = UserData::parse(user_data, settings.limits.max_watchlist)
        .map_err(|error| Refusal::UserData(error).to_string())?;
    match &connection.user {
        Some(current) if current.id != user.id => {
            Err(Refusal::SignedInAsOther { user_id: &current.id }.to_string())
        }
        _ => Ok(user),
    }
}

impl State {
    /// Signs the connection in, or refreshes what the user's earlier sign-in said.
    fn become_user(&mut self, slot: u32, user: UserData) {
        let reference = self.reference(slot);
        let connection = self.at(slot);
        let app = Arc::clone(&connection.app);
        connection.is_authorized = true;
        match connection.user.replace(Box::new(user)) {
            None => {
                if let Some(user) = &connection.user {
                    app.touch_user(&user.id, app.users.sign_in(&user.id, reference));
                }
            }
            Some(old) => {
                old.watchlist.iter().for_each(|id| app.touch_user(id, app.users.unwatch(id, reference)));
            }
        }
    }

    /// Starts to watch the user's list, and tells the current state of everybody on it.
    fn watch(&mut self, slot: u32) {
        let reference = self.reference(slot);
        let connection = self.at(slot);
        if !connection.is_open() {
            return;
        }
        let Some(user) = &connection.user else { return };
        if user.watchlist.is_empty() {
            return;
        }
        let (online, offline): (Vec<&str>, Vec<&str>) =
            user.watchlist.iter().map(|id| &**id).partition(|id| connection.app.users.watch(id, reference));
        let groups: Vec<(bool, Vec<&str>)> =
            [(true, online), (false, offline)].into_iter().filter(|(_, ids)| !ids.is_empty()).collect();
        let text = server_message::watchlist_events(&groups);
        self.send_text(slot, &text);
    }

    /// Ends what [`become_user`](Self::become_user) and [`watch`](Self::watch) began.
    pub(crate) fn forget_user(&mut self, slot: u32) {
        let reference = self.reference(slot);
        let connection = self.at(slot);
        let Some(user) = connection.user.take() else { return };
        let app = Arc::clone(&connection.app);
        app.touch_user(&user.id, app.users.sign_out(&user.id, reference));
        for id in &user.watchlist {
            app.touch_user(id, app.users.unwatch(id, reference));
        }
    }
}
