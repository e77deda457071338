//! Every metric of the server: name, help and handle in one list.
//!
//! Counters are registered without `_total`: the encoder appends it. Labels are bounded by construction:
//! `app_id` comes from the configuration, close codes from [`bounded_code`], routes and results from literals.
//! There is never a label per channel, user or socket.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use super::fanout_metrics::FanoutMetrics;
use super::process::ProcessCollector;
use super::replay_metrics::ReplayMetrics;

/// Handles of all metrics of one server. Handles are shared atomics: cloning one is cheap.
pub struct Metrics {
    registry: Registry,
    apps: AppFamilies,
    pub api_requests: Family<ApiLabels, Counter>,
    pub api_request_duration: Histogram,
    handshakes_refused: Family<CodeLabels, Counter>,
    /// Jobs that found a worker's mailbox full.
    pub mailbox_full: Counter,
    /// Open TCP connections that speak HTTP (WebSockets leave this count when they are upgraded).
    pub http_connections: Gauge,
    /// 1 while the server drains.
    pub draining: Gauge,
    pub fanout: FanoutMetrics,
    pub replay: ReplayMetrics,
    config_reloads: Family<ResultLabels, Counter>,
}

impl Metrics {
    /// A registry of its own, so that several servers live in one test process.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let r = &mut registry;

        let build: Family<BuildLabels, Gauge> =
            add(r, "tidewire_build_info", "Version of the running server; always 1");
        build.get_or_create(&BuildLabels::current()).set(1);

        r.register_collector(Box::new(ProcessCollector));

        Self {
            apps: AppFamilies::register(r),
            api_requests: add(
                r,
                "tidewire_api_requests",
                "Answered HTTP requests, WebSocket upgrades excluded",
            ),
            api_request_duration: {
                let histogram = Histogram::new(DURATION_BUCKETS_SECONDS);
                r.register(
                    "tidewire_api_request_duration_seconds",
                    "Time from the head of an HTTP request to its answer",
                    histogram.clone(),
                );
                histogram
            },
            handshakes_refused: add(
                r,
                "tidewire_handshakes_refused",
                "WebSocket handshakes refused, by close code or HTTP status",
            ),
            mailbox_full: add(
                r,
                "tidewire_mailbox_full",
                "Events refused because the mailbox of a worker was full",
            ),
            http_connections: add(r, "tidewire_http_connections", "Open connections that speak HTTP"),
            draining: add(r, "tidewire_draining", "1 while the server drains, otherwise 0"),
            fanout: FanoutMetrics::register(r),
            replay: ReplayMetrics::register(r),
            config_reloads: add(r, "tidewire_config_reloads", "Reloads of the configuration, by result"),
            registry,
        }
    }

    /// The handles of one app. Call it once an app, not once an event.
    pub fn app(&self, app_id: &str) -> AppMetrics {
        let label = AppLabels { app_id: app_id.to_owned() };
        let f = &self.apps;
        AppMetrics {
            connections: f.connections.get_or_create_owned(&label),
            connections_opened: f.connections_opened.get_or_create_owned(&label),
            channels: f.channels.get_or_create_owned(&label),
            subscriptions: f.subscriptions.get_or_create_owned(&label),
            messages_received: f.messages_received.get_or_create_owned(&label),
            messages_sent: f.messages_sent.get_or_create_owned(&label),
            received_bytes: f.received_bytes.get_or_create_owned(&label),
            sent_bytes: f.sent_bytes.get_or_create_owned(&label),
            client_events: f.client_events.get_or_create_owned(&label),
            outbox_overflow: f.outbox_overflow.get_or_create_owned(&label),
            triggers: f.triggers.get_or_create_owned(&label),
            connections_closed: f.connections_closed.clone(),
            app_id: label.app_id.into(),
        }
    }

    pub fn handshakes_refused(&self, code: u16) -> Counter {
        self.handshakes_refused.get_or_create_owned(&CodeLabels { code: bounded_code(code) })
    }

    pub fn config_reloads(&self, result: &'static str) -> Counter {
        self.config_reloads.get_or_create_owned(&ResultLabels { result })
    }

    /// Counts one answered HTTP request. `route` is a name out of the routing table, never the path.
    pub fn api_request(&self, route: &'static str, status: u16, took: Duration) {
        self.api_requests.get_or_create(&ApiLabels { route, status }).inc();
        self.api_request_duration.observe(took.as_secs_f64());
    }

    /// The exposition in Prometheus text format 0.0.4, [`CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        let mut page = String::with_capacity(16 * 1024);
        text::encode(&mut page, &self.registry).expect("writing into a String cannot fail");
        to_prometheus_text(&page)
    }
}

pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The encoder writes OpenMetrics, where a counter is described without the `_total` its samples carry. Tools that
/// read the older format (promtool, agents, `curl`) then see a sample without help or type, so both lines get
/// the full name here; they read the result everywhere.
fn to_prometheus_text(openmetrics: &str) -> String {
    let mut page = String::with_capacity(openmetrics.len() + 512);
    let mut help = None;
    for line in openmetrics.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ');
            continue;
        }
        if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|described| described.split_once(' '))
        {
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((_, text)) = help.take() {
                page.extend(["# HELP ", name, suffix, " ", text, "\n"]);
            }
            page.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if line != "# EOF" {
            page.extend([line, "\n"]);
        }
    }
    page
}

/// Upper bounds in seconds. A signed trigger takes tens of microseconds; a second is already an incident.
const DURATION_BUCKETS_SECONDS: [f64; 14] =
    [10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 50e-3, 0.1, 1.0, 10.0];

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

pub(super) fn add<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

/// The families that carry `app_id`.
struct AppFamilies {
    connections: Family<AppLabels, Gauge>,
    connections_opened: Family<AppLabels, Counter>,
    connections_closed: Family<ClosedLabels, Counter>,
    channels: Family<AppLabels, Gauge>,
    subscriptions: Family<AppLabels, Gauge>,
    messages_received: Family<AppLabels, Counter>,
    messages_sent: Family<AppLabels, Counter>,
    received_bytes: Family<AppLabels, Counter>,
    sent_bytes: Family<AppLabels, Counter>,
    client_events: Family<AppLabels, Counter>,
    outbox_overflow: Family<AppLabels, Counter>,
    triggers: Family<AppLabels, Counter>,
}

impl AppFamilies {
    fn register(r: &mut Registry) -> Self {
        Self {
            connections: add(r, "tidewire_connections", "Established client connections"),
            connections_opened: add(r, "tidewire_connections_opened", "Client connections established"),
            connections_closed: add(
                r,
                "tidewire_connections_closed",
                "Client connections closed, by close code",
            ),
            channels: add(r, "tidewire_channels", "Channels that have a subscriber or keep an event"),
            subscriptions: add(r, "tidewire_subscriptions", "Subscriptions of all connections"),
            messages_received: add(r, "tidewire_messages_received", "Messages received from clients"),
            messages_sent: add(r, "tidewire_messages_sent", "Messages sent to clients, one a recipient"),
            received_bytes: add(r, "tidewire_received_bytes", "Bytes of frames received from clients"),
            sent_bytes: add(r, "tidewire_sent_bytes", "Bytes of frames sent to clients"),
            client_events: add(r, "tidewire_client_events", "Client events accepted"),
            outbox_overflow: add(
                r,
                "tidewire_outbox_overflow",
                "Connections closed because they read too slowly",
            ),
            triggers: add(
                r,
                "tidewire_triggers",
                "Events accepted from the HTTP API, whatever the number of channels",
            ),
        }
    }
}

