//! A small HTTP client for talking to a server of ours from the command line.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::banner::client_host;
use crate::config::Config;

/// A server that answers later than this is as good as down for a person at a shell.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where a server is: `http://host:port/prefix`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    /// Host and port as a URL has them.
    authority: String,
    /// `/ws` or nothing.
    prefix: String,
}

impl BaseUrl {
    /// What `--url` says, else the address in the configuration.
    pub fn find(given: Option<&str>, config: &Config) -> anyhow::Result<Self> {
        match given {
            Some(url) => Self::parse(url),
            None => Ok(Self::of_config(config)),
        }
    }

    pub fn parse(url: &str) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("{url:?} is not a URL"))?;
        match uri.scheme_str() {
            Some("http" | "ws") => {}
            Some("https" | "wss") => {
                bail!(
                    "this command does not speak TLS: name the server's plain address, such as http://127.0.0.1:6001"
                )
            }
            _ => bail!("expected a URL such as http://127.0.0.1:6001, got {url:?}"),
        }
        let authority = uri.authority().with_context(|| format!("{url:?} names no host"))?;
        let port = authority.port_u16().unwrap_or(80);
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(BaseUrl { authority: format!("{}:{port}", authority.host()), prefix })
    }

    fn of_config(config: &Config) -> Self {
        let first = config.server.listen.first();
        let authority = first.map(|address| format!("{}:{}", client_host(address.ip()), address.port()));
        BaseUrl { authority: authority.unwrap_or_default(), prefix: config.server.path_prefix.clone() }
    }

    /// The URL of a path and query of the server's.
    pub fn http(&self, target: &str) -> String {
        format!("http://{}{}{target}", self.authority, self.prefix)
    }

    /// A request for `target`, with everything but its body.
    pub fn request(&self, method: Method, target: &str) -> hyper::http::request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("{}{target}", self.prefix))
            .header(HOST, &self.authority)
            .header(USER_AGENT, concat!("tidewire-cli/", env!("CARGO_PKG_VERSION")))
    }

    /// Connects; the connection is driven by a task of the current runtime.
    pub async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let connecting = async {
            let stream = TcpStream::connect(&self.authority).await?;
            stream.set_nodelay(true)?;
            Ok::<_, anyhow::Error>(http1::handshake(TokioIo::new(stream)).await?)
        };
        let connected =
            tokio::time::timeout(TIMEOUT, connecting).await.map_err(anyhow::Error::from).flatten();
        let (sender, connection) = connected.with_context(|| format!("cannot reach {}", self.authority))?;
        // An error of the connection also fails the request, which tells it.
        tokio::spawn(connection.with_upgrades());
        Ok(sender)
    }

    /// One call: status and body.
    pub async fn call(
        &self,
        method: Method,
        target: &str,
        body: Bytes,
    ) -> anyhow::Result<(StatusCode, String)> {
        let mut request = self.request(method, target);
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(body))?;
        let mut sender = self.connect().await?;
        let answering = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            Ok::<_, hyper::Error>((status, String::from_utf8_lossy(&body).into_owned()))
        };
        let answer = tokio::time::timeout(TIMEOUT, answering).await.map_err(anyhow::Error::from)?;
        answer.with_context(|| format!("no answer from {}", self.authority))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_may_have_a_prefix_and_lack_a_port() {
        let url = BaseUrl::parse("http://example.com/ws/").expect("a URL");
        assert_eq!(url.http("/up"), "http://example.com:80/ws/up");
        assert_eq!(BaseUrl::parse("ws://[::1]:6001").expect("a URL").http("/up"), "http://[::1]:6001/up");
    }

    #[test]
    fn tls_and_nonsense_are_refused_with_a_hint() {
        assert!(
            BaseUrl::parse("https://example.com").expect_err("TLS").to_string().contains("plain address")
        );
        assert!(BaseUrl::parse("127.0.0.1:6001").is_err());
    }

    #[test]
    fn the_configured_address_is_the_default_and_never_the_unspecified_one() {
        let mut config = Config::for_tests(Vec::new());
        config.server.listen = vec!["0.0.0.0:6001".parse().expect("an address")];
        config.server.path_prefix = "/ws".to_owned();
        let url = BaseUrl::find(None, &config).expect("an address");
        assert_eq!(url.http("/up"), "http://127.0.0.1:6001/ws/up");
    }
}
