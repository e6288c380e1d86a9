//! Addresses for Services of type LoadBalancer where no cloud gives any: from pools, announced on the nodes' links.
//!
//! One agent, elected by a Lease, gives addresses ([`assign`]) and writes them into `status.loadBalancer`, which is the only record. For
//! each group of addresses ([`groups`]) one agent, elected likewise ([`election`]), answers ARP and neighbour solicitations
//! ([`frames`]). Every node serves every address: two that answer for a moment do no harm.

pub mod announcer;
pub mod assign;
pub mod election;
pub mod frames;
pub mod groups;

mod give;
mod leases;
mod run;

pub use run::run;
