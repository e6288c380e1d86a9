//! The way in: TLS listeners, HTTP/1.1 and HTTP/2, and a service for callers in the same process.

use std::any::Any;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinError;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::api::{Api, Incoming, Peer};
use crate::auth::{User, authenticate};
use crate::body::{self, Body, BodyError, Reply};
use crate::congestion::Congestion;
use crate::gather::Gathered;
use crate::negotiate::{self, Media};
use crate::query::Query;
use crate::route::{self, Route};
use crate::status::Refusal;
use crate::streams::{Streams, said};
use crate::unread::Unread;

/// Accepts connections until `stop`, then lets requests that are under way finish.
pub async fn serve(
    api: Arc<Api>,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    let acceptor = TlsAcceptor::from(tls);
    let congestion = Congestion::of(&listener).inspect_err(refused).ok();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Some(congestion) = &congestion {
                    congestion.suit(&stream, peer).unwrap_or_else(|error| refused(&error));
                }
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

/// Connections work without it, if slower.
fn refused(error: &std::io::Error) {
    tracing::debug!(%error, "a socket option was refused");
}

async fn connection(
    api: Arc<Api>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    peer: SocketAddr,
    stop: CancellationToken,
) {
    stream.set_nodelay(true).unwrap_or_else(|error| refused(&error));
    let tls = match tokio::time::timeout(api.patience.handshake, acceptor.accept(stream)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => {
            api.metrics.handshakes.inc();
            return tracing::debug!(%peer, %error, "a TLS handshake failed");
        }
        Err(_elapsed) => {
            api.metrics.handshakes.inc();
            return tracing::debug!(%peer, "a TLS handshake took too long");
        }
    };
    let user = tls
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first)
        .and_then(|der| authenticate::from_certificate(der));
    let other = Peer { user, address: Some(peer.ip().to_canonical()) };
    let ended = if tls.get_ref().1.alpn_protocol() == Some(b"h2") {
        streams(api, other, tls, stop).await
    } else {
        one_by_one(api, other, tls, stop).await
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection ended");
    }
}

/// HTTP/2: many requests at once.
async fn streams(
    api: Arc<Api>,
    peer: Peer,
    tls: TlsStream<TcpStream>,
    stop: CancellationToken,
) -> Result<(), BodyError> {
    let mut streams = Streams::default();
    let mut builder = hyper::server::conn::http2::Builder::new(streams.begun());
    let silence = api.patience.silence;
    builder.timer(TokioTimer::new()).max_concurrent_streams(1000).keep_alive_interval(Some(silence));
    let (written, driver) = Gathered::pair(tls);
    let service = hyper::service::service_fn(move |request| {
        let (api, peer) = (Arc::clone(&api), peer.clone());
        // In memory of its own, which is free again while the answer streams, for an hour perhaps.
        Box::pin(async move {
            match Question::of(&api, peer, request) {
                Ok(question) => answered(question.is_quick(), question.answer()).await,
                Err(panic) => Ok(panicked(&*panic, Some(Media::Json))),
            }
        })
    });
    let connection = builder.serve_connection(TokioIo::new(written), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = driver.drive(connection.as_mut(), &mut streams) => return ended,
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    driver.drive(connection, &mut streams).await
}

/// An answer among the streams of a connection. One that is quick is given at once. One that may take long, or that has to
/// wait, is a task of its own: the connection's other streams must not wait for it, nor its connection be woken for it.
async fn answered<T: Send + 'static>(quick: bool, mut answer: BoxFuture<'static, T>) -> Result<T, JoinError> {
    if quick {
        let first = std::future::poll_fn(|context| Poll::Ready(answer.as_mut().poll(context))).await;
        if let Poll::Ready(reply) = first {
            return Ok(reply);
        }
    }
    // Polled there again, so that it wakes its own task from now on.
    AbortOnDropHandle::new(tokio::spawn(answer)).await
}

