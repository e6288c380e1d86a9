//! Policies of the world: rule sets, identities, and the pods they belong to.

use std::net::IpAddr;

use abi::endpoint::Endpoint;
use abi::event::Control;
use abi::policy::{RuleKey, Ruling, action};
use abi::{Addr16, Be16, name};
use anyhow::Result;
use aya::maps::LpmTrie;
use aya::maps::lpm_trie::Key;

use crate::world::World;

/// A row of a rule set: whom it is about, the protocol, the first port and how many bits of it count.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The identity.
    pub who: u32,
    /// IP protocol number.
    pub proto: u8,
    /// The port.
    pub port: u16,
    /// One of [`abi::policy::bits`], or between two of them.
    pub bits: u32,
    /// Whether the flow passes.
    pub allows: bool,
}

impl World {
    /// Changes what a pod may do, and lets the programs know.
    pub fn isolate(&mut self, pod: IpAddr, change: impl FnOnce(&mut Endpoint)) -> Result<()> {
        let key = Addr16::from(pod);
        let mut endpoints = self.runner.hash::<Addr16, Endpoint>(name::ENDPOINTS)?;
        let mut row = endpoints.get(&key, 0)?;
        change(&mut row);
        endpoints.insert(key, row, 0)?;
        self.next_epoch()
    }

    /// Has every flow looked at again.
    pub fn next_epoch(&mut self) -> Result<()> {
        let mut control = self.runner.array::<Control>(name::CONTROL)?;
        let row = control.get(&0, 0)?;
        Ok(control.set(0, Control { epoch: row.epoch + 1, ..row }, 0)?)
    }

    /// Adds rows to a rule set; their numbers are those of the rules, from one.
    pub fn rules(&mut self, set: u32, rows: &[Row]) -> Result<()> {
        let mut rules = LpmTrie::<_, RuleKey, Ruling>::try_from(self.runner.map(name::RULES)?)?;
        for (at, row) in rows.iter().enumerate() {
            let key =
                RuleKey { set, identity: row.who, proto: row.proto, zero: 0, port: Be16::new(row.port) };
            let action = if row.allows { action::ALLOW } else { action::DENY };
            rules.insert(&Key::new(row.bits, key), Ruling { action, rule: at as u32 + 1 }, 0)?;
        }
        Ok(())
    }

    /// Gives an address an identity.
    pub fn identify(&mut self, address: IpAddr, identity: u32) -> Result<()> {
        Ok(self.runner.hash(name::IDENTITIES)?.insert(Addr16::from(address), identity, 0)?)
    }

    /// Gives a network an identity; `prefix` counts in the network's own family.
    pub fn identify_network(&mut self, network: IpAddr, prefix: u32, identity: u32) -> Result<()> {
        let bits = if network.is_ipv4() { prefix + 96 } else { prefix };
        let mut cidrs = LpmTrie::<_, Addr16, u32>::try_from(self.runner.map(name::CIDRS)?)?;
        Ok(cidrs.insert(&Key::new(bits, Addr16::from(network)), identity, 0)?)
    }

    /// Forgets whose addresses and networks are.
    pub fn forget_identities(&mut self) -> Result<()> {
        self.runner.clear::<Addr16, u32>(name::IDENTITIES)?;
        let mut cidrs = LpmTrie::<_, Addr16, u32>::try_from(self.runner.map(name::CIDRS)?)?;
        let keys: Vec<_> = cidrs.keys().collect::<Result<_, _>>()?;
        for key in keys {
            cidrs.remove(&key)?;
        }
        Ok(())
    }

    /// Forgets all policies.
    pub fn forget_policies(&mut self) -> Result<()> {
        self.forget_identities()?;
        let mut rules = LpmTrie::<_, RuleKey, Ruling>::try_from(self.runner.map(name::RULES)?)?;
        let keys: Vec<_> = rules.keys().collect::<Result<_, _>>()?;
        for key in keys {
            rules.remove(&key)?;
        }
        for names in crate::world::families() {
            for pod in [names.pod_a, names.pod_b] {
                self.isolate(pod, |row| (row.ingress, row.egress, row.flags) = (0, 0, 0))?;
            }
        }
        Ok(())
    }
}
