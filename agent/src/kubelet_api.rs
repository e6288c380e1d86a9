//! What the API server asks of a node: logs, exec, attach, port-forward, the list of pods. TLS, clients with
//! certificates of the cluster's CA only.

mod auth;
mod logs;
mod relay;
mod route;
mod spdy;
mod stream;
mod websocket;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use self::auth::Caller;
use crate::config::Run;
use crate::pods::execute::Executor;
use crate::pods::supervisor::Registry;

/// A body that may go on for as long as a log is followed.
type Body = BoxBody<Bytes, Infallible>;

/// The kubelet API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A flag is missing.
    #[error("--{0} is needed to serve the kubelet API")]
    Flag(&'static str),
    /// A certificate or key cannot be read.
    #[error("cannot read {}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate, key and CA do not go together.
    #[error("the certificates of the kubelet API are not usable")]
    Tls(#[from] rustls::Error),
    /// The CA is not one.
    #[error("the client CA is not usable")]
    ClientCa(#[from] rustls::server::VerifierBuilderError),
    /// The address is taken.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// What requests are answered from.
#[derive(Clone)]
struct Context {
    client: kube::Client,
    executor: Executor,
    registry: Registry,
    node: String,
}

/// The server, bound to its address.
pub struct Server {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    context: Arc<Context>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl Server {
    /// Reads the certificates and takes the address.
    pub async fn bind(
        config: &Run,
        client: kube::Client,
        executor: Executor,
        registry: Registry,
    ) -> Result<Self, ServeError> {
        let needed = |file: &Option<PathBuf>, flag| file.clone().ok_or(ServeError::Flag(flag));
        let tls = tls(
            &needed(&config.kubelet_cert, "kubelet-cert")?,
            &needed(&config.kubelet_key, "kubelet-key")?,
            &needed(&config.client_ca, "client-ca")?,
        )?;
        let address = config.kubelet_address;
        let listener =
            TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })?;
        let node = config.node_name.clone();
        Ok(Self {
            listener,
            acceptor: TlsAcceptor::from(Arc::new(tls)),
            context: Arc::new(Context { client, executor, registry, node }),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let serving = serve(stream, self.acceptor.clone(), Arc::clone(&self.context));
                    let stop = stop.clone();
                    tokio::spawn(async move {
                        tokio::select! {
                            result = serving => if let Err(error) = result {
                                tracing::debug!(%peer, %error, "a connection to the kubelet API ended");
                            },
                            () = stop.cancelled() => {}
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection to the kubelet API was not accepted");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }
}

fn tls(cert: &Path, key: &Path, client_ca: &Path) -> Result<rustls::ServerConfig, ServeError> {
    let pem = |path: &Path| {
        let path = path.to_owned();
        move |source| ServeError::Pem { path, source }
    };
    let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, ServeError> {
        CertificateDer::pem_file_iter(path).map_err(pem(path))?.collect::<Result<_, _>>().map_err(pem(path))
    };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates(client_ca)? {
        roots.add(certificate)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()?;
    let key_der = PrivateKeyDer::from_pem_file(key).map_err(pem(key))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(cert)?, key_der)?;
    // Upgrades need HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

async fn serve(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    context: Arc<Context>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    let caller = Caller::of(stream.get_ref().1.peer_certificates());
    let service = service_fn(move |request: Request<Incoming>| {
        let (context, caller) = (Arc::clone(&context), caller.clone());
        async move { Ok::<_, Infallible>(answer(&context, caller.as_ref(), request).await) }
    });
    hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await?;
    Ok(())
}

async fn answer(
    context: &Arc<Context>,
    caller: Option<&Caller>,
    request: Request<Incoming>,
) -> Response<Body> {
    let asked = match route::parse(request.method(), request.uri()) {
        Ok(asked) => asked,
        Err(refusal) => return refusal.into_response(),
    };
    let Some(caller) = caller else {
        return Refusal::new(StatusCode::UNAUTHORIZED, "a client certificate is needed").into_response();
    };
    match auth::permits(context, caller, request.method(), &asked).await {
        Ok(true) => {}
        Ok(false) => {
            let message =
                format!("{} may not use {} of node {}", caller.user, asked.subresource(), context.node);
            return Refusal::new(StatusCode::FORBIDDEN, message).into_response();
        }
        Err(error) => {
            let message = format!("the API server cannot be asked what {} may do: {error}", caller.user);
            return Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, message).into_response();
        }
    }
    let done = match asked {
        route::Asked::Healthz => Ok(text(StatusCode::OK, "ok")),
        route::Asked::Pods => Ok(pods(context)),
        route::Asked::Logs(asked) => logs::serve(context, &asked).await,
        route::Asked::Exec(asked) => stream::exec(context, asked, request).await,
        route::Asked::Attach(asked) => stream::attach(context, asked, request).await,
        route::Asked::PortForward(asked) => stream::port_forward(context, &asked, request).await,
    };
    done.unwrap_or_else(Refusal::into_response)
}

fn pods(context: &Context) -> Response<Body> {
    let pods = context.registry.pods();
    let items: Vec<&k8s_openapi::api::core::v1::Pod> = pods.iter().map(AsRef::as_ref).collect();
    let list = serde_json::json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items });
    let mut response = text(StatusCode::OK, list.to_string());
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

/// A request that is not served, and why.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    message: String,
}

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    fn into_response(self) -> Response<Body> {
        text(self.status, self.message)
    }
}

impl From<crate::pods::cri::CriError> for Refusal {
    fn from(error: crate::pods::cri::CriError) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(text.into()).boxed());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
