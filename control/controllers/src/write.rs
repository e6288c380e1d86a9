//! What controllers write, as values, and how each becomes one request.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use http::Request;
use http::header::CONTENT_TYPE;
use kube::Client;
use serde_json::{Value, json};

use crate::controller::{Failure, Key};
use crate::graph::ResourceRef;

/// The object, or for a creation the collection, a write is addressed to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Target {
    /// `v1` or `group/version`.
    pub(crate) api_version: String,
    pub(crate) plural: String,
    /// Plural with the group where there is one; see [`crate::change::Change::resource`].
    pub(crate) resource: String,
    pub(crate) key: Key,
    /// Found in the owner graph, where its change will be seen; a table may not have it.
    pub(crate) is_of_graph: bool,
}

impl Target {
    pub(crate) fn new(api_version: &str, plural: &str, key: Key) -> Self {
        let resource = match api_version.split_once('/') {
            Some((group, _)) => format!("{plural}.{group}"),
            None => plural.to_owned(),
        };
        let (api_version, plural) = (api_version.to_owned(), plural.to_owned());
        Self { api_version, plural, resource, key, is_of_graph: false }
    }

    pub(crate) fn of(resource: &ResourceRef, key: Key) -> Self {
        Self {
            api_version: resource.api_version(),
            plural: resource.plural.clone(),
            resource: resource.resource(),
            key,
            is_of_graph: true,
        }
    }

    fn collection(&self) -> String {
        let root = if self.api_version.contains('/') { "/apis" } else { "/api" };
        let Self { api_version, plural, key, .. } = self;
        if key.namespace.is_empty() {
            return format!("{root}/{api_version}/{plural}");
        }
        format!("{root}/{api_version}/namespaces/{}/{plural}", key.namespace)
    }

    fn path(&self) -> String {
        format!("{}/{}", self.collection(), self.key.name)
    }
}

/// The part of a merge patch that makes labels or annotations, which are `now`, what is `wanted`.
pub(crate) fn exactly(wanted: &BTreeMap<String, String>, now: Option<&BTreeMap<String, String>>) -> Value {
    let mut patch: serde_json::Map<String, Value> =
        wanted.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    for name in now.into_iter().flat_map(BTreeMap::keys) {
        patch.entry(name.as_str()).or_insert(Value::Null);
    }
    Value::Object(patch)
}

/// One request to the API server.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Write {
    /// Creates `body`; the target's name is only for logs when the body has `generateName`.
    Create { target: Target, body: Value },
    /// JSON merge patch. A `metadata.resourceVersion` in the body makes it conditional.
    Patch { target: Target, subresource: Option<&'static str>, body: Value },
    /// Replaces what the subresource holds: `namespaces/finalize`.
    Replace { target: Target, subresource: &'static str, body: Value },
    /// Deletes the object if it still has this uid.
    Delete { target: Target, uid: String, propagation: Option<&'static str> },
    /// Deletes every object of the target's kind in its namespace.
    DeleteAll { target: Target },
}

/// What the API server made of a write.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// The change is in every view that has seen this revision.
    At(u64),
    /// The object is gone, or was gone already.
    Gone,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("{verb} {resource} {key}")]
    Refused {
        verb: &'static str,
        resource: String,
        key: Key,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("build the request to {verb} {resource} {key}")]
    Request {
        verb: &'static str,
        resource: String,
        key: Key,
        #[source]
        source: http::Error,
    },
}

impl WriteError {
    /// What a controller may want to tell about it.
    pub(crate) fn failure(&self) -> Failure {
        let (verb, resource, message) = match self {
            Self::Refused { verb, resource, source, .. } => {
                let message = match &**source {
                    kube::Error::Api(status) => status.message.clone(),
                    other => other.to_string(),
                };
                (*verb, resource, message)
            }
            Self::Request { verb, resource, source, .. } => (*verb, resource, source.to_string()),
        };
        Failure { verb, resource: resource.clone(), message }
    }

    /// Somebody else changed the object first, or is deleting its namespace: the next look works on what is there then.
    pub(crate) fn is_race(&self) -> bool {
        let Self::Refused { source, .. } = self else { return false };
        let kube::Error::Api(status) = &**source else { return false };
        let causes = status.details.iter().flat_map(|details| &details.causes);
        matches!(status.code, 404 | 409)
            || causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
    }
}

impl Write {
    pub(crate) fn target(&self) -> &Target {
        match self {
            Self::Create { target, .. }
            | Self::Patch { target, .. }
            | Self::Replace { target, .. }
            | Self::Delete { target, .. }
            | Self::DeleteAll { target } => target,
        }
    }

