//! Services whose policy wants local endpoints and has none, though others have some: their clients are dropped.

use std::collections::BTreeMap;

use crate::desired::NodeFacts;
use crate::tables::{ObjectName, Service, Snapshot};

/// How many service ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Missing {
    /// By `internalTrafficPolicy`.
    pub internal: u64,
    /// By `externalTrafficPolicy`.
    pub external: u64,
}

/// Counts them.
pub fn count(rows: &Snapshot, facts: &NodeFacts) -> Missing {
    let local: BTreeMap<&ObjectName, &Service> = rows
        .services
        .iter()
        .filter(|(_, service)| service.internal_local || service.external_local)
        .map(|(name, service)| (name, service.as_ref()))
        .collect();
    let mut missing = Missing::default();
    if local.is_empty() {
        return missing;
    }
    let mut found: BTreeMap<&ObjectName, (bool, bool)> = BTreeMap::new();
    for (name, slice) in &rows.slices {
        let owner = ObjectName { namespace: name.namespace.clone(), name: slice.service.clone() };
        let Some((owner, _)) = local.get_key_value(&owner) else { continue };
        let (anywhere, here) = found.entry(owner).or_default();
        for endpoint in &slice.endpoints {
            if endpoint.ready || endpoint.serving && endpoint.terminating {
                *anywhere = true;
                *here |= endpoint.node.as_deref() == Some(facts.name.as_str());
            }
        }
    }
    for (name, service) in local {
        if found.get(name) == Some(&(true, false)) {
            let ports = service.ports.len() as u64;
            missing.internal += if service.internal_local { ports } else { 0 };
            missing.external += if service.external_local { ports } else { 0 };
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::tables::{ServicePort, Slice, SliceEndpoint};

    #[test]
    fn only_services_with_endpoints_elsewhere_count() {
        let mut rows = Snapshot::default();
        let facts = NodeFacts { name: "n1".into(), ..NodeFacts::default() };
        let name = ObjectName { namespace: "default".into(), name: "web".into() };
        let service = Service {
            internal_local: true,
            ports: vec![ServicePort::default(), ServicePort::default()],
            ..Service::default()
        };
        rows.services.insert(name.clone(), Arc::new(service));
        assert_eq!(count(&rows, &facts), Missing::default(), "nobody anywhere is another matter");
        let mut tell = |node: &str| {
            let endpoint = SliceEndpoint {
                node: Some(node.into()),
                ..SliceEndpoint::new("10.244.2.2".parse().unwrap())
            };
            let slice = Slice { service: "web".into(), endpoints: vec![endpoint], ports: Vec::new() };
            rows.slices.insert(name.clone(), Arc::new(slice));
            count(&rows, &facts)
        };
        assert_eq!(tell("n2"), Missing { internal: 2, external: 0 });
        assert_eq!(tell("n1"), Missing::default());
    }
}
