//! Plain HTTP for probes and scrapers: a path in, a short answer out.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Connections served at once by one listener; more wait.
const CONNECTIONS: usize = 64;
/// How long a connection may last: nobody holds one of them for ever.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between attempts to listen on an address that is not there yet, or taken.
pub const RETRY: Duration = Duration::from_secs(1);

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Status code.
    pub status: StatusCode,
    /// Media type.
    pub kind: &'static str,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// Body.
    pub body: String,
}

impl Reply {
    /// A JSON document that nobody may take for anything else.
    pub fn json(status: StatusCode, body: String) -> Self {
        Self {
            status,
            kind: "application/json",
            headers: vec![("x-content-type-options", "nosniff".to_owned())],
            body,
        }
    }

    /// Words for people.
    pub fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self { status, kind: "text/plain; charset=utf-8", headers: Vec::new(), body: body.into() }
    }

    fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::builder().status(self.status).header(header::CONTENT_TYPE, self.kind);
        for (name, value) in self.headers {
            response = response.header(name, value);
        }
        response.body(Full::new(Bytes::from(self.body))).unwrap_or_else(|error| {
            tracing::error!(%error, "an answer could not be made");
            Response::new(Full::default())
        })
    }
}

/// Listens on `address` as soon as that is possible and serves until `stop`.
pub async fn run<F, A>(address: SocketAddr, what: &'static str, answer: F, stop: CancellationToken)
where
    F: Fn(String) -> A + Send + Sync + 'static,
    A: Future<Output = Reply> + Send + 'static,
{
    let tell = |error: &io::Error| {
        tracing::error!(%address, %error, what, "cannot listen, will be tried again");
    };
    if let Some(listener) = listen(address, tell, &stop).await {
        serve(listener, answer, stop).await;
    }
}

/// Listens on `address` as soon as that is possible: it may come later, or be taken for a while. The first failure is
/// told. `None` when `stop` came first.
pub async fn listen(
    address: SocketAddr,
    tell: impl FnOnce(&io::Error),
    stop: &CancellationToken,
) -> Option<TcpListener> {
    let mut tell = Some(tell);
    loop {
        match (TcpListener::bind(address).await, tell.take()) {
            (Ok(listener), _) => return Some(listener),
            (Err(error), Some(tell)) => tell(&error),
            (Err(error), None) => tracing::debug!(%address, %error, "still cannot listen"),
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = stop.cancelled() => return None,
        }
    }
}

/// Serves GET requests until `stop`.
pub async fn serve<F, A>(listener: TcpListener, answer: F, stop: CancellationToken)
where
    F: Fn(String) -> A + Send + Sync + 'static,
    A: Future<Output = Reply> + Send + 'static,
{
    let answer = Arc::new(answer);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (answer, stop) = (Arc::clone(&answer), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = connection(stream, answer) => {}
                () = tokio::time::sleep(PATIENCE) => {}
                () = stop.cancelled() => {}
            }
            drop(place);
        });
    }
}

async fn connection<F, A>(stream: TcpStream, answer: Arc<F>)
where
    F: Fn(String) -> A + Send + Sync + 'static,
    A: Future<Output = Reply> + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = Arc::clone(&answer);
        async move {
            let reply = if matches!(*request.method(), Method::GET | Method::HEAD) {
                answer(request.uri().path().to_owned()).await
            } else {
                Reply::text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n")
            };
            Ok::<_, Infallible>(reply.into_response())
        }
    });
    let served =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended");
    }
}
