//! Positions, cursors and what the log answers to them, for every input and every history of a log.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::Value;
use serde_json::value::RawValue;
use tidewire_protocol::history::{Direction, HistoryCursor, HistoryQuery};
use tidewire_protocol::replay::{Bounds, Generation, Reason, ReplayRequest};
use tidewire_protocol::server_message::{self, ReplayAnswer, ReplayOutcome};
use tidewire_protocol::{
    ApiQuery, ClientMessage, DataToken, Epoch, Overrides, Position, ReplayError, UserData, frame,
};

const NONCE: u64 = 7;

/// What happens to a log.
#[derive(Clone, Copy, Debug)]
enum Step {
    Publish,
    /// The store goes down without a clean end, and loses so many of the newest messages.
    Crash {
        lost: usize,
    },
    /// So many of the oldest messages go.
    Trim {
        count: u64,
    },
    /// A client notes its position, as one that has everything.
    Visit,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Publish),
        2 => (0..4_usize).prop_map(|lost| Step::Crash { lost }),
        1 => (0..4_u64).prop_map(|count| Step::Trim { count }),
        3 => Just(Step::Visit),
    ]
}

/// A log whose messages all differ, so that a client can be asked what it really holds.
struct Log {
    base: u64,
    /// Of the store; the log takes it over with its next message.
    generation: u32,
    generations: Vec<Generation>,
    /// From `base + 1` on, trimmed ones included.
    messages: Vec<u32>,
    published: u32,
    floor: u64,
}

struct Client {
    position: Position,
    messages: Vec<u32>,
}

impl Log {
    fn new(base: u64) -> Self {
        Self {
            base,
            generation: 1,
            generations: Vec::new(),
            messages: Vec::new(),
            published: 0,
            floor: base + 1,
        }
    }

    fn head(&self) -> u64 {
        self.base + self.messages.len() as u64
    }

    fn bounds(&self) -> Bounds {
        let mut generations = self.generations.clone();
        if generations.is_empty() {
            generations.push(Generation { number: self.generation, start: self.base + 1 });
        }
        Bounds { nonce: NONCE, base: self.base, generations, floor: self.floor, head: self.head() }
    }

    fn take(&mut self, step: Step, clients: &mut Vec<Client>) {
        match step {
            Step::Publish => self.publish(),
            Step::Crash { lost } => self.crash(lost),
            Step::Trim { count } => self.floor = (self.floor + count).min(self.head() + 1),
            Step::Visit => {
                clients.push(Client { position: self.bounds().position(), messages: self.messages.clone() })
            }
        }
    }

    fn publish(&mut self) {
        if self.generations.last().is_none_or(|last| last.number != self.generation) {
            self.generations.push(Generation { number: self.generation, start: self.head() + 1 });
        }
        self.published += 1;
        self.messages.push(self.published);
    }

    fn crash(&mut self, lost: usize) {
        // What is trimmed was safe long ago.
        let trimmed = usize::try_from(self.floor - 1 - self.base).unwrap();
        let kept = self.messages.len().saturating_sub(lost).max(trimmed);
        self.messages.truncate(kept);
        let head = self.head();
        self.generations.retain(|one| one.start <= head);
        self.generation += 1;
    }
}

fn near_replay() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("\"v\":1"),
        Just("\"v\":2"),
        Just("\"from\":"),
        Just("\"rewind\":"),
        Just("\"count\":"),
        Just("\"seconds\":"),
        Just("\"earliest\""),
        Just("\"on_gap\":\"reject\""),
        Just("\"not_from\":\"1.2\""),
        Just("\"a.1:7\""),
        Just("\"window\":"),
        Just("\"lifetime\":"),
        Just("\"replay\":"),
        Just("\"id\":\"u\""),
        Just("18446744073709551615"),
        Just("{"),
        Just("}"),
        Just(","),
        Just("null"),
        Just("-1"),
    ];
    vec(word, 0..12).prop_map(|words| format!("{{{}}}", words.concat()))
}

fn epoch() -> impl Strategy<Value = Epoch> {
    (any::<u64>(), any::<u32>()).prop_map(|(nonce, generation)| Epoch { nonce, generation })
}

