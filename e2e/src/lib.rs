//! Whole clusters on one machine: namespaces as nodes, a private containerd each, the real binaries.
//!
//! ```text
//!   host: bridge hawser-<name>  172.30.N.254 -- control plane on 6443, "outside" of the cluster
//!            |            |
//!         veth n1      veth n2          one network namespace a node, 172.30.N.<i>
//!            |            |
//!   containerd + agent  containerd + agent     own root, state, sockets, pins and cgroup
//! ```
//!
//! `cargo xtask up` and the tests of `tests/` use the same code: [`Cluster`] brings a cluster up, [`down`] removes every
//! trace of it, also after a crash in the middle. Start with `layout.rs`, which names everything there is.

mod api;
pub mod bench;
mod cgroup;
mod cluster;
pub mod containerd;
mod daemon;
mod demo;
mod etcd;
pub mod image;
mod layout;
mod network;
mod node;
mod place;

pub use api::{Api, connect};
pub use cluster::{Binaries, Cluster, down};
pub use demo::{Answers, Call, answers_from, calls_without_failure, demo, echoes_from};
pub use layout::{Layout, NodeLayout};
pub use node::Node;
pub use place::Place;
