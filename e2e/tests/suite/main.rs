//! Whole clusters: `cluster.rs` is about traffic and life cycles, `deploy.rs` about the agent beside somebody else's kubelet,
//! `kubectl.rs` about what a person types, `etcd.rs` about objects that lie elsewhere,
//! `lifecycle.rs` about crashes in the middle.
//!
//! Each brings up a cluster of its own, one at a time.

mod bandwidth;
#[path = "../../../agent/tests/policy/cases.rs"]
mod cases;
mod check;
mod cluster;
mod deploy;
mod etcd;
mod kinds;
mod kubectl;
mod lifecycle;
mod loss;
mod policies;
mod pooled;
mod rolling;
mod support;
mod traces;