    pub(crate) fn verb(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Patch { .. } => "patch",
            Self::Replace { .. } => "replace",
            Self::Delete { .. } => "delete",
            Self::DeleteAll { .. } => "delete all",
        }
    }

    /// Sends the write and reads from the answer when it will be visible.
    pub(crate) async fn send(&self, client: &Client) -> Result<Written, WriteError> {
        let Target { resource, key, .. } = self.target().clone();
        let verb = self.verb();
        let request = match self.request() {
            Ok(request) => request,
            Err(source) => return Err(WriteError::Request { verb, resource, key, source }),
        };
        match client.request::<Value>(request).await {
            // An answer holds them all as they were, at a revision that may be older than what is seen already.
            Ok(_) if matches!(self, Self::DeleteAll { .. }) => Ok(Written::Gone),
            Ok(answer) => Ok(self.written(&answer)),
            Err(kube::Error::Api(status)) if status.code == 404 && matches!(self, Self::Delete { .. }) => {
                Ok(Written::Gone)
            }
            Err(source) => Err(WriteError::Refused { verb, resource, key, source: Box::new(source) }),
        }
    }

    fn written(&self, answer: &Value) -> Written {
        let revision = answer["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok());
        match revision {
            Some(revision) if answer["kind"] != "Status" => Written::At(revision),
            _ => Written::Gone,
        }
    }

    fn request(&self) -> Result<Request<Vec<u8>>, http::Error> {
        let with_subresource =
            |target: &Target, subresource: &str| format!("{}/{subresource}", target.path());
        let (method, path, media, body) = match self {
            Self::Create { target, body } => {
                ("POST", target.collection(), "application/json", body.to_string())
            }
            Self::Patch { target, subresource, body } => {
                let path = subresource.map_or_else(|| target.path(), |name| with_subresource(target, name));
                ("PATCH", path, "application/merge-patch+json", body.to_string())
            }
            Self::Replace { target, subresource, body } => {
                ("PUT", with_subresource(target, subresource), "application/json", body.to_string())
            }
            Self::Delete { target, uid, propagation } => {
                let mut options =
                    json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}});
                if let Some(policy) = propagation {
                    options["propagationPolicy"] = json!(policy);
                }
                ("DELETE", target.path(), "application/json", options.to_string())
            }
            Self::DeleteAll { target } => ("DELETE", target.collection(), "application/json", String::new()),
        };
        Request::builder().method(method).uri(path).header(CONTENT_TYPE, media).body(body.into_bytes())
    }
}

/// An Event about an object, as `kubectl describe` shows it.
pub(crate) struct Happening<'a> {
    pub(crate) component: &'a str,
    pub(crate) api_version: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) key: &'a Key,
    pub(crate) uid: &'a str,
    pub(crate) warning: bool,
    pub(crate) reason: &'a str,
    pub(crate) message: String,
    pub(crate) now: jiff::Timestamp,
}

impl Happening<'_> {
    /// Some of a millisecond, so that what is told at one instant has names of its own.
    fn offset(&self) -> i128 {
        let mut hasher = DefaultHasher::new();
        (self.component, self.reason, &self.message).hash(&mut hasher);
        i128::from(hasher.finish() % 1_000_000)
    }

    pub(crate) fn write(self) -> Write {
        let namespace = if self.key.namespace.is_empty() { "default" } else { &self.key.namespace };
        let name = format!("{}.{:x}", self.key.name, self.now.as_nanosecond() + self.offset());
        let seconds = self.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let body = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {
                "apiVersion": self.api_version, "kind": self.kind, "name": self.key.name,
                "namespace": self.key.namespace, "uid": self.uid,
            },
            "type": if self.warning { "Warning" } else { "Normal" },
            "reason": self.reason,
            "message": self.message,
            "source": {"component": self.component},
            "reportingComponent": self.component,
            "firstTimestamp": seconds, "lastTimestamp": seconds, "count": 1,
        });
        Write::Create { target: Target::new("v1", "events", Key::new(namespace, name)), body }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_become_requests() {
        let pod = Target::new("v1", "pods", Key::new("default", "a"));
        let set = Target::new("apps/v1", "replicasets", Key::new("default", "a"));
        let node = Target::new("v1", "nodes", Key::cluster("n"));
        let events = Target::new("v1", "events", Key::new("default", ""));
        let body = json!({});
        for (write, want) in [
            (
                Write::Create { target: set.clone(), body: body.clone() },
                "POST /apis/apps/v1/namespaces/default/replicasets",
            ),
            (
                Write::Patch { target: set, subresource: Some("status"), body: body.clone() },
                "PATCH /apis/apps/v1/namespaces/default/replicasets/a/status",
            ),
            (Write::Patch { target: node, subresource: None, body }, "PATCH /api/v1/nodes/n"),
            (
                Write::Delete { target: pod, uid: "u".into(), propagation: None },
                "DELETE /api/v1/namespaces/default/pods/a",
            ),
            (Write::DeleteAll { target: events }, "DELETE /api/v1/namespaces/default/events"),
        ] {
            let request = write.request().unwrap();
            assert_eq!(format!("{} {}", request.method(), request.uri()), want);
        }
    }

    #[test]
    fn events_of_one_instant_have_names_of_their_own() {
        let name = |reason: &str, message: &str| {
            let (key, now) = (Key::new("d", "a"), jiff::Timestamp::UNIX_EPOCH);
            let (component, message) = ("c", message.to_owned());
            let happening = Happening {
                component,
                api_version: "v1",
                kind: "Pod",
                key: &key,
                uid: "u",
                warning: false,
                reason,
                message,
                now,
            };
            happening.write().target().key.name.clone()
        };
        let names = [name("Made", "one"), name("Made", "two"), name("Deleted", "one")];
        assert!(names[0] != names[1] && names[0] != names[2] && names[1] != names[2], "{names:?}");
        assert_eq!(name("Made", "one"), names[0]);
    }
}
