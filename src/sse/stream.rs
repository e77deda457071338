//! An open event stream: what its connection is sent becomes the body of the answer.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame};

use super::opening::Opening;
use super::pipe::{Pipe, Progress, Said};
use super::places::{Gap, Places};
use super::refused::{End, RECONNECT_NOW};
use super::request::OnGap;
use super::told::{self, Answer, Told};
use super::{drain_retry, text};
use crate::clock::Clock;
use crate::node::Node;
use crate::worker::Worker;

/// The body of an answer. Dropping it ends its connection.
pub struct EventStream {
    worker: Rc<Worker>,
    /// `None` once it is at its end.
    pipe: Option<Pipe>,
    translation: Translation,
    keepalive: Keepalive,
}

/// What was said and has not gone out yet.
struct Translation {
    places: Places,
    on_gap: OnGap,
    out: Vec<u8>,
    /// Why something was refused; what it was follows.
    error: Option<Box<str>>,
    is_over: bool,
}

/// Says something when nothing was said for long.
struct Keepalive {
    clock: Clock,
    interval: Duration,
    due_ms: u64,
    /// Until then, or until the clock was moved.
    timer: Pin<Box<dyn Future<Output = ()>>>,
}

impl EventStream {
    /// Begins with how to come back, what is gone, where the client is, and what came while the channels answered.
    pub fn new(
        worker: Rc<Worker>,
        pipe: Pipe,
        opening: Opening,
        on_gap: OnGap,
        retry: Duration,
        keepalive: Duration,
    ) -> Self {
        let Opening { places, gaps, held, .. } = opening;
        let mut translation = Translation { places, on_gap, out: Vec::new(), error: None, is_over: false };
        text::push_retry(&mut translation.out, retry);
        // A gap before the cursor behind it: whoever is cut off in between hears of the gap once more.
        gaps.iter().for_each(|gap| translation.push_gone(gap, None));
        translation.push_cursor();
        held.iter().for_each(|text| translation.take(Said::Text(text), &worker.node));
        let keepalive = Keepalive::new(worker.node.clock.clone(), keepalive);
        Self { worker, pipe: Some(pipe), translation, keepalive }
    }

    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Self { worker, pipe, translation, keepalive } = self;
        loop {
            if !translation.out.is_empty() {
                keepalive.put_off();
                return Poll::Ready(Some(std::mem::take(&mut translation.out).into()));
            }
            if translation.is_over {
                *pipe = None;
            }
            let Some(open) = pipe else { return Poll::Ready(None) };
            let mut buffer = worker.read_buffer();
            let node = &worker.node;
            match open.poll_read(cx, &mut buffer, |said| translation.take(said, node)) {
                Poll::Ready(Progress::Read) => {}
                Poll::Ready(Progress::Ended) => translation.is_over = true,
                Poll::Pending => {
                    ready!(keepalive.poll_due(cx));
                    text::push_comment(&mut translation.out);
                }
            }
        }
    }
}

impl Body for EventStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.poll_out(cx).map(|out| out.map(|bytes| Ok(Frame::data(bytes))))
    }
}

impl Translation {
    fn take(&mut self, said: Said<'_>, node: &Node) {
        if self.is_over {
            return;
        }
        let text = match said {
            Said::Text(text) => text,
            Said::Close { code, reason } => return self.close(code, reason, node),
        };
        match told::read(text) {
            Told::Hidden | Told::SignedIn => {}
            Told::Error(message) => self.error = Some(message.into()),
            Told::Refused { status, .. } => {
                let reason = self.error.take().unwrap_or_default();
                self.end(status, &reason);
            }
            Told::Joined { channel, has_members, answer } => {
                self.join(&channel, answer, Some(text).filter(|_| has_members));
            }
            Told::Done { channel, serial } => {
                if self.places.done(&channel, serial) {
                    self.push_cursor();
                }
            }
            Told::Skipped { channel, serial } => {
                if self.places.moved(&channel, serial, None) {
                    self.push_cursor();
                }
            }
            Told::Reset { channel, position, reason } => {
                self.places.reset(&channel, position);
                let cursor = self.places.cursor();
                self.push_gone(&Gap::new(&channel, reason, None, position), cursor.as_deref());
            }
            Told::Event { channel: Some(channel), serial: Some(serial), epoch } => {
                self.places.moved(&channel, serial, epoch);
                let cursor = self.places.cursor();
                text::push_block(&mut self.out, cursor.as_deref(), None, Some(text));
            }
            Told::Event { .. } => text::push_block(&mut self.out, None, None, Some(text)),
        }
    }

