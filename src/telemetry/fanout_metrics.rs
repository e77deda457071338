//! The metrics of the fan-out: what goes to other nodes and comes from them, and whether Redis is there.

use std::fmt;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::metrics::add;
use super::replay_metrics::LateGauge;

/// Handles of one server. A handle that is a field costs an atomic addition, no look-up.
pub struct FanoutMetrics {
    /// 1 while every partition can be reached.
    pub connected: LateGauge,
    /// Connections to Redis made again after they were lost.
    pub reconnects: Counter,
    /// Messages published.
    pub messages_sent: Counter,
    /// Messages that came on topics.
    pub messages_received: Counter,
    /// Bytes of topics and payloads published.
    pub bytes_sent: Counter,
    /// Bytes of topics and payloads that came.
    pub bytes_received: Counter,
    /// Channels that got their first subscription in the cluster, as decided for this node.
    pub occupied: Counter,
    /// Channels that lost their last one.
    pub vacated: Counter,
    errors: Family<KindLabels, Counter>,
}

impl FanoutMetrics {
    pub(super) fn register(r: &mut Registry) -> Self {
        let messages: Family<DirectionLabels, Counter> =
            add(r, "tidewire_fanout_messages", "Messages published to Redis and received from it");
        let bytes: Family<DirectionLabels, Counter> =
            add(r, "tidewire_fanout_bytes", "Bytes of the topics and payloads of these messages");
        let transitions: Family<TransitionLabels, Counter> = add(
            r,
            "tidewire_channel_transitions",
            "Channels that got their first subscription in the cluster or lost their last, each counted on one node",
        );
        let sent = DirectionLabels { direction: "sent" };
        let received = DirectionLabels { direction: "received" };
        let metrics = Self {
            connected: LateGauge::new(add(
                r,
                "tidewire_fanout_connected",
                "1 while every Redis server that is needed can be reached, otherwise 0; absent without Redis",
            )),
            reconnects: add(
                r,
                "tidewire_fanout_reconnects",
                "Connections to Redis made again after they were lost",
            ),
            messages_sent: messages.get_or_create_owned(&sent),
            messages_received: messages.get_or_create_owned(&received),
            bytes_sent: bytes.get_or_create_owned(&sent),
            bytes_received: bytes.get_or_create_owned(&received),
            occupied: transitions.get_or_create_owned(&TransitionLabels { transition: "occupied" }),
            vacated: transitions.get_or_create_owned(&TransitionLabels { transition: "vacated" }),
            errors: add(
                r,
                "tidewire_fanout_errors",
                "What Redis did not do, or may not have done, by the reason",
            ),
        };
        for kind in ["connect", "down", "overloaded", "refused", "timeout", "unknown"] {
            drop(metrics.errors.get_or_create(&KindLabels { kind }));
        }
        metrics
    }

    /// `kind` is a literal.
    pub fn count_error(&self, kind: &'static str) {
        self.errors.get_or_create(&KindLabels { kind }).inc();
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DirectionLabels {
    direction: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TransitionLabels {
    transition: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

impl fmt::Debug for FanoutMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FanoutMetrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::metrics::Metrics;

    #[test]
    fn every_direction_and_error_has_a_series_from_the_start() {
        let metrics = Metrics::new();
        metrics.fanout.messages_sent.inc();
        metrics.fanout.count_error("timeout");
        let page = metrics.encode();
        for line in [
            "tidewire_fanout_messages_total{direction=\"sent\"} 1",
            "tidewire_fanout_messages_total{direction=\"received\"} 0",
            "tidewire_fanout_errors_total{kind=\"timeout\"} 1",
            "tidewire_fanout_errors_total{kind=\"down\"} 0",
            "tidewire_fanout_reconnects_total 0",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is missing in\n{page}");
        }
        assert!(!page.contains("\ntidewire_fanout_connected"), "{page}");
    }
}
