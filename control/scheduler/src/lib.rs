//! The scheduler: gives every pod that has none a node.
//!
//! ```text
//!  pods, nodes --watch--> Cluster (sums kept incrementally) --+
//!                             |                                v
//!                             +--> Queue --pod--> decide: filter, score --> assume --> bind
//! ```
//!
//! A cycle is pure: [`decide`](cycle::decide) asks every plugin of one table about every node. Binding happens beside
//! the loop; until it is confirmed the pod counts on its node (it is *assumed*). What changes in the cluster wakes only
//! pods whose rejecting plugin says that such a change can help.

mod cluster;
mod cycle;
mod objects;
mod plugins;
mod quantity;
mod queue;
mod run;
mod verdict;

pub use run::{Config, RunError, run};
