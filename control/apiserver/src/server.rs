//! The way in: TLS listeners, HTTP/1.1 and HTTP/2, and a service for callers in the same process.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{Api, Incoming, MAX_BODY};
use crate::auth::{User, authenticate};
use crate::body::{self, Body, Reply};
use crate::status::Refusal;

/// How long a client may take for its TLS handshake.
const HANDSHAKE: std::time::Duration = std::time::Duration::from_secs(10);
/// How long a client may take to send a body.
const BODY: std::time::Duration = std::time::Duration::from_secs(60);

/// Accepts connections until `stop`, then lets requests that are under way finish.
pub async fn serve(
    api: Arc<Api>,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    let acceptor = TlsAcceptor::from(tls);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (api, acceptor, stop) = (Arc::clone(&api), acceptor.clone(), stop.clone());
                tasks.spawn(connection(api, acceptor, stream, peer, stop));
            }
            Err(error) => {
                // Out of descriptors, usually: give others time to close some.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(
    api: Arc<Api>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    peer: SocketAddr,
    stop: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "a socket option was refused");
    }
    let tls = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "a TLS handshake failed"),
        Err(_elapsed) => return tracing::debug!(%peer, "a TLS handshake took too long"),
    };
    let user = tls
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first)
        .and_then(|der| authenticate::from_certificate(der));
    let service = hyper::service::service_fn(move |request| {
        let (api, user) = (Arc::clone(&api), user.clone());
        async move { Ok::<_, Infallible>(answer(&api, user, request).await) }
    });
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(1000).keep_alive_interval(Some(BODY));
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(tls), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection ended");
    }
}

/// Answers a request with any kind of body.
async fn answer<B>(api: &Arc<Api>, peer: Option<User>, mut request: Request<B>) -> Reply
where
    B: hyper::body::Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let upgrade =
        request.headers().contains_key(http::header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let (parts, raw) = request.into_parts();
    // One byte more than allowed, so that the limit itself is told by one place.
    let collected = tokio::time::timeout(BODY, Limited::new(raw, MAX_BODY + 1).collect()).await;
    let bytes = match collected {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let message = format!("Request entity too large: limit is {MAX_BODY}");
            return body::refusal(&Refusal::new(413, "RequestEntityTooLarge", message));
        }
        Ok(Err(error)) => {
            return body::refusal(&Refusal::bad_request(format!(
                "the body of the request ended early: {error}"
            )));
        }
        Err(_elapsed) => {
            return body::refusal(&Refusal::new(
                408,
                "Timeout",
                "the body of the request did not arrive in time",
            ));
        }
    };
    let incoming =
        Incoming { method: parts.method, uri: parts.uri, headers: parts.headers, body: bytes, peer, upgrade };
    api.handle(incoming).await
}

/// The API server as a service for callers in the same process, who act as one user.
#[derive(Debug, Clone)]
pub struct InProcess {
    api: Arc<Api>,
    user: User,
}

impl InProcess {
    pub(crate) fn new(api: Arc<Api>, user: User) -> Self {
        Self { api, user }
    }
}

impl<B> tower::Service<Request<B>> for InProcess
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (api, user) = (Arc::clone(&self.api), self.user.clone());
        Box::pin(async move { Ok(answer(&api, Some(user), request).await) })
    }
}
