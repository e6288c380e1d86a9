//! Local pods into links: names and hardware addresses follow from the endpoint, so that a restart finds them again.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use abi::endpoint::link;

use super::EndpointRow;
use crate::tables::{Attachment, Endpoint, EndpointId, ObjectName, PodOptions};

/// The default gateway inside every pod. It exists nowhere: a static neighbour entry leads to the host's end.
pub const GATEWAY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));
/// The default gateway of IPv6.
pub const GATEWAY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
/// What the names of our links begin with.
pub const LINK_PREFIX: &str = "hw";

/// The links of all local pods.
pub fn endpoints(
    rows: &BTreeMap<EndpointId, Endpoint>,
    pods: &BTreeMap<ObjectName, Arc<PodOptions>>,
    mtu: u32,
) -> BTreeMap<String, EndpointRow> {
    let options = |endpoint: &Endpoint| {
        let pod = ObjectName { namespace: endpoint.pod_namespace.clone(), name: endpoint.pod_name.clone() };
        pods.get(&pod)
    };
    rows.values()
        .map(|endpoint| {
            let (attachment, options) = (attachment(endpoint, mtu), options(endpoint));
            (
                attachment.host_link.clone(),
                EndpointRow {
                    flags: if options.is_some_and(|pod| pod.no_sockets) { link::NO_SOCKETS } else { 0 },
                    limits: options.map(|pod| pod.limits),
                    endpoint: endpoint.clone(),
                    attachment,
                    policed: None,
                },
            )
        })
        .collect()
}

/// How `endpoint` is attached.
pub fn attachment(endpoint: &Endpoint, mtu: u32) -> Attachment {
    let id = hash(&format!("{}/{}", endpoint.container_id, endpoint.ifname));
    let [.., a, b, c, d, e] = id.to_be_bytes();
    Attachment {
        host_link: format!("{LINK_PREFIX}{:012x}", id & 0xffff_ffff_ffff),
        // Locally administered: bit 1 of the first byte.
        host_mac: [0x0a, a, b, c, d, e],
        pod_mac: [0x0e, a, b, c, d, e],
        gateways: endpoint
            .addresses
            .iter()
            .map(|address| if address.is_ipv4() { GATEWAY_V4 } else { GATEWAY_V6 })
            .collect(),
        mtu,
    }
}

/// FNV-1a, 64 bits: stable across builds, which the standard library's hasher is not.
pub(super) fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_fits_a_link_and_depends_on_container_and_interface() {
        let endpoint = |container: &str, ifname: &str| Endpoint {
            container_id: container.into(),
            ifname: ifname.into(),
            netns_path: "/var/run/netns/x".into(),
            pod_namespace: "default".into(),
            pod_name: "web".into(),
            addresses: vec!["10.244.0.5".parse().unwrap()],
            ..Endpoint::default()
        };
        let one = attachment(&endpoint("a", "eth0"), 1500);
        assert!(one.host_link.len() <= 15);
        assert_ne!(one.host_link, attachment(&endpoint("a", "eth1"), 1500).host_link);
        assert_ne!(one.host_mac, attachment(&endpoint("b", "eth0"), 1500).host_mac);
        assert_eq!(one, attachment(&endpoint("a", "eth0"), 1500));
    }
}
