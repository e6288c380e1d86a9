//! What the class of a pod's runtime adds to the pod: what the runtime itself needs, and where it can run.

use serde_json::Value;

use crate::api::Call;
use crate::object::{self, key};
use crate::resources::known;
use crate::status::{Refusal, Result};
use crate::tree::{at, fields, list, set, text};

/// Completes a new pod by its RuntimeClass, or refuses it, as upstream's admission of that name.
pub fn apply(call: &Call, pod: &mut Value) -> Result<()> {
    let name = text(pod, &["spec", "runtimeClassName"]).to_owned();
    let mut class = Value::Null;
    if !name.is_empty() {
        let entry = call.api.objects.get(&key(known("node.k8s.io", "runtimeclasses"), "", &name));
        let Some(entry) = entry else {
            return Err(rejected(call, pod, &format!("RuntimeClass {name:?} not found")));
        };
        class = object::decode(&entry);
    }
    complete(&class, pod).map_err(|why| rejected(call, pod, &why))
}

fn rejected(call: &Call, pod: &Value, why: &str) -> Refusal {
    Refusal::forbidden(&call.row, text(pod, &["metadata", "name"]), &format!("pod rejected: {why}"))
}

/// Adds what the class says; the error says in what the pod contradicts it.
fn complete(class: &Value, pod: &mut Value) -> Result<(), String> {
    let overhead = at(class, &["overhead", "podFixed"]).clone();
    let given = at(pod, &["spec", "overhead"]);
    if overhead.is_null() {
        if !given.is_null() {
            return Err("Pod Overhead set without corresponding RuntimeClass defined Overhead".to_owned());
        }
    } else if given.is_null() {
        set(pod, &["spec", "overhead"], overhead);
    } else if *given != overhead {
        return Err("Pod's Overhead doesn't match RuntimeClass's defined Overhead".to_owned());
    }
    for (label, value) in fields(class, &["scheduling", "nodeSelector"]) {
        let own = at(pod, &["spec", "nodeSelector", label]);
        if !own.is_null() && own != value {
            let (value, own) = (value.as_str().unwrap_or_default(), own.as_str().unwrap_or_default());
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{label}] = {value}; pod.spec.nodeSelector[{label}] = {own}"
            ));
        }
        set(pod, &["spec", "nodeSelector", label], value.clone());
    }
    let mut tolerations = list(pod, &["spec", "tolerations"]).to_vec();
    for one in list(class, &["scheduling", "tolerations"]) {
        if !tolerations.contains(one) {
            tolerations.push(one.clone());
        }
    }
    if !tolerations.is_empty() {
        set(pod, &["spec", "tolerations"], tolerations);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_class_adds_and_what_contradicts_it_is_refused() {
        let class = json!({"overhead": {"podFixed": {"cpu": "10m"}},
            "scheduling": {"nodeSelector": {"a": "b"}, "tolerations": [{"key": "k", "operator": "Exists"}]}});
        let mut pod = json!({"spec": {"nodeSelector": {"c": "d"}}});
        complete(&class, &mut pod).unwrap();
        let want = json!({"spec": {"nodeSelector": {"c": "d", "a": "b"}, "overhead": {"cpu": "10m"},
            "tolerations": [{"key": "k", "operator": "Exists"}]}});
        assert_eq!(pod, want);
        complete(&class, &mut pod).unwrap();
        assert_eq!(pod, want, "what is there already is not added again");
        for (class, contradiction) in [
            (&class, json!({"spec": {"overhead": {"cpu": "20m"}}})),
            (&class, json!({"spec": {"nodeSelector": {"a": "c"}}})),
            (&Value::Null, json!({"spec": {"overhead": {"cpu": "20m"}}})),
        ] {
            assert!(complete(class, &mut contradiction.clone()).is_err(), "{contradiction}");
        }
    }
}
