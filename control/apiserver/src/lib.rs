//! The Kubernetes API as a table: one row per kind, everything else derived from it.
//!
//! ```text
//!  bytes -> server -> api: route, identity, may it? -> verbs: get list watch create update patch delete
//!                                                        |  decode against the schema, defaults, admission,
//!                                                        |  strategy, validation, field ownership
//!                                                        v
//!                                                      store: one transaction
//! ```
//!
//! Objects are bytes: reads splice the resourceVersion into what is stored and never decode. Read `resources/rows.rs`
//! first (what there is; `definitions/mod.rs` makes more of it at run time), then `api.rs` (one request from start to
//! end), then `verbs/write.rs` (what every write has in common).

mod admission;
mod allocate;
mod api;
mod api_services;
mod auth;
mod body;
mod bootstrap;
mod congestion;
mod conversion;
mod copy;
mod definitions;
mod delegation;
mod documents;
mod endpoints;
mod expiry;
mod gather;
mod history;
mod json_syntax;
mod kubelets;
mod managed;
mod metrics;
mod name;
mod negotiate;
mod numbers;
mod object;
mod patch;
mod patience;
pub mod pki;
mod pretty;
mod printer;
mod protobuf;
mod proxy;
mod query;
mod ready;
mod resources;
mod rotation;
mod route;
mod schema;
mod selector;
mod server;
mod skim;
mod start;
mod status;
mod stopping;
mod storage;
mod strategy;
mod streams;
mod tls;
mod tree;
mod turns;
mod unread;
mod validate;
mod verbs;
mod yaml_keys;
mod yaml_syntax;

pub use api::SNAPSHOT_PATH;
pub use auth::User;
pub use body::{Body, BodyError};
pub use patience::Patience;
pub use resources::{RuntimeConfig, RuntimeConfigError};
pub use server::InProcess;
pub use start::{Config, Running, StartError, start};
pub use storage::{EtcdAccess, Storage, StorageError, file as store_file};

/// The name under which the controllers act.
pub const CONTROLLERS: &str = "system:kube-controller-manager";
/// The name under which the scheduler acts.
pub const SCHEDULER: &str = "system:kube-scheduler";
