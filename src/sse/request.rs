//! What an event stream is asked for: the query of its URL, and the header that an `EventSource` adds.
//!
//! `channels=a,private-b` and, for names with a comma in them, `channel=a,b`; `auth.private-b`, `channel_data.private-b`
//! as the backend signed them; `user_data` and `user_auth` to sign in; `last_event_id` (or `last_message_id`),
//! `rewind=50`, `rewind=120s` or `rewind=earliest`, `on_gap=event`.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use serde_json::json;
use tidewire_protocol::channel_name::{Access, ChannelName, NameError};
use tidewire_protocol::error::Refusal;
use tidewire_protocol::position::Position;

use super::cursor::{self, Cursor, InvalidCursor, MAX_CHANNELS};
use super::pipe;
use super::token::TokenError;

/// A stream as it was asked for.
#[derive(Debug)]
pub struct StreamRequest {
    /// Distinct, in the order they were asked for; at least one, at most [`MAX_CHANNELS`].
    pub channels: Vec<Wanted>,
    pub sign_in: Option<SignIn>,
    /// For channels without a position.
    pub rewind: Option<Rewind>,
    pub on_gap: OnGap,
}

/// One channel of a stream.
#[derive(Debug, PartialEq, Eq)]
pub struct Wanted {
    pub name: Box<str>,
    auth: Option<Box<str>>,
    channel_data: Option<Box<str>>,
    /// What the client has.
    pub from: Option<Position>,
}

#[derive(Debug)]
pub struct SignIn {
    user_data: Box<str>,
    auth: Box<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewind {
    Count(u64),
    Seconds(u64),
    Earliest,
}

/// How a client is told that messages it missed are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnGap {
    /// By status 410.
    Reject,
    /// By an event, for an `EventSource`, which does not see a status and never comes back after one.
    Event,
}

