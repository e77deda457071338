//! A load of your choice on any server that speaks the Pusher protocol.

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
    /// The server; plain http or ws, with the path prefix if it has one
    #[arg(long, env = "TIDEWIRE_URL", default_value = "http://127.0.0.1:6001")]
    url: Target,
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
    /// Process id of the server, if it runs here: then its CPU time and memory are reported
    #[arg(long)]
    pid: Option<u32>,
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
        path_prefix: options.url.path_prefix.clone(),
    };
    let channels = Channels { prefix: options.kind.prefix(), count: options.channels };
    let mut fields = open(options, &app, channels)?;
    let pids: Vec<u32> = options.pid.into_iter().collect();
    if !pids.is_empty() {
        println!("memory       {:.1} MB resident", procfs::memory(&pids)?.resident as f64 / 1e6);
    }
    if options.rate <= 0.0 {
        std::thread::sleep(Duration::from_secs(options.seconds));
    } else {
        publish(options, &app, channels, &mut fields, &pids)?;
    }
    fields.iter_mut().try_for_each(|(field, _)| field.close())
}

/// Connections in as many processes as the limit of open files asks for, with the number of each channel's members.
fn open(options: &Options, app: &App, channels: Channels<'_>) -> Result<Vec<(Field, Vec<u64>)>> {
    let begin = Instant::now();
    let mut fields = Vec::new();
    for first in (0..options.connections).step_by(MAX_CONNECTIONS) {
        let count = (options.connections - first).min(MAX_CONNECTIONS);
        let mut members = vec![0; options.channels];
        (first..first + count).for_each(|number| members[number % options.channels] += 1);
        let mut field = Field::new()?;
        field.open_as(Open {
            address: options.url.address,
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

fn publish(
    options: &Options,
    app: &App,
    channels: Channels<'_>,
    fields: &mut [(Field, Vec<u64>)],
    pids: &[u32],
) -> Result<()> {
    let mut publisher = Publisher::connect(options.url.address, options.publishers)?;
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
    fn or(&self, other: &Latency) -> Latency {
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
