//! Requests that a node's kubelet answers: logs are streamed, exec, attach and port-forward are handed through byte for byte.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, Request, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::api::Call;
use crate::body::{self, Body, BodyError, Reply};
use crate::object::{self, key};
use crate::query::encode;
use crate::resources::{Sub, known};
use crate::status::{Refusal, Result};
use crate::tree::{int, list, text};

/// How long a node may take to accept a connection.
const CONNECT: std::time::Duration = std::time::Duration::from_secs(5);
/// The port of a node that says none.
const KUBELET_PORT: i64 = 10_250;

/// The client side of connections to nodes.
#[derive(Clone)]
pub struct Kubelets {
    tls: tokio_rustls::TlsConnector,
}

impl std::fmt::Debug for Kubelets {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Kubelets")
    }
}

impl Kubelets {
    /// Connects with this configuration, which carries the client certificate nodes trust.
    pub fn new(tls: rustls::ClientConfig) -> Self {
        Self { tls: tokio_rustls::TlsConnector::from(Arc::new(tls)) }
    }

    /// Sends a request, whose URI is a path, to the kubelet of a Node.
    pub async fn send(&self, node: &Value, request: Request<Body>) -> Result<http::Response<Incoming>> {
        let (address, port) = address(node)?;
        let name = text(node, &["metadata", "name"]);
        let failed = |why: String| {
            Refusal::new(502, "BadGateway", format!("error dialing node {name} at {address}:{port}: {why}"))
        };
        let connect = tokio::time::timeout(CONNECT, TcpStream::connect((address, port)));
        let tcp = connect
            .await
            .map_err(|elapsed| failed(elapsed.to_string()))?
            .map_err(|error| failed(error.to_string()))?;
        let stream = self
            .tls
            .connect(ServerName::from(address), tcp)
            .await
            .map_err(|error| failed(error.to_string()))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| failed(error.to_string()))?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "connection to a node ended");
            }
        });
        sender.send_request(request).await.map_err(|error| failed(error.to_string()))
    }
}

/// The address of a Node, and the port of its kubelet.
pub fn address(node: &Value) -> Result<(IpAddr, u16)> {
    let addresses = list(node, &["status", "addresses"]);
    let internal = addresses.iter().filter(|one| text(one, &["type"]) == "InternalIP");
    let address = internal.filter_map(|one| text(one, &["address"]).parse().ok()).next();
    let name = text(node, &["metadata", "name"]);
    let address =
        address.ok_or_else(|| Refusal::unavailable(format!("node {name} has no InternalIP address")))?;
    let port = int(node, &["status", "daemonEndpoints", "kubeletEndpoint", "Port"]).unwrap_or(KUBELET_PORT);
    Ok((address, u16::try_from(port).unwrap_or_default()))
}

/// The pod of a call, its node, and the container that is meant.
struct Place {
    node: Value,
    container: String,
}

fn place(call: &Call) -> Result<Place> {
    let pod = object::decode(&*call.stored()?);
    let name = &call.target.name;
    let node = text(&pod, &["spec", "nodeName"]);
    if node.is_empty() {
        return Err(Refusal::bad_request(format!("pod {name} does not have a host assigned")));
    }
    let names: Vec<&str> = ["containers", "initContainers", "ephemeralContainers"]
        .iter()
        .flat_map(|group| list(&pod, &["spec", group]))
        .map(|container| text(container, &["name"]))
        .collect();
    let main = list(&pod, &["spec", "containers"]);
    let container = match (call.query.given("container"), main) {
        (Some(asked), _) if names.contains(&asked) => asked.to_owned(),
        (Some(asked), _) => {
            return Err(Refusal::bad_request(format!("container {asked} is not valid for pod {name}")));
        }
        (None, [only]) => text(only, &["name"]).to_owned(),
        (None, several) => {
            let default = text(&pod, &["metadata", "annotations", "kubectl.kubernetes.io/default-container"]);
            if !names.contains(&default) || default.is_empty() {
                let all: Vec<&str> = several.iter().map(|c| text(c, &["name"])).collect();
                let message = format!(
                    "a container name must be specified for pod {name}, choose one of: [{}]",
                    all.join(" ")
                );
                return Err(Refusal::bad_request(message));
            }
            default.to_owned()
        }
    };
    Ok(Place { node: node_of(call, node)?, container })
}

