//! Addresses and whose they are: nodes, pods of the cluster, local pods before the API server tells of their addresses, this node.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use abi::policy::identity;

use super::identities::Identities;
use super::sets::Subject;
use crate::tables::policy::{ClusterPod, Namespace};
use crate::tables::{Endpoint, EndpointId, Node, ObjectName, is_same_pod, uid};

/// Who claims an address; the greatest has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// A node of the cluster.
    Node(Arc<str>),
    /// A pod, by when it was made.
    Pod(i64, Arc<ObjectName>),
    /// A pod that is attached here, with its unique number.
    Local(Arc<ObjectName>, u128),
    /// This node.
    Host,
}

/// A pod that is attached here.
#[derive(Debug)]
struct Local {
    name: Arc<ObjectName>,
    uid: u128,
    addresses: Vec<IpAddr>,
}

impl Local {
    fn of(endpoint: &Endpoint) -> Self {
        let name = ObjectName { namespace: endpoint.pod_namespace.clone(), name: endpoint.pod_name.clone() };
        Self { name: Arc::new(name), uid: uid(&endpoint.pod_uid), addresses: endpoint.addresses.clone() }
    }

    fn is(&self, endpoint: &Endpoint) -> bool {
        endpoint.pod_namespace == self.name.namespace
            && endpoint.pod_name == self.name.name
            && endpoint.addresses == self.addresses
            && uid(&endpoint.pod_uid) == self.uid
    }

    fn owner(&self) -> Owner {
        Owner::Local(Arc::clone(&self.name), self.uid)
    }
}

/// Whether two rows of a node are one to policies; most changes of nodes are about something else.
fn is_same_peer(one: &Arc<Node>, other: &Arc<Node>) -> bool {
    Arc::ptr_eq(one, other) || one.labels == other.labels && one.all_addresses().eq(other.all_addresses())
}

/// All addresses that belong to somebody.
#[derive(Debug, Default)]
pub struct Addresses {
    owners: HashMap<IpAddr, Vec<Owner>>,
    pods: HashMap<Arc<ObjectName>, Arc<ClusterPod>>,
    local: BTreeMap<EndpointId, Local>,
    hosts: BTreeSet<IpAddr>,
    nodes: BTreeMap<Arc<str>, Arc<Node>>,
    given: HashMap<IpAddr, u32>,
    namespaces: HashSet<Arc<str>>,
}

impl Addresses {
    /// The node's own; answers with those that changed.
    pub fn hosts(&mut self, hosts: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
        let changed: BTreeSet<IpAddr> = self.hosts.symmetric_difference(hosts).copied().collect();
        for address in &changed {
            if hosts.contains(address) {
                self.claim(*address, Owner::Host);
            } else {
                self.give_up(*address, &Owner::Host);
            }
        }
        self.hosts.clone_from(hosts);
        changed
    }

    /// The nodes of the cluster; answers with the addresses of those that came, went, or have other labels.
    pub fn nodes(&mut self, nodes: &BTreeMap<String, Arc<Node>>) -> BTreeSet<IpAddr> {
        let mut touched = BTreeSet::new();
        let stays =
            |name: &str, known: &Arc<Node>| nodes.get(name).is_some_and(|now| is_same_peer(now, known));
        let gone: Vec<Arc<str>> = self
            .nodes
            .iter()
            .filter(|(name, known)| !stays(name, known))
            .map(|(name, _)| Arc::clone(name))
            .collect();
        for (name, row) in
            gone.into_iter().filter_map(|name| self.nodes.remove_entry(&name)).collect::<Vec<_>>()
        {
            for address in row.all_addresses() {
                self.give_up(address, &Owner::Node(Arc::clone(&name)));
                touched.insert(address);
            }
        }
        for (name, row) in nodes {
            if self.nodes.contains_key(name.as_str()) {
                continue;
            }
            let name: Arc<str> = name.as_str().into();
            for address in row.all_addresses() {
                self.claim(address, Owner::Node(Arc::clone(&name)));
                touched.insert(address);
            }
            self.nodes.insert(name, Arc::clone(row));
        }
        touched
    }

