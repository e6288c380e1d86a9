//! The CNI server, asked over its socket.

use cni::proto::attachments_client::AttachmentsClient;
use tonic::transport::{Channel, Endpoint as Address};

use super::*;

/// An agent whose reconciler attaches everything at once.
struct Agent {
    dir: tempfile::TempDir,
    tables: Arc<Tables>,
    client: AttachmentsClient<Channel>,
    cni: Cni,
    stop: CancellationToken,
}

impl Agent {
    async fn start(dir: tempfile::TempDir) -> Self {
        let agent = Self::without_kernel(dir).await;
        tokio::spawn(attach_all(Arc::clone(&agent.tables)));
        agent
    }

    /// Nothing is ever attached.
    async fn without_kernel(dir: tempfile::TempDir) -> Self {
        let tables = Arc::new(Tables::default());
        tables.set_pod_cidrs(vec!["10.244.0.0/29".parse().unwrap(), "fd00:244::/64".parse().unwrap()]);
        let cni = Cni::restore(Arc::clone(&tables), dir.path()).unwrap();
        let stop = CancellationToken::new();
        let socket = dir.path().join("cni.sock");
        let listener = cni.listen(&socket).unwrap();
        tokio::spawn(cni.clone().serve(listener, stop.clone()));
        let address = Address::from_shared(format!("unix://{}", socket.display())).unwrap();
        let client = AttachmentsClient::new(address.connect().await.unwrap());
        Self { dir, tables, client, cni, stop }
    }

    async fn restart(self) -> Self {
        self.stop.cancel();
        drop(self.client);
        tokio::time::sleep(Duration::from_millis(50)).await;
        Self::start(self.dir).await
    }

    async fn add(&mut self, id: &str) -> Result<proto::AddReply, Status> {
        self.add_into(id, "/proc/self/ns/net").await
    }

    async fn add_into(&mut self, id: &str, netns: &str) -> Result<proto::AddReply, Status> {
        let request = proto::AddRequest {
            attachment: attachment(id),
            netns: netns.into(),
            pod: Some(proto::Pod { namespace: "n".into(), name: id.into(), uid: "u".into() }),
            port_mappings: Vec::new(),
        };
        self.client.add(request).await.map(Response::into_inner)
    }

    async fn del(&mut self, id: &str) {
        self.client.del(proto::DelRequest { attachment: attachment(id) }).await.unwrap();
    }

    fn attached(&self) -> Vec<String> {
        self.tables.snapshot().endpoints.keys().map(|id| id.container_id.clone()).collect()
    }
}

