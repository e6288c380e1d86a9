//! Pods over a real container runtime: a private containerd, and an API server that only takes notes. Needs root,
//! containerd and runc; without them it says so and passes, unless CI is set.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../../../e2e/src/containerd.rs"]
mod containerd;
#[path = "../../../e2e/src/image.rs"]
#[expect(dead_code, reason = "other tests make other images")]
mod image;
mod lives;
mod notes;
mod runtime;
mod served;
