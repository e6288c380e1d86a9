//! One network's addresses: a cursor that goes round, and a time to rest, so that whoever still believes in the former holder of
//! an address does not meet the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;

/// How long a released address is not given again, unless there is no other.
pub const REST: Duration = Duration::from_secs(30);

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
    /// Until when those released not long ago rest; a restart forgets it, and has the cursor.
    resting: BTreeMap<u128, Instant>,
}

impl Pool {
    /// A pool nobody has taken from.
    pub fn new(network: IpNetwork) -> Self {
        Self { network, last: None, held: BTreeSet::new(), resting: BTreeMap::new() }
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

    /// How many addresses are in use, and how many there are.
    pub fn fill(&self) -> (u64, u64) {
        let (first, end) = self.usable();
        let size = if first > end {
            0
        } else {
            u64::try_from(end - first).map_or(u64::MAX, |last| last.saturating_add(1))
        };
        (self.held.len() as u64, size)
    }

    /// The next free address after the one given out last that has rested; if there is none, the one that rests longest.
    pub fn take(&mut self, now: Instant) -> Result<IpAddr, Exhausted> {
        self.resting.retain(|_, until| *until > now);
        let longest = || self.resting.iter().min_by_key(|(_, until)| **until).map(|(number, _)| *number);
        let Some(number) = self.rested().or_else(longest) else {
            return Err(Exhausted { network: self.network, held: self.held.len() });
        };
        self.hold(self.address(number));
        let address = self.address(number);
        self.last = Some(address);
        Ok(address)
    }

    fn rested(&self) -> Option<u128> {
        let (first, end) = self.usable();
        if first > end {
            return None;
        }
        let start = match self.last.map(number) {
            Some(last) if last >= first && last < end => last + 1,
            _ => first,
        };
        let mut candidate = start;
        // One more than are not to be had: among so many different addresses one is.
        for _ in 0..=self.held.len() + self.resting.len() {
            if !self.held.contains(&candidate) && !self.resting.contains_key(&candidate) {
                return Some(candidate);
            }
            candidate = if candidate == end { first } else { candidate + 1 };
            if candidate == start {
                break;
            }
        }
        None
    }

    /// Marks an address as in use.
    pub fn hold(&mut self, address: IpAddr) {
        self.resting.remove(&number(address));
        self.held.insert(number(address));
    }

    /// Marks an address as free from `now` on, and lets it rest.
    pub fn release(&mut self, address: IpAddr, now: Instant) {
        if self.held.remove(&number(address)) {
            self.resting.insert(number(address), now + REST);
        }
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
        let (mut pool, now) = (Pool::new("10.0.0.0/29".parse().unwrap()), Instant::now());
        let take = |pool: &mut Pool| pool.take(now).map(|address| address.to_string());
        let first = pool.take(now).unwrap();
        pool.release(first, now);
        let rest: Vec<String> = (0..6).map(|_| take(&mut pool).unwrap()).collect();
        assert_eq!(rest, ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.1"]);
        assert_eq!((take(&mut pool).unwrap_err().held, pool.fill()), (6, (6, 6)));
    }

    #[test]
    fn an_address_rests_unless_there_is_no_other() {
        let (mut pool, start) = (Pool::new("10.0.0.0/30".parse().unwrap()), Instant::now());
        let [one, two] = [pool.take(start).unwrap(), pool.take(start).unwrap()];
        let later = |seconds| start + Duration::from_secs(seconds);
        pool.release(two, start);
        pool.release(one, later(10));
        assert_eq!(pool.take(later(12)).unwrap(), two, "it rests longer, though the other is the next");
        pool.release(two, later(13));
        assert_eq!(pool.take(later(41)).unwrap(), one, "it has rested");
        assert_eq!(pool.take(later(42)).unwrap(), two, "there is no other");
        assert!(pool.take(later(42)).is_err());
    }

    #[test]
    fn the_largest_and_the_smallest_networks_work() {
        for (network, first, size) in
            [("::/0", Some("::1"), u64::MAX), ("fd00::/127", Some("fd00::1"), 1), ("10.0.0.1/32", None, 0)]
        {
            let mut pool = Pool::new(network.parse().unwrap());
            assert_eq!(pool.fill(), (0, size), "{network}");
            let taken = pool.take(Instant::now()).ok().map(|address| address.to_string());
            assert_eq!(taken.as_deref(), first, "{network}");
        }
    }
}
