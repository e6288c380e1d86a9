//! Blocks of pools for nodes, in clusters that allocate no podCIDRs: which one a node asks for, and when it has it.
//!
//! ```text
//!  nothing --choose--> asked --nobody else asks for it or has it--> held, for as long as the Node is there
//!     ^                  |
//!     +------------------+ somebody else does
//! ```
//!
//! Both are annotations of the Node object, written by the node alone. What is held was asked for, and afterwards a list of
//! all nodes showed nobody else. Of two that ask for the same, the one whose list is older may have it: the list of the other
//! shows that. Where both lists show both, neither has it, and each chooses anew from another place.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::pools::{Kind, Pool};

/// The annotation with the networks of a node's pods, as `10.244.3.0/24,fd00:244:0:3::/64`.
pub const HELD: &str = "hawser.dev/pod-cidrs";
/// The annotation with what a node would like to hold.
pub const ASKED: &str = "hawser.dev/pod-cidrs-asked";

/// Prefix lengths of blocks where a pool does not say.
const SIZES: (u8, u8) = (24, 64);
/// Blocks of one network that are looked at.
const MOST: u128 = 1 << 16;

/// What one node has and wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    /// Its podCIDRs, whoever gave them.
    pub held: Vec<IpNetwork>,
    /// What it asks for.
    pub asked: Vec<IpNetwork>,
}

/// What a node does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It has its networks.
    Done,
    /// It asks for these.
    Ask(Vec<IpNetwork>),
    /// It holds these.
    Hold(Vec<IpNetwork>),
    /// It takes back what it asked for.
    Retract,
}

/// Every block of a family is somebody's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no pool for pods has a free block of {family}; add a pool, or remove nodes")]
pub struct NoBlock {
    /// `IPv4` or `IPv6`.
    pub family: &'static str,
}

/// The networks in an annotation; what cannot be read is none.
pub fn networks(annotation: Option<&String>) -> Vec<IpNetwork> {
    let text = annotation.map_or("", String::as_str);
    text.split(',').filter_map(|network| network.trim().parse().ok()).collect()
}

/// What the node `own` does, given everybody's claims as they were after its last write. Each `attempt` looks from another
/// place.
pub fn step(
    own: &str,
    nodes: &BTreeMap<String, Claims>,
    pools: &[Pool],
    attempt: u32,
) -> Result<Step, NoBlock> {
    let mine = nodes.get(own).cloned().unwrap_or_default();
    if !mine.held.is_empty() {
        return Ok(Step::Done);
    }
    let others = nodes.iter().filter(|(name, _)| *name != own);
    let taken: Vec<IpNetwork> =
        others.flat_map(|(_, claims)| claims.held.iter().chain(&claims.asked)).copied().collect();
    if mine.asked.is_empty() {
        return choose(own, &taken, pools, attempt).map(Step::Ask);
    }
    let is_contested = mine.asked.iter().any(|asked| taken.iter().any(|other| overlap(*asked, *other)));
    Ok(if is_contested { Step::Retract } else { Step::Hold(mine.asked) })
}

/// One free block of each family that the pools have, in their order.
fn choose(own: &str, taken: &[IpNetwork], pools: &[Pool], attempt: u32) -> Result<Vec<IpNetwork>, NoBlock> {
    let pools: Vec<(IpNetwork, u8)> =
        pools.iter().filter(|pool| pool.kind == Kind::Pod).flat_map(sized).collect();
    let first = |v4: bool| pools.iter().position(|(network, _)| network.is_ipv4() == v4);
    let mut families: Vec<(usize, bool)> =
        [true, false].into_iter().filter_map(|v4| Some((first(v4)?, v4))).collect();
    families.sort_unstable();
    families
        .into_iter()
        .map(|(_, v4)| {
            let mut networks = pools.iter().filter(|(network, _)| network.is_ipv4() == v4);
            let family = if v4 { "IPv4" } else { "IPv6" };
            networks
                .find_map(|(network, size)| free(own, *network, *size, taken, attempt))
                .ok_or(NoBlock { family })
        })
        .collect()
}

/// The networks of a pool with the size of their blocks; one that is smaller than a block is one.
fn sized(pool: &Pool) -> impl Iterator<Item = (IpNetwork, u8)> {
    pool.cidrs.iter().enumerate().map(|(at, network)| {
        let usual = if network.is_ipv4() { SIZES.0 } else { SIZES.1 };
        (*network, pool.block_sizes.get(at).copied().unwrap_or(usual).max(network.prefix()))
    })
}

/// The first free block from a place that depends on who asks: nodes that start together ask for different ones.
fn free(own: &str, network: IpNetwork, size: u8, taken: &[IpNetwork], attempt: u32) -> Option<IpNetwork> {
    let blocks = 1_u128.checked_shl(u32::from(size - network.prefix())).unwrap_or(MOST).min(MOST);
    let start = u128::from(place(own, attempt)) % blocks;
    (0..blocks)
        .map(|at| block(network, size, (start + at) % blocks))
        .find(|block| !taken.iter().any(|other| overlap(*block, *other)))
}

