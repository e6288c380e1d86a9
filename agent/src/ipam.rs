//! Addresses of pods: handed out from the node's podCIDRs, each written down before anybody hears of it.

pub mod blocks;
mod journal;
mod pool;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Instant;

use ipnetwork::IpNetwork;

pub use self::journal::{JournalError, Record};
pub use self::pool::{Exhausted, Pool};
use crate::tables::{Endpoint, EndpointId, HostPort};

use self::journal::Journal;

/// Why no address was given.
#[derive(Debug, thiserror::Error)]
pub enum AllocateError {
    /// The node has no podCIDR.
    #[error("the node has no podCIDR yet")]
    NoNetwork,
    /// A podCIDR is used up.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// It could not be written down, so it was not given.
    #[error("the address could not be written to the journal")]
    Journal(#[from] JournalError),
}

/// Every attachment of this node with its addresses: memory and journal in step.
#[derive(Debug)]
pub struct Addresses {
    pools: Vec<Pool>,
    endpoints: BTreeMap<EndpointId, Endpoint>,
    journal: Journal,
}

/// What an attachment is for, without addresses.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Its key.
    pub id: EndpointId,
    /// Where it goes.
    pub netns_path: std::path::PathBuf,
    /// Namespace of the pod.
    pub pod_namespace: String,
    /// Name of the pod.
    pub pod_name: String,
    /// Unique number of the pod; empty where the runtime does not say.
    pub pod_uid: String,
    /// Ports of the host that lead to it.
    pub host_ports: Vec<HostPort>,
}

impl Addresses {
    /// Reads the journal in the boot of the machine that has this name; what it holds is what was acknowledged in it, whenever the
    /// agent died.
    pub fn open(path: &Path, boot: &str) -> Result<Self, JournalError> {
        let (journal, restored) = Journal::open(path, boot)?;
        let mut pools: Vec<Pool> =
            restored.cursors.iter().map(|(network, last)| Pool::resumed(*network, *last)).collect();
        for endpoint in restored.endpoints.values() {
            for address in &endpoint.addresses {
                hold(&mut pools, *address);
            }
        }
        Ok(Self { pools, endpoints: restored.endpoints, journal })
    }

    /// Sets the networks addresses come from; addresses of earlier networks stay with who has them.
    pub fn use_networks(&mut self, networks: &[IpNetwork]) {
        if self.pools.iter().map(Pool::network).eq(networks.iter().copied()) {
            return;
        }
        let mut pools: Vec<Pool> = networks
            .iter()
            .map(|network| {
                let known = self.pools.iter().find(|pool| pool.network() == *network);
                known.cloned().unwrap_or_else(|| Pool::new(*network))
            })
            .collect();
        for endpoint in self.endpoints.values() {
            for address in &endpoint.addresses {
                hold(&mut pools, *address);
            }
        }
        self.pools = pools;
    }

    /// Gives an attachment one address of each network; the one it has when it asks again.
    pub fn allocate(&mut self, wanted: Wanted, now: Instant) -> Result<Endpoint, AllocateError> {
        if let Some(known) = self.endpoints.get(&wanted.id) {
            return Ok(known.clone());
        }
        if self.pools.is_empty() {
            return Err(AllocateError::NoNetwork);
        }
        let before = self.pools.clone();
        let taken: Result<Vec<IpAddr>, Exhausted> =
            self.pools.iter_mut().map(|pool| pool.take(now)).collect();
        let endpoint = match taken {
            Ok(addresses) => Endpoint {
                container_id: wanted.id.container_id.clone(),
                ifname: wanted.id.ifname.clone(),
                netns_path: wanted.netns_path,
                pod_namespace: wanted.pod_namespace,
                pod_name: wanted.pod_name,
                pod_uid: wanted.pod_uid,
                addresses,
                host_ports: wanted.host_ports,
            },
            Err(error) => {
                self.pools = before;
                return Err(error.into());
            }
        };
        let networks = self.pools.iter().map(Pool::network).collect();
        if let Err(error) = self.journal.append(&Record::Add { endpoint: endpoint.clone(), networks }) {
            // The cursor stays advanced: a line that may be on disk after all must not meet its twin.
            for address in &endpoint.addresses {
                release(&mut self.pools, *address, now);
            }
            return Err(error.into());
        }
        self.endpoints.insert(wanted.id, endpoint.clone());
        Ok(endpoint)
    }

    /// Takes an attachment's addresses back; nothing happens when there is none.
    pub fn release(&mut self, id: &EndpointId, now: Instant) -> Result<bool, JournalError> {
        let Some(endpoint) = self.endpoints.get(id) else { return Ok(false) };
        self.journal.append(&Record::Del { id: id.clone() })?;
        for address in &endpoint.addresses {
            release(&mut self.pools, *address, now);
        }
        self.endpoints.remove(id);
        if self.journal.is_long(self.endpoints.len()) {
            let cursors = self.pools.iter().filter_map(|pool| Some((pool.network(), pool.last()?))).collect();
            self.journal.rewrite(&cursors, &self.endpoints)?;
        }
        Ok(true)
    }

    /// Every network with how many of its addresses are in use, and how many there are.
    pub fn fill(&self) -> Vec<(IpNetwork, (u64, u64))> {
        self.pools.iter().map(|pool| (pool.network(), pool.fill())).collect()
    }

