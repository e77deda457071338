//! What a stream costs in memory; and, on request, what messages cost in time:
//! `cargo test --release --test replay_store measure -- --ignored --nocapture --test-threads 1`

use std::time::{Duration, Instant};

use tidewire::replay::sqlite::SqliteStore;
use tidewire::replay::store::{
    Append, Caps, Content, Durability, Hints, Location, Range, Retention, Store, StreamName,
};

use super::support::{
    ALL, EVERYTHING, HOUR, MIB, MINUTE, T0, caps, directory, location, message, stream, wait_until,
};

/// What a stream may take in memory while nobody publishes to it.
const MAX_BYTES_PER_STREAM: u64 = 512;

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("it is read");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("it says so");
    let kilobytes: String = line.chars().filter(char::is_ascii_digit).collect();
    kilobytes.parse::<u64>().expect("a number") * 1024
}

/// In a process of its own, where nothing else takes memory.
#[test]
#[cfg(target_os = "linux")]
fn an_idle_stream_takes_half_a_kilobyte_at_most() {
    let output = std::process::Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "measure::memory_of_streams", "--ignored", "--nocapture"])
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "is run by another test, as a process of its own"]
fn memory_of_streams() {
    let directory = directory();
    let store = SqliteStore::open(&location(directory.path()), &caps(), T0).expect("it opens");
    // SQLite's cache is full by then.
    add_streams(&store, 0..40_000);
    let before = resident_bytes();
    let streams = 40_000..100_000;
    let count = streams.end - streams.start;
    add_streams(&store, streams);
    let each = resident_bytes().saturating_sub(before) / count;
    println!("{each} bytes for each stream");
    assert!(each <= MAX_BYTES_PER_STREAM, "{each} bytes");
}

fn add_streams(store: &dyn Store, numbers: std::ops::Range<u64>) {
    let names: Vec<u64> = numbers.collect();
    for chunk in names.chunks(500) {
        let batch: Vec<Append> = chunk
            .iter()
            .map(|number| message(&stream(&format!("private-customer-{number:08}")), "x"))
            .collect();
        store.append(&batch, T0).expect("stored");
    }
}

/// Time of the process and its threads, in user and kernel mode.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("it is read");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("after its name").split(' ').collect();
    let ticks: u64 =
        fields[12].parse::<u64>().expect("a number") + fields[13].parse::<u64>().expect("a number");
    Duration::from_millis(ticks * 10)
}

fn kilobyte(number: u64) -> Content {
    // Not all the same, as messages are not.
    let mut text = String::with_capacity(1000);
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    while text.len() < 1000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push_str(&format!("{state:016x}"));
    }
    Content { id: None, event: "order.paid".into(), data: text.into(), user_id: None, except: None }
}

const CHANNELS: u64 = 10_000;

fn channel(number: u64) -> StreamName {
    stream(&format!("private-orders-{:05}", number.wrapping_mul(7_919) % CHANNELS))
}

fn batch(from: u64, size: u64) -> Vec<Append> {
    (from..from + size)
        .map(|number| Append {
            stream: channel(number),
            content: kilobyte(number),
            inactivity_ttl_ms: 0,
            hints: Hints::default(),
        })
        .collect()
}

#[test]
#[ignore = "a measurement"]
fn appends() {
    println!("durability batch      messages/s   CPU/message   slowest batch");
    for durability in [Durability::None, Durability::Interval, Durability::Always] {
        for size in [1, 64, 256, 1024] {
            append_for(durability, size);
        }
    }
}

fn append_for(durability: Durability, size: u64) {
    let directory = directory();
    let location = Location { directory: directory.path().to_owned(), durability };
    let store = SqliteStore::open(&location, &caps(), T0).expect("it opens");
    store.append(&batch(0, CHANNELS), T0).expect("stored");
    let batches: Vec<Vec<Append>> =
        (0..(100_000 / size).min(20_000)).map(|number| batch(number * size, size)).collect();
    let limit = Duration::from_secs(10);
    let (start, cpu_before) = (Instant::now(), cpu());
    let (mut count, mut slowest) = (0, Duration::ZERO);
    for batch in &batches {
        let began = Instant::now();
        store.append(batch, T0).expect("stored");
        slowest = slowest.max(began.elapsed());
        count += size;
        if start.elapsed() > limit {
            break;
        }
    }
    let elapsed = start.elapsed().as_secs_f64();
    let cpu = (cpu() - cpu_before).as_secs_f64();
    println!(
        "{durability:<10?} {size:>5} {:>15.0} {:>10.1} µs {:>12.1} ms",
        count as f64 / elapsed,
        cpu / count as f64 * 1e6,
        slowest.as_secs_f64() * 1e3
    );
}