/// The handles of one app, without the cost of a label look-up.
#[derive(Clone)]
pub struct AppMetrics {
    pub connections: Gauge,
    pub connections_opened: Counter,
    pub channels: Gauge,
    pub subscriptions: Gauge,
    pub messages_received: Counter,
    pub messages_sent: Counter,
    pub received_bytes: Counter,
    pub sent_bytes: Counter,
    pub client_events: Counter,
    pub outbox_overflow: Counter,
    pub triggers: Counter,
    connections_closed: Family<ClosedLabels, Counter>,
    app_id: Box<str>,
}

impl AppMetrics {
    /// The counter of connections closed with `code`; codes nobody defined share one series.
    pub fn connections_closed(&self, code: u16) -> Counter {
        let labels = ClosedLabels { app_id: self.app_id.to_string(), code: bounded_code(code) };
        self.connections_closed.get_or_create_owned(&labels)
    }
}

impl fmt::Debug for AppMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppMetrics").field("app_id", &self.app_id).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AppLabels {
    app_id: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ClosedLabels {
    app_id: String,
    code: Code,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CodeLabels {
    code: Code,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ApiLabels {
    pub route: &'static str,
    pub status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
    revision: &'static str,
}

impl BuildLabels {
    /// `TIDEWIRE_REVISION` is read when the server is *compiled*; a release sets it to the commit.
    fn current() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            revision: option_env!("TIDEWIRE_REVISION").unwrap_or("unknown"),
        }
    }
}

/// A close code or HTTP status as label value; 0 reads `other`.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
struct Code(u16);

impl EncodeLabelValue for Code {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        match self.0 {
            0 => EncodeLabelValue::encode(&"other", encoder),
            code => EncodeLabelValue::encode(&code, encoder),
        }
    }
}

/// A client may close with any of 2,000 codes: only those somebody defined get a series of their own.
fn bounded_code(code: u16) -> Code {
    match code {
        400..=599 | 1000..=1014 | 4000..=4009 | 4100 | 4200..=4202 | 4300..=4302 => Code(code),
        _ => Code(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_carries_app_and_node_metrics_and_describes_each_under_its_full_name() {
        let metrics = Metrics::new();
        let app = metrics.app("42");
        app.connections.inc();
        app.triggers.inc_by(3);
        app.connections_closed(1000).inc();
        metrics.api_request("events", 200, Duration::from_micros(20));
        metrics.handshakes_refused(4001).inc();
        metrics.config_reloads("ok").inc();

        let page = metrics.encode();
        for line in [
            "tidewire_connections{app_id=\"42\"} 1",
            "tidewire_triggers_total{app_id=\"42\"} 3",
            "tidewire_connections_closed_total{app_id=\"42\",code=\"1000\"} 1",
            "tidewire_api_requests_total{route=\"events\",status=\"200\"} 1",
            "tidewire_api_request_duration_seconds_bucket{le=\"0.000025\"} 1",
            "tidewire_handshakes_refused_total{code=\"4001\"} 1",
            "tidewire_config_reloads_total{result=\"ok\"} 1",
            "tidewire_mailbox_full_total 0",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is missing in\n{page}");
        }
        assert!(page.contains("tidewire_build_info{version=\""));
        assert!(page.contains(
            "# HELP tidewire_triggers_total Events accepted from the HTTP API, whatever the number of channels.\n\
             # TYPE tidewire_triggers_total counter\n"
        ));
        assert!(!page.contains("# EOF"));
    }

    #[test]
    fn handles_of_one_app_share_their_numbers() {
        let metrics = Metrics::new();
        metrics.app("42").triggers.inc();
        metrics.app("42").triggers.inc();
        assert_eq!(metrics.app("42").triggers.get(), 2);
        assert_eq!(metrics.app("43").triggers.get(), 0);
    }

    #[test]
    fn close_codes_that_clients_invent_share_one_series() {
        let metrics = Metrics::new();
        let app = metrics.app("42");
        for code in 4303..4999 {
            app.connections_closed(code).inc();
        }
        let page = metrics.encode();
        assert!(
            page.contains("tidewire_connections_closed_total{app_id=\"42\",code=\"other\"} 696\n"),
            "{page}"
        );
    }
}
