//! How much memory a server needs for nothing, and for a connection that does nothing.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::field::{Channels, Field};
use crate::report::{Mark, Row};
use crate::subject::Subject;
use crate::suite::Setup;

/// Opened first, so that what is allocated once is not counted as part of a connection.
const WARM_UP: usize = 64;
const SETTLE: Duration = Duration::from_secs(2);

pub fn run(setup: &Setup) -> Result<Vec<Row>> {
    let count = setup.plan.idle_connections;
    let mut rows = Vec::new();
    for subject in setup.subjects()? {
        std::thread::sleep(Duration::from_secs(1));
        let megabytes = subject.memory()?.resident as f64 / 1e6;
        let row = Row::single("RSS with no connection", &subject.name, megabytes, "MB");
        rows.push(row.mark(Mark::Figure { at_most: 15.0 }, subject.ours));
    }
    for subject in setup.subjects()? {
        let shared = Channels { prefix: "idle-shared-", count: 1 };
        rows.push(idle(&subject, shared, count, "on a shared public channel", 1024.0)?);
    }
    for subject in setup.subjects()? {
        let own = Channels { prefix: "private-idle-", count };
        rows.push(idle(&subject, own, count, "on a private channel of its own", 1400.0)?);
    }
    Ok(rows)
}

fn idle(subject: &Subject, channels: Channels<'_>, count: usize, what: &str, at_most: f64) -> Result<Row> {
    let measure = || -> Result<f64> {
        let warm = Channels { prefix: "private-warm-", count: WARM_UP };
        let mut first = Field::new()?;
        first.open(subject.address, WARM_UP, warm.dialect(&subject.app))?;
        std::thread::sleep(SETTLE);
        let before = subject.memory()?.anonymous;
        let mut field = Field::new()?;
        field.open(subject.address, count, channels.dialect(&subject.app))?;
        std::thread::sleep(SETTLE);
        let after = subject.memory()?.anonymous;
        field.close()?;
        Ok((after as f64 - before as f64) / count as f64)
    };
    let bytes = measure().with_context(|| subject.trouble())?;
    let row = Row::single(format!("idle connection {what}"), &subject.name, bytes, "bytes");
    Ok(row.mark(Mark::Figure { at_most }, subject.ours))
}