/// `TIDEWIRE_MEASURE_MIB` of messages: how long the store takes to open, and to read pages of.
#[test]
#[ignore = "a measurement"]
fn opening_and_reading() {
    let mib = std::env::var("TIDEWIRE_MEASURE_MIB").ok().and_then(|mib| mib.parse().ok()).unwrap_or(1024);
    let directory = directory();
    let caps = Caps { longest_window_ms: 24 * HOUR, max_bytes: 64 * 1024 * MIB, app_max_bytes: Vec::new() };
    let open = |now_ms| {
        let location = Location { directory: directory.path().to_owned(), durability: Durability::None };
        SqliteStore::open(&location, &caps, now_ms).expect("it opens")
    };
    let store = open(T0);
    let count = mib * MIB / kilobyte(0).size();
    let (start, mut now_ms) = (Instant::now(), T0);
    for from in (0..count).step_by(256) {
        // All in 24 hours.
        now_ms = T0 + from * 24 * HOUR / count;
        store.append(&batch(from, 256), now_ms).expect("stored");
        if from % 65_536 == 0 {
            store.maintain(now_ms).expect("maintained");
        }
    }
    println!("{count} messages in {:.1} s", start.elapsed().as_secs_f64());
    wait_until("chores are done", || store.is_at_rest());
    store.maintain(now_ms).expect("maintained");
    let stats = store.stats();
    println!("{stats:?}: {} bytes a message on disk", stats.bytes / count);
    read_pages(&store, count, now_ms);
    drop(store);
    for round in 0..3 {
        let start = Instant::now();
        let store = open(now_ms);
        println!("open {round}, unclean: {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
        store.append(&batch(0, 64), now_ms).expect("stored");
    }
    if std::fs::write("/proc/sys/vm/drop_caches", "3").is_ok() {
        let start = Instant::now();
        drop(open(now_ms));
        println!("open, unclean and nothing cached: {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    }
    open(now_ms).close().expect("closed");
    let start = Instant::now();
    drop(open(now_ms));
    println!("open, clean: {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    let start = Instant::now();
    let store = open(now_ms);
    println!("open again: {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    let start = Instant::now();
    store.maintain(now_ms + 25 * HOUR).expect("maintained");
    println!("trimming everything: {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
}

fn read_pages(store: &dyn Store, count: u64, now_ms: u64) {
    let in_each = count / CHANNELS;
    let time = |what: &str, read: &dyn Fn(u64)| {
        let (start, cpu_before) = (Instant::now(), cpu());
        let rounds = 2_000;
        (0..rounds).for_each(read);
        println!(
            "{what}: {:.0} µs, {:.0} µs of CPU",
            start.elapsed().as_secs_f64() / f64::from(rounds as u32) * 1e6,
            (cpu() - cpu_before).as_secs_f64() / f64::from(rounds as u32) * 1e6
        );
    };
    let page = |after: u64| Range { after, max_messages: 100, max_bytes: 256 * 1024, ..ALL };
    let some = |round: u64| in_each.saturating_sub(100) * (round % 97) / 97;
    let read = |number: u64, after: u64| {
        let entries = store.read(&channel(number), page(after)).expect("read");
        assert!(!entries.is_empty());
    };
    time("100 messages, somewhere", &|round| read(round * 31, some(round)));
    time("the last 100 messages", &|round| read(round * 31, in_each.saturating_sub(100)));
    time("the last 5 messages", &|round| read(round * 31, in_each.saturating_sub(5)));
    time("bounds, no limit", &|round| drop(store.bounds(&channel(round * 31), &EVERYTHING, now_ms)));
    let strict = Retention {
        window_ms: 10 * HOUR + 7 * MINUTE,
        max_messages: 1_000_000,
        max_bytes: in_each * 700,
        inactivity_ttl_ms: 0,
    };
    time("bounds, by age and bytes", &|round| drop(store.bounds(&channel(round * 31), &strict, now_ms)));
    time("position", &|round| assert!(store.position(&channel(round * 31)).serial > 0));
}