/// HTTP/1.1: one request after the other, some of which leave HTTP; and HTTP/2 of clients that did not announce it.
async fn one_by_one(
    api: Arc<Api>,
    peer: Peer,
    tls: TlsStream<TcpStream>,
    stop: CancellationToken,
) -> Result<(), BodyError> {
    let patience = api.patience;
    let service = hyper::service::service_fn(move |request| {
        let (api, peer) = (Arc::clone(&api), peer.clone());
        Box::pin(async move { Ok::<_, Infallible>(reply(&api, peer, request).await) })
    });
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(patience.head);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(1000)
        .keep_alive_interval(Some(patience.silence));
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(tls), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

async fn reply<B>(api: &Arc<Api>, peer: Peer, request: Request<B>) -> Reply
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    match Question::of(api, peer, request) {
        Ok(question) => question.answer().await,
        Err(panic) => panicked(&*panic, Some(Media::Json)),
    }
}

/// A request, and what it asks for.
struct Question {
    api: Arc<Api>,
    incoming: Incoming,
    query: Query,
    route: Route,
    /// In which a refusal is told.
    media: Option<Media>,
}

impl Question {
    /// Takes a request with any kind of body; the error is what a panic on the way left.
    fn of<B>(api: &Arc<Api>, peer: Peer, request: Request<B>) -> std::thread::Result<Self>
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        catch_unwind(AssertUnwindSafe(|| Self::read(api, peer, request)))
    }

    fn read<B>(api: &Arc<Api>, peer: Peer, mut request: Request<B>) -> Self
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        let upgrade =
            request.headers().contains_key(http::header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
        let (parts, body) = request.into_parts();
        let query = Query::of(&parts.uri);
        let route = route::parse(&parts.method, parts.uri.path(), &query);
        let media = negotiate::of_refusal(&parts.headers);
        let incoming = Incoming {
            method: parts.method,
            uri: parts.uri,
            headers: parts.headers,
            body: Unread::of(body, api.patience.body),
            peer,
            upgrade,
        };
        Self { api: Arc::clone(api), incoming, query, route, media }
    }

    /// Whether the answer is a matter of microseconds: one object as it is.
    fn is_quick(&self) -> bool {
        matches!(&self.route, Route::Resource(target) if target.verb == "get" && target.subresource.is_empty())
    }

    fn answer(self) -> BoxFuture<'static, Reply> {
        async move {
            let is_head = self.incoming.method == Method::HEAD;
            let reply = alone(self.media, self.api.handle(self.incoming, self.query, self.route)).await;
            if is_head { body::headers_only(reply) } else { reply }
        }
        .boxed()
    }
}

/// The answer; a panic on the way to it is this request's alone.
///
/// What a request holds while it is worked on (seats, turns, locks) is given back as its stack unwinds, and the store writes
/// in its own thread, so that no other request can meet something half done.
async fn alone(media: Option<Media>, answer: impl Future<Output = Reply>) -> Reply {
    AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|panic| panicked(&*panic, media))
}

fn panicked(panic: &(dyn Any + Send), media: Option<Media>) -> Reply {
    tracing::error!(said = said(panic), "a request panicked");
    let why = "the server met a fault of its own in this request; its log says more";
    body::refusal(&Refusal::internal(why), media)
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
    B::Error: Into<BodyError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let peer = Peer { user: Some(self.user.clone()), address: None };
        let api = Arc::clone(&self.api);
        Box::pin(async move { Ok(reply(&api, peer, request).await) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_answer_and_gives_back_what_the_request_held() {
        let seats = tokio::sync::Semaphore::new(1);
        let panics = async {
            let _seat = seats.acquire().await.unwrap();
            tokio::task::yield_now().await;
            panic!("as the test wants");
        };
        assert_eq!(alone(Some(Media::Json), panics).await.status(), 500);
        assert_eq!(seats.available_permits(), 1);
    }

    #[tokio::test]
    async fn only_a_quick_answer_that_does_not_wait_is_given_by_the_connection() {
        let connection = async {
            let at_once = answered(true, async { tokio::task::id() }.boxed()).await.unwrap();
            let slow = answered(false, async { tokio::task::id() }.boxed()).await.unwrap();
            let waits = async {
                let first = tokio::task::id();
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                (first, tokio::task::id())
            };
            (tokio::task::id(), at_once, slow, answered(true, waits.boxed()).await.unwrap())
        };
        let (own, at_once, slow, (began, ended)) = tokio::spawn(connection).await.unwrap();
        assert_eq!((at_once, began), (own, own));
        assert!(slow != own && ended != own && slow != ended);
    }
}
