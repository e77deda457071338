//! What the nodes have, kept in Redis: subscriptions, members and signed-in users of each session.
//!
//! A call makes Redis's record of a session equal to what its node has, and says what that changed for the cluster.
//! Calls may be repeated: what is so already changes nothing and is announced to nobody.

use std::sync::Arc;

use redis::{FromRedisValue, Value};
use serde_json::value::RawValue;

use super::lease::Session;
use super::scripts::{SYNC, SYNC_USER, TERMINATE};
use super::transport::{LinkError, Transport};
use crate::fanout::keys::{Keys, escaped, partition, user_partition};

/// Users that one script adds or removes: it keeps Redis from everything else for about a millisecond.
const USERS_PER_SCRIPT: usize = 100;

/// A node that was cut off for longer does not hear of a termination.
const TERMINATION_SECONDS: &str = "86400";

/// The cluster's record; clones share it.
#[derive(Clone, Debug)]
pub struct State {
    pub(super) transport: Transport,
    pub(super) keys: Arc<Keys>,
}

/// What a session's node has of a channel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Update<'a> {
    pub app: &'a str,
    pub channel: &'a str,
    /// Subscriptions on the node.
    pub count: u32,
    /// Whether the channel's subscribers are told when the total changes.
    pub announce: bool,
    /// Users that the channel may have in the cluster.
    pub max_members: usize,
    /// Users that have left the node. No id is empty.
    pub removed: &'a [&'a str],
    /// Users that are on the node, as their newest subscription there has them. No id is empty.
    pub added: &'a [(&'a str, Option<&'a RawValue>)],
    /// Sessions of the same node: what they have of the same subscriptions and users is this one's from then on, so that
    /// nobody is counted twice, or gone when they end.
    pub predecessors: &'a [Session],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Synced {
    Done {
        /// Subscriptions in the cluster.
        total: u64,
        transition: Transition,
        /// Of the channel's members after this; 0 when there are none, or the update named no user.
        version: u64,
        /// Users that the channel has no room for.
        refused: Vec<Box<str>>,
    },
    /// The session is not to write any more: the node has to begin a new one.
    Dead,
}

/// What an update changed for the cluster: told to one caller, once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transition {
    #[default]
    None,
    /// The channel has subscriptions, and had none before.
    Occupied,
    /// The channel has no subscription any more.
    Vacated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserSynced {
    Done { transition: UserTransition },
    Dead,
}

/// As [`Transition`], of a user's sign-ins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UserTransition {
    #[default]
    None,
    Online,
    Offline,
}

impl State {
    pub fn new(transport: Transport, prefix: &str) -> Self {
        Self { transport, keys: Arc::new(Keys::new(prefix)) }
    }

    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Removes users, then adds users, then sets the count. Members and total are announced on the channel's topic as
    /// they change.
    pub async fn sync(&self, session: &Session, update: Update<'_>) -> Result<Synced, LinkError> {
        let Update { mut removed, mut added, .. } = update;
        let mut all_refused = Vec::new();
        while removed.len() + added.len() > USERS_PER_SCRIPT {
            let now_removed = removed.split_off(..removed.len().min(USERS_PER_SCRIPT)).unwrap_or_default();
            let room = if removed.is_empty() { USERS_PER_SCRIPT - now_removed.len() } else { 0 };
            let now_added = added.split_off(..room.min(added.len())).unwrap_or_default();
            let part = Update { removed: now_removed, added: now_added, ..update };
            match self.sync_part(session, part, None).await? {
                Synced::Dead => return Ok(Synced::Dead),
                Synced::Done { refused, .. } => all_refused.extend(refused),
            }
        }
        let mut synced =
            self.sync_part(session, Update { removed, added, ..update }, Some(update.count)).await?;
        if let Synced::Done { refused, .. } = &mut synced {
            all_refused.append(refused);
            *refused = all_refused;
        }
        Ok(synced)
    }

