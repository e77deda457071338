//! `healthcheck`: is a server up? For images that have neither a shell nor curl.

use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use hyper::Method;

use super::client::BaseUrl;
use super::{Done, Failure, load_quietly, print_line, runtime};

#[derive(Debug, Args)]
#[command(
    after_help = "Example, in a Dockerfile:\n  HEALTHCHECK CMD [\"/usr/bin/tidewire\", \"healthcheck\"]"
)]
pub struct HealthcheckFlags {
    /// The server [default: the address in the configuration]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Ask whether it takes connections (/ready) instead of whether it lives (/up)
    #[arg(long)]
    ready: bool,
    /// Configuration file
    #[arg(short, long, value_name = "PATH")]
    config: Option<PathBuf>,
}

pub fn healthcheck(flags: &HealthcheckFlags) -> Done {
    let url = match &flags.url {
        Some(url) => BaseUrl::parse(url)?,
        None => BaseUrl::find(None, &load_quietly(flags.config.as_ref())?.config)?,
    };
    let path = if flags.ready { "/ready" } else { "/up" };
    let (status, body) = runtime()?.block_on(url.call(Method::GET, path, Bytes::new()))?;
    print_line(&format!("{} {}", status.as_u16(), body.trim_end()))?;
    if status.is_success() { Ok(()) } else { Err(Failure::Silent) }
}
