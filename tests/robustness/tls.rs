//! TLS on the server's own port: beside plain HTTP, and with a certificate that is replaced while running.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, ServerName};
use tidewire::Server;
use tidewire::config::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::common::{TestServer, demo_app};

/// A folder of its own with `cert.pem` and `key.pem` for localhost; gone with the test.
struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("tidewire-tls-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    /// Writes a fresh pair and returns the certificate.
    fn renew(&self) -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(self.certificate(), made.cert.pem()).unwrap();
        std::fs::write(self.key(), made.signing_key.serialize_pem()).unwrap();
        made.cert.der().clone()
    }

    fn certificate(&self) -> PathBuf {
        self.0.join("cert.pem")
    }

    fn key(&self) -> PathBuf {
        self.0.join("key.pem")
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn server(files: &Files) -> TestServer {
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    TestServer::with_config(|config| {
        config.apps[0].require_tls = true;
        // All that a test sends before it reads.
        config.server.outbox_bytes = 4 << 20;
        config.server.tls_certificate = path(&files.certificate());
        config.server.tls_private_key = path(&files.key());
    })
}

/// A TLS connection that trusts nothing but this certificate.
async fn connect(
    server: &TestServer,
    trusted: &CertificateDer<'static>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(server.addr()).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

/// Upgrades, and reads until `wanted` has come.
async fn read_until(stream: &mut TlsStream<TcpStream>, wanted: &str) -> String {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    let deadline = std::time::Duration::from_secs(20);
    let reading = async {
        let mut is_there = false;
        while !is_there {
            let count = stream.read(&mut buffer).await.unwrap();
            assert!(count > 0, "closed before {wanted:?}: {}", String::from_utf8_lossy(&seen));
            // It may have begun in what was read before, and no earlier than this.
            let from = seen.len().saturating_sub(wanted.len());
            seen.extend_from_slice(&buffer[..count]);
            is_there = seen[from..].windows(wanted.len()).any(|window| window == wanted.as_bytes());
        }
    };
    tokio::time::timeout(deadline, reading).await.unwrap_or_else(|_| panic!("{wanted:?} did not come"));
    String::from_utf8_lossy(&seen).into_owned()
}

const UPGRADE: &str = "GET /app/tw-demo-key?protocol=7 HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A masked text frame, with a mask of zeros.
fn text_frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    frame
}

#[tokio::test]
async fn a_client_over_tls_is_served_where_tls_is_required() {
    let files = Files::new();
    let certificate = files.renew();
    let server = server(&files);
    let mut stream = connect(&server, &certificate).await.unwrap();
    stream.write_all(UPGRADE.as_bytes()).await.unwrap();
    read_until(&mut stream, "pusher:connection_established").await;
    stream.write_all(&text_frame(r#"{"event":"pusher:subscribe","data":{"channel":"news"}}"#)).await.unwrap();
    read_until(&mut stream, "subscription_succeeded").await;
    // Larger than a TLS record and than what the kernel takes at once, from both workers.
    for round in 0..200 {
        server.rest().publish("news", "e", &format!("{round:010}").repeat(1000)).await;
    }
    read_until(&mut stream, "0000000199\"}").await;
}

#[tokio::test]
async fn s016_plain_clients_on_the_same_port_are_told_to_use_tls() {
    let files = Files::new();
    files.renew();
    let server = server(&files);
    assert_eq!(server.refusal("/app/tw-demo-key?protocol=7").await, 4000);
    // Plain HTTP is served beside it.
    server.rest().publish("news", "e", "1").await;
}

#[tokio::test]
async fn a_renewed_certificate_is_used_and_a_broken_one_is_not() {
    let files = Files::new();
    let old = files.renew();
    let server = server(&files);
    let mut early = connect(&server, &old).await.unwrap();

    std::fs::write(files.certificate(), "nonsense").unwrap();
    let error = server.inner().reload_certificate().unwrap_err();
    assert!(format!("{error:#}").contains("cert.pem"), "{error:#}");
    connect(&server, &old).await.unwrap();

    let new = files.renew();
    server.inner().reload_certificate().unwrap();
    connect(&server, &new).await.unwrap();
    assert!(connect(&server, &old).await.is_err());
    early.write_all(UPGRADE.as_bytes()).await.unwrap();
    read_until(&mut early, "pusher:connection_established").await;
}

#[test]
fn a_start_without_a_usable_certificate_names_the_file() {
    let mut config = Config::for_tests(vec![demo_app()]);
    config.server.tls_certificate = "/nonexistent/cert.pem".to_owned();
    config.server.tls_private_key = "/nonexistent/key.pem".to_owned();
    let error = format!("{:#}", Server::start(config).unwrap_err());
    assert!(error.contains("/nonexistent/cert.pem"), "{error}");
}
