//! The rows with what changed among them since the reconciler last looked: its work is as large as the change.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::policy::{ClusterPod, ClusterPolicy, Namespace, Policy};
use super::{ObjectName, Service, Slice, Snapshot};

/// What changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Anything may have changed.
    pub everything: bool,
    /// Services that changed, or whose endpoints did.
    pub services: BTreeSet<ObjectName>,
    /// Something changed that is about this node: not a Service, nor an EndpointSlice, nor anything of policies.
    pub node: bool,
    /// What changed about policies.
    pub policy: PolicyChanges,
}

/// What changed about policies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyChanges {
    /// Policies of namespaces or of the cluster.
    pub policies: bool,
    /// Namespaces.
    pub namespaces: bool,
    /// Pods of the cluster.
    pub pods: BTreeSet<ObjectName>,
}

impl PolicyChanges {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        !self.policies && !self.namespaces && self.pods.is_empty()
    }
}

/// All rows.
#[derive(Debug)]
pub struct Rows {
    pub(super) snapshot: Snapshot,
    pub(super) changes: Changes,
    slices_of: HashMap<ObjectName, Vec<Arc<Slice>>>,
    balanced: BTreeSet<ObjectName>,
}

impl Default for Rows {
    fn default() -> Self {
        let changes = Changes { everything: true, ..Changes::default() };
        Self { snapshot: Snapshot::default(), changes, slices_of: HashMap::new(), balanced: BTreeSet::new() }
    }
}

impl Rows {
    /// The rows.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The EndpointSlices of a Service.
    pub fn slices_of(&self, service: &ObjectName) -> &[Arc<Slice>] {
        self.slices_of.get(service).map_or(&[], Vec::as_slice)
    }

    /// The Services whose load balancers have addresses.
    pub fn balanced(&self) -> impl Iterator<Item = (&ObjectName, &Arc<Service>)> {
        self.balanced.iter().filter_map(|name| self.snapshot.services.get_key_value(name))
    }

    pub(super) fn take(&mut self) -> Changes {
        self.index();
        std::mem::take(&mut self.changes)
    }

    /// Whoever changed everything did not keep the index.
    pub(super) fn index(&mut self) {
        if !self.changes.everything {
            return;
        }
        self.slices_of.clear();
        for (name, slice) in &self.snapshot.slices {
            self.slices_of.entry(service_of(name, slice)).or_default().push(Arc::clone(slice));
        }
        let services = self.snapshot.services.iter();
        let balanced = services.filter(|(_, service)| !service.load_balancer_ips.is_empty());
        self.balanced = balanced.map(|(name, _)| name.clone()).collect();
    }

    pub(super) fn put_service(&mut self, name: ObjectName, row: Option<Arc<Service>>) -> bool {
        let is_balanced = row.as_ref().is_some_and(|row| !row.load_balancer_ips.is_empty());
        let changed = put(&mut self.snapshot.services, &name, row);
        if changed {
            if is_balanced {
                self.balanced.insert(name.clone());
            } else {
                self.balanced.remove(&name);
            }
            self.touch(name);
        }
        changed
    }

    pub(super) fn put_slice(&mut self, name: ObjectName, row: Option<Arc<Slice>>) -> bool {
        let slices = &mut self.snapshot.slices;
        let old = match (slices.get_mut(&name), &row) {
            (Some(known), Some(row)) if known == row => return false,
            (Some(known), Some(row)) => Some(std::mem::replace(known, Arc::clone(row))),
            (None, Some(row)) => slices.insert(name.clone(), Arc::clone(row)),
            (Some(_), None) => slices.remove(&name),
            (None, None) => return false,
        };
        // The new one first: the list of a Service that had one slice and has one is not made anew.
        if let Some(row) = row {
            let service = service_of(&name, &row);
            self.slices_of.entry(service.clone()).or_default().push(row);
            self.touch(service);
        }
        if let Some(old) = old {
            let service = service_of(&name, &old);
            if let Some(slices) = self.slices_of.get_mut(&service) {
                slices.retain(|slice| !Arc::ptr_eq(slice, &old));
                if slices.is_empty() {
                    self.slices_of.remove(&service);
                }
            }
            self.touch(service);
        }
        true
    }

    pub(super) fn put_policy(&mut self, name: ObjectName, row: Option<Arc<Policy>>) -> bool {
        let changed = put(&mut self.snapshot.policy.policies, &name, row);
        self.changes.policy.policies |= changed;
        changed
    }

    pub(super) fn put_cluster_policy(&mut self, name: String, row: Option<Arc<ClusterPolicy>>) -> bool {
        let changed = put(&mut self.snapshot.policy.cluster, &name, row);
        self.changes.policy.policies |= changed;
        changed
    }

    pub(super) fn put_namespace(&mut self, name: String, row: Option<Arc<Namespace>>) -> bool {
        let changed = put(&mut self.snapshot.policy.namespaces, &name, row);
        self.changes.policy.namespaces |= changed;
        changed
    }

    pub(super) fn put_cluster_pod(&mut self, name: ObjectName, row: Option<Arc<ClusterPod>>) -> bool {
        let changed = put(&mut self.snapshot.policy.pods, &name, row);
        if changed && !self.changes.everything {
            self.changes.policy.pods.insert(name);
        }
        changed
    }