/// Why a query asks for no stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error(
        "Missing parameter: channels, the names of up to {MAX_CHANNELS} channels with a comma in between"
    )]
    NoChannels,
    #[error("An event stream carries at most {MAX_CHANNELS} channels, this one asks for {0}")]
    TooManyChannels(usize),
    #[error("{0}")]
    Name(NameError),
    #[error(
        "{0} and {1} cannot share a stream, because their cursors would look the same: open one for each"
    )]
    Ambiguous(Box<str>, Box<str>),
    #[error("on_gap must be \"event\" or \"reject\"")]
    OnGap,
    #[error("rewind must be a number of messages, a number of seconds such as 120s, or \"earliest\"")]
    Rewind,
    #[error("user_data and user_auth go together")]
    SignIn,
    #[error("{0}")]
    Cursor(#[from] InvalidCursor),
    #[error("{0}: fetch a token and its socket_id with POST, and sign for that socket_id")]
    TokenMissing(String),
    #[error("{0}")]
    Token(#[from] TokenError),
}

impl RequestError {
    pub fn status(&self) -> u16 {
        match self {
            Self::TokenMissing(_) | Self::Token(_) => 401,
            _ => 400,
        }
    }
}

impl StreamRequest {
    /// `last_event_id` is the header's; it wins over the query, which stays the same when an `EventSource` comes back.
    pub fn parse(
        query: &Query<'_>,
        last_event_id: Option<&str>,
        max_name_length: usize,
    ) -> Result<Self, RequestError> {
        let names = names(query, max_name_length)?;
        let in_query = || query.get("last_event_id").or_else(|| query.get("last_message_id"));
        let cursor = last_event_id.filter(|id| !id.is_empty()).map(Cow::Borrowed).or_else(in_query);
        let cursor = cursor.map(|text| Cursor::parse(&text)).transpose()?;
        let count = names.len();
        let want = |name: Box<str>| {
            let from = cursor.as_ref().map_or(Ok(None), |cursor| cursor.position_in(&name, count))?;
            let own =
                |member: &str| query.get(&format!("{member}.{name}")).map(|value| value.as_ref().into());
            let (auth, channel_data) = (own("auth"), own("channel_data"));
            Ok(Wanted { name, auth, channel_data, from })
        };
        Ok(Self {
            channels: names.into_iter().map(want).collect::<Result<_, RequestError>>()?,
            sign_in: SignIn::parse(query)?,
            rewind: query
                .get("rewind")
                .map(|text| Rewind::parse(&text).ok_or(RequestError::Rewind))
                .transpose()?,
            on_gap: match query.get("on_gap").as_deref() {
                None | Some("reject") => OnGap::Reject,
                Some("event") => OnGap::Event,
                Some(_) => return Err(RequestError::OnGap),
            },
        })
    }

    /// What cannot be asked for without a token: whatever is signed for a socket id.
    pub fn needs_token(&self) -> Option<RequestError> {
        let private = |wanted: &&Wanted| access(&wanted.name) != Some(Access::Public);
        let channel = self
            .channels
            .iter()
            .find(private)
            .map(|wanted| Refusal::AuthRequired { channel: &wanted.name }.to_string());
        let sign_in = || self.sign_in.as_ref().map(|_| "Auth info required to sign in".to_owned());
        channel.or_else(sign_in).map(RequestError::TokenMissing)
    }

    /// A client asked for the past of this channel.
    pub fn has_start(&self, wanted: &Wanted) -> bool {
        wanted.from.is_some() || self.rewind.is_some()
    }

    /// All that a client would say on a socket, as the bytes of its frames.
    pub fn frames(&self) -> Vec<u8> {
        let sign_in = self.sign_in.iter().map(|SignIn { user_data, auth }| {
            json!({"event": "pusher:signin", "data": {"user_data": user_data, "auth": auth}})
        });
        let subscribe = self.channels.iter().map(|wanted| {
            let mut data = json!({"channel": wanted.name, "replay": self.replay(wanted)});
            for (name, value) in [("auth", &wanted.auth), ("channel_data", &wanted.channel_data)] {
                if let Some(value) = value {
                    data[name] = (**value).into();
                }
            }
            json!({"event": "pusher:subscribe", "data": data})
        });
        sign_in.chain(subscribe).flat_map(|message| pipe::text_frame(&message.to_string())).collect()
    }

    /// A gap is never refused by the connection: its answer then tells all that the client is to know of it.
    fn replay(&self, wanted: &Wanted) -> serde_json::Value {
        match (wanted.from, self.rewind) {
            (Some(from), _) => json!({"v": 1, "from": from.to_string()}),
            (None, Some(Rewind::Count(count))) => json!({"v": 1, "rewind": {"count": count}}),
            (None, Some(Rewind::Seconds(seconds))) => json!({"v": 1, "rewind": {"seconds": seconds}}),
            (None, Some(Rewind::Earliest)) => json!({"v": 1, "rewind": "earliest"}),
            (None, None) => json!({"v": 1}),
        }
    }
}

fn access(name: &str) -> Option<Access> {
    ChannelName::parse(name, usize::MAX).ok().map(|name| name.access())
}

/// The channels asked for, each once.
fn names(query: &Query<'_>, max_length: usize) -> Result<Vec<Box<str>>, RequestError> {
    let mut names: Vec<Box<str>> = Vec::new();
    let mut add = |name: &str| {
        if !name.is_empty() && !names.iter().any(|known| **known == *name) {
            names.push(name.into());
        }
    };
    for (name, value) in query.pairs() {
        match &*name {
            "channels" => value.split(',').for_each(&mut add),
            "channel" => add(&value),
            _ => {}
        }
    }
    match names.len() {
        0 => return Err(RequestError::NoChannels),
        1..=MAX_CHANNELS => {}
        count => return Err(RequestError::TooManyChannels(count)),
    }
    for (index, name) in names.iter().enumerate() {
        ChannelName::parse(name, max_length).map_err(RequestError::Name)?;
        let twin = names[..index].iter().find(|earlier| cursor::hash(earlier) == cursor::hash(name));
        if let Some(twin) = twin {
            return Err(RequestError::Ambiguous(twin.clone(), name.clone()));
        }
    }
    Ok(names)
}

impl SignIn {
    fn parse(query: &Query<'_>) -> Result<Option<Self>, RequestError> {
        match (query.get("user_data"), query.get("user_auth")) {
            (None, None) => Ok(None),
            (Some(user_data), Some(auth)) => {
                Ok(Some(Self { user_data: user_data.as_ref().into(), auth: auth.as_ref().into() }))
            }
            _ => Err(RequestError::SignIn),
        }
    }

    /// What was signed; to be looked at only once the connection has accepted the signature.
    pub fn user_data(&self) -> &str {
        &self.user_data
    }
}

impl Rewind {
    fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| text.parse().ok().filter(|number| *number > 0);
        match text.strip_suffix('s') {
            _ if text == "earliest" => Some(Self::Earliest),
            Some(seconds) => number(seconds).map(Self::Seconds),
            None => number(text).map(Self::Count),
        }
    }
}

