//! Who a client claims to be: presence members and signed-in users (2.7, 2.12).
//!
//! Both texts are signed by the customer's backend; signatures are checked before anything here is read.

use std::collections::HashSet;

use serde_json::value::RawValue;

use crate::channel_name::check_characters;
use crate::json;

mod overrides;

pub use overrides::{ConnectionOverrides, Overrides, OverridesError};

/// Characters of a signed-in user's id, as the server SDKs check it (2.6).
pub const MAX_SIGNED_IN_ID_LENGTH: usize = 200;

/// A member of a presence channel.
#[derive(Clone, Debug)]
pub struct Member {
    /// Always text: a numeric id is the text of its number, so `7` and `"7"` are one member.
    pub user_id: Box<str>,
    /// Any JSON, passed on as it was signed. Absent and `null` are `None`.
    pub user_info: Option<Box<RawValue>>,
}

#[derive(Clone, Copy, Debug)]
pub struct MemberLimits {
    /// In characters.
    pub max_user_id_length: usize,
    /// Of the JSON text.
    pub max_user_info_bytes: usize,
    /// Refuse a `user_info` that is no object, as the hosted service does. Laravel sends `true`.
    pub strict_user_info: bool,
}

impl Member {
    pub fn parse(channel_data: &str, limits: MemberLimits) -> Result<Self, MemberError> {
        let [user_id, user_info] = json::present_members(channel_data, ["user_id", "user_info"])
            .map_err(|_| MemberError::NotAnObject)?;
        let user_id = user_id.ok_or(MemberError::UserIdMissing).and_then(user_id_text)?;
        let member = Self { user_id, user_info: user_info.map(ToOwned::to_owned) };
        member.check(limits)?;
        Ok(member)
    }

    /// The limits alone, for an identity that comes from a sign-in.
    pub fn check(&self, limits: MemberLimits) -> Result<(), MemberError> {
        let length = self.user_id.chars().count();
        if length > limits.max_user_id_length {
            return Err(MemberError::UserIdTooLong { length, max_length: limits.max_user_id_length });
        }
        let Some(info) = &self.user_info else { return Ok(()) };
        if limits.strict_user_info && !json::is_object(info) {
            return Err(MemberError::UserInfoNotAnObject);
        }
        let bytes = info.get().len();
        if bytes > limits.max_user_info_bytes {
            return Err(MemberError::UserInfoTooLarge { bytes, max_bytes: limits.max_user_info_bytes });
        }
        Ok(())
    }
}

fn user_id_text(raw: &RawValue) -> Result<Box<str>, MemberError> {
    let text = match json::number(raw) {
        Some(number) => number.into(),
        None => json::text(raw).ok_or(MemberError::UserIdMissing)?,
    };
    if text.is_empty() { Err(MemberError::UserIdMissing) } else { Ok(text.into()) }
}

/// Why `channel_data` names no member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    #[error("channel_data supplied to presence subscription is invalid - it must be a JSON object")]
    NotAnObject,
    #[error(
        "user_id supplied to presence subscription is invalid - it must be a non-empty string or a number"
    )]
    UserIdMissing,
    #[error(
        "user_id supplied to presence subscription is invalid - {length} characters exceed the allowed maximum ({max_length})"
    )]
    UserIdTooLong { length: usize, max_length: usize },
    #[error("user_info supplied to presence subscription is invalid - if supplied it must be a type of hash")]
    UserInfoNotAnObject,
    #[error(
        "user_info supplied to presence subscription is invalid - {bytes} bytes exceed the allowed maximum ({max_bytes})"
    )]
    UserInfoTooLarge { bytes: usize, max_bytes: usize },
}

/// The user a connection signed in as.
#[derive(Clone, Debug)]
pub struct UserData {
    pub id: Box<str>,
    pub user_info: Option<Box<RawValue>>,
    /// Distinct ids in the order they were sent.
    pub watchlist: Vec<Box<str>>,
    /// More ids were sent than are watched: to be told with 4302.
    pub watchlist_truncated: bool,
    pub replay: ConnectionOverrides,
}

impl UserData {
    pub fn parse(user_data: &str, max_watchlist: usize) -> Result<Self, UserDataError> {
        let [id, user_info, watchlist, replay] =
            json::present_members(user_data, ["id", "user_info", "watchlist", "replay"])
                .map_err(|_| UserDataError::NotAnObject)?;
        let id = id.and_then(json::text).filter(|id| !id.is_empty()).ok_or(UserDataError::IdMissing)?;
        if check_characters(&id).is_err() || id.len() > MAX_SIGNED_IN_ID_LENGTH {
            return Err(UserDataError::IdInvalid);
        }
        let watchlist = watchlist.map(parse_watchlist).transpose()?.unwrap_or_default();
        Ok(Self {
            id: id.into(),
            user_info: user_info.map(ToOwned::to_owned),
            watchlist_truncated: watchlist.len() > max_watchlist,
            watchlist: watchlist.into_iter().take(max_watchlist).collect(),
            replay: replay.map(ConnectionOverrides::parse).transpose()?.unwrap_or_default(),
        })
    }
}

fn parse_watchlist(raw: &RawValue) -> Result<Vec<Box<str>>, UserDataError> {
    let (elements, _) = json::elements(raw, usize::MAX).map_err(|_| UserDataError::WatchlistInvalid)?;
    let mut seen = HashSet::with_capacity(elements.len());
    let mut ids = Vec::with_capacity(elements.len());
    for element in elements {
        let id: Box<str> = match json::number(element) {
            Some(number) => number.into(),
            None => json::text(element).ok_or(UserDataError::WatchlistInvalid)?.into(),
        };
        if seen.insert(id.clone()) {
            ids.push(id);
        }
    }
    Ok(ids)
}

