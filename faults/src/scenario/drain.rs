//! SIGTERM with thousands of clients: an orderly end, and everybody back with the next process.

use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::process::Signal;

use crate::check::{Expect, Report};
use crate::publisher::Load;
use crate::stage::{Options, Stage, channels, keep_all, setup};

pub fn run(options: &Options, clients: Option<usize>) -> Result<Report> {
    let clients = clients.unwrap_or(options.pick(500, 8_000));
    let drain_seconds = options.pick(1, 5);
    let mut setup = setup(keep_all());
    setup.drain_seconds = drain_seconds;
    let mut stage = Stage::open("drain", options, setup, Expect::default(), channels(40))?;
    stage.watch((0..clients).map(|number| stage.plan("o", number, 1)).collect())?;
    let load = Load { per_second: 100.0, ..stage.load(4, 60) };
    let publishers = stage.publish("p", &load, &stage.sockets())?;
    for _ in 0..options.pick(2, 3) {
        std::thread::sleep(Duration::from_millis(500));
        let began = Instant::now();
        stage.server.signal(Signal::TERM)?;
        let status = stage.server.wait(Duration::from_secs(drain_seconds + 30))?;
        let ended = began.elapsed();
        stage.findings.require(status == 0, || format!("exit status {status} after SIGTERM"));
        stage.server.start()?;
        stage.wait_until_subscribed(Duration::from_secs(120))?;
        let all_back = (began.elapsed() - ended).as_secs_f64();
        stage.findings.tell(format!(
            "drained    {clients} clients in {:.1} s (window {drain_seconds} s), all back {all_back:.1} s later",
            ended.as_secs_f64()
        ));
        stage.sample();
    }
    publishers.stop()?;
    stage.finish()
}
