//! Blocks of addresses into regions: inside of one, every address is in the same blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network};

use super::identities::ClauseId;

/// Where all IPv4 addresses are among those of IPv6.
const MAPPED: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0);

/// Names what the addresses of a region have in common; zero is that no block has them.
pub type Kind = u32;

/// The regions, as prefixes of which the longest counts.
#[derive(Debug, Default)]
pub struct Regions {
    rows: BTreeMap<IpNetwork, Kind>,
    kinds: Vec<Vec<ClauseId>>,
    /// Lengths of the prefixes of IPv4 and of IPv6.
    lengths: [BTreeSet<u8>; 2],
}

/// What begins and ends at a prefix.
#[derive(Debug, Default)]
struct Border {
    blocks: Vec<ClauseId>,
    excepts: Vec<ClauseId>,
}

impl Regions {
    /// The regions between the borders of `blocks`.
    pub fn of<'a>(blocks: impl Iterator<Item = (ClauseId, &'a IpNetwork, &'a BTreeSet<IpNetwork>)>) -> Self {
        let mut borders = BTreeMap::<IpNetwork, Border>::new();
        for (id, cidr, except) in blocks {
            borders.entry(*cidr).or_default().blocks.push(id);
            for network in except {
                borders.entry(*network).or_default().excepts.push(id);
            }
        }
        // IPv4 lies inside of IPv6, where programs look: what is said of the one is not meant for the other.
        let covers = |network: &IpNetwork| !network.is_ipv4() && network.contains(MAPPED.into());
        if borders.keys().any(covers) {
            borders.entry(every_v4()).or_default();
        }
        let mut regions =
            Self { rows: BTreeMap::new(), kinds: vec![Vec::new()], lengths: <[BTreeSet<u8>; 2]>::default() };
        regions.walk(&borders);
        regions
    }

    /// Prefixes in order: each comes after those it is inside of.
    fn walk(&mut self, borders: &BTreeMap<IpNetwork, Border>) {
        let mut known = BTreeMap::from([(Vec::new(), 0)]);
        let mut around: Vec<(IpNetwork, BTreeSet<ClauseId>)> = Vec::new();
        for (network, border) in borders {
            while around.last().is_some_and(|(outer, _)| !is_inside(network, outer)) {
                around.pop();
            }
            let mut inside = around.last().map(|(_, inside)| inside.clone()).unwrap_or_default();
            inside.extend(&border.blocks);
            inside.retain(|id| !border.excepts.contains(id));
            let list: Vec<ClauseId> = inside.iter().copied().collect();
            let next = self.kinds.len() as Kind;
            let kind = *known.entry(list).or_insert_with_key(|list| {
                self.kinds.push(list.clone());
                next
            });
            self.rows.insert(*network, kind);
            self.lengths[usize::from(!network.is_ipv4())].insert(network.prefix());
            around.push((*network, inside));
        }
    }

    /// All of them.
    pub fn rows(&self) -> &BTreeMap<IpNetwork, Kind> {
        &self.rows
    }

    /// The blocks that addresses of a kind are in.
    pub fn blocks(&self, kind: Kind) -> &[ClauseId] {
        self.kinds.get(kind as usize).map_or(&[], Vec::as_slice)
    }

    /// The kind of an address.
    pub fn at(&self, address: IpAddr) -> Kind {
        let lengths = self.lengths[usize::from(!address.is_ipv4())].iter().rev();
        let row = |length: &u8| self.rows.get(&truncated(address, *length)?);
        lengths.filter_map(row).next().copied().unwrap_or_default()
    }
}

fn every_v4() -> IpNetwork {
    Ipv4Network::new(Ipv4Addr::UNSPECIFIED, 0).expect("zero is a length").into()
}

fn is_inside(network: &IpNetwork, outer: &IpNetwork) -> bool {
    network.is_ipv4() == outer.is_ipv4()
        && network.prefix() >= outer.prefix()
        && outer.contains(network.network())
}

fn truncated(address: IpAddr, length: u8) -> Option<IpNetwork> {
    let network = IpNetwork::new(address, length).ok()?;
    IpNetwork::new(network.network(), length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regions(blocks: &[(&str, &[&str])]) -> Regions {
        let parsed: Vec<(IpNetwork, BTreeSet<IpNetwork>)> = blocks
            .iter()
            .map(|(cidr, except)| {
                (cidr.parse().unwrap(), except.iter().map(|text| text.parse().unwrap()).collect())
            })
            .collect();
        Regions::of((0..).zip(&parsed).map(|(id, (cidr, except))| (id, cidr, except)))
    }

    fn at(regions: &Regions, address: &str) -> Vec<ClauseId> {
        regions.blocks(regions.at(address.parse().unwrap())).to_vec()
    }

    #[test]
    fn blocks_overlap_nest_and_leave_out() {
        let regions = regions(&[
            ("10.0.0.0/8", &["10.1.0.0/16"]),
            ("10.1.0.0/16", &[]),
            ("10.1.2.0/24", &["10.1.2.3/32"]),
            ("0.0.0.0/0", &["10.0.0.0/8", "10.1.2.0/24"]),
        ]);
        for (address, want) in [
            ("192.0.2.1", &[3][..]),
            ("10.0.0.1", &[0]),
            ("10.1.0.1", &[1]),
            ("10.1.2.1", &[1, 2]),
            ("10.1.2.3", &[1]),
            ("2001:db8::1", &[]),
        ] {
            assert_eq!(at(&regions, address), want, "{address}");
        }
    }

    #[test]
    fn everything_of_ipv6_is_nothing_of_ipv4() {
        let regions = regions(&[("::/0", &[]), ("::/80", &[]), ("10.0.0.0/8", &[])]);
        assert_eq!(at(&regions, "2001:db8::1"), [0]);
        assert!(at(&regions, "192.0.2.1").is_empty());
        assert_eq!(at(&regions, "10.0.0.1"), [2]);
        assert_eq!(regions.rows().get(&every_v4()), Some(&0), "there is a row that says so");
    }
}
