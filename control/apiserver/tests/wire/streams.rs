//! Over TLS: client certificates and tokens, and what is handed through to a node that is played here.

use std::sync::Arc;

use apiserver::pki::Pair;
use futures::{SinkExt, StreamExt};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::cluster::{Cluster, cluster};
use crate::objects::pod;
use crate::proxies;

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn identity(pair: &Pair) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain =
        CertificateDer::pem_slice_iter(pair.certificate.as_bytes()).collect::<Result<_, _>>().unwrap();
    (chain, PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap())
}

fn roots(ca_pem: &str) -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
    roots
}

/// A connection of somebody with this certificate, or of nobody.
pub async fn connect(cluster: &Cluster, pair: Option<&Pair>) -> TlsStream<TcpStream> {
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(&cluster.pki().ca_pem));
    let config = match pair {
        Some(pair) => {
            let (chain, key) = identity(pair);
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    let tcp = TcpStream::connect(cluster.address()).await.unwrap();
    let name = ServerName::from(cluster.address().ip());
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap()
}

pub async fn admin(cluster: &Cluster) -> TlsStream<TcpStream> {
    connect(cluster, Some(&cluster.pki().client("admin", "system:masters").unwrap())).await
}

/// Sends a request without a body and returns the head of the answer.
pub async fn ask<S: AsyncReadExt + AsyncWriteExt + Unpin>(
    stream: &mut BufReader<S>,
    request: &str,
) -> String {
    stream.get_mut().write_all(request.as_bytes()).await.unwrap();
    head(stream).await
}

async fn head<S: AsyncReadExt + Unpin>(stream: &mut BufReader<S>) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(stream.read_line(&mut head).await.unwrap(), 0, "the connection ended: {head}");
    }
    head
}

/// A kubelet that answers logs with text and echoes everything on upgraded connections.
async fn kubelet(cluster: &Cluster) -> u16 {
    let pair =
        cluster.pki().serving("system:node:n1", &[], &["n1"], &["127.0.0.1".parse().unwrap()]).unwrap();
    let (chain, key) = identity(&pair);
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots(&cluster.pki().ca_pem)),
        provider(),
    );
    let config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut stream = BufReader::new(acceptor.accept(stream).await.unwrap());
                let head = head(&mut stream).await;
                play(&mut stream, &head).await;
            });
        }
    });
    port
}

async fn play<S: AsyncReadExt + AsyncWriteExt + Unpin>(stream: &mut BufReader<S>, head: &str) {
    let first = head.lines().next().unwrap();
    if first.contains(" /echo") {
        return proxies::echo(stream, head).await;
    }
    if first.contains(" /page") {
        return stream.get_mut().write_all(proxies::PAGE.as_bytes()).await.unwrap();
    }
    if first.contains("tailLines=302") {
        let reply =
            "HTTP/1.1 302 Found\r\nlocation: https://127.0.0.1:1/secrets\r\ncontent-length: 0\r\n\r\n";
        return stream.get_mut().write_all(reply.as_bytes()).await.unwrap();
    }
    if first.contains("/containerLogs/") {
        let reply = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{first}",
            first.len()
        );
        return stream.get_mut().write_all(reply.as_bytes()).await.unwrap();
    }
    if first.contains("/attach/") {
        let reply = "HTTP/1.1 404 Not Found\r\ncontent-length: 7\r\n\r\nno such";
        return stream.get_mut().write_all(reply.as_bytes()).await.unwrap();
    }
    let protocol =
        if head.to_ascii_lowercase().contains("upgrade: spdy/3.1") { "SPDY/3.1" } else { "websocket" };
    let reply = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: {protocol}\r\n\r\n{first}\n"
    );
    stream.get_mut().write_all(reply.as_bytes()).await.unwrap();
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        stream.get_mut().write_all(&buffer[..count]).await.unwrap();
    }
}

/// A cluster with a node that plays along and a pod on it.
pub async fn with_pod() -> Cluster {
    let cluster = cluster().await;
    let port = kubelet(&cluster).await;
    let client = cluster.admin();
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    client.send("POST", "/api/v1/nodes", &node).await.expect(201);
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    client.patch("merge", "/api/v1/nodes/n1/status", &status).await.expect(200);
    let mut object = pod("p", json!({}));
    object["spec"]["nodeName"] = json!("n1");
    client.send("POST", "/api/v1/namespaces/default/pods", &object).await.expect(201);
    cluster
}

