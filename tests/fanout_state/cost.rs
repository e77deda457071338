//! What calls cost Redis: run with `--ignored --nocapture`.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tidewire::fanout::keys::partition;
use tidewire::fanout::message::{CachePart, Event, encode_event};
use tidewire::fanout::redis::lease::Session;
use tidewire::fanout::redis::reads::Want;
use tidewire::fanout::redis::state::{State, Update};

use crate::support::{APP, Node, World, json, with_count};

const IN_FLIGHT: usize = 64;

/// Microseconds that redis-server has computed so far.
fn cpu_us(world: &World) -> f64 {
    let seconds = |field| world.server.info(field).parse::<f64>().expect("seconds");
    1e6 * (seconds("used_cpu_user_main_thread") + seconds("used_cpu_sys_main_thread"))
}

/// Runs `call` so often, many at once, and tells what one took.
fn measure<F>(world: &World, node: &Node, what: &str, count: usize, call: impl Fn(State, usize) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _: () = world.server.command(&["CONFIG", "RESETSTAT"]);
    let (before, start) = (cpu_us(world), Instant::now());
    runtime.block_on(async {
        let mut running = tokio::task::JoinSet::new();
        for i in 0..count {
            if running.len() == IN_FLIGHT {
                running.join_next().await.expect("one runs").expect("it is done");
            }
            running.spawn(call(node.state.clone(), i));
        }
        running.join_all().await;
    });
    let each = |total: f64| total / count as f64;
    let (cpu, wall) = (each(cpu_us(world) - before), each(start.elapsed().as_secs_f64() * 1e6));
    let stats: String = world.server.command(&["INFO", "commandstats"]);
    let mut commands = 0.0;
    let mut own = 0.0;
    for line in stats.lines().filter(|line| line.starts_with("cmdstat_")) {
        let number = |field: &str| {
            let at = line.split([':', ',']).find_map(|part| part.strip_prefix(field)?.strip_prefix('='));
            at.and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0)
        };
        if !["config", "info"].iter().any(|name| line.contains(name)) {
            commands += number("calls");
        }
        if line.starts_with("cmdstat_evalsha:") {
            own = number("usec_per_call");
        }
    }
    println!(
        "{what:48} {cpu:8.1} µs of CPU, {own:8.1} in the script, {wall:8.1} µs of time, {:6.1} commands",
        each(commands)
    );
}

fn update(channel: &str, count: u32) -> Update<'_> {
    Update { max_members: 20_000, ..with_count(channel, count) }
}

fn event(is_cached: bool) -> Event {
    let data = Bytes::from(vec![b'x'; 1_000]);
    let cache = is_cached.then(|| CachePart { ttl_ms: 60_000, data: data.clone() });
    Event { except: None, cache, frame: data }
}

#[test]
#[ignore = "measures"]
fn cost_of_each_call() {
    const MANY: usize = 20_000;
    let world = World::start();
    let node = world.node();
    let session = Arc::new(node.session.clone());
    let sync = |what: &str, count: fn(usize) -> u32, announce: bool, has_user: bool, is_leaving: bool| {
        let session = Arc::clone(&session);
        measure(&world, &node, what, MANY, |state, i| {
            let session = Arc::clone(&session);
            async move {
                let channel = format!("presence-{}", i % 2_000);
                let (id, info) = (format!("user-{}", i / 2_000), json(r#"{"name":"somebody"}"#));
                let (added, removed) = ([(&*id, info.as_deref())], [&*id]);
                let mut update = Update { announce, ..update(&channel, count(i)) };
                match (has_user, is_leaving) {
                    (true, false) => update.added = &added,
                    (true, true) => update.removed = &removed,
                    _ => {}
                }
                state.sync(&session, update).await.expect("it is done");
            }
        });
    };
    let plain = encode_event(&event(false));
    measure(&world, &node, "publish, 1 KB", 10 * MANY, |state, i| {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let channel = format!("orders-{}", i % 2_000);
        let topic = state.keys().channel_topic(APP, &channel).into();
        let done = Box::new(move |result| drop(answer.send(result)));
        let message = plain.clone();
        async move {
            let at = partition(APP, &channel);
            state.transport().publish(at, topic, message, Some(done)).expect("it is queued");
            answered.await.expect("an answer").expect("it is done");
        }
    });
    for (what, is_cached) in [("publish_once, 1 KB", false), ("publish_once and cached, 1 KB", true)] {
        measure(&world, &node, what, MANY, |state, i| async move {
            let (channel, key) = (format!("cache-{}", i % 2_000), format!("{what} {i}"));
            let event = event(is_cached);
            let once = state.publish_once(APP, &channel, &key, "print", &event, 10_000);
            once.await.expect("it is published");
        });
    }
    measure(&world, &node, "publish_cached, 1 KB", MANY, |state, i| async move {
        let channel = format!("cache-{}", i % 2_000);
        state.publish_cached(APP, &channel, &event(true), 10_000).await.expect("it is published");
    });
    let rising = |i| i as u32 / 2_000 + 1;
    sync("sync: count", rising, false, false, false);
    sync("sync: count, announced", |i| i as u32 / 2_000 + 100, true, false, false);
    sync("sync: a member comes", rising, false, true, false);
    sync("sync: the same again", |i| i as u32 / 2_000 + 1, false, true, false);
    sync("sync: a member goes", |i| 10 - i as u32 / 2_000, false, true, true);
    for (what, is_signed_in) in [("sync_user: signs in", true), ("sync_user: signs out", false)] {
        let session = Arc::clone(&session);
        measure(&world, &node, what, MANY, |state, i| {
            let session = Arc::clone(&session);
            async move {
                let user_id = format!("user-{i}");
                let synced = state.sync_user(&session, APP, &user_id, is_signed_in);
                synced.await.expect("it is done");
            }
        });
    }
    measure(&world, &node, "beat, 10 apps, 100 nodes", 2_000, |state, i| async move {
        let apps: Vec<String> = (0..10).map(|app| app.to_string()).collect();
        let counts: Vec<(&str, u64)> = apps.iter().map(|app| (&**app, 5)).collect();
        let session = Session(format!("{:016x}", i % 100).into());
        state.beat(&session, true, 60_000, &[], &counts).await.expect("it lives");
    });
    measure(&world, &node, "connections, 100 nodes", 2_000, |state, _| async move {
        assert_eq!(state.connections("1").await.expect("an answer"), 500);
    });

    let info = json(r#"{"name":"somebody"}"#);
    let ids: Vec<String> = (0..10_000).map(|i| format!("user-{i}")).collect();
    let added: Vec<_> = ids.iter().map(|id| (&**id, info.as_deref())).collect();
    let all = Update { added: &added, ..update("presence-large", 10_000) };
    let start = Instant::now();
    node.sync(all);
    println!("sync of 10,000 members: {:?}", start.elapsed());
    measure(&world, &node, "snapshot of 10,000 members", 20, |state, _| async move {
        let want = Want { members: true, ..Want::default() };
        state.snapshot(APP, "presence-large", want).await.expect("a snapshot");
    });
    let start = Instant::now();
    let reaped = node.wait(node.state.reap(&node.session)).expect("it is reaped");
    println!("reap of {reaped:?}: {:?}", start.elapsed());
    let start = Instant::now();
    node.wait(node.state.reap(&node.session)).expect("it is reaped");
    println!("reap of nothing: {:?}", start.elapsed());
}
