//! A ClusterRole with an aggregation rule shows the rules of the ClusterRoles it selects.
//!
//! The API server goes by the selection itself; what is written here is for those who read the role.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::change::Change;
use crate::controller::{Controller, Key, Outcome};
use crate::objects::{ClusterRole, Kind};
use crate::selector;
use crate::view::View;
use crate::write::{Target, Write};

pub(crate) struct ClusterRoleController;

impl Controller for ClusterRoleController {
    fn name(&self) -> &'static str {
        "clusterrole-aggregation-controller"
    }

    /// Any role may be one that is selected, or was.
    fn wakes(&self, change: &Change<'_>, view: &View) -> Vec<Key> {
        if !change.is(ClusterRole::RESOURCE) {
            return Vec::new();
        }
        let aggregating = view.cluster_roles.all().filter(|(_, role)| role.aggregation_rule.is_some());
        aggregating.map(|(key, _)| key.clone()).collect()
    }

    fn reconcile(&self, key: &Key, view: &View, _: Timestamp) -> Outcome {
        let Some(role) = view.cluster_roles.row(key) else { return Outcome::nothing() };
        let Some(rule) = &role.aggregation_rule else { return Outcome::nothing() };
        let mut rules: Vec<&Value> = Vec::new();
        for selected in &rule.cluster_role_selectors {
            let others = view.cluster_roles.all().filter(|(other, _)| *other != key);
            let others =
                others.filter(|(_, other)| selector::matches(selected, other.metadata.labels.as_ref()));
            for one in others.flat_map(|(_, other)| &other.rules) {
                if !rules.contains(&one) {
                    rules.push(one);
                }
            }
        }
        if rules.iter().copied().eq(&role.rules) {
            return Outcome::nothing();
        }
        let metadata = json!({ "uid": role.metadata.uid, "resourceVersion": role.metadata.resource_version });
        let target = Target::new("rbac.authorization.k8s.io/v1", "clusterroles", key.clone());
        let body = json!({ "metadata": metadata, "rules": rules });
        Outcome::writes(vec![Write::Patch { target, subresource: None, body }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::world;

    fn role(name: &str, label: &str, verb: &str) -> Value {
        json!({ "kind": "ClusterRole", "apiVersion": "rbac.authorization.k8s.io/v1",
                "metadata": { "name": name, "uid": name, "resourceVersion": "7", "labels": { "to": label } },
                "rules": [{ "verbs": [verb] }] })
    }

    fn selecting(name: &str, label: &str, rules: &Value) -> Value {
        let mut role = role(name, "view", "x");
        role["rules"] = rules.clone();
        role["aggregationRule"] = json!({ "clusterRoleSelectors": [{ "matchLabels": { "to": label } }, {}] });
        if !label.is_empty() {
            role["aggregationRule"]["clusterRoleSelectors"].as_array_mut().unwrap().pop();
        }
        role
    }

    /// The rules that are written.
    fn look(objects: &[Value]) -> Option<Value> {
        let outcome =
            ClusterRoleController.reconcile(&Key::cluster("all"), &world(objects), Timestamp::UNIX_EPOCH);
        match outcome.writes.as_slice() {
            [] => None,
            [Write::Patch { subresource: None, body, .. }] => {
                assert_eq!(body["metadata"], json!({ "uid": "all", "resourceVersion": "7" }));
                Some(body["rules"].clone())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_role_shows_what_it_selects_once_and_not_itself() {
        let others = [
            role("a", "view", "get"),
            role("b", "view", "get"),
            role("c", "view", "list"),
            role("d", "edit", "put"),
        ];
        let with = |own: Value| [&others[..], &[own]].concat();
        let found = look(&with(selecting("all", "view", &json!([{ "verbs": ["stale"] }])))).unwrap();
        assert_eq!(found, json!([{ "verbs": ["get"] }, { "verbs": ["list"] }]));
        assert_eq!(look(&with(selecting("all", "view", &found))), None);
        let found = look(&with(selecting("all", "", &json!([])))).unwrap();
        assert_eq!(found, json!([{ "verbs": ["get"] }, { "verbs": ["list"] }, { "verbs": ["put"] }]));
        assert_eq!(look(&with(role("all", "view", "own"))), None, "it selects nothing");
    }

    #[test]
    fn every_role_wakes_those_that_select() {
        let view = world(&[role("a", "view", "get"), selecting("all", "view", &json!([]))]);
        for (resource, want) in [(ClusterRole::RESOURCE, 1), ("pods", 0)] {
            let change = Change { resource, key: &Key::cluster("a"), old: None, new: None };
            assert_eq!(ClusterRoleController.wakes(&change, &view).len(), want, "{resource}");
        }
    }
}
