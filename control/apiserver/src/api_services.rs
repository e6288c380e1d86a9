//! The APIServices of what is served here: one for each group and version, also of custom kinds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use serde_json::{Value, json};
use store::{Txn, TxnError};

use crate::api::Api;
use crate::object::{self, Header, key, prefix};
use crate::resources::{Row, Table, known};
use crate::strategy::api_service::available;
use crate::tree::{at, text};
use crate::verbs::write::timestamp;

/// Says that an APIService comes and goes with what is served.
const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// What [`MANAGED`] says of those of custom kinds.
const CONTINUOUSLY: &str = "true";

/// How long to wait after a failure.
const AGAIN: Duration = Duration::from_secs(5);

/// `groupPriorityMinimum` and `versionPriority` of the groups of this build, as kube-apiserver gives them.
const PRIORITIES: &[(&str, i64, i64)] = &[
    ("", 18_000, 1),
    ("apps", 17_800, 15),
    ("events.k8s.io", 17_750, 15),
    ("authentication.k8s.io", 17_700, 15),
    ("authorization.k8s.io", 17_600, 15),
    ("autoscaling", 17_500, 15),
    ("batch", 17_400, 15),
    ("certificates.k8s.io", 17_300, 15),
    ("networking.k8s.io", 17_200, 15),
    ("policy", 17_100, 15),
    ("rbac.authorization.k8s.io", 17_000, 15),
    ("storage.k8s.io", 16_800, 15),
    ("admissionregistration.k8s.io", 16_700, 15),
    ("apiextensions.k8s.io", 16_700, 15),
    ("scheduling.k8s.io", 16_600, 15),
    ("coordination.k8s.io", 16_500, 15),
    ("node.k8s.io", 16_300, 15),
    ("discovery.k8s.io", 16_200, 15),
    ("resource.k8s.io", 16_200, 15),
    ("flowcontrol.apiserver.k8s.io", 16_100, 21),
    ("internal.apiserver.k8s.io", 16_000, 9),
    ("storagemigration.k8s.io", 15_800, 9),
];
/// `versionPriority` of versions that have another than the first of their group.
const VERSIONS: &[(&str, &str, i64)] = &[
    ("autoscaling", "v2", 30),
    ("admissionregistration.k8s.io", "v1beta1", 12),
    ("admissionregistration.k8s.io", "v1alpha1", 9),
    ("certificates.k8s.io", "v1beta1", 9),
    ("certificates.k8s.io", "v1alpha1", 1),
    ("coordination.k8s.io", "v1beta1", 13),
    ("coordination.k8s.io", "v1alpha2", 12),
    ("networking.k8s.io", "v1beta1", 9),
    ("resource.k8s.io", "v1beta2", 12),
    ("resource.k8s.io", "v1beta1", 9),
    ("resource.k8s.io", "v1alpha3", 1),
    ("scheduling.k8s.io", "v1alpha2", 9),
    ("storage.k8s.io", "v1beta1", 9),
];
/// The same of custom kinds.
const CUSTOM: (i64, i64) = (1000, 100);

/// The group that this is about has no APIService itself: who aggregates serves it.
const GROUP: &str = "apiregistration.k8s.io";

fn row() -> &'static Row {
    known(GROUP, "apiservices")
}

/// What there is to be for a table, by name; without what only a stored object has.
pub fn wanted(table: &Table) -> BTreeMap<String, Value> {
    let served = table.group_versions().into_iter().filter(|(group, _)| **group != *GROUP);
    served
        .map(|(group, version)| {
            let own = PRIORITIES.iter().find(|(known, ..)| *group == **known);
            let (minimum, first) = own.map_or(CUSTOM, |(_, minimum, priority)| (*minimum, *priority));
            let mut others = VERSIONS.iter().filter(|(known, one, _)| *group == **known && *version == **one);
            let priority = others.next().map_or(first, |(.., priority)| *priority);
            let name = format!("{}.{}", &**version, &**group);
            let label = if own.is_some() { "onstart" } else { CONTINUOUSLY };
            let mut spec = json!({ "version": &**version, "groupPriorityMinimum": minimum, "versionPriority": priority });
            if !group.is_empty() {
                spec["group"] = json!(&**group);
            }
            let service = json!({ "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
                                  "metadata": { "name": name, "labels": { MANAGED: label } }, "spec": spec });
            (name, service)
        })
        .collect()
}

