//! A client of HTTP/2 over TLS that does as little as it can.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use base64::Engine;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Some connections, used in turn.
#[derive(Clone)]
pub struct Client {
    connections: Vec<SendRequest<Full<Bytes>>>,
    next: Arc<std::sync::atomic::AtomicUsize>,
}

impl Client {
    pub async fn connect(kubeconfig: &Path, port: u16, connections: usize) -> Result<Self> {
        let config = Arc::new(tls(kubeconfig)?);
        let mut made = Vec::new();
        for _ in 0..connections {
            let stream =
                TcpStream::connect(("127.0.0.1", port)).await.context("connect to the API server")?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from("127.0.0.1")?;
            let stream = TlsConnector::from(Arc::clone(&config)).connect(name, stream).await?;
            // What Go's client asks for (net/http of Go 1.24 and later).
            let (sender, connection) = Builder::new(TokioExecutor::new())
                .max_frame_size(1 << 20)
                .initial_stream_window_size(4 << 20)
                .initial_connection_window_size(1 << 30)
                .handshake(TokioIo::new(stream))
                .await?;
            // The requests on a connection that breaks say so.
            tokio::spawn(async move { drop(connection.await) });
            made.push(sender);
        }
        Ok(Self { connections: made, next: Arc::default() })
    }

    /// Starts a request; `APPLY` and `STRATEGIC` are patches of that kind, `PATCH` is a merge patch.
    pub async fn open(&self, method: &str, path: &str, body: &Value) -> Result<http::Response<Incoming>> {
        self.open_as("application/json", method, path, body).await
    }

    /// The same for an answer in another form.
    pub async fn open_as(
        &self,
        accept: &str,
        method: &str,
        path: &str,
        body: &Value,
    ) -> Result<http::Response<Incoming>> {
        let (method, media) = match method {
            "PATCH" => ("PATCH", "application/merge-patch+json"),
            "APPLY" => ("PATCH", "application/apply-patch+yaml"),
            "STRATEGIC" => ("PATCH", "application/strategic-merge-patch+json"),
            other => (other, "application/json"),
        };
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = Request::builder()
            .method(method)
            .uri(format!("https://127.0.0.1{path}"))
            .header("content-type", media)
            .header("accept", accept)
            .body(Full::new(body))?;
        let turn = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % self.connections.len();
        let mut sender = self.connections[turn].clone();
        sender.ready().await?;
        Ok(sender.send_request(request).await?)
    }

    /// Reads the answer to its end, which has to be good, and returns how many bytes it has.
    pub async fn send(&self, method: &str, path: &str, body: &Value) -> Result<usize> {
        let response = self.open(method, path, body).await?;
        let (status, mut body) = (response.status(), response.into_body());
        if !status.is_success() {
            let said = body.collect().await?.to_bytes();
            bail!("{method} {path}: {status}: {}", String::from_utf8_lossy(&said));
        }
        // What is read is not put together: that would be the load generator's work, on the server's processors.
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            length += frame?.data_ref().map_or(0, Bytes::len);
        }
        Ok(length)
    }
}

/// The administrator's credentials.
fn tls(kubeconfig: &Path) -> Result<rustls::ClientConfig> {
    let text = std::fs::read_to_string(kubeconfig).context("read the kubeconfig")?;
    let data = |name: &str| -> Result<Vec<u8>> {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix("-data: "));
        let line = line.with_context(|| format!("the kubeconfig has no {name}"))?;
        Ok(base64::engine::general_purpose::STANDARD.decode(line.trim())?)
    };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&data("certificate-authority")?) {
        roots.add(certificate?)?;
    }
    let chain = CertificateDer::pem_slice_iter(&data("client-certificate")?).collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(&data("client-key")?)?;
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// With the cipher in front that Go's client prefers.
fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}
