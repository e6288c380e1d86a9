//! An API server that takes notes: it answers what a pod's worker asks and remembers what it is told.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use k8s_openapi::api::core::v1 as core;
use kube::client::Body;
use serde_json::{Value, json};

type Answer = BoxBody<Bytes, Infallible>;

/// The notes; clones share them.
#[derive(Clone, Default)]
pub struct Notes(Arc<Mutex<Taken>>);

#[derive(Default)]
struct Taken {
    objects: BTreeMap<String, Value>,
    pods: BTreeMap<String, Value>,
    writes: BTreeMap<String, usize>,
    events: Vec<Value>,
    deleted: Vec<String>,
}

impl Notes {
    /// A client that talks to the notes.
    pub fn client(&self) -> kube::Client {
        let notes = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let notes = notes.clone();
            async move { Ok::<_, Infallible>(notes.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    /// Makes an object readable.
    pub fn put(&self, plural: &str, name: &str, mut object: Value) {
        object["metadata"] = json!({ "name": name, "namespace": "default" });
        self.0.lock().unwrap().objects.insert(format!("{plural}/{name}"), object);
    }

    /// Makes a pod known.
    pub fn know(&self, pod: &core::Pod) {
        let name = pod.metadata.name.clone().unwrap();
        self.0.lock().unwrap().pods.insert(name, serde_json::to_value(pod).unwrap());
    }

    /// A pod's status as last told.
    pub fn status(&self, name: &str) -> Value {
        self.0.lock().unwrap().pods.get(name).map_or(Value::Null, |pod| pod["status"].clone())
    }

    /// How often a pod's status was told.
    pub fn writes(&self, name: &str) -> usize {
        self.0.lock().unwrap().writes.get(name).copied().unwrap_or(0)
    }

    /// All events.
    pub fn events(&self) -> Vec<Value> {
        self.0.lock().unwrap().events.clone()
    }

    /// Pods that were let go.
    pub fn deleted(&self) -> Vec<String> {
        self.0.lock().unwrap().deleted.clone()
    }

    async fn answer(&self, request: Request<Body>) -> Response<Answer> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let classes = parts.uri.path().strip_prefix("/apis/node.k8s.io/v1/");
        let path: Vec<&str> = match classes {
            Some(path) => path.split('/').collect(),
            None => parts.uri.path().split('/').skip(5).collect(),
        };
        let watches = parts.uri.query().is_some_and(|query| query.contains("watch="));
        if parts.uri.path() == "/api/v1/pods" && watches {
            // Nothing ever changes.
            let silence = futures::stream::pending::<Result<Frame<Bytes>, Infallible>>();
            return Response::new(StreamBody::new(silence).boxed());
        }
        let mut taken = self.0.lock().unwrap();
        if parts.uri.path() == "/api/v1/pods" {
            let items: Vec<Value> = taken.pods.values().cloned().collect();
            let list = json!({ "kind": "PodList", "apiVersion": "v1", "metadata": { "resourceVersion": "1" }, "items": items });
            return Response::new(Full::new(Bytes::from(list.to_string())).boxed());
        }
        let (status, answer) = match (&parts.method, path.as_slice()) {
            (&Method::GET, [plural, name]) => match taken.objects.get(&format!("{plural}/{name}")) {
                Some(object) => (StatusCode::OK, object.clone()),
                None => (StatusCode::NOT_FOUND, failure(404, "NotFound")),
            },
            (&Method::GET, [_]) => (StatusCode::OK, json!({ "metadata": {}, "items": [] })),
            (&Method::POST, []) if parts.uri.path().ends_with("/subjectaccessreviews") => {
                let mut review = body;
                review["status"] = json!({ "allowed": false });
                (StatusCode::CREATED, review)
            }
            (&Method::POST, ["events"]) => {
                taken.events.push(body.clone());
                (StatusCode::CREATED, body)
            }
            (&Method::PATCH, ["events", _]) => {
                (StatusCode::OK, json!({ "metadata": {}, "involvedObject": {} }))
            }
            (&Method::PATCH, ["pods", name, "status"]) => {
                let name = (*name).to_owned();
                *taken.writes.entry(name.clone()).or_default() += 1;
                let pod = taken.pods.entry(name).or_default();
                merge(&mut pod["status"], &body["status"]);
                (StatusCode::OK, pod.clone())
            }
            (&Method::DELETE, ["pods", name]) => {
                taken.deleted.push((*name).to_owned());
                (StatusCode::OK, json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" }))
            }
            _ => (StatusCode::NOT_FOUND, failure(404, "NotFound")),
        };
        Response::builder().status(status).body(Full::new(Bytes::from(answer.to_string())).boxed()).unwrap()
    }
}

fn failure(code: u16, reason: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason })
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key], value);
        }
    }
}
