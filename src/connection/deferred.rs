//! What a client says before it knows what became of a request that waits for the cluster: kept in its order until then,
//! so that whoever does not wait for answers is served as by a node that is alone.

use std::borrow::Cow;

use tidewire_protocol::channel_name::{Access, ChannelName};
use tidewire_protocol::message::ClientMessage;

/// Messages of one connection that wait; what comes beyond is acted upon at once, and mostly refused.
const MAX_MESSAGES: usize = 32;

/// What a message is about, and so what it has to come after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject<'a> {
    SignIn,
    Channel {
        name: Cow<'a, str>,
        /// Who the connection has signed in as counts for it.
        needs_user: bool,
    },
}

/// The messages, in the order in which they came.
#[derive(Debug, Default)]
pub struct Deferred {
    messages: Vec<(Subject<'static>, Box<str>)>,
    bytes: usize,
}

impl<'a> Subject<'a> {
    /// `None` of messages that nothing has to precede.
    pub fn of(message: &'a ClientMessage<'_>) -> Option<Self> {
        let (name, needs_user) = match message {
            ClientMessage::Ping | ClientMessage::Pong => return None,
            ClientMessage::SignIn { .. } => return Some(Self::SignIn),
            ClientMessage::Unsubscribe { channel } | ClientMessage::ClientEvent { channel, .. } => {
                (channel, false)
            }
            ClientMessage::Subscribe(request) => {
                let access = ChannelName::parse(&request.channel, usize::MAX).ok().map(ChannelName::access);
                let needs_user = match access {
                    Some(Access::User) => true,
                    Some(Access::Presence) => request.channel_data.is_none(),
                    _ => false,
                };
                (&request.channel, needs_user)
            }
        };
        Some(Self::Channel { name: Cow::Borrowed(name), needs_user })
    }

    /// Whether what comes later has to wait for this.
    fn precedes(&self, later: &Subject<'_>) -> bool {
        match (self, later) {
            (Self::SignIn, Subject::SignIn) => true,
            (Self::SignIn, Subject::Channel { needs_user, .. }) => *needs_user,
            (Self::Channel { name, .. }, Subject::Channel { name: other, .. }) => name == other,
            (Self::Channel { .. }, Subject::SignIn) => false,
        }
    }

    fn into_owned(self) -> Subject<'static> {
        match self {
            Self::SignIn => Subject::SignIn,
            Self::Channel { name, needs_user } => {
                Subject::Channel { name: Cow::Owned(name.into_owned()), needs_user }
            }
        }
    }
}

impl Deferred {
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Whether a message that comes now has to wait for one of these.
    pub fn precede(&self, subject: &Subject<'_>) -> bool {
        self.messages.iter().any(|(earlier, _)| earlier.precedes(subject))
    }

    /// False when there is no room. All texts together are at most `max_bytes`.
    pub fn push(&mut self, subject: Subject<'_>, text: &str, max_bytes: usize) -> bool {
        if self.messages.len() >= MAX_MESSAGES || self.bytes + text.len() > max_bytes {
            return false;
        }
        self.bytes += text.len();
        self.messages.push((subject.into_owned(), text.into()));
        true
    }

    /// Takes the first message that nothing precedes: none of these, and nothing of which `waits` says so.
    pub fn take_ready(&mut self, waits: impl Fn(&Subject<'_>) -> bool) -> Option<Box<str>> {
        let is_ready = |index: &usize| {
            let subject = &self.messages[*index].0;
            let mut earlier = self.messages[..*index].iter();
            !waits(subject) && !earlier.any(|(earlier, _)| earlier.precedes(subject))
        };
        let index = (0..self.messages.len()).find(is_ready)?;
        let (_, text) = self.messages.remove(index);
        self.bytes -= text.len();
        Some(text)
    }

    /// Drops all that is about the channel.
    pub fn forget(&mut self, channel: &str) {
        self.messages.retain(
            |(subject, _)| !matches!(subject, Subject::Channel { name, .. } if name.as_ref() == channel),
        );
        self.bytes = self.messages.iter().map(|(_, text)| text.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(text: &str) -> Option<Subject<'static>> {
        Subject::of(&ClientMessage::parse(text).unwrap()).map(Subject::into_owned)
    }

    fn about(name: &str) -> Subject<'_> {
        Subject::Channel { name: name.into(), needs_user: false }
    }

    #[test]
    fn messages_are_about_a_channel_the_user_or_nothing() {
        let of_user = |name: &str| Some(Subject::Channel { name: name.to_owned().into(), needs_user: true });
        for (message, expected) in [
            (r#"{"event":"pusher:ping"}"#, None),
            (r#"{"event":"pusher:signin","data":{"auth":"a","user_data":"{}"}}"#, Some(Subject::SignIn)),
            (r#"{"event":"client-x","channel":"private-a"}"#, Some(about("private-a"))),
            (r#"{"event":"pusher:unsubscribe","data":{"channel":"a"}}"#, Some(about("a"))),
            (r#"{"event":"pusher:subscribe","data":{"channel":"a"}}"#, Some(about("a"))),
            (
                r##"{"event":"pusher:subscribe","data":{"channel":"#server-to-user-1"}}"##,
                of_user("#server-to-user-1"),
            ),
            (
                r#"{"event":"pusher:subscribe","data":{"channel":"presence-a","auth":"a"}}"#,
                of_user("presence-a"),
            ),
            (
                r#"{"event":"pusher:subscribe","data":{"channel":"presence-a","auth":"a","channel_data":"{}"}}"#,
                Some(about("presence-a")),
            ),
        ] {
            assert_eq!(subject(message), expected, "{message}");
        }
    }

    #[test]
    fn each_waits_for_those_before_it_and_no_others() {
        let mut deferred = Deferred::default();
        let of_user = || Subject::Channel { name: "presence-b".into(), needs_user: true };
        for (subject, text) in [
            (about("a"), "a1"),
            (Subject::SignIn, "in"),
            (of_user(), "b1"),
            (about("a"), "a2"),
            (about("c"), "c1"),
        ] {
            assert!(deferred.push(subject, text, 100));
        }
        assert!(deferred.precede(&about("presence-b")) && !deferred.precede(&about("d")));
        let mut ready = |blocked: &Subject<'_>| deferred.take_ready(|subject| subject == blocked);
        assert_eq!(ready(&about("a")).as_deref(), Some("in"));
        assert_eq!(ready(&about("a")).as_deref(), Some("b1"));
        assert_eq!(ready(&about("a")).as_deref(), Some("c1"));
        assert_eq!(ready(&about("a")), None);
        assert_eq!(ready(&Subject::SignIn).as_deref(), Some("a1"));
        assert_eq!(ready(&Subject::SignIn).as_deref(), Some("a2"));
        assert!(deferred.is_empty());
    }

    #[test]
    fn messages_and_bytes_are_bounded() {
        let mut deferred = Deferred::default();
        assert!(deferred.push(about("a"), "12345", 8));
        assert!(!deferred.push(about("b"), "1234", 8));
        assert!(deferred.push(about("b"), "123", 8));
        deferred.forget("a");
        assert!(deferred.push(about("c"), "12345", 8));
        let mut deferred = Deferred::default();
        assert!((0..MAX_MESSAGES).all(|_| deferred.push(about("a"), "", 8)));
        assert!(!deferred.push(about("a"), "", 8));
    }
}