fn node_of(call: &Call, name: &str) -> Result<Value> {
    let row = known("", "nodes");
    let entry = call.api.objects.get(&key(row, "", name)).ok_or_else(|| Refusal::not_found(row, name))?;
    Ok(object::decode(&entry))
}

/// Streams a container's log.
pub async fn logs(call: &Call) -> Result<Reply> {
    let place = place(call)?;
    let mut parameters = Vec::new();
    for name in
        ["follow", "previous", "timestamps", "sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream"]
    {
        if let Some(value) = call.query.given(name) {
            parameters.push(format!("{name}={}", encode(value)));
        }
    }
    let Place { node, container } = place;
    let path = format!(
        "/containerLogs/{}/{}/{container}?{}",
        call.target.namespace,
        call.target.name,
        parameters.join("&")
    );
    let request = Request::get(path).header(header::HOST, "kubelet").body(body::full(""));
    let response = call.api.kubelets.send(&node, request.map_err(Refusal::internal)?).await?;
    passed(response).await
}

/// A node's plain answer, or its refusal.
async fn passed(response: http::Response<Incoming>) -> Result<Reply> {
    let code = response.status().as_u16();
    if code >= 400 {
        return Err(refused(response).await);
    }
    if response.status().is_redirection() {
        return Err(redirected(response.status()));
    }
    let media = response.headers().get(header::CONTENT_TYPE).cloned();
    let stream = response
        .into_body()
        .into_data_stream()
        .map(|chunk| chunk.map_err(|error| Box::new(error) as BodyError));
    let mut reply = body::reply(code, "text/plain", body::stream(stream));
    if let Some(media) = media {
        reply.headers_mut().insert(header::CONTENT_TYPE, media);
    }
    Ok(reply)
}

/// A kubelet has no reason to send its callers elsewhere, and it may be one that was taken over.
pub fn redirected(status: http::StatusCode) -> Refusal {
    Refusal::new(502, "InternalError", format!("the node answered with a redirect ({})", status.as_u16()))
}

async fn refused(response: http::Response<Incoming>) -> Refusal {
    let code = response.status().as_u16();
    let text = match response.into_body().collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    let reason = match code {
        400 => "BadRequest",
        401 | 403 => "Forbidden",
        404 => "NotFound",
        405 => "MethodNotAllowed",
        _ => "InternalError",
    };
    Refusal::new(code, reason, text)
}

/// The subprotocol in which newer clients carry SPDY inside a WebSocket.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// Hands an upgraded connection through to the pod's node.
pub async fn stream(call: &Call, sub: Sub) -> Result<Reply> {
    let Some(upgrade) = call.upgrade.lock().take() else {
        return Err(Refusal::bad_request("Upgrade request required"));
    };
    let place = place(call)?;
    let path = stream_path(call, sub, &place.container);
    let tunnel = sub == Sub::PortForward && offered(&call.headers).any(|one| one == TUNNEL);
    let mut request =
        Request::builder().method(call.method.clone()).uri(path).header(header::HOST, "kubelet");
    if tunnel {
        request = request
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "SPDY/3.1")
            .header("x-stream-protocol-version", "portforward.k8s.io");
    } else {
        for (name, value) in call.headers.iter().filter(|(name, _)| is_upgrade_header(name.as_str())) {
            request = request.header(name, value);
        }
    }
    let request = request.body(body::full("")).map_err(Refusal::internal)?;
    let response = call.api.kubelets.send(&place.node, request).await?;
    if response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
        return Err(refused(response).await);
    }
    let mut reply = body::reply(101, "text/plain", body::full(""));
    reply.headers_mut().clear();
    if tunnel {
        accept_tunnel(call, &mut reply)?;
    } else {
        for (name, value) in response.headers().iter().filter(|(name, _)| is_upgrade_header(name.as_str())) {
            reply.headers_mut().append(name, value.clone());
        }
    }
    let far = hyper::upgrade::on(response);
    if tunnel {
        tokio::spawn(async move {
            if let Some((near, far)) = both(upgrade, far).await {
                untunnel(near, far).await;
            }
        });
    } else {
        join(upgrade, far);
    }
    Ok(reply)
}

