//! Every active namespace has a ServiceAccount `default` and the cluster's CA in ConfigMap `kube-root-ca.crt`.

use jiff::Timestamp;
use serde_json::json;

use crate::change::Change;
use crate::controller::{Controller, Key, Outcome};
use crate::objects::deleting;
use crate::view::View;
use crate::write::{Target, Write};

const ACCOUNT: &str = "default";
const CA_MAP: &str = "kube-root-ca.crt";

/// Makes the default ServiceAccount. Keys are namespaces.
pub(crate) struct ServiceAccountController;

impl Controller for ServiceAccountController {
    fn name(&self) -> &'static str {
        "serviceaccount-controller"
    }

    fn wakes(&self, change: &Change<'_>, _: &View) -> Vec<Key> {
        namespaces_of(change, "serviceaccounts", ACCOUNT)
    }

    fn reconcile(&self, key: &Key, view: &View, _: Timestamp) -> Outcome {
        let account = Key::new(&key.name, ACCOUNT);
        if !is_active(key, view) || view.service_accounts.row(&account).is_some() {
            return Outcome::nothing();
        }
        let body = json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": ACCOUNT, "namespace": key.name},
        });
        Outcome::writes(vec![Write::Create { target: Target::new("v1", "serviceaccounts", account), body }])
    }
}

/// Publishes the CA and keeps it as it should be. Keys are namespaces.
pub(crate) struct RootCaController {
    /// PEM.
    pub(crate) bundle: String,
}

impl Controller for RootCaController {
    fn name(&self) -> &'static str {
        "root-ca-certificate-publisher-controller"
    }

    fn wakes(&self, change: &Change<'_>, _: &View) -> Vec<Key> {
        namespaces_of(change, "configmaps", CA_MAP)
    }

    fn reconcile(&self, key: &Key, view: &View, _: Timestamp) -> Outcome {
        if !is_active(key, view) {
            return Outcome::nothing();
        }
        let map = Key::new(&key.name, CA_MAP);
        let target = Target::new("v1", "configmaps", map.clone());
        let data = json!({"ca.crt": self.bundle});
        let write = match view.config_maps.row(&map) {
            Some(found) if found.data.len() == 1 && found.data.get("ca.crt") == Some(&self.bundle) => {
                return Outcome::nothing();
            }
            Some(found) => {
                let mut data = data;
                for stray in found.data.keys().filter(|name| *name != "ca.crt") {
                    data[stray] = json!(null);
                }
                Write::Patch { target, subresource: None, body: json!({"data": data}) }
            }
            None => {
                let description = "Contains a CA bundle that can be used to verify the kube-apiserver when using \
                                   internal endpoints such as the internal service IP or kubernetes.default.svc.";
                let metadata = json!({
                    "name": CA_MAP, "namespace": key.name,
                    "annotations": {"kubernetes.io/description": description},
                });
                let body =
                    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data});
                Write::Create { target, body }
            }
        };
        Outcome::writes(vec![write])
    }
}

/// The namespace itself, or the one in which the object called `name` changed.
fn namespaces_of(change: &Change<'_>, resource: &str, name: &str) -> Vec<Key> {
    if change.is("namespaces") {
        return vec![change.key.clone()];
    }
    if change.is(resource) && change.key.name == name {
        return vec![Key::cluster(&change.key.namespace)];
    }
    Vec::new()
}

fn is_active(namespace: &Key, view: &View) -> bool {
    view.namespaces.row(namespace).is_some_and(|namespace| deleting(&namespace.metadata).is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::world;
    use serde_json::Value;

    fn namespace() -> Value {
        json!({"kind": "Namespace", "metadata": {"name": "a", "uid": "n"}})
    }

    fn writes(controller: &dyn Controller, objects: &[Value]) -> Vec<Write> {
        controller.reconcile(&Key::cluster("a"), &world(objects), Timestamp::UNIX_EPOCH).writes
    }

    #[test]
    fn a_namespace_gets_its_default_account_once() {
        let made = writes(&ServiceAccountController, &[namespace()]);
        let [Write::Create { body, .. }] = made.as_slice() else { panic!("{made:?}") };
        assert_eq!(body["metadata"]["name"], "default");
        let mut there = body.clone();
        there["metadata"]["uid"] = json!("s");
        assert_eq!(writes(&ServiceAccountController, &[namespace(), there]), []);
        let mut terminating = namespace();
        terminating["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(writes(&ServiceAccountController, &[terminating]), []);
    }

    #[test]
    fn the_ca_is_published_and_put_right_when_changed() {
        let controller = RootCaController { bundle: "PEM".to_owned() };
        let made = writes(&controller, &[namespace()]);
        let [Write::Create { body, .. }] = made.as_slice() else { panic!("{made:?}") };
        let mut changed = body.clone();
        changed["metadata"]["uid"] = json!("c");
        assert_eq!(writes(&controller, &[namespace(), changed.clone()]), []);
        changed["data"] = json!({"ca.crt": "other", "stray": "x"});
        let mended = writes(&controller, &[namespace(), changed]);
        let [Write::Patch { body, .. }] = mended.as_slice() else { panic!("{mended:?}") };
        assert_eq!(body["data"], json!({"ca.crt": "PEM", "stray": null}));
    }
}
