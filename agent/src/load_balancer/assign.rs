//! Which Service gets which address: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use crate::pools::{Kind, Pool};
use crate::tables::ObjectName;

/// A Service that wants addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The Service.
    pub name: ObjectName,
    /// Second it was made: the older goes first.
    pub created: i64,
    /// The families it has (`spec.ipFamilies`), `true` for IPv4.
    pub families: Vec<bool>,
    /// The pool it asks for (`hawser.dev/load-balancer-pool`).
    pub pool: Option<String>,
    /// The addresses it asks for (`hawser.dev/load-balancer-ips`, or `spec.loadBalancerIP`).
    pub addresses: Vec<IpAddr>,
    /// What its status says.
    pub has: Vec<IpAddr>,
}

/// What becomes of it: its addresses, and why it lacks some.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Given {
    /// All that its status should say.
    pub addresses: Vec<IpAddr>,
    /// Why a family has none.
    pub refused: Option<String>,
}

/// Gives every Service its addresses. Who has fitting ones keeps them; then the older choose first.
pub fn assign(wishes: &[Wish], pools: &[Pool]) -> BTreeMap<ObjectName, Given> {
    let pools: Vec<&Pool> = pools.iter().filter(|pool| pool.kind == Kind::LoadBalancer).collect();
    let mut order: Vec<&Wish> = wishes.iter().collect();
    order.sort_by_key(|wish| (wish.created, &wish.name));
    let mut taken = BTreeSet::new();
    let mut given: BTreeMap<ObjectName, Given> = BTreeMap::new();
    for wish in &order {
        let own = given.entry(wish.name.clone()).or_default();
        for v4 in &wish.families {
            let fits = |address: &&IpAddr| address.is_ipv4() == *v4 && fits(wish, **address, &pools);
            if let Some(kept) = wish.has.iter().find(fits).filter(|kept| taken.insert(**kept)) {
                own.addresses.push(*kept);
            }
        }
    }
    for wish in order {
        let Some(own) = given.get_mut(&wish.name) else { continue };
        for v4 in &wish.families {
            if own.addresses.iter().any(|address| address.is_ipv4() == *v4) {
                continue;
            }
            match choose(wish, *v4, &pools, &taken) {
                Ok(address) => {
                    taken.insert(address);
                    own.addresses.push(address);
                }
                Err(reason) => own.refused = Some(reason),
            }
        }
        // In the order of the families, which is that of the Service's own addresses.
        own.addresses.sort_by_key(|address| wish.families.iter().position(|v4| *v4 == address.is_ipv4()));
    }
    given
}

/// Whether the Service may have this address.
fn fits(wish: &Wish, address: IpAddr, pools: &[&Pool]) -> bool {
    let asked = wish.addresses.iter().filter(|asked| asked.is_ipv4() == address.is_ipv4());
    let asked: Vec<&IpAddr> = asked.collect();
    (asked.is_empty() || asked.contains(&&address))
        && candidates(wish, pools).any(|pool| pool.cidrs.iter().any(|cidr| cidr.contains(address)))
}

/// The pools it may choose from.
fn candidates<'a>(wish: &'a Wish, pools: &'a [&Pool]) -> impl Iterator<Item = &'a Pool> {
    pools.iter().copied().filter(|pool| match &wish.pool {
        Some(name) => pool.name == *name,
        None => pool.auto_assign || !wish.addresses.is_empty(),
    })
}

fn choose(wish: &Wish, v4: bool, pools: &[&Pool], taken: &BTreeSet<IpAddr>) -> Result<IpAddr, String> {
    let family = if v4 { "IPv4" } else { "IPv6" };
    if let Some(asked) = wish.addresses.iter().find(|address| address.is_ipv4() == v4) {
        if !fits(wish, *asked, pools) {
            return Err(format!("{asked} is in no pool that the Service may use"));
        }
        return if taken.contains(asked) {
            Err(format!("{asked} belongs to another Service"))
        } else {
            Ok(*asked)
        };
    }
    let networks: Vec<IpNetwork> = candidates(wish, pools)
        .flat_map(|pool| pool.cidrs.iter().copied())
        .filter(|cidr| cidr.is_ipv4() == v4)
        .collect();
    if networks.is_empty() {
        let pool = wish.pool.as_ref().map_or(String::new(), |name| format!(" named {name}"));
        return Err(format!("there is no pool{pool} with {family} addresses for load balancers"));
    }
    networks
        .into_iter()
        .find_map(|network| first_free(network, taken))
        .ok_or_else(|| format!("every {family} address of the pools is in use"))
}