/// A query as forms and `URLSearchParams` write it.
#[derive(Clone, Copy, Debug)]
pub struct Query<'r>(pub &'r str);

impl<'r> Query<'r> {
    /// The first value of a name that is not empty.
    pub fn get(&self, name: &str) -> Option<Cow<'r, str>> {
        self.pairs().find(|(key, value)| **key == *name && !value.is_empty()).map(|(_, value)| value)
    }

    fn pairs(&self) -> impl Iterator<Item = (Cow<'r, str>, Cow<'r, str>)> {
        let pairs = self.0.split('&').filter_map(|pair| pair.split_once('='));
        pairs.map(|(name, value)| (decoded(name), decoded(value)))
    }
}

fn decoded(text: &str) -> Cow<'_, str> {
    if text.contains('+') {
        let text = text.replace('+', " ");
        return Cow::Owned(percent_decode_str(&text).decode_utf8_lossy().into_owned());
    }
    percent_decode_str(text).decode_utf8_lossy()
}

#[cfg(test)]
mod tests {
    use tidewire_protocol::frame::{Assembler, Message, Parsed, parse_frame};

    use super::*;

    fn parse(query: &str) -> Result<StreamRequest, RequestError> {
        StreamRequest::parse(&Query(query), None, 200)
    }

    fn parse_with(query: &str, last_event_id: &str) -> Result<StreamRequest, RequestError> {
        StreamRequest::parse(&Query(query), Some(last_event_id), 200)
    }

    fn names(query: &str) -> Vec<String> {
        parse(query).unwrap().channels.iter().map(|wanted| wanted.name.to_string()).collect()
    }

    /// The texts of the frames, as the connection reads them.
    fn said(request: &StreamRequest) -> Vec<serde_json::Value> {
        let mut bytes = request.frames();
        let mut rest = &mut *bytes;
        let mut said = Vec::new();
        while !rest.is_empty() {
            let Ok(Parsed::Frame { consumed, frame }) = parse_frame(rest, 65_536) else {
                panic!("whole frames")
            };
            let payload = rest[frame.payload.clone()].to_vec();
            match Assembler::default().push(&frame, &payload, 65_536).unwrap() {
                Some(Message::Text(text)) => said.push(serde_json::from_str(&text).unwrap()),
                other => panic!("{other:?}"),
            }
            rest = &mut rest[consumed..];
        }
        said
    }

    #[test]
    fn channels_are_named_in_a_list_or_one_by_one() {
        assert_eq!(names("channels=a,private-b,,a"), ["a", "private-b"]);
        assert_eq!(names("channels=a&channels=b&channel=c,d"), ["a", "b", "c,d"]);
        assert_eq!(names("channels=a%2Cb%40c"), ["a", "b@c"]);
        assert_eq!(parse("").unwrap_err(), RequestError::NoChannels);
        assert_eq!(parse("channels=,").unwrap_err(), RequestError::NoChannels);
        let eleven: Vec<String> = (0..11).map(|number| format!("c{number}")).collect();
        assert_eq!(
            parse(&format!("channels={}", eleven.join(","))).unwrap_err(),
            RequestError::TooManyChannels(11)
        );
        assert!(matches!(parse("channels=a%20b"), Err(RequestError::Name(_))));
    }

