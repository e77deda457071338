//! A load of your choice on any server that speaks the Pusher protocol.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};

use crate::api::App;
use crate::control::{Expected, Latency, Open};
use crate::field::{Channels, Field};
use crate::pace::Pace;
use crate::procfs;
use crate::publisher::Publisher;
use crate::sink::MAX_CONNECTIONS;
use crate::target::Target;

#[derive(Args, Debug)]
pub struct Options {
    /// The server; plain http or ws, with the path prefix if it has one. Several with commas in between are nodes of one
    /// cluster: connections and triggers are spread over them, as a load balancer does
    #[arg(long, env = "TIDEWIRE_URL", default_value = "http://127.0.0.1:6001", value_delimiter = ',')]
    url: Vec<Target>,
    #[arg(long, env = "TIDEWIRE_APP_ID", default_value = "1")]
    app_id: String,
    #[arg(long, env = "TIDEWIRE_APP_KEY", default_value = "app-key")]
    key: String,
    #[arg(long, env = "TIDEWIRE_APP_SECRET", default_value = "app-secret", hide_env_values = true)]
    secret: String,
    /// Connections, each subscribed to one channel
    #[arg(long, short = 'c', default_value_t = 1000)]
    connections: usize,
    /// Channels they are spread over
    #[arg(long, default_value_t = 100)]
    channels: usize,
    #[arg(long, value_enum, default_value = "public")]
    kind: Kind,
    /// Triggers a second, each to a random channel; 0 = only hold the connections
    #[arg(long, short = 'r', default_value_t = 100.0)]
    rate: f64,
    #[arg(long, short = 's', default_value_t = 10)]
    seconds: u64,
    /// Bytes of data in each event (at least 60, for the sequence number and the time stamp)
    #[arg(long, default_value_t = 200)]
    payload: usize,
    /// Keep-alive connections to the HTTP API
    #[arg(long, default_value_t = 8)]
    publishers: usize,
    /// Handshakes at a time
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
    /// Process ids of the servers, if they run here: then their CPU time and memory are reported
    #[arg(long, value_delimiter = ',')]
    pid: Vec<u32>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Public,
    Private,
    Presence,
}

impl Kind {
    fn prefix(self) -> &'static str {
        match self {
            Kind::Public => "load-",
            Kind::Private => "private-load-",
            Kind::Presence => "presence-load-",
        }
    }
}

pub fn run(options: &Options) -> Result<()> {
    ensure!(
        options.connections > 0 && options.channels > 0 && options.publishers > 0,
        "at least one of each"
    );
    let app = App {
        id: options.app_id.clone(),
        key: options.key.clone(),
        secret: options.secret.clone(),
        path_prefix: options.url[0].path_prefix.clone(),
    };
    let is_one = options.url.iter().all(|url| url.path_prefix == app.path_prefix);
    ensure!(is_one, "all servers have the same path prefix");
    let channels = Channels { prefix: options.kind.prefix(), count: options.channels };
    let mut fields = open(options, &app, channels)?;
    for pid in &options.pid {
        println!("memory       {:.1} MB resident", procfs::memory(&[*pid])?.resident as f64 / 1e6);
    }
    if options.rate <= 0.0 {
        std::thread::sleep(Duration::from_secs(options.seconds));
    } else {
        publish(options, &app, channels, &mut fields, &options.pid)?;
    }
    fields.iter_mut().try_for_each(|(field, _)| field.close())
}

/// Connections in as many processes as the limit of open files asks for, with the number of each channel's members.
fn open(options: &Options, app: &App, channels: Channels<'_>) -> Result<Vec<(Field, Vec<u64>)>> {
    let begin = Instant::now();
    let mut fields = Vec::new();
    for (first, count, address) in shares(options) {
        let mut members = vec![0; options.channels];
        (first..first + count).for_each(|number| members[number % options.channels] += 1);
        let mut field = Field::new()?;
        field.open_as(Open {
            address,
            count,
            in_flight: options.in_flight,
            first,
            dialect: channels.dialect(app),
            ordered: false,
        })?;
        fields.push((field, members));
    }
    let (count, seconds) = (options.connections, begin.elapsed().as_secs_f64());
    println!("connected    {count} connections on {} channels in {seconds:.1} s", options.channels);
    Ok(fields)
}

