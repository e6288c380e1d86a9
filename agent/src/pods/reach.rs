//! Reaching into pods for probes and hooks: HTTP, TCP and gRPC to the pod's address, commands through the runtime.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;

use super::cri::Cri;

/// What is shown of an answer.
const SHOWN: usize = 512;

/// The target did not answer as it should; the sentence goes into the event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreached(pub String);

/// A container that is reached into.
#[derive(Debug, Clone)]
pub struct Target {
    /// The runtime.
    pub cri: Cri,
    /// The container.
    pub id: String,
    /// Its definition, for named ports.
    pub container: Arc<core::Container>,
    /// The pod's address.
    pub address: IpAddr,
}

impl Target {
    /// GET; everything from 200 to 399 is good.
    pub async fn http(&self, action: &core::HTTPGetAction) -> Result<(), Unreached> {
        let port = self.port(&action.port)?;
        let host = self.host(action.host.as_deref())?;
        let authority = SocketAddr::new(host, port);
        let path = action.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let mut request = http::Request::get(&path).header(http::header::USER_AGENT, "kube-probe/1.36");
        let mut named = false;
        for header in action.http_headers.iter().flatten() {
            named |= header.name.eq_ignore_ascii_case("host");
            request = request.header(&header.name, &header.value);
        }
        if !named {
            request = request.header(http::header::HOST, authority.to_string());
        }
        let request = request
            .body(Empty::<bytes::Bytes>::new())
            .map_err(|error| Unreached(format!("the request cannot be made: {error}")))?;
        let failed = |error: &dyn std::fmt::Display| Unreached(format!("Get \"{authority}{path}\": {error}"));
        let stream = TcpStream::connect(authority).await.map_err(|error| failed(&error))?;
        let response = if action.scheme.as_deref() == Some("HTTPS") {
            let stream = super::tls::connect(stream, host).await.map_err(|error| failed(&error))?;
            send(TokioIo::new(stream), request).await
        } else {
            send(TokioIo::new(stream), request).await
        };
        let (status, body) = response.map_err(|error| failed(&error))?;
        if status.is_success() || status.is_redirection() {
            Ok(())
        } else {
            Err(Unreached(
                format!("HTTP probe failed with statuscode: {} {body}", status.as_u16())
                    .trim_end()
                    .to_owned(),
            ))
        }
    }

    /// Connect.
    pub async fn tcp(&self, action: &core::TCPSocketAction) -> Result<(), Unreached> {
        let address = SocketAddr::new(self.host(action.host.as_deref())?, self.port(&action.port)?);
        match TcpStream::connect(address).await {
            Ok(_) => Ok(()),
            Err(error) => Err(Unreached(format!("dial tcp {address}: {error}"))),
        }
    }

    /// Run; zero is good.
    pub async fn exec(&self, action: &core::ExecAction, limit: Duration) -> Result<(), Unreached> {
        let command = action.command.clone().unwrap_or_default();
        let executed = self.cri.exec_sync(&self.id, command, limit).await;
        let executed = executed.map_err(|error| Unreached(error.to_string()))?;
        if executed.exit_code == 0 {
            return Ok(());
        }
        let shown = &executed.output[..executed.output.len().min(SHOWN)];
        let text = String::from_utf8_lossy(shown).trim().to_owned();
        Err(Unreached(if text.is_empty() { format!("exit code {}", executed.exit_code) } else { text }))
    }

    /// `grpc.health.v1.Health/Check`; SERVING is good.
    pub async fn grpc(&self, action: &core::GRPCAction) -> Result<(), Unreached> {
        let port = u16::try_from(action.port).map_err(|error| Unreached(error.to_string()))?;
        let address = SocketAddr::new(self.address, port);
        let failed = |error: &dyn std::fmt::Display| Unreached(format!("grpc {address}: {error}"));
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| failed(&error))?
            .connect()
            .await
            .map_err(|error| failed(&error))?;
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.map_err(|error| failed(&error))?;
        let request = HealthCheckRequest { service: action.service.clone().unwrap_or_default() };
        let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
        let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
        let response = client.unary(tonic::Request::new(request), path, codec).await;
        let status = response.map_err(|error| failed(&error.message()))?.into_inner().status;
        if status == SERVING {
            Ok(())
        } else {
            Err(Unreached(format!("service unhealthy (responded with {status})")))
        }
    }

    fn host(&self, asked: Option<&str>) -> Result<IpAddr, Unreached> {
        match asked.filter(|host| !host.is_empty()) {
            None => Ok(self.address),
            Some("localhost") => Ok(IpAddr::from([127, 0, 0, 1])),
            Some(host) => host.parse().map_err(|error| Unreached(format!("{host:?}: {error}"))),
        }
    }

    fn port(&self, port: &IntOrString) -> Result<u16, Unreached> {
        let number = match port {
            IntOrString::Int(number) => Some(*number),
            IntOrString::String(name) => {
                let mut ports = self.container.ports.iter().flatten();
                let named = ports.find(|port| port.name.as_ref() == Some(name));
                named.map(|port| port.container_port).or_else(|| name.parse().ok())
            }
        };
        number
            .and_then(|number| u16::try_from(number).ok())
            .filter(|number| *number > 0)
            .ok_or_else(|| Unreached(format!("the container has no port {port:?}")))
    }
}

