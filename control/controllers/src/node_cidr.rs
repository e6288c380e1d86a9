//! Every node gets its own pod CIDRs: one /24 of each IPv4 range, one /64 of each IPv6 range of the cluster.
//!
//! The allocation is the Node object's `spec.podCIDRs`, which never changes once set. A free subnet is the lowest one no
//! node holds. All nodes go through one key, so two of them are never given the same subnet.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use serde_json::json;

use crate::change::Change;
use crate::controller::{Controller, Key, Outcome};
use crate::view::View;
use crate::write::{Happening, Target, Write};

const V4_PREFIX: u8 = 24;
const V6_PREFIX: u8 = 64;
const COMPONENT: &str = "node-ipam-controller";

/// Why a cluster CIDR cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CidrError {
    #[error("{cidr} is not a CIDR such as 10.244.0.0/16")]
    Malformed {
        cidr: String,
        #[source]
        source: ipnetwork::IpNetworkError,
    },
    #[error("{cidr} has no room for a /{prefix} per node")]
    TooSmall { cidr: String, prefix: u8 },
}

pub(crate) struct NodeCidrController {
    ranges: Vec<Range>,
}

/// A cluster range, cut into subnets of one size.
struct Range {
    base: u128,
    is_v6: bool,
    prefix: u8,
    subnets: u128,
}

impl NodeCidrController {
    pub(crate) fn new(cidrs: &[String]) -> Result<Self, CidrError> {
        Ok(Self { ranges: cidrs.iter().map(|cidr| Range::parse(cidr)).collect::<Result<_, _>>()? })
    }
}

impl Controller for NodeCidrController {
    fn name(&self) -> &'static str {
        COMPONENT
    }

    fn wakes(&self, change: &Change<'_>, _: &View) -> Vec<Key> {
        if change.is("nodes") { vec![Key::cluster("all")] } else { Vec::new() }
    }

    fn reconcile(&self, _: &Key, view: &View, now: Timestamp) -> Outcome {
        let mut taken: BTreeSet<String> =
            view.nodes.all().flat_map(|(_, node)| node.spec.pod_cidrs.iter().cloned()).collect();
        let mut outcome = Outcome::nothing();
        for (key, node) in view.nodes.all().filter(|(_, node)| node.spec.pod_cidrs.is_empty()) {
            let free: Option<Vec<String>> =
                self.ranges.iter().map(|range| range.lowest_free(&taken)).collect();
            let Some(cidrs) = free else {
                let uid = node.metadata.uid.as_deref().unwrap_or_default();
                outcome.writes.push(exhausted(key, uid, now));
                continue;
            };
            taken.extend(cidrs.iter().cloned());
            let metadata = json!({"resourceVersion": node.metadata.resource_version});
            let body = json!({"metadata": metadata, "spec": {"podCIDR": cidrs.first(), "podCIDRs": cidrs}});
            outcome.writes.push(Write::Patch {
                target: Target::new("v1", "nodes", key.clone()),
                subresource: None,
                body,
            });
        }
        outcome
    }
}

fn exhausted(key: &Key, uid: &str, now: Timestamp) -> Write {
    Happening {
        component: COMPONENT,
        api_version: "v1",
        kind: "Node",
        key,
        uid,
        warning: true,
        reason: "CIDRNotAvailable",
        message: "the cluster CIDR has no free subnet left for this node".to_owned(),
        now,
    }
    .write()
}

impl Range {
    fn parse(text: &str) -> Result<Self, CidrError> {
        let network: IpNetwork = match text.parse() {
            Ok(network) => network,
            Err(source) => return Err(CidrError::Malformed { cidr: text.to_owned(), source }),
        };
        let (base, is_v6, prefix) = match network {
            IpNetwork::V4(network) => (u128::from(u32::from(network.network())), false, V4_PREFIX),
            IpNetwork::V6(network) => (u128::from(network.network()), true, V6_PREFIX),
        };
        if network.prefix() > prefix {
            return Err(CidrError::TooSmall { cidr: text.to_owned(), prefix });
        }
        Ok(Self { base, is_v6, prefix, subnets: 1 << (prefix - network.prefix()) })
    }

    fn lowest_free(&self, taken: &BTreeSet<String>) -> Option<String> {
        (0..self.subnets).map(|index| self.subnet(index)).find(|subnet| !taken.contains(subnet))
    }

    fn subnet(&self, index: u128) -> String {
        let bits = if self.is_v6 { 128 } else { 32 };
        let address = self.base + (index << (bits - self.prefix));
        if self.is_v6 {
            return format!("{}/{}", std::net::Ipv6Addr::from(address), self.prefix);
        }
        let address = u32::try_from(address).expect("an IPv4 range stays below 2^32");
        format!("{}/{}", std::net::Ipv4Addr::from(address), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::world;
    use serde_json::Value;

    fn node(name: &str, cidrs: &[&str]) -> Value {
        json!({"kind": "Node", "metadata": {"name": name, "uid": name}, "spec": {"podCIDRs": cidrs}})
    }

    fn given(nodes: &[Value], ranges: &[&str]) -> Vec<(String, Value)> {
        let ranges: Vec<String> = ranges.iter().map(|range| (*range).to_owned()).collect();
        let controller = NodeCidrController::new(&ranges).unwrap();
        let outcome = controller.reconcile(&Key::cluster("all"), &world(nodes), Timestamp::UNIX_EPOCH);
        let told = outcome.writes.into_iter().map(|write| match write {
            Write::Patch { target, body, .. } => (target.key.name, body["spec"]["podCIDRs"].clone()),
            Write::Create { body, .. } => (body["reason"].as_str().unwrap().to_owned(), json!(null)),
            other => panic!("{other:?}"),
        });
        told.collect()
    }

    #[test]
    fn nodes_get_the_lowest_free_subnet_of_each_family() {
        let nodes = [node("a", &[]), node("b", &["10.244.0.0/24", "fd00:244::/64"]), node("c", &[])];
        let want = [
            ("a".to_owned(), json!(["10.244.1.0/24", "fd00:244:0:1::/64"])),
            ("c".to_owned(), json!(["10.244.2.0/24", "fd00:244:0:2::/64"])),
        ];
        assert_eq!(given(&nodes, &["10.244.0.0/16", "fd00:244::/48"]), want);
    }

    #[test]
    fn a_full_range_is_reported_on_the_node() {
        let nodes = [node("a", &["10.0.0.0/24"]), node("b", &[])];
        assert_eq!(given(&nodes, &["10.0.0.0/24"]), [("CIDRNotAvailable".to_owned(), json!(null))]);
    }

    #[test]
    fn bad_ranges_are_refused() {
        for (range, want) in [("10.244.0.0", "no room"), ("ten", "is not a CIDR"), ("10.0.0.0/25", "no room")]
        {
            let error = NodeCidrController::new(&[range.to_owned()]).err().unwrap().to_string();
            assert!(error.contains(want), "{range}: {error}");
        }
    }
}