/// Keeps the APIServices of what is served until the server stops.
pub async fn run(api: Arc<Api>) {
    let mut changes = api.definitions.changes();
    let mut starts = true;
    loop {
        changes.mark_unchanged();
        let from = api.objects.revision();
        let failed = match pass(&api, starts).await {
            // Another server has done the same, which is seen below.
            Ok(()) | Err(TxnError::Conflict { .. }) => false,
            Err(error) => {
                tracing::warn!(%error, "APIServices are not as they should be and are tried again");
                true
            }
        };
        starts = failed && starts;
        let Ok(mut written) = api.objects.watch(&prefix(row(), ""), from) else { continue };
        tokio::select! {
            _ = changes.changed() => {}
            _ = written.next(1) => {}
            () = tokio::time::sleep(AGAIN), if failed => {}
            () = api.stopping.cancelled() => return,
        }
    }
}

/// Adds what is missing, puts right what is not as it should be, and removes what nobody serves any more. Those of the groups of a
/// build are changed and removed only when it `starts`: servers of two builds would never agree on them.
async fn pass(api: &Api, starts: bool) -> Result<(), TxnError<Header>> {
    let mut wanted = wanted(&api.table.load());
    let mut txns = Vec::new();
    let all = api.objects.range(&prefix(row(), ""), None, 0, None);
    for entry in all.expect("the latest state is always there").entries {
        let current = object::decode(&entry);
        let is_kept = match text(&current, &["metadata", "labels", MANAGED]) {
            // Whoever took the label off keeps it as it is.
            "" => true,
            CONTINUOUSLY => false,
            _ => !starts,
        };
        match wanted.remove(&*entry.header.name) {
            _ if is_kept => {}
            None => txns.push(Txn::delete(&*entry.key, entry.mod_revision)),
            Some(service) if at(&current, &["spec"]) != at(&service, &["spec"]) => {
                let mut put = current;
                put["spec"] = service["spec"].clone();
                txns.push(Txn::update(&*entry.key, entry.mod_revision, object::encode(&put)));
            }
            Some(_) => {}
        }
    }
    let now = timestamp(Timestamp::now());
    for (name, service) in wanted {
        txns.push(Txn::update(key(row(), "", &name), 0, object::encode(&born(service, &now))));
    }
    let outcomes = join_all(Txn::grouped(txns).into_iter().map(|txn| api.txn(txn))).await;
    outcomes.into_iter().try_for_each(|outcome| outcome.map(drop))
}

/// The object as it is stored at first. `now` is RFC 3339.
fn born(mut service: Value, now: &str) -> Value {
    service["metadata"]["uid"] = json!(uuid::Uuid::new_v4().to_string());
    service["metadata"]["creationTimestamp"] = json!(now);
    service["status"] = json!({ "conditions": [available(now)] });
    service
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::builtin;
    use crate::strategy::Change;
    use crate::strategy::api_service::validate_service;
    use crate::validate::Errors;

    #[test]
    fn every_group_and_version_has_one_that_is_valid() {
        let table = builtin();
        let all = wanted(&table);
        assert_eq!(all.len(), table.group_versions().len() - 1);
        for (name, service) in all {
            let mut errors = Errors::default();
            let mut new = born(service, "2026-01-01T00:00:00Z");
            validate_service(&Change { old: None, new: &mut new }, &mut errors);
            assert!(errors.is_empty(), "{name}: {errors:?}");
            assert_eq!(new["metadata"]["labels"][MANAGED], "onstart", "{name} has a priority");
        }
    }

    #[test]
    fn the_core_group_comes_first_and_the_later_version() {
        let all = wanted(&builtin());
        let spec = |name: &str, field: &str| all[name]["spec"][field].as_i64();
        assert!(
            all.keys().all(|name| name == "v1."
                || spec(name, "groupPriorityMinimum") < spec("v1.", "groupPriorityMinimum"))
        );
        assert!(spec("v2.autoscaling", "versionPriority") > spec("v1.autoscaling", "versionPriority"));
        assert_eq!(all["v1."]["spec"].get("group"), None);
        for (group, version, _) in VERSIONS.iter().filter(|(_, version, _)| version.contains('a')) {
            let Some(stable) = spec(&format!("v1.{group}"), "versionPriority") else { continue };
            assert!(
                spec(&format!("{version}.{group}"), "versionPriority") < Some(stable),
                "{version}.{group}"
            );
        }
    }
}
