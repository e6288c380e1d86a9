//! What programs find in the rows: for questions of people, and for tests.

use std::collections::BTreeMap;
use std::net::IpAddr;

use abi::policy::{bits, identity};

use super::ports::{Match, Verdict};
use super::{PairRows, Policed, State};

/// A flow's other end, protocol number and destination port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// The other side.
    pub peer: IpAddr,
    /// IP protocol number.
    pub proto: u8,
    /// Destination port, zero for protocols without ports.
    pub port: u16,
}

impl State {
    /// The identity of an address.
    pub fn identity(&self, address: IpAddr) -> u32 {
        if let Some(known) = self.identities.get(&address) {
            return *known;
        }
        let around = self.cidrs.iter().filter(|(network, _)| network.contains(address));
        around.max_by_key(|(network, _)| network.prefix()).map_or(identity::WORLD, |(_, number)| *number)
    }

    /// What a set says; zero says that everything may pass, and nothing found that nothing may.
    pub fn verdict(&self, set: u32, asked: Asked) -> Verdict {
        let number = self.identity(asked.peer);
        if set == 0 || number == identity::HOST {
            return Verdict { allow: true, rule: 0 };
        }
        let found = longest(&self.rules, (set, number), asked)
            .or_else(|| longest(&self.rules, (set, identity::ANYBODY), asked));
        found.unwrap_or(Verdict { allow: false, rule: 0 })
    }

    /// Whether both ends let a flow pass; an end that is not a local pod does.
    pub fn passes(&self, from: (Policed, IpAddr), to: (Policed, IpAddr), proto: u8, port: u16) -> bool {
        let egress = self.verdict(from.0.egress, Asked { peer: to.1, proto, port });
        let ingress = self.verdict(to.0.ingress, Asked { peer: from.1, proto, port });
        egress.allow && ingress.allow
    }
}

fn longest(rules: &BTreeMap<(u32, u32), PairRows>, pair: (u32, u32), asked: Asked) -> Option<Verdict> {
    let rows = rules.get(&pair)?.iter().filter(|(row, _)| row.fits(asked.proto, asked.port));
    rows.max_by_key(|(row, _)| row.bits).map(|(_, verdict)| *verdict)
}

impl Match {
    /// Whether a protocol and port are what the row is about.
    pub fn fits(self, proto: u8, port: u16) -> bool {
        let length = self.bits.saturating_sub(bits::PROTOCOL);
        self.bits == bits::IDENTITY
            || self.proto == proto && (u32::from(self.port) ^ u32::from(port)) >> (16 - length) == 0
    }
}