    /// Pods that may have changed; answers with the addresses this is about.
    pub fn pods<'a>(
        &mut self,
        pods: impl Iterator<Item = (&'a ObjectName, Option<&'a Arc<ClusterPod>>)>,
    ) -> BTreeSet<IpAddr> {
        let mut touched = BTreeSet::new();
        for (name, row) in pods {
            let name = self
                .pods
                .get_key_value(name)
                .map_or_else(|| Arc::new(name.clone()), |(name, _)| Arc::clone(name));
            if let Some(old) = self.pods.remove(&name) {
                touched.extend(&old.addresses);
                for address in &old.addresses {
                    self.give_up(*address, &Owner::Pod(old.created, Arc::clone(&name)));
                }
            }
            // Local pods have theirs before their rows have any.
            touched.extend(self.local.values().filter(|own| own.name == name).flat_map(|own| &own.addresses));
            // What shares the node's network is the node; what has finished has given its addresses back.
            if let Some(row) = row.filter(|row| !row.host_network && !row.finished) {
                touched.extend(&row.addresses);
                for address in &row.addresses {
                    self.claim(*address, Owner::Pod(row.created, Arc::clone(&name)));
                }
                self.pods.insert(name, Arc::clone(row));
            }
        }
        touched
    }

    /// These are all pods; answers with the addresses of those that differ.
    pub fn all_pods(&mut self, pods: &BTreeMap<ObjectName, Arc<ClusterPod>>) -> BTreeSet<IpAddr> {
        let gone: Vec<Arc<ObjectName>> =
            self.pods.keys().filter(|name| !pods.contains_key(&***name)).map(Arc::clone).collect();
        let mut touched = self.pods(gone.iter().map(|name| (&**name, None)));
        let known =
            |name: &ObjectName, row: &Arc<ClusterPod>| self.pods.get(name).is_some_and(|known| known == row);
        let fresh: Vec<_> = pods.iter().filter(|(name, row)| !known(name, row)).collect();
        touched.extend(self.pods(fresh.into_iter().map(|(name, row)| (name, Some(row)))));
        touched
    }

    /// The pods of this node; answers with the addresses of those that came and went.
    pub fn local(&mut self, endpoints: &BTreeMap<EndpointId, Endpoint>) -> BTreeSet<IpAddr> {
        let mut touched = BTreeSet::new();
        let is_same = |id: &EndpointId, own: &Local| endpoints.get(id).is_some_and(|now| own.is(now));
        let gone: Vec<EndpointId> =
            self.local.iter().filter(|(id, own)| !is_same(id, own)).map(|(id, _)| id.clone()).collect();
        for own in gone.iter().filter_map(|id| self.local.remove(id)).collect::<Vec<_>>() {
            for address in &own.addresses {
                self.give_up(*address, &own.owner());
                touched.insert(*address);
            }
        }
        for (id, endpoint) in endpoints {
            if self.local.contains_key(id) {
                continue;
            }
            let own = Local::of(endpoint);
            for address in &own.addresses {
                self.claim(*address, own.owner());
                touched.insert(*address);
            }
            self.local.insert(id.clone(), own);
        }
        touched
    }

    /// A pod as policies select it.
    pub fn subject(&mut self, name: &ObjectName, row: &ClusterPod) -> Subject {
        let namespace = self.namespace(&name.namespace);
        Subject { namespace, labels: Arc::clone(&row.labels), ports: Arc::clone(&row.ports) }
    }

    /// Who has an address.
    pub fn owner(&self, address: IpAddr) -> Option<Owner> {
        self.owners.get(&address)?.iter().max().cloned()
    }

    /// The identity that an address has by its owner; `None` if nothing is known of that.
    pub fn identity(
        &mut self,
        owner: Owner,
        address: IpAddr,
        identities: &mut Identities,
        namespaces: &BTreeMap<String, Arc<Namespace>>,
    ) -> Option<u32> {
        let (name, uid) = match owner {
            Owner::Host => return Some(identity::HOST),
            Owner::Node(name) => return Some(identities.of_node(&self.nodes.get(&name)?.labels, address)),
            Owner::Pod(_, name) => (name, 0),
            Owner::Local(name, uid) => (name, uid),
        };
        let row = Arc::clone(self.pods.get(&name).filter(|row| is_same_pod(uid, row.uid))?);
        let subject = self.subject(&name, &row);
        Some(identities.of_pod(&subject, namespaces, address))
    }

    /// Remembers the identity an address was given; answers with the one it had.
    pub fn give(&mut self, address: IpAddr, number: Option<u32>) -> Option<u32> {
        match number {
            Some(number) => self.given.insert(address, number),
            None => self.given.remove(&address),
        }
    }

    /// Forgets which identities were given.
    pub fn forget_identities(&mut self) {
        self.given.clear();
    }

    /// All addresses that belong to somebody.
    pub fn all(&self) -> impl Iterator<Item = IpAddr> {
        self.owners.keys().copied()
    }

    fn namespace(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.namespaces.get(name) {
            return Arc::clone(known);
        }
        let name = Arc::<str>::from(name);
        self.namespaces.insert(Arc::clone(&name));
        name
    }

    fn claim(&mut self, address: IpAddr, owner: Owner) {
        let owners = self.owners.entry(address).or_insert_with(|| Vec::with_capacity(1));
        if !owners.contains(&owner) {
            owners.push(owner);
        }
    }

    fn give_up(&mut self, address: IpAddr, owner: &Owner) {
        if let Some(owners) = self.owners.get_mut(&address) {
            owners.retain(|one| one != owner);
            if owners.is_empty() {
                self.owners.remove(&address);
            }
        }
    }
}
