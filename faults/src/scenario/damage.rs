//! A damaged file of the store, while it is closed and while it is open.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use rustix::process::Signal;

use crate::check::{Expect, Report};
use crate::publisher::{Load, Percent, Publishers};
use crate::server::Setup;
use crate::stage::{Options, Stage, channels, keep_all, setup};

/// A slice is full after a second or so.
const STORE_BYTES: u64 = 48 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// What is done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Harm {
    /// Bytes in the middle of an old one are inverted.
    Flip,
    /// The second half of the newest is gone.
    Truncate,
    /// The newest is gone.
    Remove,
    /// Bytes of the one that names the store are inverted.
    Meta,
    /// Bytes are inverted in the middle of what `kill -9` left in the write-ahead log.
    Wal,
}

/// Whoever's messages are gone is told so; everything else goes on, and no file is thrown away.
pub fn run(options: &Options, harm: Harm, is_running: bool) -> Result<Report> {
    let state = if is_running { "-open" } else { "" };
    let name = format!("damage{state}-{}", format!("{harm:?}").to_lowercase());
    let expect = Expect { may_lose: true, ..Expect::default() };
    let setup = Setup { store_bytes: STORE_BYTES, ..setup(keep_all()) };
    let mut stage = Stage::open(&name, options, setup, expect, channels(6))?;
    stage.watch((0..30).map(|number| stage.plan("o", number, 2)).collect())?;
    let load = Load { per_second: 1000.0, percent: Percent::FOR_ALL, ..stage.load(16, 4000) };
    let publishers = stage.publish("p", &load, &Vec::new())?;
    stage.wait("messages to be stored", PATIENCE, |_| publishers.stored() > 2500)?;
    if is_running {
        damage_open(&mut stage, harm, &publishers)?;
    }
    // What is in the newest file, everybody has seen then.
    publishers.stop()?;
    stage.wait_until_subscribed(PATIENCE)?;
    std::thread::sleep(Duration::from_millis(100));
    end(&mut stage, harm)?;
    if !is_running {
        damage(&stage.server.store(), harm)?;
    }
    stage.server.start()?;
    let publishers = stage.publish("q", &load, &Vec::new())?;
    stage.wait_until_subscribed(PATIENCE)?;
    let before = publishers.stored();
    stage.wait("messages to be stored again", PATIENCE, |_| publishers.stored() > before + 500)?;
    publishers.stop()?;
    stage.finish()
}

fn end(stage: &mut Stage, harm: Harm) -> Result<()> {
    if harm == Harm::Wal {
        return stage.server.kill();
    }
    stage.server.signal(Signal::TERM)?;
    let status = stage.server.wait(Duration::from_secs(30))?;
    stage.findings.require(status == 0, || format!("exit status {status} after SIGTERM"));
    Ok(())
}

/// A store that stops acknowledging and ends the process is right, too: a supervisor starts it again.
fn damage_open(stage: &mut Stage, harm: Harm, publishers: &Publishers) -> Result<()> {
    damage(&stage.server.store(), harm)?;
    std::thread::sleep(Duration::from_secs(1));
    // Those who come back read what is damaged.
    stage.crowds[0].cut(2);
    let before = publishers.stored();
    let goes_on =
        stage.wait("messages to be stored", Duration::from_secs(5), |_| publishers.stored() > before + 500);
    if goes_on.is_err() {
        let status = stage.server.wait(Duration::from_secs(1))?;
        stage.findings.tell(format!("ended      with {status}"));
        stage.findings.require(status == 1, || format!("the server ended with {status}"));
        stage.server.start()?;
    }
    Ok(())
}

fn damage(store: &Path, harm: Harm) -> Result<()> {
    let ending = if harm == Harm::Wal { ".db-wal" } else { ".db" };
    let files = files(store, ending)?;
    let path = match harm {
        Harm::Meta => Some(store.join("meta.db")),
        Harm::Flip => files.first().cloned(),
        _ => files.last().cloned(),
    };
    let path = path.context("the store has too few files")?;
    let length = fs::metadata(&path)?.len();
    println!("  damaging   {} of {} files, {length} bytes", path.display(), files.len());
    match harm {
        Harm::Remove => Ok(fs::remove_file(&path)?),
        Harm::Truncate => Ok(OpenOptions::new().write(true).open(&path)?.set_len(length / 2)?),
        Harm::Flip | Harm::Meta | Harm::Wal => flip(&path, length / 2),
    }
}

fn flip(path: &Path, at: u64) -> Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut bytes = [0; 512];
    file.read_exact_at(&mut bytes, at)?;
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
    Ok(file.write_all_at(&bytes, at)?)
}

/// Of the slices, oldest first.
fn files(store: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let paths = fs::read_dir(store)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let is_meant = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("slice-") && name.ends_with(ending)
    };
    let mut files: Vec<PathBuf> = paths.into_iter().filter(is_meant).collect();
    files.sort();
    Ok(files)
}
