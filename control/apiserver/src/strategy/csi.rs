//! Drivers of storage, the nodes they are on, and what they attached there.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use super::Change;
use super::persistent_volume::validate_inline;
use super::projected::validate_expiration;
use super::volume_sources::csi_driver;
use crate::resources::Sub;
use crate::tree::{at, int, list, set_default, strings, text};
use crate::validate::{self, Errors};

pub fn default_driver(driver: &mut Value) {
    for (field, value) in [
        ("attachRequired", json!(true)),
        ("podInfoOnMount", json!(false)),
        ("storageCapacity", json!(false)),
        ("fsGroupPolicy", json!("ReadWriteOnceWithFSType")),
        ("volumeLifecycleModes", json!(["Persistent"])),
        ("requiresRepublish", json!(false)),
        ("seLinuxMount", json!(false)),
    ] {
        set_default(driver, &["spec", field], value);
    }
}

/// Seconds between two looks at how many volumes fit on a node.
const SHORTEST_PERIOD: i64 = 10;

pub fn validate_driver(change: &Change<'_>, errors: &mut Errors) {
    let spec = at(change.new, &["spec"]);
    let policies = ["File", "None", "ReadWriteOnceWithFSType"];
    errors.must_be("spec.fsGroupPolicy", text(spec, &["fsGroupPolicy"]), &policies);
    let period = int(spec, &["nodeAllocatableUpdatePeriodSeconds"]);
    if let Some(period) = period.filter(|period| *period < SHORTEST_PERIOD) {
        let why = "must be greater than or equal to 10 seconds";
        errors.invalid("spec.nodeAllocatableUpdatePeriodSeconds", &period.into(), why);
    }
    validate_tokens(spec, errors);
    for mode in list(spec, &["volumeLifecycleModes"]).iter().filter_map(Value::as_str) {
        errors.must_be("spec.volumeLifecycleModes", mode, &["Persistent", "Ephemeral"]);
    }
    if let Some(old) = change.old {
        for (field, place) in [
            ("attachRequired", "spec.attachedRequired"),
            ("volumeLifecycleModes", "spec.volumeLifecycleModes"),
        ] {
            errors.immutable(place, at(old, &["spec", field]), at(spec, &[field]));
        }
    }
}

fn validate_tokens(spec: &Value, errors: &mut Errors) {
    let mut audiences = HashSet::new();
    for (index, request) in list(spec, &["tokenRequests"]).iter().enumerate() {
        let place = format!("spec.tokenRequests[{index}]");
        let audience = text(request, &["audience"]);
        if !audiences.insert(audience) {
            errors.duplicate(format!("{place}.audience"), &Value::from(audience));
        } else if let Some(seconds) = int(request, &["expirationSeconds"]) {
            validate_expiration(seconds, &format!("{place}.expirationSeconds"), errors);
        }
    }
    let in_secrets = at(spec, &["serviceAccountTokenInSecrets"]);
    if !in_secrets.is_null() && audiences.is_empty() {
        let why = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
        errors.invalid("spec.serviceAccountTokenInSecrets", in_secrets, why);
    }
}

const LONGEST_NODE: usize = 256;

pub fn validate_node(change: &Change<'_>, errors: &mut Errors) {
    let drivers = list(change.new, &["spec", "drivers"]);
    let mut names = HashSet::new();
    for (index, driver) in drivers.iter().enumerate() {
        let place = format!("spec.drivers[{index}]");
        let name = text(driver, &["name"]);
        validate_node_driver(driver, &place, errors);
        if !names.insert(name) {
            errors.duplicate(format!("{place}.name"), &Value::from(name));
        }
        validate_keys(driver, &place, errors);
    }
    let Some(old) = change.old else { return };
    let mut named: HashMap<&str, Vec<&Value>> = HashMap::new();
    drivers.iter().for_each(|new| named.entry(text(new, &["name"])).or_default().push(new));
    for old in list(old, &["spec", "drivers"]) {
        let same = named.get(text(old, &["name"])).into_iter().flatten();
        for new in same.filter(|new| !is_same(old, new)) {
            errors.invalid("CSINodeDriver", &shown(new), "field is immutable");
        }
    }
}

fn validate_node_driver(driver: &Value, here: &str, errors: &mut Errors) {
    csi_driver(text(driver, &["name"]), &format!("{here}.name"), errors);
    let (node, place) = (text(driver, &["nodeID"]), format!("{here}.nodeID"));
    if node.is_empty() {
        errors.required(place, "");
    } else if node.len() > LONGEST_NODE {
        let why = format!("must be {LONGEST_NODE} characters or less");
        errors.invalid(place, &Value::from(node), &why);
    }
    errors.not_negative(format!("{here}.allocatable.count"), int(driver, &["allocatable", "count"]));
}

