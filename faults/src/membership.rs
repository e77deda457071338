//! Who an observer is told to be in its presence channels.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::history::{Act, Record};
use crate::observer::Observer;
use crate::wire::Frame;

#[derive(Deserialize)]
struct Succeeded {
    presence: Option<Presence>,
}

#[derive(Deserialize)]
struct Presence {
    ids: Vec<String>,
}

#[derive(Deserialize)]
struct Member {
    user_id: String,
}

impl Observer {
    pub fn user(&self) -> &str {
        if self.plan.user.is_empty() { &self.plan.name } else { &self.plan.user }
    }

    /// Of one server, nobody checks it.
    fn is_noted(&self, channel: &str) -> bool {
        self.field.balancer.is_cluster() && channel.starts_with("presence-")
    }

    pub fn note_asking(&mut self, channel: &str) {
        // What asks for messages once more does not join again.
        if self.field.balancer.is_cluster() {
            let (user, sid) = (self.user().to_owned(), self.socket_id.clone());
            let (t, node) = (self.field.history.now(), u8::try_from(self.node).ok());
            let own = Record { t, f: Act::Ask, ch: channel, ..Record::default() };
            self.note(&Record { sid: &sid, user: &user, node, ..own });
        }
    }

    pub fn note_leaving(&mut self, index: usize) {
        let channel = self.watches[index].channel.clone();
        if self.field.balancer.is_cluster() {
            let t = self.field.history.now();
            self.note(&Record { t, f: Act::Leave, ch: &channel, ..Record::default() });
        }
    }

    /// The list that comes with a subscription.
    pub fn note_members(&mut self, now: u64, frame: &Frame<'_>) {
        let Some(channel) = frame.channel.filter(|channel| self.is_noted(channel)) else { return };
        let presence = data::<Succeeded>(frame).and_then(|succeeded| succeeded.presence);
        // Without a list it is garbled: the checker misses its own user in it.
        let users = presence.map_or(String::new(), |presence| presence.ids.join(" "));
        let own = Record { t: now, f: Act::Members, ch: channel, ..Record::default() };
        let (user, node) = (self.user().to_owned(), u8::try_from(self.node).ok());
        self.note(&Record { users: &users, user: &user, node, ..own });
    }

    pub fn note_member(&mut self, now: u64, act: Act, frame: &Frame<'_>) {
        let Some(channel) = frame.channel.filter(|channel| self.is_noted(channel)) else { return };
        let user = data::<Member>(frame).map_or_else(|| "?".to_owned(), |member| member.user_id);
        self.note(&Record { t: now, f: act, ch: channel, user: &user, ..Record::default() });
    }
}

fn data<D: DeserializeOwned>(frame: &Frame<'_>) -> Option<D> {
    let text: String = serde_json::from_str(frame.data?.get()).ok()?;
    serde_json::from_str(&text).ok()
}
