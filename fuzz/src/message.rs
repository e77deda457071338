//! Messages of clients: whatever one says, the server stands, and what it says in turn is JSON.

use tidewire_protocol::message::CLIENT_EVENT_PREFIX;
use tidewire_protocol::{ClientMessage, DataToken, Member, MemberLimits, UserData, server_message};

use crate::assert_server_frame;

const MAX_WATCHLIST: usize = 4;
const LIMITS: MemberLimits =
    MemberLimits { max_user_id_length: 20, max_user_info_bytes: 100, strict_user_info: false };

pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    check_identity(text);
    match ClientMessage::parse(text) {
        Ok(message) => check_message(&message),
        Err(error) => {
            assert_server_frame(&server_message::error(None, &error.to_string()));
        }
    }
}

fn check_message(message: &ClientMessage<'_>) {
    match message {
        ClientMessage::Ping | ClientMessage::Pong => {}
        ClientMessage::Subscribe(subscribe) => {
            assert_ne!(subscribe.auth.as_deref(), Some(""), "an empty auth is none");
            assert_ne!(subscribe.channel_data.as_deref(), Some(""), "an empty channel_data is none");
            assert_server_frame(&server_message::subscription_succeeded(&subscribe.channel));
            assert_server_frame(&server_message::subscription_error(
                &subscribe.channel,
                "AuthError",
                "no",
                401,
            ));
            if let Some(channel_data) = &subscribe.channel_data {
                check_identity(channel_data);
            }
        }
        ClientMessage::Unsubscribe { channel } => {
            assert_server_frame(&server_message::cache_miss(channel));
        }
        ClientMessage::SignIn { user_data, .. } => {
            check_identity(user_data);
            assert_server_frame(&server_message::signin_success(user_data));
        }
        ClientMessage::ClientEvent { event, channel, data } => {
            assert!(event.starts_with(CLIENT_EVENT_PREFIX));
            let data = data.map_or(DataToken::EMPTY_OBJECT, DataToken::from_json_value);
            check_data(event, channel, &data);
        }
    }
}

/// The token is measured without being decoded; decoding has to agree.
pub(crate) fn check_data(event: &str, channel: &str, data: &DataToken<'_>) {
    match data.decode() {
        Some(decoded) => {
            assert!(data.is_valid_text());
            assert_eq!(data.decoded_len(), decoded.len());
            let frame =
                assert_server_frame(&server_message::channel_event(event, channel, data, Some("a \"user\"")));
            assert_eq!(frame["event"], event);
            assert_eq!(frame["channel"], channel);
            assert_eq!(frame["data"], *decoded);
            assert_eq!(frame["user_id"], "a \"user\"");
        }
        None => assert!(!data.is_valid_text()),
    }
}

/// What an application has signed may still be nonsense.
fn check_identity(text: &str) {
    if let Ok(member) = Member::parse(text, LIMITS) {
        assert!(!member.user_id.is_empty() && member.user_id.chars().count() <= LIMITS.max_user_id_length);
        let info = member.user_info.as_deref();
        assert!(info.is_none_or(|info| info.get().len() <= LIMITS.max_user_info_bytes));
        // Half a surrogate pair inside user_info is passed on as it was signed, and is no JSON to serde_json.
        if info.is_none_or(|info| serde_json::from_str::<serde_json::Value>(info.get()).is_ok()) {
            assert_server_frame(&server_message::member_added("presence-x", &member.user_id, info));
            assert_server_frame(&server_message::member_removed("presence-x", &member.user_id));
            let members = [(&*member.user_id, info)];
            let frame =
                assert_server_frame(&server_message::presence_succeeded("presence-x", members.into_iter()));
            let data: serde_json::Value = serde_json::from_str(frame["data"].as_str().unwrap_or_default())
                .expect("presence data is JSON");
            assert_eq!(data["presence"]["count"], 1);
            assert_eq!(data["presence"]["ids"][0], *member.user_id);
        }
    }
    if let Ok(user) = UserData::parse(text, MAX_WATCHLIST) {
        assert!(!user.id.is_empty());
        assert!(user.watchlist.len() <= MAX_WATCHLIST);
        assert!(!user.watchlist_truncated || user.watchlist.len() == MAX_WATCHLIST);
        let watched: Vec<&str> = user.watchlist.iter().map(|id| &**id).collect();
        assert_server_frame(&server_message::watchlist_events(&[(true, watched.clone()), (false, watched)]));
        assert_server_frame(&server_message::signin_success(text));
    }
}
