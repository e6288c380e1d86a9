//! Whole clusters: `cluster.rs` is about traffic and life cycles, `kubectl.rs` about what a person types,
//! `lifecycle.rs` about crashes in the middle.
//!
//! `cargo xtask test` runs one case at a time, because each brings up a cluster of its own.

mod cluster;
mod kubectl;
mod lifecycle;
mod support;
