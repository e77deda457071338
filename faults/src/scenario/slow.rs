//! Readers at 1 KB/s on a busy channel: memory stays flat, and nobody else notices.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::check::{Expect, Report, SLOW};
use crate::publisher::Load;
use crate::server::Setup;
use crate::socket::Reading;
use crate::stage::{Options, Stage, Target, channels, keep_all, setup};

const RATE: Reading = Reading { bytes_per_second: 1024 };
/// The ring, the pages on their way, the allocator's slack; far below what the slow readers miss.
const MAX_GROWTH_BYTES: u64 = 48 << 20;

pub fn run(options: &Options) -> Result<Report> {
    let time = Duration::from_secs(options.pick(4, 45));
    let setup = Setup { outbox_bytes: 64 << 10, ..setup(keep_all()) };
    let mut stage = Stage::open("slow", options, setup, Expect::default(), channels(2))?;
    stage.watch((0..20).map(|number| stage.plan("o", number, 2)).collect())?;
    // In the end they read as anybody else, and must have missed nothing then.
    let slow = |number: usize| {
        let mut plan = stage.plan(SLOW, number, 2);
        plan.reading = RATE;
        plan
    };
    stage.watch((0..options.pick(5, 20)).map(slow).collect())?;
    stage.late = "{\"count\":1000}";
    let load = Load { per_second: 1000.0, ..stage.load(8, 1000) };
    let publishers = stage.publish("p", &load, &stage.sockets())?;
    std::thread::sleep(Duration::from_secs(2));
    let (before, began) = (stage.server.resident(), Instant::now());
    let mut peak = before;
    while began.elapsed() < time {
        stage.sample();
        peak = peak.max(stage.server.resident());
        std::thread::sleep(Duration::from_millis(250));
        stage.server.is_alive()?;
    }
    let tally = publishers.stop()?;
    let behind = stage.crowds[1].received();
    let growth = peak.saturating_sub(before);
    stage.findings.tell(format!(
        "memory     {:.1} MB at the start, at most {:.1} MB more in {time:?}; the slow ones got {behind} messages; {tally:?}",
        before as f64 / 1e6,
        growth as f64 / 1e6
    ));
    stage.findings.require(growth < MAX_GROWTH_BYTES, || format!("the server grew by {growth} bytes"));
    stage.finish()
}
