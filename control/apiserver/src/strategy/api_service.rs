//! APIServices: which server answers for a group and version.

use serde_json::{Value, json};

use super::Change;
use crate::tree::{at, flag, int, set, set_default, text};
use crate::validate::{self, Errors};

pub fn default_service(service: &mut Value) {
    if at(service, &["spec", "service"]).is_object() {
        set_default(service, &["spec", "service", "port"], 443);
    }
}

/// A group that this server answers for itself is available at once, one of another server is not.
pub fn prepare_service(change: &mut Change<'_>) {
    if change.old.is_some() {
        return;
    }
    let since = text(change.new, &["metadata", "creationTimestamp"]).to_owned();
    let condition = if at(change.new, &["spec", "service"]).is_null() {
        available(&since)
    } else {
        let message = "requests are not forwarded to other API servers yet";
        json!({ "type": "Available", "status": "False", "reason": "NotForwarded", "message": message,
                "lastTransitionTime": since })
    };
    set(change.new, &["status", "conditions"], json!([condition]));
}

/// The condition of what this server answers for, since a time (RFC 3339).
pub fn available(since: &str) -> Value {
    json!({ "type": "Available", "status": "True", "reason": "Local",
            "message": "Local APIServices are always available", "lastTransitionTime": since })
}

pub fn validate_service(change: &Change<'_>, errors: &mut Errors) {
    let spec = at(change.new, &["spec"]);
    let (group, version) = (text(spec, &["group"]), text(spec, &["version"]));
    let (name, wanted) = (at(change.new, &["metadata", "name"]), format!("{version}.{group}"));
    if name.as_str() != Some(&wanted) {
        let detail = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
        errors.invalid("metadata.name", name, &detail);
    }
    if group.is_empty() {
        if version != "v1" {
            let detail = "only v1 may have an empty group and it better be legacy kube";
            errors.required("spec.group", detail);
        }
    } else {
        errors.check("spec.group", group, validate::subdomain);
    }
    errors.check("spec.version", version, validate::dns1035_label);
    for (field, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let priority = int(spec, &[field]).unwrap_or_default();
        if !(1..=most).contains(&priority) {
            let detail = format!("must be positive and less than {most}");
            errors.invalid(format!("spec.{field}"), &json!(priority), &detail);
        }
    }
    validate_server(spec, errors);
}

/// Checks which server is asked, and how it is believed.
fn validate_server(spec: &Value, errors: &mut Errors) {
    let (service, bundle) = (at(spec, &["service"]), text(spec, &["caBundle"]));
    let unverified = flag(spec, &["insecureSkipTLSVerify"]);
    if service.is_null() {
        if !bundle.is_empty() {
            errors.invalid("spec.caBundle", &json!(bundle), "local APIServices may not have a caBundle");
        }
        if unverified {
            let detail = "local APIServices may not have insecureSkipTLSVerify";
            errors.invalid("spec.insecureSkipTLSVerify", &json!(true), detail);
        }
        return;
    }
    for field in ["namespace", "name"] {
        if text(service, &[field]).is_empty() {
            errors.required(format!("spec.service.{field}"), "");
        }
    }
    if let Some(port) = int(service, &["port"]) {
        errors.port("spec.service.port", port);
    }
    if unverified && !bundle.is_empty() {
        let detail = "may not be true if caBundle is present";
        errors.invalid("spec.insecureSkipTLSVerify", &json!(true), detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::flow_schema::tests::refused;

    fn remote() -> Value {
        let mut service = json!({
            "metadata": {"name": "v1beta1.metrics.k8s.io", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100,
                     "versionPriority": 100, "service": {"namespace": "kube-system", "name": "metrics-server"}},
        });
        default_service(&mut service);
        service
    }

    #[test]
    fn services_are_validated() {
        assert_eq!(remote()["spec"]["service"]["port"], 443);
        let none: &[&str] = &[];
        for (path, value, want) in [
            (&["metadata", "name"][..], json!("v1beta1.metrics.k8s.io"), none),
            (&["metadata", "name"], json!("metrics"), &["metadata.name"]),
            (&["spec", "group"], json!(""), &["metadata.name", "spec.group"]),
            (&["spec", "version"], json!("1"), &["metadata.name", "spec.version"]),
            (&["spec", "groupPriorityMinimum"], json!(20_001), &["spec.groupPriorityMinimum"]),
            (&["spec", "versionPriority"], json!(0), &["spec.versionPriority"]),
            (
                &["spec", "service"],
                json!({"port": 0}),
                &["spec.service.namespace", "spec.service.name", "spec.service.port"],
            ),
            (&["spec", "insecureSkipTLSVerify"], json!(true), none),
        ] {
            let changes = [(path, value.clone())];
            assert_eq!(refused(&remote(), &changes, validate_service), want, "{path:?} {value}");
        }
        let believed: [(&[&str], Value); 2] =
            [(&["spec", "insecureSkipTLSVerify"], json!(true)), (&["spec", "caBundle"], json!("YQ=="))];
        assert_eq!(refused(&remote(), &believed, validate_service), ["spec.insecureSkipTLSVerify"]);
        let [skip, bundle] = believed;
        let local = [skip, bundle, (&["spec", "service"][..], json!(null))];
        assert_eq!(
            refused(&remote(), &local, validate_service),
            ["spec.caBundle", "spec.insecureSkipTLSVerify"]
        );
    }

    #[test]
    fn only_what_this_server_answers_for_is_available() {
        let status = |service: Value| {
            let mut new = remote();
            set(&mut new, &["spec", "service"], service);
            prepare_service(&mut Change { old: None, new: &mut new });
            let condition = new["status"]["conditions"][0].take();
            assert_eq!(condition["lastTransitionTime"], "2026-01-01T00:00:00Z");
            (condition["status"].clone(), condition["reason"].clone())
        };
        assert_eq!(status(Value::Null), (json!("True"), json!("Local")));
        assert_eq!(status(json!({"name": "a"})), (json!("False"), json!("NotForwarded")));
    }
}
