//! What the rows of one group or family have in common, and what is said about kinds with which something does not happen yet.

use super::{BASE, Resource, Sub};
use crate::printer::autoscaler as autoscaler_table;
use crate::strategy::autoscaler;
use crate::validate;

pub const ALL: &[&str] = &["all"];
pub const EXTENSIONS: &[&str] = &["api-extensions"];
pub const STATUS: &[Sub] = &[Sub::Status];
pub const SCALED: &[Sub] = &[Sub::Scale, Sub::Status];

pub const CORE: Resource = BASE;
pub const APPS: Resource = Resource { group: "apps", ..BASE };
/// The kind is stored as v2, with whose rules every version is held.
pub const AUTOSCALER: Resource = Resource {
    group: "autoscaling",
    kind: "HorizontalPodAutoscaler",
    plural: "horizontalpodautoscalers",
    short: &["hpa"],
    categories: ALL,
    storage: "horizontalpodautoscalers",
    subresources: STATUS,
    missing: NO_CONTROLLER,
    defaults: autoscaler::default_autoscaler,
    printer: &autoscaler_table::AUTOSCALER,
    ..BASE
};
pub const BATCH: Resource = Resource { group: "batch", ..BASE };
pub const NETWORKING: Resource = Resource { group: "networking.k8s.io", ..BASE };
pub const DEVICES: Resource = Resource { group: "resource.k8s.io", missing: NO_DRIVER, ..BASE };
pub const RBAC: Resource =
    Resource { group: "rbac.authorization.k8s.io", name: validate::path_segment, ..BASE };
pub const FLOW: Resource = Resource {
    group: "flowcontrol.apiserver.k8s.io",
    namespaced: false,
    subresources: STATUS,
    generation: true,
    missing: NOT_ENFORCED,
    ..BASE
};
pub const ADMISSION: Resource = Resource {
    group: "admissionregistration.k8s.io",
    categories: EXTENSIONS,
    namespaced: false,
    unconditional_update: false,
    generation: true,
    missing: NOT_ASKED,
    ..BASE
};
pub const STORAGE: Resource = Resource { group: "storage.k8s.io", namespaced: false, ..BASE };
pub const REVIEW: Resource = Resource { review: true, namespaced: false, ..BASE };

pub const NO_CONTROLLER: &str =
    "no controller acts on this kind yet: the object is kept and nothing is done about it";
pub const NOT_ENFORCED: &str =
    "objects of this kind are not enforced yet: the object is kept and nothing is held to it";
pub const NOT_ASKED: &str = "admission asks no webhooks and evaluates no policies yet: the object is kept and no request is held to it";
pub const NOT_FORWARDED: &str = "requests are not forwarded to other API servers yet: the object is kept, and what it names is not served";
pub const NO_VOLUMES: &str =
    "persistent volumes are not bound or mounted yet: the object is kept and pods that use it wait";
pub const NO_DRIVER: &str =
    "no driver of devices is asked yet: the object is kept, and pods that name a claim do not wait for it";
pub const NO_SIGNER: &str =
    "nothing signs certificates yet: the request is kept, and approving it leads to no certificate";
pub const ONE_RUNTIME: &str =
    "nodes take the name of the class for that of its handler yet: give both the same";
pub const NO_GROUPS: &str =
    "pods are not scheduled in groups yet: the object is kept, and its pods are scheduled one by one";
pub const NO_CANDIDATES: &str =
    "leaders are not chosen among candidates yet: the object is kept, and whoever takes the lease leads";

/// What may be asked of events of the core group.
pub const EVENT_FIELDS: &[(&str, &[&str])] = &[
    ("involvedObject.kind", &["involvedObject", "kind"]),
    ("involvedObject.namespace", &["involvedObject", "namespace"]),
    ("involvedObject.name", &["involvedObject", "name"]),
    ("involvedObject.uid", &["involvedObject", "uid"]),
    ("involvedObject.apiVersion", &["involvedObject", "apiVersion"]),
    ("involvedObject.resourceVersion", &["involvedObject", "resourceVersion"]),
    ("involvedObject.fieldPath", &["involvedObject", "fieldPath"]),
    ("reason", &["reason"]),
    ("reportingComponent", &["reportingComponent"]),
    ("source", &["source", "component"]),
    ("type", &["type"]),
];

/// What may be asked of events of `events.k8s.io`, and where it is in storage.
pub const NEW_EVENT_FIELDS: &[(&str, &[&str])] = &[
    ("regarding.kind", &["involvedObject", "kind"]),
    ("regarding.namespace", &["involvedObject", "namespace"]),
    ("regarding.name", &["involvedObject", "name"]),
    ("regarding.uid", &["involvedObject", "uid"]),
    ("regarding.apiVersion", &["involvedObject", "apiVersion"]),
    ("regarding.resourceVersion", &["involvedObject", "resourceVersion"]),
    ("regarding.fieldPath", &["involvedObject", "fieldPath"]),
    ("reason", &["reason"]),
    ("reportingController", &["reportingComponent"]),
    ("source", &["source", "component"]),
    ("type", &["type"]),
];
