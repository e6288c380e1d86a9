//! The agent's side of CNI: attachments come from the plugin over `<run-dir>/cni.sock` and become rows.

pub mod counts;
pub mod install;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cni::proto::attachments_server::{Attachments, AttachmentsServer};
use cni::{proto, spool};
use ipnetwork::IpNetwork;
use nix::sys::statfs::{NSFS_MAGIC, statfs};
use parking_lot::Mutex;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use self::counts::{Counts, Refusal};
use crate::ipam::{Addresses, AllocateError, JournalError, Wanted};
use crate::tables::{
    self, Attachment, Complaint, Endpoint, EndpointId, EndpointState, HostPort, ObjectName, Protocol, Source,
    Tables,
};

/// The kernel's random name for this boot.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";
/// How long ADD waits for the kernel; the plugin waits longer.
const ATTACH_PATIENCE: Duration = Duration::from_secs(20);
/// How often is looked whether the namespace of a pod that is being attached is still there.
const NAMESPACE_PERIOD: Duration = Duration::from_millis(250);
/// How often the spool is looked at: a plugin may queue a DEL in the moment the socket comes up.
const SPOOL_PERIOD: Duration = Duration::from_secs(15);

/// Why the CNI server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum CniError {
    /// The kernel does not say which boot this is.
    #[error("cannot read {BOOT}")]
    Boot(#[source] io::Error),
    /// The addresses cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The socket cannot be made.
    #[error("cannot listen on {}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The server failed.
    #[error("the CNI server failed")]
    Serve(#[from] tonic::transport::Error),
    /// The plugin cannot be installed.
    #[error(transparent)]
    Install(#[from] install::InstallError),
}

/// The attachments of this node.
#[derive(Debug, Clone)]
pub struct Cni {
    tables: Arc<Tables>,
    addresses: Arc<Mutex<Addresses>>,
    spool: PathBuf,
    counts: Arc<Counts>,
}

impl Cni {
    /// Restores the attachments of the journal into the tables.
    pub fn restore(tables: Arc<Tables>, state_dir: &Path) -> Result<Self, CniError> {
        let boot = std::fs::read_to_string(BOOT).map_err(CniError::Boot)?;
        let addresses = Addresses::open(&state_dir.join("addresses.journal"), boot.trim())?;
        for endpoint in addresses.endpoints() {
            tables.put_endpoint(endpoint.clone());
        }
        let cni = Self {
            tables,
            addresses: Arc::new(Mutex::new(addresses)),
            spool: state_dir.join("cni-del"),
            counts: Arc::default(),
        };
        cni.replay();
        cni.tables.synced(Source::Endpoints);
        Ok(cni)
    }

    /// Where the plugin queues a DEL while the agent is away.
    pub fn spool(&self) -> &Path {
        &self.spool
    }

    /// Attachments made and refused.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Every network of pods here with how many of its addresses are in use, and how many there are.
    pub fn fill(&self) -> Vec<(IpNetwork, (u64, u64))> {
        self.addresses.lock().fill()
    }

    /// Takes the socket.
    pub fn listen(&self, socket: &Path) -> Result<UnixListener, CniError> {
        listen(socket)
    }

    /// Serves the plugin until `stop`.
    pub async fn serve(self, listener: UnixListener, stop: CancellationToken) -> Result<(), CniError> {
        let spooler = tokio::spawn(self.clone().replay_often(stop.clone()));
        tonic::transport::Server::builder()
            .add_service(AttachmentsServer::new(self))
            .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop.cancelled_owned())
            .await?;
        spooler.abort();
        Ok(())
    }

    /// Removes every attachment `keep` does not know; says how many.
    pub fn retain(&self, keep: impl Fn(&EndpointId) -> bool) -> Result<u32, JournalError> {
        let gone: Vec<EndpointId> =
            self.addresses.lock().endpoints().map(Endpoint::id).filter(|id| !keep(id)).collect();
        let mut removed = 0;
        for id in gone {
            removed += u32::from(self.detach(&id)?);
        }
        Ok(removed)
    }

    async fn replay_often(self, stop: CancellationToken) {
        loop {
            self.replay();
            tokio::select! {
                () = tokio::time::sleep(SPOOL_PERIOD) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Does what plugins asked while nobody listened.
    fn replay(&self) {
        let waiting = match spool::waiting(&self.spool) {
            Ok(waiting) => waiting,
            Err(error) => {
                tracing::error!(dir = %self.spool.display(), %error, "the queued DELs cannot be read");
                return;
            }
        };
        for (path, del) in waiting {
            let id = EndpointId { container_id: del.container_id, ifname: del.ifname };
            match self.detach(&id) {
                Ok(known) => tracing::info!(container = id.container_id, known, "a queued DEL is done"),
                Err(error) => {
                    tracing::error!(container = id.container_id, %error, "a queued DEL waits on");
                    continue;
                }
            }
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::error!(path = %path.display(), %error, "a queued DEL that is done cannot be removed");
            }
        }
    }

    fn detach(&self, id: &EndpointId) -> Result<bool, JournalError> {
        // The row first: an address is free only when nothing claims it any more.
        let row = self.tables.remove_endpoint(id).is_some();
        let released = self.addresses.lock().release(id, Instant::now())?;
        Ok(row || released)
    }

    fn allocate(&self, wanted: Wanted) -> Result<Endpoint, AllocateError> {
        let networks = self.tables.pod_cidrs().borrow().clone();
        let mut addresses = self.addresses.lock();
        addresses.use_networks(&networks);
        addresses.allocate(wanted, Instant::now())
    }

    async fn attach(&self, wanted: Wanted) -> Result<proto::AddReply, (Refusal, Status)> {
        let started = Instant::now();
        let (id, netns) = (wanted.id.clone(), wanted.netns_path.clone());
        if !is_namespace(&netns) {
            return Err((Refusal::NoNamespace, no_namespace(&netns)));
        }
        let broken = |error: JournalError| (Refusal::Journal, broken(&error));
        let failed = |status| (Refusal::Journal, status);
        // The reconciler is told on the same thread: it begins while this task is still to be woken.
        let allocate =
            |cni: &Self| cni.allocate(wanted).inspect(|endpoint| cni.tables.put_endpoint(endpoint.clone()));
        let allocated = self.blocking(allocate).await.map_err(failed)?;
        let endpoint = allocated.map_err(|error| (Refusal::from(&error), refused(&error)))?;
        let outcome = tokio::select! {
            attached = self.tables.attached(&id, ATTACH_PATIENCE) => {
                attached.map_err(|error| (Refusal::Kernel, Status::internal(error.to_string())))
            }
            () = vanished(&netns) => Err((Refusal::NoNamespace, no_namespace(&netns))),
        };
        let attachment = match outcome {
            Ok(attachment) => attachment,
            Err(refusal) => {
                self.blocking(move |cni| cni.detach(&id)).await.map_err(failed)?.map_err(broken)?;
                return Err(refusal);
            }
        };
        tracing::info!(
            container = id.container_id,
            pod = format!("{}/{}", endpoint.pod_namespace, endpoint.pod_name),
            addresses = ?endpoint.addresses,
            took_ms = started.elapsed().as_secs_f64() * 1000.0,
            "attached"
        );
        Ok(reply(&endpoint, &attachment))
    }

    /// Says to the pod's owner why it has no network.
    fn complain(&self, pod: &proto::Pod, refusal: Refusal, message: &str) {
        if pod.name.is_empty() {
            return;
        }
        let object = ObjectName { namespace: pod.namespace.clone(), name: pod.name.clone() };
        // A uid that is no UUID is one of a static pod's; the event does without.
        let uid = tables::uid(&pod.uid);
        let (reason, message) = (refusal.reason(), message.to_owned());
        self.tables.complain(Complaint { kind: "Pod", object, uid, reason, message });
    }

    /// Runs what touches the journal's disk away from the event loop.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let own = self.clone();
        tokio::task::spawn_blocking(move || work(&own))
            .await
            .map_err(|error| Status::internal(format!("the journal task failed: {error}")))
    }
}

#[tonic::async_trait]
impl Attachments for Cni {
    async fn add(&self, request: Request<proto::AddRequest>) -> Result<Response<proto::AddReply>, Status> {
        let request = request.into_inner();
        let id = id_of(request.attachment)?;
        let pod = request.pod.unwrap_or_default();
        let wanted = Wanted {
            id,
            netns_path: PathBuf::from(&request.netns),
            pod_namespace: pod.namespace.clone(),
            pod_name: pod.name.clone(),
            pod_uid: pod.uid.clone(),
            host_ports: request.port_mappings.iter().filter_map(host_port).collect::<Result<_, _>>()?,
        };
        match self.attach(wanted).await {
            Ok(reply) => {
                self.counts.make();
                Ok(Response::new(reply))
            }
            Err((refusal, status)) => {
                self.counts.refuse(refusal);
                self.complain(&pod, refusal, status.message());
                Err(status)
            }
        }
    }

    async fn del(&self, request: Request<proto::DelRequest>) -> Result<Response<proto::DelReply>, Status> {
        let id = id_of(request.into_inner().attachment)?;
        self.blocking(move |cni| cni.detach(&id)).await?.map_err(|error| broken(&error))?;
        Ok(Response::new(proto::DelReply {}))
    }

    async fn check(
        &self,
        request: Request<proto::CheckRequest>,
    ) -> Result<Response<proto::CheckReply>, Status> {
        let request = request.into_inner();
        let id = id_of(request.attachment)?;
        let known = self.addresses.lock().endpoint(&id).cloned();
        let Some(endpoint) = known else {
            return Err(Status::not_found(format!(
                "there is no attachment {} {}",
                id.container_id, id.ifname
            )));
        };
        for believed in &request.addresses {
            let bare = believed.split('/').next().unwrap_or_default();
            if !bare.parse::<IpAddr>().is_ok_and(|address| endpoint.addresses.contains(&address)) {
                return Err(Status::failed_precondition(format!("{} has no address {believed}", id.ifname)));
            }
        }
        match self.tables.endpoint_state(&id) {
            Some(EndpointState::Applied(_)) => Ok(Response::new(proto::CheckReply {})),
            Some(EndpointState::Failed(reason)) => Err(Status::failed_precondition(reason.to_string())),
            Some(EndpointState::Pending) | None => {
                Err(Status::failed_precondition("the attachment is not in the kernel"))
            }
        }
    }

    async fn status(&self, _: Request<proto::StatusRequest>) -> Result<Response<proto::StatusReply>, Status> {
        if self.tables.pod_cidrs().borrow().is_empty() {
            return Err(refused(&AllocateError::NoNetwork));
        }
        Ok(Response::new(proto::StatusReply {}))
    }

    async fn gc(&self, request: Request<proto::GcRequest>) -> Result<Response<proto::GcReply>, Status> {
        let valid = request.into_inner().valid;
        let keep = move |id: &EndpointId| {
            valid.iter().any(|known| known.container_id == id.container_id && known.ifname == id.ifname)
        };
        let removed = self.blocking(move |cni| cni.retain(keep)).await?.map_err(|error| broken(&error))?;
        Ok(Response::new(proto::GcReply { removed }))
    }
}

/// Whether a path leads to a namespace: what is left of an unmounted one is a plain file.
fn is_namespace(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == NSFS_MAGIC)
}

/// Returns when the namespace is gone.
async fn vanished(path: &Path) {
    while is_namespace(path) {
        tokio::time::sleep(NAMESPACE_PERIOD).await;
    }
}

fn no_namespace(path: &Path) -> Status {
    Status::not_found(format!("there is no network namespace at {}", path.display()))
}

/// A socket file may remain of an agent that was killed; one that somebody answers on is not ours to take.
fn listen(socket: &Path) -> Result<UnixListener, CniError> {
    let failed = |source| CniError::Listen { path: socket.to_owned(), source };
    if let Some(dir) = socket.parent() {
        std::fs::create_dir_all(dir).map_err(failed)?;
    }
    if std::os::unix::net::UnixStream::connect(socket).is_ok() {
        return Err(failed(io::Error::new(io::ErrorKind::AddrInUse, "another agent answers there")));
    }
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(socket).map_err(failed)?;
    let only_root = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(socket, only_root).map_err(failed)?;
    Ok(listener)
}

/// `None` for a mapping that asks for no port of the host, as some runtimes send.
fn host_port(mapping: &proto::PortMapping) -> Option<Result<HostPort, Status>> {
    if mapping.host_port == 0 {
        return None;
    }
    let refused = || Status::invalid_argument(format!("port mapping {mapping:?} cannot be understood"));
    let port = |number| u16::try_from(number).ok().filter(|number| *number != 0).ok_or_else(refused);
    let read = || {
        let protocol = match mapping.protocol.to_ascii_lowercase().as_str() {
            "" | "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return Err(refused()),
        };
        let host_ip = match mapping.host_ip.as_str() {
            "" => None,
            text => Some(text.parse::<IpAddr>().ok().ok_or_else(refused)?).filter(|ip| !ip.is_unspecified()),
        };
        let (host_port, container_port) = (port(mapping.host_port)?, port(mapping.container_port)?);
        Ok(HostPort { host_ip, host_port, container_port, protocol })
    };
    Some(read())
}

fn id_of(attachment: Option<proto::Attachment>) -> Result<EndpointId, Status> {
    match attachment {
        Some(proto::Attachment { container_id, ifname })
            if !container_id.is_empty() && !ifname.is_empty() =>
        {
            Ok(EndpointId { container_id, ifname })
        }
        _ => Err(Status::invalid_argument("the request names no container and interface")),
    }
}

fn refused(error: &AllocateError) -> Status {
    match error {
        AllocateError::NoNetwork => Status::unavailable(error.to_string()),
        AllocateError::Exhausted(_) => Status::resource_exhausted(error.to_string()),
        AllocateError::Journal(error) => broken(error),
    }
}

fn broken(error: &JournalError) -> Status {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    // The code that the plugin turns into CNI's for input and output.
    Status::data_loss(format!("{error}{cause}"))
}

fn reply(endpoint: &Endpoint, attachment: &Attachment) -> proto::AddReply {
    let interfaces = vec![
        proto::Interface {
            name: attachment.host_link.clone(),
            mac: mac(attachment.host_mac),
            mtu: attachment.mtu,
            sandbox: String::new(),
        },
        proto::Interface {
            name: endpoint.ifname.clone(),
            mac: mac(attachment.pod_mac),
            mtu: attachment.mtu,
            sandbox: endpoint.netns_path.display().to_string(),
        },
    ];
    let gateway = |address: &IpAddr| {
        attachment.gateways.iter().find(|gateway| gateway.is_ipv4() == address.is_ipv4()).copied()
    };
    let ips = endpoint.addresses.iter().map(|address| proto::Address {
        address: format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 }),
        gateway: gateway(address).map(|gateway| gateway.to_string()).unwrap_or_default(),
        interface: 1,
    });
    let routes = attachment.gateways.iter().map(|gateway| proto::Route {
        dst: if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" }.to_owned(),
        gw: gateway.to_string(),
    });
    proto::AddReply { interfaces, ips: ips.collect(), routes: routes.collect() }
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests;