/// `grpc.health.v1`, the two messages it is made of.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;

async fn send<S>(
    stream: S,
    request: http::Request<Empty<bytes::Bytes>>,
) -> hyper::Result<(http::StatusCode, String)>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status();
    let mut body = response.into_body();
    let mut shown = Vec::new();
    while shown.len() < SHOWN
        && let Some(Ok(frame)) = body.frame().await
    {
        shown.extend(frame.into_data().unwrap_or_default());
    }
    driver.abort();
    shown.truncate(SHOWN);
    Ok((status, String::from_utf8_lossy(&shown).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers everything with `status` and keeps what it was asked.
    async fn server(status: &'static str) -> (i32, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4096];
            let length = stream.read(&mut asked).await.unwrap();
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 4\r\n\r\nbody");
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&asked[..length]).into_owned()
        });
        (i32::from(port), task)
    }

    fn target(port: i32) -> Target {
        let named =
            core::ContainerPort { container_port: port, name: Some("web".into()), ..Default::default() };
        Target {
            cri: Cri::connect("unix:///nowhere").unwrap(),
            id: String::new(),
            container: Arc::new(core::Container { ports: Some(vec![named]), ..Default::default() }),
            address: IpAddr::from([127, 0, 0, 1]),
        }
    }

    fn action(port: IntOrString) -> core::HTTPGetAction {
        let header = core::HTTPHeader { name: "X-Own".into(), value: "1".into() };
        core::HTTPGetAction {
            path: Some("health?full=1".into()),
            port,
            http_headers: Some(vec![header]),
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn http_is_good_from_200_to_399() {
        for (status, good) in
            [("200 OK", true), ("302 Found", true), ("404 Not Found", false), ("500 No", false)]
        {
            let (port, asked) = server(status).await;
            let result = target(port).http(&action(IntOrString::String("web".into()))).await;
            assert_eq!(result.is_ok(), good, "{status}: {result:?}");
            let asked = asked.await.unwrap().to_lowercase();
            assert!(asked.starts_with("get /health?full=1 http/1.1"), "{asked}");
            assert!(asked.contains("x-own: 1") && asked.contains("user-agent: kube-probe/"), "{asked}");
        }
    }

    /// A gRPC service that says the same of everybody's health.
    #[derive(Clone)]
    struct Health(i32);

    impl tonic::server::NamedService for Health {
        const NAME: &'static str = "grpc.health.v1.Health";
    }

    impl tower::Service<http::Request<tonic::body::Body>> for Health {
        type Response = http::Response<tonic::body::Body>;
        type Error = std::convert::Infallible;
        type Future = futures::future::BoxFuture<'static, Result<Self::Response, Self::Error>>;

        fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
            std::task::Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
            let status = self.0;
            Box::pin(async move {
                let codec = tonic_prost::ProstCodec::<HealthCheckResponse, HealthCheckRequest>::default();
                let answer = tower::service_fn(move |asked: tonic::Request<HealthCheckRequest>| async move {
                    assert_eq!(asked.into_inner().service, "own");
                    Ok::<_, tonic::Status>(tonic::Response::new(HealthCheckResponse { status }))
                });
                Ok(tonic::server::Grpc::new(codec).unary(answer, request).await)
            })
        }
    }

    #[tokio::test]
    async fn grpc_is_good_when_it_serves() {
        for (status, good) in [(SERVING, true), (2, false)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = i32::from(listener.local_addr().unwrap().port());
            let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
            let server = tonic::transport::Server::builder().add_service(Health(status));
            let serving = tokio::spawn(server.serve_with_incoming(incoming));
            let result = target(port).grpc(&core::GRPCAction { port, service: Some("own".into()) }).await;
            assert_eq!(result.is_ok(), good, "{result:?}");
            serving.abort();
        }
    }

    #[tokio::test]
    async fn what_is_not_there_is_said() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = i32::from(listener.local_addr().unwrap().port());
        let socket = core::TCPSocketAction { port: IntOrString::Int(port), host: None };
        assert_eq!(target(port).tcp(&socket).await, Ok(()));
        drop(listener);
        let refused = target(port).tcp(&socket).await.unwrap_err().to_string();
        assert!(refused.contains("refused"), "{refused}");
        let nameless = target(port).http(&action(IntOrString::String("db".into()))).await.unwrap_err();
        assert!(nameless.to_string().contains("no port"), "{nameless}");
        let grpc = core::GRPCAction { port, service: None };
        assert!(target(port).grpc(&grpc).await.is_err());
    }
}
