//! Pools of addresses, from one ConfigMap: for pods of clusters that allocate no podCIDRs, and for load balancers.
//!
//! ```yaml
//! apiVersion: v1
//! kind: ConfigMap
//! metadata: { name: hawser, namespace: kube-system }
//! data:
//!   pools.yaml: |
//!     - name: office
//!       kind: LoadBalancer
//!       cidrs: [192.0.2.128/26, "2001:db8:7::/112"]
//!     - name: pods
//!       kind: Pod
//!       cidrs: [10.244.0.0/16, "fd00:244::/48"]
//!       blockSizes: [24, 64]
//! ```

use std::collections::BTreeSet;
use std::str::FromStr;

use ipnetwork::IpNetwork;
use serde::Deserialize;

/// The key of the ConfigMap that holds the list.
pub const KEY: &str = "pools.yaml";

/// Where the ConfigMap is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err(format!("{text:?} is not NAMESPACE/NAME")),
        }
    }
}

/// What the addresses of a pool are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Kind {
    /// Blocks for the pods of nodes.
    Pod,
    /// Single addresses for Services of type LoadBalancer.
    LoadBalancer,
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pool {
    /// Its name, one of a kind.
    pub name: String,
    /// What it is for.
    pub kind: Kind,
    /// Its networks, of either family.
    pub cidrs: Vec<IpNetwork>,
    /// Prefix lengths of the blocks that nodes get, one for each of `cidrs`; absent for 24 and 64.
    #[serde(default)]
    pub block_sizes: Vec<u8>,
    /// Whether Services get addresses of it that ask for no pool.
    #[serde(default = "yes")]
    pub auto_assign: bool,
    /// Whether nodes answer for its addresses on their links (ARP and NDP); routers that know the way need none.
    #[serde(default = "yes")]
    pub announce: bool,
}

fn yes() -> bool {
    true
}

/// Why the list cannot be used. The one before stays in use.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolsError {
    /// It is not what it should be.
    #[error("{KEY} cannot be read: {0}")]
    Syntax(String),
    /// Two pools share something.
    #[error("{KEY}: {0}")]
    Rule(String),
}

/// Reads the list; nothing is an empty one.
pub fn parse(text: &str) -> Result<Vec<Pool>, PoolsError> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let pools: Vec<Pool> =
        serde_saphyr::from_str(text).map_err(|error| PoolsError::Syntax(error.to_string()))?;
    let mut names = BTreeSet::new();
    let mut networks: Vec<(&str, IpNetwork)> = Vec::new();
    for pool in &pools {
        if pool.name.is_empty() || !names.insert(&pool.name) {
            return Err(PoolsError::Rule(format!("the name {:?} is empty, or two pools have it", pool.name)));
        }
        check(pool)?;
        for cidr in &pool.cidrs {
            if let Some((other, overlap)) = networks.iter().find(|(_, known)| overlaps(*known, *cidr)) {
                return Err(PoolsError::Rule(format!(
                    "{cidr} of {} overlaps {overlap} of {other}",
                    pool.name
                )));
            }
            networks.push((&pool.name, *cidr));
        }
    }
    Ok(pools)
}

fn check(pool: &Pool) -> Result<(), PoolsError> {
    let broken = |what: String| Err(PoolsError::Rule(format!("{}: {what}", pool.name)));
    if pool.cidrs.is_empty() {
        return broken("it has no cidrs".to_owned());
    }
    if let Some(cidr) = pool.cidrs.iter().find(|cidr| cidr.ip() != cidr.network()) {
        return broken(format!("{cidr} has bits beyond its prefix"));
    }
    if pool.block_sizes.is_empty() {
        return Ok(());
    }
    if pool.kind == Kind::LoadBalancer || pool.block_sizes.len() != pool.cidrs.len() {
        return broken("blockSizes are for pods, one for each of cidrs".to_owned());
    }
    for (cidr, size) in pool.cidrs.iter().zip(&pool.block_sizes) {
        let bits = if cidr.is_ipv4() { 32 } else { 128 };
        if *size < cidr.prefix() || *size > bits - 2 {
            return broken(format!("{cidr} cannot be cut into blocks of /{size}"));
        }
    }
    Ok(())
}

fn overlaps(a: IpNetwork, b: IpNetwork) -> bool {
    a.contains(b.network()) || b.contains(a.network())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_with_what_it_leaves_out() {
        let text = "- {name: a, kind: LoadBalancer, cidrs: [192.0.2.0/28, '2001:db8::/112']}\n\
                    - {name: b, kind: Pod, cidrs: [10.0.0.0/8], blockSizes: [24], autoAssign: false}\n";
        let pools = parse(text).unwrap();
        assert!(pools[0].auto_assign && pools[0].announce && pools[0].cidrs.len() == 2);
        assert_eq!(
            (pools[1].kind, pools[1].auto_assign, &pools[1].block_sizes[..]),
            (Kind::Pod, false, &[24][..])
        );
        assert_eq!(parse(" \n"), Ok(Vec::new()));
    }

    #[test]
    fn a_place_is_a_namespace_and_a_name() {
        let place = "kube-system/hawser".parse::<Place>().unwrap();
        assert_eq!((place.namespace.as_str(), place.name.as_str()), ("kube-system", "hawser"));
        for wrong in ["hawser", "/hawser", "kube-system/", "a/b/c", ""] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let wrong = |text: &str| parse(text).unwrap_err().to_string();
        for (text, says) in [
            ("- {name: a, kind: Lan, cidrs: []}", "cannot be read"),
            ("- {name: a, kind: Pod, cidrs: [10.0.0.0/8], extra: 1}", "cannot be read"),
            ("- {name: a, kind: Pod, cidrs: [300.0.0.0/8]}", "cannot be read"),
            ("- {name: a, kind: Pod, cidrs: []}", "a: it has no cidrs"),
            ("- {name: a, kind: Pod, cidrs: [10.0.0.1/8]}", "10.0.0.1/8 has bits beyond its prefix"),
            ("- {name: a, kind: Pod, cidrs: [10.0.0.0/8], blockSizes: [7]}", "blocks of /7"),
            ("- {name: a, kind: Pod, cidrs: [10.0.0.0/8], blockSizes: [24, 64]}", "one for each"),
            ("- {name: a, kind: LoadBalancer, cidrs: [10.0.0.0/8], blockSizes: [24]}", "are for pods"),
            (
                "- {name: a, kind: Pod, cidrs: [10.0.0.0/8]}\n- {name: a, kind: Pod, cidrs: [11.0.0.0/8]}",
                "two pools",
            ),
            (
                "- {name: a, kind: Pod, cidrs: [10.0.0.0/8]}\n- {name: b, kind: Pod, cidrs: [10.1.0.0/16]}",
                "10.1.0.0/16 of b overlaps 10.0.0.0/8 of a",
            ),
        ] {
            assert!(wrong(text).contains(says), "{text}: {}", wrong(text));
        }
    }
}
