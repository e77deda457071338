//! Where a server is, taken from a URL.

use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use anyhow::{Context, Result, bail};

/// `http://host:port/prefix` (or `ws://`). Plain connections only: what TLS costs is its own question, and the
/// receiver would spend more on it than on everything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub address: SocketAddr,
    /// In front of `/app/…` and `/apps/…`, without a slash at the end.
    pub path_prefix: String,
}

impl FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").context("expected http://HOST:PORT")?;
        if !matches!(scheme, "http" | "ws") {
            bail!("{scheme}:// is not supported, use the plain port: http://HOST:PORT");
        }
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
            host.to_owned()
        } else {
            format!("{host}:80")
        };
        let address = host.to_socket_addrs().with_context(|| format!("looking up {host}"))?.next();
        let path = path.trim_matches('/');
        let path_prefix = if path.is_empty() { String::new() } else { format!("/{path}") };
        Ok(Target { address: address.with_context(|| format!("{host} has no address"))?, path_prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_an_address_and_a_prefix() {
        let target: Target = "ws://127.0.0.1:6001/ws/".parse().unwrap();
        assert_eq!(target, Target { address: "127.0.0.1:6001".parse().unwrap(), path_prefix: "/ws".into() });
        let target: Target = "http://127.0.0.1".parse().unwrap();
        assert_eq!(target, Target { address: "127.0.0.1:80".parse().unwrap(), path_prefix: String::new() });
        assert!("https://127.0.0.1".parse::<Target>().is_err());
        assert!("127.0.0.1:80".parse::<Target>().is_err());
    }
}