/// Has two connections that have left HTTP hear what the other says, until one ends.
pub fn join(near: OnUpgrade, far: OnUpgrade) {
    tokio::spawn(async move {
        if let Some((near, far)) = both(near, far).await {
            copy(near, far).await;
        }
    });
}

async fn both(near: OnUpgrade, far: OnUpgrade) -> Option<(Upgraded, Upgraded)> {
    match tokio::try_join!(near, far) {
        Ok((near, far)) => Some((TokioIo::new(near), TokioIo::new(far))),
        Err(error) => {
            tracing::debug!(%error, "an upgraded connection did not come about");
            None
        }
    }
}

fn is_upgrade_header(name: &str) -> bool {
    matches!(name, "connection" | "upgrade" | "x-stream-protocol-version")
        || name.starts_with("sec-websocket-")
}

fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all("sec-websocket-protocol").iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

fn stream_path(call: &Call, sub: Sub, container: &str) -> String {
    let (namespace, pod) = (&call.target.namespace, &call.target.name);
    let mut parameters = Vec::new();
    for (given, name) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if call.query.flag(given) {
            parameters.push(format!("{name}=1"));
        }
    }
    parameters.extend(call.query.all("command").map(|word| format!("command={}", encode(word))));
    parameters.extend(call.query.all("ports").map(|port| format!("port={}", encode(port))));
    let parameters = parameters.join("&");
    match sub {
        Sub::PortForward => format!("/portForward/{namespace}/{pod}?{parameters}"),
        Sub::Attach => format!("/attach/{namespace}/{pod}/{container}?{parameters}"),
        _ => format!("/exec/{namespace}/{pod}/{container}?{parameters}"),
    }
}

/// Answers a WebSocket handshake here, because the node's side of a tunnel is plain SPDY.
fn accept_tunnel(call: &Call, reply: &mut Reply) -> Result<()> {
    let key = call
        .headers
        .get("sec-websocket-key")
        .ok_or_else(|| Refusal::bad_request("Sec-WebSocket-Key is missing"))?;
    let accept = derive_accept_key(key.as_bytes());
    for (name, value) in [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-accept", accept.as_str()),
        ("sec-websocket-protocol", TUNNEL),
    ] {
        reply.headers_mut().insert(name, value.parse().map_err(Refusal::internal)?);
    }
    Ok(())
}

type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

async fn copy(mut near: Upgraded, mut far: Upgraded) {
    if let Err(error) = tokio::io::copy_bidirectional(&mut near, &mut far).await {
        tracing::debug!(%error, "a handed-through connection ended");
    }
}

/// Bytes read from a node at once.
const BUFFER: usize = 32 << 10;

/// Takes the SPDY bytes out of WebSocket messages, and puts the answers into messages.
async fn untunnel(near: Upgraded, far: Upgraded) {
    let (mut to_client, mut from_client) =
        WebSocketStream::from_raw_socket(near, Role::Server, None).await.split();
    let (mut from_node, mut to_node) = tokio::io::split(far);
    let upstream = async {
        while let Some(Ok(message)) = from_client.next().await {
            match message {
                Message::Binary(bytes) => to_node.write_all(&bytes).await?,
                Message::Close(_) => break,
                _ => {}
            }
        }
        to_node.shutdown().await
    };
    let downstream = async {
        let mut buffer = vec![0; BUFFER];
        loop {
            let count = from_node.read(&mut buffer).await?;
            if count == 0 {
                // The client may be gone already; there is nobody else to tell.
                drop(to_client.close().await);
                return Ok::<(), std::io::Error>(());
            }
            let message = Message::Binary(Bytes::copy_from_slice(&buffer[..count]));
            to_client.send(message).await.map_err(std::io::Error::other)?;
        }
    };
    let ended = tokio::select! { ended = upstream => ended, ended = downstream => ended };
    if let Err(error) = ended {
        tracing::debug!(%error, "a tunnelled connection ended");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_kubelets_address_comes_from_the_nodes_status() {
        let node = json!({"status": {"addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "10.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 1234}}}});
        assert_eq!(address(&node).unwrap(), ("10.0.0.1".parse().unwrap(), 1234));
        assert_eq!(address(&json!({})).unwrap_err().code, 503);
    }
}
