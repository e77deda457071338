//! Figures of the operating-system process, read from `/proc` when somebody scrapes.
//!
//! The names are the ones that every Prometheus client library uses, so that common dashboards fit.

use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Stateless: each scrape reads `/proc` anew. Where there is no `/proc`, the figures are absent.
#[derive(Debug)]
pub(super) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut gauge = |name: &str, help: &str, value: Option<u64>| match value {
            Some(value) => ConstGauge::new(value).encode(encoder.encode_descriptor(
                name,
                help,
                None,
                MetricType::Gauge,
            )?),
            None => Ok(()),
        };
        gauge("process_open_fds", "Number of open file descriptors.", open_fds())?;
        gauge("process_max_fds", "Maximum number of open file descriptors.", max_fds())?;
        gauge("process_resident_memory_bytes", "Resident memory size in bytes.", resident_memory_bytes())?;

        let Some(times) = Times::read() else { return Ok(()) };
        ConstCounter::new(times.cpu_seconds).encode(encoder.encode_descriptor(
            "process_cpu_seconds",
            "Total user and system CPU time spent in seconds.",
            None,
            MetricType::Counter,
        )?)?;
        ConstGauge::new(times.start_seconds).encode(encoder.encode_descriptor(
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            None,
            MetricType::Gauge,
        )?)
    }
}

/// Since Linux 6.2 the size of the directory is the number of descriptors; older kernels say 0 and are counted.
fn open_fds() -> Option<u64> {
    match fs::metadata("/proc/self/fd").ok()?.len() {
        0 => {
            let listed = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
            Some(listed.saturating_sub(1)) // without the descriptor that lists them
        }
        counted => Some(counted),
    }
}

/// The soft limit; absent when unlimited.
fn max_fds() -> Option<u64> {
    parse_max_fds(&fs::read_to_string("/proc/self/limits").ok()?)
}

fn parse_max_fds(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn resident_memory_bytes() -> Option<u64> {
    parse_resident_bytes(&fs::read_to_string("/proc/self/status").ok()?)
}

fn parse_resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// Linux reports times to user space in hundredths of a second on every architecture we build for.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Debug, PartialEq)]
struct Times {
    cpu_seconds: f64,
    start_seconds: f64,
}

impl Times {
    fn read() -> Option<Self> {
        let own = fs::read_to_string("/proc/self/stat").ok()?;
        let machine = fs::read_to_string("/proc/stat").ok()?;
        Self::parse(&own, &machine)
    }

    /// Fields by proc(5): 14 utime, 15 stime, 22 starttime; the name in field 2 may hold spaces and brackets.
    fn parse(own: &str, machine: &str) -> Option<Self> {
        let (_, after_name) = own.rsplit_once(')')?;
        let field = |number: usize| after_name.split_whitespace().nth(number - 3)?.parse::<f64>().ok();
        let boot_seconds: f64 =
            machine.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse().ok()?;
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / TICKS_PER_SECOND,
            start_seconds: boot_seconds + field(22)? / TICKS_PER_SECOND,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_with_spaces_and_brackets_does_not_shift_the_fields() {
        let own = "7 (a ) b) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 3 0 12345 1000000 300 1844";
        let times = Times::parse(own, "cpu 1 2 3\nbtime 1700000000\nprocesses 9\n").expect("a full line");
        assert_eq!(times, Times { cpu_seconds: 3.0, start_seconds: 1_700_000_123.45 });
    }

    #[test]
    fn limits_are_read_from_their_line_and_unlimited_is_absent() {
        let table = |soft: &str| {
            format!("Limit  Soft  Hard  Units\nMax open files            {soft}   4096   files\n")
        };
        assert_eq!(parse_max_fds(&table("1024")), Some(1024));
        assert_eq!(parse_max_fds(&table("unlimited")), None);
    }

    #[test]
    fn resident_memory_is_given_in_bytes() {
        assert_eq!(parse_resident_bytes("Name:\tx\nVmRSS:\t    1234 kB\nThreads:\t2\n"), Some(1_263_616));
    }
}
