//! A crash begins a new generation of every log; whoever is left out of its first message has to hear of it all the
//! same.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::check::{Expect, Report};
use crate::publisher::Publisher;
use crate::stage::{Options, Stage, channels, keep_all, setup};

pub fn run(options: &Options) -> Result<Report> {
    let mut stage = Stage::open("generation", options, setup(keep_all()), Expect::default(), channels(4))?;
    stage.watch((0..8).map(|number| stage.plan("o", number, 1)).collect())?;
    let mut publisher = stage.publisher("p");
    for _ in 0..options.pick(3, 10) {
        for channel in stage.channels.clone() {
            publisher.send(&channel, "")?;
        }
        stage.server.kill()?;
        stage.server.start()?;
        stage.wait_until_subscribed(Duration::from_secs(60))?;
        for channel in stage.channels.clone() {
            leave_out_of_the_first(&mut stage, &mut publisher, &channel)?;
        }
        stage.crowds[0].cut(1);
    }
    stage.wait_until_subscribed(Duration::from_secs(60))?;
    stage.finish()
}

fn leave_out_of_the_first(stage: &mut Stage, publisher: &mut Publisher, channel: &str) -> Result<()> {
    let crowd = &stage.crowds[0];
    let index = crowd.plans().iter().position(|plan| plan.channels[0] == channel);
    let observer = Arc::clone(&crowd.progress()[index.context("nobody watches the channel")?]);
    publisher.send(channel, &observer.socket_id())?;
    let last = publisher.send(channel, "")?;
    stage.wait("the second message", Duration::from_secs(30), |stage| {
        stage.crowds[0].behind(channel, last).is_empty()
    })
}
