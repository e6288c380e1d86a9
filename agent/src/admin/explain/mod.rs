//! `hawser-agent explain`: what happens to a packet, by the rules, in the maps, and in the live programs.

mod names;
mod policy;
pub mod show;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::desired::NodeFacts;
use crate::kernel::KernelError;
use crate::kernel::netlink::Netlink;
use crate::kernel::trial::{Place, Trial};
use crate::oracle::{self, Client, Here, Outcome, Packet, Set, Way, decide};
use crate::probe::{self, Live};
use crate::tables::{Protocol, Snapshot, Tables};
use policy::Verdicts;

/// Backends whose route is looked up: enough to see the pattern.
const SHOWN: usize = 16;

/// What somebody wants explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// An address, `host`, or a pod as `namespace/name`.
    pub src: String,
    /// `address:port`, an address alone for a ping, or a Service's port as `namespace/name:port`.
    pub dst: String,
    /// The protocol.
    pub protocol: Protocol,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Who asks.
    pub client: String,
    /// Source address.
    pub src: IpAddr,
    /// What is asked for.
    pub asked: String,
    /// The Service's port.
    pub service: Option<String>,
    /// What the rules say.
    pub rules: String,
    /// What the programs do.
    pub live: String,
    /// What the maps hold.
    pub maps: Option<String>,
    /// Who may answer.
    pub backends: Vec<Reached>,
    /// Under which address the packet arrives.
    pub nat: String,
    /// What NetworkPolicies say of both ends, and which rules.
    pub policy: String,
    /// Where the packet leaves, if no service is asked.
    pub egress: Option<String>,
    /// What does not fit together.
    pub disagreements: Vec<String>,
}

/// A backend and the way there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// Its address.
    pub address: SocketAddr,
    /// Whether the client keeps its address.
    pub way: Way,
    /// Where packets for it leave.
    pub egress: String,
}

/// Why there is no explanation.
#[derive(Debug, Error)]
pub enum Unexplained {
    /// The source is no address and no pod of this node.
    #[error("{0} is neither an address, nor `host`, nor a pod of this node as namespace/name")]
    Source(String),
    /// The destination is no address and no Service.
    #[error("{0} is neither address:port, nor an address, nor a Service's port as namespace/name:port")]
    Destination(String),
    /// One is IPv4, the other IPv6.
    #[error("{src} and {dst} are of different families")]
    Families {
        /// Source.
        src: IpAddr,
        /// Destination.
        dst: IpAddr,
    },
    /// The kernel did not answer.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// What explaining needs to know.
#[derive(Debug, Clone)]
pub struct Explainer {
    /// The tables.
    pub tables: Arc<Tables>,
    /// Facts of the node.
    pub facts: NodeFacts,
    /// Prefixes of virtual addresses.
    pub services: Vec<IpNetwork>,
    /// Prefixes of pods.
    pub pods: Vec<IpNetwork>,
    /// Folder of programs and maps.
    pub pins: Option<PathBuf>,
}

impl Explainer {
    /// Answers. Must not run inside an async runtime.
    pub fn explain(&self, question: &Question) -> Result<Explanation, Unexplained> {
        let (packet, client) = self.tables.look(|rows| names::packet(rows, &self.facts, question))?;
        let here = Here { facts: &self.facts, services: &self.services };
        let (outcome, service) =
            self.tables.look(|rows| (decide(rows, here, &packet), oracle::owner(rows, here, &packet)));
        let netlink = Netlink::new()?;
        let trial = self.pins.as_deref().map(Trial::new);
        let place = match (&trial, probe::place(&packet)) {
            (Some(trial), Some(key)) => trial.place(&key)?,
            _ => None,
        };
        let live = trial.as_ref().map(|trial| self.live(trial, &netlink, &packet)).transpose()?.flatten();
        let mut disagreements = Vec::new();
        let policy = self.tables.look(|rows| policy::verdicts(rows, &self.facts, &packet, &outcome));
        disagreements.extend(live.as_ref().and_then(|live| policy.disagreement(live)));
        let is_heard = |live: &&Live| !probe::is_muted(&outcome, live) && !Verdicts::is_drop(live);
        let heard = live.as_ref().filter(is_heard);
        disagreements.extend(heard.and_then(|live| probe::disagreement(&outcome, live)));
        disagreements.extend(Self::compare_maps(&outcome, place.as_ref()));
        Ok(Explanation {
            client,
            src: packet.src,
            asked: show::asked(&packet),
            service,
            rules: show::rules(&outcome),
            live: live.as_ref().map_or_else(|| show::not_run(packet.client), show::live),
            maps: place.as_ref().map(show::place),
            backends: self.backends(&netlink, &outcome)?,
            nat: self.nat(&packet, &outcome),
            policy: policy.text(),
            egress: match outcome {
                Outcome::NotAService => Some(self.egress(&netlink, packet.dst)?),
                _ => None,
            },
            disagreements,
        })
    }

