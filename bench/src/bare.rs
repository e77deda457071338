//! The physical limit: plain loops of `send()` with nothing around them.
//!
//! One process accepts the connections of a raw sink and writes the frames that the server wrote, to as many
//! connections, from as many threads as the server has workers. Only the loops are timed, with the CPU clock of the
//! thread that runs them.

use std::io::{BufRead, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use anyhow::{Context, Result};

use crate::child::print_line;
use crate::control::{BareCommand, BareReply};
use crate::random::Random;
use crate::{clock, frame};

/// What one thread is told.
enum Job {
    Take(Vec<TcpStream>),
    Send { bytes: Arc<Vec<u8>>, sends: usize },
    Scatter { bytes: Arc<Vec<u8>>, events: u64, room: usize, skip: usize, seed: u64 },
}

/// CPU nanoseconds and the number of `send()` calls.
type Spent = Result<(u64, u64)>;

struct Thread {
    jobs: Sender<Job>,
    spent: Receiver<Spent>,
}

/// The life of the bare process: until its stdin ends.
pub fn run(threads: usize) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    print_line(&BareReply::Listening { port: listener.local_addr()?.port() })?;
    let threads: Vec<Thread> = (0..threads.max(1)).map(|_| Thread::start()).collect();
    for line in std::io::stdin().lock().lines() {
        let reply = match obey(&serde_json::from_str(&line?)?, &listener, &threads) {
            Ok(reply) => reply,
            Err(error) => BareReply::Failed(format!("{error:#}")),
        };
        print_line(&reply)?;
    }
    Ok(())
}

fn obey(order: &BareCommand, listener: &TcpListener, threads: &[Thread]) -> Result<BareReply> {
    match order {
        BareCommand::Accept { count } => {
            let mut shares: Vec<Vec<TcpStream>> = threads.iter().map(|_| Vec::new()).collect();
            for number in 0..*count {
                let (stream, _) = listener.accept().context("accepting")?;
                stream.set_nodelay(true)?;
                shares[number % threads.len()].push(stream);
            }
            spread(threads, shares.into_iter().map(Job::Take))?;
            Ok(BareReply::Accepted)
        }
        BareCommand::Send { text, copies, joined } => {
            let one = frame::server_text(text);
            let (bytes, sends) = if *joined { (one.repeat(*copies), 1) } else { (one, *copies) };
            let bytes = Arc::new(bytes);
            let spent = spread(threads, threads.iter().map(|_| Job::Send { bytes: bytes.clone(), sends }))?;
            let frames = if *joined { spent.1 * *copies as u64 } else { spent.1 };
            Ok(BareReply::Sent { cpu_ns: spent.0, frames })
        }
        BareCommand::Scatter { text, events, room, skip, seed } => {
            let bytes = Arc::new(frame::server_text(text));
            let count = threads.len() as u64;
            let jobs = (0..count).map(|thread| Job::Scatter {
                bytes: bytes.clone(),
                events: events / count + u64::from(thread < events % count),
                room: *room,
                skip: *skip,
                seed: seed + thread,
            });
            let (cpu_ns, frames) = spread(threads, jobs)?;
            Ok(BareReply::Sent { cpu_ns, frames })
        }
        BareCommand::Close => {
            spread(threads, threads.iter().map(|_| Job::Take(Vec::new())))?;
            Ok(BareReply::Closed)
        }
    }
}

/// Gives each thread its job, waits for all and adds up what they spent.
fn spread(threads: &[Thread], jobs: impl Iterator<Item = Job>) -> Result<(u64, u64)> {
    for (thread, job) in threads.iter().zip(jobs) {
        thread.jobs.send(job).ok().context("a sender thread is gone")?;
    }
    threads.iter().try_fold((0, 0), |sum, thread| {
        let spent = thread.spent.recv().context("a sender thread is gone")??;
        Ok((sum.0 + spent.0, sum.1 + spent.1))
    })
}

impl Thread {
    fn start() -> Self {
        let (jobs, orders) = channel();
        let (answers, spent) = channel();
        std::thread::spawn(move || {
            let mut streams = Vec::new();
            for job in orders {
                if answers.send(work(job, &mut streams)).is_err() {
                    break;
                }
            }
        });
        Thread { jobs, spent }
    }
}

fn work(job: Job, streams: &mut Vec<TcpStream>) -> Spent {
    match job {
        Job::Take(share) => {
            *streams = share;
            Ok((0, 0))
        }
        Job::Send { bytes, sends } => {
            let begin = clock::thread_cpu();
            for _ in 0..sends {
                for mut stream in streams.iter() {
                    stream.write_all(&bytes)?;
                }
            }
            let cpu = clock::thread_cpu() - begin;
            Ok((cpu.as_nanos() as u64, (sends * streams.len()) as u64))
        }
        Job::Scatter { bytes, events, room, skip, seed } => {
            // As in the scenarios: members of a room did not connect one after the other, so they do not lie side
            // by side in the kernel's memory either.
            let rooms = streams.len() / room;
            let mut random = Random::new(seed);
            let begin = clock::thread_cpu();
            for _ in 0..events {
                let first = random.below(rooms);
                for member in skip..room {
                    (&streams[first + member * rooms]).write_all(&bytes)?;
                }
            }
            let cpu = clock::thread_cpu() - begin;
            Ok((cpu.as_nanos() as u64, events * (room - skip) as u64))
        }
    }
}
