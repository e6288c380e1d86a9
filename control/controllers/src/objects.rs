//! Slim views of the objects controllers read: only the fields in use, decoded once, everything else left out.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{DeploymentStatus, DeploymentStrategy, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    ContainerPort, EndpointSubset, NamespaceCondition, NodeAddress, NodeCondition, ObjectReference,
    PodCondition, PodIP, ServicePort, Taint, Toleration,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, MicroTime, ObjectMeta, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::DynamicResourceScope;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::quantity::Quantity;

/// A kind controllers watch.
pub(crate) trait Kind: kube::Resource<DynamicType = ()> + Clone + Send + Sync + 'static {
    /// Plural, with the group where there is one; see [`crate::change::Change::resource`].
    const RESOURCE: &'static str;
}

macro_rules! kind {
    ($(#[$doc:meta])* $name:ident, $group:literal, $version:literal, $plural:literal, $resource:literal,
     { $($field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub(crate) struct $name {
            #[serde(default)]
            pub(crate) metadata: ObjectMeta,
            $(#[serde(default)] pub(crate) $field: $type,)*
        }

        impl kube::Resource for $name {
            type DynamicType = ();
            type Scope = DynamicResourceScope;

            fn kind((): &()) -> Cow<'_, str> {
                stringify!($name).into()
            }
            fn group((): &()) -> Cow<'_, str> {
                $group.into()
            }
            fn version((): &()) -> Cow<'_, str> {
                $version.into()
            }
            fn plural((): &()) -> Cow<'_, str> {
                $plural.into()
            }
            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }

        impl Kind for $name {
            const RESOURCE: &'static str = $resource;
        }
    };
}

kind!(Pod, "", "v1", "pods", "pods", { spec: PodSpec, status: PodStatus });
kind!(ResourceQuota, "", "v1", "resourcequotas", "resourcequotas", {
    spec: ResourceQuotaSpec,
    status: ResourceQuotaStatus,
});
kind!(PersistentVolumeClaim, "", "v1", "persistentvolumeclaims", "persistentvolumeclaims", {
    spec: PersistentVolumeClaimSpec,
});
kind!(Node, "", "v1", "nodes", "nodes", { spec: NodeSpec, status: NodeStatus });
kind!(Namespace, "", "v1", "namespaces", "namespaces", { spec: NamespaceSpec, status: NamespaceStatus });
kind!(Service, "", "v1", "services", "services", { spec: ServiceSpec });
kind!(ServiceAccount, "", "v1", "serviceaccounts", "serviceaccounts", {});
kind!(ConfigMap, "", "v1", "configmaps", "configmaps", { data: BTreeMap<String, String> });
kind!(Deployment, "apps", "v1", "deployments", "deployments.apps", { spec: DeploymentSpec, status: DeploymentStatus });
kind!(ReplicaSet, "apps", "v1", "replicasets", "replicasets.apps", { spec: ReplicaSetSpec, status: ReplicaSetStatus });
kind!(
    /// `ReplicationController`: read as the ReplicaSet it would be.
    ReplicationController, "", "v1", "replicationcontrollers", "replicationcontrollers",
    { spec: ReplicationControllerSpec, status: ReplicaSetStatus });
kind!(CronJob, "batch", "v1", "cronjobs", "cronjobs.batch", { spec: CronJobSpec, status: CronJobStatus });
kind!(
    /// `Job`: when it ran, and how it ended.
    Job, "batch", "v1", "jobs", "jobs.batch", { status: JobStatus });
kind!(PodDisruptionBudget, "policy", "v1", "poddisruptionbudgets", "poddisruptionbudgets.policy", {
    spec: PodDisruptionBudgetSpec,
    status: PodDisruptionBudgetStatus,
});
kind!(
    /// `ServiceCIDR`: only its metadata, ranges and conditions are read.
    ServiceCidr, "networking.k8s.io", "v1", "servicecidrs", "servicecidrs.networking.k8s.io",
    { spec: ServiceCidrSpec, status: Conditions });
kind!(
    /// `IPAddress`: the name is the address.
    IpAddress, "networking.k8s.io", "v1", "ipaddresses", "ipaddresses.networking.k8s.io", {});
kind!(
    /// `FlowSchema`: which priority level it names, and what was found of that.
    FlowSchema, "flowcontrol.apiserver.k8s.io", "v1", "flowschemas", "flowschemas.flowcontrol.apiserver.k8s.io",
    { spec: FlowSchemaSpec, status: Conditions });
kind!(
    PriorityLevelConfiguration,
    "flowcontrol.apiserver.k8s.io",
    "v1",
    "prioritylevelconfigurations",
    "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io",
    {}
);
kind!(
    ClusterRole, "rbac.authorization.k8s.io", "v1", "clusterroles", "clusterroles.rbac.authorization.k8s.io",
    { rules: Vec<Value>, aggregation_rule: Option<AggregationRule> });
