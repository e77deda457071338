//! What a stored message costs Redis. Run with `--ignored --nocapture`.

use tidewire::replay::store::{Append, Content, Hints, Store};

use crate::fixture::{Options, RedisServer};
use crate::node;
use crate::support::{T0, content, message, stream};

const MESSAGES: u64 = 20_000;

fn microseconds(server: &RedisServer) -> f64 {
    let used = |field| server.info(field).parse::<f64>().expect("a number");
    (used("used_cpu_user") + used("used_cpu_sys")) * 1e6
}

fn script_microseconds(server: &RedisServer) -> f64 {
    let line = server.info("cmdstat_evalsha");
    let usec = line.split(',').find_map(|part| part.strip_prefix("usec=")).expect("it was called");
    usec.parse().expect("a number")
}

fn measure(name: &str, options: &Options, batch: impl Fn(u64) -> Vec<Append>) {
    let server = RedisServer::with(options.clone());
    let (_link, store) = node(&server);
    // Every stream is there, and the memory of the server is warm.
    for channels in 0..20 {
        store.append(&batch(channels * 64), T0).expect("stored");
    }
    let mut sent = 0;
    let (before, script_before) = (microseconds(&server), script_microseconds(&server));
    while sent < MESSAGES {
        let batch = batch(sent + 10_000);
        store.append(&batch, T0 + sent / 10).expect("stored");
        sent += batch.len() as u64;
    }
    let cpu = (microseconds(&server) - before) / sent as f64;
    let script = (script_microseconds(&server) - script_before) / sent as f64;
    println!("{name}: {script:.1} us in the script, {cpu:.1} us of CPU per message");
}

/// The least that any such script does, for comparison.
fn measure_least(name: &str, options: &Options) {
    let server = RedisServer::with(options.clone());
    let mut client = server.client();
    let source = "redis.call('XADD', KEYS[1], 'MAXLEN', '~', 1000, '1-*', 'd', ARGV[1]) \
                  redis.call('PUBLISH', KEYS[2], ARGV[1])";
    let sha: String = server.command(&["SCRIPT", "LOAD", source]);
    let kilobyte = "x".repeat(1000);
    let mut run = |round: u64| {
        let mut pipeline = redis::pipe();
        for number in 0..64 {
            let channel = format!("{{test}}orders-{}", (round * 64 + number) % 1000);
            pipeline.cmd("EVALSHA").arg(&sha).arg(2).arg(&channel).arg(&channel).arg(&kilobyte);
        }
        pipeline.exec(&mut client).expect("stored");
    };
    (0..20).for_each(&mut run);
    let (before, script_before) = (microseconds(&server), script_microseconds(&server));
    (0..MESSAGES / 64).for_each(&mut run);
    let cpu = (microseconds(&server) - before) / MESSAGES as f64;
    let script = (script_microseconds(&server) - script_before) / MESSAGES as f64;
    println!("{name}, XADD and PUBLISH only: {script:.1} us in the script, {cpu:.1} us of CPU per message");
}

#[test]
#[ignore = "it measures"]
fn a_stored_message() {
    let kilobyte = "x".repeat(1000);
    let of = |channel: u64, data: &str| Append {
        hints: Hints { max_messages: 1000, max_bytes: 1 << 20, ..Hints::default() },
        ..message(&stream(&format!("orders-{channel}")), data)
    };
    let keyed = |number: u64| {
        let append = of(number % 1000, &kilobyte);
        Append { content: Content { id: Some(number.to_string().into()), ..content(&kilobyte) }, ..append }
    };
    let everysec = Options { appendonly: true, ..Options::default() }.arg("appendfsync", "everysec");
    for (name, options) in [("no AOF", Options::default()), ("AOF everysec", everysec)] {
        measure_least(name, &options);
        let spread = |sent: u64| (0..64).map(|number| of((sent + number) % 1000, &kilobyte)).collect();
        measure(&format!("{name}, batches of 64 channels"), &options, spread);
        measure(&format!("{name}, one at a time"), &options, |sent| vec![of(sent % 1000, &kilobyte)]);
        measure(&format!("{name}, 64 of one channel"), &options, |_| {
            (0..64).map(|_| of(0, &kilobyte)).collect()
        });
        measure(&format!("{name}, with keys"), &options, |sent| {
            (0..64).map(|number| keyed(sent * 100 + number)).collect()
        });
    }
}