    /// Without a count, it stays as it is.
    async fn sync_part(
        &self,
        session: &Session,
        update: Update<'_>,
        count: Option<u32>,
    ) -> Result<Synced, LinkError> {
        let Update { app, channel, announce, max_members, removed, added, predecessors, .. } = update;
        let at = partition(app, channel);
        let keys = &self.keys;
        let mut names = vec![
            keys.fence(at, &session.0),
            keys.counts(at, &session.0),
            keys.held(at, &session.0),
            keys.totals(at, app),
            keys.members(app, channel),
        ];
        names.extend(predecessors.iter().flat_map(|one| [keys.counts(at, &one.0), keys.held(at, &one.0)]));
        let topic = keys.channel_topic(app, channel);
        let app = escaped(app);
        let count = count.map_or("-1".to_owned(), |count| count.to_string());
        let max_members = max_members.to_string();
        let removals = removed.len().to_string();
        let mut args: Vec<&[u8]> = Vec::with_capacity(8 + removed.len() + 2 * added.len());
        let fixed = [
            self.transport.publish_command(),
            &topic,
            &app,
            channel,
            &count,
            if announce { "1" } else { "0" },
            &max_members,
            &removals,
        ];
        args.extend(fixed.map(str::as_bytes));
        args.extend(removed.iter().map(|id| id.as_bytes()));
        for (id, info) in added {
            args.push(id.as_bytes());
            args.push(info.map_or(&[], |info| info.get().as_bytes()));
        }
        let names: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
        parse_synced(self.transport.script_urgent(at, &SYNC, &names, &args).await?)
    }

    /// Has every node close the connections that signed in as the user.
    pub async fn terminate(&self, app: &str, user_id: &str) -> Result<(), LinkError> {
        let (key, topic) = (self.keys.terminated(app, user_id), self.keys.user_topic(app, user_id));
        let args = [self.transport.publish_command(), &topic, TERMINATION_SECONDS].map(str::as_bytes);
        let at = user_partition(app, user_id);
        self.transport.script(at, &TERMINATE, &[key.as_bytes()], &args).await.map(drop)
    }

    /// Notes whether the user is signed in on the session's node. The first and the last sign-in are announced on the
    /// user's topic.
    pub async fn sync_user(
        &self,
        session: &Session,
        app: &str,
        user_id: &str,
        is_signed_in: bool,
    ) -> Result<UserSynced, LinkError> {
        let at = user_partition(app, user_id);
        let keys = &self.keys;
        let names = [keys.fence(at, &session.0), keys.signed_in(at, &session.0), keys.online(at, app)];
        let topic = keys.user_topic(app, user_id);
        let app = escaped(app);
        let args =
            [self.transport.publish_command(), &topic, &app, user_id, if is_signed_in { "1" } else { "0" }];
        let names = names.each_ref().map(|name| name.as_bytes());
        let answer = self.transport.script_urgent(at, &SYNC_USER, &names, &args.map(str::as_bytes)).await?;
        let done = |transition| Ok(UserSynced::Done { transition });
        match answer {
            Value::Int(-1) => Ok(UserSynced::Dead),
            Value::Int(0) => done(UserTransition::None),
            Value::Int(1) => done(UserTransition::Online),
            Value::Int(2) => done(UserTransition::Offline),
            _ => Err(unexpected()),
        }
    }
}

fn parse_synced(answer: Value) -> Result<Synced, LinkError> {
    let Value::Array(answer) = answer else {
        return if answer == Value::Int(0) { Ok(Synced::Dead) } else { Err(unexpected()) };
    };
    let mut answer = answer.into_iter();
    let mut number = || answer.next().ok_or_else(unexpected).and_then(read::<u64>);
    let total = number()?;
    let transition = match number()? {
        0 => Transition::None,
        1 => Transition::Occupied,
        2 => Transition::Vacated,
        _ => return Err(unexpected()),
    };
    let version = number()?;
    let refused = answer.map(|id| read::<String>(id).map(Box::from)).collect::<Result<_, _>>()?;
    Ok(Synced::Done { total, transition, version, refused })
}

/// A value of a reply. An error does not show the value: it may be a client's.
pub(super) fn read<T: FromRedisValue>(value: Value) -> Result<T, LinkError> {
    match value {
        Value::ServerError(error) => Err(LinkError::refused(&error)),
        value => redis::from_redis_value(value).map_err(|_| unexpected()),
    }
}

pub(super) fn unexpected() -> LinkError {
    LinkError::Refused("its reply is not what was asked for".into())
}
