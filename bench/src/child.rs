//! A process of this same binary that takes orders on stdin.

use std::io::{BufRead, BufReader, Write};
use std::marker::PhantomData;
use std::process::{Child as Process, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// `C` are the orders, `R` the answers.
pub struct Child<C, R> {
    process: Process,
    /// `None` once closed: the end of its stdin is what makes the child exit.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    name: &'static str,
    types: PhantomData<(C, R)>,
}

impl<C: Serialize, R: DeserializeOwned> Child<C, R> {
    pub fn spawn(name: &'static str, arguments: &[String]) -> Result<Self> {
        let program = std::env::current_exe().context("where is this binary?")?;
        let mut process = Command::new(program)
            .arg(name)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting the {name} process"))?;
        let orders = process.stdin.take();
        let answers = process.stdout.take().context("stdout was asked for")?;
        Ok(Child { process, orders, answers: BufReader::new(answers), name, types: PhantomData })
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn ask(&mut self, order: &C) -> Result<R> {
        let told = self.tell(order);
        // A child that has failed is gone, but its last line says why.
        self.answer().or_else(|error| told.and(Err(error)))
    }

    pub fn tell(&mut self, order: &C) -> Result<()> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        let orders = self.orders.as_mut().context("already closed")?;
        orders.write_all(&line).with_context(|| format!("the {} process is gone", self.name))
    }

    /// The child watches its own deadlines, so this needs none.
    pub fn answer(&mut self) -> Result<R> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!("the {} process ended without an answer", self.name);
        }
        serde_json::from_str(&line).with_context(|| format!("{} said {line:?}", self.name))
    }
}

impl<C, R> Drop for Child<C, R> {
    fn drop(&mut self) {
        self.orders.take();
        // Its exit status says nothing that an answer has not said.
        let _ = self.process.wait();
    }
}

/// The child's side: answers `order` lines with `reply` lines until stdin ends.
pub fn print_line<R: Serialize>(reply: &R) -> Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line)?;
    Ok(out.flush()?)
}