    /// A channel that took so long to answer that the stream was begun without it.
    fn join(&mut self, channel: &str, answer: Answer, members: Option<&str>) {
        match self.places.answered(channel, answer) {
            // Without its cursor: the client comes back with the one it has, and is refused.
            Some(_) if self.on_gap == OnGap::Reject => return self.end(410, "position_gone"),
            Some(gap) => self.push_gone(&gap, None),
            None => {}
        }
        self.push_cursor();
        if let Some(members) = members {
            text::push_block(&mut self.out, None, None, Some(members));
        }
    }

    fn close(&mut self, code: u16, reason: &str, node: &Node) {
        if code == RECONNECT_NOW && node.is_draining() {
            text::push_retry(&mut self.out, drain_retry(node));
        }
        self.end(code, reason);
    }

    fn end(&mut self, code: u16, reason: &str) {
        End { code, reason }.push(&mut self.out);
        self.is_over = true;
    }

    fn push_cursor(&mut self) {
        if let Some(cursor) = self.places.cursor() {
            text::push_block(&mut self.out, Some(&cursor), None, None);
        }
    }

    fn push_gone(&mut self, gap: &Gap, cursor: Option<&str>) {
        text::push_block(&mut self.out, cursor, Some("tidewire:gone"), Some(&gap.to_json()));
    }
}

impl Keepalive {
    fn new(clock: Clock, interval: Duration) -> Self {
        let mut keepalive = Self { clock, interval, due_ms: 0, timer: Box::pin(std::future::ready(())) };
        keepalive.put_off();
        keepalive
    }

    /// The next one is due an interval from now, ±10 %: streams that were opened together do not all wake together.
    fn put_off(&mut self) {
        let interval_ms = u64::try_from(self.interval.as_millis()).unwrap_or(u64::MAX);
        let jittered = interval_ms.saturating_mul(rand::random_range(900..=1100)) / 1000;
        self.due_ms = self.clock.now_ms().saturating_add(jittered.max(1));
    }

    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let left = self.due_ms.saturating_sub(self.clock.now_ms());
            if left == 0 {
                return Poll::Ready(());
            }
            ready!(self.timer.as_mut().poll(cx));
            let clock = self.clock.clone();
            self.timer = Box::pin(async move { clock.tick(Duration::from_millis(left)).await });
        }
    }
}

#[cfg(test)]
mod tests {
    use tidewire_protocol::position::Position;
    use tidewire_protocol::replay::Reason;
    use tidewire_protocol::server_message::{self, ReplayAnswer, ReplayOutcome};
    use tidewire_protocol::{DataToken, SocketId};

    use super::super::request::{Query, StreamRequest};
    use super::*;
    use crate::config::Config;

    struct Reading {
        node: Node,
        translation: Translation,
    }

    impl Reading {
        /// Of a stream whose channels have not answered.
        fn new(query: &str) -> Self {
            let request = StreamRequest::parse(&Query(query), None, 200).unwrap();
            let (places, on_gap) = (Places::of(&request), request.on_gap);
            let translation = Translation { places, on_gap, out: Vec::new(), error: None, is_over: false };
            Self {
                node: Node::new(Config::for_tests(Vec::new()), None, 1, Clock::default()).unwrap(),
                translation,
            }
        }

        /// What comes out when this is said.
        fn hear(&mut self, text: &str) -> String {
            self.take(Said::Text(text))
        }

        fn take(&mut self, said: Said<'_>) -> String {
            self.translation.take(said, &self.node);
            String::from_utf8(std::mem::take(&mut self.translation.out)).unwrap()
        }
    }

    fn position(text: &str) -> Position {
        text.parse().unwrap()
    }

    fn answered(channel: &str, at: &str, outcome: ReplayOutcome) -> String {
        let answer = ReplayAnswer { position: Some(position(at)), outcome };
        server_message::with_replay(&server_message::subscription_succeeded(channel), &answer)
    }

