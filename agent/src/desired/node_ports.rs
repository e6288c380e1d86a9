//! Which addresses of the host NodePorts and ports of pods answer on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use abi::service::frontend;

use super::{NodePortAddresses, View};

/// The addresses of one family, with the bits of their frontends beside `EXTERNAL`.
pub fn addresses(view: View<'_>, v4: bool) -> Vec<(IpAddr, u32)> {
    let loopback: IpAddr = if v4 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    let bits = |address: IpAddr| if address == loopback { frontend::HOST_ONLY } else { 0 };
    let mut found: Vec<IpAddr> = match &view.facts.nodeport {
        NodePortAddresses::Primary => view.facts.addresses.iter().copied().chain([loopback]).collect(),
        NodePortAddresses::Within(prefixes) => {
            let own = view.host_addresses.iter().chain(&view.facts.addresses).copied();
            own.filter(|address| prefixes.iter().any(|prefix| prefix.contains(*address))).collect()
        }
    };
    // Only one address of the loopback is served: the rest of its prefix is not ours to take.
    found.retain(|address| address.is_ipv4() == v4 && (!address.is_loopback() || *address == loopback));
    found.sort_unstable();
    found.dedup();
    found.into_iter().map(|address| (address, bits(address))).collect()
}

/// Whether the host has the address itself: then other ports of it are the host's own.
pub fn is_own(view: View<'_>, address: &IpAddr) -> bool {
    view.facts.addresses.contains(address) || view.host_addresses.contains(address)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::desired::NodeFacts;

    #[test]
    fn addresses_are_the_primary_ones_or_those_inside_prefixes() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let host_addresses =
            BTreeSet::from(["127.0.0.1", "192.0.2.1", "10.0.0.9", "::1", "2001:db8::1"].map(ip));
        let all = |nodeport| {
            let facts = NodeFacts { addresses: vec![ip("192.0.2.1")], nodeport, ..NodeFacts::default() };
            let view = View { facts: &facts, zone: None, host_addresses: &host_addresses };
            [true, false].map(|v4| {
                addresses(view, v4)
                    .into_iter()
                    .map(|(address, bits)| format!("{address}{}", if bits == 0 { "" } else { " host" }))
                    .collect::<Vec<_>>()
            })
        };
        let within = |prefixes: &[&str]| {
            NodePortAddresses::Within(prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect())
        };
        assert_eq!(
            all(NodePortAddresses::Primary),
            [vec!["127.0.0.1 host".to_owned(), "192.0.2.1".into()], vec!["::1 host".to_owned()]]
        );
        assert_eq!(all(within(&["10.0.0.0/8"])), [vec!["10.0.0.9".to_owned()], vec![]]);
        assert_eq!(
            all(within(&["0.0.0.0/0", "2001:db8::/32"])),
            [
                vec!["10.0.0.9".to_owned(), "127.0.0.1 host".into(), "192.0.2.1".into()],
                vec!["2001:db8::1".to_owned()]
            ]
        );
    }
}