    /// From here on the journal's disk is full.
    #[cfg(test)]
    pub(crate) fn fill_disk(&mut self) {
        self.journal.fill_disk();
    }

    /// Every attachment.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.values()
    }

    /// One attachment.
    pub fn endpoint(&self, id: &EndpointId) -> Option<&Endpoint> {
        self.endpoints.get(id)
    }
}

fn hold(pools: &mut [Pool], address: IpAddr) {
    if let Some(pool) = pools.iter_mut().find(|pool| pool.network().contains(address)) {
        pool.hold(address);
    }
}

fn release(pools: &mut [Pool], address: IpAddr, now: Instant) {
    if let Some(pool) = pools.iter_mut().find(|pool| pool.network().contains(address)) {
        pool.release(address, now);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn wanted(number: usize) -> Wanted {
        Wanted {
            id: EndpointId { container_id: format!("c{number}"), ifname: "eth0".into() },
            netns_path: format!("/run/netns/{number}").into(),
            pod_namespace: "default".into(),
            pod_name: format!("p{number}"),
            pod_uid: String::new(),
            host_ports: Vec::new(),
        }
    }

    fn networks() -> Vec<IpNetwork> {
        vec!["10.244.1.0/29".parse().unwrap(), "fd00:244:0:1::/64".parse().unwrap()]
    }

    fn open(path: &Path) -> Addresses {
        let mut addresses = Addresses::open(path, "this").unwrap();
        addresses.use_networks(&networks());
        addresses
    }

    #[test]
    fn a_used_up_network_says_which_and_takes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut addresses = open(&dir.path().join("journal"));
        for number in 0..6 {
            addresses.allocate(wanted(number), Instant::now()).unwrap();
        }
        let error = addresses.allocate(wanted(6), Instant::now()).unwrap_err();
        assert_eq!(error.to_string(), "no free address in 10.244.1.0/29: all 6 are in use");
        assert!(addresses.release(&wanted(3).id, Instant::now()).unwrap());
        let again = addresses.allocate(wanted(6), Instant::now()).unwrap();
        assert_eq!(again.addresses[0], "10.244.1.4".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn asking_again_gives_the_same_and_releasing_twice_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        let mut addresses = open(&dir.path().join("journal"));
        let first = addresses.allocate(wanted(0), Instant::now()).unwrap();
        assert_eq!(addresses.allocate(wanted(0), Instant::now()).unwrap(), first);
        assert!(addresses.release(&wanted(0).id, Instant::now()).unwrap());
        assert!(!addresses.release(&wanted(0).id, Instant::now()).unwrap());
    }

    #[test]
    fn an_address_rests_across_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let first = open(&path).allocate(wanted(0), Instant::now()).unwrap();
        open(&path).release(&wanted(0).id, Instant::now()).unwrap();
        let second = open(&path).allocate(wanted(1), Instant::now()).unwrap();
        assert_ne!(first.addresses, second.addresses);
    }

    #[test]
    fn a_crash_at_any_byte_keeps_all_that_was_acknowledged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut addresses = open(&path);
        // (length of the journal when acknowledged, the endpoints then)
        let mut acknowledged = vec![(0, BTreeMap::new())];
        for number in 0..5 {
            addresses.allocate(wanted(number), Instant::now()).unwrap();
            acknowledged.push((std::fs::metadata(&path).unwrap().len(), addresses.endpoints.clone()));
            if number % 2 == 1 {
                addresses.release(&wanted(number - 1).id, Instant::now()).unwrap();
                acknowledged.push((std::fs::metadata(&path).unwrap().len(), addresses.endpoints.clone()));
            }
        }
        let bytes = std::fs::read(&path).unwrap();
        for cut in 0..=bytes.len() {
            let torn = dir.path().join("torn");
            std::fs::write(&torn, &bytes[..cut]).unwrap();
            let restored = Addresses::open(&torn, "this").unwrap();
            let expected = acknowledged.iter().rev().find(|(length, _)| *length <= cut as u64).unwrap();
            assert_eq!(restored.endpoints, expected.1, "cut at {cut}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_address_has_two_holders_whatever_happens(steps in prop::collection::vec((0..12usize, 0..8u8), 1..80)) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("journal");
            let mut addresses = open(&path);
            for (number, action) in steps {
                match action {
                    0 => addresses = open(&path),
                    1..=3 => {
                        addresses.release(&wanted(number).id, Instant::now()).unwrap();
                    }
                    _ => match addresses.allocate(wanted(number), Instant::now()) {
                        Ok(endpoint) => prop_assert_eq!(endpoint.addresses.len(), 2),
                        Err(error) => prop_assert!(matches!(error, AllocateError::Exhausted(_)), "{}", error),
                    },
                }
                let all: Vec<IpAddr> = addresses.endpoints().flat_map(|e| e.addresses.clone()).collect();
                let distinct: BTreeSet<IpAddr> = all.iter().copied().collect();
                prop_assert_eq!(all.len(), distinct.len());
                prop_assert!(all.iter().all(|a| networks().iter().any(|n| n.contains(*a))));
            }
        }
    }
}
