//! Whether memory comes back when connections go.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::field::{Channels, Field};
use crate::report::{Mark, Row};
use crate::subject::Subject;
use crate::suite::Setup;

const SETTLE: Duration = Duration::from_secs(2);

pub fn run(setup: &Setup) -> Result<Vec<Row>> {
    setup.subjects()?.iter().map(|subject| churn(setup, subject).with_context(|| subject.trouble())).collect()
}

/// Resident memory after the last cycle, as a quotient of that after the first.
fn churn(setup: &Setup, subject: &Subject) -> Result<Row> {
    let (cycles, count) = (setup.plan.churn_cycles, setup.plan.idle_connections);
    let channels = Channels { prefix: "private-churn-", count };
    let mut field = Field::new()?;
    let mut megabytes = Vec::with_capacity(cycles);
    for cycle in 0..cycles {
        field.open(subject.address, count, channels.dialect(&subject.app))?;
        field.close()?;
        std::thread::sleep(SETTLE);
        megabytes.push(subject.memory()?.resident as f64 / 1e6);
        eprintln!("  {}: {:.1} MB after cycle {}", subject.name, megabytes[cycle], cycle + 1);
    }
    let (first, last) = (megabytes[0], megabytes[cycles - 1]);
    let what = format!(
        "RSS after {count} connections have come and gone {cycles} times ({last:.1} MB) ÷ after the first time ({first:.1} MB)"
    );
    let row = Row::single(what, &subject.name, last / first, "×");
    Ok(Row { rounds: megabytes, ..row.mark(Mark::Figure { at_most: 1.1 }, subject.ours) })
}
