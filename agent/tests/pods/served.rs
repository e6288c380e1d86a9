//! The kubelet API over TLS: logs, exec, the list of pods, and who is turned away.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agent::config::{Cli, Command, Run};
use agent::kubelet_api::Server;
use agent::pods::supervisor::{Registry, Supervisor};
use bytes::Bytes;
use clap::Parser;
use futures::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1 as core;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_util::sync::CancellationToken;

use crate::notes::Notes;
use crate::runtime::{Runtime, container};

/// A CA with a server's certificate on disk and clients at will.
struct Pki {
    issuer: Issuer<'static, KeyPair>,
    ca: CertificateDer<'static>,
}

impl Pki {
    fn new(folder: &Path) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(folder.join("ca.crt"), certificate.pem()).unwrap();
        let pki = Self { ca: certificate.der().clone(), issuer: Issuer::new(params, key) };
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &pki.issuer).unwrap();
        std::fs::write(folder.join("kubelet.crt"), certificate.pem()).unwrap();
        std::fs::write(folder.join("kubelet.key"), key.serialize_pem()).unwrap();
        pki
    }

    fn client(&self, user: &str, group: &str) -> rustls::ClientConfig {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, user);
        params.distinguished_name.push(DnType::OrganizationName, group);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        self.builder().with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
    }

    fn nobody(&self) -> rustls::ClientConfig {
        self.builder().with_no_client_auth()
    }

    fn builder(&self) -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.ca.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider);
        builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots)
    }
}

struct Client {
    port: u16,
    config: Arc<rustls::ClientConfig>,
}

impl Client {
    async fn connect(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let name = ServerName::try_from("127.0.0.1").unwrap();
        TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await
    }

    async fn get(&self, path: &str) -> Result<(u16, String), Box<dyn std::error::Error>> {
        let stream = TokioIo::new(self.connect().await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
        tokio::spawn(connection);
        let request = http::Request::get(path).header("host", "node").body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    /// Everything each channel said, for a command that is given `input` and then its end.
    async fn exec(&self, query: &str, input: &[u8]) -> [Vec<u8>; 4] {
        let uri = format!("wss://127.0.0.1:{}/exec/default/talks/main?{query}", self.port);
        let mut request = uri.into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", "v5.channel.k8s.io".parse().unwrap());
        let stream = self.connect().await.unwrap();
        let (socket, response) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], "v5.channel.k8s.io");
        let (mut to, mut from) = socket.split();
        let speak = async {
            if query.contains("input=1") {
                for chunk in input.chunks(32 << 10) {
                    to.send(Message::Binary([&[0], chunk].concat().into())).await.unwrap();
                }
                to.send(Message::Binary(vec![255, 0].into())).await.unwrap();
            }
        };
        let listen = async {
            let mut said = [const { Vec::new() }; 4];
            while let Some(message) = from.next().await {
                match message.unwrap() {
                    Message::Binary(bytes) => said[usize::from(bytes[0])].extend_from_slice(&bytes[1..]),
                    Message::Close(frame) => {
                        assert_eq!(u16::from(frame.unwrap().code), 1000);
                        break;
                    }
                    _ => {}
                }
            }
            said
        };
        let ((), said) = tokio::join!(speak, listen);
        said
    }
}

fn config(folder: &Path) -> Run {
    let file = |name: &str| folder.join(name).display().to_string();
    let line = [
        "hawser-agent",
        "run",
        "--node-name",
        "node",
        "--kubeconfig",
        "none",
        "--node-ip",
        "127.0.0.1",
        "--kubelet-address",
        "127.0.0.1:0",
        "--kubelet-cert",
        &file("kubelet.crt"),
        "--kubelet-key",
        &file("kubelet.key"),
        "--client-ca",
        &file("ca.crt"),
    ];
    let Command::Run(run) = Cli::parse_from(line).command else { panic!("not run") };
    *run
}

