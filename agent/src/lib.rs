//! The node: `sources > tables > desired > diff > apply > kernel`, and the pods.
//!
//! Data flows one way through the modules in that order. Only [`kernel`] talks to the kernel; [`desired`] and the diff in
//! [`reconcile`] are pure. Start reading at [`wiring`].

pub mod admin;
pub mod check;
pub mod config;
pub mod desired;
pub mod health;
pub mod ipam;
pub mod kernel;
pub mod kubelet_api;
pub mod load_balancer;
pub mod node;
pub mod oracle;
pub mod plain_http;
pub mod pods;
pub mod pools;
pub mod probe;
pub mod reconcile;
pub mod sources;
pub mod tables;
pub mod wiring;
