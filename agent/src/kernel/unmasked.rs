//! The networks that pods reach under their own addresses.

use std::collections::BTreeSet;

use abi::{Addr16, name};
use aya::Ebpf;
use aya::maps::MapData;
use aya::maps::lpm_trie::{Key, LpmTrie};
use ipnetwork::IpNetwork;

use super::KernelError;
use super::linux::{gone, map, take};

/// Bits of the prefix that makes an IPv4 address one of sixteen bytes.
const MAPPED_BITS: u32 = 96;

/// The map of them.
pub struct Unmasked(LpmTrie<MapData, Addr16, u32>);

impl Unmasked {
    /// Out of the loaded object.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self(take(ebpf, name::UNMASKED)?))
    }

    /// All of them.
    pub fn read(&self) -> Result<BTreeSet<IpNetwork>, KernelError> {
        let keys = self.0.keys().map(|key| key.map_err(map(name::UNMASKED)));
        keys.map(|key| Ok(network(&key?))).filter_map(Result::transpose).collect()
    }

    /// Adds one, or finds it there.
    pub fn add(&mut self, network: IpNetwork) -> Result<(), KernelError> {
        self.0.insert(&key(network), 1, 0).map_err(map(name::UNMASKED))
    }

    /// Removes one, or finds it gone.
    pub fn remove(&mut self, network: IpNetwork) -> Result<(), KernelError> {
        gone(self.0.remove(&key(network))).map_err(map(name::UNMASKED))
    }
}

fn key(network: IpNetwork) -> Key<Addr16> {
    let mapped = if network.is_ipv4() { MAPPED_BITS } else { 0 };
    Key::new(u32::from(network.prefix()) + mapped, Addr16::from(network.network()))
}

fn network(key: &Key<Addr16>) -> Option<IpNetwork> {
    let address = key.data().ip();
    let mapped = if address.is_ipv4() { MAPPED_BITS } else { 0 };
    IpNetwork::new(address, u8::try_from(key.prefix_len().checked_sub(mapped)?).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_read_as_it_was_written() {
        for text in ["0.0.0.0/0", "198.18.0.0/16", "192.0.2.1/32", "2001:db8::/32", "2001:db8::1/128"] {
            let written: IpNetwork = text.parse().unwrap();
            assert_eq!(network(&key(written)), Some(written));
        }
        assert_eq!(key("198.18.0.0/16".parse().unwrap()).prefix_len(), 96 + 16);
    }
}
