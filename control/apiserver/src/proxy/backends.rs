//! Connections to what is proxied to: plain, or TLS that believes any certificate, as pods have none for their addresses.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::location::Scheme;
use crate::body::Body;
use crate::status::{Refusal, Result};
use crate::tls;

/// How long a target may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(30);
/// How long a connection is kept that nobody uses.
const IDLE: Duration = Duration::from_secs(30);
/// Connections to one target that are kept.
const KEPT: usize = 4;

/// A client for all targets.
#[derive(Debug, Clone)]
pub struct Backends(Client<HttpsConnector<HttpConnector>, Body>);

impl Backends {
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new() -> std::result::Result<Self, tls::TlsError> {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls::trusting()?).https_or_http();
        let mut client = Client::builder(TokioExecutor::new());
        client.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).pool_max_idle_per_host(KEPT);
        Ok(Self(client.build(connector.enable_http1().wrap_connector(tcp))))
    }

    /// Sends a request, whose URI is a path, to an address.
    pub async fn send(
        &self,
        scheme: Scheme,
        address: SocketAddr,
        mut request: Request<Body>,
    ) -> Result<http::Response<Incoming>> {
        let uri = format!("{}://{address}{}", scheme.name(), request.uri());
        *request.uri_mut() = uri.parse().map_err(Refusal::internal)?;
        let answer = self.0.request(request).await;
        answer.map_err(|error| {
            Refusal::unavailable(format!("error trying to reach service: {}", why(&error, address)))
        })
    }
}

/// What went wrong, as Go tells it.
fn why(error: &legacy::Error, address: SocketAddr) -> String {
    let mut cause: &dyn Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    if !error.is_connect() {
        return cause.to_string();
    }
    let system = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
    let Some(code) = system else { return format!("dial tcp {address}: {cause}") };
    let said = std::io::Error::from_raw_os_error(code).to_string();
    let said = said.split(" (os error").next().unwrap_or_default().to_lowercase();
    format!("dial tcp {address}: connect: {said}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::body;
    use crate::pki::Pki;
    use crate::tls::Rotating;

    /// Answers one request on every connection with `text`.
    async fn answer(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, text: &str) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let reply = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
        stream.write_all(reply.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
    }

    async fn asked(scheme: Scheme, address: SocketAddr) -> Result<String> {
        let request = Request::get("/a").body(body::full("")).unwrap();
        let response = Backends::new().unwrap().send(scheme, address, request).await?;
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    #[tokio::test]
    async fn a_target_may_have_any_certificate_or_none() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::open(folder.path()).unwrap();
        // Of an authority and for names that nobody here knows.
        let certificate = Rotating::new(&pki.apiserver(&[]).unwrap()).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls::server(certificate, &pki.ca_pem).unwrap()));
        tokio::spawn(async move {
            answer(listener.accept().await.unwrap().0, "plain").await;
            let stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
            let shown = stream.get_ref().1.peer_certificates().is_some();
            answer(stream, if shown { "it showed a certificate" } else { "private" }).await;
        });
        assert_eq!(asked(Scheme::Http, address).await.unwrap(), "plain");
        assert_eq!(asked(Scheme::Https, address).await.unwrap(), "private");
    }

    #[tokio::test]
    async fn a_target_that_is_not_there_is_told_as_go_tells_it() {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let refusal = asked(Scheme::Http, address).await.unwrap_err();
        let message =
            format!("error trying to reach service: dial tcp {address}: connect: connection refused");
        assert_eq!((refusal.code, &*refusal.message), (503, &*message));
    }
}
