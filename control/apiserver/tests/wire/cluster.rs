//! An API server in memory, or over an etcd of its own, and requests to it.

use apiserver::{Config, EtcdAccess, InProcess, Patience, Running, Storage, User, start};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tower::Service;

use crate::etcd_server::{self, Etcd};
use crate::protobuf;

/// A server that is gone with its folder.
pub struct Cluster {
    running: Running,
    folder: tempfile::TempDir,
    _etcd: Option<Etcd>,
}

/// Code, headers and body of an answer.
pub struct Answer {
    pub code: u16,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The tree, whatever its encoding.
    pub fn json(&self) -> Value {
        if self.headers.get("content-type").is_some_and(|media| media == protobuf::MEDIA) {
            return protobuf::decode(&self.body);
        }
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The tree, after checking the code.
    pub fn expect(&self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// Checks that it is what is said of a path that leads nowhere.
    pub fn no_page(&self) {
        assert_eq!((self.code, &self.body[..]), (404, &b"404 page not found\n"[..]));
        let header = |name: &str| self.headers[name].to_str().unwrap();
        assert_eq!(header("content-type"), "text/plain; charset=utf-8");
        assert_eq!(header("x-content-type-options"), "nosniff");
    }

    /// The refusal's reason, after checking that it is a Status with this code.
    pub fn refused(&self, code: u16, reason: &str) -> Value {
        let status = self.expect(code);
        assert_eq!(status["kind"], "Status", "{status}");
        assert_eq!(status["status"], "Failure", "{status}");
        assert_eq!(status["code"], code, "{status}");
        assert_eq!(status["reason"], reason, "{status}");
        assert!(status["message"].as_str().is_some_and(|message| !message.is_empty()), "{status}");
        status
    }
}

pub async fn cluster() -> Cluster {
    cluster_with(Patience::default()).await
}

pub async fn cluster_with(patience: Patience) -> Cluster {
    cluster_of(|config| config.patience = patience).await
}

/// A cluster that serves what `--runtime-config` would ask for.
pub async fn cluster_serving(runtime_config: &str) -> Cluster {
    cluster_of(|config| config.runtime_config = runtime_config.parse().unwrap()).await
}

async fn cluster_of(change: impl FnOnce(&mut Config)) -> Cluster {
    let folder = tempfile::tempdir().unwrap();
    let etcd = over_etcd().then(Etcd::start);
    let storage = etcd.as_ref().map_or(Storage::Memory, etcd_storage);
    let mut config = Config::loopback(folder.path(), storage);
    change(&mut config);
    let running = start(config).await.unwrap();
    let cluster = Cluster { running, folder, _etcd: etcd };
    // The controllers are not running: what they would have made.
    let account =
        serde_json::json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    cluster.admin().send("POST", "/api/v1/namespaces/default/serviceaccounts", &account).await.expect(201);
    cluster
}

/// Whether the servers of these tests keep their objects in etcd; `cargo xtask test` runs them both ways.
fn over_etcd() -> bool {
    std::env::var("HAWSER_TEST_STORE").is_ok_and(|store| store == "etcd") && etcd_server::available()
}

/// How a server reaches this etcd.
pub fn etcd_storage(etcd: &Etcd) -> Storage {
    let servers = etcd.options("/registry/").endpoints;
    Storage::Etcd(EtcdAccess { servers, ca_file: None, client_files: None })
}

impl Cluster {
    pub fn user(&self, name: &str, groups: &[&str]) -> Client {
        Client { service: self.running.service(User::new(name, groups)), protobuf: false }
    }

    pub fn admin(&self) -> Client {
        self.user("admin", &["system:masters"])
    }

    /// Where the server listens.
    pub fn address(&self) -> std::net::SocketAddr {
        self.running.local_addrs[0]
    }

    /// The authority of the cluster.
    pub fn pki(&self) -> apiserver::pki::Pki {
        apiserver::pki::Pki::open(self.folder.path()).unwrap()
    }
}

/// Somebody who asks.
#[derive(Clone)]
pub struct Client {
    service: InProcess,
    /// Bodies are sent in protobuf, and answers asked for in it, as Go clients do.
    protobuf: bool,
}

impl Client {
    pub fn named(running: &Running, user: &str) -> Self {
        Self { service: running.service(User::new(user, &[])), protobuf: false }
    }

    pub fn of(running: &Running) -> Self {
        Self { service: running.service(User::new("admin", &["system:masters"])), protobuf: false }
    }

    /// The same client, speaking protobuf.
    pub fn in_protobuf(&self) -> Self {
        Self { protobuf: true, ..self.clone() }
    }

    /// The media type of objects for this client.
    pub fn media(&self) -> &'static str {
        if self.protobuf { protobuf::MEDIA } else { "application/json" }
    }

    /// The same client, speaking JSON.
    pub fn in_json(&self) -> Self {
        Self { protobuf: false, ..self.clone() }
    }

    pub async fn raw(
        &self,
        method: &str,
        uri: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response<apiserver::Body> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if self.protobuf && !headers.iter().any(|(name, _)| *name == "accept") {
            request = request.header("accept", format!("{},application/json", protobuf::MEDIA));
        }
        self.call(request.body(Full::new(body.into())).unwrap()).await
    }

    /// The way in, for requests that are made elsewhere.
    pub fn service(&self) -> InProcess {
        self.service.clone()
    }

    /// Sends a request with any kind of body.
    pub async fn call<B>(&self, request: Request<B>) -> Response<apiserver::Body>
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.service.clone().call(request).await.unwrap()
    }

    pub async fn ask(
        &self,
        method: &str,
        uri: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let (parts, body) = self.raw(method, uri, headers, body).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { code: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub async fn get(&self, uri: &str) -> Answer {
        self.ask("GET", uri, &[], "").await
    }

    /// Asks until the answer has this code: for what the server does soon after it said yes.
    pub async fn until(&self, uri: &str, code: u16) {
        let asked = async {
            while self.get(uri).await.code != code {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), asked).await.expect("the code in time");
    }

    pub async fn delete(&self, uri: &str) -> Answer {
        self.ask("DELETE", uri, &[], "").await
    }

    pub async fn send(&self, method: &str, uri: &str, body: &Value) -> Answer {
        if self.protobuf {
            return self.ask(method, uri, &[("content-type", protobuf::MEDIA)], protobuf::encode(body)).await;
        }
        self.ask(method, uri, &[("content-type", "application/json")], body.to_string()).await
    }

    pub async fn patch(&self, kind: &str, uri: &str, body: &Value) -> Answer {
        let media = match kind {
            "apply" => "application/apply-patch+yaml".to_owned(),
            kind => format!("application/{kind}-patch+json"),
        };
        self.ask("PATCH", uri, &[("content-type", media.as_str())], body.to_string()).await
    }
}
