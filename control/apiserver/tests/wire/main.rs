//! The API over its wire: requests in, status, headers and bytes out, without sockets.

mod access;
mod appliers;
mod autoscalers;
mod bad_input;
mod certificates;
mod cluster;
mod corpus;
mod custom;
mod definitions;
mod devices;
mod documents;
mod encodings;
#[path = "../../../store/tests/etcd_server/mod.rs"]
mod etcd_server;
mod evictions;
mod extensions;
mod flow_control;
mod health;
mod lists;
mod metrics;
mod models;
mod objects;
mod pitfalls;
mod pod_changes;
mod pods;
mod previews;
mod protobuf;
mod proxies;
mod replicas;
mod request;
mod rows;
mod scales;
mod services;
mod slow;
mod streams;
mod watches;
