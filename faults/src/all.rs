//! Every scenario, each in a process of its own, some of them at the same time.

use std::process::{Command as Process, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Parser;

use crate::junit::{Case, Verdict};
use crate::stage::Options;
use crate::{Cli, name};

/// Those that take long come first, so that none of them is left over at the end.
const SCENARIOS: [&[&str]; 33] = [
    &["cluster-sentinel"],
    &["cluster-masters"],
    &["cluster-outage"],
    &["cluster-half-open"],
    &["cluster-flush"],
    &["cluster-cut"],
    &["cluster-kill"],
    &["cluster-redis"],
    &["cluster-redis", "--loses", "second"],
    &["cluster-redis", "--loses", "everything"],
    &["cluster-stop"],
    &["cluster-drain"],
    &["cap"],
    &["slow"],
    &["trim"],
    &["expire"],
    &["many"],
    &["stop"],
    &["drain"],
    &["herd"],
    &["churn"],
    &["rollback"],
    &["kill"],
    &["generation"],
    &["full"],
    &["full", "--live"],
    &["purge"],
    &["damage", "--harm", "flip"],
    &["damage", "--harm", "flip", "--open"],
    &["damage", "--harm", "truncate"],
    &["damage", "--harm", "remove"],
    &["damage", "--harm", "meta"],
    &["damage", "--harm", "wal"],
];

pub fn play(options: &Options, jobs: usize) -> Vec<Case> {
    let (waiting, cases) = (Mutex::new(SCENARIOS.iter().rev().collect::<Vec<_>>()), Mutex::new(Vec::new()));
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some(arguments) = next() {
                    let case = play_one(options, arguments);
                    cases.lock().unwrap_or_else(PoisonError::into_inner).push(case);
                }
            });
        }
    });
    cases.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn play_one(options: &Options, arguments: &[&str]) -> Case {
    let began = Instant::now();
    let verdict = run(options, arguments).unwrap_or_else(|error| Verdict::Failed(format!("{error:#}")));
    let command = Cli::parse_from([&["faults"], arguments].concat()).command;
    Case { name: name(&command), seconds: began.elapsed().as_secs_f64(), verdict }
}

fn run(options: &Options, arguments: &[&str]) -> Result<Verdict> {
    let program = std::env::current_exe().context("where is this binary?")?;
    let mut process = Process::new(program);
    process.arg("--server-bin").arg(&options.binary).arg("--work-dir").arg(&options.work);
    process.arg("--durability").arg(&options.durability).arg("--workers").arg(options.workers.to_string());
    process.args(options.is_short.then_some("--short")).args(options.is_kept.then_some("--keep"));
    let output = process.args(arguments).stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    // Without the summary of one.
    let text = text.rsplit_once("\n\n").map_or(&*text, |(text, _)| text);
    println!("{text}{}", String::from_utf8_lossy(&output.stderr));
    if output.status.code().is_none() {
        println!("  FAILED     {}", output.status);
    }
    Ok(match output.status.code() {
        Some(0) if text.contains("\n  skipped ") => Verdict::Skipped,
        Some(0) => Verdict::Passed,
        _ => Verdict::Failed(text.to_owned()),
    })
}
