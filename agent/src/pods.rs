//! The duties of a kubelet over CRI: a watch says which pods are ours, one worker per pod makes it so.
//!
//! ```text
//!  watch ----> supervisor ----> worker: observe > decide (pure) > execute > report
//!  relist -------^ nudges          probes ---^ verdicts
//! ```

pub mod cgroups;
pub mod container;
pub mod cri;
pub mod decide;
pub mod dns;
pub mod env;
pub mod events;
pub mod execute;
pub mod hosts;
pub mod images;
pub mod memory;
pub mod names;
pub mod objects;
pub mod observed;
pub mod probes;
pub mod reach;
pub mod relist;
pub mod report;
pub mod resources;
pub mod rotate;
pub mod sandbox;
pub mod status;
pub mod supervisor;
mod tls;
pub mod volumes;
pub mod worker;
