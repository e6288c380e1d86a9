//! The world as the informers last saw it, and what controllers may ask of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::change::controller_of;
use crate::controller::Key;
use crate::graph::Graph;
use crate::objects::{
    ClusterRole, ConfigMap, CronJob, Deployment, EndpointSlice, Endpoints, FlowSchema, IpAddress, Job, Kind,
    Lease, Namespace, Node, PersistentVolumeClaim, Pod, PodDisruptionBudget, PriorityLevelConfiguration,
    ReplicaSet, ReplicationController, ResourceQuota, Secret, Service, ServiceAccount, ServiceCidr,
};

/// Objects of one kind, ordered by namespace and name.
#[derive(Debug)]
pub(crate) struct Table<T> {
    rows: BTreeMap<Key, Arc<T>>,
    /// Everything up to this revision of the API server is in `rows`.
    pub(crate) seen: u64,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), seen: 0 }
    }
}

impl<T: Kind> Table<T> {
    pub(crate) fn row(&self, key: &Key) -> Option<&Arc<T>> {
        self.rows.get(key)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&Key, &Arc<T>)> {
        self.rows.iter()
    }

    pub(crate) fn within<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = (&'a Key, &'a Arc<T>)> {
        let from = Key::new(namespace, "");
        self.rows
            .range((Bound::Included(from), Bound::Unbounded))
            .take_while(move |(key, _)| key.namespace == namespace)
    }

    pub(crate) fn insert(&mut self, key: Key, object: Arc<T>) -> Option<Arc<T>> {
        self.rows.insert(key, object)
    }

    pub(crate) fn remove(&mut self, key: &Key) -> Option<Arc<T>> {
        self.rows.remove(key)
    }
}

/// Everything controllers read. Written only by the dispatcher in `runner.rs`.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) cluster_roles: Table<ClusterRole>,
    pub(crate) config_maps: Table<ConfigMap>,
    pub(crate) cron_jobs: Table<CronJob>,
    pub(crate) deployments: Table<Deployment>,
    pub(crate) endpoint_slices: Table<EndpointSlice>,
    pub(crate) endpoints: Table<Endpoints>,
    pub(crate) flow_schemas: Table<FlowSchema>,
    pub(crate) ip_addresses: Table<IpAddress>,
    pub(crate) jobs: Table<Job>,
    pub(crate) leases: Table<Lease>,
    pub(crate) namespaces: Table<Namespace>,
    pub(crate) nodes: Table<Node>,
    pub(crate) persistent_volume_claims: Table<PersistentVolumeClaim>,
    pub(crate) pod_disruption_budgets: Table<PodDisruptionBudget>,
    pub(crate) pods: Table<Pod>,
    pub(crate) priority_levels: Table<PriorityLevelConfiguration>,
    pub(crate) replica_sets: Table<ReplicaSet>,
    pub(crate) replication_controllers: Table<ReplicationController>,
    pub(crate) resource_quotas: Table<ResourceQuota>,
    pub(crate) secrets: Table<Secret>,
    pub(crate) service_accounts: Table<ServiceAccount>,
    pub(crate) service_cidrs: Table<ServiceCidr>,
    pub(crate) services: Table<Service>,
    pub(crate) graph: Graph,
    /// Resources of which the graph has every object.
    pub(crate) listed: BTreeSet<String>,
    /// Revision up to which kinds have been seen whose metadata alone is watched, or of some objects more, by resource.
    pub(crate) seen: BTreeMap<String, u64>,
}

impl World {
    /// Up to which revision changes of `resource` are in the owner graph, which has more of some kinds than their tables.
    pub(crate) fn seen_by_graph(&self, resource: &str) -> Option<u64> {
        self.seen.get(resource).copied().or_else(|| self.seen_by_table(resource))
    }

    /// Objects of kind `T` whose controller is `owner`, in the order of their keys.
    pub(crate) fn controlled<T: Tabled>(&self, owner: &ObjectMeta) -> Vec<&Arc<T>> {
        let (group, plural) = (T::group(&()), T::plural(&()));
        let mut keys: Vec<&Key> = self
            .graph
            .dependents(owner.uid.as_deref().unwrap_or_default())
            .filter(|item| item.resource.plural == plural && item.resource.group == group)
            .map(|item| &item.key)
            .collect();
        keys.sort();
        let controlled = |object: &&Arc<T>| {
            controller_of(object.meta()).is_some_and(|reference| Some(&reference.uid) == owner.uid.as_ref())
        };
        keys.into_iter().filter_map(|key| T::table(self).row(key)).filter(controlled).collect()
    }
}

/// Controllers see the world read-only.
pub(crate) type View = World;

