//! Several nodes on one Redis, beside one node alone.

pub mod fan_out;
pub mod idle;
pub mod latency;
pub mod presence;
pub mod publish;
pub mod soak;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;

use crate::api::App;
use crate::control::{Expected, Open};
use crate::field::{Channels, Field, IN_FLIGHT};
use crate::redis::Redis;
use crate::subject::Subject;
use crate::suite::Setup;

/// Servers that are one to their clients.
struct Nodes {
    subjects: Vec<Subject>,
}

impl Nodes {
    /// One without Redis.
    fn alone(setup: &Setup, settings: &[(&str, &str)]) -> Result<Self> {
        Ok(Nodes { subjects: vec![setup.ours(settings)?] })
    }

    /// A cluster. What several clusters have on one Redis is kept apart by `prefix`.
    fn on(
        redis: &Redis,
        prefix: &str,
        count: usize,
        setup: &Setup,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let url = redis.url();
        let mut all = vec![("TIDEWIRE_REDIS__URL", url.as_str()), ("TIDEWIRE_REDIS__PREFIX", prefix)];
        all.extend(settings);
        Ok(Nodes { subjects: (0..count).map(|_| setup.ours(&all)).collect::<Result<_>>()? })
    }

    fn app(&self) -> &App {
        &self.subjects[0].app
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.subjects.iter().map(|subject| subject.address).collect()
    }

    /// Of all nodes, read when they have become quiet.
    fn cpu(&self) -> Result<Duration> {
        Subject::cpu_of(&self.subjects)
    }

    fn trouble(&self) -> String {
        self.subjects.iter().map(Subject::trouble).collect::<Vec<_>>().join("\n")
    }
}

/// Connections in one numbering, each share of them held by a sink of its own.
struct Spread {
    shares: Vec<Share>,
}

struct Share {
    field: Field,
    first: usize,
    count: usize,
}

impl Share {
    /// Its connections that are subscribed to a channel.
    fn members(&self, channels: usize, channel: usize) -> usize {
        members(self.first, self.count, channels, channel)
    }

    /// What all of them get when this many events are published to each channel.
    fn due(&self, per_channel: &[u64]) -> u64 {
        let members = |channel| self.members(per_channel.len(), channel) as u64;
        per_channel.iter().enumerate().map(|(channel, events)| events * members(channel)).sum()
    }
}

impl Spread {
    /// Sinks without connections.
    fn new(shares: usize) -> Result<Self> {
        let share = |_| Ok(Share { field: Field::new()?, first: 0, count: 0 });
        Ok(Spread { shares: (0..shares).map(share).collect::<Result<_>>()? })
    }

    /// As many shares as addresses; they open their connections at the same time.
    fn open(
        addresses: &[SocketAddr],
        count: usize,
        channels: Channels<'_>,
        app: &App,
        ordered: bool,
    ) -> Result<Self> {
        let mut spread = Spread::new(addresses.len())?;
        spread.fill(addresses, count, channels, app, ordered)?;
        Ok(spread)
    }

    /// When nobody is connected yet, or any more.
    fn fill(
        &mut self,
        addresses: &[SocketAddr],
        count: usize,
        channels: Channels<'_>,
        app: &App,
        ordered: bool,
    ) -> Result<()> {
        let shares = self.shares.len();
        for (number, (share, address)) in self.shares.iter_mut().zip(addresses).enumerate() {
            let (first, next) = (count * number / shares, count * (number + 1) / shares);
            (share.first, share.count) = (first, next - first);
            let (address, count, dialect) = (*address, share.count, channels.dialect(app));
            share.field.begin_open(Open { address, count, in_flight: IN_FLIGHT, first, dialect, ordered })?;
        }
        self.shares.iter_mut().try_for_each(|share| share.field.opened().map(drop))
    }

    /// Waits until everybody can have what was published to each channel since the last verification.
    fn wait(&mut self, per_channel: &[u64]) -> Result<()> {
        self.shares.iter_mut().try_for_each(|share| share.field.wait(share.due(per_channel)))
    }

    /// Fails unless every connection got exactly that.
    fn verify(&mut self, per_channel: &[u64]) -> Result<()> {
        self.shares.iter_mut().try_for_each(|share| {
            let expected = Expected::PerChannel(per_channel.to_vec());
            share.field.verify(expected).map(drop)
        })
    }

    fn close(&mut self) -> Result<()> {
        self.shares.iter_mut().try_for_each(|share| share.field.close())
    }
}

/// How many of the `count` connections from number `first` on are subscribed to a channel.
fn members(first: usize, count: usize, channels: usize, channel: usize) -> usize {
    let below = |end: usize| end / channels + usize::from(end % channels > channel);
    below(first + count) - below(first)
}

fn microseconds(spent: Duration) -> f64 {
    spent.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_know_how_many_of_them_are_in_a_channel() {
        let (count, channels) = (1_000, 7);
        for share in 0..3 {
            let (first, next) = (count * share / 3, count * (share + 1) / 3);
            for channel in 0..channels {
                let counted = (first..next).filter(|number| number % channels == channel).count();
                assert_eq!(members(first, next - first, channels, channel), counted, "{share} {channel}");
            }
        }
    }
}
