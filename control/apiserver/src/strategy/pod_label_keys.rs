//! Labels that spreading and affinity compare by the values the pod itself has (`matchLabelKeys`, `mismatchLabelKeys`): they
//! become expressions of the selector when the pod is created, so that schedulers need not know of them.

use serde_json::{Value, json};

use crate::tree::{at, list, list_mut, set};

/// Adds the expressions to the selectors of a new pod.
pub fn become_expressions(pod: &mut Value) {
    let labels = at(pod, &["metadata", "labels"]).clone();
    for constraint in list_mut(pod, &["spec", "topologySpreadConstraints"]) {
        select(constraint, "matchLabelKeys", "In", &labels);
    }
    for affinity in ["podAffinity", "podAntiAffinity"] {
        let required = ["spec", "affinity", affinity, "requiredDuringSchedulingIgnoredDuringExecution"];
        list_mut(pod, &required).iter_mut().for_each(|term| select_both(term, &labels));
        let preferred = ["spec", "affinity", affinity, "preferredDuringSchedulingIgnoredDuringExecution"];
        for weighted in list_mut(pod, &preferred) {
            if let Some(term) = weighted.get_mut("podAffinityTerm") {
                select_both(term, &labels);
            }
        }
    }
}

fn select_both(term: &mut Value, labels: &Value) {
    select(term, "matchLabelKeys", "In", labels);
    select(term, "mismatchLabelKeys", "NotIn", labels);
}

/// Without a selector nothing is selected, whatever the keys; a label the pod does not have says nothing.
fn select(owner: &mut Value, keys: &str, operator: &str, labels: &Value) {
    if !at(owner, &["labelSelector"]).is_object() {
        return;
    }
    let own = |key: &Value| {
        let value = labels.get(key.as_str()?)?;
        Some(json!({ "key": key, "operator": operator, "values": [value] }))
    };
    let added: Vec<Value> = list(owner, &[keys]).iter().filter_map(own).collect();
    if !added.is_empty() {
        let before = list(owner, &["labelSelector", "matchExpressions"]).to_vec();
        set(owner, &["labelSelector", "matchExpressions"], [before, added].concat());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_select_by_the_values_of_the_pod() {
        let term = json!({ "labelSelector": { "matchExpressions": [{ "key": "x", "operator": "Exists" }] },
                           "matchLabelKeys": ["a", "missing"], "mismatchLabelKeys": ["b"] });
        let mut pod = json!({
            "metadata": { "labels": { "a": "1", "b": "2" } },
            "spec": {
                "topologySpreadConstraints": [{ "labelSelector": {}, "matchLabelKeys": ["a"] }, { "matchLabelKeys": ["a"] }],
                "affinity": {
                    "podAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [term] },
                    "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{ "podAffinityTerm": term }] },
                },
            },
        });
        become_expressions(&mut pod);
        let in_a = json!({ "key": "a", "operator": "In", "values": ["1"] });
        let constraints = &pod["spec"]["topologySpreadConstraints"];
        assert_eq!(constraints[0]["labelSelector"], json!({ "matchExpressions": [in_a] }));
        assert_eq!(constraints[1], json!({ "matchLabelKeys": ["a"] }));
        let want = json!([{ "key": "x", "operator": "Exists" }, in_a, { "key": "b", "operator": "NotIn", "values": ["2"] }]);
        let affinity = &pod["spec"]["affinity"];
        let required = &affinity["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0];
        assert_eq!(required["labelSelector"]["matchExpressions"], want);
        let preferred = &affinity["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"][0];
        assert_eq!(preferred["podAffinityTerm"]["labelSelector"]["matchExpressions"], want);
    }
}
