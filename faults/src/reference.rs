//! The log as the server itself tells it, read over `GET history` when nothing is published any more.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use tidewire_bench::api::App;

use crate::history::{Act, History, Record};
use crate::http::Connection;
use crate::wire;

#[derive(Deserialize)]
struct Page {
    epoch: String,
    oldest: u64,
    newest: u64,
    items: Vec<Item>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    serial: u64,
    id: Option<String>,
    data: String,
}

/// Purges all but about the last `kept` messages of a channel.
pub fn purge(address: SocketAddr, app: &App, channel: &str, kept: u64, history: &History) -> Result<()> {
    let mut connection = Connection::new(address, Duration::from_secs(30));
    let endpoint = format!("channels/{channel}/history");
    let answer = connection.call(&app.request("GET", &endpoint, &[("limit", "1")]))?;
    let page: Page = serde_json::from_slice(&answer.body).context("the newest page of history")?;
    let Some(before) = page.newest.checked_sub(kept).filter(|before| *before > 0) else { return Ok(()) };
    let purge = Record { p: "purge", f: Act::Purge, ch: channel, serial: Some(before), ..Record::default() };
    history.note(&purge);
    let before = format!("{}:{before}", page.epoch);
    let answer = connection.call(&app.request("DELETE", &endpoint, &[("before", &before)]))?;
    ensure!(answer.status < 300, "a purge was answered {}", answer.status);
    history.note(&Record { kind: "ok", ..purge });
    Ok(())
}

/// Notes all of a channel's log, oldest first.
pub fn read(address: SocketAddr, app: &App, channel: &str, log: &History) -> Result<()> {
    let mut connection = Connection::new(address, Duration::from_secs(30));
    let endpoint = format!("channels/{channel}/history");
    let mut cursor: Option<String> = None;
    let mut is_first = true;
    loop {
        let mut parameters = vec![("direction", "forward"), ("limit", "1000")];
        parameters.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let answer = connection.call(&app.request("GET", &endpoint, &parameters))?;
        let body = String::from_utf8_lossy(&answer.body);
        // A channel that is not stored.
        if answer.status == 404 {
            return Ok(());
        }
        if answer.status != 200 {
            bail!("history was answered {}: {body}", answer.status);
        }
        let page: Page =
            serde_json::from_str(&body).with_context(|| format!("a page of history: {body:.300}"))?;
        let own = Record { p: "log", ch: channel, epoch: &page.epoch, ..Record::default() };
        if std::mem::take(&mut is_first) {
            let (oldest, serial) = (Some(page.oldest), Some(page.newest));
            log.note(&Record { f: Act::Bounds, oldest, serial, ..own });
        }
        for item in &page.items {
            let mid = wire::mid(&item.data).context("a payload without a name in the log")?;
            let id = match item.id.as_deref() {
                Some(id) if id != mid => id,
                None if !wire::is_of_client(mid) => "none",
                _ => "",
            };
            log.note(&Record { f: Act::Log, serial: Some(item.serial), mid, id, ..own });
        }
        ensure!(page.next.is_none() || !page.items.is_empty(), "a page without items has a next one");
        match page.next {
            Some(next) => cursor = Some(next),
            None => return Ok(()),
        }
    }
}
