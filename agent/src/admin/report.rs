//! The state of the node as one value.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::desired::Choice;
use crate::kernel::convert::generation::Version;
use crate::kernel::{Counters, Feature, Kernel, KernelError};
use crate::reconcile::apply::Reconciler;

/// Everything `status` and `services` show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Name of the node.
    pub node: String,
    /// Version of the layouts and scale of the maps, as in the pin path.
    pub layout: String,
    /// What the kernel can do.
    pub features: Vec<Feature>,
    /// Uplinks with programs.
    pub uplinks: Vec<String>,
    /// Local pods.
    pub endpoints: Vec<EndpointLine>,
    /// Service ports.
    pub services: Vec<ServiceLine>,
    /// Prefixes of pods, and where they are.
    pub routes: BTreeMap<String, String>,
    /// Nodes whose pods cannot be reached, and why.
    pub unreachable: Vec<String>,
    /// Packet counters.
    pub counters: Counters,
    /// What could not be applied: subject, error, attempts.
    pub failures: Vec<(String, String, u32)>,
    /// Operations carried out since the agent started.
    pub operations: u64,
    /// Errors since the agent started.
    pub errors: u64,
    /// Whether services, nodes and endpoints have been read completely.
    pub synced: Vec<String>,
    /// Kinds whose objects cannot be read, and what that means.
    pub unread: Vec<String>,
    /// What a kube-proxy has left in this network namespace, and which tools are missing to look.
    pub kube_proxy: Vec<String>,
}

/// One local pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointLine {
    /// `namespace/name`.
    pub pod: String,
    /// The host's end of its link.
    pub link: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Whether it is in place, or the error.
    pub state: String,
}

/// One service port in one family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceLine {
    /// `namespace/name:port`.
    pub service: String,
    /// `TCP` or `UDP`.
    pub protocol: String,
    /// Index in the service map.
    pub index: Option<u32>,
    /// Addresses and ports it answers on.
    pub frontends: Vec<String>,
    /// Addresses and ports of its backends; those of this node end in `*`.
    pub backends: Vec<String>,
    /// Seconds a client keeps its backend; zero is no affinity.
    pub affinity: u32,
    /// Connections that got a backend.
    pub connections: u64,
    /// Connections refused for want of one.
    pub refused: u64,
}

/// Collects the report.
pub fn report<K: Kernel>(reconciler: &mut Reconciler<K>) -> Result<Report, KernelError> {
    let counters = reconciler.kernel.counters()?;
    let desired = &reconciler.desired;
    let known = [
        (desired.services_known, "services"),
        (desired.nodes_known, "nodes"),
        (desired.endpoints_known, "endpoints"),
    ];
    Ok(Report {
        node: reconciler.facts().name.clone(),
        layout: Version::own(reconciler.kernel.scale()).to_string(),
        features: reconciler.kernel.features(),
        uplinks: reconciler.actual.uplinks.iter().cloned().collect(),
        endpoints: endpoints(reconciler),
        services: services(reconciler, &counters),
        routes: reconciler.actual.routes.iter().map(|(to, hop)| (to.to_string(), hop.to_string())).collect(),
        unreachable: desired
            .unreachable
            .iter()
            .map(|peer| format!("{}: {}", peer.node, peer.reason))
            .collect(),
        failures: reconciler
            .failures
            .iter()
            .map(|(subject, failure)| (subject.clone(), failure.error.to_string(), failure.attempts))
            .collect(),
        operations: reconciler.operations,
        errors: reconciler.errors,
        synced: known.iter().filter(|(known, _)| *known).map(|(_, name)| (*name).to_owned()).collect(),
        unread: reconciler.tables.unread().into_values().collect(),
        kube_proxy: Vec::new(),
        counters,
    })
}

fn endpoints<K>(reconciler: &Reconciler<K>) -> Vec<EndpointLine> {
    let line = |(link, row): (&String, &crate::desired::EndpointRow)| EndpointLine {
        pod: format!("{}/{}", row.endpoint.pod_namespace, row.endpoint.pod_name),
        link: link.clone(),
        addresses: row.endpoint.addresses.iter().map(ToString::to_string).collect(),
        state: match reconciler.failures.get(&format!("endpoint {link}")) {
            Some(failure) => failure.error.to_string(),
            None if reconciler.actual.endpoints.contains_key(link) => "attached".to_owned(),
            None => "pending".to_owned(),
        },
    };
    reconciler.desired.endpoints.iter().map(line).collect()
}

fn services<K>(reconciler: &Reconciler<K>, counters: &Counters) -> Vec<ServiceLine> {
    let address =
        |addr: abi::Addr16, port: abi::Be16| std::net::SocketAddr::new(addr.ip(), port.host()).to_string();
    let mut lines = Vec::new();
    for (id, row) in &reconciler.desired.services {
        let index = row
            .frontends
            .keys()
            .filter(|key| key.proto != 0)
            .find_map(|key| reconciler.actual.frontends.get(key))
            .map(|frontend| frontend.service);
        let (connections, refused) =
            index.and_then(|index| counters.services.get(&index)).copied().unwrap_or_default();
        let backend = |choice: &Choice| {
            let (addr, port) = choice.backend;
            let here = if row.local.contains(choice) { "*" } else { "" };
            format!("{}{here}", address(addr, port))
        };
        lines.push(ServiceLine {
            service: format!("{}/{}:{}", id.service.namespace, id.service.name, id.port),
            protocol: format!("{:?}", id.protocol).to_uppercase(),
            index,
            frontends: row
                .frontends
                .keys()
                .filter(|key| key.proto != 0)
                .map(|key| address(key.addr, key.port))
                .collect(),
            affinity: row.affinity,
            backends: row.cluster.iter().map(backend).collect(),
            connections,
            refused,
        });
    }
    lines
}