fn validate_keys(driver: &Value, here: &str, errors: &mut Errors) {
    let mut keys = HashSet::new();
    for key in list(driver, &["topologyKeys"]).iter().filter_map(Value::as_str) {
        if key.is_empty() {
            errors.required(here, "");
        }
        if !keys.insert(key) {
            errors.duplicate(here, &Value::from(key));
        }
        errors.check(here, key, validate::label_key);
    }
}

/// How many volumes fit may change, nothing else.
fn is_same(old: &Value, new: &Value) -> bool {
    ["name", "nodeID", "topologyKeys"].iter().all(|field| at(old, &[field]) == at(new, &[field]))
}

/// A driver with the names of its fields in Go, as upstream shows it.
fn shown(driver: &Value) -> Value {
    let field = |name: &str| at(driver, &[name]).clone();
    let allocatable = match at(driver, &["allocatable"]) {
        Value::Null => Value::Null,
        amounts => json!({ "Count": at(amounts, &["count"]) }),
    };
    json!({ "Name": field("name"), "NodeID": field("nodeID"), "TopologyKeys": field("topologyKeys"),
        "Allocatable": allocatable })
}

/// Upstream's bounds on what is told of an attachment.
const MAX_METADATA: usize = 256 << 10;
const MAX_MESSAGE: usize = 1 << 10;

pub fn validate_attachment(change: &Change<'_>, errors: &mut Errors) {
    let spec = at(change.new, &["spec"]);
    if text(spec, &["attacher"]).is_empty() {
        errors.required("spec.attacher", "");
    }
    validate_source(at(spec, &["source"]), errors);
    errors.check("spec.nodeName", text(spec, &["nodeName"]), validate::subdomain);
    validate_status(change.new, errors);
    match change.old {
        Some(old) if at(old, &["spec"]) != spec => {
            errors.invalid("spec", &shown_attachment(spec), "field is immutable");
        }
        Some(_) => {}
        None => {
            csi_driver(text(spec, &["attacher"]), "spec.attacher", errors);
            if let Some(volume) = at(spec, &["source", "persistentVolumeName"]).as_str() {
                errors.check("spec.source.persistentVolumeName", volume, validate::subdomain);
            }
        }
    }
}

pub fn validate_attachment_status(_: Sub, change: &Change<'_>, errors: &mut Errors) {
    validate_status(change.new, errors);
}

fn validate_source(source: &Value, errors: &mut Errors) {
    const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (at(source, &["inlineVolumeSpec"]), at(source, &["persistentVolumeName"])) {
        (Value::Null, Value::Null) => errors.required("spec.source", ONE),
        (Value::Null, name) if name == "" => {
            errors
                .required("spec.source.persistentVolumeName", "must specify non empty persistentVolumeName");
        }
        (Value::Null, _) => {}
        (inline, Value::Null) => validate_inline(inline, "spec.source.inlineVolumeSpec", errors),
        _ => errors.forbidden("spec.source", ONE),
    }
}

fn validate_status(attachment: &Value, errors: &mut Errors) {
    let status = at(attachment, &["status"]);
    let told = strings(status, &["attachmentMetadata"]).map(|(key, value)| key.len() + value.len());
    if told.sum::<usize>() > MAX_METADATA {
        errors.too_long("status.attachmentMetadata", MAX_METADATA);
    }
    for field in ["attachError", "detachError"] {
        // Upstream names the other bound.
        if text(status, &[field, "message"]).len() > MAX_MESSAGE {
            errors.too_long(format!("status.{field}.message"), MAX_METADATA);
        }
    }
}