/// The first address nobody has.
fn first_free(network: IpNetwork, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let (bits, first) = match network {
        IpNetwork::V4(v4) => (32, u128::from(v4.network().to_bits())),
        IpNetwork::V6(v6) => (128, v6.network().to_bits()),
    };
    let host_bits = bits - u32::from(network.prefix());
    let last = first | 1_u128.checked_shl(host_bits).map_or(u128::MAX, |size| size - 1);
    // Among one more than are taken, one is free.
    (0..=taken.len() as u128)
        .map_while(|offset| first.checked_add(offset).filter(|number| *number <= last))
        .map(|number| match network {
            IpNetwork::V4(_) => Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)).into(),
            IpNetwork::V6(_) => Ipv6Addr::from_bits(number).into(),
        })
        .find(|address| !taken.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(name: &str, cidrs: &[&str], auto_assign: bool) -> Pool {
        let cidrs = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
        let kind = Kind::LoadBalancer;
        Pool { name: name.into(), kind, cidrs, block_sizes: Vec::new(), auto_assign, announce: true }
    }

    fn name(name: &str) -> ObjectName {
        ObjectName { namespace: "default".into(), name: name.into() }
    }

    fn wish(called: &str, created: i64) -> Wish {
        let name = name(called);
        Wish { name, created, families: vec![true], pool: None, addresses: Vec::new(), has: Vec::new() }
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_older_choose_first_and_who_has_keeps() {
        let pools = [pool("a", &["192.0.2.0/30"], true)];
        let wishes = [
            wish("young", 3),
            wish("old", 1),
            Wish { has: ips(&["192.0.2.0"]), ..wish("settled", 9) },
            Wish { has: ips(&["192.0.2.0"]), ..wish("rival", 10) },
            Wish { has: ips(&["10.0.0.1"]), ..wish("foreign", 11) },
        ];
        let given = assign(&wishes, &pools);
        let of = |called: &str| given[&name(called)].clone();
        assert_eq!(of("settled").addresses, ips(&["192.0.2.0"]));
        assert_eq!(of("old").addresses, ips(&["192.0.2.1"]));
        assert_eq!(of("young").addresses, ips(&["192.0.2.2"]));
        assert_eq!(of("rival").addresses, ips(&["192.0.2.3"]));
        assert_eq!(of("foreign").refused.as_deref(), Some("every IPv4 address of the pools is in use"));
        assert_eq!(of("foreign").addresses, Vec::<IpAddr>::new());
    }

    #[test]
    fn pools_and_addresses_can_be_asked_for() {
        let pools = [pool("a", &["192.0.2.0/30"], true), pool("b", &["198.51.100.0/24"], false)];
        let ask = |wish: Wish| assign(&[wish], &pools).into_values().next().unwrap();
        let from = |pool: &str| Wish { pool: Some(pool.into()), ..wish("w", 1) };
        assert_eq!(ask(from("b")).addresses, ips(&["198.51.100.0"]));
        assert_eq!(
            ask(from("c")).refused.as_deref(),
            Some("there is no pool named c with IPv4 addresses for load balancers")
        );
        let with = |address: &str| Wish { addresses: ips(&[address]), ..wish("w", 1) };
        assert_eq!(ask(with("198.51.100.9")).addresses, ips(&["198.51.100.9"]));
        let refused = ask(with("203.0.113.1")).refused;
        assert_eq!(refused.as_deref(), Some("203.0.113.1 is in no pool that the Service may use"));
        let moved = Wish { has: ips(&["192.0.2.1"]), ..with("192.0.2.3") };
        assert_eq!(ask(moved).addresses, ips(&["192.0.2.3"]));
    }

    #[test]
    fn each_family_gets_its_own_in_the_order_of_the_service() {
        let pools = [pool("a", &["192.0.2.0/32"], true), pool("b", &["2001:db8::/128"], true)];
        let both = Wish { families: vec![false, true], ..wish("w", 1) };
        assert_eq!(
            assign(std::slice::from_ref(&both), &pools)[&name("w")].addresses,
            ips(&["2001:db8::", "192.0.2.0"])
        );
        let only = assign(&[both], &pools[..1])[&name("w")].clone();
        assert_eq!(only.addresses, ips(&["192.0.2.0"]));
        assert!(only.refused.unwrap().contains("IPv6"));
    }
}