/// Why `user_data` names no user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserDataError {
    #[error("Invalid user_data: it must be a JSON object")]
    NotAnObject,
    #[error("Invalid user_data: id must be a non-empty string")]
    IdMissing,
    #[error(
        "Invalid user_data: id must consist of at most {MAX_SIGNED_IN_ID_LENGTH} letters, digits and _-=@,.;"
    )]
    IdInvalid,
    #[error("Invalid user_data: watchlist must be an array of user ids")]
    WatchlistInvalid,
    #[error("Invalid user_data: {0}")]
    Replay(#[from] OverridesError),
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: MemberLimits =
        MemberLimits { max_user_id_length: 128, max_user_info_bytes: 1024, strict_user_info: false };

    fn member(channel_data: &str) -> Result<Member, MemberError> {
        Member::parse(channel_data, LIMITS)
    }

    #[test]
    fn s076_a_numeric_user_id_becomes_text() {
        for data in [r#"{"user_id":7}"#, r#"{"user_id":"7"}"#, r#"{"user_id":"\u0037","user_id":7}"#] {
            assert_eq!(&*member(data).unwrap().user_id, "7", "{data}");
        }
    }

    #[test]
    fn s078_channel_data_without_a_user_id_is_refused() {
        for data in ["", "x", "[]", "7", "null", r#""{}""#] {
            assert_eq!(member(data).unwrap_err(), MemberError::NotAnObject, "{data}");
        }
        for id in ["null", r#""""#, "true", "{}", "[1]", r#""\ud800""#] {
            let data = format!(r#"{{"user_id":{id}}}"#);
            assert_eq!(member(&data).unwrap_err(), MemberError::UserIdMissing, "{data}");
        }
        assert_eq!(member("{}").unwrap_err(), MemberError::UserIdMissing);
    }

    #[test]
    fn user_info_is_kept_as_it_was_signed() {
        let info = |data| member(data).unwrap().user_info.map(|info| info.get().to_owned());
        assert_eq!(info(r#"{"user_id":1,"user_info":{ "a" : 1 }}"#).as_deref(), Some(r#"{ "a" : 1 }"#));
        assert_eq!(info(r#"{"user_id":1,"user_info":null}"#), None);
        assert_eq!(info(r#"{"user_id":1}"#), None);
    }

    #[test]
    fn s080_ids_and_infos_have_a_longest_length() {
        let with_id = |length| format!(r#"{{"user_id":"{}"}}"#, "é".repeat(length));
        assert!(member(&with_id(128)).is_ok());
        assert!(matches!(member(&with_id(129)), Err(MemberError::UserIdTooLong { length: 129, .. })));

        let with_info = |bytes: usize| format!(r#"{{"user_id":1,"user_info":"{}"}}"#, "x".repeat(bytes - 2));
        assert!(member(&with_info(1024)).is_ok());
        assert!(matches!(member(&with_info(1025)), Err(MemberError::UserInfoTooLarge { bytes: 1025, .. })));
    }

    #[test]
    fn s086_a_user_info_that_is_no_object_is_refused_in_strict_mode_only() {
        let data = r#"{"user_id":1,"user_info":true}"#;
        assert!(member(data).is_ok());
        let strict = Member::parse(data, MemberLimits { strict_user_info: true, ..LIMITS });
        assert!(strict.unwrap_err().to_string().ends_with("if supplied it must be a type of hash"));
    }

    #[test]
    fn s118_a_user_needs_an_id_that_is_text() {
        for data in ["", "x", "[]", r#""u""#] {
            assert_eq!(UserData::parse(data, 100).unwrap_err(), UserDataError::NotAnObject, "{data}");
        }
        for data in ["{}", r#"{"id":""}"#, r#"{"id":7}"#, r#"{"id":null}"#] {
            assert_eq!(UserData::parse(data, 100).unwrap_err(), UserDataError::IdMissing, "{data}");
        }
        for id in ["a b", "#x", "ä"] {
            let data = format!(r#"{{"id":"{id}"}}"#);
            assert_eq!(UserData::parse(&data, 100).unwrap_err(), UserDataError::IdInvalid, "{data}");
        }
    }

    #[test]
    fn s126_a_watchlist_keeps_its_first_ids() {
        let ids = |count: usize| (0..count).map(|id| format!("\"u-{id}\"")).collect::<Vec<_>>().join(",");
        let user =
            |count| UserData::parse(&format!(r#"{{"id":"u","watchlist":[{}]}}"#, ids(count)), 100).unwrap();
        assert_eq!((user(100).watchlist.len(), user(100).watchlist_truncated), (100, false));
        assert_eq!((user(101).watchlist.len(), user(101).watchlist_truncated), (100, true));
        assert_eq!(user(101).watchlist[99].as_ref(), "u-99");
    }

    #[test]
    fn a_watchlist_names_each_user_once() {
        let user = UserData::parse(r#"{"id":"u","watchlist":["a","b","a",7,"7"],"free":1}"#, 100).unwrap();
        assert_eq!(user.watchlist, ["a", "b", "7"].map(Box::from));
        for watchlist in ["{}", r#""a""#, "[null]", "[[]]"] {
            let data = format!(r#"{{"id":"u","watchlist":{watchlist}}}"#);
            assert_eq!(UserData::parse(&data, 100).unwrap_err(), UserDataError::WatchlistInvalid);
        }
    }
}
