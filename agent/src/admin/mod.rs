//! What a person asks the running agent: over `admin.sock`, JSON behind, tables in front.

pub mod audit;
pub mod client;
pub mod explain;
pub mod metrics;
pub mod monitor;
mod no_local;
pub mod report;
pub mod request;
pub mod server;
pub mod show;
pub mod sysdump;
pub mod what_if;
