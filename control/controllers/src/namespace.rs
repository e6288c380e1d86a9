//! A namespace that is being deleted is emptied, then let go.
//!
//! Deletion waits for the finalizer `kubernetes` in `spec.finalizers`. Everything in the namespace is deleted; when the
//! owner graph holds nothing of it any more, the finalizer is removed and the API server forgets the namespace.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use crate::change::Change;
use crate::controller::{Controller, Key, Outcome};
use crate::objects::deleting;
use crate::view::View;
use crate::write::{Target, Write};

const FINALIZER: &str = "kubernetes";

pub(crate) struct NamespaceController;

impl Controller for NamespaceController {
    fn name(&self) -> &'static str {
        "namespace-controller"
    }

    fn needs_every_kind(&self) -> bool {
        true
    }

    fn wakes(&self, change: &Change<'_>, view: &View) -> Vec<Key> {
        if change.is("namespaces") {
            return vec![change.key.clone()];
        }
        let namespace = Key::cluster(&change.key.namespace);
        let terminating =
            view.namespaces.row(&namespace).is_some_and(|namespace| deleting(&namespace.metadata).is_some());
        if terminating { vec![namespace] } else { Vec::new() }
    }

    fn reconcile(&self, key: &Key, view: &View, _: Timestamp) -> Outcome {
        let Some(namespace) = view.namespaces.row(key) else { return Outcome::nothing() };
        if deleting(&namespace.metadata).is_none() {
            return Outcome::nothing();
        }
        if !view.graph.complete {
            return Outcome { writes: Vec::new(), again: Some(Duration::from_secs(1)) };
        }
        let mut content = view.graph.within(&key.name).peekable();
        if content.peek().is_some() {
            let deletable = content.filter(|item| !item.deleting);
            let writes = deletable.map(|item| Write::Delete {
                target: Target::of(&item.resource, item.key.clone()),
                uid: item.uid.clone(),
                propagation: Some("Background"),
            });
            return Outcome { writes: writes.collect(), again: Some(Duration::from_secs(5)) };
        }
        if !namespace.spec.finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            return Outcome::nothing();
        }
        let rest: Vec<_> =
            namespace.spec.finalizers.iter().filter(|finalizer| *finalizer != FINALIZER).collect();
        let body = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {
                "name": key.name, "uid": namespace.metadata.uid,
                "resourceVersion": namespace.metadata.resource_version,
            },
            "spec": {"finalizers": rest},
        });
        let target = Target::new("v1", "namespaces", key.clone());
        Outcome::writes(vec![Write::Replace { target, subresource: "finalize", body }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::world;

    #[test]
    fn a_terminating_namespace_is_emptied_and_then_finalized() {
        let namespace = json!({
            "kind": "Namespace",
            "metadata": {"name": "a", "uid": "n", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"finalizers": ["kubernetes"]},
        });
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "a", "uid": "p"}});
        let look = |objects: &[serde_json::Value]| {
            NamespaceController.reconcile(&Key::cluster("a"), &world(objects), Timestamp::UNIX_EPOCH).writes
        };
        assert!(matches!(look(&[namespace.clone(), pod.clone()]).as_slice(), [Write::Delete { .. }]));
        let mut leaving = pod;
        leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(look(&[namespace.clone(), leaving]), [], "what is on its way out is waited for");
        let done = look(std::slice::from_ref(&namespace));
        let [Write::Replace { subresource: "finalize", body, .. }] = done.as_slice() else {
            panic!("{done:?}")
        };
        assert_eq!(body["spec"]["finalizers"], json!([]));
        let mut alive = namespace;
        alive["metadata"].as_object_mut().unwrap().remove("deletionTimestamp");
        assert_eq!(look(&[alive]), []);
    }
}
