//! The controllers: pure functions from what is to what to write, and the one loop that runs them.
//!
//! ```text
//!  API server --list, watch--> informer --> World (slim objects, owner graph) --> View
//!                                 |                                                |
//!                                 +--> wakes: keys --> queue --> reconcile(key, view, now) --> writes --> API server
//! ```
//!
//! A controller is one file: it says which keys a change wakes ([`Controller::wakes`]) and what to write for a key
//! ([`Controller::reconcile`]), without I/O, clock or tokio. `runner.rs` is the only loop: it watches, queues, calls,
//! writes, backs off and waits until its own writes have come back before it looks at the same key again.
//! Start reading with `service_account.rs`, the smallest one.

mod change;
mod cluster_role;
mod controller;
mod cronjob;
mod deployment;
mod deployment_status;
mod discovery;
mod disruption;
mod endpoints;
mod endpointslice;
mod endpointslice_mirroring;
mod flow_schema;
mod gc;
mod graph;
mod heartbeats;
mod informer;
mod moments;
mod namespace;
mod node_cidr;
mod node_lifecycle;
mod objects;
mod ownership;
mod pod_usage;
mod pods;
mod ports;
mod quantity;
mod queue;
mod replicaset;
mod resource_quota;
mod rollout;
mod runner;
mod selector;
mod service_account;
mod service_cidr;
mod service_token;
mod trigger;
mod view;
mod write;

pub use runner::{RunError, run};

use std::time::Duration;

use controller::Controller;
use jiff::tz::TimeZone;

/// What a cluster's operator decides about the controllers.
#[derive(Debug, Clone)]
pub struct Config {
    /// PEM of the CA that signed the API server's certificate, published as ConfigMap `kube-root-ca.crt`.
    pub cluster_ca: String,
    /// Pod address ranges, of which every node gets a /24 (IPv4) and a /64 (IPv6): `10.244.0.0/16`, `fd00:244::/48`.
    pub cluster_cidrs: Vec<String>,
    /// How long after its last heartbeat a node is taken for unreachable (upstream: 50 s).
    pub node_grace: Duration,
}

/// Every controller, in the order they are started.
fn controllers(config: &Config) -> Result<Vec<Box<dyn Controller>>, RunError> {
    Ok(vec![
        Box::new(deployment::DeploymentController),
        Box::new(replicaset::ReplicaController::<objects::ReplicaSet>::default()),
        Box::new(replicaset::ReplicaController::<objects::ReplicationController>::default()),
        Box::new(cronjob::CronJobController { zone: TimeZone::system() }),
        Box::new(endpointslice::EndpointSliceController),
        Box::new(endpoints::EndpointsController),
        Box::new(endpointslice_mirroring::EndpointSliceMirroringController),
        Box::new(resource_quota::ResourceQuotaController),
        Box::new(service_account::ServiceAccountController),
        Box::new(service_account::RootCaController { bundle: config.cluster_ca.clone() }),
        Box::new(service_cidr::ServiceCidrController),
        Box::new(service_token::ServiceTokenController { bundle: config.cluster_ca.clone() }),
        Box::new(cluster_role::ClusterRoleController),
        Box::new(flow_schema::FlowSchemaController),
        Box::new(disruption::DisruptionController),
        Box::new(node_cidr::NodeCidrController::new(&config.cluster_cidrs)?),
        Box::new(node_lifecycle::NodeLifecycleController::new(config.node_grace)),
        Box::new(namespace::NamespaceController),
        Box::new(gc::GarbageCollector),
    ])
}