kind!(
    /// `Secret`: those with tokens of accounts only.
    Secret, "", "v1", "secrets", "secrets", { r#type: String, data: BTreeMap<String, String> });
kind!(Endpoints, "", "v1", "endpoints", "endpoints", { subsets: Vec<EndpointSubset> });
kind!(Lease, "coordination.k8s.io", "v1", "leases", "leases.coordination.k8s.io", { spec: LeaseSpec });
kind!(EndpointSlice, "discovery.k8s.io", "v1", "endpointslices", "endpointslices.discovery.k8s.io", {
    address_type: String,
    endpoints: Vec<Endpoint>,
    ports: Vec<EndpointPort>,
});

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodSpec {
    pub(crate) node_name: Option<String>,
    pub(crate) hostname: Option<String>,
    pub(crate) subdomain: Option<String>,
    pub(crate) tolerations: Vec<Toleration>,
    pub(crate) containers: Vec<Container>,
    pub(crate) init_containers: Vec<Container>,
    pub(crate) active_deadline_seconds: Option<i64>,
    pub(crate) priority_class_name: Option<String>,
    pub(crate) overhead: Amounts,
    pub(crate) resources: Option<Box<Resources>>,
    /// Whether its affinity asks about pods of other namespaces.
    #[serde(rename = "affinity", deserialize_with = "crosses_namespaces")]
    pub(crate) crosses_namespaces: bool,
}

/// Reads an affinity for what matters of it.
fn crosses_namespaces<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let affinity = Value::deserialize(deserializer)?;
    let kinds = ["podAffinity", "podAntiAffinity"].map(|kind| &affinity[kind]);
    let lists = kinds.into_iter().flat_map(|kind| {
        let list = |name: &str| kind[name].as_array().into_iter().flatten();
        let required = list("requiredDuringSchedulingIgnoredDuringExecution");
        let preferred = list("preferredDuringSchedulingIgnoredDuringExecution");
        required.chain(preferred.map(|weighted| &weighted["podAffinityTerm"]))
    });
    let crosses = |term: &Value| {
        term["namespaces"].as_array().is_some_and(|names| !names.is_empty())
            || !term["namespaceSelector"].is_null()
    };
    Ok(lists.into_iter().any(crosses))
}

/// What a Service's named target port refers to, and what a quota counts.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Container {
    pub(crate) ports: Vec<ContainerPort>,
    /// `Always` makes an init container a sidecar, whose ports count.
    pub(crate) restart_policy: Option<String>,
    pub(crate) resources: Option<Box<Resources>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Resources {
    pub(crate) requests: Amounts,
    pub(crate) limits: Amounts,
}

/// A few amounts by name, small: there are as many as there are containers.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(from = "BTreeMap<String, Quantity>")]
pub(crate) struct Amounts(Box<[(Box<str>, Quantity)]>);

impl Amounts {
    /// Nothing where the name is not there.
    pub(crate) fn of(&self, name: &str) -> Quantity {
        let found = self.0.iter().find(|(own, _)| &**own == name);
        found.map_or_else(Quantity::default, |(_, amount)| *amount)
    }
}

impl From<BTreeMap<String, Quantity>> for Amounts {
    fn from(amounts: BTreeMap<String, Quantity>) -> Self {
        Self(amounts.into_iter().map(|(name, amount)| (name.into(), amount)).collect())
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PersistentVolumeClaimSpec {
    pub(crate) storage_class_name: Option<String>,
    pub(crate) volume_attributes_class_name: Option<String>,
    pub(crate) resources: Resources,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ResourceQuotaSpec {
    pub(crate) hard: BTreeMap<String, Quantity>,
    scopes: Vec<String>,
    scope_selector: ScopeSelector,
}

impl ResourceQuotaSpec {
    /// Both forms in one: an object counts if all of them mean it.
    pub(crate) fn all_scopes(&self) -> Vec<ScopeRequirement> {
        let plain = self.scopes.iter().map(|name| ScopeRequirement {
            scope_name: name.clone(),
            operator: "Exists".to_owned(),
            values: Vec::new(),
        });
        plain.chain(self.scope_selector.match_expressions.iter().cloned()).collect()
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ScopeSelector {
    match_expressions: Vec<ScopeRequirement>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ScopeRequirement {
    pub(crate) scope_name: String,
    pub(crate) operator: String,
    pub(crate) values: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ResourceQuotaStatus {
    pub(crate) hard: Option<BTreeMap<String, Quantity>>,
    pub(crate) used: Option<BTreeMap<String, Quantity>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodStatus {
    pub(crate) phase: String,
    #[serde(rename = "podIPs")]
    pub(crate) pod_ips: Vec<PodIP>,
    pub(crate) conditions: Vec<PodCondition>,
    pub(crate) container_statuses: Vec<ContainerStatus>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ContainerStatus {
    pub(crate) restart_count: i32,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct NodeSpec {
    #[serde(rename = "podCIDRs")]
    pub(crate) pod_cidrs: Vec<String>,
    pub(crate) taints: Vec<Taint>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeStatus {
    pub(crate) conditions: Vec<NodeCondition>,
    pub(crate) addresses: Vec<NodeAddress>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct AggregationRule {
    pub(crate) cluster_role_selectors: Vec<LabelSelector>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NamespaceSpec {
    pub(crate) finalizers: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NamespaceStatus {
    pub(crate) conditions: Vec<NamespaceCondition>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ServiceSpec {
    pub(crate) selector: BTreeMap<String, String>,
    pub(crate) ports: Vec<ServicePort>,
    pub(crate) ip_families: Vec<String>,
    /// `None` for a Service without an address of its own.
    #[serde(rename = "clusterIP")]
    pub(crate) cluster_ip: String,
    #[serde(rename = "type")]
    pub(crate) type_: String,
    pub(crate) publish_not_ready_addresses: bool,
    pub(crate) traffic_distribution: Option<String>,
    pub(crate) allocate_load_balancer_node_ports: Option<bool>,
}

impl ServiceSpec {
    /// Whether the Service has no address of its own.
    pub(crate) fn is_headless(&self) -> bool {
        matches!(self.cluster_ip.as_str(), "" | "None")
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DeploymentSpec {
    pub(crate) replicas: Option<i32>,
    pub(crate) selector: LabelSelector,
    pub(crate) template: Value,
    pub(crate) strategy: DeploymentStrategy,
    pub(crate) min_ready_seconds: i32,
    pub(crate) revision_history_limit: Option<i32>,
    pub(crate) paused: bool,
    pub(crate) progress_deadline_seconds: Option<i32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ReplicaSetSpec {
    pub(crate) replicas: Option<i32>,
    pub(crate) min_ready_seconds: i32,
    pub(crate) selector: LabelSelector,
    pub(crate) template: Value,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(from = "BareReplicationControllerSpec")]
pub(crate) struct ReplicationControllerSpec(pub(crate) ReplicaSetSpec);

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct BareReplicationControllerSpec {
    replicas: Option<i32>,
    min_ready_seconds: i32,
    selector: Option<BTreeMap<String, String>>,
    template: Value,
}

impl From<BareReplicationControllerSpec> for ReplicationControllerSpec {
    fn from(bare: BareReplicationControllerSpec) -> Self {
        Self(ReplicaSetSpec {
            replicas: bare.replicas,
            min_ready_seconds: bare.min_ready_seconds,
            selector: LabelSelector { match_labels: bare.selector, match_expressions: None },
            template: bare.template,
        })
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct CronJobSpec {
    pub(crate) schedule: String,
    pub(crate) time_zone: Option<String>,
    pub(crate) starting_deadline_seconds: Option<i64>,
    /// `Allow`, `Forbid` or `Replace`.
    pub(crate) concurrency_policy: String,
    pub(crate) suspend: bool,
    pub(crate) job_template: Value,
    pub(crate) successful_jobs_history_limit: Option<i32>,
    pub(crate) failed_jobs_history_limit: Option<i32>,
}

#[derive(Debug, Clone, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct CronJobStatus {
    pub(crate) active: Vec<ObjectReference>,
    pub(crate) last_schedule_time: Option<Time>,
    pub(crate) last_successful_time: Option<Time>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct JobStatus {
    pub(crate) conditions: Vec<JobCondition>,
    pub(crate) start_time: Option<Time>,
    pub(crate) completion_time: Option<Time>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct JobCondition {
    #[serde(rename = "type")]
    pub(crate) type_: String,
    pub(crate) status: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct LeaseSpec {
    pub(crate) renew_time: Option<MicroTime>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodDisruptionBudgetSpec {
    pub(crate) min_available: Option<IntOrString>,
    pub(crate) max_unavailable: Option<IntOrString>,
    /// Without one, no pod is selected.
    pub(crate) selector: Option<LabelSelector>,
}

#[derive(Debug, Clone, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodDisruptionBudgetStatus {
    pub(crate) observed_generation: Option<i64>,
    /// Pods whose eviction was allowed and that have not gone yet, by name.
    pub(crate) disrupted_pods: BTreeMap<String, Time>,
    pub(crate) disruptions_allowed: i32,
    pub(crate) current_healthy: i32,
    pub(crate) desired_healthy: i32,
    pub(crate) expected_pods: i32,
    pub(crate) conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ServiceCidrSpec {
    pub(crate) cidrs: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct FlowSchemaSpec {
    pub(crate) priority_level_configuration: PriorityLevelName,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PriorityLevelName {
    pub(crate) name: String,
}

/// Conditions as they are stored.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Conditions {
    pub(crate) conditions: Vec<Value>,
}

/// Whether deletion of the object has been asked for.
pub(crate) fn deleting(meta: &ObjectMeta) -> Option<&Time> {
    meta.deletion_timestamp.as_ref()
}
