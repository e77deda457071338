//! Certificates: loaded at start, replaced while running, never half.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// First byte of a TLS handshake record. No HTTP method begins with it, so one port can speak both.
pub const HANDSHAKE_RECORD: u8 = 0x16;

/// TLS for the node's listeners.
pub struct Tls {
    certificate: PathBuf,
    private_key: PathBuf,
    current: Arc<Current>,
    acceptor: TlsAcceptor,
}

/// The certificate that new handshakes get.
#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Tls {
    /// Fails with the path and the reason when a file cannot be used, or the key is not the certificate's.
    pub fn load(certificate: &Path, private_key: &Path) -> anyhow::Result<Self> {
        let current = Arc::new(Current(ArcSwap::from_pointee(read(certificate, private_key)?)));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Current>::clone(&current));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            certificate: certificate.to_owned(),
            private_key: private_key.to_owned(),
            current,
            acceptor: TlsAcceptor::from(Arc::new(config)),
        })
    }

    /// Reads both files again. On an error the certificate in use stays.
    pub fn reload(&self) -> anyhow::Result<()> {
        self.current.0.store(Arc::new(read(&self.certificate, &self.private_key)?));
        Ok(())
    }

    pub async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        self.acceptor.accept(stream).await
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

fn read(certificate: &Path, private_key: &Path) -> anyhow::Result<CertifiedKey> {
    let unusable = |path: &Path| format!("cannot use {}", path.display());
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .with_context(|| unusable(certificate))?;
    if chain.is_empty() {
        bail!("{}: it holds no PEM certificate", unusable(certificate));
    }
    let key = PrivateKeyDer::from_pem_file(private_key).with_context(|| unusable(private_key))?;
    let key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
        .with_context(|| format!("{} does not fit {}", private_key.display(), certificate.display()))?;
    Ok(key)
}
