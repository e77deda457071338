//! What the kernel says about a process: its memory and its CPU time.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// From `/proc/PID/smaps_rollup`, which walks the page tables: `status` sums per-CPU counters that lag by up to
/// 256 KiB here, more than a thousand connections of ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident bytes, program text and libraries included.
    pub resident: u64,
    /// Resident bytes that no file backs: heap and stacks.
    pub anonymous: u64,
}

/// Sum over `pids`, for servers that fork.
pub fn memory(pids: &[u32]) -> Result<Memory> {
    let mut sum = Memory::default();
    for pid in pids {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        sum.resident += kilobytes(&text, "Rss:")? * 1024;
        sum.anonymous += kilobytes(&text, "Anonymous:")? * 1024;
    }
    Ok(sum)
}

fn kilobytes(rollup: &str, field: &str) -> Result<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    Ok(number.with_context(|| format!("no {field} in smaps_rollup"))?.parse()?)
}

/// CPU time of all threads that live now. `/proc/PID/stat` counts in ticks of 10 ms; the scheduler's own figures
/// are nanoseconds, exact while the thread sleeps and at most one timer tick (4 ms) old while it runs, so read them
/// when the server has nothing to do. A thread that has ended takes its time with it: only servers with
/// short-lived threads are flattered by that.
pub fn cpu(pids: &[u32]) -> Result<Duration> {
    let mut nanoseconds = 0;
    for pid in pids {
        let tasks = format!("/proc/{pid}/task");
        for task in fs::read_dir(&tasks).with_context(|| format!("reading {tasks}"))? {
            nanoseconds += thread_nanoseconds(&task?.path());
        }
    }
    if nanoseconds == 0 {
        bail!("/proc/PID/task/*/schedstat is all zero: this kernel keeps no scheduler statistics");
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// 0 for a thread that ended between the listing and the reading.
fn thread_nanoseconds(task: &Path) -> u64 {
    let text = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
    text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0)
}

/// Name and number of the processors, kernel and memory, for the report.
pub fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or("unknown", |(_, value)| value.trim()).to_owned()
    };
    let kernel = read("/proc/sys/kernel/osrelease");
    let kernel = kernel.trim().split('-').next().unwrap_or_default();
    let megabytes = field(&read("/proc/meminfo"), "MemTotal");
    let megabytes: u64 = megabytes.split(' ').next().and_then(|kb| kb.parse().ok()).unwrap_or(0) / 1024;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "{cores} cores ({}), {:.0} GB, Linux {kernel}, loopback",
        field(&cpuinfo, "model name"),
        megabytes as f64 / 1024.0
    )
}

/// Runnable threads over the last minute: what else the machine was doing when a run began.
pub fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|minute| minute.parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_sees_its_own_memory_and_time() {
        let me = [std::process::id()];
        let before = memory(&me).unwrap();
        let block = vec![1u8; 32 << 20];
        let after = memory(&me).unwrap();
        assert!(after.anonymous - before.anonymous >= 30 << 20, "{before:?} {after:?}");
        assert!(after.resident >= after.anonymous);
        drop(block);
        std::thread::sleep(Duration::from_millis(10));
        assert!(cpu(&me).unwrap() > Duration::ZERO);
    }

    #[test]
    fn a_process_that_does_not_exist_is_an_error() {
        assert!(memory(&[u32::MAX]).is_err());
        assert!(cpu(&[u32::MAX]).is_err());
    }
}
