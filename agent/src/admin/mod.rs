//! What a person asks the running agent: over `admin.sock`, JSON behind, tables in front.

pub mod client;
pub mod metrics;
mod no_local;
pub mod report;
pub mod server;
pub mod show;
