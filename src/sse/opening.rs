//! The time between a request and its status: every channel has to answer first.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

use super::pipe::{Pipe, Progress, Said};
use super::places::{Gap, Places};
use super::refused::Refused;
use super::request::{OnGap, StreamRequest};
use super::told::{self, Told};
use crate::worker::Worker;

/// A stream whose channels have answered.
#[derive(Debug)]
pub struct Opening {
    pub places: Places,
    /// For the client to hear of, when it wants to hear rather than to be refused.
    pub gaps: Vec<Gap>,
    /// Frames that came before the last answer.
    pub held: VecDeque<Box<str>>,
    held_bytes: usize,
    on_gap: OnGap,
    awaits_sign_in: bool,
    /// Why something was refused; what it was follows.
    error: Option<Box<str>>,
    refused: Option<Refused>,
}

impl Opening {
    /// Reads until every channel has answered. When what comes meanwhile fills an outbox, the others are not waited for:
    /// they answer in the stream.
    pub async fn answered(
        worker: &Rc<Worker>,
        pipe: &mut Pipe,
        request: &StreamRequest,
    ) -> Result<Self, Refused> {
        let mut opening = Self {
            places: Places::of(request),
            gaps: Vec::new(),
            held: VecDeque::new(),
            held_bytes: 0,
            on_gap: request.on_gap,
            awaits_sign_in: request.sign_in.is_some(),
            error: None,
            refused: None,
        };
        let max_held_bytes = worker.node.config.outbox_bytes;
        let reading = poll_fn(|cx| {
            loop {
                let mut buffer = worker.read_buffer();
                let progress = ready!(pipe.poll_read(cx, &mut buffer, |said| opening.take(said)));
                if let Some(refused) = opening.refused.take() {
                    return Poll::Ready(Err(refused));
                }
                if !opening.places.is_waiting() || opening.held_bytes > max_held_bytes {
                    return Poll::Ready(Ok(()));
                }
                if progress == Progress::Ended {
                    return Poll::Ready(Err(Refused::unavailable("The server is closing the connection")));
                }
            }
        });
        let limit = Duration::from_secs(worker.node.config.handshake_timeout_seconds);
        match tokio::time::timeout(limit, reading).await {
            Ok(Ok(())) => Ok(opening),
            Ok(Err(refused)) => Err(refused),
            Err(_) => Err(Refused::unavailable("Not every channel has answered in time")),
        }
    }

    /// Everything that was asked for is on its way.
    pub fn is_recovered(&self) -> bool {
        self.gaps.is_empty() && !self.places.is_waiting()
    }

    fn take(&mut self, said: Said<'_>) {
        if self.refused.is_some() {
            return;
        }
        let text = match said {
            Said::Text(text) => text,
            Said::Close { code, reason } => {
                self.refused = Some(Refused::closed(code, reason));
                return;
            }
        };
        match told::read(text) {
            Told::Hidden => {}
            Told::SignedIn => self.awaits_sign_in = false,
            // The sign-in is what was asked first.
            Told::Error(message) if self.awaits_sign_in => {
                self.refused = Some(Refused::new(403, &message));
            }
            Told::Error(message) => self.error = Some(message.into()),
            Told::Refused { channel, kind, status } => {
                let message = self.error.take().unwrap_or_default();
                self.refused = Some(Refused::subscription(&channel, &kind, status, &message));
            }
            Told::Joined { channel, has_members, answer } => {
                match self.places.answered(&channel, answer) {
                    Some(gap) if self.on_gap == OnGap::Reject => self.refused = Some(Refused::gone(gap)),
                    gap => self.gaps.extend(gap),
                }
                if has_members {
                    self.hold(text);
                }
            }
            Told::Done { .. } | Told::Skipped { .. } | Told::Reset { .. } | Told::Event { .. } => {
                self.hold(text);
            }
        }
    }

    fn hold(&mut self, text: &str) {
        self.held_bytes += text.len();
        self.held.push_back(text.into());
    }
}
