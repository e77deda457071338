//! How far a stream is in each of its channels, and what of that its client may remember.

use serde::Serialize;
use tidewire_protocol::position::{Epoch, Position};

use super::cursor::{self, Place};
use super::request::StreamRequest;
use super::told::Answer;

/// The channels of a stream, in the order they were asked for.
#[derive(Debug)]
pub struct Places {
    places: Vec<Place>,
    states: Vec<State>,
}

#[derive(Debug)]
struct State {
    /// Of the next serial that comes without one.
    epoch: Option<Epoch>,
    /// Of what was the newest message when the channel was joined.
    joined: Option<Epoch>,
    /// The client asked for what was before.
    has_start: bool,
    is_answered: bool,
}

/// Messages that a client asked for and that are not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    pub channel: Box<str>,
    pub reason: Box<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
}

impl Gap {
    pub fn new(channel: &str, reason: Box<str>, oldest: Option<u64>, position: Option<Position>) -> Self {
        Self {
            channel: channel.into(),
            reason,
            oldest,
            newest: position.map(|position| position.serial),
            epoch: position.map(|position| position.epoch.to_string()),
        }
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Places {
    /// Where the client says that it is.
    pub fn of(request: &StreamRequest) -> Self {
        let places = request.channels.iter();
        let states = request.channels.iter().map(|wanted| State {
            epoch: wanted.from.map(|from| from.epoch),
            joined: None,
            has_start: request.has_start(wanted),
            is_answered: false,
        });
        Self {
            places: places.map(|one| Place { channel: one.name.clone(), position: one.from }).collect(),
            states: states.collect(),
        }
    }

    /// The cursor of the stream.
    pub fn cursor(&self) -> Option<String> {
        cursor::encode(&self.places)
    }

    /// The position in the only channel.
    pub fn position(&self) -> Option<Position> {
        match &*self.places {
            [place] => place.position,
            _ => None,
        }
    }

    /// Some channel was neither granted nor refused yet.
    pub fn is_waiting(&self) -> bool {
        self.states.iter().any(|state| !state.is_answered)
    }

    /// The client asked for what was before in some channel.
    pub fn has_start(&self) -> bool {
        self.states.iter().any(|state| state.has_start)
    }

    /// Notes what a subscription was answered; the gap that the client is to hear of, if there is one.
    pub fn answered(&mut self, channel: &str, answer: Answer) -> Option<Gap> {
        let (place, state) = self.find(channel)?;
        let Answer { position, recovered, reason, oldest } = answer;
        state.is_answered = true;
        state.joined = position.map(|position| position.epoch);
        match recovered {
            // What is to come counts on from the client's own position, in its own epoch. Until it has come, the
            // client must not remember more than it has.
            Some(count @ 1..) => {
                place.position = place.position.or_else(|| before(position, count));
                state.epoch = place.position.map(|position| position.epoch);
            }
            _ => {
                place.position = position;
                state.epoch = state.joined;
            }
        }
        let reason = reason.filter(|_| state.has_start)?;
        Some(Gap::new(channel, reason, oldest, position))
    }

    /// Notes that everything up to `serial` was passed on; true when that is news.
    pub fn moved(&mut self, channel: &str, serial: u64, epoch: Option<Epoch>) -> bool {
        let Some((place, state)) = self.find(channel) else { return false };
        state.epoch = epoch.or(state.epoch);
        let position = state.epoch.map(|epoch| Position { epoch, serial });
        std::mem::replace(&mut place.position, position) != position
    }

    /// Notes that everything was passed on that was there when the channel was joined: the client is in the epoch
    /// of that time now, even if the message that began it could not be sent. True when the position is news.
    pub fn done(&mut self, channel: &str, serial: u64) -> bool {
        let Some((place, state)) = self.find(channel) else { return false };
        let (current, joined) = (place.position, state.joined);
        self.moved(channel, current.map_or(serial, |current| current.serial.max(serial)), joined)
    }

    /// Notes that the channel goes on from elsewhere.
    pub fn reset(&mut self, channel: &str, position: Option<Position>) {
        let Some((place, state)) = self.find(channel) else { return };
        place.position = position;
        state.epoch = position.map(|position| position.epoch);
    }

    fn find(&mut self, channel: &str) -> Option<(&mut Place, &mut State)> {
        self.places.iter_mut().zip(&mut self.states).find(|(place, _)| *place.channel == *channel)
    }
}

fn before(position: Option<Position>, count: u64) -> Option<Position> {
    let position = position?;
    Some(Position { serial: position.serial.checked_sub(count)?, ..position })
}

#[cfg(test)]
mod tests {
    use super::super::request::Query;
    use super::*;

    fn places(query: &str) -> Places {
        Places::of(&StreamRequest::parse(&Query(query), None, 200).unwrap())
    }

    fn position(text: &str) -> Position {
        text.parse().unwrap()
    }

    fn answer(at: &str) -> Answer {
        Answer { position: Some(position(at)), ..Answer::default() }
    }

    fn epoch(text: &str) -> Option<Epoch> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn a_live_stream_begins_at_the_head() {
        let mut places = places("channels=a");
        assert!(places.is_waiting() && !places.has_start());
        assert_eq!(places.answered("a", answer("k.2:7")), None);
        assert!(!places.is_waiting());
        assert_eq!(places.cursor().as_deref(), Some("k.2:7"));
        places.moved("a", 8, None);
        assert_eq!(places.position(), Some(position("k.2:8")));
    }

    #[test]
    fn a_resumed_stream_keeps_its_own_position_and_epoch_until_something_comes() {
        let mut places = places("channels=a&last_event_id=k.1:5");
        assert!(places.has_start());
        assert_eq!(places.answered("a", Answer { recovered: Some(3), ..answer("k.2:8") }), None);
        assert_eq!(places.cursor().as_deref(), Some("k.1:5"));
        places.moved("a", 6, None);
        assert_eq!(places.cursor().as_deref(), Some("k.1:6"));
        places.moved("a", 7, epoch("k.2"));
        places.moved("a", 8, None);
        assert_eq!(places.cursor().as_deref(), Some("k.2:8"));
    }

    #[test]
    fn a_stream_is_in_the_epoch_it_joined_even_if_nobody_could_tell_when_that_began() {
        let mut places = places("channels=a&last_event_id=k.1:5");
        places.answered("a", Answer { recovered: Some(2), ..answer("k.2:7") });
        places.moved("a", 6, None);
        places.moved("a", 7, None);
        assert!(places.done("a", 7));
        assert_eq!(places.cursor().as_deref(), Some("k.2:7"));
        assert!(!places.done("a", 7));
    }

    #[test]
    fn a_stream_that_missed_nothing_is_at_the_head() {
        let mut places = places("channels=a&last_event_id=k.1:5");
        places.answered("a", Answer { recovered: Some(0), ..answer("k.2:5") });
        assert_eq!(places.cursor().as_deref(), Some("k.2:5"));
    }

    #[test]
    fn a_rewound_stream_begins_before_what_comes() {
        let mut places = places("channels=a&rewind=3");
        places.answered("a", Answer { recovered: Some(3), ..answer("k.2:8") });
        assert_eq!(places.cursor().as_deref(), Some("k.2:5"));
        places.moved("a", 6, None);
        assert_eq!(places.cursor().as_deref(), Some("k.2:6"));
    }

    #[test]
    fn a_gap_is_told_to_whoever_asked_for_what_is_gone() {
        let gone = Answer { reason: Some("expired".into()), oldest: Some(4), ..answer("k.2:8") };
        let mut resumed = places("channels=a&last_event_id=k.1:1");
        let gap = resumed.answered("a", gone).unwrap();
        assert_eq!(
            gap.to_json(),
            r#"{"channel":"a","reason":"expired","oldest":4,"newest":8,"epoch":"k.2"}"#
        );
        assert_eq!(resumed.cursor().as_deref(), Some("k.2:8"));

        let disabled = Answer { reason: Some("disabled".into()), ..Answer::default() };
        let mut live = places("channels=a");
        assert_eq!(live.answered("a", disabled.clone()), None);
        assert_eq!(live.cursor(), None);
        let gap = places("channels=a&rewind=1").answered("a", disabled).unwrap();
        assert_eq!(gap.to_json(), r#"{"channel":"a","reason":"disabled"}"#);
    }

    #[test]
    fn a_reset_begins_anew() {
        let mut places = places("channels=a");
        places.answered("a", answer("k.2:7"));
        places.reset("a", Some(position("k.3:5")));
        assert_eq!(places.cursor().as_deref(), Some("k.3:5"));
        places.moved("a", 6, None);
        assert_eq!(places.cursor().as_deref(), Some("k.3:6"));
        assert!(!places.moved("a", 6, None) && !places.moved("unknown", 9, None));
        assert_eq!(places.cursor().as_deref(), Some("k.3:6"));
    }
}
