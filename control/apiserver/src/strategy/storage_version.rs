//! In which versions servers store a resource (`StorageVersion`, internal.apiserver.k8s.io/v1alpha1), and the wish that all
//! its objects be stored anew (`StorageVersionMigration`, storagemigration.k8s.io/v1beta1).

use std::collections::HashSet;

use serde_json::Value;

use super::Change;
use crate::resources::Sub;
use crate::tree::{at, list, text};
use crate::validate::{self, Errors};

/// `group.resource`.
pub fn version_name(name: &str) -> Result<(), String> {
    match name.rsplit_once('.') {
        Some((group, resource)) if !group.is_empty() && !resource.is_empty() => validate::subdomain(name),
        _ => Err("name must be in the form of <group>.<resource>".to_owned()),
    }
}

/// Every server can read what it writes, and all agree, or nothing is said to be common.
pub fn validate_status(_: Sub, change: &Change<'_>, errors: &mut Errors) {
    let status = at(change.new, &["status"]);
    let servers = list(status, &["storageVersions"]);
    for (index, server) in servers.iter().enumerate() {
        let here = format!("status.storageVersions[{index}]");
        errors.check(format!("{here}.apiServerID"), text(server, &["apiServerID"]), validate::subdomain);
        let (writes, reads) = (at(server, &["encodingVersion"]), list(server, &["decodableVersions"]));
        let readable: HashSet<&Value> = reads.iter().collect();
        if !readable.contains(writes) {
            let detail = format!("decodableVersions must include encodingVersion {}", text(writes, &[]));
            errors.invalid(format!("{here}.decodableVersions"), &reads.into(), &detail);
        }
        if list(server, &["servedVersions"]).iter().any(|served| !readable.contains(served)) {
            let detail = "individual served version must be included in decodableVersions";
            errors.invalid(format!("{here}.servedVersions"), at(server, &["servedVersions"]), detail);
        }
    }
    let first = servers.first().map(|server| at(server, &["encodingVersion"]));
    let common =
        first.filter(|first| servers.iter().all(|server| at(server, &["encodingVersion"]) == *first));
    let said = at(status, &["commonEncodingVersion"]);
    if said != common.unwrap_or(&Value::Null) {
        let detail = common
            .map_or("should be nil if servers do not agree on the encoding version".to_owned(), |one| {
                format!("the actual common encoding version is {}", text(one, &[]))
            });
        errors.invalid("status.commonEncodingVersion", said, &detail);
    }
}

pub fn validate_migration(change: &Change<'_>, errors: &mut Errors) {
    let spec = at(change.new, &["spec"]);
    if let Some(old) = change.old {
        errors.immutable("spec", at(old, &["spec"]), spec);
        return;
    }
    match text(spec, &["resource", "resource"]) {
        "" => errors.required("spec.resource.resource", "resource is required"),
        resource => errors.check("spec.resource.resource", resource, validate::dns1035_label),
    }
    let group = text(spec, &["resource", "group"]);
    if !group.is_empty() {
        errors.check("spec.resource.group", group, validate::subdomain);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::strategy::device_claim::tests::fields;

    #[test]
    fn servers_agree_on_what_is_common() {
        let server = |id: &str, writes: &str| json!({"apiServerID": id, "encodingVersion": writes, "decodableVersions": ["v1", "v2"], "servedVersions": ["v1"]});
        let check = |servers: Vec<Value>, common: Value| {
            let old = json!({});
            let mut new = json!({"status": {"storageVersions": servers, "commonEncodingVersion": common}});
            fields(|errors| validate_status(Sub::Status, &Change { old: Some(&old), new: &mut new }, errors))
        };
        let common = "status.commonEncodingVersion";
        assert_eq!(check(vec![server("a", "v1"), server("b", "v1")], json!("v1")), Vec::<String>::new());
        assert_eq!(check(vec![server("a", "v1"), server("b", "v2")], Value::Null), Vec::<String>::new());
        assert_eq!(check(vec![server("a", "v1"), server("b", "v2")], json!("v1")), [common]);
        assert_eq!(check(vec![server("a", "v1")], Value::Null), [common]);
        let place = "status.storageVersions[0].decodableVersions";
        assert_eq!(check(vec![server("a", "v3")], json!("v3")), [place]);
        assert!(version_name("apps.deployments").is_ok() && version_name("pods").is_err());
    }

    #[test]
    fn a_migration_is_of_a_resource() {
        let check = |spec: Value| {
            let mut new = json!({"spec": spec});
            fields(|errors| validate_migration(&Change { old: None, new: &mut new }, errors))
        };
        assert_eq!(
            check(json!({"resource": {"group": "apps", "resource": "deployments"}})),
            Vec::<String>::new()
        );
        assert_eq!(check(json!({"resource": {"group": "apps"}})), ["spec.resource.resource"]);
        assert_eq!(check(json!({"resource": {"group": "-", "resource": "pods"}})), ["spec.resource.group"]);
    }
}
