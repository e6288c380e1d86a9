//! Whole clusters: `cluster.rs` is about traffic and life cycles, `kubectl.rs` about what a person types.
//!
//! `cargo xtask test` runs one case at a time, because each brings up a cluster of its own.

mod cluster;
mod kubectl;
mod support;