const POD: &str = "/api/v1/namespaces/default/pods/p";

#[tokio::test]
async fn a_certificate_a_token_and_nobody_are_told_apart() {
    let cluster = cluster().await;
    let path = "/api/v1/namespaces/default/pods";
    let get = |extra: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\n{extra}\r\n");
    let mut stream = BufReader::new(admin(&cluster).await);
    assert!(ask(&mut stream, &get("")).await.starts_with("HTTP/1.1 200"));
    let mut nobody = BufReader::new(connect(&cluster, None).await);
    assert!(ask(&mut nobody, &get("")).await.starts_with("HTTP/1.1 403"));
    let mut wrong = BufReader::new(connect(&cluster, None).await);
    assert!(ask(&mut wrong, &get("authorization: Bearer nonsense\r\n")).await.starts_with("HTTP/1.1 401"));
    let metrics = cluster.admin().get("/metrics").await;
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    assert!(metrics.contains("authentication_attempts_total{result=\"failure\"} 1\n"), "{metrics}");
    let mut health = BufReader::new(connect(&cluster, None).await);
    assert!(ask(&mut health, "GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n").await.starts_with("HTTP/1.1 200"));

    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let uri = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let token = cluster.admin().send("POST", uri, &request).await.expect(201)["status"]["token"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut account = BufReader::new(connect(&cluster, None).await);
    let refused = ask(&mut account, &get(&format!("authorization: Bearer {token}\r\n"))).await;
    assert!(refused.starts_with("HTTP/1.1 403"), "a good token without rights: {refused}");
}

#[tokio::test]
async fn logs_are_handed_through() {
    let cluster = with_pod().await;
    let answer = cluster.admin().get(&format!("{POD}/log?tailLines=5&follow=true")).await;
    assert_eq!(answer.code, 200);
    let asked = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(asked.starts_with("GET /containerLogs/default/p/c?follow=true&tailLines=5 "), "{asked}");
    cluster.admin().get(&format!("{POD}/log?container=none")).await.refused(400, "BadRequest");
}

#[tokio::test]
async fn a_node_sends_nobody_elsewhere() {
    let cluster = with_pod().await;
    let answer = cluster.admin().get(&format!("{POD}/log?tailLines=302")).await;
    answer.refused(502, "InternalError");
    assert!(!answer.headers.contains_key("location"));
}

#[tokio::test]
async fn an_upgraded_connection_is_handed_through_byte_for_byte() {
    let cluster = with_pod().await;
    let mut stream = BufReader::new(admin(&cluster).await);
    let request = format!(
        "GET {POD}/exec?command=echo&command=a%20b&stdin=true&stdout=true&tty=true HTTP/1.1\r\nhost: x\r\n\
         connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: eA==\r\n\r\n"
    );
    let answer = ask(&mut stream, &request).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    let mut asked = String::new();
    stream.read_line(&mut asked).await.unwrap();
    assert!(
        asked.starts_with("GET /exec/default/p/c?input=1&output=1&tty=1&command=echo&command=a%20b "),
        "{asked}"
    );
    stream.get_mut().write_all(b"\x00\xff bytes\n").await.unwrap();
    let mut echoed = [0; 9];
    stream.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"\x00\xff bytes\n");

    let mut refused = BufReader::new(admin(&cluster).await);
    let request =
        format!("GET {POD}/attach HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n");
    assert!(ask(&mut refused, &request).await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn a_port_forward_leaves_its_tunnel_before_the_node() {
    let cluster = with_pod().await;
    let stream = admin(&cluster).await;
    let mut request =
        format!("wss://{}{POD}/portforward?ports=80", cluster.address()).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "SPDY/3.1+portforward.k8s.io".parse().unwrap());
    let (mut socket, response) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "SPDY/3.1+portforward.k8s.io");
    let first = socket.next().await.unwrap().unwrap().into_data();
    assert!(first.starts_with(b"GET /portForward/default/p?port=80 "), "{first:?}");
    socket.send(Message::Binary(b"ping".to_vec().into())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().into_data().as_ref(), b"ping");
}
