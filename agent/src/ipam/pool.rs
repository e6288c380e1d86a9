//! One network's addresses: a cursor that goes round, so that a released address rests as long as it can.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

/// Every address of a network is in use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no free address in {network}: all {held} are in use")]
pub struct Exhausted {
    /// The network.
    pub network: IpNetwork,
    /// How many are in use.
    pub held: usize,
}

/// The addresses of one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    network: IpNetwork,
    last: Option<IpAddr>,
    held: BTreeSet<u128>,
}

impl Pool {
    /// A pool nobody has taken from.
    pub fn new(network: IpNetwork) -> Self {
        Self { network, last: None, held: BTreeSet::new() }
    }

    /// A pool that last gave out `last`.
    pub fn resumed(network: IpNetwork, last: IpAddr) -> Self {
        Self { last: Some(last), ..Self::new(network) }
    }

    /// The network.
    pub fn network(&self) -> IpNetwork {
        self.network
    }

    /// The address given out last.
    pub fn last(&self) -> Option<IpAddr> {
        self.last
    }

    /// The next free address after the one given out last.
    pub fn take(&mut self) -> Result<IpAddr, Exhausted> {
        let (first, end) = self.usable();
        let exhausted = Exhausted { network: self.network, held: self.held.len() };
        if first > end {
            return Err(exhausted);
        }
        let start = match self.last.map(number) {
            Some(last) if last >= first && last < end => last + 1,
            _ => first,
        };
        let mut candidate = start;
        // One more than are held: among so many different addresses one is free.
        for _ in 0..=self.held.len() {
            if self.held.insert(candidate) {
                let address = self.address(candidate);
                self.last = Some(address);
                return Ok(address);
            }
            candidate = if candidate == end { first } else { candidate + 1 };
            if candidate == start {
                break;
            }
        }
        Err(exhausted)
    }

    /// Marks an address as in use.
    pub fn hold(&mut self, address: IpAddr) {
        self.held.insert(number(address));
    }

    /// Marks an address as free.
    pub fn release(&mut self, address: IpAddr) {
        self.held.remove(&number(address));
    }

    /// All but the first address (a router's anycast in IPv6, the network in IPv4) and IPv4's broadcast address.
    fn usable(&self) -> (u128, u128) {
        let first = number(self.network.network());
        let (bits, spared) = match self.network {
            IpNetwork::V4(network) => (32 - u32::from(network.prefix()), 1),
            IpNetwork::V6(network) => (128 - u32::from(network.prefix()), 0),
        };
        let size_less_one = if bits == 128 { u128::MAX } else { (1 << bits) - 1 };
        (first.saturating_add(1), first.saturating_add(size_less_one).saturating_sub(spared))
    }

    fn address(&self, number: u128) -> IpAddr {
        match self.network {
            IpNetwork::V4(_) => {
                let number = u32::try_from(number).expect("an address of an IPv4 network has 32 bits");
                Ipv4Addr::from_bits(number).into()
            }
            IpNetwork::V6(_) => Ipv6Addr::from_bits(number).into(),
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_round_before_one_comes_back() {
        let mut pool = Pool::new("10.0.0.0/29".parse().unwrap());
        let first = pool.take().unwrap();
        pool.release(first);
        let rest: Vec<String> = (0..6).map(|_| pool.take().unwrap().to_string()).collect();
        assert_eq!(rest, ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.1"]);
        assert_eq!(pool.take().unwrap_err().held, 6);
    }

    #[test]
    fn the_largest_and_the_smallest_networks_work() {
        for (network, first) in
            [("::/0", Some("::1")), ("fd00::/127", Some("fd00::1")), ("10.0.0.1/32", None)]
        {
            let taken = Pool::new(network.parse().unwrap()).take().ok().map(|address| address.to_string());
            assert_eq!(taken.as_deref(), first, "{network}");
        }
    }
}
