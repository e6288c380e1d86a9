//! etcd under the store: transactions go there, its watch brings every change back, reads are served from memory.
//!
//! ```text
//!  txn ------> etcd Txn --------------------> revision --+
//!                |                                       | wait until it has arrived
//!  feed: watch of all keys, from what is known --> publish --> get, range, cursors
//!  sync: quorum read of the revision --------------------+ wait until it has arrived
//! ```
//!
//! The watch covers all keys, not just those of the store: every revision is then seen to arrive, and nothing depends on
//! progress notifications, which etcd before 3.4.25 and 3.5.8 may send ahead of events. An etcd that is shared with
//! something busy costs that traffic.
//!
//! Keys and the way of compaction are those of kube-apiserver, so that both may work on one etcd side by side.

mod barrier;
mod compact;
mod failure;
mod feed;
mod lease;
mod restore;
mod txn;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use tokio::task::JoinSet;

use self::barrier::Barrier;
use self::feed::{Feed, Position};
use self::lease::Leases;
pub use self::restore::{RestoreError, restore};
use crate::engine::EngineError;
use crate::entry::{Extract, Intake};
use crate::log::Log;
use crate::shared::Shared;
use crate::store::{OpenError, Options};

/// How long one request may take; etcd itself gives up after 7 s.
const REQUEST: Duration = Duration::from_secs(8);
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(2);
/// A silent connection is asked whether it is alive this often, and has this long to answer.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3));
/// Largest answer that is read: a page of a load, or the events of many transactions.
const LARGEST_ANSWER: usize = 256 << 20;
/// Keys of one page when everything is read.
const PAGE: i64 = 1000;

/// Where etcd is, and how its values look.
#[derive(Debug, Clone)]
pub struct EtcdOptions {
    /// URLs such as `https://10.0.0.1:2379`; all of one cluster.
    pub endpoints: Vec<String>,
    pub tls: Option<EtcdTls>,
    /// Only keys that begin with this are the store's, such as `/registry/`.
    pub root: String,
    pub codec: Codec,
}

/// Credentials for etcd, in PEM.
#[derive(Clone)]
pub struct EtcdTls {
    /// Authorities that sign etcd's certificates.
    pub authorities: String,
    /// Certificate and key of this client, when etcd asks for them.
    pub identity: Option<(String, String)>,
}

impl std::fmt::Debug for EtcdTls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("EtcdTls").field("identity", &self.identity.is_some()).finish_non_exhaustive()
    }
}

/// Translates values between their form in memory and the form they have in etcd.
#[derive(Debug, Clone, Copy)]
pub struct Codec {
    pub encode: fn(&str, &Bytes) -> Bytes,
    pub decode: fn(&str, Bytes) -> Result<Bytes, CodecError>,
}

/// Why a value cannot be read.
pub type CodecError = Box<dyn std::error::Error + Send + Sync>;

impl Codec {
    /// Values lie in etcd as they are.
    pub const PLAIN: Self = Self { encode: |_, value| value.clone(), decode: |_, value| Ok(value) };
}

/// The connection of one store. Dropping it ends its tasks.
pub(crate) struct Etcd<H> {
    client: Client,
    codec: Codec,
    shared: Arc<Shared<H>>,
    arrived: Position,
    connected: Arc<AtomicBool>,
    barrier: Barrier,
    leases: Leases,
    _tasks: JoinSet<()>,
}

impl<H> std::fmt::Debug for Etcd<H> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Etcd").field("arrived", &self.arrived).finish_non_exhaustive()
    }
}

impl<H: Send + Sync + 'static> Etcd<H> {
    /// Connects, reads everything, and follows from there.
    pub(crate) async fn open(
        etcd: &EtcdOptions,
        options: Options,
        extract: Extract<H>,
    ) -> Result<(Self, Arc<Shared<H>>), OpenError> {
        let client = connect(etcd).await?;
        restore::refuse_half_restored(&client).await?;
        let connected = Arc::new(AtomicBool::new(false));
        let intake = Intake { extract, packed: options.packed };
        let feed = Feed {
            client: client.clone(),
            root: etcd.root.clone(),
            codec: etcd.codec,
            intake,
            connected: Arc::clone(&connected),
        };
        let (entries, revision, newest) = feed.load_earlier().await?;
        let log = Log::new(revision, options.log_events, options.log_bytes);
        let shared = Arc::new(Shared::new(entries, revision, log, intake));
        let arrived = Position::new(revision);
        let mut tasks = JoinSet::new();
        tasks.spawn(feed.run(Arc::clone(&shared), arrived.clone()));
        tasks.spawn(compact::run(client.clone()));
        let seen = arrived.clone();
        if !seen.reach(newest).await {
            return Err(EngineError::Behind { revision: newest, seen: seen.get() }.into());
        }
        let barrier = Barrier::spawn(&client, &mut tasks);
        let etcd = Self {
            client,
            codec: etcd.codec,
            shared: Arc::clone(&shared),
            arrived,
            connected,
            barrier,
            leases: Leases::default(),
            _tasks: tasks,
        };
        Ok((etcd, shared))
    }

    /// Whether etcd's news arrive.
    pub(crate) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Returns when everything that was committed before the call is visible here.
    pub(crate) async fn sync(&self) -> Result<(), EngineError> {
        let before = self.arrived.get();
        let revision = self.barrier.revision().await?;
        if revision < before {
            return Err(EngineError::WentBack { from: before, to: revision });
        }
        if self.arrived.reach(revision).await {
            return Ok(());
        }
        Err(EngineError::Behind { revision, seen: self.arrived.get() })
    }
}

async fn connect(etcd: &EtcdOptions) -> Result<Client, EngineError> {
    let (interval, timeout) = KEEP_ALIVE;
    let mut options = ConnectOptions::new()
        .with_connect_timeout(CONNECT)
        .with_timeout(REQUEST)
        .with_keep_alive(interval, timeout)
        .with_keep_alive_while_idle(true)
        .with_require_leader(true);
    if let Some(tls) = &etcd.tls {
        let mut config = TlsOptions::new().ca_certificate(Certificate::from_pem(&tls.authorities));
        if let Some((certificate, key)) = &tls.identity {
            config = config.identity(Identity::from_pem(certificate, key));
        }
        options = options.with_tls(config);
    }
    let connected = Client::connect(&etcd.endpoints, Some(options)).await;
    connected.map_err(|error| failure::remote("connect to etcd", error))
}
