//! The two clocks that need the kernel's name for them.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Time since boot: the same in every process, so a publisher can stamp what a sink reads.
pub fn monotonic() -> Duration {
    duration(clock_gettime(ClockId::Monotonic))
}

/// CPU time this thread has used, user and kernel. The kernel's own run-time counter, in nanoseconds: the same
/// counter that [`crate::procfs::cpu`] reads for another process.
pub fn thread_cpu() -> Duration {
    duration(clock_gettime(ClockId::ThreadCPUTime))
}

fn duration(time: Timespec) -> Duration {
    Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec.max(0) as u32)
}
