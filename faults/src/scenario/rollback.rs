//! A store that has lost its end, as after a power cut: who saw what is gone is told, nobody else.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::check::{Expect, Report};
use crate::publisher::{Load, Percent};
use crate::stage::{Options, Stage, channels, keep_all, setup};

const PATIENCE: Duration = Duration::from_secs(60);

pub fn run(options: &Options) -> Result<Report> {
    let expect = Expect { may_lose: true, ..Expect::default() };
    let mut stage = Stage::open("rollback", options, setup(keep_all()), expect, channels(6))?;
    let plan = |number: usize| {
        let mut plan = stage.plan("o", number, 2);
        if number.is_multiple_of(2) {
            // Away from before the end is lost until after.
            plan.pause = Duration::from_secs(6);
        }
        plan
    };
    stage.watch((0..40).map(plan).collect())?;
    let load = Load { per_second: 500.0, percent: Percent::FOR_ALL, ..stage.load(8, 200) };
    let publishers = stage.publish("p", &load, &Vec::new())?;
    stage.wait("messages to be stored", PATIENCE, |_| publishers.stored() > 300)?;
    stage.crowds[0].cut(2);
    // What the disk holds at one moment, as no process changes it.
    stage.server.signal(Signal::STOP)?;
    let (store, copy) = (stage.server.store(), stage.server.store().with_extension("copy"));
    copy_files(&store, &copy)?;
    stage.server.signal(Signal::CONT)?;
    let before = publishers.stored();
    stage.wait("messages to be lost", PATIENCE, |_| publishers.stored() > before + 200)?;
    publishers.stop()?;
    stage.server.kill()?;
    fs::remove_dir_all(&store)?;
    copy_files(&copy, &store)?;
    stage.server.start()?;
    let publishers = stage.publish("q", &load, &Vec::new())?;
    stage.wait_until_subscribed(PATIENCE)?;
    let before = publishers.stored();
    stage.wait("messages to be stored again", PATIENCE, |_| publishers.stored() > before + 300)?;
    publishers.stop()?;
    stage.finish()
}

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let name = path.file_name().context("a file without a name")?;
        fs::copy(&path, to.join(name))?;
    }
    Ok(())
}