/// First connection, number of connections and server of each receiving process.
fn shares(options: &Options) -> Vec<(usize, usize, SocketAddr)> {
    let (all, targets) = (options.connections, options.url.len());
    let mut shares = Vec::new();
    for (number, url) in options.url.iter().enumerate() {
        let (begin, end) = (all * number / targets, all * (number + 1) / targets);
        for first in (begin..end).step_by(MAX_CONNECTIONS) {
            shares.push((first, (end - first).min(MAX_CONNECTIONS), url.address));
        }
    }
    shares
}

fn publish(
    options: &Options,
    app: &App,
    channels: Channels<'_>,
    fields: &mut [(Field, Vec<u64>)],
    pids: &[u32],
) -> Result<()> {
    let addresses: Vec<SocketAddr> = options.url.iter().map(|url| url.address).collect();
    let mut publisher = Publisher::over(&addresses, options.publishers.max(addresses.len()))?;
    fields.iter_mut().try_for_each(|(field, _)| field.start_timing())?;
    let cpu = |pids: &[u32]| if pids.is_empty() { Ok(Duration::ZERO) } else { procfs::cpu(pids) };
    let (begin, before) = (Instant::now(), cpu(pids)?);
    let pace = Pace { per_second: options.rate, seconds: options.seconds, data_bytes: options.payload };
    let published = pace.run(&mut publisher, app, channels)?;
    let mut deliveries = 0;
    for (field, members) in fields.iter_mut() {
        let expected =
            published.per_channel.iter().zip(members.iter()).map(|(events, members)| events * members);
        let expected: u64 = expected.sum();
        field.wait(expected)?;
        deliveries += expected;
    }
    let (seconds, spent) = (begin.elapsed().as_secs_f64(), cpu(pids)? - before);
    let mut worst = Latency::default();
    for (field, _) in fields.iter_mut() {
        worst = worst.or(&field.stop_timing()?);
        field.verify(Expected::PerChannel(published.per_channel.clone()))?;
    }
    let triggers: u64 = published.per_channel.iter().sum();
    println!("published    {triggers} events in {seconds:.1} s, {:.0}/s", triggers as f64 / seconds);
    println!("delivered    {deliveries}, all and once, {:.0}/s", deliveries as f64 / seconds);
    println!("latency ms   {worst}");
    if published.behind > Duration::from_millis(20) {
        println!(
            "note         the publisher fell up to {:.0?} behind: use more --publishers",
            published.behind
        );
    }
    if !pids.is_empty() {
        let each = spent.as_secs_f64() * 1e6 / deliveries.max(1) as f64;
        println!("server CPU   {:.2} s, {each:.1} µs a delivery", spent.as_secs_f64());
    }
    Ok(())
}

impl Latency {
    /// The worse of each figure: percentiles of several receivers cannot be added up.
    pub fn or(&self, other: &Latency) -> Latency {
        Latency {
            count: self.count + other.count,
            p50: self.p50.max(other.p50),
            p90: self.p90.max(other.p90),
            p99: self.p99.max(other.p99),
            p999: self.p999.max(other.p999),
            max: self.max.max(other.max),
        }
    }
}

impl std::fmt::Display for Latency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [p50, p90, p99, p999, max] = [self.p50, self.p90, self.p99, self.p999, self.max]
            .map(|microseconds| microseconds as f64 / 1000.0);
        write!(f, "p50 {p50:.2}, p90 {p90:.2}, p99 {p99:.2}, p99.9 {p999:.2}, max {max:.2}")
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn connections_are_spread_over_all_servers() {
        let urls = "http://127.0.0.1:1,http://127.0.0.1:2";
        let line = ["load", "-c", "40001", "--url", urls];
        let shares = shares(&Line::parse_from(line).options);
        let ports: Vec<_> =
            shares.iter().map(|(first, count, address)| (*first, *count, address.port())).collect();
        assert_eq!(ports, [(0, 19_000, 1), (19_000, 1_000, 1), (20_000, 19_000, 2), (39_000, 1_001, 2)]);
    }
}
