//! The receiver and the bare loop, as processes, against each other: what was sent is counted, what was not is told.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

const EVENT: &str =
    r#"{"event":"bench","channel":"a","data":"{\"seq\":\"000000000001\",\"at\":\"000000000000000000\"}"}"#;

struct Process {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Process {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidewire-bench"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Process { child, orders, answers }
    }

    fn tell(&mut self, order: Value) {
        writeln!(self.orders.as_mut().unwrap(), "{order}").unwrap();
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn ask(&mut self, order: Value) -> Value {
        self.tell(order);
        self.answer()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.orders.take();
        self.child.wait().unwrap();
    }
}

/// A bare sender with `count` connections of a sink.
fn connected(count: usize) -> (Process, Process) {
    let mut bare = Process::start(&["bare", "--threads=2"]);
    let port = bare.answer()["Listening"]["port"].as_u64().unwrap();
    let mut sink = Process::start(&["sink"]);
    bare.tell(json!({ "Accept": { "count": count } }));
    let address = format!("127.0.0.1:{port}");
    let opened = sink.ask(json!({ "Open": {
        "address": address, "count": count, "in_flight": 8, "first": 0, "dialect": "Raw", "ordered": false,
    } }));
    assert!(opened["Opened"]["seconds"].is_f64(), "{opened}");
    assert_eq!(bare.answer(), "Accepted");
    (bare, sink)
}

fn send(text: &str, copies: usize, joined: bool) -> Value {
    json!({ "Send": { "text": text, "copies": copies, "joined": joined } })
}

fn wait(events: usize) -> Value {
    json!({ "Await": { "events": events, "timeout_ms": 5000 } })
}

#[test]
fn every_frame_is_counted_however_it_was_written() {
    let (mut bare, mut sink) = connected(50);
    let sent = bare.ask(send(EVENT, 16, true));
    assert_eq!(sent["Sent"]["frames"], 800);
    assert!(sent["Sent"]["cpu_ns"].as_u64().unwrap() > 0);
    bare.ask(send(EVENT, 3, false));
    assert_eq!(sink.ask(wait(950)), "Reached");
    let verified = sink.ask(json!({ "Verify": { "Each": 19 } }));
    assert_eq!(verified["Verified"]["last_event"], EVENT);
    bare.ask(json!({ "Scatter": { "text": EVENT, "events": 7, "room": 10, "skip": 1, "seed": 1 } }));
    assert_eq!(sink.ask(wait(63)), "Reached");
    assert!(sink.ask(json!({ "Verify": { "Total": 63 } }))["Verified"].is_object());
    assert_eq!(sink.ask(json!("Close")), "Closed");
    assert_eq!(bare.ask(json!("Close")), "Closed");
}

#[test]
fn frames_larger_than_one_segment_are_put_together() {
    let (mut bare, mut sink) = connected(3);
    let padding = "x".repeat(70_000);
    let large = EVENT.replace("\\\"}\"}", &format!("\\\",\\\"pad\\\":\\\"{padding}\\\"}}\"}}"));
    bare.ask(send(&large, 4, false));
    assert_eq!(sink.ask(wait(12)), "Reached");
    assert!(sink.ask(json!({ "Verify": { "Each": 4 } }))["Verified"].is_object());
}

#[test]
fn a_lost_event_fails_the_run() {
    let (mut bare, mut sink) = connected(5);
    bare.ask(send(EVENT, 1, false));
    let short = sink.ask(json!({ "Await": { "events": 6, "timeout_ms": 200 } }));
    assert_eq!(short["Failed"], "only 5 of 6 events arrived in time");
}

#[test]
fn an_event_that_arrives_twice_fails_the_run() {
    let (mut bare, mut sink) = connected(5);
    bare.ask(send(EVENT, 2, false));
    assert_eq!(sink.ask(wait(5)), "Reached");
    let verified = sink.ask(json!({ "Verify": { "Each": 1 } }));
    let text = verified["Failed"].as_str().unwrap();
    assert!(text.starts_with("5 wrong: connection 0 got 2 of 1 events"), "{text}");
}

#[test]
fn an_error_of_the_server_fails_the_run_and_is_quoted() {
    let (mut bare, mut sink) = connected(1);
    let error = r#"{"event":"pusher:error","data":{"code":4301,"message":"slow down"}}"#;
    bare.ask(send(error, 1, false));
    let failed = sink.answer();
    assert!(failed["Failed"].as_str().unwrap().contains("slow down"), "{failed}");
}

#[test]
fn a_connection_that_the_server_drops_fails_the_run() {
    let (mut bare, mut sink) = connected(2);
    bare.ask(json!("Close"));
    let failed = sink.answer();
    assert!(failed["Failed"].as_str().unwrap().contains("the server closed a connection"), "{failed}");
}
