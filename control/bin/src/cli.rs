//! The command line.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use apiserver::{EtcdAccess, RuntimeConfig, Storage};
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
    /// Save, restore and verify everything the cluster knows.
    Snapshot {
        #[command(subcommand)]
        command: SnapshotCommand,
    },
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
    #[command(flatten)]
    pub store: StoreOptions,
    /// Addresses and ports to listen on.
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:6443")]
    pub bind_address: Vec<SocketAddr>,
    /// Addresses at which pods and nodes reach the API server.
    #[arg(long, value_delimiter = ',')]
    pub advertise_address: Vec<IpAddr>,
    /// Ranges of Service addresses, the primary family first.
    #[arg(long, value_delimiter = ',', default_value = "10.96.0.0/16,fd00:96::/112")]
    pub service_cidr: Vec<String>,
    /// Groups and versions to serve besides the stable ones, or not to serve, as kube-apiserver reads them:
    /// api/beta=true,resource.k8s.io/v1beta1=false.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub runtime_config: RuntimeConfig,
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

/// Where objects are kept: in the data folder, or in etcd when its servers are named.
#[derive(Args)]
pub struct StoreOptions {
    /// URLs of the members of an etcd cluster, such as https://10.0.0.1:2379.
    #[arg(long, value_delimiter = ',')]
    pub etcd_servers: Vec<String>,
    /// PEM file of the authorities that sign etcd's certificates.
    #[arg(long, requires = "etcd_servers")]
    pub etcd_cafile: Option<PathBuf>,
    /// PEM file of the client certificate for etcd.
    #[arg(long, requires = "etcd_cafile", requires = "etcd_keyfile")]
    pub etcd_certfile: Option<PathBuf>,
    /// PEM file of the client certificate's key.
    #[arg(long, requires = "etcd_certfile")]
    pub etcd_keyfile: Option<PathBuf>,
}

#[derive(Subcommand)]
pub enum SnapshotCommand {
    /// Write a snapshot of a running API server, whatever it keeps its objects in.
    Save {
        /// Who asks: a member of system:masters, or somebody who may get /hawser/snapshot.
        #[arg(long, default_value = "/var/lib/hawser/control/admin.kubeconfig")]
        kubeconfig: PathBuf,
        /// The file to write; it appears when it is complete.
        file: PathBuf,
    },
    /// Make a store from a snapshot: a file where none is yet, or an etcd that is empty.
    Restore {
        file: PathBuf,
        /// The data folder of the API server that will use it.
        #[arg(long, default_value = "/var/lib/hawser/control")]
        data_dir: PathBuf,
        #[command(flatten)]
        store: StoreOptions,
        /// How far revisions go on after the snapshot's: beyond everything clients may have seen since it was taken.
        #[arg(long, default_value_t = 100_000)]
        bump_revision: u64,
    },
    /// Read a whole snapshot and say what is in it.
    Verify { file: PathBuf },
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

impl StoreOptions {
    /// What the API server is told.
    pub fn storage(&self) -> Storage {
        if self.etcd_servers.is_empty() {
            return Storage::Embedded;
        }
        Storage::Etcd(EtcdAccess {
            servers: self.etcd_servers.clone(),
            ca_file: self.etcd_cafile.clone(),
            client_files: self.etcd_certfile.clone().zip(self.etcd_keyfile.clone()),
        })
    }
}
