//! PersistentVolumeClaims: defaults, what the server decides, validation, and what of them may change.

use serde_json::{Value, json};

use super::{Change, claim_spec};
use crate::resources::Sub;
use crate::schema::Quantity;
use crate::tree::{at, fields, list, remove, set, set_default, strings, text};
use crate::validate::{self, Errors};

/// Where claims named their class before there was a field for it.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

pub fn default_claim(claim: &mut Value) {
    set_default(claim, &["status", "phase"], "Pending");
    set_default(claim, &["spec", "volumeMode"], "Filesystem");
}

pub fn prepare_claim(change: &mut Change<'_>) {
    if change.old.is_none() {
        set(change.new, &["status"], json!({ "phase": "Pending" }));
    }
    let before = change.old.map_or(&Value::Null, |old| at(old, &["spec"]));
    let had = |field: &str| !at(before, &[field]).is_null();
    if !had("dataSource") && !had("dataSourceRef") {
        drop_sources(change.new);
    }
    agree_on_sources(change.new);
}

/// Sources that nobody makes volumes from are not kept, as upstream forgets them.
fn drop_sources(claim: &mut Value) {
    if !text(claim, &["spec", "dataSourceRef", "namespace"]).is_empty() {
        remove(claim, &["spec", "dataSourceRef"]);
    }
    let source = at(claim, &["spec", "dataSource"]);
    let known = matches!(
        (text(source, &["apiGroup"]), text(source, &["kind"])),
        ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
    );
    if !source.is_null() && !known {
        remove(claim, &["spec", "dataSource"]);
    }
}

/// The old name of the field and the new one say the same.
fn agree_on_sources(claim: &mut Value) {
    let [old, new] = ["dataSource", "dataSourceRef"].map(|field| at(claim, &["spec", field]).clone());
    if old.is_object() && new.is_null() {
        set(claim, &["spec", "dataSourceRef"], old);
    } else if new.is_object() && old.is_null() && text(&new, &["namespace"]).is_empty() {
        let mut local = new;
        remove(&mut local, &["namespace"]);
        set(claim, &["spec", "dataSource"], local);
    }
}

pub fn validate_claim(change: &Change<'_>, errors: &mut Errors) {
    let before = change.old.map_or(&Value::Null, |old| at(old, &["spec"]));
    claim_spec::validate(at(change.new, &["spec"]), before, "spec", errors);
    if let Some(old) = change.old {
        validate_changes(old, change.new, errors);
    }
}

const IMMUTABLE: &str = "spec is immutable after creation except resources.requests and volumeAttributesClassName \
     for bound claims\n";

fn validate_changes(old: &Value, new: &Value, errors: &mut Errors) {
    let (mut before, mut after) = (at(old, &["spec"]).clone(), at(new, &["spec"]).clone());
    agree_on_sources_of(&mut before);
    let given_once = [
        ("volumeName", text(&before, &["volumeName"]).is_empty()),
        ("storageClassName", may_name_class(old, new, errors)),
    ];
    for (field, _) in given_once.iter().filter(|(_, may_come)| *may_come) {
        crate::tree::copy(&mut after, &before, &[field]);
    }
    if text(new, &["status", "phase"]) == "Bound" {
        keep_changeable(&before, &mut after);
    }
    if before != after {
        errors.forbidden("spec", IMMUTABLE);
    }
    validate_shrinking(old, new, errors);
    let mode = |claim| at(claim, &["spec", "volumeMode"]);
    errors.immutable("volumeMode", mode(old), mode(new));
    validate_attributes_kept(old, new, errors);
}

/// A claim keeps to classes of attributes once it has those of one.
fn validate_attributes_kept(old: &Value, new: &Value, errors: &mut Errors) {
    let class = |claim| at(claim, &["spec", "volumeAttributesClassName"]);
    if class(old) == class(new) || at(old, &["status", "currentVolumeAttributesClassName"]).is_null() {
        return;
    }
    let to = match class(new) {
        Value::Null => "nil",
        name if name == "" => "empty string",
        _ => return,
    };
    let why = format!("update to {to} is forbidden when status.currentVolumeAttributesClassName is not nil");
    errors.forbidden("spec.volumeAttributesClassName", &why);
}

fn agree_on_sources_of(spec: &mut Value) {
    let mut claim = json!({ "spec": spec.take() });
    agree_on_sources(&mut claim);
    *spec = claim["spec"].take();
}

/// Whether a claim gets the name of its class now, from its annotation or from nowhere.
fn may_name_class(old: &Value, new: &Value, errors: &mut Errors) -> bool {
    let annotation = |claim| at(claim, &["metadata", "annotations", CLASS_ANNOTATION]);
    let class = |claim| at(claim, &["spec", "storageClassName"]);
    let is_new = class(old).is_null() && !class(new).is_null();
    let (was, is) = (annotation(old), annotation(new));
    if is_new && !was.is_null() && was == class(new) && (is.is_null() || is == was) {
        return true;
    }
    if was.as_str().unwrap_or_default() != is.as_str().unwrap_or_default() {
        let place = format!("metadata.annotations[{CLASS_ANNOTATION}]");
        errors.invalid(place, &Value::from(is.as_str().unwrap_or_default()), "field is immutable");
    }
    is_new && (was.is_null() || was == class(new))
}

