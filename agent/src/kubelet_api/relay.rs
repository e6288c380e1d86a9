//! The runtime's streaming server: its URL, an upgrade to SPDY/3.1, and the raw bytes after it.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Refusal;

/// The protocol header of Kubernetes' streams.
pub(super) const STREAM_PROTOCOL: &str = "x-stream-protocol-version";

/// Asks the streaming server behind `url` to upgrade; its answer may still be a refusal.
pub(super) async fn upgrade(url: &str, protocols: &[HeaderValue]) -> Result<Response<Incoming>, Refusal> {
    let bad = |error: &dyn std::fmt::Display| {
        Refusal::new(StatusCode::BAD_GATEWAY, format!("the runtime's streaming server {url}: {error}"))
    };
    let uri: Uri = url.parse().map_err(|error: http::uri::InvalidUri| bad(&error))?;
    let authority = uri.authority().ok_or_else(|| bad(&"the URL has no host"))?;
    let address: SocketAddr = authority.as_str().parse().map_err(|error| bad(&error))?;
    let stream = TcpStream::connect(address).await.map_err(|error| bad(&error))?;
    stream.set_nodelay(true).map_err(|error| bad(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| bad(&error))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to the runtime's streaming server ended");
        }
    });
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = Method::POST;
    *request.uri_mut() =
        uri.path_and_query().map_or_else(|| Uri::from_static("/"), |path| path.clone().into());
    let headers = request.headers_mut();
    let host = HeaderValue::from_str(authority.as_str()).map_err(|error| bad(&error))?;
    headers.insert(header::HOST, host);
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    for protocol in protocols {
        headers.append(STREAM_PROTOCOL, protocol.clone());
    }
    sender.send_request(request).await.map_err(|error| bad(&error))
}

/// Passes an upgrade through: what the client sends goes to the streaming server behind `url`, and back.
pub(super) async fn raw(request: Request<Incoming>, url: &str) -> Result<Response<super::Body>, Refusal> {
    let protocols: Vec<HeaderValue> = request.headers().get_all(STREAM_PROTOCOL).iter().cloned().collect();
    let mut upstream = upgrade(url, &protocols).await?;
    if upstream.status() != StatusCode::SWITCHING_PROTOCOLS {
        let message = format!("the runtime's streaming server answers {}", upstream.status());
        return Err(Refusal::new(StatusCode::BAD_GATEWAY, message));
    }
    let chosen = upstream.headers().get(STREAM_PROTOCOL).cloned();
    let there = hyper::upgrade::on(&mut upstream);
    tokio::spawn(async move {
        let (here, there) = tokio::join!(hyper::upgrade::on(request), there);
        let (here, there) = match (here, there) {
            (Ok(here), Ok(there)) => (here, there),
            (Err(error), _) | (_, Err(error)) => {
                tracing::debug!(%error, "an upgrade was not completed");
                return;
            }
        };
        copy(here, there).await;
    });
    Ok(switching("SPDY/3.1", chosen))
}

async fn copy(here: Upgraded, there: Upgraded) {
    let (mut here, mut there) = (TokioIo::new(here), TokioIo::new(there));
    if let Err(error) = tokio::io::copy_bidirectional(&mut here, &mut there).await {
        tracing::debug!(%error, "a stream ended");
    }
}

/// 101.
pub(super) fn switching(
    protocol: &'static str,
    stream_protocol: Option<HeaderValue>,
) -> Response<super::Body> {
    let mut response = super::text(StatusCode::SWITCHING_PROTOCOLS, Bytes::new());
    let mut headers = HeaderMap::new();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(protocol));
    if let Some(stream_protocol) = stream_protocol {
        headers.insert(STREAM_PROTOCOL, stream_protocol);
    }
    *response.headers_mut() = headers;
    response
}