proptest! {
    #[test]
    fn exactly_those_who_hold_lost_messages_or_missed_trimmed_ones_resync(
        base in prop_oneof![Just(0_u64), 1..50_u64],
        steps in vec(step(), 0..40),
    ) {
        let (mut log, mut clients) = (Log::new(base), Vec::new());
        for step in steps {
            log.take(step, &mut clients);
        }
        let bounds = log.bounds();
        for Client { position, messages } in clients {
            let answer = bounds.resolve(position, u64::MAX);
            let expected = if !log.messages.starts_with(&messages) {
                prop_assert!(matches!(answer, Err(Reason::RolledBack | Reason::StreamReset)), "{answer:?}");
                continue;
            } else if position.serial + 1 < log.floor {
                Err(Reason::Expired)
            } else {
                Ok(())
            };
            prop_assert_eq!(answer, expected, "{} in {:?}", position, bounds);
            let missed = bounds.head - position.serial;
            if expected.is_ok() && missed > 0 {
                prop_assert_eq!(bounds.resolve(position, missed - 1), Err(Reason::TooMany));
                prop_assert_eq!(bounds.resolve(position, missed), Ok(()));
            }
        }
    }

    #[test]
    fn any_position_is_resolved_in_any_bounds(
        (nonce, base, floor, head) in any::<(bool, u64, u64, u64)>(),
        starts in vec(any::<(u32, u64)>(), 0..4),
        generation in any::<u32>(),
        (serial, max_replay) in any::<(u64, u64)>(),
    ) {
        let generation = starts.first().map_or(generation, |first| first.0);
        let generations = starts.into_iter().map(|(number, start)| Generation { number, start }).collect();
        let bounds = Bounds { nonce: NONCE, base, generations, floor, head };
        let epoch = Epoch { nonce: if nonce { NONCE } else { NONCE + 1 }, generation };
        let _ = bounds.resolve(Position { epoch, serial }, max_replay);
        let _ = bounds.resolve(bounds.position(), max_replay);
    }

    #[test]
    fn a_position_has_one_text(epoch in epoch(), serial in any::<u64>(), text in "[0-9A-Za-z.:]{0,20}") {
        let position = Position { epoch, serial };
        prop_assert_eq!(position.to_string().parse(), Ok(position));
        if let Ok(position) = text.parse::<Position>() {
            prop_assert_eq!(position.to_string(), text);
        }
    }

    #[test]
    fn a_cursor_has_one_text(
        is_forward in any::<bool>(),
        serial in any::<u64>(),
        bound in option::of(any::<u64>()),
        epoch in epoch(),
        text in "A[QA][A-D][-_A-Za-z0-9]{37}|[-_=A-Za-z0-9]{0,44}",
    ) {
        let direction = if is_forward { Direction::Forward } else { Direction::Backward };
        let cursor = HistoryCursor { direction, serial, bound, epoch };
        prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        let query = format!("cursor={cursor}");
        prop_assert_eq!(HistoryQuery::parse(&ApiQuery::parse(&query)).unwrap().cursor, Some(cursor));
        if let Ok(cursor) = text.parse::<HistoryCursor>() {
            prop_assert_eq!(cursor.to_string(), text);
        }
    }

    #[test]
    fn parsers_of_replay_are_total(text in prop_oneof![".*".boxed(), near_replay().boxed()]) {
        if let Ok(raw) = serde_json::from_str::<&RawValue>(&text) {
            let request = ReplayRequest::parse(raw);
            let frame = format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"a","replay":{text}}}}}"#);
            let Ok(ClientMessage::Subscribe(subscribe)) = ClientMessage::parse(&frame) else {
                return Err(TestCaseError::fail(frame));
            };
            prop_assert_eq!(subscribe.replay, (raw.get() != "null").then_some(request));
        }
        let _ = Overrides::of_channel_data(&text);
        let _ = UserData::parse(&text, 1);
        let _ = text.parse::<Position>();
        let _ = HistoryQuery::parse(&ApiQuery::parse(&text));
        for name in ["direction", "limit", "from", "to", "since", "cursor"] {
            let query = format!("{name}={}", text.replace(['&', '%'], ""));
            if let Err(error) = HistoryQuery::parse(&ApiQuery::parse(&query)) {
                prop_assert!(error.status == 400 && error.text.contains(name), "{}", error);
            }
        }
    }

    #[test]
    fn an_answer_leaves_the_stock_members_as_they_were(
        (channel, text) in (".{0,12}", ".{0,30}"),
        (epoch, serial, oldest) in (epoch(), any::<u64>(), option::of(any::<u64>())),
        (prev, id) in (option::of(any::<u64>()), option::of(".{0,12}")),
        is_replayed in any::<bool>(),
    ) {
        let value = |frame: &str| serde_json::from_str::<Value>(frame).unwrap();
        let plain = server_message::channel_event(&text, &channel, &DataToken::from_text(&text), None);
        let bytes = frame::encode_text(&plain);
        prop_assert_eq!(frame::text_of(&bytes), &plain);
        let mut expected = value(&plain);
        let placed =
            server_message::positioned(&plain, serial, Some(epoch), prev, id.as_deref(), is_replayed);
        expected["serial"] = serial.into();
        expected["epoch"] = epoch.to_string().into();
        for (name, member) in [
            ("prev", prev.map(Value::from)),
            ("id", id.map(Value::from)),
            ("replayed", is_replayed.then_some(Value::Bool(true))),
        ] {
            if let Some(member) = member {
                expected[name] = member;
            }
        }
        prop_assert_eq!(value(&placed), expected);

        let position = Some(Position { epoch, serial });
        let outcome = ReplayOutcome::Gap { reason: Reason::Expired, oldest };
        let answer = ReplayAnswer { position, outcome };
        let plain = server_message::subscription_succeeded(&channel);
        let mut answered = value(&server_message::with_replay(&plain, &answer));
        prop_assert_eq!(answered["replay"]["oldest"].as_u64(), oldest);
        answered.as_object_mut().unwrap().remove("replay");
        prop_assert_eq!(answered, value(&plain));
        let gone = value(&server_message::replay_gone(&channel, &text, Reason::Expired, oldest));
        let data = value(gone["data"].as_str().unwrap());
        prop_assert_eq!(data["error"].as_str(), Some(&*text));
    }
}

#[test]
fn a_replay_member_that_cannot_be_read_is_not_a_subscription_without_one() {
    let text = r#"{"event":"pusher:subscribe","data":{"channel":"a","replay":[]}}"#;
    let Ok(ClientMessage::Subscribe(subscribe)) = ClientMessage::parse(text) else { panic!("{text}") };
    assert_eq!(subscribe.replay, Some(Err(ReplayError::NotAnObject)));
}
