//! The command line.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

#[derive(Parser)]
#[command(
    name = "hawser-control",
    version,
    about = "The Hawser control plane: Kubernetes API server, scheduler, controllers"
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Run the control plane until it is told to stop.
    Run(RunOptions),
    /// Write the credentials with which a node's agent joins.
    NodeCredentials(CredentialOptions),
}

/// A part of the control plane.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    Apiserver,
    Scheduler,
    Controllers,
}

#[derive(Args)]
pub struct RunOptions {
    /// What this process does.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Role::Apiserver, Role::Scheduler, Role::Controllers])]
    pub roles: Vec<Role>,
    /// Folder of the store, the PKI and the admin's kubeconfig.
    #[arg(long, default_value = "/var/lib/hawser/control")]
    pub data_dir: PathBuf,
    /// Addresses and ports to listen on.
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:6443")]
    pub bind_address: Vec<SocketAddr>,
    /// Addresses at which pods and nodes reach the API server.
    #[arg(long, value_delimiter = ',')]
    pub advertise_address: Vec<IpAddr>,
    /// Ranges of Service addresses, the primary family first.
    #[arg(long, value_delimiter = ',', default_value = "10.96.0.0/16,fd00:96::/112")]
    pub service_cidr: Vec<String>,
    /// Ranges of pod addresses, of which every node gets a part.
    #[arg(long, value_delimiter = ',', default_value = "10.244.0.0/16,fd00:244::/48")]
    pub cluster_cidr: Vec<String>,
    /// How scheduler and controllers reach an API server that does not run in this process.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Seconds after its last heartbeat at which a node counts as unreachable.
    #[arg(long, default_value_t = 50)]
    pub node_grace_seconds: u64,
}

#[derive(Args)]
pub struct CredentialOptions {
    /// The data folder of the API server.
    #[arg(long, default_value = "/var/lib/hawser/control")]
    pub data_dir: PathBuf,
    /// Name of the node.
    #[arg(long)]
    pub node: String,
    /// Addresses of the node, for the certificate of its kubelet API.
    #[arg(long, value_delimiter = ',', required = true)]
    pub address: Vec<IpAddr>,
    /// URL of the API server, if it is not the one in the admin's kubeconfig.
    #[arg(long)]
    pub server: Option<String>,
    /// Folder to write to.
    #[arg(long)]
    pub out: PathBuf,
}
