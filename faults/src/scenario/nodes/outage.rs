//! No node reaches Redis for a while: triggers are refused, clients stay, and all goes on by itself.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;

use super::{CALM, Nodes, PATIENCE, Size, finish, open, publish, sockets};
use crate::check::{Report, is_ordinary};
use crate::cluster::{Away, NODES};
use crate::history::{Act, Record};
use crate::http::{Answer, Connection};
use crate::stage::Options;
use crate::wire;

const CONNECTED: &str = "tidewire_fanout_connected";
/// Until readiness is asked for, after it ought to have changed.
const MARGIN: Duration = Duration::from_secs(2);

pub fn run(options: &Options, how: Away, outages: &[Duration]) -> Result<Report> {
    let (node_timeout, unready_after) = options.pick((3, 2), (15, 30));
    let (node_timeout, unready_after) =
        (Duration::from_secs(node_timeout), Duration::from_secs(unready_after));
    let size = Size { observers: options.pick(30, 60), node_timeout, unready_after, ..Size::SMALL };
    let mut stage = open("cluster-outage", options, &size)?;
    let publishers = publish(&stage, 150.0)?;
    let mut probe = Probe::new(&stage);
    for outage in outages {
        stage.wait_until_subscribed(PATIENCE)?;
        let connected = sockets(&stage);
        let faults = stage.server.lose_redis(how)?;
        let began = Instant::now();
        for node in 0..NODES {
            probe.until(&mut stage, node, "plain-0", 503)?;
        }
        let noticed = began.elapsed();
        let mut slowest = Duration::ZERO;
        while began.elapsed() < *outage {
            for (node, channel) in (0..NODES).flat_map(|node| [(node, "plain-0"), (node, "faults-0")]) {
                let asked = Instant::now();
                let status = probe.ask(&mut stage, node, channel)?.status;
                slowest = slowest.max(asked.elapsed());
                stage.findings.require(status == 503, || {
                    format!("{status} for a message to {channel} without a Redis")
                });
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        tells(&mut stage, [began.elapsed(), began.elapsed() - noticed], unready_after)?;
        stage.server.find_redis(how, faults)?;
        let back = Instant::now();
        for node in 0..NODES {
            probe.until(&mut stage, node, "faults-0", 200)?;
        }
        let recovered = back.elapsed();
        std::thread::sleep(CALM + Duration::from_secs(1));
        let stayed = connected == sockets(&stage);
        stage.findings.require(stayed, || format!("clients lost their connection within {outage:?}"));
        for node in 0..NODES {
            let server = &stage.server.nodes[node].server;
            let (status, connected) = (server.readiness()?, server.metric(CONNECTED)?);
            let is_back = status == 200 && connected > 0.0;
            stage
                .findings
                .require(is_back, || format!("node {node} afterwards: {status}, {CONNECTED} {connected}"));
        }
        stage.findings.tell(format!(
            "outage     {outage:?} ({how:?}): all refuse after {:.2} s, in {:.3} s at most; all store {:.2} s after it",
            noticed.as_secs_f64(),
            slowest.as_secs_f64(),
            recovered.as_secs_f64()
        ));
    }
    let tally = publishers.stop()?;
    stage.findings.tell(format!("load       {tally:?}"));
    stage.wait_until_subscribed(PATIENCE)?;
    finish(stage, |_| true)
}

/// What a node says of itself after so long without Redis, and so long after it noticed.
fn tells(stage: &mut Nodes, [elapsed, noticed]: [Duration; 2], unready_after: Duration) -> Result<()> {
    for node in 0..NODES {
        let server = &stage.server.nodes[node].server;
        let (status, connected) = (server.readiness()?, server.metric(CONNECTED)?);
        stage.findings.require(connected < 1.0, || format!("{CONNECTED} of node {node} is {connected}"));
        let is_due = noticed > unready_after + MARGIN;
        if is_due || elapsed + MARGIN < unready_after {
            let expected = if is_due { 503 } else { 200 };
            stage.findings.require(status == expected, || {
                format!("node {node} answered {status} to GET /ready after {elapsed:?} without a Redis")
            });
        }
    }
    Ok(())
}

/// A publisher that wants to know how it is refused.
struct Probe {
    connections: Vec<Connection>,
    count: u64,
}

impl Probe {
    fn new(stage: &Nodes) -> Self {
        let nodes = stage.server.nodes.iter();
        let connect = |address| Connection::new(address, Duration::from_secs(15));
        Self { connections: nodes.map(|node| connect(node.server.address)).collect(), count: 0 }
    }

    /// Whoever is refused must be told when to come again.
    fn ask(&mut self, stage: &mut Nodes, node: usize, channel: &str) -> Result<Answer> {
        self.count += 1;
        let (t0, mid) = (stage.published().now().max(1), format!("probe-{}", self.count));
        let body = json!({ "name": "faults", "channels": [channel], "data": wire::payload(&mid, 20),
                           "idempotency_key": mid });
        let answer = self.connections[node].call(&stage.app().post("events", &body.to_string()))?;
        // The position of what is stored is of no interest.
        let kind = match answer.status {
            200 if is_ordinary(channel) => "ok",
            200 => "info",
            _ => "fail",
        };
        let own = Record { p: "probe", f: Act::Publish, kind, ch: channel, mid: &mid, ..Record::default() };
        stage.published().note(&Record { t0, status: Some(answer.status), ..own });
        let is_told = answer.status != 503 || answer.retry_after.is_some();
        stage.findings.require(is_told, || "503 without Retry-After".to_owned());
        Ok(answer)
    }

    /// Asks until it is answered so, by something else than a false answer.
    fn until(&mut self, stage: &mut Nodes, node: usize, channel: &str, status: u16) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.ask(stage, node, channel)?.status != status {
            ensure!(Instant::now() < deadline, "node {node} does not answer {status}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}
