//! The rows, by group.

use super::{BASE, Resource, Sub};
use crate::conversion::{autoscaler as autoscaler_versions, event};
use crate::definitions;
use crate::printer::{
    access, autoscaler as autoscaler_table, cluster, config, devices, flow_control as flow_tables, network,
    pods, storage, workloads,
};
use crate::strategy::{
    autoscaler, certificate, config as config_rules, device_allocation, device_claim, device_class,
    device_slice, flow_schema, network as network_rules, pod, pod_changes, priority_level,
    rbac as rbac_rules, service, service_cidr, storage as storage_rules, system, workload,
};
use crate::validate;

const ALL: &[&str] = &["all"];
const STATUS: &[Sub] = &[Sub::Status];
const SCALED: &[Sub] = &[Sub::Scale, Sub::Status];

const CORE: Resource = BASE;
const APPS: Resource = Resource { group: "apps", ..BASE };
/// The kind is stored as v2, with whose rules every version is held.
const AUTOSCALER: Resource = Resource {
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
const BATCH: Resource = Resource { group: "batch", ..BASE };
const NETWORKING: Resource = Resource { group: "networking.k8s.io", ..BASE };
const DEVICES: Resource = Resource { group: "resource.k8s.io", missing: NO_DRIVER, ..BASE };
const RBAC: Resource = Resource { group: "rbac.authorization.k8s.io", name: validate::path_segment, ..BASE };
const FLOW: Resource = Resource {
    group: "flowcontrol.apiserver.k8s.io",
    namespaced: false,
    subresources: STATUS,
    generation: true,
    missing: NOT_ENFORCED,
    ..BASE
};
const STORAGE: Resource = Resource { group: "storage.k8s.io", namespaced: false, ..BASE };
const REVIEW: Resource = Resource { review: true, namespaced: false, ..BASE };

const NO_CONTROLLER: &str =
    "no controller acts on this kind yet: the object is kept and nothing is done about it";
const NOT_ENFORCED: &str =
    "objects of this kind are not enforced yet: the object is kept and nothing is held to it";
const NO_VOLUMES: &str =
    "persistent volumes are not bound or mounted yet: the object is kept and pods that use it wait";
const NO_DRIVER: &str =
    "no driver of devices is asked yet: the object is kept, and pods that name a claim do not wait for it";
const NO_SIGNER: &str =
    "nothing signs certificates yet: the request is kept, and approving it leads to no certificate";
const ONE_RUNTIME: &str = "nodes take the name of the class for that of its handler yet: give both the same";

/// Seconds for which an event is kept after it last happened, as upstream.
const EVENT_LIFETIME: u64 = 3600;

/// Every kind that is served.
pub static RESOURCES: &[Resource] = &[
    Resource { kind: "Binding", plural: "bindings", storage: "bindings", review: true, ..CORE },
    Resource {
        kind: "ConfigMap",
        plural: "configmaps",
        short: &["cm"],
        storage: "configmaps",
        validate: config_rules::validate_config_map,
        printer: &config::CONFIG_MAP,
        ..CORE
    },
    Resource {
        kind: "Endpoints",
        plural: "endpoints",
        short: &["ep"],
        storage: "services/endpoints",
        create_on_update: true,
        defaults: network_rules::default_endpoints,
        printer: &network::ENDPOINTS,
        ..CORE
    },
    Resource {
        kind: "Event",
        plural: "events",
        short: &["ev"],
        storage: "events",
        lifetime: EVENT_LIFETIME,
        create_on_update: true,
        unconditional_update: true,
        name: validate::subdomain,
        defaults: config_rules::default_event,
        selectable: &[
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
        ],
        printer: &config::EVENT,
        ..CORE
    },
    Resource {
        kind: "LimitRange",
        defaults: crate::admission::limits::default_limit_range,
        plural: "limitranges",
        short: &["limits"],
        storage: "limitranges",
        printer: &config::LIMIT_RANGE,
        ..CORE
    },
    Resource {
        kind: "Namespace",
        plural: "namespaces",
        short: &["ns"],
        namespaced: false,
        storage: "namespaces",
        subresources: &[Sub::Finalize, Sub::Status],
        selectable: &[("name", &["metadata", "name"]), ("status.phase", &["status", "phase"])],
        name: validate::label,
        returns_deleted: true,
        defaults: system::default_namespace,
        prepare: system::prepare_namespace,
        printer: &cluster::NAMESPACE,
        ..CORE
    },
    Resource {
        kind: "Node",
        plural: "nodes",
        short: &["no"],
        namespaced: false,
        storage: "minions",
        subresources: &[Sub::Proxy, Sub::Status],
        selectable: &[("spec.unschedulable", &["spec", "unschedulable"])],
        validate: system::validate_node,
        printer: &cluster::NODE,
        ..CORE
    },
    Resource {
        kind: "PersistentVolumeClaim",
        missing: NO_VOLUMES,
        plural: "persistentvolumeclaims",
        short: &["pvc"],
        storage: "persistentvolumeclaims",
        subresources: STATUS,
        returns_deleted: true,
        defaults: storage_rules::default_claim,
        prepare: storage_rules::prepare_claim,
        validate: storage_rules::validate_claim,
        printer: &storage::CLAIM,
        ..CORE
    },
    Resource {
        kind: "PersistentVolume",
        missing: NO_VOLUMES,
        plural: "persistentvolumes",
        short: &["pv"],
        namespaced: false,
        storage: "persistentvolumes",
        subresources: STATUS,
        returns_deleted: true,
        defaults: storage_rules::default_volume,
        prepare: storage_rules::prepare_volume,
        validate: storage_rules::validate_volume,
        printer: &storage::VOLUME,
        ..CORE
    },
    Resource {
        kind: "Pod",
        plural: "pods",
        short: &["po"],
        categories: ALL,
        storage: "pods",
        subresources: &[
            Sub::Attach,
            Sub::Binding,
            Sub::EphemeralContainers,
            Sub::Eviction,
            Sub::Exec,
            Sub::Log,
            Sub::PortForward,
            Sub::Proxy,
            Sub::Resize,
            Sub::Status,
        ],
        selectable: &[
            ("spec.nodeName", &["spec", "nodeName"]),
            ("spec.restartPolicy", &["spec", "restartPolicy"]),
            ("spec.schedulerName", &["spec", "schedulerName"]),
            ("spec.serviceAccountName", &["spec", "serviceAccountName"]),
            ("spec.hostNetwork", &["spec", "hostNetwork"]),
            ("status.phase", &["status", "phase"]),
            ("status.podIP", &["status", "podIP"]),
            ("status.nominatedNodeName", &["status", "nominatedNodeName"]),
        ],
        generation: true,
        returns_deleted: true,
        defaults: pod::default_pod,
        prepare: pod::prepare_pod,
        validate: pod::validate_pod,
        validate_part: pod_changes::validate,
        printer: &pods::POD,
        ..CORE
    },
    Resource {
        kind: "PodTemplate",
        plural: "podtemplates",
        storage: "podtemplates",
        returns_deleted: true,
        defaults: pod::default_pod_template,
        printer: &workloads::POD_TEMPLATE,
        ..CORE
    },
    Resource {
        kind: "ReplicationController",
        missing: NO_CONTROLLER,
        plural: "replicationcontrollers",
        short: &["rc"],
        categories: ALL,
        storage: "controllers",
        subresources: SCALED,
        selectable: &[("status.replicas", &["status", "replicas"])],
        generation: true,
        defaults: workload::default_replication_controller,
        validate: workload::validate_replication_controller,
        printer: &workloads::REPLICATION_CONTROLLER,
        ..CORE
    },
    Resource {
        kind: "ResourceQuota",
        missing: NOT_ENFORCED,
        plural: "resourcequotas",
        short: &["quota"],
        storage: "resourcequotas",
        subresources: STATUS,
        returns_deleted: true,
        printer: &config::RESOURCE_QUOTA,
        ..CORE
    },
    Resource {
        kind: "Secret",
        plural: "secrets",
        storage: "secrets",
        selectable: &[("type", &["type"])],
        defaults: config_rules::default_secret,
        prepare: config_rules::prepare_secret,
        validate: config_rules::validate_secret,
        printer: &config::SECRET,
        ..CORE
    },
    Resource {
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        short: &["sa"],
        storage: "serviceaccounts",
        subresources: &[Sub::Token],
        create_on_update: true,
        returns_deleted: true,
        printer: &config::SERVICE_ACCOUNT,
        ..CORE
    },
    Resource {
        kind: "Service",
        plural: "services",
        short: &["svc"],
        categories: ALL,
        storage: "services/specs",
        subresources: &[Sub::Proxy, Sub::Status],
        selectable: &[("spec.clusterIP", &["spec", "clusterIP"]), ("spec.type", &["spec", "type"])],
        returns_deleted: true,
        name: validate::label,
        defaults: service::default_service,
        prepare: service::prepare_service,
        validate: service::validate_service,
        printer: &network::SERVICE,
        ..CORE
    },
    Resource {
        group: definitions::GROUP,
        kind: "CustomResourceDefinition",
        plural: "customresourcedefinitions",
        short: &["crd", "crds"],
        categories: &["api-extensions"],
        namespaced: false,
        storage: "apiextensions.k8s.io/customresourcedefinitions",
        subresources: STATUS,
        generation: true,
        defaults: definitions::default_definition,
        prepare: definitions::prepare_definition,
        validate: definitions::validate_definition,
        ..BASE
    },
    Resource {
        kind: "ControllerRevision",
        plural: "controllerrevisions",
        storage: "controllerrevisions",
        printer: &workloads::CONTROLLER_REVISION,
        ..APPS
    },
    Resource {
        kind: "DaemonSet",
        missing: NO_CONTROLLER,
        plural: "daemonsets",
        short: &["ds"],
        categories: ALL,
        storage: "daemonsets",
        subresources: STATUS,
        generation: true,
        defaults: workload::default_daemon_set,
        validate: workload::validate_selecting,
        printer: &workloads::DAEMON_SET,
        ..APPS
    },
    Resource {
        kind: "Deployment",
        plural: "deployments",
        short: &["deploy"],
        categories: ALL,
        storage: "deployments",
        subresources: SCALED,
        generation: true,
        defaults: workload::default_deployment,
        validate: workload::validate_deployment,
        printer: &workloads::DEPLOYMENT,
        ..APPS
    },
    Resource {
        kind: "ReplicaSet",
        plural: "replicasets",
        short: &["rs"],
        categories: ALL,
        storage: "replicasets",
        subresources: SCALED,
        selectable: &[("status.replicas", &["status", "replicas"])],
        generation: true,
        defaults: workload::default_replica_set,
        validate: workload::validate_selecting,
        printer: &workloads::REPLICA_SET,
        ..APPS
    },
    Resource {
        kind: "StatefulSet",
        missing: NO_CONTROLLER,
        plural: "statefulsets",
        short: &["sts"],
        categories: ALL,
        storage: "statefulsets",
        subresources: SCALED,
        generation: true,
        defaults: workload::default_stateful_set,
        validate: workload::validate_selecting,
        printer: &workloads::STATEFUL_SET,
        ..APPS
    },
    Resource {
        group: "authentication.k8s.io",
        kind: "SelfSubjectReview",
        plural: "selfsubjectreviews",
        ..REVIEW
    },
    Resource { group: "authentication.k8s.io", kind: "TokenReview", plural: "tokenreviews", ..REVIEW },
    Resource {
        group: "authorization.k8s.io",
        kind: "LocalSubjectAccessReview",
        plural: "localsubjectaccessreviews",
        namespaced: true,
        ..REVIEW
    },
    Resource {
        group: "authorization.k8s.io",
        kind: "SelfSubjectAccessReview",
        plural: "selfsubjectaccessreviews",
        ..REVIEW
    },
    Resource {
        group: "authorization.k8s.io",
        kind: "SelfSubjectRulesReview",
        plural: "selfsubjectrulesreviews",
        ..REVIEW
    },
    Resource {
        group: "authorization.k8s.io",
        kind: "SubjectAccessReview",
        plural: "subjectaccessreviews",
        ..REVIEW
    },
    Resource {
        version: "v2",
        validate: autoscaler::validate_autoscaler,
        validate_part: autoscaler::validate_status,
        ..AUTOSCALER
    },
    Resource { version: "v1", conversion: Some(&autoscaler_versions::V1), ..AUTOSCALER },
    Resource {
        kind: "CronJob",
        missing: NO_CONTROLLER,
        plural: "cronjobs",
        short: &["cj"],
        categories: ALL,
        storage: "cronjobs",
        subresources: STATUS,
        generation: true,
        defaults: workload::default_cron_job,
        validate: workload::validate_cron_job,
        printer: &workloads::CRON_JOB,
        ..BATCH
    },
    Resource {
        kind: "Job",
        missing: NO_CONTROLLER,
        plural: "jobs",
        categories: ALL,
        storage: "jobs",
        subresources: STATUS,
        selectable: &[("status.successful", &["status", "succeeded"])],
        generation: true,
        defaults: workload::default_job,
        prepare: workload::prepare_job,
        validate: workload::validate_job,
        printer: &workloads::JOB,
        ..BATCH
    },
    Resource {
        group: "certificates.k8s.io",
        kind: "CertificateSigningRequest",
        plural: "certificatesigningrequests",
        short: &["csr"],
        namespaced: false,
        storage: "certificatesigningrequests",
        subresources: &[Sub::Approval, Sub::Status],
        selectable: &[("spec.signerName", &["spec", "signerName"])],
        missing: NO_SIGNER,
        name: validate::path_segment,
        prepare: certificate::prepare_request,
        validate: certificate::validate_request,
        validate_part: certificate::validate_part,
        printer: &access::SIGNING_REQUEST,
        ..BASE
    },
    Resource {
        group: "coordination.k8s.io",
        kind: "Lease",
        plural: "leases",
        storage: "leases",
        create_on_update: true,
        unconditional_update: false,
        validate: system::validate_lease,
        printer: &cluster::LEASE,
        ..BASE
    },
    Resource {
        group: "discovery.k8s.io",
        kind: "EndpointSlice",
        plural: "endpointslices",
        storage: "endpointslices",
        generation: true,
        defaults: network_rules::default_endpoint_slice,
        prepare: network_rules::prepare_endpoint_slice,
        validate: network_rules::validate_endpoint_slice,
        printer: &network::ENDPOINT_SLICE,
        ..BASE
    },
    Resource {
        group: "events.k8s.io",
        kind: "Event",
        plural: "events",
        short: &["ev"],
        storage: "events",
        lifetime: EVENT_LIFETIME,
        create_on_update: true,
        conversion: Some(&event::V1),
        selectable: &[
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
        ],
        printer: &config::EVENT,
        ..BASE
    },
    Resource {
        kind: "FlowSchema",
        plural: "flowschemas",
        storage: "flowschemas",
        defaults: flow_schema::default_flow_schema,
        validate: flow_schema::validate_flow_schema,
        printer: &flow_tables::FLOW_SCHEMA,
        ..FLOW
    },
    Resource {
        kind: "PriorityLevelConfiguration",
        plural: "prioritylevelconfigurations",
        storage: "prioritylevelconfigurations",
        defaults: priority_level::default_priority_level,
        validate: priority_level::validate_priority_level,
        printer: &flow_tables::PRIORITY_LEVEL,
        ..FLOW
    },
    Resource {
        kind: "IngressClass",
        plural: "ingressclasses",
        namespaced: false,
        storage: "ingressclasses",
        generation: true,
        printer: &network::INGRESS_CLASS,
        ..NETWORKING
    },
    Resource {
        kind: "Ingress",
        plural: "ingresses",
        short: &["ing"],
        storage: "ingress",
        subresources: STATUS,
        generation: true,
        validate: network_rules::validate_ingress,
        printer: &network::INGRESS,
        ..NETWORKING
    },
    Resource {
        kind: "IPAddress",
        plural: "ipaddresses",
        short: &["ip"],
        namespaced: false,
        storage: "ipaddresses",
        name: service_cidr::address_name,
        validate: service_cidr::validate_ip_address,
        printer: &network::IP_ADDRESS,
        ..NETWORKING
    },
    Resource {
        kind: "NetworkPolicy",
        plural: "networkpolicies",
        short: &["netpol"],
        storage: "networkpolicies",
        generation: true,
        defaults: network_rules::default_network_policy,
        validate: network_rules::validate_network_policy,
        printer: &network::NETWORK_POLICY,
        ..NETWORKING
    },
    Resource {
        kind: "ServiceCIDR",
        plural: "servicecidrs",
        namespaced: false,
        storage: "servicecidrs",
        subresources: STATUS,
        validate: service_cidr::validate_service_cidr,
        printer: &network::SERVICE_CIDR,
        ..NETWORKING
    },
    Resource {
        group: "policy",
        kind: "PodDisruptionBudget",
        plural: "poddisruptionbudgets",
        short: &["pdb"],
        storage: "poddisruptionbudgets",
        subresources: STATUS,
        generation: true,
        validate: workload::validate_disruption_budget,
        printer: &workloads::DISRUPTION_BUDGET,
        ..BASE
    },
    Resource {
        kind: "ClusterRoleBinding",
        plural: "clusterrolebindings",
        namespaced: false,
        storage: "clusterrolebindings",
        defaults: rbac_rules::default_binding,
        validate: rbac_rules::validate_binding,
        printer: &access::BINDING,
        ..RBAC
    },
    Resource {
        kind: "ClusterRole",
        plural: "clusterroles",
        namespaced: false,
        storage: "clusterroles",
        validate: rbac_rules::validate_role,
        printer: &access::ROLE,
        ..RBAC
    },
    Resource {
        kind: "RoleBinding",
        plural: "rolebindings",
        storage: "rolebindings",
        defaults: rbac_rules::default_binding,
        validate: rbac_rules::validate_binding,
        printer: &access::BINDING,
        ..RBAC
    },
    Resource {
        kind: "Role",
        plural: "roles",
        storage: "roles",
        validate: rbac_rules::validate_role,
        printer: &access::ROLE,
        ..RBAC
    },
    Resource {
        kind: "DeviceClass",
        plural: "deviceclasses",
        namespaced: false,
        storage: "deviceclasses",
        generation: true,
        validate: device_class::validate_class,
        printer: &devices::AGED,
        ..DEVICES
    },
    Resource {
        kind: "ResourceClaim",
        plural: "resourceclaims",
        storage: "resourceclaims",
        subresources: STATUS,
        defaults: device_claim::default_claim,
        validate: device_claim::validate_claim,
        validate_part: device_allocation::validate_allocation,
        printer: &devices::CLAIM,
        ..DEVICES
    },
    Resource {
        kind: "ResourceClaimTemplate",
        plural: "resourceclaimtemplates",
        storage: "resourceclaimtemplates",
        defaults: device_claim::default_template,
        validate: device_claim::validate_template,
        printer: &devices::AGED,
        ..DEVICES
    },
    Resource {
        kind: "ResourceSlice",
        plural: "resourceslices",
        namespaced: false,
        storage: "resourceslices",
        selectable: &[("spec.nodeName", &["spec", "nodeName"]), ("spec.driver", &["spec", "driver"])],
        generation: true,
        validate: device_slice::validate_slice,
        printer: &devices::SLICE,
        ..DEVICES
    },
    Resource {
        group: "scheduling.k8s.io",
        kind: "PriorityClass",
        plural: "priorityclasses",
        short: &["pc"],
        namespaced: false,
        storage: "priorityclasses",
        defaults: system::default_priority_class,
        validate: system::validate_priority_class,
        generation: true,
        printer: &cluster::PRIORITY_CLASS,
        ..BASE
    },
    Resource {
        group: "node.k8s.io",
        kind: "RuntimeClass",
        plural: "runtimeclasses",
        namespaced: false,
        storage: "runtimeclasses",
        missing: ONE_RUNTIME,
        validate: system::validate_runtime_class,
        printer: &cluster::RUNTIME_CLASS,
        ..BASE
    },
    Resource {
        kind: "CSIDriver",
        plural: "csidrivers",
        storage: "csidrivers",
        printer: &storage::CSI_DRIVER,
        defaults: storage_rules::default_csi_driver,
        ..STORAGE
    },
    Resource {
        kind: "CSINode",
        plural: "csinodes",
        storage: "csinodes",
        printer: &storage::CSI_NODE,
        ..STORAGE
    },
    Resource {
        kind: "CSIStorageCapacity",
        plural: "csistoragecapacities",
        storage: "csistoragecapacities",
        printer: &storage::CSI_CAPACITY,
        namespaced: true,
        ..STORAGE
    },
    Resource {
        kind: "StorageClass",
        plural: "storageclasses",
        short: &["sc"],
        storage: "storageclasses",
        returns_deleted: true,
        defaults: storage_rules::default_class,
        validate: storage_rules::validate_class,
        printer: &storage::CLASS,
        ..STORAGE
    },
    Resource {
        kind: "VolumeAttachment",
        plural: "volumeattachments",
        storage: "volumeattachments",
        subresources: STATUS,
        returns_deleted: true,
        printer: &storage::ATTACHMENT,
        ..STORAGE
    },
    Resource {
        kind: "VolumeAttributesClass",
        plural: "volumeattributesclasses",
        short: &["vac"],
        storage: "volumeattributesclasses",
        printer: &storage::ATTRIBUTES_CLASS,
        ..STORAGE
    },
];
