//! From a configuration to a running API server, and back.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use store::TxnError;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::allocate::{Allocator, Range, RangeSyntax};
use crate::api::Api;
use crate::auth::User;
use crate::auth::rbac::Rbac;
use crate::auth::token::{KeyError, Tokens};
use crate::bootstrap::{self, Advertised, BootstrapError};
use crate::definitions::Definitions;
use crate::delegation;
use crate::kubelets::Kubelets;
use crate::metrics::Metrics;
use crate::object::Objects;
use crate::patience::Patience;
use crate::pki::{Pki, PkiError, write_anew};
use crate::proxy::Backends;
use crate::resources::{RuntimeConfig, Table};
use crate::rotation::Certificates;
use crate::server::{self, InProcess};
use crate::storage::{self, Storage, StorageError};
use crate::tls::{self, TlsError};

/// What an operator decides about the API server.
#[derive(Debug, Clone)]
pub struct Config {
    /// Folder of the store, the PKI and the admin's kubeconfig.
    pub data: PathBuf,
    pub bind: Vec<SocketAddr>,
    /// Where pods and nodes reach this server; the bound addresses when empty.
    pub advertise: Vec<IpAddr>,
    /// Ranges of Service addresses, the primary family first.
    pub service_ranges: Vec<String>,
    /// Which groups and versions are served.
    pub runtime_config: RuntimeConfig,
    pub storage: Storage,
    pub patience: Patience,
}

impl Config {
    /// A server for this machine alone, on a port that is free, for both families.
    pub fn loopback(data: &Path, storage: Storage) -> Self {
        Self {
            data: data.to_owned(),
            bind: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            advertise: Vec::new(),
            service_ranges: vec!["10.96.0.0/16".to_owned(), "fd00:96::/112".to_owned()],
            runtime_config: RuntimeConfig::default(),
            storage,
            patience: Patience::default(),
        }
    }
}

/// Why the API server does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("no address to listen on was given")]
    NoAddress,
    #[error("{0}")]
    Range(#[from] RangeSyntax),
    #[error("cannot listen on {address}: {}", hint(source))]
    Bind {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} cannot be made, or cannot be made private")]
    Folder {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
}

/// What to do about an address that cannot be listened on.
fn hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "another program uses this port; stop it or choose another --bind-address"
        }
        std::io::ErrorKind::AddrNotAvailable => "no interface of this machine has this address",
        std::io::ErrorKind::PermissionDenied => "ports below 1024 need root",
        _ => "the system refused",
    }
}

/// An API server that answers.
#[derive(Debug)]
pub struct Running {
    api: Arc<Api>,
    pub local_addrs: Vec<SocketAddr>,
    /// PEM of the CA that signed the server's certificate.
    pub ca_pem: String,
    accept: CancellationToken,
    tasks: TaskTracker,
}

impl Running {
    /// The server for callers in this process, who act as `user`.
    pub fn service(&self, user: User) -> InProcess {
        InProcess::new(Arc::clone(&self.api), user)
    }

    /// How long requests under way may take to end.
    const GRACE: std::time::Duration = std::time::Duration::from_secs(10);

    /// Ends watches, waits for requests under way, closes the store.
    pub async fn shutdown(self) {
        self.accept.cancel();
        self.api.stopping.cancel();
        self.tasks.close();
        if tokio::time::timeout(Self::GRACE, self.tasks.wait()).await.is_err() {
            tracing::warn!("some connections did not end in time and were cut");
        }
    }
}

