//! Names of what the log has in Redis.

use crate::fanout::keys::{Keys, channel_field, escaped, partition};
use crate::fanout::redis::transport::Partition;
use crate::replay::store::StreamName;

#[derive(Clone, Debug)]
pub struct Names {
    pub keys: Keys,
    prefix: Box<str>,
}

impl Names {
    pub fn new(prefix: &str) -> Self {
        Self { keys: Keys::new(prefix), prefix: prefix.into() }
    }

    /// STRING `<identity of the server> <generation> <nonce> <base>`.
    pub fn log(&self, partition: Partition) -> String {
        format!("{}log", self.keys.tag(partition))
    }

    /// HASH [`field`] → what is written down of the stream.
    pub fn streams(&self, partition: Partition) -> String {
        format!("{}streams", self.keys.tag(partition))
    }

    /// STREAM `<generation>-<serial>` → the message.
    pub fn stream(&self, partition: Partition, app: &str, channel: &str) -> String {
        self.stream_escaped(partition, &escaped(app), channel)
    }

    /// As [`stream`](Self::stream), by the app as it stands in names already.
    pub fn stream_escaped(&self, partition: Partition, app: &str, channel: &str) -> String {
        format!("{}s:{app}:{channel}", self.keys.tag(partition))
    }

    /// The log, the streams, the stream.
    pub fn of(&self, stream: &StreamName) -> [String; 3] {
        let partition = partition_of(stream);
        [self.log(partition), self.streams(partition), self.stream(partition, &stream.app, &stream.channel)]
    }

    /// HASH: sizes of the whole store as they were last found, and what its limits come to.
    pub fn sizes(&self) -> String {
        format!("{{{}}}replay", self.prefix)
    }

    /// STRING: whoever looks after all streams, or that nobody has to for a while.
    pub fn turn(&self) -> String {
        format!("{{{}}}replay:turn", self.prefix)
    }
}

pub fn partition_of(stream: &StreamName) -> Partition {
    partition(&stream.app, &stream.channel)
}

pub fn field(stream: &StreamName) -> String {
    channel_field(&stream.app, &stream.channel)
}

/// The app, [`escaped`], and the channel of a [`field`].
pub fn parts_of_field(field: &str) -> Option<(&str, &str)> {
    field.split_once('\n')
}
