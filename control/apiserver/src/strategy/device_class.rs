//! Classes of devices, which claims name.

use super::Change;
use super::device_claim::{MAX_CONFIGS, bounded, validate_config, validate_selectors};
use crate::tree::{at, list};
use crate::validate::{self, Errors};

pub fn validate_class(change: &Change<'_>, errors: &mut Errors) {
    let spec = at(change.new, &["spec"]);
    validate_selectors(spec, "spec", errors);
    let configs = list(spec, &["config"]);
    bounded(configs, MAX_CONFIGS, "spec.config", errors);
    for (index, config) in configs.iter().enumerate() {
        validate_config(config, &format!("spec.config[{index}]"), errors);
    }
    let extended = at(spec, &["extendedResourceName"]);
    if extended.as_str().is_some_and(|name| !is_extended(name)) {
        errors.invalid("spec.extendedResourceName", extended, "must be a valid extended resource name");
    }
}

/// A resource with a domain that is not Kubernetes' own.
fn is_extended(name: &str) -> bool {
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    !native && !name.starts_with("requests.") && validate::label_key(&format!("requests.{name}")).is_ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::strategy::device_claim::tests::fields;

    #[test]
    fn classes_are_validated() {
        let config = json!([{"opaque": {"driver": "d.io", "parameters": {"a": 1}}}]);
        for (spec, want) in [
            (json!({"selectors": [{"cel": {"expression": "true"}}], "config": config}), vec![]),
            (json!({"selectors": [{}]}), vec!["spec.selectors[0].cel"]),
            (json!({"selectors": vec![json!({"cel": {"expression": "x"}}); 33]}), vec!["spec.selectors"]),
            (
                json!({"config": [{"opaque": {"driver": "d.io", "parameters": "a"}}]}),
                vec!["spec.config[0].opaque.parameters"],
            ),
            (json!({"extendedResourceName": "example.com/gpu"}), vec![]),
            (json!({"extendedResourceName": "gpu"}), vec!["spec.extendedResourceName"]),
        ] {
            let mut class = json!({"spec": spec});
            let change = Change { old: None, new: &mut class };
            assert_eq!(fields(|errors| validate_class(&change, errors)), want);
        }
    }
}
