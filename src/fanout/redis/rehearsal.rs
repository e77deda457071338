//! A try of everything that the cluster needs of Redis, before anybody relies on it.

use super::lease::Session;
use super::state::{State, Update, read};
use super::transport::{LinkError, SHARED};
use crate::fanout::keys::partition;
use crate::fanout::message::encode_purged;

/// Of messages and keys. Another one for a version that nodes of this one would not understand.
const FORMAT: &str = "1";

impl State {
    /// Whether the nodes that are there speak as this one does. The first one notes how.
    async fn agree_on_format(&self) -> Result<(), LinkError> {
        let mut pipeline = redis::pipe();
        pipeline.set_nx(self.keys.format(), FORMAT).get(self.keys.format());
        let known: Option<String> =
            self.transport.query(SHARED, pipeline).await?.pop().map(read).transpose()?.flatten();
        match known {
            Some(other) if other != FORMAT => Err(LinkError::Refused(
                format!(
                    "nodes of another version of Tidewire use this prefix (format {other}, here {FORMAT}): stop them all \
                     and delete the key {}, or use another redis.prefix",
                    self.keys.format()
                )
                .into(),
            )),
            _ => Ok(()),
        }
    }

    /// Follows a topic, publishes on it, reads, and writes nothing by a script that could. Fails with what Redis refuses:
    /// a user of the server may not be allowed to do it, or not with these names.
    pub async fn rehearse(&self) -> Result<(), LinkError> {
        self.agree_on_format().await?;
        // No app has this id.
        let (app, channel) = ("", "rehearsal");
        let at = partition(app, channel);
        let topic: Box<[u8]> = self.keys.channel_topic(app, channel).into_bytes().into();
        self.transport.subscribe(at, std::slice::from_ref(&topic)).await?;
        self.transport.unsubscribe(at, std::slice::from_ref(&topic)).await?;
        let mut publish = redis::pipe();
        publish.cmd(self.transport.publish_command()).arg(&*topic).arg(&encode_purged(0)[..]);
        self.transport.query(at, publish).await?.into_iter().try_for_each(read::<()>)?;
        self.connections(app).await?;
        let update = Update { app, channel, ..Update::default() };
        self.sync(&Session::draw(), update).await.map(drop)
    }
}