    pub(super) fn replace_policies(&mut self, all: BTreeMap<ObjectName, Arc<Policy>>) {
        self.changes.policy.policies |= self.snapshot.policy.policies != all;
        self.snapshot.policy.policies = all;
    }

    pub(super) fn replace_cluster_policies(&mut self, all: BTreeMap<String, Arc<ClusterPolicy>>) -> bool {
        let changed = self.snapshot.policy.cluster != all;
        self.changes.policy.policies |= changed;
        self.snapshot.policy.cluster = all;
        changed
    }

    pub(super) fn replace_namespaces(&mut self, all: BTreeMap<String, Arc<Namespace>>) {
        self.changes.policy.namespaces |= self.snapshot.policy.namespaces != all;
        self.snapshot.policy.namespaces = all;
    }

    pub(super) fn replace_cluster_pods(&mut self, all: BTreeMap<ObjectName, Arc<ClusterPod>>) {
        for name in absent(&self.snapshot.policy.pods, &all) {
            self.put_cluster_pod(name, None);
        }
        for (name, row) in all {
            self.put_cluster_pod(name, Some(row));
        }
    }

    pub(super) fn replace_services(&mut self, all: BTreeMap<ObjectName, Arc<Service>>) {
        for name in absent(&self.snapshot.services, &all) {
            self.put_service(name, None);
        }
        for (name, row) in all {
            self.put_service(name, Some(row));
        }
    }

    pub(super) fn replace_slices(&mut self, all: BTreeMap<ObjectName, Arc<Slice>>) {
        for name in absent(&self.snapshot.slices, &all) {
            self.put_slice(name, None);
        }
        for (name, row) in all {
            self.put_slice(name, Some(row));
        }
    }

    fn touch(&mut self, service: ObjectName) {
        if !self.changes.everything {
            self.changes.services.insert(service);
        }
    }
}

/// Whether that changed anything.
fn put<K: Ord + Clone, T: PartialEq>(table: &mut BTreeMap<K, Arc<T>>, name: &K, row: Option<Arc<T>>) -> bool {
    match row {
        Some(row) if table.get(name).is_some_and(|known| *known == row) => false,
        Some(row) => {
            table.insert(name.clone(), row);
            true
        }
        None => table.remove(name).is_some(),
    }
}

fn absent<T>(known: &BTreeMap<ObjectName, Arc<T>>, all: &BTreeMap<ObjectName, Arc<T>>) -> Vec<ObjectName> {
    known.keys().filter(|name| !all.contains_key(*name)).cloned().collect()
}

fn service_of(name: &ObjectName, slice: &Slice) -> ObjectName {
    ObjectName { namespace: name.namespace.clone(), name: slice.service.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> ObjectName {
        ObjectName { namespace: "default".into(), name: name.into() }
    }

    fn slice(service: &str) -> Option<Arc<Slice>> {
        Some(Arc::new(Slice { service: service.into(), endpoints: Vec::new(), ports: Vec::new() }))
    }

    #[test]
    fn services_with_addresses_of_load_balancers_are_known_however_they_came() {
        let service = |address: Option<&str>| {
            let load_balancer_ips = address.iter().map(|text| text.parse().unwrap()).collect();
            Arc::new(Service { load_balancer_ips, ..Service::default() })
        };
        let known = |rows: &mut Rows| {
            rows.index();
            rows.balanced().map(|(name, _)| name.name.clone()).collect::<Vec<_>>()
        };
        let mut rows = Rows::default();
        rows.snapshot.services.insert(name("a"), service(Some("192.0.2.1")));
        assert_eq!(known(&mut rows), ["a"]);
        rows.take();
        rows.put_service(name("b"), Some(service(Some("192.0.2.2"))));
        rows.put_service(name("c"), Some(service(None)));
        assert_eq!(known(&mut rows), ["a", "b"]);
        rows.put_service(name("a"), Some(service(None)));
        assert_eq!(known(&mut rows), ["b"]);
        rows.put_service(name("b"), None);
        assert_eq!(known(&mut rows), [""; 0]);
    }

    #[test]
    fn a_slice_that_moves_touches_both_services_and_one_that_stays_none() {
        let mut rows = Rows::default();
        rows.take();
        assert!(rows.put_slice(name("s"), slice("a")));
        assert_eq!(rows.take().services, BTreeSet::from([name("a")]));
        assert!(!rows.put_slice(name("s"), slice("a")));
        assert!(rows.put_slice(name("s"), slice("b")));
        assert_eq!(rows.take().services, BTreeSet::from([name("a"), name("b")]));
        assert!(rows.slices_of(&name("a")).is_empty());
        assert_eq!(rows.slices_of(&name("b")).len(), 1);
    }

    #[test]
    fn a_new_list_touches_what_differs() {
        let mut rows = Rows::default();
        let service = |port| Arc::new(Service { health_check_node_port: port, ..Service::default() });
        rows.replace_services([(name("a"), service(None)), (name("b"), service(None))].into());
        rows.take();
        rows.replace_services([(name("b"), service(None)), (name("c"), service(Some(1)))].into());
        assert_eq!(rows.take().services, BTreeSet::from([name("a"), name("c")]));
    }
}
