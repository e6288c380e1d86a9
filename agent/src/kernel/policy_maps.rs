//! The maps of policies: read once at start, then written.

use std::net::IpAddr;

use abi::policy::{RuleKey, Ruling};
use abi::{Addr16, name};
use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, MapData};
use ipnetwork::IpNetwork;

use super::KernelError;
use super::linux::{gone, map, take};
use crate::desired::policy::ports::Match;
use crate::reconcile::actual::{Actual, Op};

/// Bits of a mapped address before its IPv4 part.
const MAPPED_BITS: u32 = 96;

/// The maps.
pub struct PolicyMaps {
    identities: HashMap<MapData, Addr16, u32>,
    cidrs: LpmTrie<MapData, Addr16, u32>,
    rules: LpmTrie<MapData, RuleKey, Ruling>,
}

impl PolicyMaps {
    /// Takes them out of the loaded object.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            identities: take(ebpf, name::IDENTITIES)?,
            cidrs: take(ebpf, name::CIDRS)?,
            rules: take(ebpf, name::RULES)?,
        })
    }

    /// Reads everything about policies.
    pub fn read(&self, actual: &mut Actual) -> Result<(), KernelError> {
        for row in &self.identities {
            let (address, identity) = row.map_err(map(name::IDENTITIES))?;
            actual.identities.insert(address.ip(), identity);
        }
        for row in &self.cidrs {
            let (key, identity) = row.map_err(map(name::CIDRS))?;
            if let Some(network) = network_of(&key) {
                actual.cidrs.insert(network, identity);
            }
        }
        for row in &self.rules {
            let (key, ruling) = row.map_err(map(name::RULES))?;
            let RuleKey { set, identity, proto, port, .. } = key.data();
            let row = Match { bits: key.prefix_len(), proto, port: port.host() };
            actual.rulings.entry((set, identity)).or_default().insert(row, ruling);
        }
        Ok(())
    }

    /// Carries out an operation on policies; `None` if it is about something else.
    pub fn apply(&mut self, op: &Op) -> Option<Result<(), KernelError>> {
        let done = match op {
            Op::WriteIdentity { address, identity } => {
                self.identities.insert(Addr16::from(*address), identity, 0).map_err(map(name::IDENTITIES))
            }
            Op::DeleteIdentity { address } => {
                gone(self.identities.remove(&Addr16::from(*address))).map_err(map(name::IDENTITIES))
            }
            Op::WriteCidr { network, identity } => {
                self.cidrs.insert(&network_key(*network), identity, 0).map_err(map(name::CIDRS))
            }
            Op::DeleteCidr { network } => {
                gone(self.cidrs.remove(&network_key(*network))).map_err(map(name::CIDRS))
            }
            Op::WriteRuling { pair: (set, identity), row, ruling } => {
                let key = Key::new(row.bits, row.key(*set, *identity));
                self.rules.insert(&key, ruling, 0).map_err(map(name::RULES))
            }
            Op::DeleteRuling { pair: (set, identity), row } => {
                gone(self.rules.remove(&Key::new(row.bits, row.key(*set, *identity))))
                    .map_err(map(name::RULES))
            }
            _ => return None,
        };
        Some(done)
    }
}

fn network_key(network: IpNetwork) -> Key<Addr16> {
    let length = u32::from(network.prefix()) + if network.is_ipv4() { MAPPED_BITS } else { 0 };
    Key::new(length, Addr16::from(network.network()))
}

/// What lies in the mapped part, and is no longer than it, is IPv6.
fn network_of(key: &Key<Addr16>) -> Option<IpNetwork> {
    let address = key.data().ip();
    let (address, length) = match address {
        IpAddr::V4(v4) if key.prefix_len() < MAPPED_BITS => (v4.to_ipv6_mapped().into(), key.prefix_len()),
        IpAddr::V4(_) => (address, key.prefix_len() - MAPPED_BITS),
        IpAddr::V6(_) => (address, key.prefix_len()),
    };
    IpNetwork::new(address, u8::try_from(length).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_read_as_it_was_written() {
        for text in ["0.0.0.0/0", "198.18.0.0/16", "192.0.2.1/32", "::/0", "2001:db8::/32", "2001:db8::1/128"]
        {
            let network: IpNetwork = text.parse().unwrap();
            assert_eq!(network_of(&network_key(network)), Some(network));
        }
        assert_eq!(network_key("0.0.0.0/0".parse().unwrap()).prefix_len(), 96);
        assert_eq!(network_key("::/0".parse().unwrap()).prefix_len(), 0);
    }
}
