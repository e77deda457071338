//! `sign` and `trigger`: calls of the HTTP API, printed or made.

use std::io::Read;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use hyper::Method;
use md5::{Digest, Md5};
use serde_json::json;
use tidewire_protocol::http_auth::{ApiQuery, canonical_string};

use super::client::BaseUrl;
use super::credentials::{AppFlags, Credentials};
use super::{Done, Failure, print_line, runtime};

#[derive(Debug, Args)]
#[command(after_help = "\
The signature is valid for ten minutes.

Examples:
  tidewire sign POST /apps/1/events --data '{\"name\":\"my-event\",\"channel\":\"c\",\"data\":\"{}\"}'
  tidewire sign GET '/apps/1/channels?filter_by_prefix=presence-&info=user_count'
  tidewire sign GET channels                  the same for the configured app
  eval \"$(tidewire sign GET channels)\"        make the call")]
pub struct SignFlags {
    /// GET or POST
    method: String,
    /// /apps/ID/…, or what follows it; with its query
    path: String,
    /// Body: text, @FILE, or - for standard input
    #[arg(long, short, value_name = "BODY", default_value = "")]
    data: String,
    #[command(flatten)]
    app: AppFlags,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidewire trigger my-channel my-event '{\"hello\":\"world\"}'
  date | tidewire trigger my-channel tick -
  tidewire trigger orders,invoices 'App\\Events\\OrderPaid' --url http://10.0.0.5:6001")]
pub struct TriggerFlags {
    /// Channel, or several with commas
    channel: String,
    /// Name of the event
    event: String,
    /// Data of the event: text (JSON if clients expect JSON), @FILE, or - for standard input
    #[arg(default_value = "{}")]
    data: String,
    /// Socket id that is not to receive the event
    #[arg(long, value_name = "ID")]
    socket_id: Option<String>,
    #[command(flatten)]
    app: AppFlags,
}

pub fn sign(flags: &SignFlags) -> Done {
    let method = flags.method.to_ascii_uppercase();
    let (config, credentials) = flags.app.credentials(app_in_path(&flags.path))?;
    let path = absolute(&flags.path, &credentials.app_id);
    let body = read_argument(&flags.data)?;
    let target = signed_target(&method, &path, &body, &credentials, unix_seconds());
    let url = BaseUrl::find(flags.app.url.as_deref(), &config)?.http(&target);
    print_line(&curl(&method, &url, &body))
}

pub fn trigger(flags: &TriggerFlags) -> Done {
    let (config, credentials) = flags.app.credentials(None)?;
    let url = BaseUrl::find(flags.app.url.as_deref(), &config)?;
    let channels: Vec<&str> = flags.channel.split(',').map(str::trim).collect();
    let mut event = json!({ "name": flags.event, "channels": channels, "data": read_argument(&flags.data)? });
    if let Some(socket_id) = &flags.socket_id {
        event["socket_id"] = json!(socket_id);
    }
    let body = event.to_string();
    let path = format!("/apps/{}/events", credentials.app_id);
    let target = signed_target("POST", &path, &body, &credentials, unix_seconds());
    let (status, answer) = runtime()?.block_on(url.call(Method::POST, &target, Bytes::from(body)))?;
    if status.is_success() {
        return print_line(answer.trim_end());
    }
    Err(Failure::Other(anyhow::anyhow!("{} {}", status.as_u16(), answer.trim_end())))
}

/// The id of `/apps/{id}/…`.
fn app_in_path(path: &str) -> Option<&str> {
    path.strip_prefix("/apps/")?.split(['/', '?']).next().filter(|id| !id.is_empty())
}

fn absolute(path: &str, app_id: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/apps/{app_id}/{path}") }
}

/// Path and query with the parameters of 4.2 added. The canonical string is the one the server builds, so the
/// two cannot differ.
fn signed_target(method: &str, path_and_query: &str, body: &str, app: &Credentials, now: u64) -> String {
    let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
    let mut query = query.to_owned();
    let mut add = |name: &str, value: &str| {
        let separator = if query.is_empty() { "" } else { "&" };
        query.push_str(&format!("{separator}{name}={value}"));
    };
    add("auth_key", &app.key);
    add("auth_timestamp", &now.to_string());
    add("auth_version", "1.0");
    if !body.is_empty() {
        let digest = Md5::digest(body.as_bytes());
        add("body_md5", &digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    }
    let canonical = canonical_string(method, path, &ApiQuery::parse(&query));
    let signature = app.signing_key().sign_hex(&[canonical.as_bytes()]);
    format!("{path}?{query}&auth_signature={signature}")
}

fn curl(method: &str, url: &str, body: &str) -> String {
    if body.is_empty() {
        return format!("curl -X {method} {}", quoted(url));
    }
    // --data-raw: a body that starts with @ is no file name.
    let header = "-H 'Content-Type: application/json'";
    format!("curl -X {method} {} {header} --data-raw {}", quoted(url), quoted(body))
}

/// For a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Text, `@file` or `-`. A newline at the end of a file is kept: signatures cover every byte.
fn read_argument(given: &str) -> anyhow::Result<String> {
    if given == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("standard input")?;
        return Ok(text);
    }
    match given.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).with_context(|| path.to_owned()),
        None => Ok(given.to_owned()),
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_may_leave_the_app_out() {
        assert_eq!(absolute("channels?info=user_count", "42"), "/apps/42/channels?info=user_count");
        assert_eq!(absolute("/apps/7/channels", "42"), "/apps/7/channels");
        assert_eq!(app_in_path("/apps/7/channels"), Some("7"));
        assert_eq!(app_in_path("channels"), None);
    }

    #[test]
    fn quotes_survive_the_shell() {
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