/// Starts: PKI, store, bootstrap objects, listeners.
pub async fn start(config: Config) -> Result<Running, StartError> {
    create_folder(&config.data)?;
    let ranges = config.service_ranges.iter().map(|text| text.parse()).collect::<Result<Vec<Range>, _>>()?;
    let allocator = Allocator::new(ranges);
    let mut listeners = Vec::new();
    for address in &config.bind {
        let bound = TcpListener::bind(address).await;
        listeners.push(bound.map_err(|source| StartError::Bind { address: *address, source })?);
    }
    let local_addrs: Vec<SocketAddr> =
        listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
    let first = *local_addrs.first().ok_or(StartError::NoAddress)?;
    let advertised = Advertised { addresses: advertised(&config, &local_addrs), port: first.port() };
    // Beside the store, because both wait for the disk when they are new.
    let (data, names) = (config.data.clone(), names(&local_addrs, &advertised, &allocator));
    let keys = tokio::task::spawn_blocking(move || Keys::open(&data, names));
    let objects = storage::open(&config.storage, &config.data).await?;
    bootstrap::run(&objects, &allocator, &advertised).await?;
    let Keys { certificates, tokens } =
        keys.await.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()))?;
    match delegation::publish(&objects, &certificates.pki.ca_pem, Timestamp::now()).await {
        Ok(()) | Err(TxnError::Conflict { .. }) => {}
        Err(error) => return Err(BootstrapError::from(error).into()),
    }
    let tls = Arc::new(tls::server(Arc::clone(&certificates.serving), &certificates.pki.ca_pem)?);
    let api = Arc::new(assemble(
        objects,
        config.runtime_config.table(),
        &certificates,
        tokens,
        allocator,
        config.patience,
    )?);
    let weak = Arc::downgrade(&api);
    api.objects.observe(move |event| {
        if let Some(api) = weak.upgrade() {
            api.follow(event);
        }
    });
    write_admin(&config.data, &certificates.pki, first)?;
    let ca_pem = certificates.pki.ca_pem.clone();
    api.ready.store(true, Ordering::Release);
    let (accept, tasks) = (CancellationToken::new(), TaskTracker::new());
    for listener in listeners {
        let served =
            server::serve(Arc::clone(&api), listener, Arc::clone(&tls), accept.clone(), tasks.clone());
        tasks.spawn(served);
    }
    tasks.spawn(crate::expiry::run(Arc::clone(&api)));
    tasks.spawn(crate::history::run(Arc::clone(&api)));
    tasks.spawn(crate::endpoints::run(Arc::clone(&api), advertised));
    tasks.spawn(crate::definitions::run(Arc::clone(&api)));
    tasks.spawn(crate::api_services::run(Arc::clone(&api)));
    tasks.spawn(crate::auth::legacy_token::run(Arc::clone(&api)));
    tasks.spawn(certificates.keep_fresh(accept.clone()));
    tracing::info!(addresses = ?local_addrs, "API server answers");
    Ok(Running { ca_pem, api, local_addrs, accept, tasks })
}

/// What the server shows others, and what it signs with.
struct Keys {
    certificates: Certificates,
    tokens: Tokens,
}

impl Keys {
    fn open(data: &Path, names: Vec<IpAddr>) -> Result<Self, StartError> {
        let pki = Pki::open(data)?;
        let (private, public) = pki.token_key()?;
        Ok(Self { tokens: Tokens::new(&private, &public)?, certificates: Certificates::new(pki, names)? })
    }
}

/// Secrets lie below, so nobody but the owner may look in.
fn create_folder(path: &Path) -> Result<(), StartError> {
    let created = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    created.map_err(|source| StartError::Folder { path: path.to_owned(), source })
}

/// The addresses given, else those bound to that others can reach.
fn advertised(config: &Config, bound: &[SocketAddr]) -> Vec<IpAddr> {
    if !config.advertise.is_empty() {
        return config.advertise.clone();
    }
    bound.iter().map(SocketAddr::ip).filter(|address| !address.is_unspecified()).collect()
}

/// Every address under which clients may reach the server.
fn names(bound: &[SocketAddr], advertised: &Advertised, allocator: &Allocator) -> Vec<IpAddr> {
    let mut names: Vec<IpAddr> = vec![IpAddr::from([127, 0, 0, 1]), std::net::Ipv6Addr::LOCALHOST.into()];
    let known = bound
        .iter()
        .map(SocketAddr::ip)
        .chain(advertised.addresses.clone())
        .chain(allocator.first_addresses());
    for address in known {
        if !names.contains(&address) && !address.is_unspecified() {
            names.push(address);
        }
    }
    names
}

fn assemble(
    objects: Objects,
    own: Arc<Table>,
    certificates: &Certificates,
    tokens: Tokens,
    allocator: Allocator,
    patience: Patience,
) -> Result<Api, StartError> {
    let to_nodes = tls::client(Arc::clone(&certificates.to_nodes), &certificates.pki.ca_pem)?;
    Ok(Api {
        objects,
        table: arc_swap::ArcSwap::new(Arc::clone(&own)),
        own,
        definitions: Definitions::default(),
        rbac: Rbac::default(),
        tokens,
        allocator,
        kubelets: Kubelets::new(to_nodes),
        backends: Backends::new()?,
        metrics: Metrics::new(Timestamp::now().as_millisecond() as f64 / 1000.0),
        ready: AtomicBool::new(false),
        store_writes: AtomicBool::new(true),
        turns: crate::turns::Turns::default(),
        told: crate::verbs::told::Told::default(),
        patience,
        seats: tokio::sync::Semaphore::new(crate::api::SEATS),
        stopping: crate::stopping::Stopping::default(),
    })
}

/// The kubeconfig of the cluster's administrator.
fn write_admin(data: &Path, pki: &Pki, bound: SocketAddr) -> Result<(), StartError> {
    let host = match bound.ip() {
        ip if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        ip => ip,
    };
    let pair = pki.client("kubernetes-admin", "system:masters")?;
    let text = pki.kubeconfig(&server_url(host, bound.port()), "kubernetes-admin", &pair);
    Ok(write_anew(&data.join("admin.kubeconfig"), &text)?)
}

/// `https://` with an address and port.
fn server_url(host: IpAddr, port: u16) -> String {
    format!("https://{}", SocketAddr::new(host, port))
}