    fn event(channel: &str, serial: u64) -> String {
        let plain = server_message::channel_event("e", channel, &DataToken::EMPTY_OBJECT, None);
        server_message::positioned(&plain, serial, None, None, None, false)
    }

    #[test]
    fn an_event_moves_the_cursor_and_what_follows_it_only_if_that_is_news() {
        let mut reading = Reading::new("channels=a");
        assert_eq!(reading.hear(&answered("a", "k.1:7", ReplayOutcome::Live)), "id: k.1:7\n\n");
        let frame = event("a", 8);
        assert_eq!(reading.hear(&frame), format!("id: k.1:8\ndata: {frame}\n\n"));
        assert_eq!(reading.hear(&server_message::replay_done("a", 8)), "");
        assert_eq!(reading.hear(&server_message::replay_skip("a", 9, None)), "id: k.1:9\n\n");
    }

    #[test]
    fn a_reset_is_told_with_where_the_channel_goes_on() {
        let mut reading = Reading::new("channels=a");
        reading.hear(&answered("a", "k.1:7", ReplayOutcome::Live));
        let at = position("k.2:5");
        let reset = server_message::replay_reset("a", at.epoch, at.serial, Reason::RolledBack);
        let data = r#"{"channel":"a","reason":"rolled_back","newest":5,"epoch":"k.2"}"#;
        assert_eq!(reading.hear(&reset), format!("id: k.2:5\nevent: tidewire:gone\ndata: {data}\n\n"));
    }

    #[test]
    fn a_channel_that_answers_late_is_answered_in_the_stream() {
        let gap = answered("a", "k.1:9", ReplayOutcome::Gap { reason: Reason::Expired, oldest: Some(8) });
        let query = "channels=a&last_event_id=k.1:2";
        let mut reading = Reading::new(&format!("{query}&on_gap=event"));
        let data = r#"{"channel":"a","reason":"expired","oldest":8,"newest":9,"epoch":"k.1"}"#;
        assert_eq!(reading.hear(&gap), format!("event: tidewire:gone\ndata: {data}\n\nid: k.1:9\n\n"));

        // Who wants to be refused keeps its cursor, comes back with it, and is.
        let mut reading = Reading::new(query);
        let end = "event: tidewire:error\ndata: {\"code\":410,\"reason\":\"position_gone\"}\n\n";
        assert_eq!(reading.hear(&gap), end);
        assert!(reading.translation.is_over);
        assert_eq!(reading.hear(&event("a", 10)), "", "nothing comes after the end");

        let mut reading = Reading::new("channels=a");
        assert_eq!(reading.hear(&server_message::error(None, "No")), "");
        let refused = server_message::subscription_error("a", "ReplayUnavailable", "No", 503);
        let end = "event: tidewire:error\ndata: {\"code\":503,\"reason\":\"No\"}\n\n";
        assert_eq!(reading.hear(&refused), end);
    }

    #[test]
    fn a_close_is_told_unless_the_client_only_has_to_come_back() {
        let mut reading = Reading::new("channels=a");
        let close = Said::Close { code: 4100, reason: "over capacity" };
        let end = "event: tidewire:error\ndata: {\"code\":4100,\"reason\":\"over capacity\"}\n\n";
        assert_eq!(reading.take(close), end);

        let again = Said::Close { code: 4200, reason: "generic reconnect immediately" };
        let mut reading = Reading::new("channels=a");
        assert_eq!(reading.take(again), "", "it has lived long enough");
        assert!(reading.translation.is_over);
        let mut reading = Reading::new("channels=a");
        reading.node.begin_drain();
        let retry = reading.take(again);
        assert!(retry.starts_with("retry: ") && retry.ends_with("\n\n"), "{retry}");
    }

    #[test]
    fn what_concerns_the_connection_alone_is_not_passed_on() {
        let mut reading = Reading::new("channels=a");
        let socket_id: SocketId = "1.2".parse().unwrap();
        for text in [
            server_message::connection_established(socket_id, 120),
            server_message::pong(),
            server_message::error(Some(4009), "bye"),
        ] {
            assert_eq!(reading.hear(&text), "");
        }
    }
}
