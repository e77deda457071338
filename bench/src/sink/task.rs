//! The one order a sink is busy with.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::connection::{Connection, Stage};
use super::{Sink, Tally};
use crate::child::print_line;
use crate::control::{Chatter, Expected, SinkReply};
use crate::random::Random;
use crate::{frame, payload};

pub enum Task {
    Idle,
    Opening { ready: usize, since: Instant, deadline: Instant },
    Awaiting { events: u64, deadline: Instant },
    AwaitingMembers { members: u64, deadline: Instant },
    Verifying { expected: Expected, at: Instant },
    Chatting { chatting: Chatting, deadline: Instant },
    Closing { left: usize, deadline: Instant },
}

/// Client events under way between the members of the rooms.
pub struct Chatting {
    chatter: Chatter,
    random: Random,
    /// The event frame of each room, masked and ready.
    frames: Vec<Vec<u8>>,
    /// The connections of each room.
    rooms: Vec<Vec<usize>>,
    sent: u64,
    /// Deliveries that the events sent so far must cause, and events that had arrived before the first.
    due: u64,
    start: u64,
}

impl Task {
    /// How long to sleep when no socket has anything.
    pub fn patience(&self) -> Option<Duration> {
        match self {
            Task::Idle => None,
            Task::Verifying { at, .. } => Some(at.saturating_duration_since(Instant::now())),
            _ => Some(Duration::from_millis(100)),
        }
    }
}

impl Chatting {
    pub fn new(chatter: Chatter, prefix: &str, connections: &[Connection], start: u64) -> Self {
        let rooms = connections.iter().map(|connection| connection.channel + 1).max().unwrap_or(1);
        let mut members = vec![Vec::new(); rooms];
        for (index, connection) in connections.iter().enumerate() {
            members[connection.channel].push(index);
        }
        let frames = (0..rooms).map(|room| client_event(&format!("{prefix}{room}"), &chatter.data)).collect();
        let random = Random::new(chatter.seed);
        Chatting { chatter, random, frames, rooms: members, sent: 0, due: 0, start }
    }

    /// Sends as much as the window allows; true once everything has been sent and delivered.
    fn advance(&mut self, connections: &mut [Connection], owed: &mut [u64], arrived: u64) -> Result<bool> {
        let arrived = arrived - self.start;
        while self.sent < self.chatter.events {
            let room = self.random.below(self.rooms.len());
            let members = &self.rooms[room];
            let others = members.len() as u64 - 1;
            if self.due - arrived >= self.chatter.window * others {
                break;
            }
            let sender = members[self.random.below(members.len())];
            connections[sender].write(&self.frames[room])?;
            self.sent += 1;
            self.due += others;
            members.iter().filter(|member| **member != sender).for_each(|member| owed[*member] += 1);
        }
        Ok(self.sent == self.chatter.events && arrived >= self.due)
    }
}

fn client_event(channel: &str, data: &str) -> Vec<u8> {
    let event = payload::CLIENT_EVENT;
    frame::client(
        frame::TEXT,
        format!(r#"{{"event":"{event}","channel":"{channel}","data":{data}}}"#).as_bytes(),
    )
}

impl Sink {
    /// Goes on with the task as far as what has arrived allows, and answers when it is done.
    pub(super) fn advance(&mut self) -> Result<()> {
        let now = Instant::now();
        let mut task = std::mem::replace(&mut self.task, Task::Idle);
        let done = match &mut task {
            Task::Idle => return Ok(()),
            Task::Opening { ready, since, deadline } => {
                self.open_more(*ready)?;
                let wanted = self.open.as_ref().map_or(0, |open| open.count);
                if now > *deadline {
                    bail!("only {ready} of {wanted} connections were subscribed in time");
                }
                let done = *ready == wanted;
                if done {
                    print_line(&SinkReply::Opened { seconds: since.elapsed().as_secs_f64() })?;
                }
                done
            }
            Task::Awaiting { events, deadline } => {
                let done = self.tally.events >= *events;
                if done {
                    print_line(&SinkReply::Reached)?;
                } else if now > *deadline {
                    bail!("only {} of {events} events arrived in time", self.tally.events);
                }
                done
            }
            Task::AwaitingMembers { members, deadline } => {
                let done = self.tally.members == *members;
                if done {
                    print_line(&SinkReply::Reached)?;
                } else if now > *deadline {
                    bail!("the lists have {} of {members} members", self.tally.members);
                }
                done
            }
            Task::Verifying { expected, at } => {
                let done = now >= *at;
                if done {
                    self.verify(expected)?;
                }
                done
            }
            Task::Chatting { chatting, deadline } => {
                let done = chatting.advance(&mut self.connections, &mut self.chattered, self.tally.events)?;
                if done {
                    print_line(&SinkReply::Chattered)?;
                } else if now > *deadline {
                    bail!("{} of {} client events arrived in time", self.tally.events, chatting.due);
                }
                done
            }
            Task::Closing { left, deadline } => {
                let done = *left == 0;
                if done {
                    self.connections.clear();
                    self.tally = Tally::default();
                    print_line(&SinkReply::Closed)?;
                } else if now > *deadline {
                    let open = self.connections.iter().filter(|other| other.stage != Stage::Closed).count();
                    bail!("the server left {open} connections open after their close frames");
                }
                done
            }
        };
        if !done {
            self.task = task;
        }
        Ok(())
    }
}
