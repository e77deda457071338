//! SCRIPT FLUSH, again and again: nobody is to notice.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{PATIENCE, Size, churn, finish, open, publish};
use crate::check::Report;
use crate::stage::Options;

/// That is no outage: everything is due all the while.
pub fn run(options: &Options) -> Result<Report> {
    let time = Duration::from_secs(options.pick(4, 60));
    let size = Size { observers: options.pick(30, 60), ..Size::SMALL };
    let mut stage = open("cluster-flush", options, &size)?;
    let publishers = publish(&stage, 150.0)?;
    let (began, mut times) = (Instant::now(), 0);
    while began.elapsed() < time {
        stage.server.redis.forget_scripts()?;
        times += 1;
        if times % 20 == 0 {
            churn(&mut stage, 7);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    stage.wait_until_subscribed(PATIENCE)?;
    let tally = publishers.stop()?;
    let [unavailable, lost] =
        [&tally.unavailable, &tally.lost].map(|attempts| attempts.load(Ordering::Relaxed));
    stage.findings.require(unavailable + lost == 0, || format!("publishers noticed: {tally:?}"));
    stage.findings.tell(format!("flushed    {times} times in {time:?}; {tally:?}"));
    finish(stage, |_| true)
}
