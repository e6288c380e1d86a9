//! What API servers beside this one need to know who somebody is: ConfigMap `extension-apiserver-authentication`, from which
//! they take the authority that signs clients' certificates. Tokens they show to this server (TokenReview).

use jiff::Timestamp;
use serde_json::{Value, json};
use store::{Txn, TxnError};

use crate::object::{self, Header, Objects, encode, key};
use crate::resources::known;
use crate::tree::{set, text};
use crate::verbs::write::timestamp;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";
const AUTHORITY: &[&str] = &["data", "client-ca-file"];

/// Writes the ConfigMap where it is missing or names another authority; what others have added stays.
///
/// # Errors
/// Those of the store. A conflict says that another server was faster, with the same authority.
pub async fn publish(objects: &Objects, ca_pem: &str, now: Timestamp) -> Result<(), TxnError<Header>> {
    let key = key(known("", "configmaps"), NAMESPACE, NAME);
    let current = objects.get(&key);
    let revision = current.as_ref().map_or(0, |entry| entry.mod_revision);
    let mut map = current.map_or_else(|| fresh(now), |entry| object::decode(&entry));
    if text(&map, AUTHORITY) == ca_pem {
        return Ok(());
    }
    set(&mut map, AUTHORITY, ca_pem);
    objects.txn(Txn::update(key, revision, encode(&map))).await.map(|_revision| ())
}

fn fresh(now: Timestamp) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": NAME, "namespace": NAMESPACE, "uid": uuid::Uuid::new_v4().to_string(),
                          "creationTimestamp": timestamp(now) } })
}