fn block(network: IpNetwork, size: u8, number: u128) -> IpNetwork {
    let address = match network.network() {
        IpAddr::V4(first) => {
            let offset = u32::try_from(number << (32 - size)).unwrap_or(0);
            IpAddr::V4((first.to_bits() | offset).into())
        }
        IpAddr::V6(first) => IpAddr::V6((first.to_bits() | (number << (128 - size))).into()),
    };
    IpNetwork::new(address, size).expect("the size of a block is checked when pools are read")
}

/// FNV-1a over name and attempt.
fn place(own: &str, attempt: u32) -> u32 {
    let bytes = own.bytes().chain(attempt.to_le_bytes());
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn overlap(a: IpNetwork, b: IpNetwork) -> bool {
    a.contains(b.network()) || b.contains(a.network())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pools(text: &str) -> Vec<Pool> {
        crate::pools::parse(text).unwrap()
    }

    fn claims(held: &str, asked: &str) -> Claims {
        let read = |text: &str| networks(Some(&text.to_owned()));
        Claims { held: read(held), asked: read(asked) }
    }

    fn next(nodes: &[(&str, Claims)], pools: &[Pool]) -> Result<Step, NoBlock> {
        step(
            "a",
            &nodes.iter().map(|(name, claims)| ((*name).to_owned(), claims.clone())).collect(),
            pools,
            0,
        )
    }

    #[test]
    fn a_node_asks_looks_and_holds() {
        let pools = pools("- {name: p, kind: Pod, cidrs: ['fd00::/48', 10.0.0.0/16]}");
        let Step::Ask(asked) = next(&[("a", claims("", ""))], &pools).unwrap() else { panic!("asks") };
        assert_eq!(
            asked.iter().map(IpNetwork::prefix).collect::<Vec<_>>(),
            [64, 24],
            "in the order of the pool"
        );
        let written = asked.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let mine = claims("", &written);
        assert_eq!(next(&[("a", mine.clone())], &pools), Ok(Step::Hold(asked.clone())));
        for other in [claims(&written, ""), claims("", &asked[1].to_string()), claims("10.0.0.0/8", "")] {
            assert_eq!(next(&[("a", mine.clone()), ("b", other)], &pools), Ok(Step::Retract));
        }
        assert_eq!(next(&[("a", claims(&written, "")), ("b", mine)], &pools), Ok(Step::Done));
    }

    #[test]
    fn the_next_pool_of_a_family_is_used_when_one_is_full_and_then_there_is_none() {
        let pools = pools(
            "- {name: p, kind: Pod, cidrs: [10.0.0.0/24], blockSizes: [25]}\n- {name: q, kind: Pod, cidrs: [10.1.0.0/26]}\n\
             - {name: r, kind: LoadBalancer, cidrs: [10.2.0.0/16]}",
        );
        let with = |held: &str| next(&[("b", claims(held, ""))], &pools);
        assert_eq!(with("10.0.0.0/25"), Ok(Step::Ask(vec!["10.0.0.128/25".parse().unwrap()])));
        assert_eq!(with("10.0.0.0/25,10.0.0.128/25"), Ok(Step::Ask(vec!["10.1.0.0/26".parse().unwrap()])));
        assert_eq!(with("10.0.0.0/24,10.1.0.0/16"), Err(NoBlock { family: "IPv4" }));
    }

    /// A node between its list and its write.
    #[derive(Default)]
    struct Walker {
        seen: Option<(u64, BTreeMap<String, Claims>)>,
        attempt: u32,
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

        /// Nodes list and write in any order; a write that does not follow what was listed of one's own is refused.
        #[test]
        fn no_two_nodes_hold_the_same_whatever_the_order(order in prop::collection::vec(0..5_usize, 0..200)) {
            let pools = pools("- {name: p, kind: Pod, cidrs: [10.0.0.0/28], blockSizes: [30]}");
            let mut store: BTreeMap<String, Claims> = BTreeMap::new();
            let mut versions = [0_u64; 5];
            let mut walkers: [Walker; 5] = std::array::from_fn(|_| Walker::default());
            // In the end everybody has its turns alone.
            let rest = (0..5).flat_map(|node| std::iter::repeat_n(node, 40));
            for node in order.into_iter().chain(rest) {
                let name = format!("n{node}");
                let walker = &mut walkers[node];
                let Some((version, seen)) = walker.seen.take() else {
                    walker.seen = Some((versions[node], store.clone()));
                    continue;
                };
                let Ok(next) = step(&name, &seen, &pools, walker.attempt) else { continue };
                if version != versions[node] || next == Step::Done {
                    continue;
                }
                versions[node] += 1;
                let claims = match next {
                    Step::Ask(asked) => Claims { asked, ..Claims::default() },
                    Step::Hold(held) => Claims { held, ..Claims::default() },
                    Step::Retract | Step::Done => {
                        walker.attempt += 1;
                        Claims::default()
                    }
                };
                store.insert(name, claims);
                let held: Vec<IpNetwork> = store.values().flat_map(|claims| claims.held.clone()).collect();
                for (at, one) in held.iter().enumerate() {
                    prop_assert!(held[at + 1..].iter().all(|other| !overlap(*one, *other)), "{:?}", store);
                }
            }
            let holding = store.values().filter(|claims| !claims.held.is_empty()).count();
            prop_assert_eq!(holding, 4, "as many as there are blocks");
        }
    }
}
