//! What kinds have of their own: defaults that depend on other fields, what the server decides, and validation.
//!
//! Everything here is pure. A row of `resources/rows.rs` names the functions it uses.

pub mod addresses;
pub mod admission_policy;
mod admission_rules;
pub mod api_service;
pub mod autoscaler;
pub mod certificate;
pub mod claim;
mod claim_spec;
mod conditions;
pub mod config;
pub mod cron_job;
pub mod csi;
pub mod device_allocation;
pub mod device_claim;
pub mod device_class;
pub mod device_slice;
pub mod device_taint;
pub mod disruption_budget;
pub mod endpoint_slice;
pub mod endpoints;
pub mod event;
pub mod flow_schema;
pub mod ingress;
pub mod job;
mod job_policies;
pub mod lease_candidate;
pub mod limit_range;
mod local_path;
pub mod meta;
pub mod network_policy;
pub mod node;
pub mod persistent_volume;
pub mod pod;
pub mod pod_certificate;
pub mod pod_changes;
pub mod pod_group;
mod pod_label_keys;
mod pod_rules;
mod pod_sizes;
mod pod_spec;
pub mod pod_status;
mod pod_update;
pub mod priority_class;
pub mod priority_level;
mod projected;
pub mod quota;
pub mod rbac;
mod resource_names;
pub mod revision;
pub mod service;
pub mod service_cidr;
mod service_families;
pub mod service_rules;
pub mod sets;
pub mod storage;
pub mod storage_version;
pub mod sysctls;
pub mod system;
pub mod trust_bundle;
mod volume_mounts;
mod volume_rules;
mod volume_sources;
mod volumes;
pub mod warnings;
pub mod webhook;
pub mod workload;
pub mod workload_status;

use serde_json::Value;

use crate::resources::Sub;
use crate::validate::Errors;

/// A write in progress.
#[derive(Debug)]
pub struct Change<'a> {
    /// The object before; `None` when it is created.
    pub old: Option<&'a Value>,
    pub new: &'a mut Value,
}

pub fn no_defaults(_: &mut Value) {}

pub fn no_preparation(_: &mut Change<'_>) {}

pub fn no_validation(_: &Change<'_>, _: &mut Errors) {}

pub fn no_warnings(_: &Change<'_>) -> Vec<String> {
    Vec::new()
}

pub fn no_validation_of_parts(_: Sub, _: &Change<'_>, _: &mut Errors) {}

/// What a check reports, as `field: message`.
#[cfg(test)]
fn told(check: impl FnOnce(&mut Errors)) -> Vec<String> {
    let mut errors = Errors::default();
    check(&mut errors);
    errors.into_causes().into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
}