/// What is attached with the names of its fields in Go, as upstream shows it.
fn shown_attachment(spec: &Value) -> Value {
    let field = |path: &[&str]| at(spec, path).clone();
    json!({ "Attacher": field(&["attacher"]), "Source": {
        "PersistentVolumeName": field(&["source", "persistentVolumeName"]),
        "InlineVolumeSpec": field(&["source", "inlineVolumeSpec"]) }, "NodeName": field(&["nodeName"]) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::told;

    fn found(validate: fn(&Change<'_>, &mut Errors), base: &Value, more: &Value, is_update: bool) -> String {
        let mut new = base.clone();
        json_patch::merge(&mut new, more);
        told(|errors| validate(&Change { old: is_update.then_some(base), new: &mut new }, errors)).join("; ")
    }

    #[test]
    fn drivers_say_what_they_need() {
        let mut driver = json!({"spec": {}});
        default_driver(&mut driver);
        let tokens = |tokens: Value| json!({"spec": {"tokenRequests": tokens}});
        for (more, want) in [
            (json!({}), ""),
            (tokens(json!([{"audience": "a"}, {"audience": "b", "expirationSeconds": 600}])), ""),
            (
                json!({"spec": {"fsGroupPolicy": "Some"}}),
                "spec.fsGroupPolicy: Unsupported value: \"Some\": supported values: \"File\", \"None\", \"ReadWriteOnceWithFSType\"",
            ),
            (
                tokens(json!([{"audience": "a"}, {"audience": "a"}])),
                "spec.tokenRequests[1].audience: Duplicate value: \"a\"",
            ),
            (
                tokens(json!([{"audience": "a", "expirationSeconds": 1}])),
                "spec.tokenRequests[0].expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes",
            ),
            (
                json!({"spec": {"volumeLifecycleModes": ["Some"]}}),
                "spec.volumeLifecycleModes: Unsupported value: \"Some\": supported values: \"Persistent\", \"Ephemeral\"",
            ),
            (
                json!({"spec": {"nodeAllocatableUpdatePeriodSeconds": 9}}),
                "spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 9: must be greater than or equal to 10 seconds",
            ),
            (
                json!({"spec": {"serviceAccountTokenInSecrets": true}}),
                "spec.serviceAccountTokenInSecrets: Invalid value: true: serviceAccountTokenInSecrets is set but no tokenRequests are specified",
            ),
        ] {
            assert_eq!(found(validate_driver, &driver, &more, false), want, "{more}");
        }
        let check = |more: Value| found(validate_driver, &driver, &more, true);
        assert_eq!(check(json!({"spec": {"podInfoOnMount": true}})), "");
        assert_eq!(
            check(json!({"spec": {"attachRequired": false}})),
            "spec.attachedRequired: Invalid value: false: field is immutable"
        );
    }

    #[test]
    fn nodes_name_each_driver_once() {
        let node = json!({"spec": {"drivers": [{"name": "d.io", "nodeID": "n", "topologyKeys": ["a"], "allocatable": {"count": 1}}]}});
        let with = |driver: Value| json!({"spec": {"drivers": [driver]}});
        let place = "spec.drivers[0]";
        for (more, want) in [
            (json!({}), String::new()),
            (with(json!({"name": "d.io"})), format!("{place}.nodeID: Required value")),
            (
                with(json!({"name": "d.io", "nodeID": "n".repeat(257)})),
                format!(
                    "{place}.nodeID: Invalid value: \"{}\": must be 256 characters or less",
                    "n".repeat(257)
                ),
            ),
            (
                with(json!({"name": "d.io", "nodeID": "n", "allocatable": {"count": -1}})),
                format!("{place}.allocatable.count: Invalid value: -1: must be greater than or equal to 0"),
            ),
            (
                with(json!({"name": "d.io", "nodeID": "n", "topologyKeys": ["a", "a"]})),
                format!("{place}: Duplicate value: \"a\""),
            ),
            (
                json!({"spec": {"drivers": [{"name": "d", "nodeID": "n"}, {"name": "d", "nodeID": "n"}]}}),
                "spec.drivers[1].name: Duplicate value: \"d\"".to_owned(),
            ),
        ] {
            assert_eq!(found(validate_node, &node, &more, false), want, "{more}");
        }
        let check = |more: Value| found(validate_node, &node, &with(more), true);
        assert_eq!(
            check(json!({"name": "d.io", "nodeID": "n", "topologyKeys": ["a"], "allocatable": {"count": 2}})),
            ""
        );
        assert_eq!(check(json!({"name": "other", "nodeID": "m"})), "");
        assert_eq!(
            check(json!({"name": "d.io", "nodeID": "m"})),
            "CSINodeDriver: Invalid value: {\"Name\":\"d.io\",\"NodeID\":\"m\",\"TopologyKeys\":null,\"Allocatable\":null}: field is immutable"
        );
    }

    #[test]
    fn an_attachment_is_of_one_volume_to_one_node() {
        let attachment =
            json!({"spec": {"attacher": "d.io", "nodeName": "n", "source": {"persistentVolumeName": "v"}}});
        let source = |source: Value| json!({"spec": {"source": source}});
        let one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
        let inline =
            json!({"accessModes": ["ReadWriteOnce"], "csi": {"driver": "d.io", "volumeHandle": "h"}});
        for (more, want) in [
            (json!({}), String::new()),
            (source(json!({"persistentVolumeName": null, "inlineVolumeSpec": inline})), String::new()),
            (source(json!({"persistentVolumeName": null})), format!("spec.source: Required value: {one}")),
            (source(json!({"inlineVolumeSpec": inline})), format!("spec.source: Forbidden: {one}")),
            (
                json!({"status": {"attachError": {"message": "m".repeat(1025)}}}),
                "status.attachError.message: Too long: may not be more than 262144 bytes".to_owned(),
            ),
        ] {
            assert_eq!(found(validate_attachment, &attachment, &more, false), want, "{more}");
        }
        let long = json!({"spec": {"attacher": "a".repeat(64)}});
        assert_eq!(
            found(validate_attachment, &attachment, &long, false),
            "spec.attacher: Too long: may not be more than 63 bytes"
        );
        assert_eq!(
            found(validate_attachment, &attachment, &json!({"spec": {"nodeName": "m"}}), true),
            "spec: Invalid value: {\"Attacher\":\"d.io\",\"Source\":{\"PersistentVolumeName\":\"v\",\"InlineVolumeSpec\":null},\"NodeName\":\"m\"}: field is immutable"
        );
    }
}