/// What a claim with a volume may change is made what it was.
fn keep_changeable(before: &Value, after: &mut Value) {
    if at(after, &["resources", "requests"]).is_object() {
        crate::tree::copy(after, before, &["resources", "requests", "storage"]);
    }
    crate::tree::copy(after, before, &["volumeAttributesClassName"]);
}

/// A claim asks for less only after it asked for more and did not get it.
fn validate_shrinking(old: &Value, new: &Value, errors: &mut Errors) {
    let amount = |claim, path: &[&str]| {
        let text = text(claim, path);
        Quantity::parse(if text.is_empty() { "0" } else { text })
    };
    let asked = |claim| amount(claim, &["spec", "resources", "requests", "storage"]);
    let got = amount(old, &["status", "capacity", "storage"]);
    if asked(new) < asked(old) && asked(new) <= got {
        errors.forbidden("spec.resources.requests.storage", "field can not be less than status.capacity");
    }
}

const RESIZING: &[&str] = &[
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

/// Checks what a status says of sizes.
pub fn validate_status(_: Sub, change: &Change<'_>, errors: &mut Errors) {
    let status = at(change.new, &["status"]);
    if list(change.new, &["spec", "accessModes"]).is_empty() {
        errors.required("Spec.accessModes", "");
    }
    for (name, amount) in strings(status, &["capacity"]) {
        not_negative(amount, &format!("status.capacity[{name}]"), errors);
    }
    let place = "status.allocatedResourceStatuses";
    for (name, state) in strings(status, &["allocatedResourceStatuses"]) {
        validate_resource(name, place, errors);
        if !RESIZING.contains(&state) {
            errors.must_be(place, name, RESIZING);
        }
    }
    for (name, amount) in fields(status, &["allocatedResources"]) {
        let before = errors.len();
        validate_resource(name, "status.allocatedResources", errors);
        if errors.len() == before {
            let place = format!("status.allocatedResources[{name}]");
            not_negative(amount.as_str().unwrap_or_default(), &place, errors);
        }
    }
}

fn not_negative(amount: &str, here: &str, errors: &mut Errors) {
    let Some((amount, nothing)) = Quantity::parse(amount).zip(Quantity::parse("0")) else { return };
    if amount < nothing {
        // Upstream shows the whole number.
        let shown = amount.to_string();
        let shown = shown.parse::<i64>().map_or_else(|_| Value::from(shown), Value::from);
        errors.invalid(here, &shown, "must be a valid resource quantity");
    }
}

/// Of the resources that have no other owner a claim has storage only.
fn validate_resource(name: &str, here: &str, errors: &mut Errors) {
    if let Err(why) = validate::label_key(name) {
        errors.invalid(here, &Value::from(name), &why);
    } else if !name.contains('/') || name.contains("kubernetes.io/") {
        errors.must_be(here, name, &["storage"]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::told;

    fn claim(spec: &Value, status: &Value) -> Value {
        let mut claim = json!({"metadata": {"name": "c", "annotations": {}}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "2Gi"}}}, "status": status});
        json_patch::merge(&mut claim["spec"], spec);
        default_claim(&mut claim);
        claim
    }

    fn found(old: &Value, mut new: Value) -> String {
        told(|errors| validate_claim(&Change { old: Some(old), new: &mut new }, errors)).join("; ")
    }

    #[test]
    fn the_two_names_of_a_source_agree() {
        let pvc = json!({"kind": "PersistentVolumeClaim", "name": "c"});
        let populator = json!({"apiGroup": "x.io", "kind": "Populator", "name": "p"});
        for (spec, want) in [
            (json!({"dataSource": pvc}), json!({"dataSource": pvc, "dataSourceRef": pvc})),
            (
                json!({"dataSourceRef": populator}),
                json!({"dataSource": populator, "dataSourceRef": populator}),
            ),
            (json!({"dataSource": populator}), json!({})),
            (
                json!({"dataSourceRef": {"kind": "PersistentVolumeClaim", "name": "c", "namespace": "n"}}),
                json!({}),
            ),
        ] {
            let mut new = claim(&spec, &json!({}));
            prepare_claim(&mut Change { old: None, new: &mut new });
            let mut left = json!({});
            for field in ["dataSource", "dataSourceRef"] {
                crate::tree::copy(&mut left, &new["spec"], &[field]);
            }
            assert_eq!((left, &new["status"]["phase"]), (want, &json!("Pending")));
        }
    }

    #[test]
    fn a_claim_changes_little() {
        let immutable = format!("spec: Forbidden: {IMMUTABLE}");
        let (pending, bound) =
            (json!({"phase": "Pending"}), json!({"phase": "Bound", "capacity": {"storage": "1Gi"}}));
        let modified = json!({"phase": "Bound", "currentVolumeAttributesClassName": "a"});
        let (kept, why) = (
            "spec.volumeAttributesClassName: Forbidden: update",
            "is forbidden when status.currentVolumeAttributesClassName is not nil",
        );
        let size = |size: &str| json!({"resources": {"requests": {"storage": size}}});
        for (before, status, change, want) in [
            (json!({}), &pending, json!({"volumeName": "v"}), String::new()),
            (json!({"volumeName": "v"}), &pending, json!({"volumeName": "w"}), immutable.clone()),
            (json!({}), &pending, json!({"storageClassName": "gold"}), String::new()),
            (
                json!({"storageClassName": "gold"}),
                &pending,
                json!({"storageClassName": "lead"}),
                immutable.clone(),
            ),
            (json!({}), &pending, size("3Gi"), immutable.clone()),
            (json!({}), &bound, size("3Gi"), String::new()),
            (json!({}), &bound, size("1500Mi"), String::new()),
            (
                json!({}),
                &bound,
                size("1Gi"),
                "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"
                    .to_owned(),
            ),
            (json!({}), &bound, json!({"accessModes": ["ReadWriteMany"]}), immutable.clone()),
            (
                json!({}),
                &bound,
                json!({"volumeMode": "Block"}),
                format!("{immutable}; volumeMode: Invalid value: \"Block\": field is immutable"),
            ),
            (
                json!({"volumeAttributesClassName": "a"}),
                &bound,
                json!({"volumeAttributesClassName": "b"}),
                String::new(),
            ),
            (
                json!({"volumeAttributesClassName": "a"}),
                &bound,
                json!({"volumeAttributesClassName": ""}),
                String::new(),
            ),
            (
                json!({"volumeAttributesClassName": "a"}),
                &bound,
                json!({"volumeAttributesClassName": null}),
                String::new(),
            ),
            (
                json!({"volumeAttributesClassName": "a"}),
                &modified,
                json!({"volumeAttributesClassName": "b"}),
                String::new(),
            ),
            (
                json!({"volumeAttributesClassName": "a"}),
                &modified,
                json!({"volumeAttributesClassName": ""}),
                format!("{kept} to empty string {why}"),
            ),
            (
                json!({"volumeAttributesClassName": "a"}),
                &modified,
                json!({"volumeAttributesClassName": null}),
                format!("{kept} to nil {why}"),
            ),
            (
                json!({"volumeAttributesClassName": "a"}),
                &pending,
                json!({"volumeAttributesClassName": "b"}),
                immutable,
            ),
        ] {
            let old = claim(&before, status);
            let mut new = old.clone();
            json_patch::merge(&mut new["spec"], &change);
            assert_eq!(found(&old, new), want, "{change}");
        }
    }

    #[test]
    fn a_class_moves_from_its_annotation_to_its_field() {
        let mut old = claim(&json!({}), &json!({}));
        old["metadata"]["annotations"][CLASS_ANNOTATION] = json!("gold");
        let mut new = old.clone();
        new["spec"]["storageClassName"] = json!("gold");
        assert_eq!(found(&old, new.clone()), "");
        new["metadata"]["annotations"] = json!({});
        assert_eq!(found(&old, new.clone()), "");
        new["spec"]["storageClassName"] = json!("lead");
        let place =
            format!("metadata.annotations[{CLASS_ANNOTATION}]: Invalid value: \"\": field is immutable");
        assert_eq!(found(&old, new), format!("{place}; spec: Forbidden: {IMMUTABLE}"));
    }

    #[test]
    fn a_status_tells_sizes() {
        let resizing = "supported values: \"ControllerResizeInProgress\", \"ControllerResizeInfeasible\", \"NodeResizeInProgress\", \"NodeResizeInfeasible\", \"NodeResizePending\"";
        for (status, want) in [
            (
                json!({"capacity": {"storage": "1Gi"}, "allocatedResources": {"storage": "1Gi", "x.io/y": "1"}}),
                String::new(),
            ),
            (json!({"allocatedResourceStatuses": {"storage": "NodeResizePending"}}), String::new()),
            (
                json!({"capacity": {"storage": "-1"}}),
                "status.capacity[storage]: Invalid value: -1: must be a valid resource quantity".to_owned(),
            ),
            (
                json!({"allocatedResourceStatuses": {"storage": "Soon"}}),
                format!("status.allocatedResourceStatuses: Unsupported value: \"storage\": {resizing}"),
            ),
            (
                json!({"allocatedResources": {"cpu": "1"}}),
                "status.allocatedResources: Unsupported value: \"cpu\": supported values: \"storage\""
                    .to_owned(),
            ),
            (
                json!({"allocatedResources": {"storage": "-1"}}),
                "status.allocatedResources[storage]: Invalid value: -1: must be a valid resource quantity"
                    .to_owned(),
            ),
        ] {
            let mut new = claim(&json!({}), &status);
            let change = Change { old: None, new: &mut new };
            assert_eq!(
                told(|errors| validate_status(Sub::Status, &change, errors)).join("; "),
                want,
                "{status}"
            );
        }
    }
}