    /// Runs the program that sees the packet first. Sockets of the host have hooks that cannot be run for show.
    fn live(&self, trial: &Trial, netlink: &Netlink, packet: &Packet) -> Result<Option<Live>, Unexplained> {
        let link = match packet.client {
            Client::Host => return Ok(None),
            Client::Pod => self.tables.look(|rows| names::link(rows, &self.facts, packet.src)),
            Client::Outside => self.tables.look(|rows| rows.uplinks.first().cloned()),
        };
        let Some(link) = link else { return Ok(None) };
        let device = netlink.device(&link)?.ok_or(KernelError::NoDevice(link))?;
        Ok(Some(probe::ask(trial, packet, device.index)?))
    }

    fn compare_maps(outcome: &Outcome, place: Option<&Place>) -> Option<String> {
        let Outcome::Forwarded(to) = outcome else { return None };
        let Some(place) = place else {
            return Some("the rules say that a service answers, the maps know none".to_owned());
        };
        let held = if to.set == Set::Local { &place.local } else { &place.cluster };
        let held: BTreeSet<SocketAddr> =
            held.iter().map(|backend| SocketAddr::new(backend.addr.ip(), backend.port.host())).collect();
        probe::rows_disagree(outcome, &held)
    }

    fn backends(&self, netlink: &Netlink, outcome: &Outcome) -> Result<Vec<Reached>, Unexplained> {
        let Outcome::Forwarded(to) = outcome else { return Ok(Vec::new()) };
        let reached = |(address, way): (&SocketAddr, &Way)| {
            let egress = self.egress(netlink, address.ip())?;
            Ok(Reached { address: *address, way: *way, egress })
        };
        to.backends.iter().take(SHOWN).map(reached).collect()
    }

    fn egress(&self, netlink: &Netlink, to: IpAddr) -> Result<String, Unexplained> {
        if let Some(link) = self.tables.look(|rows| names::link(rows, &self.facts, to)) {
            return Ok(format!("pod link {link}"));
        }
        if self.tables.look(|rows| is_host(rows, &self.facts, to)) {
            return Ok("this host".to_owned());
        }
        Ok(netlink.route_to(to)?.unwrap_or_else(|| "no route".to_owned()))
    }

    fn nat(&self, packet: &Packet, outcome: &Outcome) -> String {
        let own = self.facts.addresses.iter().find(|own| own.is_ipv4() == packet.src.is_ipv4());
        let hidden = || {
            own.map_or_else(
                || "no address of the node to hide behind".to_owned(),
                |own| format!("hidden behind {own}"),
            )
        };
        match outcome {
            Outcome::Forwarded(to) => {
                let ways: BTreeSet<Way> = to.backends.values().copied().collect();
                let words = ways.iter().map(|way| match way {
                    Way::Kept => "source kept".to_owned(),
                    Way::Hidden => hidden(),
                    Way::Tunnelled => "source kept, in a tunnel; the backend's node answers".to_owned(),
                });
                words.collect::<Vec<_>>().join(", or ")
            }
            Outcome::NotAService if packet.client == Client::Pod && self.leaves(packet.dst) => hidden(),
            Outcome::NotAService => "source kept".to_owned(),
            Outcome::Echo | Outcome::Refused(_) | Outcome::Dropped(_) => "none".to_owned(),
        }
    }

    /// Whether `to` is neither pod nor node.
    fn leaves(&self, to: IpAddr) -> bool {
        let is_node = self.tables.look(|rows| {
            is_host(rows, &self.facts, to) || rows.nodes.values().any(|node| node.addresses.contains(&to))
        });
        !is_node && !self.pods.iter().any(|prefix| prefix.contains(to))
    }
}

fn is_host(rows: &Snapshot, facts: &NodeFacts, address: IpAddr) -> bool {
    facts.addresses.contains(&address) || rows.host_addresses.contains(&address) || address.is_loopback()
}
