//! A Secret of type `kubernetes.io/service-account-token` holds a token of its account, and goes with the account.
//!
//! The API server signs it: a Secret that says the uid of its account, and has no token, gets one with the next write.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::json;

use crate::change::Change;
use crate::controller::{Controller, Key, Outcome};
use crate::objects::{Secret, ServiceAccount, deleting};
use crate::view::View;
use crate::write::{Target, Write};

const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";
/// How long after a Secret its account may be seen: kinds are watched apart from each other.
const GRACE: Duration = Duration::from_secs(10);

pub(crate) struct ServiceTokenController {
    /// PEM.
    pub(crate) bundle: String,
}

impl Controller for ServiceTokenController {
    fn name(&self) -> &'static str {
        "serviceaccount-token-controller"
    }

    fn needs_every_kind(&self) -> bool {
        true
    }

    fn wakes(&self, change: &Change<'_>, view: &View) -> Vec<Key> {
        if change.is("secrets") {
            return vec![change.key.clone()];
        }
        if !change.is("serviceaccounts") {
            return Vec::new();
        }
        let of = |secret: &Secret| annotation(secret, ACCOUNT) == change.key.name;
        let secrets = view.secrets.within(&change.key.namespace);
        secrets.filter(|(_, secret)| is_token(secret) && of(secret)).map(|(key, _)| key.clone()).collect()
    }

    fn reconcile(&self, key: &Key, view: &View, now: Timestamp) -> Outcome {
        let secret = view.secrets.row(key).filter(|secret| is_token(secret));
        let Some(secret) = secret.filter(|secret| deleting(&secret.metadata).is_none()) else {
            return Outcome::nothing();
        };
        let name = annotation(secret, ACCOUNT);
        let wanted = annotation(secret, UID);
        let account = view.service_accounts.row(&Key::new(&key.namespace, name));
        let own = |account: &&std::sync::Arc<ServiceAccount>| {
            wanted.is_empty() || account.metadata.uid.as_deref() == Some(wanted)
        };
        match account.filter(own) {
            Some(account) => self.fill(key, secret, account),
            None => delete(key, secret, now),
        }
    }
}

impl ServiceTokenController {
    fn fill(&self, key: &Key, secret: &Secret, account: &ServiceAccount) -> Outcome {
        let holds = |field: &str, text: &str| {
            secret.data.get(field).is_some_and(|data| *data == STANDARD.encode(text))
        };
        let uid = account.metadata.uid.as_deref().unwrap_or_default();
        let has_token = secret.data.get("token").is_some_and(|token| !token.is_empty());
        let complete = holds("ca.crt", &self.bundle)
            && holds("namespace", &key.namespace)
            && annotation(secret, UID) == uid;
        if has_token && complete {
            return Outcome::nothing();
        }
        let metadata =
            json!({ "annotations": { UID: uid }, "resourceVersion": secret.metadata.resource_version });
        let data = json!({ "ca.crt": self.bundle, "namespace": key.namespace });
        let body = json!({ "metadata": metadata, "stringData": data });
        let target = Target::new("v1", "secrets", key.clone());
        Outcome::writes(vec![Write::Patch { target, subresource: None, body }])
    }
}

fn delete(key: &Key, secret: &Secret, now: Timestamp) -> Outcome {
    let born = secret.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let age = Duration::try_from(now.duration_since(born)).unwrap_or_default();
    if age < GRACE {
        let mut outcome = Outcome::nothing();
        outcome.look_again(GRACE - age);
        return outcome;
    }
    let (target, uid) =
        (Target::new("v1", "secrets", key.clone()), secret.metadata.uid.clone().unwrap_or_default());
    Outcome::writes(vec![Write::Delete { target, uid, propagation: None }])
}

fn is_token(secret: &Secret) -> bool {
    secret.r#type == TYPE
}

fn annotation<'a>(secret: &'a Secret, name: &str) -> &'a str {
    secret.metadata.annotations.as_ref().and_then(|all| all.get(name)).map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::view::tests::world;

    fn secret(uid: &str, data: Value) -> Value {
        json!({ "kind": "Secret", "type": TYPE, "data": data, "metadata": { "name": "s", "namespace": "n", "uid": "u-s",
                "resourceVersion": "7", "creationTimestamp": "1970-01-01T00:00:00Z",
                "annotations": { ACCOUNT: "robot", UID: uid } } })
    }

    fn account() -> Value {
        json!({ "kind": "ServiceAccount", "metadata": { "name": "robot", "namespace": "n", "uid": "u-r" } })
    }

    fn look(objects: &[Value], seconds: i64) -> Outcome {
        let controller = ServiceTokenController { bundle: "CA".to_owned() };
        let now = Timestamp::from_second(seconds).unwrap();
        controller.reconcile(&Key::new("n", "s"), &world(objects), now)
    }

    fn whole() -> Value {
        json!({ "token": "eA==", "ca.crt": STANDARD.encode("CA"), "namespace": STANDARD.encode("n") })
    }

    #[test]
    fn a_secret_gets_a_token_once_and_keeps_what_it_has() {
        for uid in ["", "u-r"] {
            let outcome = look(&[secret(uid, json!({})), account()], 0);
            let [Write::Patch { target, subresource: None, body }] = outcome.writes.as_slice() else {
                panic!("{outcome:?}")
            };
            assert_eq!(&*target.key.name, "s");
            let want = json!({ "metadata": { "annotations": { UID: "u-r" }, "resourceVersion": "7" },
                               "stringData": { "ca.crt": "CA", "namespace": "n" } });
            assert_eq!(*body, want);
        }
        assert_eq!(look(&[secret("u-r", whole()), account()], 0), Outcome::nothing());
        let mut stale = whole();
        stale["ca.crt"] = json!("eA==");
        for stale in [secret("u-r", stale), secret("", whole())] {
            let outcome = look(&[stale, account()], 0);
            assert!(matches!(outcome.writes.as_slice(), [Write::Patch { .. }]), "{outcome:?}");
        }
    }

    #[test]
    fn a_secret_goes_with_its_account_but_not_before_that_can_have_been_seen() {
        for objects in [vec![secret("", whole())], vec![secret("u-old", whole()), account()]] {
            let early = look(&objects, 4);
            assert_eq!((early.writes.len(), early.again), (0, Some(Duration::from_secs(6))));
            let late = look(&objects, 10);
            let target = Target::new("v1", "secrets", Key::new("n", "s"));
            assert_eq!(late.writes, [Write::Delete { target, uid: "u-s".to_owned(), propagation: None }]);
        }
    }

    #[test]
    fn other_secrets_are_left_alone() {
        let mut other = secret("", json!({}));
        other["type"] = json!("Opaque");
        assert_eq!(look(&[other.clone()], 100), Outcome::nothing());
        let mut going = secret("", json!({}));
        going["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:00:00Z");
        assert_eq!(look(&[going, account()], 100), Outcome::nothing());
        let controller = ServiceTokenController { bundle: String::new() };
        let (robot, nobody) = (Key::new("n", "robot"), Key::new("n", "nobody"));
        for (objects, key, want) in [
            (vec![secret("", json!({}))], &robot, 1),
            (vec![secret("", json!({}))], &nobody, 0),
            (vec![other], &robot, 0),
        ] {
            let change = Change { resource: "serviceaccounts", key, old: None, new: None };
            assert_eq!(controller.wakes(&change, &world(&objects)).len(), want);
        }
    }
}