/// Finds a kind's table in the world.
pub(crate) trait Tabled: Kind {
    fn table(world: &World) -> &Table<Self>;
    fn table_mut(world: &mut World) -> &mut Table<Self>;
}

macro_rules! tabled {
    ($($kind:ident => $field:ident),* $(,)?) => {
        $(impl Tabled for $kind {
            fn table(world: &World) -> &Table<Self> {
                &world.$field
            }
            fn table_mut(world: &mut World) -> &mut Table<Self> {
                &mut world.$field
            }
        })*

        impl World {
            /// Up to which revision changes of `resource` are in its table; `None` for a kind nobody watches.
            pub(crate) fn seen_by_table(&self, resource: &str) -> Option<u64> {
                match resource {
                    $($kind::RESOURCE => Some(self.$field.seen),)*
                    other => self.seen.get(other).copied(),
                }
            }
        }
    };
}

tabled! {
    ClusterRole => cluster_roles,
    ConfigMap => config_maps,
    CronJob => cron_jobs,
    Deployment => deployments,
    EndpointSlice => endpoint_slices,
    Endpoints => endpoints,
    FlowSchema => flow_schemas,
    IpAddress => ip_addresses,
    Job => jobs,
    Lease => leases,
    Namespace => namespaces,
    Node => nodes,
    PersistentVolumeClaim => persistent_volume_claims,
    Pod => pods,
    PodDisruptionBudget => pod_disruption_budgets,
    PriorityLevelConfiguration => priority_levels,
    ReplicaSet => replica_sets,
    ReplicationController => replication_controllers,
    ResourceQuota => resource_quotas,
    Secret => secrets,
    Service => services,
    ServiceAccount => service_accounts,
    ServiceCidr => service_cidrs,
}

/// Builds worlds for tests from JSON objects.
#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::graph::ResourceRef;
    use serde_json::Value;

    /// A world in which `objects` exist; kinds no controller watches go into the graph only.
    pub(crate) fn world(objects: &[Value]) -> World {
        let mut world = World::default();
        world.graph.complete = true;
        for object in objects {
            add(&mut world, object);
        }
        world
    }

    fn add(world: &mut World, object: &Value) {
        let kind = object["kind"].as_str().unwrap();
        match kind {
            "ClusterRole" => row::<ClusterRole>(world, object),
            "ConfigMap" => row::<ConfigMap>(world, object),
            "CronJob" => row::<CronJob>(world, object),
            "Deployment" => row::<Deployment>(world, object),
            "EndpointSlice" => row::<EndpointSlice>(world, object),
            "Endpoints" => row::<Endpoints>(world, object),
            "FlowSchema" => row::<FlowSchema>(world, object),
            "IPAddress" => row::<IpAddress>(world, object),
            "Job" => row::<Job>(world, object),
            "Lease" => row::<Lease>(world, object),
            "Namespace" => row::<Namespace>(world, object),
            "Node" => row::<Node>(world, object),
            "PersistentVolumeClaim" => row::<PersistentVolumeClaim>(world, object),
            "Pod" => row::<Pod>(world, object),
            "PodDisruptionBudget" => row::<PodDisruptionBudget>(world, object),
            "PriorityLevelConfiguration" => row::<PriorityLevelConfiguration>(world, object),
            "ReplicaSet" => row::<ReplicaSet>(world, object),
            "ReplicationController" => row::<ReplicationController>(world, object),
            "ResourceQuota" => row::<ResourceQuota>(world, object),
            "Secret" => row::<Secret>(world, object),
            "Service" => row::<Service>(world, object),
            "ServiceAccount" => row::<ServiceAccount>(world, object),
            "ServiceCIDR" => row::<ServiceCidr>(world, object),
            _ => {}
        }
        let meta: ObjectMeta = serde_json::from_value(object["metadata"].clone()).unwrap();
        let (group, version) =
            object["apiVersion"].as_str().unwrap_or("v1").split_once('/').unwrap_or(("", "v1"));
        let plural = format!("{}s", kind.trim_end_matches('s').to_lowercase());
        let resource =
            ResourceRef { group: group.into(), version: version.into(), plural, kind: kind.to_owned() };
        let key = key_of(&meta);
        world.listed.insert(resource.resource());
        world.graph.insert(&Arc::new(resource), &key, &meta);
    }

    fn row<T: Tabled + serde::de::DeserializeOwned>(world: &mut World, object: &Value) {
        let decoded: T = serde_json::from_value(object.clone()).unwrap();
        T::table_mut(world).insert(key_of(decoded.meta()), Arc::new(decoded));
    }

    fn key_of(meta: &ObjectMeta) -> Key {
        Key::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap())
    }
}