fn talker() -> core::Pod {
    let script = "echo first; sleep 0.3; echo second >&2; sleep 0.3; echo third; trap 'exit 0' TERM; sleep 1000 & wait";
    serde_json::from_value(json!({
        "metadata": { "name": "talks", "namespace": "default", "uid": "uid-talks" },
        "spec": {
            "hostNetwork": true, "nodeName": "node", "enableServiceLinks": false,
            "containers": [container("main", script)],
        },
    }))
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_with_a_certificate_are_served_and_nobody_else() {
    let Some(runtime) = Runtime::start("served") else { return };
    let notes = Notes::default();
    notes.know(&talker());
    let pki = Pki::new(runtime.folder.path());
    let executor = runtime.executor(&notes);
    let registry = Registry::default();
    let stop = CancellationToken::new();
    let run = config(runtime.folder.path());
    let server = Server::bind(&run, notes.client(), executor.clone(), registry.clone()).await.unwrap();
    let port = server.address().unwrap().port();
    tokio::spawn(server.run(stop.clone()));
    let supervisor = tokio::spawn(Supervisor::new(executor, registry, stop.clone()).run());
    let client = |config| Client { port, config: Arc::new(config) };

    assert!(client(pki.nobody()).get("/pods").await.is_err(), "a client without a certificate got an answer");
    let (status, why) = client(pki.client("mallory", "nobodies")).get("/pods").await.unwrap();
    assert_eq!(status, 403, "{why}");

    let api_server = client(pki.client("kube-apiserver-kubelet-client", "system:masters"));
    let (status, list) = api_server.get("/pods").await.unwrap();
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!((status, &list["kind"]), (200, &json!("PodList")));
    logs_are_read(&api_server).await;
    commands_are_run(&api_server).await;
    stop.cancel();
    supervisor.await.unwrap();
}

async fn logs_are_read(client: &Client) {
    let logs = "/containerLogs/default/talks/main";
    let mut text = String::new();
    for _ in 0..100 {
        text = client.get(logs).await.unwrap().1;
        if text.lines().count() == 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(text, "first\nsecond\nthird\n");
    assert_eq!(client.get(&format!("{logs}?tailLines=1")).await.unwrap().1, "third\n");
    assert_eq!(client.get(&format!("{logs}?limitBytes=8")).await.unwrap().1, "first\nse");
    let stamped = client.get(&format!("{logs}?timestamps=true&tailLines=1")).await.unwrap().1;
    assert!(stamped.starts_with("20") && stamped.ends_with("Z third\n"), "{stamped}");
    assert_eq!(client.get(&format!("{logs}?previous=true")).await.unwrap().0, 400);
    assert_eq!(client.get("/containerLogs/default/absent/main").await.unwrap().0, 404);
    assert_eq!(client.get(&format!("{logs}?tailLines=many")).await.unwrap().0, 400);
}

async fn commands_are_run(client: &Client) {
    let command = "command=sh&command=-c&command=echo+out%3B+echo+err+%3E%262%3B+exit+7";
    let [_, out, err, end] = client.exec(&format!("{command}&output=1&error=1"), b"").await;
    assert_eq!((out.as_slice(), err.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    let end: Value = serde_json::from_slice(&end).unwrap();
    assert_eq!((&end["status"], &end["reason"]), (&json!("Failure"), &json!("NonZeroExitCode")));
    assert_eq!(end["details"]["causes"][0]["message"], "7");
    let input = vec![b'x'; 3_000_000];
    let [_, out, _, end] = client.exec("command=cat&input=1&output=1", &input).await;
    assert_eq!(out.len(), input.len());
    let end: Value = serde_json::from_slice(&end).unwrap();
    assert_eq!(end["status"], "Success");
    let [_, out, ..] = client.exec("command=tty&output=1&tty=1", b"").await;
    assert!(out.starts_with(b"/dev/pts/"), "{out:?}");
    let (status, why) = client.get("/exec/default/talks/main?command=true&output=1").await.unwrap();
    assert_eq!((status, why.as_str()), (400, "an upgrade to WebSocket or SPDY/3.1 is needed"));
}