async fn attach_all(tables: Arc<Tables>) {
    let mut changes = tables.changes();
    loop {
        for id in tables.snapshot().endpoints.keys() {
            let attachment = Attachment {
                host_link: "hw1".into(),
                host_mac: [2; 6],
                pod_mac: [4; 6],
                gateways: vec!["169.254.1.1".parse().unwrap(), "fe80::1".parse().unwrap()],
                mtu: 1450,
            };
            tables.report_endpoint(id, EndpointState::Applied(attachment));
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

fn attachment(id: &str) -> Option<proto::Attachment> {
    Some(proto::Attachment { container_id: id.into(), ifname: "eth0".into() })
}

#[tokio::test]
async fn an_attachment_is_made_kept_across_a_restart_and_removed() {
    let mut agent = Agent::start(tempfile::tempdir().unwrap()).await;
    let reply = agent.add("a").await.unwrap();
    let addresses: Vec<&str> = reply.ips.iter().map(|ip| ip.address.as_str()).collect();
    assert_eq!(addresses, ["10.244.0.1/32", "fd00:244::1/128"]);
    assert_eq!(reply.ips[1].gateway, "fe80::1");
    assert_eq!((reply.interfaces[1].name.as_str(), reply.interfaces[1].mtu), ("eth0", 1450));
    let mut agent = agent.restart().await;
    assert_eq!(agent.attached(), ["a"]);
    agent.del("a").await;
    agent.del("a").await;
    assert!(agent.attached().is_empty());
    assert_eq!(agent.add("b").await.unwrap().ips[0].address, "10.244.0.2/32", "the address of a rests");
}

#[tokio::test]
async fn check_says_what_is_not_as_it_was_made() {
    let mut agent = Agent::start(tempfile::tempdir().unwrap()).await;
    agent.add("a").await.unwrap();
    let check = |id: &str, address: &str| proto::CheckRequest {
        attachment: attachment(id),
        netns: "/n".into(),
        addresses: vec![address.into()],
    };
    tokio::time::sleep(Duration::from_millis(20)).await;
    agent.client.check(check("a", "10.244.0.1/32")).await.unwrap();
    let code = agent.client.check(check("a", "10.244.0.9/32")).await.unwrap_err().code();
    assert_eq!(code, tonic::Code::FailedPrecondition);
    let code = agent.client.check(check("b", "10.244.0.1/32")).await.unwrap_err().code();
    assert_eq!(code, tonic::Code::NotFound);
}

#[tokio::test]
async fn garbage_collection_and_queued_removals_free_addresses() {
    let mut agent = Agent::start(tempfile::tempdir().unwrap()).await;
    for id in ["a", "b", "c", "d", "e", "f"] {
        agent.add(id).await.unwrap();
    }
    let full = agent.add("g").await.unwrap_err();
    assert_eq!(full.code(), tonic::Code::ResourceExhausted);
    assert!(full.message().contains("10.244.0.0/29"), "{full}");
    let told = agent.tables.complaints().unwrap().try_recv().unwrap();
    assert_eq!((told.reason, told.object.name.as_str()), ("PodAddressesExhausted", "g"));
    assert_eq!(agent.cni.fill()[0], ("10.244.0.0/29".parse().unwrap(), (6, 6)));
    let refused: Vec<_> = agent.cni.counts().refused().filter(|(_, count)| *count > 0).collect();
    assert_eq!((agent.cni.counts().made(), refused), (6, vec![("exhausted", 1)]));
    let valid = ["a", "b", "c"].into_iter().filter_map(attachment).collect();
    let removed = agent.client.gc(proto::GcRequest { valid }).await.unwrap().into_inner().removed;
    assert_eq!((removed, agent.attached()), (3, vec!["a".to_owned(), "b".into(), "c".into()]));
    let waiting = spool::Waiting { container_id: "b".into(), ifname: "eth0".into() };
    spool::queue(&agent.dir.path().join("cni-del"), &waiting).unwrap();
    let agent = agent.restart().await;
    assert_eq!(agent.attached(), ["a", "c"]);
    assert!(spool::waiting(&agent.dir.path().join("cni-del")).unwrap().is_empty());
}

#[tokio::test]
async fn without_a_network_the_runtime_is_told_to_come_again() {
    let mut agent = Agent::start(tempfile::tempdir().unwrap()).await;
    agent.tables.set_pod_cidrs(Vec::new());
    assert_eq!(agent.add("a").await.unwrap_err().code(), tonic::Code::Unavailable);
    let status = agent.client.status(proto::StatusRequest {}).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    let second = Cni::restore(Arc::clone(&agent.tables), agent.dir.path()).unwrap();
    let taken = second.listen(&agent.dir.path().join("cni.sock")).unwrap_err();
    assert!(taken.to_string().contains("cannot listen"), "{taken}");
}

#[tokio::test]
async fn a_namespace_that_is_not_there_or_vanishes_ends_the_wait_and_frees_the_address() {
    let mut agent = Agent::without_kernel(tempfile::tempdir().unwrap()).await;
    let file = agent.dir.path().join("plain");
    std::fs::write(&file, "").unwrap();
    for nowhere in ["/run/netns/nowhere", file.to_str().unwrap()] {
        let error = agent.add_into("a", nowhere).await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::NotFound, "{error}");
    }
    // The namespace of a process that ends while its pod is being attached.
    let mut process = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let netns = format!("/proc/{}/ns/net", process.id());
    let (tables, started) = (Arc::clone(&agent.tables), Instant::now());
    let end = tokio::spawn(async move {
        let mut changes = tables.changes();
        while tables.look(|rows| rows.endpoints.is_empty()) {
            changes.changed().await.unwrap();
        }
        process.kill().unwrap();
        process.wait().unwrap();
    });
    let error = agent.add_into("b", &netns).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::NotFound, "{error}");
    assert!(started.elapsed() < ATTACH_PATIENCE);
    end.await.unwrap();
    assert!(agent.attached().is_empty());
    assert_eq!(agent.cni.fill()[0].1.0, 0);
}

#[tokio::test]
async fn a_full_disk_is_said_as_such_and_nothing_is_attached() {
    let mut agent = Agent::start(tempfile::tempdir().unwrap()).await;
    agent.add("a").await.unwrap();
    agent.cni.addresses.lock().fill_disk();
    let error = agent.add("b").await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::DataLoss, "{error}");
    assert_eq!(agent.attached(), ["a"]);
}