    #[test]
    fn channels_whose_cursors_would_look_the_same_cannot_share_a_stream() {
        // A known pair of FNV-1a.
        assert_eq!(cursor::hash("costarring"), cursor::hash("liquid"));
        let error = parse("channels=costarring,liquid").unwrap_err();
        assert!(error.to_string().starts_with("costarring and liquid cannot share a stream"), "{error}");
    }

    #[test]
    fn credentials_belong_to_their_channel() {
        let request = parse(
            "channels=private-b,presence-c&auth.private-b=k:1&auth.presence-c=k%3A2\
             &channel_data.presence-c=%7B%22user_id%22%3A%22a+b%2Bc%22%7D&user_data=%7B%7D&user_auth=k:3",
        );
        let request = request.unwrap();
        let live = json!({"v": 1});
        assert_eq!(
            said(&request),
            [
                json!({"event": "pusher:signin", "data": {"user_data": "{}", "auth": "k:3"}}),
                json!({"event": "pusher:subscribe", "data": {"channel": "private-b", "replay": live, "auth": "k:1"}}),
                json!({"event": "pusher:subscribe", "data": {"channel": "presence-c", "replay": live, "auth": "k:2",
                    "channel_data": r#"{"user_id":"a b+c"}"#}}),
            ]
        );
        assert!(request.needs_token().is_some());
        assert_eq!(parse("channels=a").unwrap().needs_token(), None);
        let error = parse("channels=a,private-b").unwrap().needs_token().unwrap();
        assert!(error.to_string().starts_with("Auth info required to subscribe to private-b"), "{error}");
        assert_eq!(error.status(), 401);
        assert_eq!(parse("channels=a&user_auth=k:3").unwrap_err(), RequestError::SignIn);
    }

    #[test]
    fn the_header_wins_over_the_query() {
        let from = |request: StreamRequest| request.channels[0].from.map(|position| position.to_string());
        assert_eq!(from(parse("channels=a").unwrap()), None);
        assert_eq!(from(parse("channels=a&last_event_id=k.1:2").unwrap()).as_deref(), Some("k.1:2"));
        assert_eq!(from(parse("channels=a&last_message_id=k.1:2").unwrap()).as_deref(), Some("k.1:2"));
        let request = parse_with("channels=a&last_event_id=k.1:2", "k.1:3").unwrap();
        assert_eq!(from(request).as_deref(), Some("k.1:3"));
        assert_eq!(from(parse_with("channels=a&last_event_id=k.1:2", "").unwrap()).as_deref(), Some("k.1:2"));
        assert!(matches!(parse("channels=a&last_event_id=7"), Err(RequestError::Cursor(_))));
        assert!(matches!(parse("channels=a,b&last_event_id=k.1:2"), Err(RequestError::Cursor(_))));
    }

    #[test]
    fn the_start_of_a_channel_is_its_position_else_the_rewind() {
        let replay = |query: &str| said(&parse(query).unwrap())[0]["data"]["replay"].clone();
        assert_eq!(replay("channels=a"), json!({"v": 1}));
        assert_eq!(replay("channels=a&rewind=50"), json!({"v": 1, "rewind": {"count": 50}}));
        assert_eq!(replay("channels=a&rewind=120s"), json!({"v": 1, "rewind": {"seconds": 120}}));
        assert_eq!(replay("channels=a&rewind=earliest"), json!({"v": 1, "rewind": "earliest"}));
        assert_eq!(replay("channels=a&rewind=50&last_event_id=k.1:2"), json!({"v": 1, "from": "k.1:2"}));
        for text in ["0", "0s", "-1", "x", "5m", "s", "Earliest"] {
            assert_eq!(
                parse(&format!("channels=a&rewind={text}")).unwrap_err(),
                RequestError::Rewind,
                "{text}"
            );
        }
        assert_eq!(parse("channels=a&on_gap=event").unwrap().on_gap, OnGap::Event);
        assert_eq!(parse("channels=a&on_gap=continue").unwrap_err(), RequestError::OnGap);
    }
}
