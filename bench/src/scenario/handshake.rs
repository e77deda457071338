//! What a connection costs until it is subscribed to a private channel.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::answer::Answering;
use crate::field::{Channels, Field};
use crate::frame;
use crate::procfs;
use crate::report::{Mark, Row};
use crate::rounds::Rounds;
use crate::subject::Subject;
use crate::suite::Setup;

/// So that the end of the last round's connections is not counted in the next round.
const SETTLE: Duration = Duration::from_secs(1);

pub fn run(setup: &Setup) -> Result<Vec<Row>> {
    let subjects = setup.subjects()?;
    let answering = Answering::start(&canned())?;
    let count = setup.plan.handshakes;
    let channels = Channels { prefix: "private-own-", count };
    let mut field = Field::new()?;
    let limit = subjects.len();
    let rounds = Rounds::run(setup.plan.rounds, limit + 1, |contender| {
        let subject = subjects.get(contender);
        let dialect = channels.dialect(&subject.unwrap_or(&subjects[0]).app);
        let address = subject.map_or(answering.address, |subject| subject.address);
        let spent = || subject.map_or_else(|| procfs::cpu(&[answering.pid()]), Subject::cpu);
        let before = spent()?;
        field.open(address, count, dialect)?;
        std::thread::sleep(Duration::from_millis(5));
        let spent = spent()? - before;
        field.close()?;
        std::thread::sleep(SETTLE);
        Ok(spent.as_secs_f64() * 1e6 / count as f64)
    })
    .with_context(|| subjects[0].trouble())?;
    let row = |(index, subject): (usize, &Subject)| {
        Row::median("handshake and private subscribe", &subject.name, &rounds, index, "CPU µs")
            .against("bare, accept and two canned answers", &rounds, index, limit)
            .mark(Mark::Figure { at_most: 90.0 }, subject.ours)
    };
    Ok(subjects.iter().enumerate().map(row).collect())
}

/// The least a server can say: the upgrade with the greeting behind it, then the acknowledgement.
fn canned() -> Vec<Vec<u8>> {
    let mut upgrade = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        .to_vec();
    let greeting = r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"402653184.118734952\",\"activity_timeout\":120}"}"#;
    upgrade.extend(frame::server_text(greeting));
    let subscribed =
        r#"{"event":"pusher_internal:subscription_succeeded","channel":"private-own-1234","data":"{}"}"#;
    vec![upgrade, frame::server_text(subscribed)]
}
